"""The layers that the networks share: 1×1, 3×3 and depthwise convolutions, BatchNorm that can be frozen, stochastic
depth, pooling, the activations.

Inside `guided()` the activations have the backward rule of guided back-propagation.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

Frozen = Callable[[str], bool]
"""Takes the path of a BatchNorm, such as "trunk/stage4_unit3/bn1"; True keeps its running statistics as they are."""

Activation = Callable[[jax.Array], jax.Array]

HE_NORMAL = nn.initializers.he_normal()

CHUNK = 32768
"""Numbers of the gradient of a depthwise convolution that are summed at a time: they fit a core's cache."""
PLACES = 128
"""Places of a convolution's gradient that are multiplied at a time, on a CPU."""
LARGE, WIDE = 3 * 2**19, 64
"""Bytes of an input or output, and channels, from which that beats XLA's own."""
FEW, NARROW, HIGH = 3, 16, 56
"""Channels of an image; channels of an output up to which, and sides of images from which the gradient `by_blocks`
beats XLA's own."""


def never(path: str) -> bool:
    """The default `frozen`: no BatchNorm is frozen."""
    return False


def norms(
    module: nn.Module, train: bool, frozen: Frozen, momentum: float, epsilon: float, dtype: Any
) -> Callable[[jax.Array, str], jax.Array]:
    """The function that applies the BatchNorms of one module, (x, name) → x normalised.

    A BatchNorm uses batch statistics while it trains unfrozen, else the running ones.
    """

    def norm(x: jax.Array, name: str) -> jax.Array:
        running = not train or frozen("/".join((*module.path, name)))
        layer = nn.BatchNorm(use_running_average=running, momentum=momentum, epsilon=epsilon, dtype=dtype, name=name)
        return layer(x)

    return norm


class Conv1x1(nn.Module):
    """1×1 convolution, [B, H, W, C] → [B, ⌈H/stride⌉, ⌈W/stride⌉, features]; parameters as `nn.Conv` has them.

    A strided slice and a product over channels compute it: the same mathematics, a third faster to train on a CPU. On
    one CPU device the kernel's gradient of an input or output from LARGE bytes is that of `conv1x1`, in float32.
    """

    features: int
    stride: int = 1
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        kernel = self.param("kernel", HE_NORMAL, (1, 1, x_BxHxWxC.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32) if self.use_bias else None
        x = x_BxHxWxC[:, :: self.stride, :: self.stride]
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        in_parts = (
            alone_on_a_cpu(x) and x.dtype == jnp.float32
            and x.size // x.shape[-1] * max(kernel.shape[2:]) * 4 >= LARGE
        )  # fmt: skip
        x = conv1x1(x, kernel[0, 0]) if in_parts else jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
        return x if bias is None else x + bias.reshape(1, 1, 1, -1)


def alone_on_a_cpu(x: jax.Array) -> bool:
    """Whether what is traced is a program for one CPU device, be it inside `jax.shard_map`.

    A program that is exported, where the batch has a name and no number, is for other devices too.
    """
    alone = jax.device_count() == 1 or bool(jax.sharding.get_abstract_mesh().manual_axes)
    return jax.default_backend() == "cpu" and alone and all(isinstance(n, int) for n in x.shape)


def convolution(
    lhs: jax.Array, rhs: jax.Array, window_strides: Sequence[int], padding: Any, **others: Any
) -> jax.Array:  # fmt: skip
    """`jax.lax.conv_general_dilated` for `nn.Conv`, with the gradients of some kernels that a CPU's XLA is slow at.

    Those of 3×3 and 7×7 kernels, of stride 1 or 2, are summed `in_parts` for inputs or outputs from LARGE bytes, if
    images or at least WIDE channels go in, as many come out, and a map makes two parts. The first convolution of a
    narrow network, 7×7 of stride 2, goes `by_blocks`. The forward pass is XLA's own, so that scores do not depend on
    the number of devices. Both are for float32, in programs for one device (inside `jax.shard_map` too): a scan over
    rows would bring the bands of an image together. All else is XLA's own.
    """
    (height, width), (*sides, channels, features) = lhs.shape[1:3], rhs.shape
    side, stride = sides[0], window_strides[0]
    none, half = (((n, n), (n, n)) for n in (0, side // 2))
    if isinstance(padding, str):
        pads: Any = half if (padding, stride) == ("SAME", 1) else None
    else:
        pads = tuple(map(tuple, padding))  # `nn.Conv` makes it a list
    if (
        alone_on_a_cpu(lhs) and lhs.dtype == rhs.dtype == jnp.float32 and others.get("feature_group_count", 1) == 1
        and sides in ([3, 3], [7, 7]) and tuple(window_strides) in ((1, 1), (2, 2)) and pads in (none, half)
    ):  # fmt: skip
        pad = pads[0][0]
        most = 4 * lhs.size // channels * max(channels, features // stride**2)
        two = height * width >= 2 * PLACES * stride**2  # else each part would add a whole kernel for few places
        if most >= LARGE and two and features >= WIDE and (channels >= WIDE or channels <= FEW):
            return in_parts(lhs, rhs, stride, pad)
        if (side, stride) == (7, 2) and channels <= FEW and features <= NARROW and min(height, width) >= HIGH:
            return conv7x7(lhs, rhs, pad)
    y: jax.Array = jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **others)
    return y


def _keeping(layer: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, tuple[jax.Array, jax.Array]]]:
    """The forward rule of a layer with a gradient of its own: the output, and what the backward rule takes."""
    return lambda x, kernel, *options: (layer(x, kernel, *options), (x, kernel))


def by_xla(x_BxHxWxC: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    """XLA's own convolution, [B, H, W, C], [k, k, C, D] → [B, H', W', D], with `pad` zeros on each side."""
    pads, names = ((pad, pad), (pad, pad)), ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x_BxHxWxC, kernel, (stride, stride), pads, dimension_numbers=names)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv7x7(x_BxHxWxC: jax.Array, kernel: jax.Array, pad: int) -> jax.Array:
    """7×7 convolution of stride 2, whose kernel's gradient is that of `by_blocks`; arguments as there."""
    return by_xla(x_BxHxWxC, kernel, 2, pad)


def _conv7x7_backward(pad: int, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    (of_input,) = jax.vjp(lambda x: by_xla(x, kernel, 2, pad), x)[1](g)
    (of_kernel,) = jax.vjp(lambda kernel: by_blocks(x, kernel, pad), kernel)[1](g)
    return of_input, of_kernel


conv7x7.defvjp(_keeping(conv7x7), _conv7x7_backward)


def by_blocks(x_BxHxWxC: jax.Array, kernel: jax.Array, pad: int) -> jax.Array:
    """7×7 convolution of stride 2 as one of 4×4 and stride 1 over blocks of 2×2 pixels, with four times the channels.

    Args:
        x_BxHxWxC: float [B, H, W, C].
        kernel: [7, 7, C, D].
        pad: zeros on each side.

    Returns:
        [B, ⌊(H + 2 pad - 7) / 2⌋ + 1, …, D]: the same mathematics, in another order of summation.
    """
    count, *size, channels = x_BxHxWxC.shape
    blocks = [(n + 2 * pad - 7) // 2 + 4 for n in size]
    ends = [max(0, 2 * m - n - pad) for n, m in zip(size, blocks, strict=True)]
    padded = jnp.pad(x_BxHxWxC, ((0, 0), (pad, ends[0]), (pad, ends[1]), (0, 0)))[:, : 2 * blocks[0], : 2 * blocks[1]]
    squares = padded.reshape(count, blocks[0], 2, blocks[1], 2, channels).transpose(0, 1, 3, 2, 4, 5)
    even = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0))).reshape(4, 2, 4, 2, channels, -1)
    wide = even.transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, 4 * channels, -1)
    return by_xla(squares.reshape(count, *blocks, 4 * channels), wide, 1, 0)


@jax.custom_vjp
def conv1x1(x_BxHxWxC: jax.Array, kernel: jax.Array) -> jax.Array:
    """A product over channels, [B, H, W, C], [C, D] → [B, H, W, D], with a kernel's gradient in parts.

    For a product over all places at once XLA first writes one of its operands with channels outermost, one number to a
    line of the cache.
    """
    return jnp.einsum("bhwc,cd->bhwd", x_BxHxWxC, kernel)


def _conv1x1_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    flat, gradient = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    places = min(PLACES, len(flat))
    parts, rest = divmod(len(flat), places)

    def product(first: Any, count: int) -> jax.Array:
        own, of_own = (jax.lax.dynamic_slice_in_dim(array, first, count) for array in (flat, gradient))
        return jnp.einsum("nc,nd->cd", own, of_own)

    def add(total: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
        return total + product(k * places, places), None

    of_kernel, _ = jax.lax.scan(add, product(parts * places, rest), jnp.arange(parts))
    return jnp.einsum("bhwd,cd->bhwc", g, kernel), of_kernel


conv1x1.defvjp(_keeping(conv1x1), _conv1x1_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def in_parts(x_BxHxWxC: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    """The convolution `by_xla`, arguments as there, with a kernel's gradient that is summed over parts of some rows.

    XLA's own gradient multiplies at a quarter to a half of a processor's speed once the input does not fit its caches.
    """
    return by_xla(x_BxHxWxC, kernel, stride, pad)


def _in_parts_backward(
    stride: int, pad: int, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A part of the kernel's gradient is the product of all shifted inputs of some rows with the rows' gradient."""
    x, kernel = saved
    (of_input,) = jax.vjp(lambda x: by_xla(x, kernel, stride, pad), x)[1](g)
    (count, height, width, features), channels, side = g.shape, x.shape[-1], len(kernel)
    chunks = -(-height // max(1, PLACES // width))
    rows = -(-height // chunks)
    below = chunks * rows - height
    padded = jnp.pad(x, ((0, 0), (pad, pad + stride * below), (pad, pad), (0, 0)))
    parts = jnp.pad(g, ((0, 0), (0, below), (0, 0), (0, 0))).reshape(count * chunks, rows * width, features)
    high, wide = ((n - 1) * stride + 1 for n in (rows, width))

    def add(total: jax.Array, k_and_g: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        k, part = k_and_g
        place = (k // chunks, k % chunks * rows * stride, 0, 0)
        piece = jax.lax.dynamic_slice(padded, place, (1, high + side - 1, wide + side - 1, channels))[0]
        taps = [piece[i : i + high : stride, j : j + wide : stride] for i in range(side) for j in range(side)]
        shifted = jnp.concatenate([tap.reshape(-1, channels) for tap in taps], axis=-1)
        return total + jnp.einsum("nk,nd->kd", shifted, part), None

    zero = jnp.zeros((side * side * channels, features), kernel.dtype)
    of_kernel, _ = jax.lax.scan(add, zero, (jnp.arange(count * chunks), parts))
    return of_input, of_kernel.reshape(kernel.shape)


in_parts.defvjp(_keeping(in_parts), _in_parts_backward)


class Depthwise(nn.Module):
    """Depthwise convolution, [B, H, W, C] → [B, ⌈H/stride⌉, ⌈W/stride⌉, C].

    The parameters are "kernel" [k, k, 1, C] and, with `use_bias`, "bias" [C]. On a CPU it is a sum over the kernel's
    taps of shifted, strided slices: XLA's own is 20 to 90 times slower there. Elsewhere it is XLA's own. Both are the
    same mathematics. `padding`: "same", TensorFlow's, or "symmetric", torch's (k - 1) / 2 on each side.
    """

    kernel: int
    stride: int = 1
    dtype: Any = jnp.float32
    padding: str = "same"
    use_bias: bool = False

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        side, channels = self.kernel, x_BxHxWxC.shape[-1]
        kernel = self.param("kernel", HE_NORMAL, (side, side, 1, channels), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32) if self.use_bias else None
        x, kernel, bias = promote_dtype(x_BxHxWxC, kernel, bias, dtype=self.dtype)
        x = depthwise(x, kernel, self.stride, jax.default_backend() == "cpu", self.padding)
        return x if bias is None else x + bias.reshape(1, 1, 1, -1)


def depthwise(
    x_BxHxWxC: jax.Array, kernel: jax.Array, stride: int, by_slices: bool, padding: str = "same"
) -> jax.Array:  # fmt: skip
    """The convolution of `Depthwise`, by shifted slices or by XLA; kernel [k, k, 1, C], padding as `paddings`."""
    if by_slices:
        return _by_slices(x_BxHxWxC, kernel, stride, padding)
    pads = paddings(x_BxHxWxC.shape[1:3], len(kernel), stride, padding)
    return jax.lax.conv_general_dilated(
        x_BxHxWxC, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x_BxHxWxC.shape[-1],
    )  # fmt: skip


def paddings(size: Sequence[int], side: int, stride: int, padding: str) -> list[tuple[int, int]]:
    """Zeros (before, after) height and width `size` for a kernel of this side.

    "same" is TensorFlow's: as few as give ⌈n / stride⌉ positions, the odd one after; "symmetric" is torch's
    (side - 1) / 2 before and after.
    """
    if padding == "symmetric":
        return [((side - 1) // 2, (side - 1) // 2)] * 2
    lack = [max((-(-n // stride) - 1) * stride + side - n, 0) for n in size]
    return [(n // 2, n - n // 2) for n in lack]


def _taps(x: jax.Array, kernel: jax.Array, out: tuple[int, int], stride: int) -> jax.Array:
    """The sum over a kernel's taps of slices of a padded input, each times the tap's weights."""
    side, ends = len(kernel), [(o - 1) * stride + 1 for o in out]
    taps = [
        x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] * kernel[i, j, 0][None, None, None]
        for i in range(side)
        for j in range(side)
    ]
    return sum(taps[1:], taps[0])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_slices(x: jax.Array, kernel: jax.Array, stride: int, padding: str) -> jax.Array:
    height, width = (-(-n // stride) for n in x.shape[1:3])
    rows, columns = paddings(x.shape[1:3], len(kernel), stride, padding)
    return _taps(jnp.pad(x, ((0, 0), rows, columns, (0, 0))), kernel, (height, width), stride)


def _slices_backward(
    stride: int, padding: str, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradients of `_by_slices`; written out because those that JAX derives take two to four times as long.

    The input's gradient is again a sum of shifted slices; the kernel's is summed over chunks of rows that stay in the
    processor's cache.
    """
    x, kernel = saved
    (count, *size, channels), side = x.shape, len(kernel)
    height, width = (-(-n // stride) for n in size)
    rows, columns = paddings(size, side, stride, padding)
    spread = []
    for n, out, (before, _) in zip(size, (height, width), (rows, columns), strict=True):
        low = side - 1 - before
        spread.append((low, n + side - 1 - low - ((out - 1) * stride + 1), stride - 1))
    between = jax.lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *spread, (0, 0, 0)))
    of_input = _taps(between, kernel[::-1, ::-1], (size[0], size[1]), 1)

    chunk = max(1, min(height, CHUNK // (width * channels)))
    chunks = -(-height // chunk)
    below = max(rows[1], (chunks * chunk - 1) * stride + side - size[0] - rows[0])
    padded = jnp.pad(x, ((0, 0), (rows[0], below), columns, (0, 0)))
    g = jnp.pad(g, ((0, 0), (0, chunks * chunk - height), (0, 0), (0, 0)))
    length, end = (chunk - 1) * stride + 1, (width - 1) * stride + 1

    def add(total: jax.Array, k_and_g: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        k, part = k_and_g
        place = (k // chunks, k % chunks * chunk * stride, 0, 0)
        piece = jax.lax.dynamic_slice(padded, place, (1, length + side - 1, padded.shape[2], channels))[0]
        sums = [
            jnp.sum(piece[i : i + length : stride, j : j + end : stride] * part, (0, 1), jnp.float32)
            for i in range(side)
            for j in range(side)
        ]
        return total + jnp.stack(sums), None

    parts = (jnp.arange(count * chunks), g.reshape(count * chunks, chunk, width, channels))
    of_kernel, _ = jax.lax.scan(add, jnp.zeros((side * side, channels), jnp.float32), parts)
    return of_input, of_kernel.reshape(kernel.shape).astype(kernel.dtype)


_by_slices.defvjp(_keeping(_by_slices), _slices_backward)


def stochastic_depth(x_BxHxWxC: jax.Array, rate: float, train: bool, key: Callable[[], jax.Array]) -> jax.Array:
    """The branch of a residual block with whole examples dropped (Huang et al. 2016), for training.

    Each example of the batch is dropped with probability `rate`; those kept are divided by 1 - rate, so that the
    mean stays. `key` gives a JAX random key; it is called only where something may be dropped.
    """
    if not train or not rate:
        return x_BxHxWxC
    kept = jax.random.bernoulli(key(), 1 - rate, (x_BxHxWxC.shape[0], 1, 1, 1))
    return jnp.where(kept, x_BxHxWxC / (1 - rate), 0).astype(x_BxHxWxC.dtype)


def pool(x_BxHxWxC: jax.Array) -> jax.Array:
    """Global average pooling → float32 [B, C], summed in float32 whatever the computation's dtype."""
    return jnp.mean(x_BxHxWxC.astype(jnp.float32), axis=(1, 2))


_GUIDED = ContextVar("guided", default=False)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _guided(activation: Activation, x: jax.Array) -> jax.Array:
    return activation(x)


def _forward(activation: Activation, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return activation(x), x


def _backward(activation: Activation, x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    _, slope = jax.vjp(activation, x)
    return (jnp.where(x > 0, slope(nn.relu(gradient))[0], 0),)


_guided.defvjp(_forward, _backward)


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0). Inside `guided()` its gradient passes only where activation and gradient are both positive."""
    return _guided(nn.relu, x) if _GUIDED.get() else nn.relu(x)


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6), guided as `relu` is."""
    return jnp.minimum(relu(x), 6)


def swish(x: jax.Array) -> jax.Array:
    """x / (1 + exp(-x)) (Ramachandran et al. 2017). Guided, its own gradient passes where `relu`'s would; the rule is
    ours, Springenberg et al. know rectifiers only."""
    return _guided(nn.swish, x) if _GUIDED.get() else nn.swish(x)


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution's share below x (Hendrycks & Gimpel 2016), exact, guided as `swish` is."""
    return _guided(_exact_gelu, x) if _GUIDED.get() else _exact_gelu(x)


def _exact_gelu(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=False)


@contextlib.contextmanager
def guided() -> Iterator[None]:
    """Networks traced inside differentiate by guided back-propagation (Springenberg et al. 2015).

    It acts while a function is traced, not while it runs: enter it inside the jitted function.
    """
    token = _GUIDED.set(True)
    try:
        yield
    finally:
        _GUIDED.reset(token)
