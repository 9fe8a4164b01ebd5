"""Variables of a network without running or compiling its `init`, which takes most of a small test's time."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict


def random_variables(model: nn.Module, *inputs: Any, seed: int = 0) -> dict[str, Any]:
    """Random kernels that keep activations in range, with BN statistics far from (0, 1)."""
    rng = np.random.default_rng(seed)
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), *inputs))

    def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, shape)
        return rng.normal(0, np.prod(shape[:-1]) ** -0.5 if name == "kernel" else 0.3, shape)

    return unflatten_dict({leaf: values(leaf[-1], x.shape).astype(x.dtype) for leaf, x in shapes.items()})
