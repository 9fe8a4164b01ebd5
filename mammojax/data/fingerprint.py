"""What decides how to train on a data set: the sizes of its images, breasts and lesions, and how many there are."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mammojax.data.breast import breast_box, breast_mask
from mammojax.data.examples import Rejected, read_image, read_lesion
from mammojax.data.manifest import Image

MOST = 400
"""Images that are read: as many as tell the percentiles of their sizes."""


@dataclass(frozen=True)
class Fingerprint:
    """The facts of a data set; sizes are in pixels of the stored images.

    Attributes:
        images, patients: labelled images of the table, and their patients.
        malignant: patients with a malignant image.
        lesions, untyped: visible outlined lesions of the table, and those of them that are of no known type.
        read: images that were read for what follows.
        shapes: int [read, 2], (height, width).
        boxes: int [read, 2], (height, width) of the breasts' boxes.
        spacings: mm, of the images that say it.
        diameters: float [M], of circles with the read lesions' areas.
        around: int [M, 2], the box of each of these lesions' breasts.
    """

    images: int
    patients: int
    malignant: int
    lesions: int
    untyped: int
    read: int
    shapes: np.ndarray
    boxes: np.ndarray
    spacings: np.ndarray
    diameters: np.ndarray
    around: np.ndarray


def fingerprint(images: Sequence[Image], seed: int = 0, most: int = MOST) -> Fingerprint:
    """Read up to `most` images of a table, those with outlines first; broken files are left out.

    Args:
        images: of one table.
        seed: of the draw.
        most: images to read.
    """
    labelled = [image for image in images if image.label >= 0]
    outlined = [image for image in labelled if _outlined(image)]
    others = [image for image in labelled if not _outlined(image)]
    rng = np.random.default_rng(seed)
    share = min(len(outlined), max(most - len(others), most * 3 // 4))
    drawn = [outlined[k] for k in rng.permutation(len(outlined))[:share]]
    drawn += [others[k] for k in rng.permutation(len(others))[: most - share]]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        seen = [sizes for sizes in pool.map(_sizes, drawn) if sizes is not None]
    lesions = [lesion for image in labelled for lesion in _outlined(image)]
    return Fingerprint(
        len(labelled), len({image.patient_id for image in labelled}),
        len({image.patient_id for image in labelled if image.label == 1}),
        len(lesions), sum(not lesion.abnormality for lesion in lesions), len(seen),
        np.array([shape for shape, *_ in seen], int).reshape(-1, 2),
        np.array([box for _, box, *_ in seen], int).reshape(-1, 2),
        np.array([spacing for *_, spacing in seen if spacing], float),
        np.array([diameter for _, _, diameters, _ in seen for diameter in diameters], float),
        np.array([box for _, box, diameters, _ in seen for _ in diameters], int).reshape(-1, 2),
    )  # fmt: skip


def _outlined(image: Image) -> list:
    return [lesion for lesion in image.lesions if lesion.visible and (lesion.mask or lesion.outline)]


Sizes = tuple[tuple[int, int], tuple[int, int], list[float], float | None]


def _sizes(image: Image) -> Sizes | None:
    """Shape, the breast's box, the lesions' diameters and the spacing of one image; None where it cannot be read."""
    rejected: Rejected = []
    mammogram = read_image(image, rejected)
    if mammogram is None:
        return None
    height, width = mammogram.pixels.shape
    top, left, bottom, right = breast_box(breast_mask(mammogram.pixels))
    diameters = []
    for lesion in _outlined(image):
        mask = read_lesion(lesion, (height, width), image.image, rejected)
        if mask is not None and (area := float((mask > 0).mean()) * height * width):
            diameters.append(2 * float(np.sqrt(area / np.pi)))
    spacing = mammogram.pixel_spacing
    return (height, width), (bottom - top, right - left), diameters, spacing[0] if spacing else None
