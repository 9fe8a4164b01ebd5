"""Whom a run has learned from: told through the whole chain of starts, and told apart by data set."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ml_collections import ConfigDict

from mammojax import train_patients
from mammojax.data import dataset
from mammojax.data.recipe import PHANTOMS
from mammojax.errors import BadCheckpoint, NotPrepared


def _data(**splits: str) -> Any:
    """A data set of one-letter patients."""
    tables = {
        split: [{"patient_id": p, "label": "0"} for p in splits.get(split, "")] for split in ("train", "val", "test")
    }
    return SimpleNamespace(table=tables.__getitem__)


def _config(name: str = "manifest", task: str = "whole", seed: int = 0, **fields: Any) -> ConfigDict:
    config = {
        "data": {"name": name, "patients": 0},
        "model": {"task": task},
        "seed": 0,
        "init_from": "",
        "patch_run": "",
    }
    if name in PHANTOMS:
        config["phantom"] = {"seed": seed}
    return ConfigDict(config | fields)


def _run(folder: Path, config: ConfigDict, name: str = "manifest") -> Path:
    folder.mkdir(parents=True)
    saved = {"config": json.loads(config.to_json_best_effort()), "facts": {"name": name}}
    (folder / "config.json").write_text(json.dumps(saved))
    return folder


def test_the_patients_of_all_earlier_runs_are_listed(tmp_path: Path) -> None:
    """A → B → C: C starts from B alone, and is measured on whom only A has seen."""
    a, b = _run(tmp_path / "a", _config()), _run(tmp_path / "b", _config())
    train_patients.write(a, _config(), _data(train="xyz"), [])
    train_patients.write(b, _config(), _data(train="pq"), [a])
    assert {p for _, p in train_patients.read(b).patients} == set("pqxyz")
    with pytest.raises(
        BadCheckpoint, match=r"has learned from 2 patients who stand in the validation or test split"
    ) as e:
        train_patients.refuse([b], _config(), _data(train="pq", val="x", test="zo"))
    assert "pretrain on the same split" in str(e.value)
    train_patients.refuse([b], _config(), _data(train="xyz", val="o"))


@pytest.mark.parametrize(
    ("start", "own", "refused"),
    [
        (("phantom", 0), ("phantom", 0), True),
        (("phantom", 0), ("phantom", 1), False),
        (("cbis_ddsm", 0), ("inbreast", 0), False),
        (("manifest", 0), ("phantom", 0), False),
        (("manifest", 0), ("manifest", 0), True),
    ],
)
def test_equal_ids_of_two_data_sets_are_two_patients(
    tmp_path: Path, start: tuple[str, int], own: tuple[str, int], refused: bool
) -> None:
    run = _run(tmp_path / "run", _config(start[0], seed=start[1]))
    train_patients.write(run, _config(start[0], seed=start[1]), _data(train="x"), [])
    config, data = _config(own[0], seed=own[1]), _data(test="x")
    if refused:
        with pytest.raises(BadCheckpoint, match="has learned from 1 patients"):
            train_patients.refuse([run], config, data)
    else:
        train_patients.refuse([run], config, data)
        config.model.task = "exam"  # stricter: as it was before the data set was named
        with pytest.raises(BadCheckpoint, match="has learned from 1 patients"):
            train_patients.refuse([run], config, data)


def test_older_run_folders_are_asked_by_their_data_and_their_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the file, with the file of a run's own patients alone, with a data set that is gone."""
    patch = _run(tmp_path / "whole" / "patch", _config(task="patch"))
    whole = _run(tmp_path / "whole", _config()) if not (tmp_path / "whole").exists() else tmp_path / "whole"
    (whole / "config.json").write_text((patch / "config.json").read_text())
    later = _run(tmp_path / "later", _config(init_from=str(whole)))
    (later / "train_patients.txt").write_text("l\nm")
    data_of = {patch: _data(train="p"), whole: _data(train="w")}

    def of_run(run: Path) -> Any:
        if run not in data_of:
            raise NotPrepared("gone")
        return data_of[run]

    monkeypatch.setattr(dataset, "of_run", of_run)
    assert {patient for _, patient in train_patients.read(later).patients} == set("lmpw")
    for patient in "lmpw":
        with pytest.raises(BadCheckpoint, match="has learned from 1 patients"):
            train_patients.refuse([later], _config(), _data(test=patient))
    del data_of[patch]
    assert train_patients.read(later).missing == [patch]
    train_patients.refuse([later], _config(), _data(test="p"))
    assert f'whom "{patch}" has learned from cannot be told' in capsys.readouterr().out
    with pytest.raises(BadCheckpoint, match="does not say whom it has learned from"):
        train_patients.refuse([whole], _config(task="exam"), _data(test="o"))


def test_only_patients_whose_labels_are_used_are_learned_from(tmp_path: Path) -> None:
    config = _config()
    config.data.patients = 2
    run = _run(tmp_path / "run", config)
    train_patients.write(run, config, _data(train="abcdef"), [])
    assert len(train_patients.read(run).patients) == 2
