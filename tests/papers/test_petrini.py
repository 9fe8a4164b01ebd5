"""The two-view papers' tables: published numbers as their abstracts have them, ours only from runs that fit the row."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mammojax import cli, configs
from mammojax.evaluate import table
from mammojax.evaluate.table import Predictions
from mammojax.papers import petrini, petrini2022, petrini2025, settings
from mammojax.papers.runs import find_runs
from mammojax.papers.tables import MISSING, Row, rows_of

B3 = "efficientnet_b3"


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs have all other settings of their row."""
    monkeypatch.setattr(settings, "differences", lambda config, row: [])


def _frame(noise: int, by_breast: bool) -> pd.DataFrame:
    """Predictions of 40 patients: one malignant or benign breast each, by breast or by its two views."""
    rng = np.random.default_rng(noise)
    rows = []
    for k in range(40):
        label = k // 2 % 2
        ids = {"patient_id": f"p{k}", "exam_id": f"e{k}", "laterality": "LR"[k % 2]}
        for view in ("CC",) if by_breast else ("CC", "MLO"):
            score = 0.4 * label + rng.random()
            cells = {"malignant": label} if by_breast else {"image": f"{k}{view}", "view": view, "label": label}
            rows.append(ids | cells | {"p_malignant": score})
    return pd.DataFrame(rows)


def _run(folder: Path, row: str, value: float = 0.8, noise: int = 0, **changed: Any) -> Path:
    """A finished run of a row, but for `changed`."""
    split = changed.get("split", "all" if "source" in changed else "official")
    facts = {"name": changed.get("data", "cbis_ddsm"), "split": split,
             "framing": {"size": changed.get("size", [1152, 896]), "crop": "none", "keep_aspect": False}}  # fmt: skip
    config = {"row": row, "seed": changed.get("seed", 0), "model": {"trunk": changed.get("trunk", B3)},
              "data": {"source": changed.get("source", "")}}  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": config, "facts": facts}))
    interval = {"value": value, "low": value - 0.05, "high": value + 0.05}
    (folder / "metrics.json").write_text(json.dumps({"test": {"auc": interval}}))
    table.write(folder / "predictions" / "test.csv", _frame(noise, row.startswith("two_view")))
    return folder


def _cells(module: Any, root: Path, heading: str, label: str) -> dict[str, str]:
    (section,) = [s for s in module.sections(find_runs(root)) if s.heading == heading]
    (row,) = [row for row in section.rows if row[0] == label]
    return dict(zip(section.header, row, strict=True))


def test_published_numbers_are_those_of_the_facts(shared: Path) -> None:
    facts = (shared / "golden" / "petrini" / "FACTS.md").read_text()
    for paper in ("petrini2022", "petrini2025"):
        for row in (row for rows in rows_of(paper).values() for row in rows):
            if row.published == MISSING:
                assert not row.where
                continue
            if row.measure == "equal_error":
                assert "85.13% acc at EER" in facts
                assert row.published == "0.8513"
            elif "our subtraction" in row.where:
                total, gain = map(float, re.findall(r"0\.\d+", row.where))
                assert f"{total - gain:.4f}" == row.published
            else:
                assert row.published.removeprefix("+") in facts, row.label


def test_a_row_has_the_runs_of_its_config_and_split(tmp_path: Path, same: None) -> None:
    _run(tmp_path / "one", f"single_view:{B3}", 0.81)
    _run(tmp_path / "small", "single_view", 0.9, size=[288, 224])
    _run(tmp_path / "phantom", "two_view", 0.7, data="phantom")
    _run(tmp_path / "shen", "two_view", 0.99, split="shen")
    _run(tmp_path / "film", "two_view", 0.98, data="manifest", split="all")
    one = _cells(petrini2025, tmp_path, "CBIS-DDSM", "one view, official split")
    assert (one["ours"], one["published"]) == ("0.810 [0.760, 0.860]", "0.8343")
    assert one["status"] == "run; others: run (288x224)"
    assert one["data, seeds"] == "cbis_ddsm, seed 0"
    two = _cells(petrini2025, tmp_path, "CBIS-DDSM", "two views, official split")
    assert (two["ours"], two["status"]) == ("0.700 [0.650, 0.750]", "run on phantom")
    older = _cells(petrini2022, tmp_path, "CBIS-DDSM", "one view, official split")
    assert older["status"].startswith(f"run (trunk {B3})")
    vindr = _cells(petrini2025, tmp_path, "VinDr-Mammo", "two views, all exams")
    assert (vindr["ours"], vindr["status"]) == ("0.980 [0.930, 1.030]", f"run (trunk {B3})")
    assert _cells(petrini2025, tmp_path, "VinDr-Mammo", "one view, all exams")["status"] == "not run"


def test_the_gain_is_paired_by_breast(tmp_path: Path, same: None) -> None:
    label = "two views - one view"
    two = _run(tmp_path / "two", "two_view", noise=1)
    assert _cells(petrini2025, tmp_path, "CBIS-DDSM", label)["status"] == "no run of single_view"
    one = _run(tmp_path / "one", "single_view", noise=2)
    cells = _cells(petrini2025, tmp_path, "CBIS-DDSM", label)
    scores, images = _frame(1, True), _frame(2, False)
    mean = images.groupby(["patient_id"])["p_malignant"].mean().loc[scores["patient_id"]]

    def auc(score: np.ndarray) -> float:
        positive, negative = score[scores["malignant"] == 1], score[scores["malignant"] == 0]
        return float((positive[:, None] > negative[None]).mean())

    expected = auc(scores["p_malignant"].to_numpy()) - auc(mean.to_numpy())
    assert cells["ours"].startswith(f"{expected:+.3f} [")
    assert (cells["published"], cells["command"]) == ("+0.0217", "computed from the two rows above")
    table.write(one / "predictions" / "test.csv", _frame(2, False).iloc[:-2])
    assert _cells(petrini2025, tmp_path, "CBIS-DDSM", label)["status"] == "not measured on the same breasts"
    (two / "predictions" / "test.csv").unlink()
    assert "no labelled predictions" in _cells(petrini2025, tmp_path, "CBIS-DDSM", label)["status"]


def test_five_folds_count_when_all_are_there(tmp_path: Path, same: None) -> None:
    for fold in range(5):
        row = _cells(petrini2022, tmp_path, "CBIS-DDSM", "two views, five folds")
        assert row["status"] == "not run", fold
        source = f"cbis_ddsm_folds/split_0_fold_{fold}.csv"
        _run(tmp_path / f"f{fold}", "two_view", noise=fold, data="manifest", source=source, trunk="efficientnet_b0")
    row = _cells(petrini2022, tmp_path, "CBIS-DDSM", "two views, five folds")
    aucs = []
    for fold in range(5):
        frame = _frame(fold, True)
        positive, negative = (frame["p_malignant"][frame["malignant"] == k].to_numpy() for k in (1, 0))
        aucs.append((positive[:, None] > negative[None]).mean())
    assert row["ours"].startswith(f"{np.mean(aucs):.3f} [")
    assert row["status"] == "run"
    equal = _cells(petrini2022, tmp_path, "CBIS-DDSM", "two views, five folds, at equal error rates")
    assert 0.5 < float(equal["ours"]) < 1
    assert _cells(petrini2022, tmp_path, "CBIS-DDSM", "two views, official split")["status"] == "not run"


def test_equal_error_lies_where_both_errors_are_equal() -> None:
    label = np.array([0] * 4 + [1] * 4)
    score = np.array([0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9])
    assert petrini.equal_error(Predictions("a", pd.DataFrame({"malignant": label, "p_malignant": score}))) == 0.75


def test_the_command_and_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "my runs"
    _run(root / "one", "single_view", 0.812)
    page = tmp_path / "p.html"
    assert cli.main(["reproduce", "petrini2025", "--runs", str(root), "--output", str(page)]) == 0
    printed, written = capsys.readouterr().out, page.read_text()
    for text in ("0.8658", "0.812 [0.762, 0.862]", "our subtraction", "new comparative method", "0.0315"):
        assert text in written
        assert text.partition(" [")[0] in printed
    start = shlex.quote(str(root / "petrini2025_single_view_cbis_ddsm" / "official"))
    assert f"configs/two_view.py:2025 --config.data.split=official --config.init_from={start} " in printed
    assert "mammojax manifest vindr --source DIR --birads-3 malignant" in printed
    assert cli.main(["reproduce", "petrini2022", "--runs", str(root)]) == 0
    assert "cbis_ddsm_folds/split_0_fold_0.csv" in capsys.readouterr().out


def test_every_command_names_a_config_that_takes_it() -> None:
    rows = [
        (paper, row) for paper in ("petrini2022", "petrini2025") for rows in rows_of(paper).values() for row in rows
    ]
    for paper, row in rows:
        assert row.row in ("single_view", "two_view")
        _takes(petrini.command(paper, row, Path("runs")), row)


def _takes(command: str, row: Row) -> None:
    argument = re.search(rf"configs/{row.row}\.py:(\w+) ", command)
    assert argument
    config = configs.get(row.row, argument[1])
    assert (config.row, config.model.trunk) == (f"{row.row}:{argument[1]}", row.trunk)
    for field in re.findall(r"--config\.([\w.]+)=", command):
        *path, last = field.split(".")
        inner = config
        for key in path:
            inner = inner[key]
        assert last in inner, field
