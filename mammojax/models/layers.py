"""The layers that the networks share: 1×1 convolution, BatchNorm that can be frozen, pooling, the rectifier.

Inside `guided()` the rectifier has the backward rule of guided back-propagation.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

Frozen = Callable[[str], bool]
"""Takes the path of a BatchNorm, such as "trunk/stage4_unit3/bn1"; True keeps its running statistics as they are."""

HE_NORMAL = nn.initializers.he_normal()

CHUNK = 32768
"""Numbers of the gradient of a depthwise convolution that are summed at a time: they fit a core's cache."""


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

    A strided slice and a product over channels compute it: the same mathematics, a third faster to train on a CPU.
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
        x = jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
        return x if bias is None else x + bias.reshape(1, 1, 1, -1)


class Depthwise(nn.Module):
    """Depthwise convolution without bias, [B, H, W, C] → [B, ⌈H/stride⌉, ⌈W/stride⌉, C], TensorFlow's "SAME" padding.

    The parameter is "kernel" [k, k, 1, C]. On a CPU it is a sum over the kernel's taps of shifted, strided slices:
    XLA's own is 20 to 90 times slower there. Elsewhere it is XLA's own. Both are the same mathematics.
    """

    kernel: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        side, channels = self.kernel, x_BxHxWxC.shape[-1]
        kernel = self.param("kernel", HE_NORMAL, (side, side, 1, channels), jnp.float32)
        x, kernel = promote_dtype(x_BxHxWxC, kernel, dtype=self.dtype)
        return depthwise(x, kernel, self.stride, by_slices=jax.default_backend() == "cpu")


def depthwise(x_BxHxWxC: jax.Array, kernel: jax.Array, stride: int, by_slices: bool) -> jax.Array:
    """The convolution of `Depthwise`, by shifted slices or by XLA; kernel [k, k, 1, C]."""
    if by_slices:
        return _by_slices(x_BxHxWxC, kernel, stride)
    return jax.lax.conv_general_dilated(
        x_BxHxWxC, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x_BxHxWxC.shape[-1],
    )  # fmt: skip


def _same(size: int, side: int, stride: int) -> tuple[int, tuple[int, int]]:
    """The output's size and the zeros before and after the input, of TensorFlow's "SAME" padding."""
    out = -(-size // stride)
    lack = max((out - 1) * stride + side - size, 0)
    return out, (lack // 2, lack - lack // 2)


def _taps(x: jax.Array, kernel: jax.Array, out: tuple[int, int], stride: int) -> jax.Array:
    """The sum over a kernel's taps of slices of a padded input, each times the tap's weights."""
    side, ends = len(kernel), [(o - 1) * stride + 1 for o in out]
    taps = [
        x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] * kernel[i, j, 0][None, None, None]
        for i in range(side)
        for j in range(side)
    ]
    return sum(taps[1:], taps[0])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _by_slices(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    (height, rows), (width, columns) = (_same(n, len(kernel), stride) for n in x.shape[1:3])
    return _taps(jnp.pad(x, ((0, 0), rows, columns, (0, 0))), kernel, (height, width), stride)


def _slices_forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _by_slices(x, kernel, stride), (x, kernel)


def _slices_backward(stride: int, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients of `_by_slices`; written out because those that JAX derives take two to four times as long.

    The input's gradient is again a sum of shifted slices; the kernel's is summed over chunks of rows that stay in the
    processor's cache.
    """
    x, kernel = saved
    (count, *size, channels), side = x.shape, len(kernel)
    (height, rows), (width, columns) = (_same(n, side, stride) for n in size)
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


_by_slices.defvjp(_slices_forward, _slices_backward)


def pool(x_BxHxWxC: jax.Array) -> jax.Array:
    """Global average pooling → float32 [B, C], summed in float32 whatever the computation's dtype."""
    return jnp.mean(x_BxHxWxC.astype(jnp.float32), axis=(1, 2))


_GUIDED = ContextVar("guided", default=False)


@jax.custom_vjp
def _guided_relu(x: jax.Array) -> jax.Array:
    return nn.relu(x)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return nn.relu(x), x > 0


def _backward(positive: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(positive, nn.relu(gradient), 0),)


_guided_relu.defvjp(_forward, _backward)


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0). Inside `guided()` its gradient passes only where activation and gradient are both positive."""
    return _guided_relu(x) if _GUIDED.get() else nn.relu(x)


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6), guided as `relu` is."""
    return jnp.minimum(relu(x), 6)


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
