"""An image of a table and the masks of its lesions, or why they cannot be read: one file must not end a run."""

import hashlib

import cv2
import numpy as np

from mammojax.data.dicom import Mammogram, read_mammogram, read_mask
from mammojax.data.manifest import Image, Lesion
from mammojax.errors import BadMammogram

Rejected = list[tuple[str, str]]


def read_image(image: Image, rejected: Rejected) -> Mammogram | None:
    """The mammogram of a row; None where it cannot be used, and (name, reason) goes to `rejected`."""
    try:
        return read_mammogram(image.path)
    except BadMammogram as error:
        # The row names the image; a file's own name may hold the patient (INbreast).
        rejected.append((image.image, str(error).removeprefix(f"{image.path.name}: ")))
    except Exception as error:  # a broken header raises what it likes
        rejected.append((image.image, f"it cannot be read ({type(error).__name__}); get the file again"))
    return None


def digest(pixels: np.ndarray) -> bytes:
    """What tells one picture from another, however its file is written: 16 bytes of uint16 [H, W]."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16, salt=b"%dx%d" % pixels.shape).digest()


def read_lesion(
    lesion: Lesion, shape: tuple[int, ...], name: str, rejected: list[tuple[str, str]]
) -> np.ndarray | None:
    """The stored mask, uint8 or uint16, lesion where > 0, or the inside of the outline.

    Args:
        lesion: with a mask or an outline.
        shape: of its image; a mask's file may be of another.
        name: the image's.
        rejected: gets (name, reason) where the mask cannot be read.

    Returns:
        None where it cannot be read.
    """
    try:
        return read_mask(lesion.mask) if lesion.mask else _filled(lesion.outline, shape)
    except BadMammogram as error:
        rejected.append((name, f"mask: {error}"))
    except Exception as error:  # a broken header raises what it likes
        rejected.append((name, f"a mask cannot be read ({type(error).__name__}); get the file again"))
    return None


def _filled(outline: tuple[tuple[float, float], ...], shape: tuple[int, ...]) -> np.ndarray:
    """The inside of an outline, uint8 [H, W]; one of fewer than three different points is drawn 15 pixels wide."""
    mask = np.zeros(shape, np.uint8)
    points = np.round(np.array(outline)).astype(np.int32)
    cv2.fillPoly(mask, [points], 1)
    if len(spots := np.unique(points, axis=0)) < 3:  # INbreast marks single calcifications so; 15 pixels are 1 mm there
        start, end = spots[0].tolist(), spots[-1].tolist()
        cv2.line(mask, start, end, 1, thickness=13)  # OpenCV draws 13 as 15; polylines would draw one point as 1 pixel
    return mask
