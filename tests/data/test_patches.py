"""Patches overlap as they must, lie where they may, and depend on nothing but their seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammojax.data import patches
from mammojax.vocabulary import EXAM_PATCH_CLASSES

H, W, P = 120, 90, 24


def _case(seed: int) -> tuple[np.ndarray, list[tuple[np.ndarray, int]]]:
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 65536, (H, W), np.uint16)
    lesions = []
    for k in range(int(rng.integers(1, 4))):
        y, x, r = rng.integers(0, H), rng.integers(0, W), rng.integers(2, 30)
        rows, columns = np.mgrid[:H, :W]
        lesions.append((np.hypot(rows - y, columns - x) <= r, k % 4 + 1))
    return image, lesions


def _overlap(mask: np.ndarray, patch: patches.Patch, side: int) -> float:
    padded = np.pad(mask, side)
    inside = padded[patch.top + side : patch.top + 2 * side, patch.left + side : patch.left + 2 * side].sum()
    return max(inside / mask.sum(), inside / side**2)


def _cutoff(mask: np.ndarray, side: int) -> float:
    """The least cutoff that sampling can fall to: 1000 draws in a row miss what 1 of 50 centres gives once in 10^9."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    half = side // 2
    padded = np.pad(mask, half).astype(np.int64)
    columns = np.cumsum(np.pad(padded, ((1, 0), (1, 0))).cumsum(0), axis=1)
    inside = columns[side:, side:] - columns[:-side, side:] - columns[side:, :-side] + columns[:-side, :-side]
    inside = inside[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    overlaps = np.maximum(inside / mask.sum(), inside / side**2)
    return next(c for c in 0.9 - 0.05 * np.arange(20) if np.mean(overlaps > c) > 0.02) - 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["s1", "s10", "s1g"]))
def test_every_patch_keeps_the_rules(seed: int, kind: str) -> None:
    image, lesions = _case(seed)
    side = 2 * P if kind == "s1g" else P
    sampled = patches.sample_patches(image, lesions, kind, P, seed)
    count = 10 if kind == "s10" else 1
    own, background = sampled[: count * len(lesions)], sampled[count * len(lesions) :]
    assert [p.label for p in own] == [label for _, label in lesions for _ in range(count)]
    assert len(background) <= count
    padded = np.pad(image, side)
    for k, patch in enumerate(sampled):
        assert -(side // 2) <= patch.top < H - side // 2
        assert -(side // 2) <= patch.left < W - side // 2
        at = slice(patch.top + side, patch.top + 2 * side), slice(patch.left + side, patch.left + 2 * side)
        np.testing.assert_array_equal(patch.pixels, padded[at])
        if k < len(own):
            overlap = _overlap(lesions[k // count][0], patch, side)
            assert overlap == pytest.approx(patch.overlap)
            assert kind != "s10" or overlap > _cutoff(lesions[k // count][0], side)
        else:
            assert patch.label == 0
            assert max(_overlap(mask, patch, side) for mask, _ in lesions) <= 0.35
    again = patches.sample_patches(image, lesions, kind, P, seed)
    assert all(np.array_equal(a.pixels, b.pixels) and a.label == b.label for a, b in zip(sampled, again, strict=True))


def test_the_cutoff_is_point_nine_where_it_can_be() -> None:
    image = np.ones((H, W), np.uint16)
    mask = np.zeros((H, W), bool)
    mask[40:80, 30:60] = True
    sampled = patches.sample_patches(image, [(mask, 1)], "s10", P, 0)
    assert all(_overlap(mask, p, P) > 0.9 for p in sampled[:10])
    assert len({(p.top, p.left) for p in sampled[:10]}) > 5


def test_the_cutoff_falls_for_a_lesion_that_no_patch_can_cover() -> None:
    mask = np.zeros((H, W), bool)
    mask[20:100, 20:80] = True
    mask[22:98, 22:78] = False  # a thin ring: no patch holds much of it, nor is filled by it
    sampled = patches.sample_patches(np.ones((H, W), np.uint16), [(mask, 3)], "s10", P, 0)[:10]
    assert [p.label for p in sampled] == [3] * 10
    assert all(_cutoff(mask, P) < _overlap(mask, p, P) < 0.9 for p in sampled)


def test_the_background_keeps_clear_of_lesions_that_give_no_patches() -> None:
    image, mask, other = np.ones((H, W), np.uint16), np.zeros((H, W), bool), np.zeros((H, W), bool)
    mask[10:20, 10:20] = True
    other[40:, :] = True
    sampled = patches.sample_patches(image, [(mask, 1)], "s10", P, 0, avoid=[other])
    assert len(sampled) == 20
    assert all(_overlap(other, p, P) <= 0.35 for p in sampled[10:])
    small = [(np.ones((P, P), bool), 1)]  # nearly all of it is lesion: fewer patches, none with too much of it
    sampled = patches.sample_patches(np.ones((P, P), np.uint16), small, "s10", 4, 0)
    assert all(p.overlap <= 0.35 for p in sampled[10:])


def test_s1_is_centred_on_the_lesion_and_s1g_is_twice_as_large() -> None:
    image, mask = np.ones((H, W), np.uint16), np.zeros((H, W), bool)
    mask[50:61, 40:51] = True
    patch = patches.sample_patches(image, [(mask, 2)], "s1", P, 0)[0]
    assert (patch.top + P // 2, patch.left + P // 2) == (55, 45)
    assert patches.sample_patches(image, [(mask, 2)], "s1g", P, 0)[0].pixels.shape == (2 * P, 2 * P)


def test_a_lesion_that_fills_the_image_leaves_its_borders_as_background() -> None:
    sampled = patches.sample_patches(np.ones((H, W), np.uint16), [(np.ones((H, W), bool), 1)], "s10", P, 0)
    assert [p.label for p in sampled] == [1] * 10 + [0] * 10
    assert all(p.overlap <= 0.35 for p in sampled[10:])


def test_without_a_lesion_there_are_no_patches() -> None:
    assert patches.sample_patches(np.ones((H, W), np.uint16), [(np.zeros((H, W), bool), 1)], "s10", P, 0) == []


def test_patches_of_exams_show_what_their_class_says() -> None:
    pixels = np.random.default_rng(0).integers(1, 1000, (200, 150), np.uint16)
    benign, malignant = np.zeros((2, 200, 150), bool)
    benign[40:50, 40:50], malignant[150:160, 100:110] = True, True
    marked = pixels.copy()
    marked[benign], marked[malignant] = 30000, 60000
    both = patches.sample_exam_patches(marked, [(benign, False), (malignant, True)], 32, seed=0)
    names = [EXAM_PATCH_CLASSES[patch.label] for patch in both]
    assert {name: names.count(name) for name in names} == {"benign": 10, "malignant": 10, "outside": 20}
    for patch, name in zip(both, names, strict=True):
        assert patch.pixels.shape == (32, 32)
        np.testing.assert_array_equal(patch.pixels, marked[patch.top : patch.top + 32, patch.left : patch.left + 32])
        brightest = {"benign": 30000, "malignant": 60000}.get(name, 0)
        assert patch.pixels.max() == brightest or (brightest == 0 and patch.pixels.max() < 1000)
    alone = patches.sample_exam_patches(pixels, [], 32, seed=1)
    assert [EXAM_PATCH_CLASSES[patch.label] for patch in alone] == ["negative"] * patches.PER_NEGATIVE
    of_lesions = patches.sample_exam_patches(marked, [(benign, False)], 32, seed=2, outside=False)
    assert not any(patch.label == 2 for patch in of_lesions)
    small = patches.sample_exam_patches(pixels[:20], [], 32, seed=3)
    assert small[0].pixels[20:].max() == 0  # padded below


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_jittered_lesions_stand_anywhere_and_the_background_is_tissue(seed: int) -> None:
    image, lesions = _case(seed)
    tissue = np.zeros((H, W), bool)
    tissue[:, : W // 2] = True
    lesions, avoid = lesions[:-1], [mask for mask, _ in lesions[-1:]]
    sampled = patches.sample_jittered(image, lesions, tissue, P, seed, avoid)
    own, background = sampled[: 10 * len(lesions)], sampled[10 * len(lesions) :]
    assert [p.label for p in own] == [label for _, label in lesions for _ in range(10)]
    assert len(background) <= 8
    discs = [(np.argwhere(mask).mean(0), np.sqrt(mask.sum() / np.pi)) for mask in (*(m for m, _ in lesions), *avoid)]
    for k, patch in enumerate(sampled):
        centre = np.array([patch.top, patch.left]) + P // 2
        if k < len(own):
            middle, radius = discs[k // 10]
            most = min(P / 2.5, max(0.7 * radius, P / 7))
            assert np.abs(centre - np.clip(middle, 0, [H - 1, W - 1])).max() <= most + 0.5
        else:
            assert patch.label == 0
            assert tissue[tuple(centre)] or k >= len(sampled) - 2
            assert all(np.hypot(*(centre - middle)) > radius + P / 3 for middle, radius in discs)


def test_a_normal_image_gives_jittered_background_alone() -> None:
    image = np.ones((H, W), np.uint16)
    assert [p.label for p in patches.sample_jittered(image, [], np.ones((H, W), bool), P, 0)] == [0] * 8
    assert len(patches.sample_jittered(image, [], np.zeros((H, W), bool), P, 0)) == 2  # all dark


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_the_context_lies_around_a_jittered_patch_and_moves_nothing(seed: int, context: int) -> None:
    image, lesions = _case(seed)
    alone = patches.sample_jittered(image, lesions, image > 0, P, seed)
    around = patches.sample_jittered(image, lesions, image > 0, P, seed, context=context)
    assert [p.label for p in around] == [p.label for p in alone]
    for patch, inner in zip(around, alone, strict=True):
        assert patch.pixels.shape == (P + 2 * context,) * 2
        np.testing.assert_array_equal(patch.pixels[context:-context, context:-context], inner.pixels)
        assert (patch.top, patch.left) == (inner.top - context, inner.left - context)
