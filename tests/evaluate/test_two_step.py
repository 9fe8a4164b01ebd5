"""The two-step baseline: features counted by hand, and the whole of it on a run."""

import json
from pathlib import Path

import numpy as np
import pytest

from mammojax import cli
from mammojax.evaluate import compare, two_step


def _at(k: int, cutoff: float) -> int:
    """Where the features of a class (1 … 4) and cutoff begin."""
    return ((k - 1) * 4 + two_step.CUTOFFS.index(cutoff)) * (3 + two_step.REGIONS * len(two_step.PROPERTIES))


def test_features_of_a_map_drawn_by_hand() -> None:
    grid = np.zeros((12, 10, 5), np.float32)
    grid[..., 0] = 1.0
    grid[2:5, 2:6, 1] = 0.6  # 12 positions of malignant mass, one of them surer
    grid[3, 3, 1] = 0.8
    grid[9, 8, 1] = 0.4
    seen = two_step.features(grid)
    assert seen.shape == (16 * (3 + two_step.REGIONS * 16),)
    names = ("regions", "total", "highest", *two_step.PROPERTIES)
    low = dict(zip(names, seen[_at(1, 0.3) :], strict=False))
    assert (low["regions"], low["total"], low["area"]) == (2, 13, 12)
    assert low["highest"] == low["maximum"] == pytest.approx(0.8)
    assert low["mean"] == pytest.approx((11 * 0.6 + 0.8) / 12)
    assert (low["extent"], low["solidity"], low["Euler number"]) == (1, 1, 1)
    assert low["equivalent diameter"] == pytest.approx(np.sqrt(4 * 12 / np.pi))
    assert seen[_at(1, 0.3) + 3 + 16] == 1  # the second largest region is one position
    assert tuple(seen[_at(1, 0.5) :][:4]) == (1, 12, pytest.approx(0.8), 12)
    assert tuple(seen[_at(1, 0.7) :][:4]) == (1, 1, pytest.approx(0.8), 1)
    assert not seen[_at(1, 0.9) :][:2].any()
    assert not seen[_at(2, 0.3) :].any()  # nothing of the other classes
    assert np.isfinite(seen).all()


def test_it_runs_on_a_run_and_its_output_reads_like_one(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["two-step", "--run", str(finished), "--output", str(tmp_path / "a")]) == 2
    assert "choose fewer with --min-split" in capsys.readouterr().err
    for name in ("a", "b"):
        result = two_step.two_step(finished, tmp_path / name, trees=20, min_split=4)
        assert 0 <= result["test"]["auc"]["value"] <= 1
    read = [compare.read(tmp_path / name, "test") for name in ("a", "b")]
    np.testing.assert_array_equal(read[0].score, read[1].score)
    compare.aligned([read[0], compare.read(finished, "test")])
    assert json.loads((tmp_path / "a" / "config.json").read_text())["config"]["row"] == "two_step"
    assert (tmp_path / "a" / "metrics.json").read_bytes() == (tmp_path / "b" / "metrics.json").read_bytes()
