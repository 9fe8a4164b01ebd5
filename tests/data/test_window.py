"""Windows: always inside, the size asked for, moved by no more than the noise. (Equal to the published ones in
tests/models/test_nyu_golden.py, which follows them to the predictions.)"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mammojax.data.breast import Crop
from mammojax.data.window import SIZES, Random, best_centre, box, cut, standardise


def window(
    image: np.ndarray, view: str, centre: tuple[int, int], size: tuple[int, int], rng: Random, noise: int = 0
) -> np.ndarray:
    """The window of an image and its heatmaps [H, W, C]."""
    return cut(list(np.moveaxis(image, -1, 0)), box(image.shape, view, centre, size, rng, noise), size)


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


def test_a_window_that_overhangs_to_the_left_counts_all_the_columns_it_will_show() -> None:
    """A crop 12 high and 8 wide, the breast's reach 3; a window of 4 × 6, so half of it is 2 and 3.

    x = 3 − 3 − 1 = −1: the window would lie at columns −4 … 1 and is moved to 0 … 5. The armpit fills rows 0 … 3 out to
    column 6, in the upper third where the search for the reach does not look; below it the breast fills columns 0 … 3.
    Of columns 0 … 5 rows 0 … 3 hold 6 each and the others 4: the window from row 0 holds the most, 24, and its middle
    is row 2. Of columns 0 and 1 alone, up to the edge that lies outside, every row holds 2, and of equals the window in
    the image's middle, row 6, would be chosen.
    """
    crop = np.zeros((12, 8), np.uint16)
    crop[:4, :7] = crop[4:, :4] = 9
    breast_crop = Crop((0, 12, 0, 8), ((4, 11), 3), (11, (0, 3)), 0)
    assert best_centre(crop, breast_crop, "CC", (4, 6)) == (2, -1)


def test_a_published_window_that_overhangs_to_the_left() -> None:
    """The same at full size: a crop of 3000 × 1400, the reach 899 below an armpit of 800 rows and 1300 columns.

    x = 899 − 971 − 1 = −73, so columns −1044 … 897 are moved to 0 … 1941, all of the crop's. Rows 0 … 799 hold 1300 and
    the others 900: the highest window holds the most, its middle at row 2677 // 2 = 1338. Up to column 897 alone all
    rows hold the same, and the middle would be 1500.
    """
    crop = np.zeros((3000, 1400), np.uint16)
    crop[:800, :1300] = crop[800:, :900] = 9
    breast_crop = Crop((0, 3000, 0, 1400), ((1000, 2999), 899), (2999, (0, 899)), 0)
    assert best_centre(crop, breast_crop, "CC", SIZES["CC"]) == (1338, -73)


@settings(max_examples=60, deadline=None)
@given(st.integers(21, 40), st.integers(5, 40), st.integers(10, 17), st.data(), st.integers(0, 1000))
def test_no_higher_or_lower_cc_window_shows_more_tissue(
    height: int, width: int, wide: int, data: st.DataObject, seed: int
) -> None:
    """Against every window that there is, as `window` cuts it, clipped at whichever edge."""
    crop = (np.random.default_rng(seed).random((height, width)) < 0.5).astype(np.uint16)
    breast_crop = Crop((0, height, 0, width), ((0, 0), data.draw(st.integers(1, width))), (height - 1, (0, 0)), 0)
    y, x = best_centre(crop, breast_crop, "CC", (20, wide))

    def tissue_at(row: int) -> float:
        return float(window(crop[..., None], "CC", (row, x), (20, wide), np.random.RandomState(0)).sum())

    tissue = {row: tissue_at(row) for row in range(10, height - 10 + 1)}
    best = [row for row, value in tissue.items() if value == max(tissue.values())]
    assert y in best
    assert abs(y - height // 2) == min(abs(row - height // 2) for row in best)


def test_a_narrow_window_beside_the_tissue_has_a_centre() -> None:
    """Its rightmost columns are the crop's empty ones."""
    crop = np.zeros((90, 80), np.uint16)
    crop[10:70, :60] = 9
    breast_crop = Crop((0, 90, 0, 80), ((30, 60), 59), (69, (0, 59)), 0)
    assert best_centre(crop, breast_crop, "MLO", (40, 10)) == (69 - 20 - 1, 59 - 5 - 1)


def test_only_the_image_is_standardised() -> None:
    before = np.random.default_rng(0).uniform(0, 9, (20, 30, 3)).astype(np.float32)
    result = standardise(before.copy())
    np.testing.assert_allclose((result[..., 0].mean(), result[..., 0].std()), (0, 1), atol=1e-5)
    np.testing.assert_array_equal(result[..., 1:], before[..., 1:])
    assert not standardise(np.ones((4, 4, 1), np.float32)).any()
