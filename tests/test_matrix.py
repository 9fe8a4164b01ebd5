"""Runs on data sets: each cell predicted once, measured by patient without those the run knows."""

import csv
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from mammojax import cli, matrix
from mammojax.configs import quickstart
from mammojax.data.phantom import write_phantom
from mammojax.evaluate import table
from mammojax.models import classifiers, multi_view
from mammojax.train.checkpoint import save_best
from mammojax.vocabulary import VIEWS
from tests.random_variables import random_variables

SIZES = {"CC": (96, 64), "MLO": (112, 64)}


def _whole_run(folder: Path, seed: int) -> Path:
    """A whole-image run with random weights."""
    config = quickstart.get_config()
    config.model.update(width=4, blocks=(1, 1, 1, 1), head="8x1")
    config.data.update(name="manifest", data_dir=str(folder / "none"), source="")
    image = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    save_best(folder, random_variables(classifiers.build(config.model), image, seed=seed))
    facts = {"name": "manifest", "mean": 100.0, "framing": {"size": (64, 64), "crop": "none", "keep_aspect": False}}
    (folder / "config.json").write_text(
        json.dumps({"config": json.loads(config.to_json_best_effort()), "facts": facts})
    )
    (folder / "train_patients.txt").write_text("")
    return folder


def _exam_run(folder: Path) -> Path:
    """An exam run with random weights, as `mammojax convert` leaves it."""
    model = {"task": "exam", "join": "view-wise", "angles": ("CC", "MLO"), "tie": "sides", "target": "cancer",
             "width": 2, "blocks": (1, 1, 1, 1, 1), "padding": "paper", "noise": 0.01, "channels": 1,
             "dtype": "float32"}  # fmt: skip
    exam = {"sizes": SIZES, "noise": 5, "random": "exam", "heatmaps": (), "patch": 48, "stride": 13}
    config = ConfigDict({"row": "", "seed": 0, "model": model, "exam": exam})
    images = {view: jax.ShapeDtypeStruct((1, *SIZES[view[2:]], 1), jnp.float32) for view in VIEWS}
    save_best(folder, random_variables(multi_view.build(config.model), images))
    facts = {"name": "nyu", "crop": {"threshold": 0, "iterations": 10}}
    (folder / "config.json").write_text(
        json.dumps({"config": json.loads(config.to_json_best_effort()), "facts": facts})
    )
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs and two phantoms' manifests; the second has a split column, and its last two patients are train."""
    root = tmp_path_factory.mktemp("matrix")
    for k, patients in enumerate((24, 26)):
        write_phantom(root / f"m{k}", patients=patients, seed=k, both_breasts=True)
    with (root / "m1" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    train = sorted({row["patient_id"] for row in rows})[-2:]
    with (root / "m1" / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "split", "label_source"])
        writer.writeheader()
        for row in rows:
            split = "train" if row["patient_id"] in train else "test"
            writer.writerow(row | {"split": split, "label_source": "biopsy"})
    for k in range(2):
        _whole_run(root / f"run{k}", 2 * k)  # the network of seed 1 says the same of every image
    _exam_run(root / "exams")
    return root


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _matrix(root: Path, *more: str) -> int:
    runs = [str(root / name) for name in ("run0", "run1", "exams")]
    data = [str(root / "m0"), str(root / "m1" / "manifest.csv")]
    return cli.main(["matrix", "--runs", *runs, "--data", *data, "--output", str(root / "out"), *more])


@pytest.fixture(scope="module")
def out(place: Path) -> Path:
    """The matrix of all runs and manifests."""
    assert _matrix(place) == 0
    return place / "out"


def test_every_cell_is_measured_by_breast_and_image(place: Path, out: Path) -> None:
    cells = {(row["run"], row["measured_on"], row["unit"]): row for row in _rows(out / "matrix.csv")}
    assert len(cells) == 3 * 2 * 2
    labels = {row["image"]: row for row in _rows(place / "m0" / "manifest.csv")}
    for run in ("run0", "run1"):
        predicted = _rows(out / "cells" / run / "m0" / "predictions.csv")
        assert len(predicted) == len(labels)
        frame = pd.DataFrame(predicted).astype({"p_malignant": float, "label": int})
        cell = cells[run, "m0", "image"]
        assert float(cell["auc"]) == pytest.approx(roc_auc_score(frame["label"], frame["p_malignant"]))
        breasts = frame.groupby(["patient_id", "laterality"]).agg({"label": "max", "p_malignant": "mean"})
        cell = cells[run, "m0", "breast"]
        assert float(cell["auc"]) == pytest.approx(roc_auc_score(breasts["label"], breasts["p_malignant"]))
        assert float(cell["auc_low"]) < float(cell["auc"]) < float(cell["auc_high"])
        assert (int(cell["positives"]), int(cell["negatives"])) == (
            breasts["label"].sum(),
            (1 - breasts["label"]).sum(),
        )
        assert cell["patients"] == "24"
    exams = cells["exams", "m0", "breast"]
    assert (exams["positives"], exams["negatives"]) == tuple(
        cells["run0", "m0", "breast"][k] for k in ("positives", "negatives")
    )
    assert float(exams["auc"]) > 0
    assert cells["exams", "m0", "image"]["auc"] == ""
    assert cells["run0", "m1", "image"]["patients"] == "24"  # the test split alone


def test_the_page_says_what_was_measured(out: Path) -> None:
    page = (out / "matrix.html").read_text()
    for text in ("AUC by breast", "test split", "all rows", "biopsy", "not stated", "case mixes"):
        assert text in page
    assert "P_0" not in page  # no patient
    assert (out / "matrix.png").stat().st_size > 10_000


def test_a_finished_cell_is_not_computed_again(place: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.csv")}
    numbers = (out / "matrix.csv").read_bytes()
    (out / "cells" / "run1" / "m0" / "cell.json").unlink()  # as if killed there
    assert _matrix(place) == 0
    printed = capsys.readouterr().out
    assert printed.count("predicted before") == 5
    after = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.csv")}
    changed = {path.parent.relative_to(out / "cells").as_posix() for path in before if before[path] != after[path]}
    assert changed == {"run1/m0"}
    assert (out / "matrix.csv").read_bytes() == numbers


def test_cells_of_something_else_are_refused(place: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _matrix(place, "--augmented") == 2
    assert "was predicted with another augmented; remove that folder" in capsys.readouterr().err
    config = place / "run0" / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"seed": 0', '"seed": 9'))
    assert _matrix(place) == 2
    assert "predicted with another run; remove" in capsys.readouterr().err
    config.write_text(text)
    assert _matrix(place) == 0


def test_patients_that_a_run_knows_are_left_out(place: Path, tmp_path: Path) -> None:
    run = _whole_run(tmp_path / "learned", 0)
    patients = sorted({row["patient_id"] for row in _rows(place / "m0" / "manifest.csv")})
    lines = [f"manifest\t{patients[0]}", f"cbis_ddsm\t{patients[1]}"]
    (run / "train_patients.txt").write_text("\n".join(lines) + "\n")
    columns: dict[str, Any] = {name: [""] for name in table.IMAGE_COLUMNS}
    table.write(run / "predictions" / "val.csv", pd.DataFrame(columns | {"patient_id": [patients[2]]}))
    (cell,) = matrix.matrix([run], [place / "m0"], tmp_path / "out", draws=20)
    assert (cell.patients, cell.left_out) == (len(patients) - 2, 2)  # equal ids in another data set are other patients
    rows = (place / "m0" / "manifest.csv").read_text().splitlines()
    marked = [f"{rows[0]},data_set", *(f"{row},cbis_ddsm" for row in rows[1:])]
    (place / "m0" / "marked.csv").write_text("\n".join(marked) + "\n")
    (cell,) = matrix.matrix([run], [place / "m0" / "marked.csv"], tmp_path / "out", draws=20)
    assert (cell.data.name, cell.left_out) == ("marked", 3)
    assert np.isfinite(cell.auc["image"]["value"])


def test_a_run_on_its_own_download_knows_its_patients(place: Path, tmp_path: Path) -> None:
    run = _whole_run(tmp_path / "cbis", 0)
    saved = json.loads((run / "config.json").read_text())
    saved["config"]["data"].update(name="cbis_ddsm", source=str(place / "m0"))
    (run / "config.json").write_text(json.dumps(saved))
    patient = _rows(place / "m0" / "manifest.csv")[0]["patient_id"]
    (run / "train_patients.txt").write_text(f"cbis_ddsm\t{patient}\n")
    (cell,) = matrix.matrix([run], [place / "m0"], tmp_path / "out", draws=20)
    assert cell.left_out == 1


def test_what_cannot_be_predicted_or_measured_is_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (place / "m0" / "manifest.csv").read_text().splitlines()
    folder = place / "m0"
    one = [row for row in rows[1:] if ",BENIGN," in row][:2]
    (folder / "one.csv").write_text("\n".join([rows[0], *one]))
    arguments = ["--data", str(folder / "one.csv"), "--output", str(tmp_path / "out")]
    assert cli.main(["matrix", "--runs", str(place / "run0"), *arguments]) == 3
    assert "images of one class only" in capsys.readouterr().out
    patch = _whole_run(tmp_path / "patch", 0)
    saved = json.loads((patch / "config.json").read_text())
    saved["config"]["model"]["task"] = "patch"
    (patch / "config.json").write_text(json.dumps(saved))
    for runs, words in (([patch], "is a patch classifier"), ([place / "none"], "not a run folder"),
                        ([place / "run0"] * 2, "given twice")):  # fmt: skip
        assert cli.main(["matrix", "--runs", *map(str, runs), *arguments]) == 2
        assert words in capsys.readouterr().err
    (folder / "train.csv").write_text("\n".join([f"{rows[0]},split", *(f"{row},train" for row in one)]))
    assert cli.main(["matrix", "--runs", str(place / "run0"), "--data", str(folder / "train.csv"), *arguments[2:]]) == 2
    assert "names no test image" in capsys.readouterr().err
