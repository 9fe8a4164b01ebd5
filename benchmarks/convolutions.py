"""Layers that are written for a CPU, beside XLA's own: python -m benchmarks convolutions [--batch 4]

Depthwise ones are `mammojax.models.layers.depthwise` by slices, with written-out gradients; "derived" is the same sum
of slices with the gradients that JAX derives; the shapes are those of EfficientNet-Lite0 on 224 × 224. The 3×3 ones
are `layers.in_parts`; shapes of VGG16 on 224 × 224, and those of ResNet50's stages on 1152 × 896, which begin with one
of stride 2. So is the 7×7 one of 64 channels, the first of ResNet50 there; that of 16 is `layers.conv7x7`, the first of
ResNet-22 on an eighth of a window of the paper's. Maximum pooling is
`max_pool.by_slices`; the first of ResNet50 and VGG16 on 224 × 224 and of that ResNet-22. The 1×1 ones are
`layers.conv1x1`, those of ResNet50 on 1152 × 896 that take a unit's channels to a quarter, with a batch of 2.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _timing
from mammojax.models import layers, max_pool

DEPTHWISE = ((112, 112, 32, 3, 1), (56, 56, 144, 5, 2), (14, 14, 480, 3, 1), (7, 7, 1152, 5, 1))
FULL = (
    (224, 224, 64, 3, 1), (112, 112, 128, 3, 1), (56, 56, 256, 3, 1), (28, 28, 512, 3, 1), (288, 224, 64, 3, 1),
    (288, 224, 128, 3, 2), (144, 112, 128, 3, 1), (72, 56, 256, 3, 1), (36, 28, 512, 3, 1),
)  # fmt: skip
FIRST = ((334, 242, 16, 7, 2), (1152, 896, 64, 7, 2))
ONES = ((288, 224, 256, 1, 1), (144, 112, 512, 1, 1), (72, 56, 1024, 1, 1))
POOLS = ((112, 112, 64, 3, 2), (224, 224, 64, 2, 2), (167, 121, 16, 3, 2))
"""Height, width, channels, kernel and stride."""


def main(arguments: Sequence[str]) -> Iterator[dict]:
    """A row for each shape: milliseconds of forward and backward pass, and the ratios of ours to the others."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks convolutions")
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args(arguments)
    layers_of = {"depthwise": DEPTHWISE, "3×3": FULL, "7×7": FIRST, "1×1": ONES, "maximum": POOLS}
    for layer, shapes in layers_of.items():
        for height, width, channels, kernel, stride in shapes:
            rng = np.random.default_rng(0)
            seen = {16: 1, 64: 3}[channels] if layer == "7×7" else channels
            batch = 2 if layer == "1×1" else args.batch
            x = jnp.asarray(rng.normal(size=(batch, height, width, seen)), jnp.float32)
            inputs = seen if layer in ("3×3", "7×7") else 1
            weights = (channels, channels // 4) if layer == "1×1" else (kernel, kernel, inputs, channels)
            w = jnp.asarray(rng.normal(size=weights), jnp.float32)
            ways = _ways(layer, kernel, stride, seen)
            seconds = _timing.medians({name: _turns(way, x, w) for name, way in ways.items()})
            row = {"layer": layer, "height": height, "width": width, "channels": channels, "kernel": kernel}
            row |= {"stride": stride, "batch": batch}
            row |= {f"{name}_ms": value * 1e3 for name, value in seconds.items()}
            yield row | {f"to_{name}": seconds["ours"] / seconds[name] for name in seconds if name != "ours"}


def _ways(layer: str, side: int, stride: int, seen: int) -> dict[str, Callable[[jax.Array, jax.Array], jax.Array]]:
    if layer in ("3×3", "7×7"):
        pad = side // 2
        return {
            "ours": lambda x, w: layers.conv7x7(x, w, pad) if seen == 1 else layers.in_parts(x, w, stride, pad),
            "xla": lambda x, w: layers.by_xla(x, w, stride, pad),
        }
    if layer == "1×1":
        return {"ours": layers.conv1x1, "xla": lambda x, w: jnp.einsum("bhwc,cd->bhwd", x, w)}
    if layer == "maximum":
        pads = ((1, 1), (1, 1)) if side == 3 else ((0, 0), (0, 0))
        return {
            "ours": lambda x, _: max_pool.by_slices(x, side, stride, pads),
            "xla": lambda x, _: nn.max_pool(x, (side, side), (stride, stride), pads),
        }
    derived = layers._by_slices.fun  # the function without its custom gradients
    return {
        "ours": lambda x, w: layers.depthwise(x, w, stride, by_slices=True),
        "xla": lambda x, w: layers.depthwise(x, w, stride, by_slices=False),
        "derived": lambda x, w: derived(x, w, stride, "same"),
    }


def _turns(
    way: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, w: jax.Array
) -> Callable[[int], object]:  # fmt: skip
    """Runs forward and backward pass of a convolution some times."""
    gradient = jax.jit(jax.grad(lambda x, w: jnp.sum(way(x, w) ** 2), (0, 1)))

    def turns(count: int) -> None:
        for _ in range(count):
            result = gradient(x, w)
        jax.block_until_ready(result)

    return turns
