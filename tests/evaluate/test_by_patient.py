"""Images, breasts, exams and patients of one prediction; ids kept or hashed; what the tables say of their origin."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mammojax import cli
from mammojax.data import phantom
from mammojax.data.identity import hashed, id_key
from mammojax.evaluate import by_patient
from mammojax.evaluate.by_patient import Breast
from tests import untrained


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_breast_is_its_views_mean_an_exam_and_a_patient_the_highest(tmp_path: Path) -> None:
    cells = [  # patient, exam, side, view, score
        ("p", "e1", "L", "CC", 0.2), ("p", "e1", "L", "CC", 0.4), ("p", "e1", "L", "MLO", 0.7),
        ("p", "e1", "R", "CC", 0.6), ("p", "e2", "", "", 0.1), ("q", "", "R", "MLO", 0.9), ("", "", "R", "CC", 1.0),
    ]  # fmt: skip
    names = ("patient_id", "exam_id", "laterality", "view")
    breasts = by_patient.of_images([(dict(zip(names, row[:4], strict=True)), row[4]) for row in cells])
    assert [(*breast[:4], pytest.approx(breast.score)) for breast in breasts] == [
        ("e1", "p", "L", "CC+MLO", 0.5), ("e1", "p", "R", "CC", 0.6), ("", "q", "R", "MLO", 0.9),
        ("e2", "p", "", "", 0.1),
    ]  # fmt: skip
    for name in ("breasts", "exams", "patients"):
        getattr(by_patient, f"write_{name}")(tmp_path / f"{name}.csv", breasts)
    assert [row["laterality"] for row in _rows(tmp_path / "breasts.csv")] == ["L", "R", "R"]
    exams = {row["exam_id"]: row for row in _rows(tmp_path / "exams.csv")}
    assert (exams["e1"]["breasts"], exams["e1"]["p_malignant"]) == ("L+R", "0.6")
    assert (exams["e2"]["p_malignant"], exams["q"]["patient_id"]) == ("0.1", "q")
    assert [tuple(row.values()) for row in _rows(tmp_path / "patients.csv")] == [("p", "2", "0.6"), ("q", "1", "0.9")]
    assert isinstance(breasts[0], Breast)


def test_ids_and_origin_of_a_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, films = untrained.whole(tmp_path / "run"), tmp_path / "films"
    films.mkdir()
    rng = np.random.default_rng(0)
    for k, side in enumerate("LR"):
        pixels = rng.integers(0, 65536, (90, 70), np.uint16)
        phantom.save_dicom(films / f"{k}.dcm", "DOE", f"{side} CC", pixels, [f"1.2.{n}.{k + 1}" for n in range(3)])
    (films / "m.csv").write_text("image,pathology,patient_id\n0.dcm,,MRN7\n")
    for source, ids, expected in (
        (films, "", "hash of DOE"), (films, "keep", "DOE"), (films, "hash", "hash of DOE"),
        (films / "m.csv", "", "MRN7"), (films / "m.csv", "hash", "hash of MRN7"),
    ):  # fmt: skip
        out = tmp_path / f"out_{source.name}_{ids}"
        command = ["predict", "--run", str(run), "--input", str(source), "--output", str(out)]
        assert cli.main([*command, *(["--ids", ids] if ids else [])]) == 0
        if expected.startswith("hash"):
            expected = hashed(expected.removeprefix("hash of "), id_key(out))
        assert {row["patient_id"] for row in _rows(out / "predictions.csv")} == {expected}
        assert [row["patient_id"] for row in _rows(out / "patients.csv")] == [expected]
        assert ("it identifies patients" in capsys.readouterr().out) == (ids == "keep")
    images, (patient,) = (
        _rows(tmp_path / "out_films_" / "predictions.csv"),
        _rows(tmp_path / "out_films_" / "patients.csv"),
    )
    assert patient["p_malignant"] == max((row["p_malignant"] for row in images), key=float)
    origin = json.loads((tmp_path / "out_films_" / "predictions.json").read_text())
    assert origin["use"].startswith("Research use only")
    assert origin["tta"] == "none"
    (of_run,) = origin["runs"]
    assert (of_run["run"], of_run["trained_on"]) == ("run", ["phantom"])
    assert "secret" not in json.dumps(origin)
