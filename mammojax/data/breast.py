"""Where the breast is, how a mammogram is brought to one size, and how an image of an exam is cropped to the breast.

The crop is that of Wu et al. 2019 (section III): the breast without markers, and the points that a window is placed by.
Where the paper leaves something out, we follow the published code to the pixel. That code assumes a background of 0;
the rule for any other background is ours (`tissue_threshold`).
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

_WORK = 256  # the breast is found on a copy whose longer side is this: film grain and thin scratches vanish
WHOLE = 0.95  # a crop that keeps more of its image has hardly found a breast
SKIN = 0.02  # of the image's longer side: so far from the breast's mask its skin may reach
CROPS = ("none", "breast", "tissue")  # see Framing
ITERATIONS = 100  # of erosion and dilation with a cross: thin lines and labels go, the breast stays


def breast_mask(pixels: np.ndarray) -> np.ndarray:
    """The breast: the largest bright region that is left when thin bridges to markers and scanner strips are cut.

    Film backgrounds are not 0, so the threshold is half of Otsu's, which splits the breast's own tissue from the dark.

    Args:
        pixels: uint16 [H, W].

    Returns:
        bool [H, W]; all False where nothing stands out.
    """
    height, width = pixels.shape
    small = cv2.GaussianBlur((smaller(pixels).astype(np.uint16) >> 8).astype(np.uint8), (5, 5), 0)
    # Strips at the border are brighter than tissue: clipped, they do not pull Otsu's threshold up.
    clipped = np.minimum(small, np.percentile(small, 95)).astype(np.uint8)
    otsu, _ = cv2.threshold(clipped, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask = (small > max(1.0, 0.5 * otsu)).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REPLICATE)
    count, components, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    if count < 2:
        return np.zeros(pixels.shape, bool)
    # Area alone would choose a broad strip on a film with a small breast: compactness weighs in.
    boxes = stats[1:, cv2.CC_STAT_WIDTH] / np.maximum(stats[1:, cv2.CC_STAT_HEIGHT], 1)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA] * np.minimum(1.0, 4 * np.minimum(boxes, 1 / boxes))))
    breast = (components == largest).astype(np.uint8)
    return cv2.resize(breast, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def tissue_threshold(pixels: np.ndarray) -> int:
    """The gray value above which the breast lies, from the image itself; markers and scanner strips do not count.

    It is 0 where the background is 0, as Wu et al. 2019 assume. The rule is ours and works on the small copy that
    `breast_mask` uses. On a background of 0 the breast is the largest region that is nowhere 0, and its outline leaves
    the two corners of its box on the nipple's side free. Where gray values that vary little and are darker than the
    breast of `breast_mask` fill one of these corners, the background is not 0. The threshold is then the background's
    median plus four times the distance from the median down to its darkest tenth (noise; above the median there may be
    a rim of faint skin), but at most half the way to the breast. The search goes on above that threshold, as film may
    lie on another background.

    Args:
        pixels: uint16 [H, W].

    Returns:
        0 … 65535.
    """
    small, threshold = smaller(pixels), 0
    for _ in range(4):  # film, what it was scanned on, padding
        solid = (smaller(np.where(pixels > threshold, np.uint8(255), np.uint8(0))) == 255).astype(np.uint8)
        solid = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_REPLICATE)
        count, components, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
        if count < 2:
            break
        region = components == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        level = _background(small, region)
        if level is None or level <= threshold:
            break
        threshold = level
    return threshold


def _background(small: np.ndarray, region: np.ndarray) -> int | None:
    """The threshold above the background of a region [h, w] of a small image; None if it has no background."""
    darkest = np.percentile(small[region], 5)
    over = np.where(region, np.maximum(small, darkest) - darkest, 0)
    breast = breast_mask((over * (65535 / max(1.0, float(over.max())))).astype(np.uint16))  # it works on 8 bits
    if not breast.any():
        return None
    beside = region & (cv2.dilate(breast.astype(np.uint8), np.ones((21, 21), np.uint8)) == 0)
    top, left, bottom, right = breast_box(region, 0)
    high, wide = max(2, (bottom - top) // 8), max(2, (right - left) // 8)
    sides = (slice(left, left + wide), slice(right - wide, right))
    areas = [breast[:, side].sum() for side in sides]
    nipple = [side for side, area in zip(sides, areas, strict=True) if area <= 1.1 * min(areas)]  # both where alike
    ends = (slice(top, top + high), slice(bottom - high, bottom))
    filled = max(beside[end, side].mean() for end in ends for side in nipple)
    faintest = np.percentile(small[breast], 5)
    dark = small[beside & (small < faintest)]
    if filled < 0.5 or not len(dark):
        return None
    low, middle = np.percentile(dark, [10, 50])
    if middle - darkest > 0.25 * (faintest - darkest):  # it grows brighter towards the breast: tissue
        return None
    return int(min(middle + 4 * (middle - low), (middle + faintest) / 2))


def smaller(array: np.ndarray) -> np.ndarray:
    """A copy whose longer side is 256 pixels, area-averaged."""
    height, width = array.shape
    scale = _WORK / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA)


def chest_side(mask: np.ndarray) -> str:
    """The image's edge at which the chest wall lies, "left" or "right": where the breast touches more of it.

    The band is a twentieth of the width, as film often leaves a dark margin.
    """
    band = max(1, mask.shape[1] // 20)
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return "left"
    left, right = mask[:, columns[0] : columns[0] + band].sum(), mask[:, columns[-1] - band + 1 : columns[-1] + 1].sum()
    return "left" if left >= right else "right"


def breast_box(mask: np.ndarray, margin: float = 0.02) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the breast, half-open, grown by `margin` of the image; the image if no breast."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    if not len(rows):
        return 0, 0, height, width
    dy, dx = round(margin * height), round(margin * width)
    return (
        max(0, int(rows[0]) - dy),
        max(0, int(columns[0]) - dx),
        min(height, int(rows[-1]) + 1 + dy),
        min(width, int(columns[-1]) + 1 + dx),
    )


@dataclass(frozen=True)
class Framing:
    """How every mammogram of a data set is brought to one size.

    Attributes:
        size: (height, width) of the result.
        crop: "none"; "breast": the breast's box, outside of which nothing is kept; "tissue": the same, and what lies
            beside the breast in it is black: a network cannot learn from labels and film beside the breast.
        keep_aspect: pad with zeros instead of distorting. Shen et al. resize to 1152 × 896 whatever the aspect.
    """

    size: tuple[int, int]
    crop: str = "none"
    keep_aspect: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Framing":
        """The framing that `to_json` wrote."""
        return cls(tuple(saved["size"]), saved["crop"], saved["keep_aspect"])

    def place(self, pixels: np.ndarray) -> "Placement":
        """Where in this mammogram, uint16 [H, W], the frame lies."""
        box = (0, 0, *pixels.shape)
        side = "left"
        beside = None
        if self.crop != "none":
            mask = breast_mask(pixels)
            box, side = breast_box(mask), chest_side(mask)
            if self.crop == "tissue" and mask.any():  # the skin is darker than the tissue by which it is found
                away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
                beside = away > SKIN * max(pixels.shape)
        return Placement(pixels.shape, box, self.size, self.keep_aspect, side, beside)


@dataclass(frozen=True)
class Placement:
    """One mammogram's frame, applied alike to its pixels and to its lesion masks."""

    shape: tuple[int, int]
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    keep_aspect: bool
    side: str
    beside: np.ndarray | None = field(default=None, compare=False)  # bool `shape`: made black

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """The framed pixels, uint16 `size`: area-averaged when shrinking, cubic when growing."""
        if self.beside is not None:
            pixels = np.where(self.beside, pixels.dtype.type(0), pixels)
        inner = self._inner()
        shrinking = inner[0] < self.box[2] - self.box[0]
        return self._fit(pixels, cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The framed mask, bool `size`; one of another size than its image is scaled to it first.

        A pixel is in the lesion where a quarter of it is, so that small calcifications survive shrinking.
        """
        binary = (mask > 0).astype(np.float32)
        if binary.shape != self.shape:
            binary = np.asarray(cv2.resize(binary, self.shape[::-1], interpolation=cv2.INTER_NEAREST), np.float32)
        return self._fit(binary, cv2.INTER_AREA) >= 0.25

    def back(self, framed: np.ndarray) -> np.ndarray:
        """A map of the frame, float32 `size`, on the mammogram: float32 `shape`, bilinear, 0 outside the frame, and
        beside the breast where that was made black: there a network's map is the same in every mammogram."""
        top, left, bottom, right = self.box
        above, before, height, width = self._window()
        inner = framed[above : above + height, before : before + width].astype(np.float32)
        result = np.zeros(self.shape, np.float32)
        result[top:bottom, left:right] = cv2.resize(inner, (right - left, bottom - top))
        if self.beside is not None:
            result[self.beside] = 0
        return result

    def _window(self) -> tuple[int, int, int, int]:
        """Where the box lies in the frame: (first row, first column, height, width); the chest wall is at its edge."""
        height, width = self._inner()
        return (self.size[0] - height) // 2, 0 if self.side == "left" else self.size[1] - width, height, width

    def _inner(self) -> tuple[int, int]:
        height, width = self.box[2] - self.box[0], self.box[3] - self.box[1]
        if not self.keep_aspect:
            return self.size
        scale = min(self.size[0] / height, self.size[1] / width)
        return min(self.size[0], max(1, round(height * scale))), min(self.size[1], max(1, round(width * scale)))

    def _fit(self, array: np.ndarray, interpolation: int) -> np.ndarray:
        top, left, bottom, right = self.box
        above, before, height, width = self._window()
        inner = cv2.resize(array[top:bottom, left:right], (width, height), interpolation=interpolation)
        result = np.zeros(self.size, array.dtype)
        result[above : above + height, before : before + width] = inner
        return result


class NoTissue(ValueError):
    """An image in which no region survives the erosion; the message names what to do."""


@dataclass(frozen=True)
class Crop:
    """Where the breast is.

    Attributes:
        box: (top, bottom, left, right) in the image, half-open.
        rightmost: ((first, last row), distance): the breast's furthest reach from the chest wall, in pixels of the crop
            facing right; the upper third is left out, where the armpit may reach further.
        bottommost: (row, (first, last distance from the chest wall)): its lowest row, likewise.
        distance_from_starting_side: columns between the chest wall's edge of the image and the crop.
        threshold: pixels above it are tissue.
    """

    box: tuple[int, int, int, int]
    rightmost: tuple[tuple[int, int], int]
    bottommost: tuple[int, tuple[int, int]]
    distance_from_starting_side: int
    threshold: int = 0

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """The crop of an image [H, W], not flipped."""
        top, bottom, left, right = self.box
        return pixels[top:bottom, left:right]


def largest_breast(mask: np.ndarray, iterations: int = ITERATIONS) -> np.ndarray:
    """The largest 4-connected region that is left after erosion, grown again: bool [H, W] of bool [H, W].

    `iterations` steps of erosion or dilation with a cross, with nothing beyond the border, equal a ball of that radius
    in the L1 distance; one distance transform computes it.

    Raises:
        NoTissue: nothing is left.
    """
    inner = np.pad(mask.astype(np.uint8), 1)
    eroded = cv2.distanceTransform(inner, cv2.DIST_L1, 3)[1:-1, 1:-1] > iterations
    count, labels, stats, _ = cv2.connectedComponentsWithStats(eroded.astype(np.uint8), connectivity=4)
    if count < 2:
        raise NoTissue("no tissue is left after the markers are taken off; film needs a background threshold.")
    # The first of equals in reading order, as a stable sort of sizes gives it.
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    away = cv2.distanceTransform((labels != largest).astype(np.uint8), cv2.DIST_L1, 3)
    return away <= iterations


def crop(pixels: np.ndarray, faces_right: bool, threshold: int | None = 0, iterations: int = ITERATIONS) -> Crop:
    """Find the breast of a mammogram.

    Args:
        pixels: uint16 [H, W].
        faces_right: the nipple points to the right: left breasts where images are stored as they hang.
        threshold: pixels above it are tissue: 0 in the published code, whose images have a background of 0. None: it
            is computed from the image, see `tissue_threshold`.
        iterations: radius of the erosion in pixels; the published 100 is for images of about 3000 × 2000. Half of it is
            kept around the breast's box, but not behind it.

    Raises:
        NoTissue: there is no breast to crop.
    """
    if threshold is None:
        threshold = tissue_threshold(pixels)
    breast = largest_breast(pixels > threshold, iterations)
    rows, columns = np.flatnonzero(breast.any(axis=1)), np.flatnonzero(breast.any(axis=0))
    height, width = pixels.shape
    buffer = iterations // 2  # the published 50 of 100; smaller images would otherwise be more buffer than breast
    top, bottom = max(0, int(rows[0]) - buffer), min(height, int(rows[-1]) + 1 + buffer)
    left, right = int(columns[0]), int(columns[-1]) + 1
    if faces_right:
        right = min(width, right + buffer)
    else:
        left = max(0, left - buffer)
    inside = breast[top:bottom, left:right]
    wide = inside.shape[1]

    def distance(x: int) -> int:
        return x if faces_right else wide - x  # not W − 1 − x: the off-by-one that the published weights saw

    upper = inside.shape[0] // 3
    lower = np.flatnonzero(inside[upper:].any(axis=0))
    furthest = int(lower[-1] if faces_right else lower[0])
    reach = upper + np.flatnonzero(inside[upper:, furthest])
    lowest = int(np.flatnonzero(inside.any(axis=1))[-1])
    along = sorted(distance(int(x)) for x in np.flatnonzero(inside[lowest])[[0, -1]])
    return Crop(
        (top, bottom, left, right),
        ((int(reach[0]), int(reach[-1])), distance(furthest)),
        (lowest, (along[0], along[1])),
        left if faces_right else width - right,
        threshold,
    )


def warn_if_whole(name: str, cut: tuple[int, ...], image: tuple[int, ...], threshold: int) -> None:
    """Warn on standard error that a crop of shape `cut` keeps (almost) all of the image of this name."""
    share = cut[0] * cut[1] / (image[0] * image[1])
    if share > WHOLE:
        tqdm.write(
            f"{name}: the crop keeps {share:.0%} of the image (tissue: above {threshold}); where it shows more than "
            "the breast, give --threshold (in a config data.threshold).",
            file=sys.stderr,
        )


def faces_right(pixels: np.ndarray, laterality: str, horizontal_flip: str) -> bool:
    """Whether the nipple points right in an image uint16 [H, W].

    `horizontal_flip` decides: with "NO" left breasts face right, as images are stored to hang; with "YES" they are
    mirrored; where it is empty, the pixels decide.
    """
    if horizontal_flip in ("YES", "NO"):
        return (laterality == "L") == (horizontal_flip == "NO")
    threshold = tissue_threshold(pixels)
    return chest_side(breast_mask(np.maximum(pixels, threshold) - threshold)) == "left"
