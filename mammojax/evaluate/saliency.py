"""The pixels that a whole-image classifier's malignant score depends on (Shen et al. 2019, "Saliency map and error
analysis"): guided back-propagation, "only positive gradients for positive activations"."""

from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mammojax.models import classifiers
from mammojax.models.layers import guided

Tree = Any
CUTOFF = 0.06  # "a low cutoff of 0.06 was used to remove background noise" (Fig. 4)


@cache
def _gradient(model: nn.Module, mean: float, channels: int) -> Any:
    @jax.jit
    def gradient(variables: Tree, images: jax.Array) -> jax.Array:
        def score(pixels: jax.Array) -> jax.Array:
            with guided():
                logits, _ = model.apply(variables, classifiers.as_input(pixels, mean, channels))
            return logits[:, 1].sum()

        return jax.grad(score)(images.astype(jnp.float32))

    return gradient


def saliency(
    config: ml_collections.ConfigDict, facts: dict[str, Any], variables: Tree, images: np.ndarray | jax.Array
) -> np.ndarray:
    """Guided gradients of the malignant logit with respect to each pixel.

    Negative gradients count as nothing; each map is divided by its maximum, and values below CUTOFF become 0. The
    paper does not say whether its "cancer class output" is before or after the softmax: before, since after it the
    gradient vanishes for images that the net is sure of.

    Args:
        config, facts, variables: of a whole-image run (`train.checkpoint.restore_best`).
        images: uint16 [B, H, W, 1].

    Returns:
        float32 [B, H, W] in 0 … 1; all 0 where no gradient is positive.
    """
    gradient = _gradient(classifiers.build(config.model), facts["mean"], config.model.channels)
    maps = np.maximum(np.asarray(gradient(variables, jnp.asarray(images))), 0)[..., 0]
    maps /= np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-30)
    return np.where(maps >= CUTOFF, maps, 0).astype(np.float32)
