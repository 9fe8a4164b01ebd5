"""`mammojax calibrate` of a finished run, and the columns that its predictions then have."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mammojax import cli, run
from mammojax.data import dataset, phantom
from mammojax.data.recipe import Recipe
from mammojax.evaluate.calibration import Calibration
from mammojax.evaluate.report import interval_text
from mammojax.evaluate.table import IMAGE_COLUMNS
from mammojax.train.checkpoint import read_config


@pytest.fixture
def calibrated(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, with a data set's predictions of its own making: enough to calibrate on."""
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    rng = np.random.default_rng(0)
    for name in ("val", "val_flips", "test", "test_flips"):
        with (folder / "predictions" / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(IMAGE_COLUMNS)
            for k in range(120):
                label = int(rng.random() < 0.4)
                score = 1 / (1 + np.exp(-(3 * rng.standard_normal() + 3 * label - 1)))
                writer.writerow(
                    [f"{name[:3]}{k}.dcm", f"{name[:3]}p{k // 2}", "", "L", "CC", label, repr(float(score))]
                )
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_predictions_get_probabilities_and_decisions_when_they_were_chosen(
    calibrated: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = sorted(p for p in (finished.parent / "data").rglob("*.dcm") if p.stat().st_size > 5_000)[:5]
    (tmp_path / "films").mkdir()
    for k, film in enumerate(films):
        shutil.copy(film, tmp_path / "films" / f"{k}.dcm")
    predict = ["predict", "--run", str(calibrated), "--input", str(tmp_path / "films")]
    assert cli.main([*predict, "--output", str(tmp_path / "before"), "--tta", "flips"]) == 0
    before = _rows(tmp_path / "before" / "predictions.csv")
    assert list(before[0]) == [*IMAGE_COLUMNS, "origin"]
    assert cli.main(["calibrate", str(calibrated)]) == 0
    assert "Operating point" not in capsys.readouterr().out
    assert cli.main([*predict, "--output", str(tmp_path / "p"), "--tta", "flips"]) == 0
    assert list(_rows(tmp_path / "p" / "predictions.csv")[0]) == [*IMAGE_COLUMNS, "p_calibrated", "origin"]

    assert cli.main(["calibrate", str(calibrated), "--sensitivity", "0.85", "--prevalence", "0.006"]) == 0
    printed = capsys.readouterr().out
    saved = json.loads((calibrated / "calibration.json").read_text())
    fitted = Calibration.load(calibrated)
    assert fitted is not None
    assert (fitted.tta, fitted.aim, fitted.chose_nothing) == ("flips", "sensitivity", False)
    counts = read_config(calibrated)[1]["counts"]["train"]
    assert fitted.trained_prior == counts["malignant"] / sum(counts.values())
    assert fitted.temperature > 1  # odds of 3 x where 1 x would be right
    assert saved["operating_fitted_on"]["sensitivity"]["value"] >= 0.85
    assert [point["prevalence"] for point in saved["operating"]][1:] == [0.006]
    assert saved["operating"][1]["ppv"]["value"] < saved["operating"][0]["ppv"]["value"]
    quality = saved["quality"]["test"]
    assert quality["calibrated"]["brier"]["value"] < quality["as it is"]["brier"]["value"]
    page = (calibrated / "calibration.html").read_text()
    for words in ("which also chose the epoch", "It is optimistic for that reason", "PPV", "0.0060", "data:image/png"):
        assert words in page
    assert "which also chose the epoch" in printed
    report = (calibrated / "report.html").read_text()  # written before the calibration, which is put into it
    assert report.count("<h2>Operating point</h2>") == report.count("<h2>Probabilities</h2>") == 1
    assert report.index("Who they are") < report.index("Operating point") < report.index("What is reported")
    assert "Calibration and operating point" not in report
    for point in saved["operating"]:
        assert f"<td>{point['prevalence']:.4f}</td>" in report
        assert f"<td>{interval_text(point['ppv'])}</td>" in report
    assert f"; recall from {fitted.threshold:.4f} on |" in (calibrated / "model_card.md").read_text()
    assert f"; recall from {fitted.threshold:.4f} on</td>" in report

    assert cli.main([*predict, "--output", str(tmp_path / "after"), "--tta", "flips"]) == 0
    after = _rows(tmp_path / "after" / "predictions.csv")
    assert [row["p_malignant"] for row in after] == [row["p_malignant"] for row in before]
    for row in after:
        score = float(row["p_malignant"])
        assert float(row["p_calibrated"]) == fitted.probability(np.array([score]))[0]
        assert row["decision"] == ("recall" if score >= fitted.threshold else "no recall")
    capsys.readouterr()
    assert cli.main([*predict, "--output", str(tmp_path / "plain")]) == 0  # another augmentation, another scale
    assert list(_rows(tmp_path / "plain" / "predictions.csv")[0]) == [*IMAGE_COLUMNS, "origin"]
    assert "it is for --tta flips" in capsys.readouterr().out


def test_several_operating_points_are_carried_and_the_first_decides(
    calibrated: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["calibrate", str(calibrated), "--specificity", "0.6", "--sensitivity", "0.85", "--recall-rate", "0.3"]
    assert cli.main(command) == 0
    fitted, saved = Calibration.load(calibrated), json.loads((calibrated / "calibration.json").read_text())
    assert fitted is not None
    assert (fitted.aim, fitted.aimed_at) == ("specificity", 0.6)
    assert [(point.aim, point.aimed_at) for point in fitted.further] == [("sensitivity", 0.85), ("recall_rate", 0.3)]
    reached = [saved["operating_fitted_on"]["specificity"], saved["further"][0]["operating_fitted_on"]["sensitivity"]]
    assert [0 <= of["value"] - aim < 0.05 for of, aim in zip(reached, (0.6, 0.85), strict=True)] == [True, True]
    assert saved["further"][1]["operating_fitted_on"]["recall"]["value"] <= 0.3
    assert "column decision_sensitivity_0.85." in capsys.readouterr().out
    for page in ("calibration.html", "report.html"):
        assert (calibrated / page).read_text().count("<h2>Further operating point</h2>") == 2
    score = (fitted.threshold + fitted.further[0].threshold) / 2  # between the two
    cells = fitted.cells(score)
    assert tuple(cells) == fitted.columns
    assert {cells["decision"], cells["decision_sensitivity_0.85"]} == {"recall", "no recall"}


def test_other_patients_are_used_and_known_ones_refused(
    calibrated: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phantom.write_phantom(tmp_path / "films", patients=24, seed=9, image_size=(192, 128))
    phantom_rows = phantom_manifest(tmp_path / "films")
    known = (finished / "train_patients.txt").read_text().splitlines()[0].split("\t")[1]
    assert cli.main(["calibrate", str(calibrated), "--data", str(phantom_rows), "--tta", "none"]) == 0
    fitted = Calibration.load(calibrated)
    assert fitted is not None
    assert (fitted.tta, fitted.chose_nothing) == ("none", True)
    text = phantom_rows.read_text().replace("new0,", f"{known},")
    phantom_rows.write_text(text)
    assert cli.main(["calibrate", str(calibrated), "--data", str(phantom_rows)]) == 2
    assert "1 of its patients stand in the run's own" in capsys.readouterr().err
    for further, words in (
        (["--tta", "random10"], "is not of this run"),
        (["--data", str(tmp_path / "none.csv")], "there is no such"),
    ):
        assert cli.main(["calibrate", str(calibrated), *further]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["calibrate", str(calibrated / "patch")]) == 2
    assert "scores no cancer of images or breasts" in capsys.readouterr().err


def phantom_manifest(folder: Path) -> Path:
    """A manifest of a phantom in CBIS-DDSM's layout, whose patients have new names."""
    table = dataset_images(folder)
    names = {patient: f"new{k}" for k, patient in enumerate(sorted({image.patient_id for image in table}))}
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient_id", "pathology"])
        for image in table:
            writer.writerow([image.path.relative_to(folder), names[image.patient_id], image.pathology])
    return path


def dataset_images(folder: Path) -> list:
    from mammojax.data import source

    return source.read(Recipe("cbis_ddsm", "whole", folder, folder, split="all"))[0].images


def test_patients_set_aside_choose_no_epoch(finished: Path, tmp_path: Path) -> None:
    config, _ = read_config(finished)
    with config.unlocked():
        del config.patch, config.stages.stage2
        config.init_from, config.calibration, config.stages.stage1.epochs = str(finished), 0.5, 1
    run.run(config, tmp_path / "run")
    aside = set((tmp_path / "run" / "calibration_patients.txt").read_text().split())
    rows = dataset.of_run(tmp_path / "run").table("val")
    everyone = {row["patient_id"] for row in rows}
    assert aside < everyone
    assert len(aside) == round(len(everyone) / 2)
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    predicted = _rows(tmp_path / "run" / "predictions" / "val.csv")
    assert len(predicted) == len(rows)  # the split itself is measured whole
    chosen = [row for row in predicted if row["patient_id"] not in aside]
    right = [np.log(float(r["p_malignant"]) if r["label"] == "1" else 1 - float(r["p_malignant"])) for r in chosen]
    assert log[-1]["loss"] == pytest.approx(-np.mean(right), rel=1e-4)
