"""Windows: always inside, the size asked for, moved by no more than the noise. (Equal to the published ones in
tests/models/test_nyu_golden.py, which follows them to the predictions.)"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mammojax.data.crop import Crop
from mammojax.data.window import best_centre, standardise, window


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 120), st.integers(20, 120), st.integers(-30, 150), st.integers(-30, 150),
    st.sampled_from(["CC", "MLO"]), st.sampled_from([0, 7]), st.integers(0, 1000),
)  # fmt: skip
def test_a_window_holds_only_the_image_and_zeros(
    height: int, width: int, y: int, x: int, view: str, noise: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.uniform(1, 2, (height, width, 1)).astype(np.float32)
    cut = window(image, view, (y, x), (60, 50), np.random.RandomState(seed), noise)
    assert cut.shape == (60, 50, 1)
    assert cut.dtype == np.float32
    again = window(image, view, (y, x), (60, 50), np.random.RandomState(seed), noise)
    np.testing.assert_array_equal(cut, again)
    if noise == 0:
        inside = cut[cut > 0]
        assert len(inside) == min(height, 60) * min(width, 50)  # as much of the image as fits
        assert np.isin(inside, image).all()


def test_a_cc_view_is_padded_on_both_sides_and_an_mlo_view_below() -> None:
    image = np.ones((40, 30, 1), np.float32)
    rng = np.random.RandomState(0)
    cc, mlo = (window(image, view, (20, 10), (60, 50), rng)[..., 0] for view in ("CC", "MLO"))
    assert cc[10:50, :30].all()
    assert cc.sum() == mlo.sum() == 1200
    assert mlo[:40, :30].all()


def test_noise_moves_the_window_one_way_at_an_edge() -> None:
    image = np.arange(200 * 160, dtype=np.float32).reshape(200, 160, 1)
    starts = []
    for seed in range(200):
        cut = window(image, "CC", (0, 80), (60, 50), np.random.RandomState(seed), 5)
        starts.append(int(cut[30, 25, 0]) // 160 - 30)
    assert min(starts) >= -1  # resizing alone may shift by a pixel
    assert max(starts) <= 11
    assert len(set(starts)) > 4


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 60), st.integers(20, 120), st.sampled_from(["CC", "MLO"]), st.integers(0, 1000))
def test_a_window_wider_than_high_grows_within_the_image(height: int, width: int, view: str, seed: int) -> None:
    """Its horizontal noise is the larger one: a border beyond the image would cut nothing, or the other side."""
    image = np.ones((140, 200, 1), np.float32)
    rng = np.random.RandomState(seed)
    cut = window(image, view, (70, width // 2), (height, width), rng, noise=4)
    assert cut.shape == (height, width, 1)
    np.testing.assert_allclose(cut, 1, atol=1e-5)


def test_a_narrow_window_beside_the_tissue_has_a_centre() -> None:
    """Its rightmost columns are the crop's empty ones."""
    crop = np.zeros((90, 80), np.uint16)
    crop[10:70, :60] = 9
    found = Crop((0, 90, 0, 80), ((30, 60), 59), (69, (0, 59)), 0)
    assert best_centre(crop, found, "MLO", (40, 10)) == (69 - 20 - 1, 59 - 5 - 1)


def test_only_the_image_is_standardised() -> None:
    cut = np.random.default_rng(0).uniform(0, 9, (20, 30, 3)).astype(np.float32)
    result = standardise(cut)
    np.testing.assert_allclose((result[..., 0].mean(), result[..., 0].std()), (0, 1), atol=1e-5)
    np.testing.assert_array_equal(result[..., 1:], cut[..., 1:])
    assert not standardise(np.ones((4, 4, 1), np.float32)).any()
