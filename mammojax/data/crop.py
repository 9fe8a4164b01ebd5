"""The crop of Wu et al. 2019 (section III): the breast without markers, and the points a window is placed by.

What the paper leaves out is the published code's (`reference/nyu-2019.md`), to the pixel; a background that is not 0 it
does not know.
"""

import sys
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from mammojax.data.breast import breast_mask, chest_side, tissue_threshold

WHOLE = 0.95  # a crop that keeps more of its image has hardly found a breast
ITERATIONS = 100  # of erosion and dilation with a cross: thin lines and labels go, the breast stays


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
        threshold: tissue was what is above it.
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

    `iterations` of erosion and dilation with a cross, beyond the border being nothing, are a ball of that radius in the
    L1 distance, which one distance transform gives.

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
        threshold: tissue is what is above it: 0 in the published code, whose images have a background of 0. None: found
            from the image, see `breast.tissue_threshold`.
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
    buffer = iterations // 2  # the published 50 of 100; smaller images would else be more buffer than breast
    top, bottom = max(0, int(rows[0]) - buffer), min(height, int(rows[-1]) + 1 + buffer)
    left, right = int(columns[0]), int(columns[-1]) + 1
    if faces_right:
        right = min(width, right + buffer)
    else:
        left = max(0, left - buffer)
    inside = breast[top:bottom, left:right]
    wide = inside.shape[1]

    def distance(x: int) -> int:
        return x if faces_right else wide - x  # not W − 1 − x: the published code's off-by-one, which its weights saw

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
    """Say on the standard error that a crop of shape `cut` keeps (almost) all of the image of this name."""
    share = cut[0] * cut[1] / (image[0] * image[1])
    if share > WHOLE:
        tqdm.write(
            f"{name}: the crop keeps {share:.0%} of the image (tissue: above {threshold}); where it shows more than "
            "the breast, give --threshold (in a config data.threshold).",
            file=sys.stderr,
        )


def faces_right(pixels: np.ndarray, laterality: str, horizontal_flip: str) -> bool:
    """Whether the nipple points right in an image uint16 [H, W].

    horizontal_flip says it: "NO", left breasts face right, as images are stored to hang; "YES", they are mirrored;
    where it is empty the pixels tell.
    """
    if horizontal_flip in ("YES", "NO"):
        return (laterality == "L") == (horizontal_flip == "NO")
    threshold = tissue_threshold(pixels)
    return chest_side(breast_mask(np.maximum(pixels, threshold) - threshold)) == "left"
