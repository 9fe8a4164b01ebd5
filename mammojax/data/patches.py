"""Patches of lesions and background, as Shen et al. 2019 sample them ("Setup and processing of the dataset").

S1: one patch centred on each lesion and one random background patch. S10: ten patches around each lesion whose overlap
with it is at least 0.9, and as many of the background. S1g: as S1, twice as large. What the paper leaves out is the
published code's: overlap is intersection over lesion *or* over patch; the cutoff falls by 0.05 after 1000 failures;
ten background patches an image, not a lesion. Theirs tested the background against one lesion: ours against all. Where
1000 draws find no place clear of them, an image has fewer background patches rather than one that shows a lesion.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mammojax.vocabulary import PATCH_CLASSES

MIN_OVERLAP = 0.9
MAX_BACKGROUND_OVERLAP = 0.35
TRIES = 1000


@dataclass(frozen=True)
class Patch:
    """One patch: pixels uint16 [P, P]; its class; the top left corner in the image (may be negative: zero padding);
    `overlap`, the greater of intersection/lesion and intersection/patch (background: over all lesions)."""

    pixels: np.ndarray
    label: int
    top: int
    left: int
    overlap: float


def patch_class(pathology: str, abnormality: str) -> int:
    """Index in PATCH_CLASSES of a lesion, such as ("BENIGN", "mass")."""
    return PATCH_CLASSES.index(f"{pathology.lower()}_{abnormality}")


def sample_patches(
    image: np.ndarray, lesions: Sequence[tuple[np.ndarray, int]], kind: str, size: int, seed: int,
    per_lesion: int = 10, avoid: Sequence[np.ndarray] = (),
) -> list[Patch]:  # fmt: skip
    """The patches of one image.

    Args:
        image: uint16 [H, W].
        lesions: (mask bool [H, W], class); an empty mask gives no patch.
        kind: "s1", "s10", or "s1g" (whose patches are twice `size`).
        size: side of a patch in pixels.
        seed: all that the result depends on beside the other arguments.
        per_lesion: patches a lesion, and of the background, in "s10".
        avoid: further masks, bool [H, W], that the background keeps clear of: lesions that give no patches.

    Returns:
        Lesion patches in the order of the lesions, then the background.
    """
    side = 2 * size if kind == "s1g" else size
    count = per_lesion if kind == "s10" else 1
    masks = [(mask, label) for mask, label in lesions if mask.any()]
    if not masks:
        return []
    rng = np.random.default_rng(seed)
    canvas = _Canvas(image, side)
    patches = []
    for mask, label in masks:
        area, sums = int(mask.sum()), canvas.integral(mask)
        contour = _largest(mask)
        if kind != "s10":
            moments = cv2.moments(contour, binaryImage=True)
            y, x = round(moments["m01"] / moments["m00"]), round(moments["m10"] / moments["m00"])
            patches.append(canvas.cut(y, x, label, canvas.overlap(sums, y, x, area)))
            continue
        left, top, width, height = cv2.boundingRect(contour)
        cutoff, failures, found = MIN_OVERLAP, 0, 0
        while found < count:
            y, x = int(rng.integers(top, top + height)), int(rng.integers(left, left + width))
            overlap = canvas.overlap(sums, y, x, area)
            if overlap > cutoff:
                patches.append(canvas.cut(y, x, label, overlap))
                found, failures = found + 1, 0
            else:
                failures += 1
                if failures % TRIES == 0:
                    cutoff -= 0.05
    clear = [mask for mask, _ in masks] + [mask for mask in avoid if mask.any()]
    return patches + _background(canvas, clear, count, rng)


def _background(canvas: "_Canvas", masks: list[np.ndarray], count: int, rng: np.random.Generator) -> list[Patch]:
    """`count` patches anywhere; where TRIES draws find none clear of all masks, fewer."""
    tests = [(canvas.integral(mask), int(mask.sum())) for mask in masks]
    patches: list[Patch] = []
    for _ in range(count):
        for _ in range(TRIES):
            y, x = int(rng.integers(canvas.height)), int(rng.integers(canvas.width))
            overlap = max(canvas.overlap(sums, y, x, area) for sums, area in tests)
            if overlap <= MAX_BACKGROUND_OVERLAP:
                patches.append(canvas.cut(y, x, 0, overlap))
                break
    return patches


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected region of a mask, uint8 [H, W] of 0 and 1."""
    _, components, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return (components == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8)


class _Canvas:
    """An image zero-padded by half a patch, so that a patch may be centred on any of its pixels."""

    def __init__(self, image: np.ndarray, side: int) -> None:
        self.height, self.width = image.shape
        self._side, self._half = side, side // 2
        self._pixels = np.pad(image, (self._half, side - self._half))

    def integral(self, mask: np.ndarray) -> np.ndarray:
        """Summed-area table of a padded mask: any patch's share of it is four look-ups."""
        return cv2.integral(np.pad(mask.astype(np.uint8), (self._half, self._side - self._half)))

    def overlap(self, sums: np.ndarray, y: int, x: int, area: int) -> float:
        """The greater of intersection/lesion and intersection/patch for the patch centred at (y, x)."""
        s = self._side
        inside = int(sums[y + s, x + s]) - int(sums[y, x + s]) - int(sums[y + s, x]) + int(sums[y, x])
        return max(inside / area, inside / s**2)

    def cut(self, y: int, x: int, label: int, overlap: float) -> Patch:
        """The patch centred at (y, x)."""
        pixels = self._pixels[y : y + self._side, x : x + self._side].copy()
        return Patch(pixels, label, y - self._half, x - self._half, overlap)
