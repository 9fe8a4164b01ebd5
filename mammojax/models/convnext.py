"""ConvNeXt (Liu et al. 2022): depthwise 7×7 convolutions with LayerNorm, no BatchNorm and no squeeze-excitation.

Tiny and Base; the network of Petrini & Kim 2025 on VinDr-Mammo is Base, as timm has it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mammojax.models.layers import HE_NORMAL, Depthwise, Frozen, gelu, never, stochastic_depth

DEPTHS = {"tiny": (3, 3, 9, 3), "base": (3, 3, 27, 3)}
"""Units of each stage."""
WIDTHS = {"tiny": 96, "base": 128}
"""Channels of the first stage of the published networks."""
EPSILON = 1e-6
LAYER_SCALE = 1e-6  # of an untrained network


class ConvNeXtUnit(nn.Module):
    """Depthwise 7×7, LayerNorm, Dense to four times the channels, GELU, Dense back, a factor of each channel, plus x.

    [B, H, W, C] → [B, H, W, C]. Parameters: depthwise_conv, norm, expand, project, gamma [C].
    """

    drop: float
    dtype: Any

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array, train: bool = False) -> jax.Array:
        channels = x_BxHxWxC.shape[-1]
        x = Depthwise(7, dtype=self.dtype, padding="symmetric", use_bias=True, name="depthwise_conv")(x_BxHxWxC)
        x = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm")(x)
        x = gelu(nn.Dense(4 * channels, dtype=self.dtype, name="expand")(x))
        x = nn.Dense(channels, dtype=self.dtype, name="project")(x)
        gamma = self.param("gamma", nn.initializers.constant(LAYER_SCALE), (channels,), jnp.float32)
        x = x * gamma.astype(self.dtype).reshape(1, 1, 1, -1)
        return x_BxHxWxC + stochastic_depth(x, self.drop, train, lambda: self.make_rng("dropout"))


class ConvNeXt(nn.Module):
    """ConvNeXt without its top: float [B, H, W, C] → (features, intermediates), both in `dtype`.

    Features are [B, H/32, W/32, 8·width]: the output of the last stage, without the LayerNorm of the published
    classifiers' heads. `intermediates` holds "stem" (H/4) and "stage1" … "stage4". Parameters, float32: stem_conv,
    stem_norm, stage{s}_norm and stage{s}_conv before stages 2 to 4, stage{s}_unit{u}/…, see `ConvNeXtUnit`. Tiny has
    27,818,592 parameters, Base 87,564,416. There are no running statistics, so `frozen` is not used.

    Attributes:
        depths: units of each stage.
        width: channels of the first stage; each further stage doubles them.
        drop_path: stochastic depth: unit i of n drops with probability drop_path · i / (n - 1).
        dtype: of the computation; float32 or bfloat16.
    """

    depths: tuple[int, ...] = DEPTHS["tiny"]
    width: int = WIDTHS["tiny"]
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x, intermediates = x_BxHxWxC, {}
        total, before = sum(self.depths), 0
        for s, units in enumerate(self.depths, start=1):
            side, place = (4, "stem") if s == 1 else (2, f"stage{s}")
            conv = nn.Conv(
                self.width * 2 ** (s - 1), (side, side), strides=side, padding="VALID", kernel_init=HE_NORMAL,
                dtype=self.dtype, name=f"{place}_conv",
            )  # fmt: skip
            norm = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name=f"{place}_norm")
            if s == 1:
                x = intermediates["stem"] = norm(conv(x))
            else:
                x = conv(norm(x))
            for u in range(1, units + 1):
                drop = self.drop_path * before / max(total - 1, 1)
                x = ConvNeXtUnit(drop, self.dtype, name=f"stage{s}_unit{u}")(x, train)
                before += 1
            intermediates[f"stage{s}"] = x
        return x, intermediates
