"""Rematerialisation by block: a block keeps its input for the backward pass, and computes the rest once more there.

Nothing in the networks knows of it: a flax interceptor takes each block of a pass into `nn.remat` (`config.remat`).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax

OPTIONS = {"cpu": {"xla_disable_hlo_passes": "cse_barrier_expander"}}
"""Of the compiler, by backend: on a CPU XLA drops the barriers that keep the second computation of a block apart from
the first one before it merges what is equal, so that both would be one and nothing would be saved."""


@contextlib.contextmanager
def rematerialised() -> Iterator[None]:
    """Networks traced inside keep less for the backward pass, with the same gradients, in more time.

    Blocks are a network's parts of the second level that have parts of their own, such as trunk/stage4_unit3 or
    head/block1_unit1 (Chen et al. 2016, "Training deep nets with sublinear memory cost"). A network of single
    convolutions, as VGG16, has none, and nothing changes.
    """
    inside = False

    def again(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal inside
        module = context.module
        single = type(module).__module__.startswith("flax.")
        if inside or single or len(module.path) != 2 or context.method_name != "__call__":
            return call(*args, **kwargs)
        x, *fixed = args

        def block(own: nn.Module, x: jax.Array) -> Any:
            nonlocal inside
            inside = True
            try:
                return type(own).__call__(own, x, *fixed, **kwargs)
            finally:
                inside = False

        return nn.remat(block)(module, x)

    with nn.intercept_methods(again):
        yield
