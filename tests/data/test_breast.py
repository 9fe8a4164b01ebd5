"""Framing applies alike to image and mask; on real film the breast is found and its side agrees with the label; the NYU
crop is equal to the recorded one on the phantom exams, and to the iterated morphology it stands for."""

import csv
import hashlib
import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from mammojax.data import breast, dicom
from mammojax.data.breast import Crop, NoTissue, crop, faces_right, largest_breast
from mammojax.data.dicom import read_mammogram, read_mask
from mammojax.data.window import SIZES, best_centre


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


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_map_of_the_frame_goes_back_to_its_place(side: str) -> None:
    pixels = np.zeros((300, 200), np.uint16)
    pixels[40:260, 0:90] = 30000
    pixels[150:160, 40:50] = 60000
    pixels = pixels if side == "left" else pixels[:, ::-1].copy()
    place = breast.Framing((128, 96), "breast", True).place(pixels)
    assert place.side == side
    back = place.back((place.image(pixels) > 45000).astype(np.float32))
    assert back.shape == pixels.shape
    np.testing.assert_allclose(np.argwhere(back > 0.5).mean(0), np.argwhere(pixels > 45000).mean(0), atol=1.5)


def test_what_lies_beside_the_breast_can_be_made_black() -> None:
    pixels = np.full((300, 200), 3000, np.uint16)
    pixels[60:240, 0:90] = 30000
    pixels[80:100, 150:170] = 60000  # a label
    framed = {}
    for kind in ("breast", "tissue"):
        place = breast.Framing((300, 200), kind).place(pixels)
        framed[kind] = cv2.resize(place.image(pixels), (place.box[3] - place.box[1], place.box[2] - place.box[0]))
        assert place == breast.Framing((300, 200), kind).place(pixels)
    top, left, *_ = place.box
    assert framed["breast"][-1, -1] > 2000
    assert framed["tissue"][-1, -1] == 0
    inside = (slice(70 - top, 230 - top), slice(5 - left, 80 - left))
    np.testing.assert_array_equal(framed["tissue"][inside], framed["breast"][inside])


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


def test_boxes_points_and_centres_are_the_recorded_ones(shared: Path) -> None:
    folder = shared / "golden" / "nyu" / "phantom_exams"
    draw = runpy.run_path(str(folder / "phantom.py"))["phantom"]
    recorded = json.loads((folder / "preprocess.json").read_text())
    for exam in recorded["exam_list"]:
        for view in ("L-CC", "R-CC", "L-MLO", "R-MLO"):
            name = exam[view][0]
            pixels = draw(name)
            breast_crop = crop(pixels, faces_right=view.startswith("L"))
            assert crop(pixels, faces_right=view.startswith("L"), threshold=None) == breast_crop  # its background is 0
            assert list(breast_crop.box) == exam["window_location"][view][0], name
            assert [list(breast_crop.rightmost[0]), breast_crop.rightmost[1]] == exam["rightmost_points"][view][0], name
            assert [breast_crop.bottommost[0], list(breast_crop.bottommost[1])] == exam["bottommost_points"][view][0], (
                name
            )
            assert breast_crop.distance_from_starting_side == exam["distance_from_starting_side"][view][0], name
            cut = breast_crop.image(pixels)
            digest = hashlib.sha256(np.ascontiguousarray(cut).tobytes()).hexdigest()
            assert digest == recorded["images"][name]["cropped_sha256"], name
            right = cut if view.startswith("L") else cut[:, ::-1]
            assert list(best_centre(right, breast_crop, view[2:], SIZES[view[2:]])) == exam["best_center"][view][0], (
                name
            )


def test_centres_of_the_real_exam(shared: Path) -> None:
    """Its images are cropped already: the recorded points lead to the recorded centres."""
    folder = shared / "golden" / "nyu" / "real_exam"
    exam = json.loads((folder / "preprocess.json").read_text())["exam"]
    for view in ("L-CC", "R-CC", "L-MLO", "R-MLO"):
        pixels = cv2.imread(str(folder / "images" / f"{exam[view][0]}.png"), cv2.IMREAD_UNCHANGED)
        right = pixels if view.startswith("L") else pixels[:, ::-1]
        rows, reach = exam["rightmost_points"][view][0]
        lowest, along = exam["bottommost_points"][view][0]
        breast_crop = Crop((0, *pixels.shape, 0), (tuple(rows), reach), (lowest, tuple(along)), 0)
        assert list(best_centre(right, breast_crop, view[2:], SIZES[view[2:]])) == exam["best_center"][view][0], view


def test_the_distance_transform_is_the_iterated_morphology() -> None:
    rng = np.random.default_rng(0)
    mask = ndimage.gaussian_filter(rng.standard_normal((90, 70)), 4) > -0.02
    for iterations in (1, 3, 5):
        eroded = ndimage.binary_erosion(mask, iterations=iterations)
        labels, count = ndimage.label(eroded)
        assert count > 1
        largest = labels == 1 + np.argmax(ndimage.sum_labels(eroded, labels, range(1, count + 1)))
        grown = ndimage.binary_dilation(largest, iterations=iterations)
        np.testing.assert_array_equal(largest_breast(mask, iterations), grown)


def test_a_left_and_its_mirrored_right_differ_by_the_published_off_by_one() -> None:
    y, x = np.mgrid[:300, :200]
    pixels = ((np.hypot((y - 160) / 120, x / 150) < 1) * 1000).astype(np.uint16)
    left, right = crop(pixels, True, iterations=10), crop(pixels[:, ::-1], False, iterations=10)
    assert right.rightmost == (left.rightmost[0], left.rightmost[1] + 1)
    assert right.box[:2] == left.box[:2]
    assert (200 - right.box[3], 200 - right.box[2]) == left.box[2:]


def test_a_small_breast_at_the_top_has_points() -> None:
    """Half the radius is kept around it, so that the third that is passed over is never all of it."""
    pixels = np.zeros((120, 80), np.uint16)
    pixels[:14, :20] = 500
    breast_crop = crop(pixels, True, iterations=4)
    assert breast_crop.rightmost[1] == 19
    assert breast_crop.box == (0, 16, 0, 22)


def test_film_needs_a_threshold_and_an_image_without_tissue_is_refused() -> None:
    y, x = np.mgrid[:300, :200]
    film = np.where(np.hypot((y - 160) / 120, x / 150) < 1, 30000, 3000).astype(np.uint16)
    whole, breast = crop(film, True, iterations=10), crop(film, True, threshold=10000, iterations=10)
    assert whole.box[1] - whole.box[0] == 300
    assert breast.box[1] - breast.box[0] < 300 or breast.box[3] < 200 + 1
    assert breast.rightmost[1] < whole.rightmost[1]
    with pytest.raises(NoTissue, match="background threshold"):
        crop(np.zeros((300, 200), np.uint16), True)


def _breast(view: str, dense: float = 0.8, fat: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    """A breast at the left edge on a background of 0, 0 … 1 [600, 450], and where it is; it is faint at its skin.

    An MLO view has a pectoral muscle and an armpit that goes to the upper edge.
    """
    y, x = np.mgrid[:600, :450]
    depth = 1 - np.hypot((y - 310) / 250, x / 340)
    if view == "MLO":
        depth = np.maximum(depth, np.where(y < 310, 1 - x / 220, -1))
    pixels = np.clip(depth * 8, 0, 1) * np.where(np.hypot((y - 330) / 130, (x - 120) / 110) < 1, dense, fat)
    if view == "MLO":
        pixels[(x + 0.6 * y < 160)] = 0.9
    return np.where(depth > 0, np.maximum(pixels, 0.01), 0), depth > 0


def _marked(pixels: np.ndarray) -> np.ndarray:
    """With a lead marker and a strip of the scanner at the lower edge."""
    pixels = pixels.copy()
    pixels[30:70, 380:430] = 1
    pixels[590:, 40:] = 1
    return pixels


BACKGROUNDS = {
    "a VOI window": lambda p, rng: 0.1 + 0.8 * p,
    "a bright one": lambda p, rng: 0.2 + 0.7 * p,
    "sigmoid": lambda p, rng: 1 / (1 + np.exp(-8 * (p - 0.4))),
    "film": lambda p, rng: 0.15 + 0.7 * _marked(p) + rng.normal(0, 0.015, p.shape),
    "film that darkens": lambda p, rng: (
        0.6 * _marked(p) + np.linspace(0.12, 0.15, 600)[:, None] + 0.01 * rng.random(p.shape)
    ),
    "film on padding": lambda p, rng: np.pad(0.1 + 0.8 * p + rng.normal(0, 0.01, p.shape), ((0, 0), (100, 150))),
    "film on the scanner's own": lambda p, rng: np.pad(0.2 + 0.7 * p, ((0, 0), (0, 250)), constant_values=0.05),
}  # fmt: skip


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("name", BACKGROUNDS)
def test_the_background_threshold_is_computed(name: str, view: str) -> None:
    """The crop is the breast's box and its buffer, either way it faces, where `> 0` keeps all of the image."""
    plain, truth = _breast(view)
    stored = (np.clip(BACKGROUNDS[name](plain, np.random.default_rng(0)), 0, 1) * 65535).astype(np.uint16)
    if name == "film on padding":
        truth = np.pad(truth, ((0, 0), (100, 150)))
    elif name == "film on the scanner's own":
        truth = np.pad(truth, ((0, 0), (0, 250)))
    ys, xs = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
    buffer = 10  # half of the erosion's radius
    for pixels, mask, right in ((stored, truth, True), (stored[:, ::-1], truth[:, ::-1], False)):
        assert faces_right(pixels, "L", "") is right
        breast_crop = crop(np.ascontiguousarray(pixels), right, None, iterations=2 * buffer)
        breast = largest_breast(pixels > breast_crop.threshold, 2 * buffer)
        assert (breast & mask).sum() / (breast | mask).sum() > 0.9
        top, bottom, left, end = breast_crop.box
        assert abs(top - max(0, ys[0] - buffer)) <= 15
        assert abs(bottom - (ys[-1] + 1 + buffer)) <= 15
        assert abs((end - left) - (xs[-1] - xs[0] + 1 + buffer)) <= 15
        assert crop(np.ascontiguousarray(pixels), right, 0, 2 * buffer).box[1] == 600


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("dense", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("fat", [0.1, 0.2, 0.4])
def test_a_background_of_0_is_left_at_0(view: str, dense: float, fat: float) -> None:
    """Fatty and dense breasts, in 16 and in 12 bits, with a marker, facing either way: as the published code has it."""
    plain, _ = _breast(view, dense, fat)
    plain[30:70, 380:430] = 1
    for highest in (65535, 4095):
        pixels = (plain * highest).astype(np.uint16)
        for turned in (pixels, np.ascontiguousarray(pixels[:, ::-1])):
            assert crop(turned, turned is pixels, None, 20) == crop(turned, turned is pixels, 0, 20)


def test_an_explicit_threshold_wins() -> None:
    plain, _ = _breast("CC")
    pixels = ((0.2 + 0.7 * plain) * 65535).astype(np.uint16)
    assert crop(pixels, True, 0, 20).box == (0, 600, 0, 450)
    assert crop(pixels, True, 30000, 20).threshold == 30000
    assert 0.2 * 65535 - 1 <= crop(pixels, True, None, 20).threshold < 0.25 * 65535


def test_real_film_is_cropped_and_lesions_stay_inside(shared: Path) -> None:
    """Films on padding of 0 (mini-MIAS), with markers and strips, and one whose background is 13 % of its range."""
    root = shared / "data" / "mias"
    with (root / "manifest.csv").open() as file:
        rows = [row for k, row in enumerate(csv.DictReader(file)) if k % 20 == 0]
    shares, inside = [], []
    for row in rows:
        pixels = read_mammogram(root / row["image"]).pixels
        right = faces_right(pixels, row["laterality"], "")
        assert right == (row["laterality"] == "L"), row["image"]
        breast_crop = crop(pixels, right, None, iterations=33)
        film = crop(pixels, right, 0, iterations=33)
        shares.append(breast_crop.image(pixels).size / film.image(pixels).size)
        if row["mask"]:
            lesion = read_mask(root / row["mask"]) > 0
            inside.append(breast_crop.image(lesion).sum() / lesion.sum())
    assert np.median(shares) < 0.95
    assert min(inside) > 0.8  # some of the data set's circles go beyond the film
    film = read_mammogram(shared / "data" / "wg04" / "MG1_J2KI.dcm").pixels
    breast_crop, whole = crop(film, True, None), crop(film, True, 0)
    assert 0.14 < breast_crop.threshold / 65535 < 0.25
    assert breast_crop.image(film).size < 0.75 * film.size < whole.image(film).size
