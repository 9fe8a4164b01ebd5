"""Framing applies alike to image and mask; on real film the breast is found and its side agrees with the label."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammojax.data import breast, dicom


def _film() -> tuple[np.ndarray, np.ndarray]:
    """A half-ellipse breast at the left edge, a bright strip at the right one, a marker."""
    image = np.full((400, 300), 2000, np.uint16)
    truth = np.zeros((400, 300), np.uint8)
    cv2.ellipse(truth, (0, 200), (140, 150), 0, 0, 360, 1, -1)
    image[truth > 0] = 30000
    image[:, 290:] = 65000
    image[20:50, 200:240] = 65000
    return image, truth > 0


def test_the_breast_is_not_the_strip_nor_the_marker() -> None:
    image, truth = _film()
    mask = breast.breast_mask(image)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.93
    assert breast.chest_side(mask) == "left"
    assert breast.chest_side(mask[:, ::-1]) == "right"
    assert not breast.breast_mask(np.zeros((50, 40), np.uint16)).any()


@pytest.mark.parametrize("framing", [
    breast.Framing((192, 96)), breast.Framing((192, 96), "breast", True), breast.Framing((64, 64), "breast", False),
    breast.Framing((900, 700), "none", True),
])  # fmt: skip
def test_image_and_mask_are_framed_alike(framing: breast.Framing) -> None:
    image, _ = _film()
    lesion = np.zeros(image.shape, bool)
    lesion[180:220, 60:90] = True
    marked = np.where(lesion, 65535, 0).astype(np.uint16)
    placement = framing.place(image)
    ours = placement.mask(lesion)
    assert ours.shape == framing.size
    bright = placement.image(marked) > 65535 // 4
    assert (ours ^ bright).mean() < 0.01
    smaller = cv2.resize(lesion.astype(np.uint8), (150, 200), interpolation=cv2.INTER_NEAREST)
    assert (placement.mask(smaller) ^ ours).mean() < 0.01  # a mask of another size than its image
    assert breast.Framing.from_json(framing.to_json()) == framing


def test_kept_aspect_is_kept_and_the_chest_wall_stays_at_the_edge() -> None:
    image, _ = _film()
    for turned in (image, np.ascontiguousarray(image[:, ::-1])):
        placement = breast.Framing((100, 100), "breast", True).place(turned)
        framed = placement.image(turned)
        filled = np.flatnonzero((framed > 0).any(0))
        assert (filled[0] == 0) == (placement.side == "left")
        assert (filled[-1] == 99) == (placement.side == "right")
        top, left, bottom, right = placement.box
        assert len(filled) == pytest.approx((right - left) / (bottom - top) * 100, abs=2)


def test_on_real_film_lesions_stay_inside_and_sides_agree(shared: Path) -> None:
    root = shared / "data" / "mias"
    with (root / "manifest.csv").open() as file:
        rows = [row for k, row in enumerate(csv.DictReader(file)) if row["mask"] or k % 4 == 0]
    sides, inside = [], []
    for row in rows:
        pixels = dicom.read_mammogram(root / row["image"]).pixels
        mask = breast.breast_mask(pixels)
        # mini-MIAS shows the chest wall of a left breast at the picture's left edge
        sides.append(breast.chest_side(mask) == {"L": "left", "R": "right"}[row["laterality"]])
        if row["mask"]:
            top, left, bottom, right = breast.breast_box(mask)
            lesion = dicom.read_mask(root / row["mask"]) > 0
            inside.append(lesion[top:bottom, left:right].sum() / lesion.sum())
    assert np.mean(sides) >= 0.95
    assert np.mean(np.array(inside) > 0.99) >= 0.95
