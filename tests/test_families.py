"""The label-efficiency sweep: nested subsets, the same test set, one run a size; and the members of an ensemble."""

import csv
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import ml_collections
import numpy as np
import pytest

from mammojax import families
from mammojax.configs import exam_ensemble, label_efficiency
from mammojax.data import dataset
from mammojax.errors import BadConfig, BadDataset
from mammojax.train.checkpoint import restore_best
from tests.test_run_folder import started


def test_subsets_are_nested_and_keep_the_proportion() -> None:
    table = [
        {"patient_id": f"p{k:03d}", "label": str(int(k % 5 == 0 and view == 1))} for k in range(100) for view in (0, 1)
    ]
    before: set[str] = set()
    for patients in (10, 20, 35, 100):
        rows = dataset.of_patients(table, patients, seed=3)
        chosen = {table[k]["patient_id"] for k in rows}
        assert len(chosen) == patients
        assert before < chosen
        assert len(rows) == 2 * patients  # all images of a patient
        malignant = sum(int(table[k]["label"]) for k in rows)
        assert abs(malignant - patients / 5) <= 1
        before = chosen
    assert list(dataset.of_patients(table, 10, seed=3)) == list(dataset.of_patients(table, 10, seed=3))
    assert list(dataset.of_patients(table, 10, seed=4)) != list(dataset.of_patients(table, 10, seed=3))
    with pytest.raises(BadDataset, match=r"is 101, but the train split has 100"):
        dataset.of_patients(table, 101, seed=0)


def test_a_sweep_runs_each_size_and_tabulates(finished: Path, tmp_path: Path) -> None:
    config, _, _ = restore_best(finished)
    config = ml_collections.ConfigDict(config)
    del config.patch, config.stages.stage2
    config.init_from, config.patients_labelled = str(finished), (4, 0)
    config.stages.stage1.epochs = 1
    config.batch = 2
    rows = families.sweep(config, tmp_path)
    assert rows[0]["patients"] == 4 < rows[1]["patients"]
    with (tmp_path / "label_efficiency.csv").open(newline="") as file:
        assert [int(row["patients"]) for row in csv.DictReader(file)] == [row["patients"] for row in rows]
    assert (tmp_path / "label_efficiency.png").stat().st_size > 5000
    steps, tests = defaultdict(int), []
    for name in ("patients_4", "patients_all"):
        log = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        steps[name] = log[-1]["step"]
        lines = (tmp_path / name / "predictions" / "test.csv").read_text().splitlines()
        tests.append([line.split(",")[:6] for line in lines])  # all but the scores
    assert steps["patients_4"] == rows[0]["images"] // 2 < steps["patients_all"] == rows[1]["images"] // 2
    assert tests[0] == tests[1]
    assert np.isfinite(rows[1]["auc"])


def test_a_sweep_on_few_malignant_test_images_draws_no_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"auc": {"value": 0.9, "low": None, "high": None, "n": [40, 3]}}
    monkeypatch.setattr(families.run, "check", lambda config: config)
    monkeypatch.setattr(families.run, "run", lambda *_: {"test": few, "test_flips": few})
    table = SimpleNamespace(table=lambda _: [{"patient_id": str(k), "label": str(k % 2)} for k in range(8)])
    monkeypatch.setattr(families.run, "dataset", lambda *_: table)
    config = label_efficiency.get_config("quickstart")
    config.patients_labelled = (4, 0)
    families.sweep(config, tmp_path)
    assert capsys.readouterr().out.count("0.900 [too few to estimate], n 40 + 3") == 2
    with (tmp_path / "label_efficiency.csv").open(newline="") as file:
        assert [(row["low"], row["high"], row["test_images"]) for row in csv.DictReader(file)] == [
            ("", "", "40 + 3")
        ] * 2


def test_a_size_of_another_config_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    config = label_efficiency.get_config("quickstart")
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "config.json").write_text('{"config": {}, "facts": {}}')
    config.init_from, config.patients_labelled = str(tmp_path / "patch"), (20, 40)
    first = config.copy_and_resolve_references()
    with first.unlocked():
        del first.patients_labelled
    first.data.patients, first.data.data_dir, first.batch = 40, "elsewhere", 4
    started(tmp_path / "sweep" / "patients_40", first)
    with pytest.raises(BadConfig, match=r'patients_40" holds a run of another config: batch 4 → 8; give another'):
        families.sweep(config, tmp_path / "sweep")
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["patients_40"]


def test_a_member_of_another_config_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    config = exam_ensemble.get_config("quickstart")
    for name in ("birads", "patch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"config": {}, "facts": {}}')
    config.init_from, config.patch_run = str(tmp_path / "birads"), str(tmp_path / "patch")
    second = config.copy_and_resolve_references()
    with second.unlocked():
        del second.members
    second.seed, second.stages.stage1.learning_rate = 1, 0.5
    started(tmp_path / "ensemble" / "view-wise_1", second)
    message = r'view-wise_1" holds a run of another config: stages.stage1.learning_rate 0.5 → 0.001; give another'
    with pytest.raises(BadConfig, match=message):
        families.members(config, tmp_path / "ensemble")
    assert [path.name for path in (tmp_path / "ensemble").iterdir()] == ["view-wise_1"]
