"""The NYU crop: equal to the recorded one on the phantom exams, and to the iterated morphology it stands for."""

import hashlib
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from mammojax.data.crop import NoTissue, crop, largest_breast
from mammojax.data.window import SIZES, best_centre


def test_boxes_points_and_centres_are_the_recorded_ones(shared: Path) -> None:
    folder = shared / "golden" / "nyu" / "phantom_exams"
    draw = runpy.run_path(str(folder / "phantom.py"))["phantom"]
    recorded = json.loads((folder / "preprocess.json").read_text())
    for exam in recorded["exam_list"]:
        for view in ("L-CC", "R-CC", "L-MLO", "R-MLO"):
            name = exam[view][0]
            pixels = draw(name)
            found = crop(pixels, faces_right=view.startswith("L"))
            assert list(found.box) == exam["window_location"][view][0], name
            assert [list(found.rightmost[0]), found.rightmost[1]] == exam["rightmost_points"][view][0], name
            assert [found.bottommost[0], list(found.bottommost[1])] == exam["bottommost_points"][view][0], name
            assert found.distance_from_starting_side == exam["distance_from_starting_side"][view][0], name
            cut = found.image(pixels)
            digest = hashlib.sha256(np.ascontiguousarray(cut).tobytes()).hexdigest()
            assert digest == recorded["images"][name]["cropped_sha256"], name
            right = cut if view.startswith("L") else cut[:, ::-1]
            assert list(best_centre(right, found, view[2:], SIZES[view[2:]])) == exam["best_center"][view][0], name


def test_centres_of_the_real_exam(shared: Path) -> None:
    """Its images are cropped already: the recorded points lead to the recorded centres."""
    import cv2

    from mammojax.data.crop import Crop

    folder = shared / "golden" / "nyu" / "real_exam"
    exam = json.loads((folder / "preprocess.json").read_text())["exam"]
    for view in ("L-CC", "R-CC", "L-MLO", "R-MLO"):
        pixels = cv2.imread(str(folder / "images" / f"{exam[view][0]}.png"), cv2.IMREAD_UNCHANGED)
        right = pixels if view.startswith("L") else pixels[:, ::-1]
        rows, reach = exam["rightmost_points"][view][0]
        lowest, along = exam["bottommost_points"][view][0]
        found = Crop((0, *pixels.shape, 0), (tuple(rows), reach), (lowest, tuple(along)), 0)
        assert list(best_centre(right, found, view[2:], SIZES[view[2:]])) == exam["best_center"][view][0], view


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
    found = crop(pixels, True, iterations=4)
    assert found.rightmost[1] == 19
    assert found.box == (0, 16, 0, 22)


def test_film_needs_a_threshold_and_no_tissue_is_said() -> None:
    y, x = np.mgrid[:300, :200]
    film = np.where(np.hypot((y - 160) / 120, x / 150) < 1, 30000, 3000).astype(np.uint16)
    whole, breast = crop(film, True, iterations=10), crop(film, True, threshold=10000, iterations=10)
    assert whole.box[1] - whole.box[0] == 300
    assert breast.box[1] - breast.box[0] < 300 or breast.box[3] < 200 + 1
    assert breast.rightmost[1] < whole.rightmost[1]
    with pytest.raises(NoTissue, match="background threshold"):
        crop(np.zeros((300, 200), np.uint16), True)
