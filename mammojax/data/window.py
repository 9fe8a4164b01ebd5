"""The window of a cropped mammogram that a column sees, its centre and its augmentation (Wu et al. 2019, section III).

Constants and the order of random numbers follow the published code. All breasts face right.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from mammojax.data.breast import Crop

SIZES = {"CC": (2677, 1942), "MLO": (2974, 1748)}  # height and width of the paper's windows
NOISE = 100  # pixels by which a window may move, and by which each of its borders may
NONE = 0
Random = np.random.RandomState | np.random.Generator


def best_centre(pixels: np.ndarray, breast: Crop, view: str, size: tuple[int, int]) -> tuple[int, int]:
    """The centre of the window before augmentation.

    CC: its right edge lies at the breast's furthest reach, at the height that shows the most of the breast (of equal
    heights the nearest to the image's middle). Where it overhangs the crop's left edge, `window` moves it inside, and
    the moved window counts, at its full width. MLO: the right edge likewise; its lower edge lies at the lowest tissue
    of the crop's rightmost columns, as many columns as the window has.

    Args:
        pixels: uint16 [H, W], facing right.
        breast: the crop's points, and its threshold; pixels above it are the breast's.
        view: "CC" or "MLO".
        size: (height, width) of the window.

    Returns:
        (y, x), which may lie outside of the image.
    """
    height, width = size
    half_height, half_width = height // 2, width // 2
    reach = breast.rightmost[1]
    x = reach - half_width - 1
    if view == "CC":
        middle = pixels.shape[0] // 2
        if pixels.shape[0] <= height:
            return middle, x
        left = max(0, x - half_width)
        in_row = (pixels[:, left : left + width] > breast.threshold).sum(axis=1)
        sums = np.concatenate([[0], np.cumsum(in_row)])
        ys = np.arange(half_height, pixels.shape[0] - (height - half_height) + 1)
        held = sums[ys - half_height + height] - sums[ys - half_height]
        best = ys[held == held.max()]
        return int(best[np.argmin(np.abs(best - middle))]), x
    near = np.flatnonzero((pixels[:, max(0, pixels.shape[1] - width) :] > breast.threshold).any(axis=1))
    lowest = int(near[-1]) if len(near) else breast.bottommost[0]  # a narrow window may lie beyond the tissue
    return min(lowest, breast.bottommost[0]) - half_height - 1, x


Box = tuple[int, int, int, int]
"""Of rows and columns of an image the first, and the one after the last: (top, bottom, left, right)."""


def box(
    shape: tuple[int, ...], view: str, centre: tuple[int, int], size: tuple[int, int], rng: Random, noise: int = NONE
) -> Box:
    """The part of an image that a window shows; it may reach beyond the image, where it shows zeros.

    An image smaller than the window lies in the middle of its height in a CC view, at its upper edge in an MLO view,
    and at its left edge in both.

    Args:
        shape: (height, width, …) of the image, which is cropped and faces right.
        view: "CC" or "MLO".
        centre: of the window, from `best_centre`.
        size: (height, width) of the window.
        rng: draws two numbers if noise > 0, and then always four.
        noise: the most pixels by which the window moves, and by which each border then moves; 0 or NOISE.
    """
    move = rng.uniform(-1, 1, 2) if noise else np.zeros(2)
    grow = rng.uniform(-1, 1, 4)
    start = [centre[0] - size[0] // 2, centre[1] - size[1] // 2]
    margin = 2 * noise  # to move by, and to grow by
    both = 2 if view == "CC" else 1
    lacking = (size[0] + both * margin - shape[0], size[1] + margin - shape[1])
    sides = [side + max(0, more) for side, more in zip(shape, lacking, strict=False)]  # of the image with its zeros
    above = 0
    if lacking[0] > 0:
        above = lacking[0] // 2 if view == "CC" else 0
        start[0] = margin if view == "CC" else 0
    if lacking[1] > 0:
        start[1] = 0
    for axis in (0, 1):
        last = sides[axis] - size[axis]
        start[axis] = min(max(start[axis], 0), last)
        if start[axis] == 0:  # nowhere to go but inwards
            move[axis] = abs(move[axis])
        elif start[axis] == last:
            move[axis] = -abs(move[axis])
        room = last - start[axis] if move[axis] >= 0 else start[axis]
        start[axis] += int(np.round(min(noise, room) * move[axis]))
    top, left = start
    edges = (top, sides[0] - top - size[0], left, sides[1] - left - size[1])
    vertical = min(noise, *edges)
    # The margins bound it where a window is wider than high; no published one is.
    horizontal = min(int(np.round(vertical * size[1] / size[0])), *edges[2:])
    reach = np.array([vertical, vertical, horizontal, horizontal])
    borders = np.array([top, top + size[0], left, left + size[1]]) + np.round(reach * grow).astype(int)
    first, last, leftmost, rightmost = borders.tolist()
    return first - above, last - above, leftmost, rightmost


def cut(channels: Sequence[np.ndarray], part: Box, size: tuple[int, int]) -> np.ndarray:
    """The window: a part of an image and perhaps of its heatmaps, not standardised. Nothing else is copied.

    Args:
        channels: [H, W] each: the image, as it is, and heatmaps, float32 of 0 … 1 or uint16 of 0 … 65535.
        part: from `box`.
        size: (height, width) of the window, to which the part is resized.

    Returns:
        float32 [height, width, C].
    """
    top, bottom, left, right = part
    window = np.zeros((bottom - top, right - left, len(channels)), np.float32)
    for k, channel in enumerate(channels):
        height, width = channel.shape
        inside = channel[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
        y, x = max(0, -top), max(0, -left)
        target = window[y : y + inside.shape[0], x : x + inside.shape[1], k]
        target[...] = inside
        if k and channel.dtype == np.uint16:
            target /= 65535
    if window.shape[:2] == size:
        return window
    return np.asarray(cv2.resize(window, size[::-1], interpolation=cv2.INTER_CUBIC)).reshape(*size, -1)


def standardise(window: np.ndarray) -> np.ndarray:
    """The window itself, float32, its first channel now standardised (mean 0, standard deviation 1); heatmaps stay as
    they are."""
    image = window[..., 0]
    window[..., 0] = (image - image.mean()) / max(float(image.std()), 1e-5)
    return window
