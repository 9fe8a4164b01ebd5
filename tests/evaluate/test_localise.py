"""Localisation measures: right on maps whose answer is known, and end to end on a run."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammojax import cli
from mammojax.evaluate import localise


def _mask(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((40, 30), bool)
    y, x = rng.integers(2, 28), rng.integers(2, 18)
    mask[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = True
    return mask


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_map_that_is_the_mask_is_perfect_and_its_complement_worthless(seed: int) -> None:
    mask = _mask(seed)
    inside, outside = mask.astype(np.float32), (~mask).astype(np.float32)
    assert localise.share(inside, mask) == 1.0
    assert localise.share(outside, mask) == 0.0
    assert localise.share(np.ones_like(inside), mask) == pytest.approx(mask.mean())
    assert localise.pointing(inside, mask)
    assert not localise.pointing(outside, mask)
    assert localise.pointing(outside, mask, tolerance=40)
    assert not localise.pointing(np.zeros_like(inside), mask, tolerance=40)
    for map_, hit in ((inside, 1.0), (outside, 0.0)):
        marks_hit, lesions = localise.hits(localise.marks(map_, 2), mask)
        assert localise.froc([marks_hit], [lesions], (0.0, 2.0)).tolist() == [[hit, hit]]


def test_froc_by_hand() -> None:
    two = np.zeros((20, 20), bool)
    two[2:6, 2:6] = two[12:16, 12:16] = True
    second = np.zeros((20, 20), bool)
    second[8:12, 8:12] = True
    marks = [[(0.4, 13, 13), (0.9, 3, 3), (0.8, 4, 4), (0.7, 0, 19)], [(0.6, 0, 0), (0.5, 9, 9)]]
    marks_hit, lesions = zip(*(localise.hits(f, m) for f, m in zip(marks, (two, second), strict=True)), strict=True)
    assert marks_hit == ([(0.9, True), (0.7, False), (0.4, True)], [(0.6, False), (0.5, True)])
    assert lesions == (2, 1)
    # Down the scores: hit, (the same lesion again), false, false, hit, hit: 1/3 at no false mark, 3/3 at one an image.
    np.testing.assert_allclose(localise.froc(marks_hit, lesions, (0.0, 0.5, 1.0)), [[1 / 3, 1 / 3, 1.0]])
    # The first image counted twice: 5 lesions, its one false mark twice. Then the second image alone.
    weighted = localise.froc(marks_hit, lesions, (0.0, 1.0), weight=np.array([[2.0, 1.0], [0.0, 1.0]]))
    np.testing.assert_allclose(weighted, [[2 / 5, 1.0], [0.0, 1.0]])
    # A third image without lesions and marks lowers the false marks per image: the one at 0.7 is now within 1/3.
    np.testing.assert_allclose(localise.froc([*marks_hit, []], [*lesions, 0], (1 / 3,)), [[1 / 3]])
    # Equal scores come together: neither the hit nor the false mark of a tie can be had alone.
    np.testing.assert_allclose(localise.froc([[(1.0, True)], [(1.0, False)]], [1, 0], (0.4, 0.5)), [[0.0, 1.0]])
    assert np.isnan(localise.froc([[(1.0, False)]], [0], (1.0,))).all()
    np.testing.assert_array_equal(localise.froc([[], []], [1, 0], (1.0,)), [[0.0]])  # a map that marks nothing


def test_marks_are_local_maxima_apart() -> None:
    map_ = np.zeros((30, 30), np.float32)
    map_[5, 5], map_[6, 6], map_[20, 20] = 0.9, 0.8, 0.5
    assert localise.marks(map_, 4) == [(pytest.approx(0.9), 5, 5), (pytest.approx(0.5), 20, 20)]


def test_a_run_is_measured_beside_chance(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "localise.json"
    assert cli.main(["localise", "--run", str(finished), "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert set(result["maps"]) == {"saliency", "saliency, random weights", "heatmap", "area"}
    assert result["images"] > 0
    assert result["others"] > 0
    for cells in result["maps"].values():
        assert 0 <= cells["share"]["low"] <= cells["share"]["value"] <= cells["share"]["high"] <= 1
    assert "pointing game" in capsys.readouterr().out
    assert cli.main(["localise", "--run", str(finished / "patch")]) == 2
    assert "patch classifier" in capsys.readouterr().err
    assert cli.main(["localise", "--run", str(finished), "--images", "1"]) == 0
    assert "1 malignant images" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        cli.main(["localise", "--run", str(finished), "--images", "-1"])
    assert "whole number" in capsys.readouterr().err
