"""The two-step baseline: features counted by hand, and the whole of it on a run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mammojax import cli
from mammojax.data import dataset
from mammojax.evaluate import heatmap, table, two_step
from mammojax.train.checkpoint import restore_best


def _at(k: int, cutoff: float) -> int:
    """Where the features of a class (1 … 4) and cutoff begin."""
    return ((k - 1) * 4 + two_step.CUTOFFS.index(cutoff)) * (3 + two_step.REGIONS * len(two_step.PROPERTIES))


def test_features_of_a_map_drawn_by_hand() -> None:
    grid = np.zeros((12, 10, 5), np.float32)
    grid[..., 0] = 1.0
    grid[2:5, 2:6, 1] = 0.6  # 12 positions of malignant mass, one of them surer
    grid[3, 3, 1] = 0.8
    grid[9, 8, 1] = 0.4
    features = two_step.features(grid)
    assert features.shape == (16 * (3 + two_step.REGIONS * 16),)
    names = ("regions", "total", "highest", *two_step.PROPERTIES)
    low = dict(zip(names, features[_at(1, 0.3) :], strict=False))
    assert (low["regions"], low["total"], low["area"]) == (2, 13, 12)
    assert low["highest"] == low["maximum"] == pytest.approx(0.8)
    assert low["mean"] == pytest.approx((11 * 0.6 + 0.8) / 12)
    assert (low["extent"], low["solidity"], low["Euler number"]) == (1, 1, 1)
    assert low["equivalent diameter"] == pytest.approx(np.sqrt(4 * 12 / np.pi))
    assert features[_at(1, 0.3) + 3 + 16] == 1  # the second largest region is one position
    assert tuple(features[_at(1, 0.5) :][:4]) == (1, 12, pytest.approx(0.8), 12)
    assert tuple(features[_at(1, 0.7) :][:4]) == (1, 1, pytest.approx(0.8), 1)
    assert not features[_at(1, 0.9) :][:2].any()
    assert not features[_at(2, 0.3) :].any()  # nothing of the other classes
    assert np.isfinite(features).all()


def test_features_do_not_depend_on_where_the_regions_lie() -> None:
    grid = np.zeros((14, 11, 5), np.float32)
    for k in range(1, 5):
        grid[1:4, 1 + k : 3 + k, k] = 0.4 + 0.1 * k
        grid[8:13, 2:4, k] = 0.95
        grid[8, 4:7, k] = 0.75
    np.testing.assert_allclose(two_step.features(grid[::-1, ::-1]), two_step.features(grid), atol=1e-12)


def test_it_runs_on_a_run_and_its_output_reads_like_one(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["two-step", "--run", str(finished), "--output", str(tmp_path / "a")]) == 2
    assert "choose fewer with --min-split" in capsys.readouterr().err
    for name in ("a", "b"):
        result = two_step.two_step(finished, tmp_path / name, trees=20, min_split=4)
        assert 0 <= result["test"]["auc"]["value"] <= 1
    read = [table.read_images(tmp_path / name, "test") for name in ("a", "b")]
    np.testing.assert_array_equal(read[0].score(), read[1].score())
    assert cli.main(["compare", str(finished), str(tmp_path / "a")]) == 0
    assert "flips averaged" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "config.json").read_text())["config"]["row"] == "two_step"
    assert (tmp_path / "a" / "metrics.json").read_bytes() == (tmp_path / "b" / "metrics.json").read_bytes()


def test_features_do_not_depend_on_the_batch(finished: Path) -> None:
    patch, data = restore_best(finished / "patch"), dataset.of_run(finished)
    features = [two_step.all_features(patch, data, "test", batch, "flips") for batch in (1, 5)]
    assert features[0].shape[:2] == (4, len(data.table("test")))
    np.testing.assert_allclose(features[0], features[1], atol=1e-4)
    image = data.source("test")[0]["image"][None]
    for turned, expected_features in zip(
        (image, image[:, :, ::-1], image[:, ::-1], image[:, ::-1, ::-1]), features[0], strict=True
    ):
        np.testing.assert_allclose(
            two_step.features(np.asarray(heatmap.heatmap(*patch, turned.copy())[0])), expected_features[0], atol=1e-4
        )


def test_bad_requests_are_refused_and_a_trained_run_is_not_overwritten(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (finished / "metrics.json").read_bytes()
    arguments = ["two-step", "--run", str(finished), "--min-split", "4", "--output"]
    assert cli.main([*arguments, str(finished)]) == 2
    assert "another --output" in capsys.readouterr().err
    assert (finished / "metrics.json").read_bytes() == before
    assert cli.main(["two-step", "--run", str(finished), "--min-split", "1", "--output", str(tmp_path / "out")]) == 2
    assert "at least 2 images" in capsys.readouterr().err
    alone = shutil.copytree(finished, tmp_path / "alone", ignore=shutil.ignore_patterns("patch"))
    monkeypatch.chdir(finished / "patch")  # an empty init_from does not mean the folder one stands in
    assert cli.main(["two-step", "--run", str(alone), "--output", str(tmp_path / "out")]) == 2
    assert "started from no patch run, or it is gone; name one with --patch-run" in capsys.readouterr().err
    monkeypatch.setattr(dataset.Prepared, "labels", lambda self, split: np.zeros(len(self.table(split)), np.int64))
    assert cli.main([*arguments, str(tmp_path / "out")]) == 2
    assert "all of one class" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
