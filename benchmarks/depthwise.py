"""The gradients of depthwise convolutions, ours beside XLA's own and those JAX derives: python -m benchmarks depthwise

Ours is `mammojax.models.layers.depthwise` by slices, as on a CPU, with its written-out gradients; "derived" is the same
sum of slices with the gradients that JAX derives. Shapes are those of EfficientNet-Lite0 on 224 × 224.
"""

import argparse
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _timing
from mammojax.models import layers

SHAPES = ((112, 32, 3, 1), (56, 144, 5, 2), (14, 480, 3, 1), (7, 1152, 5, 1))
"""Side, channels, kernel and stride."""


def main(arguments: Sequence[str]) -> Iterator[dict]:
    """A row for each shape: milliseconds of forward and backward pass, and the ratios of ours to both others."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks depthwise")
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args(arguments)
    for side, channels, kernel, stride in SHAPES:
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(args.batch, side, side, channels)), jnp.float32)
        w = jnp.asarray(rng.normal(size=(kernel, kernel, 1, channels)), jnp.float32)
        derived = layers._by_slices.fun  # the function without its custom gradients
        forward = {
            "ours": lambda x, w, s=stride: layers.depthwise(x, w, s, by_slices=True),
            "derived": lambda x, w, s=stride, f=derived: f(x, w, s, "same"),
            "xla": lambda x, w, s=stride: layers.depthwise(x, w, s, by_slices=False),
        }
        calls = {}
        for name, function in forward.items():
            gradient = jax.jit(jax.grad(lambda x, w, f=function: jnp.sum(f(x, w) ** 2), (0, 1)))

            def turns(count: int, gradient: object = gradient, x: jax.Array = x, w: jax.Array = w) -> None:
                for _ in range(count):
                    result = gradient(x, w)  # type: ignore[operator]
                jax.block_until_ready(result)

            calls[name] = turns
        seconds = _timing.medians(calls)
        row = {"side": side, "channels": channels, "kernel": kernel, "stride": stride, "batch": args.batch}
        row |= {f"{name}_ms": value * 1e3 for name, value in seconds.items()}
        yield row | {f"to_{name}": seconds["ours"] / seconds[name] for name in ("derived", "xla")}
