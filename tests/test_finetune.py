"""`mammojax finetune`: a run learns another data set with its own framing and mean, by folds of patients."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from mammojax import cli, finetune, plan
from mammojax.data import folds, manifest, phantom
from mammojax.errors import BadManifest
from mammojax.evaluate import table
from mammojax.train.checkpoint import TRAIN_PATIENTS, read_config


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest of 64 images of 16 patients that no run knows."""
    folder = tmp_path_factory.mktemp("films")
    phantom.write_phantom(folder, patients=16, seed=7, image_size=(192, 128), both_breasts=True)
    return folder


def _splits(path: Path) -> dict[str, str]:
    return {image.patient_id: image.split for image in manifest.read_manifest(path).images}


def test_each_patient_is_a_test_patient_once(films: Path, tmp_path: Path) -> None:
    source = manifest.read_manifest(films)
    paths = folds.write_folds(films, source, tmp_path / "folds", 3, seed=1)
    splits = [_splits(path) for path in paths]
    patients = {image.patient_id for image in source.images}
    for patient in patients:
        assert Counter(split[patient] for split in splits) == {"test": 1, "val": 1, "train": 1}
    malignant = {image.patient_id for image in source.images if image.label == 1}
    tested = [sum(split[p] == "test" for p in malignant) for split in splits]
    assert max(tested) - min(tested) <= 1
    first, written = source.images[0], manifest.read_manifest(paths[0])
    same = next(image for image in written.images if image.path.samefile(first.path))
    assert (same.pathology, same.laterality, same.view, len(same.lesions)) == (
        first.pathology, first.laterality, first.view, len(first.lesions),
    )  # fmt: skip
    assert len(written.images) == len(source.images)
    with pytest.raises(BadManifest, match="50 folds need"):
        folds.write_folds(films, source, tmp_path / "more", 50, seed=1)


def test_folds_are_fine_tuned_and_tabulated(
    finished: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["finetune", str(finished), "--data", str(films), "--folds", "3", "--epochs", "1"]
    command += ["--workdir", str(tmp_path / "run"), "--data-dir", str(tmp_path / "data")]
    assert cli.main([*command, "--plan-only"]) == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "run" / "fold_1").exists()
    for words in (
        "64 images",
        "fold 3",
        "of 255 subtracted",
        "1 epochs at",
        "TIME  about",
        "to prepare images",
        "MEMORY  ",
    ):
        assert words in printed
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    saved, facts = read_config(tmp_path / "run" / "fold_2")
    theirs, their_facts = read_config(finished)
    assert facts["mean"] == their_facts["mean"] == saved.data.mean
    assert facts["framing"] == their_facts["framing"]
    assert saved.model.to_dict() == theirs.model.to_dict()
    assert (saved.init_from, list(saved.stages)) == (str(finished), ["stage1"])
    assert saved.stages.stage1.name == theirs.stages.stage2.name
    result = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["fold 1", "fold 2", "fold 3", "mean"]
    mean = result["rows"][-1]
    assert mean["patients"] == 16
    assert sum(mean["n"]) == 64
    each = [row["finetuned"]["value"] for row in result["rows"][:-1]]
    assert mean["finetuned"]["value"] == pytest.approx(sum(each) / 3)
    assert mean["difference"]["value"] == pytest.approx(mean["finetuned"]["value"] - mean["start"]["value"])
    as_it_was = table.read_images(tmp_path / "run" / "fold_1", "start_test_flips")
    assert not (as_it_was.score() == table.read_images(tmp_path / "run" / "fold_1", "test_flips").score()).any()
    page = (tmp_path / "run" / "finetune.html").read_text()
    assert "AUC as it was" in page
    assert "Fine-tuning was not shown to change the AUC." in page
    assert "mean" in printed
    logs = [(tmp_path / "run" / f"fold_{k}" / "metrics.jsonl").read_text() for k in (1, 2, 3)]
    assert cli.main(command) == 0  # finished folds are not trained again
    assert "TIME  about 1 s" in capsys.readouterr().out
    assert logs == [(tmp_path / "run" / f"fold_{k}" / "metrics.jsonl").read_text() for k in (1, 2, 3)]


def test_a_step_that_does_not_fit_is_not_run(
    finished: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["finetune", str(finished), "--data", str(films), "--plan-only"]
    command += ["--workdir", str(tmp_path / "run"), "--data-dir", str(tmp_path / "data")]
    free = plan.free_bytes()
    assert free is None or free > 10**8
    monkeypatch.setattr(plan, "free_bytes", lambda: 10**6)
    assert cli.main(command) == 2
    assert "0.001 GB of this machine's memory are free; say what there is" in capsys.readouterr().err
    monkeypatch.setattr(plan, "free_bytes", lambda: free)
    assert cli.main([*command, "--memory", "8GB"]) == 0
    assert "config: a training step needs" in capsys.readouterr().out
    assert cli.main([*command, "--memory", "1MB"]) == 2
    assert "take smaller images (data.size) or a smaller batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.2, "raised"), (-0.2, -0.01, "lowered"), (-0.1, 0.1, "was not shown"), (None, None, "was not shown")],
)
def test_the_page_says_what_the_interval_shows(low: float | None, high: float | None, words: str) -> None:
    assert finetune._verdict({"value": 0.0, "low": low, "high": high}).startswith(words)


def test_what_cannot_be_fine_tuned_is_refused(
    finished: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = list(csv.reader((films / "manifest.csv").read_text().splitlines()))
    with (films / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*header, "split"], *([*row, "train"] for row in rows)])
    where = ["--workdir", str(tmp_path / "run"), "--data-dir", str(tmp_path / "data")]
    knows = Path(shutil.copytree(finished, tmp_path / "knows"))
    (knows / TRAIN_PATIENTS).write_text(f"manifest\t{rows[0][header.index('patient_id')]}\n")
    for run, further, words in (
        (finished / "patch", ["--data", str(films)], "is no whole-image or two-view run and no exam run"),
        (finished, ["--data", str(films), "--folds", "2"], "take three folds or more"),
        (finished, ["--data", str(films), "--folds", "9"], "9 folds need"),
        (finished, ["--data", str(films / "split.csv"), "--folds", "3"], "split column is filled"),
        (finished, ["--data", str(films / "split.csv")], "val split has no labelled image"),
        (knows, ["--data", str(films), "--folds", "3", "--plan-only"], "has learned from 1 patients who stand in"),
        (finished, ["--data", str(films / "none.csv")], "there is no such manifest"),
        (tmp_path, ["--data", str(films)], "is not a run folder"),
    ):
        assert cli.main(["finetune", str(run), *further, *where]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_exam_run_keeps_its_columns_and_its_patch_network(tmp_path: Path) -> None:
    config = {
        "row": "exam:view-wise", "seed": 3, "extend": False, "init_from": "", "patch_run": "",
        "model": {"task": "exam", "target": "cancer", "channels": 3, "angles": ["CC", "MLO"], "pretrained": ""},
        "data": {"name": "phantom_exams", "kind": "exams"}, "exam": {"sizes": {"CC": [96, 64], "MLO": [112, 64]}},
        "stages": {"stage1": {"epochs": 9, "learning_rate": 1e-5}}, "birads": {}, "patch": {}, "monitor": "auc",
    }  # fmt: skip
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"config": config, "facts": {"mean": None}}))
    ours = finetune.config_of(run, Path("m.csv"), epochs=2)
    assert (ours.patch_run, ours.init_from) == (str(run / "patch"), str(run))
    assert "birads" not in ours
    assert "patch" not in ours
    assert "mean" not in ours.data
    assert (ours.data.name, ours.data.kind, ours.stages.stage1.epochs) == ("manifest", "exams", 2)
    assert ours.exam.sizes.CC == (96, 64)
    assert ours.model.angles == ("CC", "MLO")
