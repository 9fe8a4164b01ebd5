"""A patch classifier's windows over an image and the heatmap that they form (Wu et al. 2019, section III-B).

Patches of 256 × 256 at a stride of 70 or a little less, so that they end at the image's edge; each pixel gets the mean
probability of the patches over it. The published code chooses at random which steps are shorter, and draws from one
generator for a whole run, so that its heatmaps depend on the order of the exams. Ours are spread evenly; `rng`
gives the published choice.
"""

import random
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

PATCH, STRIDE = 256, 70
CELL = 32  # pixels from one position of a trunk to the next
WHOLE = 256
AHEAD = 2
"""Batches of patches that the device has while the host cuts the next one."""


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
        classify: patches float32 [batch, patch, patch] → probabilities [batch, K], perhaps before they are computed;
            always full batches, the last one filled with zeros.
        patch, stride: in pixels; an image smaller than a patch is padded with zeros at its right and lower edge.
        batch: patches at a time.
        rng: see `starts`; rows are drawn before columns.

    Returns:
        float32 [H, W, K].
    """
    height, width = image.shape
    x = _standardised(image)
    x = np.pad(x, ((0, max(0, patch - height)), (0, max(0, patch - width))))
    rows, columns = (starts(side, patch, stride, rng) for side in x.shape)
    corners = [(int(top), int(left)) for left in columns for top in rows]
    waiting: deque[np.ndarray] = deque()
    probabilities = []
    for first in range(0, len(corners), batch):
        patches = np.zeros((batch, patch, patch), np.float32)
        for k, (top, left) in enumerate(corners[first : first + batch]):
            patches[k] = x[top : top + patch, left : left + patch]
        waiting.append(classify(patches))
        if len(waiting) > AHEAD:  # the device has the next ones to do
            probabilities.append(np.asarray(waiting.popleft(), np.float32))
    of_each = np.concatenate([*probabilities, *(np.asarray(rest, np.float32) for rest in waiting)])
    return _mean(of_each, corners, rows, columns, x.shape, patch)[:height, :width]


def _mean(
    probabilities: np.ndarray, corners: list[tuple[int, int]], rows: np.ndarray, columns: np.ndarray,
    shape: tuple[int, ...], patch: int,
) -> np.ndarray:  # fmt: skip
    """The mean over the patches of each pixel, float32 [*shape, K].

    Between two edges of patches all pixels lie in the same ones: one sum stands for all of them.

    Args:
        probabilities: float32 [≥ N, K], of the patches and perhaps of what filled the last batch.
        corners: N upper left corners, which are all pairs of rows and columns.
        rows, columns: the starts of patches.
        shape: (height, width) of the image.
        patch: in pixels.
    """
    edges = [np.unique([*at, *(at + patch), 0, side]) for at, side in zip((rows, columns), shape, strict=True)]
    total = np.zeros((len(edges[0]) - 1, len(edges[1]) - 1, probabilities.shape[1]), np.float32)
    count = np.zeros((*total.shape[:2], 1), np.float32)
    places = [{int(edge): k for k, edge in enumerate(every)} for every in edges]
    for (top, left), probability in zip(corners, probabilities, strict=False):
        part = np.s_[places[0][top] : places[0][top + patch], places[1][left] : places[1][left + patch]]
        total[part] += probability
        count[part] += 1
    mean = total / count
    return mean.repeat(np.diff(edges[0]), axis=0).repeat(np.diff(edges[1]), axis=1)


def dense(image: np.ndarray, classify: Callable[[np.ndarray], np.ndarray], *, patch: int = PATCH) -> np.ndarray:
    """`heatmaps` of patches CELL pixels apart, all of which a network gives at once (not in the paper).

    The network sees the whole image, so that a patch at its inner edges sees its neighbours, not zeros.

    Args:
        image: [H, W], as of `heatmaps`.
        classify: an image float32 [1, h, w], h and w multiples of WHOLE (few sizes, as each is compiled) →
            probabilities float32 [(h - patch) / CELL + 1, …, K] of the patches that begin at each CELL-th pixel.
        patch: a multiple of CELL.

    Returns:
        float32 [H, W, K].
    """
    cells = [max(patch, -(-side // CELL) * CELL) // CELL for side in image.shape]
    x = np.zeros((1, *(-(-n * CELL // WHOLE) * WHOLE for n in cells)), np.float32)
    x[0, : image.shape[0], : image.shape[1]] = _standardised(image)
    side = patch // CELL
    probabilities = np.asarray(classify(x), np.float32)[: cells[0] - side + 1, : cells[1] - side + 1]
    around = np.pad(probabilities, ((side - 1, side - 1), (side - 1, side - 1), (0, 0)))
    count = np.pad(np.ones(probabilities.shape[:2], np.float32), side - 1)
    total, count = (sliding_window_view(part, (side, side), (0, 1)).sum((-2, -1)) for part in (around, count))
    of_pixels = np.repeat(np.repeat(total / count[..., None], CELL, axis=0), CELL, axis=1)
    return of_pixels[: image.shape[0], : image.shape[1]]


def _standardised(image: np.ndarray) -> np.ndarray:
    x = image.astype(np.float64)
    return ((x - x.mean()) / max(float(x.std()), 1e-5)).astype(np.float32)
