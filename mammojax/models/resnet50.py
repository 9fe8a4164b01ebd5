"""ResNet50, the original v1 of He et al. 2016: trunk of Shen et al. 2019, and the bottleneck unit its heads reuse.

Two families of published weights fit it (see `weights.py`): Keras strides on the first 1×1 of a stage and has
convolution biases; torchvision strides on the 3×3 and has none.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mammojax.models.layers import HE_NORMAL, Conv1x1, Frozen, convolution, never, norms, relu
from mammojax.models.max_pool import max_pool


class Bottleneck(nn.Module):
    """Post-activation bottleneck unit: 1×1, 3×3, 1×1, each with BN, plus a shortcut, then ReLU.

    The shortcut is a strided 1×1 with BN where `project` is set, else the input itself, of `widths[2]` channels.
    """

    widths: tuple[int, int, int]
    stride: int = 1
    project: bool = False
    stride_on: str = "1x1"
    conv_bias: bool = True
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never) -> jax.Array:
        norm = norms(self, train, frozen, self.bn_momentum, self.bn_epsilon, self.dtype)
        conv1x1 = partial(Conv1x1, use_bias=self.conv_bias, dtype=self.dtype)
        first, second = (self.stride, 1) if self.stride_on == "1x1" else (1, self.stride)

        x = conv1x1(self.widths[0], first, name="conv1")(x_BxHxWxC)
        x = relu(norm(x, "bn1"))
        x = nn.Conv(
            self.widths[1],
            (3, 3),
            strides=second,
            padding=((1, 1), (1, 1)),  # explicit: "SAME" with stride 2 would pad (0, 1) where torch pads (1, 1)
            use_bias=self.conv_bias,
            kernel_init=HE_NORMAL,
            dtype=self.dtype,
            conv_general_dilated=convolution,
            name="conv2",
        )(x)
        x = relu(norm(x, "bn2"))
        x = norm(conv1x1(self.widths[2], name="conv3")(x), "bn3")
        shortcut = x_BxHxWxC
        if self.project:
            shortcut = conv1x1(self.widths[2], self.stride, name="shortcut_conv")(shortcut)
            shortcut = norm(shortcut, "shortcut_bn")
        return relu(x + shortcut)


class ResNet50(nn.Module):
    """ResNet50 without its top: float [B, H, W, C] → (features, intermediates), both in `dtype`.

    Features are [B, H/32, W/32, 32·width] (rounded up). `intermediates` holds "stem" (H/4, after the pool) and
    "stage1" … "stage4" (H/4 … H/32). Parameters: stem_conv, stem_bn, and
    stage{s}_unit{u}/{conv1, bn1, conv2, bn2, conv3, bn3, shortcut_conv, shortcut_bn}, all float32; BN's running
    statistics are in `batch_stats`. Defaults are those of Keras 2.0.8, which the paper used.

    Attributes:
        width: channels of the stem; 64 in the paper, 16 in the quickstart.
        blocks: bottleneck units in each of the four stages.
        stride_on: "1x1" (the paper, Keras) or "3x3" (torchvision): which convolution of a stage's first unit strides.
        conv_bias: whether convolutions have a bias: True in Keras, False in torchvision.
        bn_momentum: share of the old running statistic that a step keeps; Keras 0.99, torchvision 0.9.
        bn_epsilon: Keras 2.0.8 1e-3, Keras 3 1.001e-5, torchvision 1e-5.
        dtype: of the computation; float32 or bfloat16.
    """

    width: int = 64
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    stride_on: str = "1x1"
    conv_bias: bool = True
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = nn.Conv(
            self.width,
            (7, 7),
            strides=2,
            padding=((3, 3), (3, 3)),
            use_bias=self.conv_bias,
            kernel_init=HE_NORMAL,
            dtype=self.dtype,
            conv_general_dilated=convolution,
            name="stem_conv",
        )(x_BxHxWxC)
        x = norms(self, train, frozen, self.bn_momentum, self.bn_epsilon, self.dtype)(x, "stem_bn")
        x = max_pool(relu(x), 3, 2, ((1, 1), (1, 1)))
        intermediates = {"stem": x}
        for s, units in enumerate(self.blocks, start=1):
            narrow = self.width * 2 ** (s - 1)
            for u in range(1, units + 1):
                x = Bottleneck(
                    widths=(narrow, narrow, 4 * narrow),
                    stride=2 if u == 1 and s > 1 else 1,
                    project=u == 1,
                    stride_on=self.stride_on,
                    conv_bias=self.conv_bias,
                    bn_momentum=self.bn_momentum,
                    bn_epsilon=self.bn_epsilon,
                    dtype=self.dtype,
                    name=f"stage{s}_unit{u}",
                )(x, train, frozen)
            intermediates[f"stage{s}"] = x
        return x, intermediates
