"""Sliding windows: the published steps, cover without gaps, and a mean that can be counted."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammojax.data import sliding


def test_the_published_steps_from_the_published_random_numbers(shared: Path) -> None:
    """One generator a run; an image's rows are drawn before its columns."""
    folder = shared / "golden" / "nyu" / "real_exam"
    images = json.loads((folder / "preprocess.json").read_text())["images"]
    rng = random.Random(0)
    for view in ("g0_L_CC", "g0_R_CC", "g0_L_MLO", "g0_R_MLO"):
        recorded = images[view]
        rows, columns = (sliding.starts(side, rng=rng) for side in recorded["cropped_shape"])
        assert np.diff(rows).tolist() == recorded["row_strides"], view
        assert np.diff(columns).tolist() == recorded["col_strides"], view
        assert len(rows) * len(columns) == recorded["n_patches"]


@settings(max_examples=60, deadline=None)
@given(st.integers(256, 4000))
def test_steps_cover_the_axis_evenly(length: int) -> None:
    for at in (sliding.starts(length), sliding.starts(length, rng=random.Random(length))):
        assert at[0] == 0
        assert at[-1] == length - 256
        steps = np.diff(at)
        assert len(steps) == 0 or (steps.max() <= 70 and steps.max() - steps.min() <= 1)


def test_a_heatmap_is_the_mean_over_the_patches_of_a_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 60000, (50, 41)).astype(np.uint16)
    calls = []

    def classify(patches: np.ndarray) -> np.ndarray:
        calls.append(patches.shape)
        return np.stack([patches.mean(axis=(1, 2)), np.ones(len(patches))], axis=1)

    maps = sliding.heatmaps(image, classify, patch=16, stride=10, batch=4)
    assert set(calls) == {(4, 16, 16)}
    standard = (image - image.mean()) / image.std()
    rows, columns = sliding.starts(50, 16, 10), sliding.starts(41, 16, 10)
    for y, x in ((0, 0), (23, 20), (49, 40)):
        over = [
            standard[t : t + 16, c : c + 16].mean()
            for t in rows
            for c in columns
            if t <= y < t + 16 and c <= x < c + 16
        ]
        np.testing.assert_allclose(maps[y, x, 0], np.mean(over), atol=1e-5)
    np.testing.assert_allclose(maps[..., 1], 1)


@pytest.mark.parametrize("shape", [(300, 131), (40, 64)])
def test_dense_is_the_mean_over_patches_a_cell_apart(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)
    cell, patch = sliding.CELL, 2 * sliding.CELL

    def classify(x: np.ndarray) -> np.ndarray:
        assert x.shape[1] % sliding.WHOLE == x.shape[2] % sliding.WHOLE == 0
        cells = x[0].reshape(x.shape[1] // cell, cell, -1, cell).mean(axis=(1, 3))
        return ((cells[1:, 1:] + cells[:-1, 1:] + cells[1:, :-1] + cells[:-1, :-1]) / 4)[..., None]

    maps = sliding.dense(image, classify, patch=patch)
    assert maps.shape == (*shape, 1)
    height, width = (max(patch, -(-side // cell) * cell) for side in shape)
    standard = np.zeros((height, width))
    standard[: shape[0], : shape[1]] = (image - image.mean()) / image.std()
    for y, x in ((0, 0), (33, 40), (shape[0] - 1, shape[1] - 1)):
        over = [
            standard[t : t + patch, c : c + patch].mean()
            for t in range(0, height - patch + 1, cell)
            for c in range(0, width - patch + 1, cell)
            if t <= y < t + patch and c <= x < c + patch
        ]
        np.testing.assert_allclose(maps[y, x, 0], np.mean(over), atol=1e-5)


def test_an_image_smaller_than_a_patch_is_padded() -> None:
    maps = sliding.heatmaps(np.ones((10, 30), np.uint16), lambda p: np.ones((len(p), 2)), patch=16, stride=10, batch=3)
    assert maps.shape == (10, 30, 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(1, 8), st.integers(0, 1000))
def test_its_numbers_are_those_of_adding_pixel_by_pixel(height: int, width: int, stride: int, seed: int) -> None:
    """Bit for bit: the patches are added in the same order."""
    rng = np.random.default_rng(seed)
    image, given_out = rng.integers(0, 65536, (height, width), np.uint16), []

    def classify(patches: np.ndarray) -> np.ndarray:
        given_out.append(rng.random((len(patches), 2), np.float32))
        return given_out[-1]

    maps = sliding.heatmaps(image, classify, patch=8, stride=stride, batch=5, rng=random.Random(seed))
    total, count, chooser = np.zeros((height, width, 2), np.float32), np.zeros((height, width, 1)), random.Random(seed)
    rows, columns = (sliding.starts(side, 8, stride, chooser) for side in (height, width))
    corners = [(top, left) for left in columns for top in rows]
    for (top, left), probability in zip(corners, np.concatenate(given_out), strict=False):
        total[top : top + 8, left : left + 8] += probability
        count[top : top + 8, left : left + 8] += 1
    np.testing.assert_array_equal(maps, total / count.astype(np.float32))
