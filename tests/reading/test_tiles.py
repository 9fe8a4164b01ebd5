"""Tiles put together are the mammogram, at every size and in every window."""

import cv2
import numpy as np
import pytest

from mammojax.reading.tiles import SIDE, Pyramid, windowed

PIXELS = np.random.default_rng(0).integers(0, 65536, (1100, 700), dtype=np.uint16)


def _decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def test_tiles_of_the_last_level_are_the_stored_pixels() -> None:
    pyramid = Pyramid.of(PIXELS)
    assert [level.shape for level in pyramid.levels] == [(275, 175), (550, 350), (1100, 700)]
    rows = [np.hstack([_decoded(pyramid.tile(2, x, y, 1000, 40000)) for x in range(2)]) for y in range(3)]
    np.testing.assert_array_equal(np.vstack(rows), windowed(PIXELS, 1000, 40000))


@pytest.mark.parametrize("place", [(3, 0, 0), (2, 2, 0), (2, 0, 3), (-1, 0, 0), (0, -1, 0)])
def test_there_is_no_tile_beyond_the_image(place: tuple[int, int, int]) -> None:
    with pytest.raises(KeyError):
        Pyramid.of(PIXELS).tile(*place)


def test_a_window_is_linear_and_inverts() -> None:
    pixels = np.array([[0, 1000, 2000, 3000, 65535]], np.uint16)
    assert windowed(pixels, 1000, 3000).tolist() == [[0, 0, 128, 255, 255]]
    assert windowed(pixels, 3000, 1000).tolist() == [[255, 255, 128, 0, 0]]
    assert windowed(pixels, 5, 5).max() == 255


def test_the_breast_sets_the_window_and_the_side() -> None:
    film = np.full((900, 600), 500, np.uint16)
    cv2.ellipse(film, (600, 450), (320, 380), 0, 0, 360, 30000, -1)
    pyramid = Pyramid.of(film)
    assert pyramid.chest == "right"
    low, high = pyramid.window
    assert 500 < low < high == 30000  # at its edge, tissue and background are averaged
    assert max(pyramid.levels[0].shape) <= SIDE
