"""Patches of lesions and background: those of whole images (Shen et al. 2019) and those of exams (Wu et al. 2019).

Of whole images ("Setup and processing of the dataset"). S1: one patch centred on each lesion and one random background
patch. S10: ten patches around each lesion whose overlap with it is at least 0.9, and as many of the background. S1g: as
S1, twice as large. Where the paper leaves something out, we follow the published code: overlap is intersection over
lesion *or* over patch; the cutoff falls by 0.05 after 1000 failures; ten background patches an image, not a lesion. It
tests the background against one lesion, ours against all. Where 1000 draws find no place clear of them, an image has
fewer background patches rather than one that shows a lesion.

Jittered, for few images: ours (`sample_jittered`). A patch classifier that is slid over an image meets lesions anywhere
in a patch and mostly tissue of normal breasts; its patches are drawn so.

For exams no source says how patches were drawn: the classes are the published network's, the choice of patches for
them is ours (`sample_exam_patches`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mammojax.vocabulary import EXAM_PATCH_CLASSES, PATCH_CLASSES

MIN_OVERLAP = 0.9
MAX_BACKGROUND_OVERLAP = 0.35
TRIES = 1000
PER_IMAGE = (6, 2)  # jittered: background patches of an image, centred on tissue and anywhere
PER_LESION = 10  # of exams: patches around each lesion, as many of its image show no lesion; jittered: patches of each
PER_NEGATIVE = 2  # of exams: patches of an image of a breast without finding
EXAM_TRIES = 100


@dataclass(frozen=True)
class Patch:
    """One patch.

    Attributes:
        pixels: uint16 [P, P].
        label: its class.
        top, left: its corner in the image; negative in the zero padding.
        overlap: the greater of intersection/lesion and intersection/patch (background: over all lesions); NaN for
            exams and jittered background. A patch's context counts as part of it.
    """

    pixels: np.ndarray
    label: int
    top: int
    left: int
    overlap: float = float("nan")


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
        seed: the result depends on it and the other arguments alone.
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
        cutoff, failures, number = MIN_OVERLAP, 0, 0
        while number < count:
            y, x = int(rng.integers(top, top + height)), int(rng.integers(left, left + width))
            overlap = canvas.overlap(sums, y, x, area)
            if overlap > cutoff:
                patches.append(canvas.cut(y, x, label, overlap))
                number, failures = number + 1, 0
            else:
                failures += 1
                if failures % TRIES == 0:
                    cutoff -= 0.05
    clear = [mask for mask, _ in masks] + [mask for mask in avoid if mask.any()]
    return patches + _background(canvas, clear, count, rng)


def sample_jittered(
    image: np.ndarray, lesions: Sequence[tuple[np.ndarray, int]], tissue: np.ndarray, size: int, seed: int,
    avoid: Sequence[np.ndarray] = (), context: int = 0,
) -> list[Patch]:  # fmt: skip
    """PER_LESION patches of each lesion, which stands anywhere in them, and PER_IMAGE of the background.

    With P the patch's side and r the radius of a disc of the lesion's area: the patch's centre is drawn within
    max(0.7 r, P / 7), at most P / 2.5, of the lesion's centre, along each axis alike. P / 7 is half the step of a trunk
    that halves five times, for patches of 224 pixels: wherever a slid window stands, some patch was like it. The
    background's centres are farther than r + P / 3 from every lesion's; most are tissue, a few stand anywhere, so that
    the dark beside the breast is known as background too.

    Args:
        image: uint16 [H, W].
        lesions: (mask bool [H, W], class); an empty mask gives no patch. An image without lesions gives background.
        tissue: bool [H, W], the breast.
        size: P in pixels.
        seed: the result depends on it and the other arguments alone.
        avoid: masks, bool [H, W], of lesions that give no patches.
        context: pixels around a patch that are cut with it, on every side; its place and its label do not depend on it.

    Returns:
        Lesion patches in the order of the lesions, then the background: fewer where TRIES draws find no place.
    """
    rng, canvas = np.random.default_rng(seed), _Canvas(image, size + 2 * context)
    patches: list[Patch] = []
    discs = []
    for mask, label in [*lesions, *((mask, -1) for mask in avoid)]:
        if not mask.any():
            continue
        area, inside = int(mask.sum()), np.argwhere(mask)
        centre, radius = inside.mean(0), float(np.sqrt(area / np.pi))
        discs.append((centre, radius))
        if label < 0:
            continue
        most, sums = min(size / 2.5, max(0.7 * radius, size / 7)), canvas.integral(mask)
        for _ in range(PER_LESION):
            drawn = np.round(centre + rng.uniform(-most, most, 2)).astype(int)
            y, x = (int(np.clip(c, 0, n - 1)) for c, n in zip(drawn, image.shape, strict=True))
            patches.append(canvas.cut(y, x, label, canvas.overlap(sums, y, x, area)))
    inside, anywhere = np.argwhere(tissue), np.argwhere(np.ones_like(tissue))
    for places in [inside] * (PER_IMAGE[0] if len(inside) else 0) + [anywhere] * PER_IMAGE[1]:
        for _ in range(TRIES):
            y, x = places[rng.integers(len(places))]
            if all(np.hypot(*(centre - (y, x))) > radius + size / 3 for centre, radius in discs):
                patches.append(canvas.cut(int(y), int(x), 0, float("nan")))
                break
    return patches


def _background(canvas: "_Canvas", masks: list[np.ndarray], count: int, rng: np.random.Generator) -> list[Patch]:
    """`count` patches anywhere, or fewer where TRIES draws find none clear of all masks."""
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
        """Summed-area table of a padded mask: four look-ups give any patch's share of it."""
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


def sample_exam_patches(
    pixels: np.ndarray, lesions: Sequence[tuple[np.ndarray, bool]], size: int, seed: int, *, outside: bool = True,
    threshold: int = 0,
) -> list[Patch]:  # fmt: skip
    """The patches of one cropped image; a label is an index in EXAM_PATCH_CLASSES.

    An image with lesions gives PER_LESION patches around each, centred on a random pixel of it, malignant where it
    shows any part of a malignant lesion, else benign; and as many "outside" patches, centred on random tissue, that
    show no part of a lesion (where EXAM_TRIES draws find none: fewer). An image without lesions gives PER_NEGATIVE
    "negative" ones. Patches are shifted into the image, as the sliding window is; an image smaller than a patch is
    padded with zeros at its right and lower edge.

    Args:
        pixels: uint16 [H, W].
        lesions: (mask bool [H, W], malignant) of each; no mask is empty.
        size: side of a patch in pixels.
        seed: the result depends on it and the other arguments alone.
        outside: False where a lesion may lie anywhere: then only patches of lesions.
        threshold: pixels above it are tissue.

    Returns:
        Lesion patches in the order of the lesions, then the others.
    """
    rng = np.random.default_rng(seed)
    lack = [max(0, size - side) for side in pixels.shape]
    padded = np.pad(pixels, ((0, lack[0]), (0, lack[1])))
    masks = [np.pad(mask, ((0, lack[0]), (0, lack[1]))) for mask, _ in lesions]
    patches: list[Patch] = []

    def corner(centre: np.ndarray) -> tuple[int, int]:
        top, left = (int(np.clip(c - size // 2, 0, n - size)) for c, n in zip(centre, padded.shape, strict=True))
        return top, left

    def cut(array: np.ndarray, top: int, left: int) -> np.ndarray:
        return array[top : top + size, left : left + size]

    for mask in masks:
        inside = np.argwhere(mask)
        for k in rng.integers(len(inside), size=PER_LESION):
            at = corner(inside[k])
            in_sight = [malignant for m, (_, malignant) in zip(masks, lesions, strict=True) if cut(m, *at).any()]
            label = EXAM_PATCH_CLASSES.index("malignant" if any(in_sight) else "benign")
            patches.append(Patch(cut(padded, *at), label, *at))
    tissue = np.argwhere(padded > threshold)
    if not outside or not len(tissue):
        return patches
    label = EXAM_PATCH_CLASSES.index("outside" if masks else "negative")
    for _ in range(PER_LESION * len(masks) if masks else PER_NEGATIVE):
        for _ in range(EXAM_TRIES):
            at = corner(tissue[rng.integers(len(tissue))])
            if not any(cut(mask, *at).any() for mask in masks):
                patches.append(Patch(cut(padded, *at), label, *at))
                break
    return patches
