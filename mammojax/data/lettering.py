"""Letters burned into a mammogram: names and dates of a scanner, lead markers. A plain image test, no text is read.

A character is a small component outside the breast that is brighter than what surrounds it, or darker than the bright
plate it stands on, and whose edges are sharp. Three of similar size next to each other, in any direction, are letters.
Text over the breast is not looked for, and dust or a scratched film may pass for letters: look at the image. Of 214
films of mini-MIAS it reports 76: 72 show the letters of a marker, three a scanner's strip, one a smudge.
"""

from typing import NamedTuple

import cv2
import numpy as np

from mammojax.data.breast import breast_mask

_WORK = 2048  # the longer side of the copy that is searched: lines of 2 mm are some ten pixels high
_CONTRAST = 28.0  # of 255: a character against its surroundings
_SHARP = 0.13  # of its contrast: the mean step from pixel to pixel along a character's edge
_SIZES = (0.006, 0.06)  # of the longer side: the longest side of a character
_FEWEST = 3  # characters


class Letters(NamedTuple):
    """A group of characters: its box (top, left, bottom, right) in pixels of the image, half-open, and their number."""

    box: tuple[int, int, int, int]
    characters: int


def find_letters(pixels: np.ndarray, breast: np.ndarray | None = None) -> list[Letters]:
    """The groups of characters outside the breast, from top to bottom.

    Args:
        pixels: uint16 [H, W].
        breast: bool [H, W]; None: `breast_mask` finds it.
    """
    scale = min(1.0, _WORK / max(pixels.shape))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    gray = (cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) / 256).astype(np.uint8)
    mask = breast_mask(pixels) if breast is None else breast
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    inside = cv2.dilate(inside, np.ones((max(3, max(size) // 100),) * 2, np.uint8))
    kernel = np.ones((max(3, round(max(size) * 0.03)),) * 2, np.uint8)
    bright = cv2.morphologyEx(gray, cv2.MORPH_TOPHAT, kernel)
    closed = cv2.morphologyEx(gray, cv2.MORPH_CLOSE, kernel)
    dark = np.where(closed > 127, closed - gray, 0).astype(np.uint8)  # on a bright plate only
    steps = _steps(gray)
    groups = [group for hat in (bright, dark) for group in _groups(_characters(hat, inside, steps, max(size)))]
    letters = []
    for group in groups:
        top, left = group[:, :2].min(axis=0)
        bottom, right = group[:, 2:].max(axis=0)
        box = [int(np.floor(v / scale)) for v in (top, left)] + [int(np.ceil(v / scale)) for v in (bottom, right)]
        height, width = pixels.shape
        letters.append(Letters((box[0], box[1], min(box[2], height), min(box[3], width)), len(group)))
    return sorted(letters)


def _steps(gray: np.ndarray) -> np.ndarray:
    """The change of gray value from pixel to pixel, float32 [h, w]."""
    x = cv2.Scharr(gray, cv2.CV_32F, 1, 0) / 32
    y = cv2.Scharr(gray, cv2.CV_32F, 0, 1) / 32
    return cv2.magnitude(x, y)


def _characters(hat: np.ndarray, inside: np.ndarray, steps: np.ndarray, longest: int) -> np.ndarray:
    """Boxes (top, left, bottom, right) of what may be characters, float64 [N, 4].

    Args:
        hat: uint8 [h, w], how far each pixel stands out.
        inside: uint8 [h, w], 1 in the breast.
        steps: from `_steps`.
        longest: the image's longer side.
    """
    shapes = (hat > _CONTRAST).astype(np.uint8)
    _, components, stats, _ = cv2.connectedComponentsWithStats(shapes, connectivity=8)
    edges = cv2.morphologyEx(shapes, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    boxes = []
    for k, (left, top, width, height, area) in enumerate(stats[1:], start=1):
        side = max(width, height)
        if not _SIZES[0] * longest <= side <= _SIZES[1] * longest or min(width, height) < 2 or area < 10:
            continue
        if not 0.1 <= area / (width * height) <= 0.95:
            continue
        window = np.s_[top : top + height, left : left + width]
        own = components[window] == k
        if inside[window][own].mean() > 0.05:
            continue
        edge = edges[window].astype(bool) & (cv2.dilate(own.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
        if not edge.any() or steps[window][edge].mean() < _SHARP * np.percentile(hat[window][own], 90):
            continue
        boxes.append((top, left, top + height, left + width))
    return np.array(boxes, np.float64).reshape(-1, 4)


def _groups(boxes: np.ndarray) -> list[np.ndarray]:
    """Boxes [N, 4] by groups of at least _FEWEST neighbours of similar size, each [M, 4]."""
    if len(boxes) < _FEWEST:
        return []
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    larger = np.maximum(sides[:, None], sides[None])
    near = np.linalg.norm(centres[:, None] - centres[None], axis=-1) < 1.8 * larger
    near &= larger < 2.2 * np.minimum(sides[:, None], sides[None])
    group = np.arange(len(boxes))
    while True:  # the smallest index among all that are linked
        lowest = np.where(near, group[None], len(boxes)).min(axis=1)
        if (lowest == group).all():
            break
        group = lowest
    return [boxes[group == k] for k in np.unique(group) if (group == k).sum() >= _FEWEST]
