"""The pixels that a whole-image classifier's malignant score depends on (Shen et al. 2019, "Saliency map and error
analysis"): guided back-propagation, "only positive gradients for positive activations"."""

from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mammojax.models import classifiers
from mammojax.models.layers import guided

Tree = Any
CUTOFF = 0.06  # "a low cutoff of 0.06 was used to remove background noise" (Fig. 4)


@cache
def _gradient(model: nn.Module, mean: float, channels: int, normalise: str = "mean") -> Any:
    @jax.jit
    def gradient(variables: Tree, images: Any) -> Any:
        def score(pixels: Any) -> jax.Array:
            with guided():
                logits, _ = model.apply(variables, classifiers.as_input(pixels, mean, channels, normalise))
            return logits[:, 1].sum()

        return jax.grad(score)(jax.tree.map(lambda x: x.astype(jnp.float32), images))

    return gradient


def saliency(
    config: ml_collections.ConfigDict, facts: dict[str, Any], variables: Tree, images: Any
) -> Any:  # fmt: skip
    """Guided gradients of the malignant logit with respect to each pixel.

    Negative gradients count as nothing; each map is divided by its maximum, and values below CUTOFF become 0. The
    paper does not say whether its "cancer class output" is before or after the softmax: before, since after it the
    gradient vanishes for images that the net is sure of. The maps of a pair are divided by the maximum of both.

    Args:
        config, facts, variables: of a whole-image or two-view run (`train.checkpoint.restore_best`).
        images: uint16 [B, H, W, 1]; of a two-view run by input.

    Returns:
        float32 [B, H, W] in 0 … 1, of a two-view run by input; all 0 where no gradient is positive.
    """
    model = config.model
    gradient = _gradient(classifiers.build(model), facts["mean"], model.channels, model.get("normalise", "mean"))
    maps = jax.tree.map(
        lambda x: np.maximum(np.asarray(x), 0)[..., 0], gradient(variables, jax.tree.map(jnp.asarray, images))
    )
    highest = np.max([x.max(axis=(1, 2), keepdims=True) for x in jax.tree.leaves(maps)], axis=0)

    def scaled(map_: np.ndarray) -> np.ndarray:
        share = map_ / np.maximum(highest, 1e-30)
        return np.where(share >= CUTOFF, share, 0).astype(np.float32)

    return jax.tree.map(scaled, maps)
