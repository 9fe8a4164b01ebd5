"""A heatmap over a mammogram: one blending for pictures, DICOMs, the report and the reading room."""

import numpy as np

from mammojax.data.breast import Framing
from mammojax.evaluate import overlays

PIXELS = np.array([[0, 1000, 2000, 4000]], np.uint16).repeat(3, 0)


def test_where_a_heatmap_is_zero_the_mammogram_is_untouched_and_higher_values_cover_more() -> None:
    assert (overlays.blended(PIXELS, np.zeros((3, 4)))[0, :, 0] == [0, 64, 128, 255]).all()
    heatmap = np.array([[0.0, 0.1, 0.5, 1.0]], np.float32)
    colours = overlays.coloured(heatmap)
    assert colours.shape == (1, 4, 4)
    assert colours[0, :, 3].tolist() == [0, 81, 180, 255]
    red, green, blue = colours[0, 3, :3].astype(int)
    assert red > 240
    assert red + green > 2 * blue  # bright yellow, where red and blue are not swapped
    picture = overlays.blended(PIXELS, heatmap.repeat(3, 0))
    cover = overlays.OPACITY
    assert abs(int(picture[0, 3, 2]) - (255 * (1 - cover) + blue * cover)) <= 1


def test_a_large_mammogram_shrinks_to_the_longest_side() -> None:
    assert overlays.blended(np.ones((40, 100), np.uint16), np.zeros((40, 100)), 50).shape == (20, 50, 3)
    assert overlays.blended(np.ones((40, 100), np.uint16), np.zeros((40, 100)), 500).shape == (40, 100, 3)


def test_maps_of_several_networks_come_back_to_the_pixels_and_are_averaged() -> None:
    pixels = np.full((60, 40), 30000, np.uint16)
    places = [Framing((30, 20)).place(pixels), Framing((15, 10)).place(pixels)]
    maps = [
        lambda framed: np.full(framed.shape, 0.2, np.float32),
        lambda framed: np.full(framed.shape, 0.6, np.float32),
    ]
    whole = overlays.mean_map(places, [place.image(pixels) for place in places], maps)
    assert whole.shape == pixels.shape
    np.testing.assert_allclose(whole, 0.4, atol=1e-6)
