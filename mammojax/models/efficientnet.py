"""EfficientNet-B0 and B3 (Tan & Le 2019): inverted bottlenecks with squeeze-excitation and swish.

Two releases of each are in use. The original, which lukemelas ported to torch: TensorFlow's "same" padding, BatchNorm
momentum 0.99 and epsilon 1e-3 (Petrini et al. 2022 start from it). torchvision's: symmetric padding, 0.9 and 1e-5
(Petrini & Kim 2025). Lite (efficientnet_lite.py) has the same bottlenecks without squeeze-excitation.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mammojax.models.layers import (
    HE_NORMAL,
    Activation,
    Conv1x1,
    Depthwise,
    Frozen,
    never,
    norms,
    paddings,
    relu6,
    stochastic_depth,
    swish,
)

BLOCKS = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
HEAD = 1280
SCALES = {"b0": (1.0, 1.0), "b3": (1.2, 1.4)}
"""Width and depth of each variant."""
STEMS = {"b0": 32, "b3": 40}
"""Channels of the published stems."""
PADDINGS = ("same", "symmetric")
SQUEEZE = 4  # the squeezed channels are the block's input divided by it


def rounded(channels: float) -> int:
    """The nearest multiple of 8, never a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def plan(variant: str, width: int) -> list[tuple[int, int, int, int]]:
    """(kernel, stride, expansion, channels) of each block of `variant`; channels as the stem has `width`."""
    wider, deeper = SCALES[variant]
    wider *= width / STEMS[variant]
    blocks = []
    for repeats, kernel, stride, expansion, channels in BLOCKS:
        for k in range(math.ceil(repeats * deeper)):
            blocks.append((kernel, stride if k == 0 else 1, expansion, rounded(channels * wider)))
    return blocks


def group_of(variant: str, block: int) -> tuple[int, int]:
    """The group of BLOCKS that a block of `plan` belongs to, and its number inside it, both counted from 0."""
    for group, (repeats, *_) in enumerate(BLOCKS):
        units = math.ceil(repeats * SCALES[variant][1])
        if block < units:
            return group, block
        block -= units
    raise IndexError(block)


class InvertedBottleneck(nn.Module):
    """1×1 to `expansion` times the channels, depthwise, 1×1 to `channels`; the input is added where shapes are equal.

    Each convolution has a BN, all but the last an activation. Without expansion (1) the first 1×1 is left out. With
    `squeeze` there is squeeze-excitation before the last 1×1 (Hu et al. 2018): the mean over the image, 1×1 to
    `squeeze` channels, activation, 1×1 back, sigmoid, a factor of each channel; parameters se_reduce and se_expand,
    with biases.

    Attributes:
        drop: probability of dropping an example's branch in training, see `layers.stochastic_depth`; its random
            numbers come from the stream "dropout".
    """

    kernel: int
    stride: int
    expansion: int
    channels: int
    bn_momentum: float
    bn_epsilon: float
    dtype: Any
    activation: Activation = relu6
    squeeze: int = 0
    padding: str = "same"
    drop: float = 0.0

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never) -> jax.Array:
        norm = norms(self, train, frozen, self.bn_momentum, self.bn_epsilon, self.dtype)
        x, before = x_BxHxWxC, x_BxHxWxC.shape[-1]
        if self.expansion > 1:
            x = Conv1x1(before * self.expansion, use_bias=False, dtype=self.dtype, name="expand_conv")(x)
            x = self.activation(norm(x, "expand_bn"))
        x = Depthwise(self.kernel, self.stride, self.dtype, self.padding, name="depthwise_conv")(x)
        x = self.activation(norm(x, "depthwise_bn"))
        if self.squeeze:
            mean = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
            squeezed = self.activation(Conv1x1(self.squeeze, dtype=self.dtype, name="se_reduce")(mean))
            x = x * nn.sigmoid(Conv1x1(x.shape[-1], dtype=self.dtype, name="se_expand")(squeezed))
        x = Conv1x1(self.channels, use_bias=False, dtype=self.dtype, name="project_conv")(x)
        x = norm(x, "project_bn")
        if self.stride > 1 or before != self.channels:
            return x
        return x_BxHxWxC + stochastic_depth(x, self.drop, train, lambda: self.make_rng("dropout"))


class EfficientNet(nn.Module):
    """EfficientNet without its top: float [B, H, W, C] → (features, intermediates), both in `dtype`.

    Features are [B, H/32, W/32, 40·width] of B0 (rounded up), of B3 [B, H/32, W/32, 38.4·width]. `intermediates` holds
    "stem" (H/2) and "block0" … (16 blocks of B0, 26 of B3; for B0 block 0 is H/2, 1–2 H/4, 3–4 H/8, 5–10 H/16, 11–15
    H/32). Parameters: stem_conv, stem_bn, block{k}/…, head_conv, head_bn, float32, see `InvertedBottleneck`. B0 has
    4,007,548 parameters, B3 10,696,232.

    Attributes:
        variant: "b0" or "b3".
        width: channels of the stem; 32 and 40 in the published networks; all other widths scale with it.
        padding: "same" (original) or "symmetric" (torchvision).
        bn_momentum: share of the old running statistic that a step keeps; original 0.99, torchvision 0.9.
        bn_epsilon: original 1e-3, torchvision 1e-5.
        drop_path: stochastic depth: block i of n drops with probability drop_path · i / n; 0.2 in both releases.
        dtype: of the computation; float32 or bfloat16.
    """

    variant: str = "b0"
    width: int = 32
    padding: str = "same"
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        norm = norms(self, train, frozen, self.bn_momentum, self.bn_epsilon, self.dtype)
        stem = nn.Conv(
            self.width, (3, 3), strides=2, padding=paddings(x_BxHxWxC.shape[1:3], 3, 2, self.padding), use_bias=False,
            kernel_init=HE_NORMAL, dtype=self.dtype, name="stem_conv",
        )  # fmt: skip
        x = swish(norm(stem(x_BxHxWxC), "stem_bn"))
        intermediates = {"stem": x}
        blocks = plan(self.variant, self.width)
        for k, block in enumerate(blocks):
            bottleneck = InvertedBottleneck(
                *block, self.bn_momentum, self.bn_epsilon, self.dtype, swish, max(1, x.shape[-1] // SQUEEZE),
                self.padding, self.drop_path * k / len(blocks), name=f"block{k}",
            )  # fmt: skip
            x = intermediates[f"block{k}"] = bottleneck(x, train, frozen)
        last = HEAD * SCALES[self.variant][0] * self.width / STEMS[self.variant]
        x = Conv1x1(rounded(last), use_bias=False, dtype=self.dtype, name="head_conv")(x)
        return swish(norm(x, "head_bn")), intermediates
