"""The patch classifier slid over whole images, as a heatmap of its classes (Shen et al. 2019, Fig. 4d)."""

from functools import cache
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mammojax.data.patches import PATCH_CLASSES
from mammojax.models import whole_image

Tree = Any


@cache
def _slide(model: nn.Module, mean: float, channels: int, window: int) -> Any:
    @jax.jit
    def slide(variables: Tree, images: jax.Array) -> jax.Array:
        def apply(module: nn.Module, x: jax.Array) -> jax.Array:
            features, _ = module.trunk(x)
            height, width = features.shape[1:3]
            shape = (min(window, height), min(window, width))
            padding = [(side // 2, side // 2) for side in shape]
            pooled = nn.avg_pool(
                features.astype(jnp.float32), shape, strides=(1, 1), padding=padding, count_include_pad=False
            )
            dense = variables["params"]["classifier"]
            seen = jax.nn.softmax(pooled @ dense["kernel"] + dense["bias"][None, None, None, :], axis=-1)
            # Windows of an even side lie between positions: a position takes the mean of those on both sides of it.
            return nn.avg_pool(seen, (2 - shape[0] % 2, 2 - shape[1] % 2), strides=(1, 1))

        return nn.apply(apply, model)(variables, whole_image.as_input(images, mean, channels))

    return slide


def heatmap(config: ml_collections.ConfigDict, facts: dict[str, Any], variables: Tree, images: jax.Array) -> jax.Array:
    """Softmax of the patch classes at every position of the trunk's grid.

    The trunk runs once over the image; its features are averaged over a window of a patch's own feature map (7 × 7 for
    224 pixels; s1g patches are twice as wide), stride 1, and given to the patch net's Dense layer.

    Args:
        config, facts, variables: of a patch run (`restore_best`).
        images: uint16 [B, H, W, 1].

    Returns:
        float32 [B, h, w, 5], h = H / 32 for the paper's trunks; the classes of data.patches.PATCH_CLASSES.
    """
    side = facts["patch_size"] * (2 if facts["kind"] == "patches_s1g" else 1)
    slide = _slide(whole_image.build(config.model), facts["mean"], config.model.channels, max(1, side // 32))
    return slide(variables, images)


def enlarge(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A heatmap [h, w] as float32 [height, width] of `size`, bilinear.

    A value of the grid stands for the patch whose middle is the middle of its square of 32 × 32 pixels.
    """
    return cv2.resize(np.asarray(grid, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def malignant(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The probability of a malignant lesion of either kind, float32 `size`, of a heatmap [h, w, 5]."""
    kinds = [k for k, name in enumerate(PATCH_CLASSES) if name.startswith("malignant")]
    return enlarge(grid[..., kinds].sum(-1), size)
