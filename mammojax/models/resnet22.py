"""ResNet-22, the column that Wu et al. 2019 give each mammography view (section IV-A, Fig. 4, Table II).

Pre-activation units, few channels where the map is large, five stages. Paper and published code differ in the padding
of the first convolution and the max pool (`docs/reproduce.md`); the published weights need the code's.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mammojax.models.layers import HE_NORMAL, Conv1x1, Frozen, convolution, never, norms, relu
from mammojax.models.max_pool import max_pool

PADDINGS = {"paper": (3, 1), "code": (0, 0)}
"""Zeros on each side of the first convolution, and of its max pool."""

BN_MOMENTUM, BN_EPSILON = 0.9, 1e-5


class PreactivationUnit(nn.Module):
    """BN, ReLU, 3×3, BN, ReLU, 3×3, plus a shortcut: [B, H, W, C] → [B, ⌈H/stride⌉, ⌈W/stride⌉, features].

    The shortcut is the input itself or, where `project` is set, a strided 1×1 of the input after its BN and ReLU.
    """

    features: int
    stride: int = 1
    project: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never) -> jax.Array:
        norm = norms(self, train, frozen, BN_MOMENTUM, BN_EPSILON, self.dtype)
        conv = partial(
            nn.Conv,
            self.features,
            (3, 3),
            padding=((1, 1), (1, 1)),  # explicit: "SAME" with stride 2 would pad (0, 1) where torch pads (1, 1)
            use_bias=False,
            kernel_init=HE_NORMAL,
            dtype=self.dtype,
            conv_general_dilated=convolution,
        )
        x = relu(norm(x_BxHxWxC, "bn1"))
        shortcut = x_BxHxWxC
        if self.project:
            shortcut = Conv1x1(self.features, self.stride, use_bias=False, dtype=self.dtype, name="shortcut_conv")(x)
        x = conv(strides=self.stride, name="conv1")(x)
        x = relu(norm(x, "bn2"))
        return conv(name="conv2")(x) + shortcut


class ResNet22(nn.Module):
    """One view's column: float [B, H, W, C] → (features float32 [B, 16·width], intermediates).

    C is 1, or 3 with heatmaps. Images are standardised, breasts face right. `intermediates` holds
    "stem_conv" (about H/2), "stem" (after the max pool, about H/4), "stage1" … "stage5" (H/4 … H/64) and "final"
    (after the last BN and ReLU), all in `dtype`. Parameters: stem_conv,
    stage{s}_unit{u}/{bn1, conv1, bn2, conv2, shortcut_conv} (a shortcut in each stage's first unit, the first stage's
    too) and final_bn, float32; BN's running statistics are in `batch_stats`.

    Attributes:
        width: channels of the first stage; each later one has twice as many. 16 in the paper.
        blocks: units in each of the five stages.
        padding: "paper" (Table II: 3 in the first convolution, 1 in the max pool) or "code" (none, as published).
        dtype: of the computation; float32 or bfloat16.
    """

    width: int = 16
    blocks: tuple[int, int, int, int, int] = (2, 2, 2, 2, 2)
    padding: str = "paper"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        conv_pad, pool_pad = PADDINGS[self.padding]
        intermediates = {}
        x = intermediates["stem_conv"] = nn.Conv(
            self.width,
            (7, 7),
            strides=2,
            padding=((conv_pad, conv_pad), (conv_pad, conv_pad)),
            use_bias=False,
            kernel_init=HE_NORMAL,
            dtype=self.dtype,
            conv_general_dilated=convolution,
            name="stem_conv",
        )(x_BxHxWxC)
        x = max_pool(x, 3, 2, ((pool_pad, pool_pad), (pool_pad, pool_pad)))
        intermediates["stem"] = x
        for s, units in enumerate(self.blocks, start=1):
            for u in range(1, units + 1):
                x = PreactivationUnit(
                    self.width * 2 ** (s - 1),
                    stride=2 if u == 1 and s > 1 else 1,
                    project=u == 1,
                    dtype=self.dtype,
                    name=f"stage{s}_unit{u}",
                )(x, train, frozen)
            intermediates[f"stage{s}"] = x
        x = norms(self, train, frozen, BN_MOMENTUM, BN_EPSILON, self.dtype)(x, "final_bn")
        x = intermediates["final"] = relu(x)
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2)), intermediates
