"""DenseNet-121 (Huang et al. 2017): trunk of the patch classifier of Wu et al. 2019 (section IV-B).

torchvision's network. The published patch model pads as TensorFlow's "SAME" does (`docs/reproduce.md`), which
differs from torchvision's padding only in the first convolution and the max pool.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mammojax.models.layers import HE_NORMAL, Conv1x1, Frozen, convolution, never, norms, relu
from mammojax.models.max_pool import max_pool

PADDINGS: dict[str, tuple[Any, Any]] = {"torch": (((3, 3), (3, 3)), ((1, 1), (1, 1))), "same": ("SAME", "SAME")}
"""Padding of the first convolution, and of the max pool."""

BN_MOMENTUM, BN_EPSILON = 0.9, 1e-5


class DenseNet121(nn.Module):
    """DenseNet-121 without its top: float [B, H, W, C] → (features, intermediates), both in `dtype`.

    Features are [B, H/32, W/32, 16·width] with the default blocks, after the last BN and ReLU. On 256×256 patches and
    under a `PatchClassifier` of four classes (malignant, benign, outside, negative) it is the paper's patch model.
    `intermediates` holds "stem_conv" and "stem_bn" (H/2), "stem" (after the max pool, H/4), "block1" … "block4",
    "transition1" … "transition3" and "final_bn" (before the last ReLU). Parameters: stem_conv, stem_bn,
    block{b}_layer{l}/{bn1, conv1, bn2, conv2}, transition{t}/{bn, conv}, final_bn, float32; no convolution has a bias.

    Attributes:
        width: channels of the stem, and twice the growth a layer; 64 in the paper.
        blocks: dense layers in each of the four blocks.
        padding: "torch" (torchvision, whose ImageNet weights it may start from) or "same" (the published patch model).
        dtype: of the computation; float32 or bfloat16.
    """

    width: int = 64
    blocks: tuple[int, int, int, int] = (6, 12, 24, 16)
    padding: str = "torch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        conv_pad, pool_pad = PADDINGS[self.padding]
        norm = norms(self, train, frozen, BN_MOMENTUM, BN_EPSILON, self.dtype)
        intermediates = {}
        x = intermediates["stem_conv"] = nn.Conv(
            self.width,
            (7, 7),
            strides=2,
            padding=conv_pad,
            use_bias=False,
            kernel_init=HE_NORMAL,
            dtype=self.dtype,
            conv_general_dilated=convolution,
            name="stem_conv",
        )(x_BxHxWxC)
        x = intermediates["stem_bn"] = norm(x, "stem_bn")
        x = intermediates["stem"] = max_pool(relu(x), 3, 2, pool_pad)
        for b, layers in enumerate(self.blocks, start=1):
            for k in range(1, layers + 1):
                layer = DenseLayer(self.width // 2, self.dtype, name=f"block{b}_layer{k}")
                x = jnp.concatenate([x, layer(x, train, frozen)], axis=-1)
            intermediates[f"block{b}"] = x
            if b < len(self.blocks):
                x = intermediates[f"transition{b}"] = Transition(self.dtype, name=f"transition{b}")(x, train, frozen)
        x = intermediates["final_bn"] = norm(x, "final_bn")
        return relu(x), intermediates


class DenseLayer(nn.Module):
    """BN, ReLU, 1×1 to four times `growth`, BN, ReLU, 3×3: [B, H, W, C] → [B, H, W, growth], the new channels."""

    growth: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never) -> jax.Array:
        norm = norms(self, train, frozen, BN_MOMENTUM, BN_EPSILON, self.dtype)
        x = relu(norm(x_BxHxWxC, "bn1"))
        x = Conv1x1(4 * self.growth, use_bias=False, dtype=self.dtype, name="conv1")(x)
        x = relu(norm(x, "bn2"))
        conv = nn.Conv(self.growth, (3, 3), use_bias=False, kernel_init=HE_NORMAL, dtype=self.dtype, name="conv2")
        return conv(x)


class Transition(nn.Module):
    """BN, ReLU, 1×1 to half the channels, 2×2 average pool: [B, H, W, C] → [B, ⌊H/2⌋, ⌊W/2⌋, C/2]."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never) -> jax.Array:
        x = norms(self, train, frozen, BN_MOMENTUM, BN_EPSILON, self.dtype)(x_BxHxWxC, "bn")
        x = Conv1x1(x.shape[-1] // 2, use_bias=False, dtype=self.dtype, name="conv")(relu(x))
        return nn.avg_pool(x, (2, 2), strides=(2, 2))
