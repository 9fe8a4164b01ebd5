"""Maximum pooling: XLA's own, or on a CPU one whose gradient does not take most of a step."""

from collections.abc import Iterator
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from mammojax.models import layers

Pads = tuple[tuple[int, int], tuple[int, int]]
LEAST = 2**18
"""Numbers of an input from which slices pay: a program with them takes longer to compile."""
LARGEST = 11
"""The side of a window whose places an int8 can number."""


def max_pool(x_BxHxWxC: jax.Array, side: int, stride: int, pads: Pads | str = "VALID") -> jax.Array:
    """The maximum of each window: float [B, H, W, C] → [B, ⌊(H + pads - side) / stride⌋ + 1, …, C].

    The first of equal values has the gradient, as with XLA. On a CPU, in programs for one device, the values of the
    windows of a large input are slices that lie side by side, and what is kept for the gradient is which of them was
    the highest; XLA's own gradient takes up to sixteen times as long (`python -m benchmarks convolutions`). Elsewhere
    it is XLA's own, which several devices can share by an image's height.

    Args:
        x_BxHxWxC: the input.
        side, stride: of a window, in pixels.
        pads: places around the image, before and after, of height and width, which are never the highest; or "VALID"
            or "SAME", as TensorFlow has them.
    """
    if not layers.alone_on_a_cpu(x_BxHxWxC) or side > LARGEST or x_BxHxWxC.size < LEAST:
        return nn.max_pool(x_BxHxWxC, (side, side), (stride, stride), pads)
    if isinstance(pads, str):
        rows, columns = jax.lax.padtype_to_pads(x_BxHxWxC.shape[1:3], (side, side), (stride, stride), pads)
        pads = (rows, columns)
    return by_slices(x_BxHxWxC, side, stride, pads)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def by_slices(x: jax.Array, side: int, stride: int, pads: Pads) -> jax.Array:
    """`max_pool` by slices."""
    return _highest(x, side, stride, pads)[0]


def _highest(x: jax.Array, side: int, stride: int, pads: Pads) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window, and the place in the window of the first that has it, int8."""
    height, width = ((n + sum(pad) - side) // stride + 1 for n, pad in zip(x.shape[1:3], pads, strict=True))
    rows, columns = _squares(x, stride, pads)
    below, right = (n * stride - m - pad[0] for n, m, pad in zip((rows, columns), x.shape[1:3], pads, strict=True))
    around = ((0, 0), (pads[0][0], below), (pads[1][0], right), (0, 0))
    padded = jnp.pad(x, around, constant_values=-jnp.inf)
    squares = padded.reshape(x.shape[0], rows, stride, columns, stride, x.shape[3])
    shape = (x.shape[0], height, width, x.shape[3])
    best, place = jnp.full(shape, -jnp.inf, x.dtype), jnp.zeros(shape, jnp.int8)
    for k, (i, j) in enumerate(_places(side)):
        y, z = i // stride, j // stride
        value = squares[:, y : y + height, i % stride, z : z + width, j % stride]
        place = jnp.where(value > best, jnp.int8(k), place)
        best = jnp.maximum(best, value)  # a value that is not a number stays
    return best, place


def _places(side: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(side) for j in range(side))


def _squares(x: jax.Array, stride: int, pads: Pads) -> tuple[int, int]:
    """How many squares of `stride` pixels cover the padded image's height and width."""
    height, width = (-(-(n + sum(pad)) // stride) for n, pad in zip(x.shape[1:3], pads, strict=True))
    return height, width


def _forward(x: jax.Array, side: int, stride: int, pads: Pads) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    best, place = _highest(x, side, stride, pads)
    return best, (place, x[:0])  # of the input, the shape alone


def _backward(
    side: int, stride: int, pads: Pads, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array]:  # fmt: skip
    """Each pixel of a square of `stride` pixels has a gradient from the windows in which it is at one place."""
    place, empty = saved
    (count, height, width, channels), (rows, columns) = g.shape, _squares(empty, stride, pads)
    of_pixel = [jnp.zeros((count, rows, columns, channels), g.dtype)] * stride**2
    for k, (i, j) in enumerate(_places(side)):
        y, z = i // stride, j // stride
        around = ((0, 0), (y, rows - height - y), (z, columns - width - z), (0, 0))
        of_pixel[i % stride * stride + j % stride] += jnp.pad(jnp.where(place == k, g, 0), around)
    squares = jnp.stack(of_pixel, axis=3).reshape(count, rows, columns, stride, stride, channels)
    image = squares.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows * stride, columns * stride, channels)
    top, left = pads[0][0], pads[1][0]
    return (image[:, top : top + empty.shape[1], left : left + empty.shape[2]],)


by_slices.defvjp(_forward, _backward)
