"""VGG16 (Simonyan and Zisserman 2015) without its fully connected layers: the second trunk of Shen et al. 2019."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mammojax.models.layers import HE_NORMAL, Frozen, convolution, never, relu
from mammojax.models.max_pool import max_pool

CONVS = (2, 2, 3, 3, 3)
"""Convolutions in each of the five blocks."""


class VGG16(nn.Module):
    """VGG16 without its top: float [B, H, W, C] → (features, intermediates), both in `dtype`.

    Features are [B, ⌊H/32⌋, ⌊W/32⌋, 8·width]; `intermediates` holds "block1" … "block5", each after its 2×2 max pool.
    Parameters are block{b}_conv{c}/{kernel, bias}, float32. It has no BatchNorm, hence no `batch_stats`; `train` and
    `frozen` are there because every trunk takes them.

    Attributes:
        width: channels of the first block; 64 in the paper, less for narrow nets.
        dtype: of the computation; float32 or bfloat16.
    """

    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BxHxWxC: jax.Array, train: bool = False, frozen: Frozen = never
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x, intermediates = x_BxHxWxC, {}
        for b, convs in enumerate(CONVS, start=1):
            channels = self.width * min(2 ** (b - 1), 8)
            for c in range(1, convs + 1):
                x = nn.Conv(
                    channels, (3, 3), kernel_init=HE_NORMAL, dtype=self.dtype, conv_general_dilated=convolution,
                    name=f"block{b}_conv{c}",
                )(x)  # fmt: skip
                x = relu(x)
            x = max_pool(x, 2, 2)
            intermediates[f"block{b}"] = x
        return x, intermediates
