"""A patch classifier's windows over an image and the heatmap that they form (Wu et al. 2019, section III-B).

Patches of 256 × 256 at a stride of 70 or a little less, so that they end at the image's edge; each pixel gets the mean
probability of the patches over it. The published code chooses at random which steps are shorter, and draws from one
generator for a whole run, so that its heatmaps depend on the order of the exams. Ours are spread evenly; `rng`
gives the published choice.
"""

import random
from collections.abc import Callable

import numpy as np

PATCH, STRIDE = 256, 70


def starts(length: int, patch: int = PATCH, stride: int = STRIDE, rng: random.Random | None = None) -> np.ndarray:
    """The starts of patches along one axis, int64 [n]: the first patch at 0, the last at the far edge.

    Args:
        length: of the image's axis, at least `patch`.
        patch, stride: in pixels; no step is longer than `stride`.
        rng: chooses the shorter steps as the published code does; None spreads them evenly.
    """
    steps, left = divmod(length - patch, stride)
    if left == 0:
        return np.arange(steps + 1) * stride
    steps += 1
    if rng is None:
        return np.round(np.linspace(0, length - patch, steps + 1)).astype(np.int64)
    overlap = stride - left
    each = np.full(steps, stride - overlap // steps)
    each[rng.sample(range(steps), overlap % steps)] -= 1
    return np.concatenate([[0], np.cumsum(each)])


def heatmaps(
    image: np.ndarray,
    classify: Callable[[np.ndarray], np.ndarray],
    *,
    patch: int = PATCH,
    stride: int = STRIDE,
    batch: int = 64,
    rng: random.Random | None = None,
) -> np.ndarray:
    """The mean probability of each class at each pixel.

    Args:
        image: [H, W], cropped and facing right; standardised here, as a whole, in float64.
        classify: patches float32 [batch, patch, patch] → probabilities [batch, K]; always full batches, the last one
            filled with zeros.
        patch, stride: in pixels; an image smaller than a patch is padded with zeros at its right and lower edge.
        batch: patches at a time.
        rng: see `starts`; rows are drawn before columns.

    Returns:
        float32 [H, W, K].
    """
    height, width = image.shape
    x = image.astype(np.float64)
    x = ((x - x.mean()) / max(float(x.std()), 1e-5)).astype(np.float32)
    x = np.pad(x, ((0, max(0, patch - height)), (0, max(0, patch - width))))
    rows, columns = (starts(side, patch, stride, rng) for side in x.shape)
    corners = [(int(top), int(left)) for left in columns for top in rows]
    total, count = None, np.zeros((*x.shape, 1), np.float32)
    for first in range(0, len(corners), batch):
        chosen = corners[first : first + batch]
        patches = np.zeros((batch, patch, patch), np.float32)
        for k, (top, left) in enumerate(chosen):
            patches[k] = x[top : top + patch, left : left + patch]
        probabilities = np.asarray(classify(patches), np.float32)
        if total is None:
            total = np.zeros((*x.shape, probabilities.shape[1]), np.float32)
        for (top, left), probability in zip(chosen, probabilities, strict=False):
            total[top : top + patch, left : left + patch] += probability[None, None]
            count[top : top + patch, left : left + patch] += 1
    assert total is not None  # noqa: S101  (every image has a patch)
    return (total / count)[:height, :width]
