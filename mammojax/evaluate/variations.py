"""The flips and shifts of an image whose scores are averaged."""

import numpy as np

TTAS = ("none", "flips", "shifts9")
"""The test-time augmentations of single images and pairs, see `variations`."""


def variations(images: np.ndarray, tta: str) -> list[np.ndarray]:
    """The images [B, H, W, 1] whose scores are averaged.

    Args:
        images: any dtype.
        tta: "none": as they are. "flips": also flipped horizontally, vertically and both (Shen et al. 2019). "shifts9":
            moved by -W/40, 0 or W/40 to the right and -H/40, 0 or H/40 down, rounded down, the border reflected (the
            published code of Petrini et al. 2022).
    """
    if tta == "none":
        return [images]
    if tta == "flips":
        return [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]
    height, width = images.shape[1:3]
    rows, columns = (max(1, -(-n // 40)) for n in (height, width))
    padded = np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode="symmetric")
    return [
        padded[:, rows - dy : rows - dy + height, columns - dx : columns - dx + width]
        for dx in (i * width // 40 for i in (-1, 0, 1))
        for dy in (j * height // 40 for j in (-1, 0, 1))
    ]
