"""Prediction: files and arrays alike, every file accounted for, no identity in what is written."""

import csv
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pydicom
import pytest
from PIL import Image

import mammojax
from mammojax import cli
from mammojax.configs import quickstart
from mammojax.data import identity, phantom
from mammojax.data.dicom import read_mammogram
from mammojax.errors import BadCheckpoint, BadMammogram, BadManifest
from mammojax.evaluate import predict, table
from mammojax.models import classifiers
from mammojax.train.checkpoint import restore_best, save_best
from mammojax.train.state import init_variables


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_of_a_folder_is_predicted_or_rejected(finished: Path, films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    shutil.copy(films[0], tmp_path / "in" / "a.dcm")
    shutil.copy(films[1], tmp_path / "in" / "deep" / "no_suffix")
    cv2.imwrite(str(tmp_path / "in" / "LEFT_CC.png"), read_mammogram(films[2]).pixels)
    (tmp_path / "in" / "notes.txt").write_text("notes")
    assert predict.predict_images([finished], tmp_path / "in", tmp_path / "out") == 0
    rows, rejected = _rows(tmp_path / "out/predictions.csv"), _rows(tmp_path / "out/rejected.csv")
    assert list(rows[0]) == [*table.IMAGE_COLUMNS, "origin"]
    assert all(
        row["origin"].startswith(f"{finished.name} (config ") and "learned from phantom" in row["origin"]
        for row in rows
    )
    assert all(row["origin"].endswith("; research use only") for row in rows)
    assert {r["image"] for r in rows} == {"a.dcm", "deep/no_suffix", "LEFT_CC.png"}
    assert [r["file"] for r in rejected] == ["notes.txt"]
    by_name = {r["image"]: r for r in rows}
    assert (by_name["LEFT_CC.png"]["laterality"], by_name["LEFT_CC.png"]["view"]) == ("L", "CC")
    assert by_name["a.dcm"]["label"] == ""
    secret = str(__import__("pydicom").dcmread(films[0]).PatientID)
    assert secret not in (tmp_path / "out/predictions.csv").read_text()
    assert by_name["a.dcm"]["patient_id"]
    assert (tmp_path / "out/.id_key").stat().st_mode & 0o077 == 0
    again = by_name["a.dcm"]["patient_id"]
    predict.predict_images([finished], tmp_path / "in" / "a.dcm", tmp_path / "out")
    assert _rows(tmp_path / "out/predictions.csv")[0]["patient_id"] == again


def test_a_zip_is_predicted_as_its_folder(finished: Path, films: list[Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as file:
        file.write(films[0], "study/a.dcm")
        file.writestr("notes.txt", "notes")
    arguments = ["predict", "--run", str(finished), "--input", str(tmp_path / "in.zip"), "--output"]
    assert cli.main([*arguments, str(tmp_path / "out")]) == 0
    assert [row["image"] for row in _rows(tmp_path / "out" / "predictions.csv")] == ["study/a.dcm"]
    (tmp_path / "in").mkdir()
    shutil.copy(tmp_path / "in.zip", tmp_path / "in")
    assert predict.predict([finished], tmp_path / "in", tmp_path / "in" / "out") == 3
    ((name, reason),) = (tuple(row.values()) for row in _rows(tmp_path / "in" / "out" / "rejected.csv"))
    assert (name, "a .zip among other files" in reason) == ("in.zip", True)


def test_output_may_be_the_input_folder(finished: Path, films: list[Path], tmp_path: Path) -> None:
    """Only what predict itself wrote is passed over; a name that is no UTF-8 is a file like any other."""
    shutil.copy(films[0], tmp_path / "a.dcm")
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    for _ in range(2):
        assert predict.predict_images([finished], tmp_path, tmp_path) == 0
        assert [r["image"] for r in _rows(tmp_path / "predictions.csv")] == ["a.dcm"]
        assert b"caf\xe9.txt" in (tmp_path / "rejected.csv").read_bytes()


def test_a_film_whose_name_is_no_utf_8_is_predicted(finished: Path, films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(films[0], tmp_path / "in" / os.fsdecode(b"caf\xe9.dcm"))
    assert predict.predict([finished], tmp_path / "in", tmp_path / "out") == 0
    assert b"\ncaf\xe9.dcm," in (tmp_path / "out" / "predictions.csv").read_bytes()
    (row,) = table.read_csv(tmp_path / "out" / "predictions.csv").to_dict("records")
    assert row["image"] == r"caf\xe9.dcm"
    assert row["origin"].endswith("; research use only")
    assert "malignant" in (tmp_path / "out" / "predictions.html").read_text()


def test_rejected_files_compile_nothing_new(
    finished: Path, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, make = set(), classifiers.make_apply

    def spy(*args: Any) -> classifiers.Apply:
        apply = make(*args)
        return lambda variables, images: (shapes.add(images.shape), apply(variables, images))[1]

    monkeypatch.setattr(classifiers, "make_apply", spy)
    batch = restore_best(finished)[0].eval_batch
    for k in range(2 * batch):
        shutil.copy(films[0], tmp_path / f"{k}.dcm")
    (tmp_path / "00.txt").write_text("x")
    assert predict.predict_images([finished], tmp_path, tmp_path / "out") == 0
    assert len(_rows(tmp_path / "out/predictions.csv")) == 2 * batch
    assert {shape[0] for shape in shapes} == {batch}


def test_a_manifest_keeps_its_ids_and_labels(finished: Path, films: list[Path], tmp_path: Path) -> None:
    shutil.copy(films[0], tmp_path / "a.dcm")
    (tmp_path / "m.csv").write_text("image,patient_id,pathology\na.dcm,P7,MALIGNANT\ngone.dcm,P8,BENIGN\n")
    assert predict.predict_images([finished], tmp_path / "m.csv", tmp_path / "out", "flips") == 0
    (row,) = _rows(tmp_path / "out/predictions.csv")
    assert (row["image"], row["patient_id"], row["label"]) == ("a.dcm", "P7", "1")
    assert _rows(tmp_path / "out/rejected.csv")[0]["file"] == "gone.dcm"


def test_each_breast_is_compared_with_the_other(finished: Path, films: list[Path], tmp_path: Path) -> None:
    for k in range(3):
        shutil.copy(films[k], tmp_path / f"{k}.dcm")
    rows = ["0.dcm,P7,L,CC,", "1.dcm,P7,R,CC,", "2.dcm,P8,R,CC,"]
    (tmp_path / "m.csv").write_text("\n".join(["image,patient_id,laterality,view,pathology", *rows, ""]))
    assert predict.predict([finished], tmp_path / "m.csv", tmp_path / "out", asymmetry=True) == 0
    left, right, alone = _rows(tmp_path / "out/predictions.csv")
    p, q = float(left["p_malignant"]), float(right["p_malignant"])
    assert float(left["asymmetry"]) == pytest.approx(np.log(p / (1 - p)) - np.log(q / (1 - q)))
    assert float(right["asymmetry"]) == -float(left["asymmetry"])
    assert alone["asymmetry"] == ""
    assert [row["asymmetry"] for row in _rows(tmp_path / "out/breasts.csv")] == [
        row["asymmetry"] for row in (left, right, alone)
    ]


def test_overlays_are_of_full_mammograms(finished: Path, films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for k in range(2):
        shutil.copy(films[k], tmp_path / "in" / f"secret{k}.dcm")
    assert predict.predict([finished], tmp_path / "in", tmp_path / "out", drawn="heatmap") == 0
    pictures = sorted((tmp_path / "out" / "overlays").iterdir())
    assert [picture.name for picture in pictures] == ["1.png", "2.png"]
    height, width = read_mammogram(films[0]).pixels.shape
    picture = cv2.imread(str(pictures[0]))
    assert picture.std() > 1
    assert picture.shape[1] / (picture.shape[0] - 40) == pytest.approx(2 * width / height, rel=0.05)
    with Image.open(pictures[0]) as opened:
        assert "config" in opened.text["Description"]
        assert opened.text["Description"].endswith("Research use only; not a medical device.")
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("patch", "data"))
    with pytest.raises(BadCheckpoint, match=r'has no heatmap: its head ".*" is none'):
        predict.predict([tmp_path / "run"], tmp_path / "in", tmp_path / "out", drawn="heatmap")
    assert predict.predict([tmp_path / "run"], tmp_path / "in", tmp_path / "out", drawn="saliency") == 0
    saliency = cv2.imread(str(tmp_path / "out" / "overlays" / "1.png"))
    left, right = (half.astype(int)[:, 20 : half.shape[1] - 20] for half in np.array_split(saliency[30:-60], 2, axis=1))
    assert (np.ptp(left, axis=2) < 3).all()  # gray, and beside it coloured
    assert (np.ptp(right, axis=2) > 50).any()


def test_files_that_are_no_mammograms_are_rejected(finished: Path, films: list[Path], tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    header = pydicom.dcmread(films[0])
    header.save_as(folder / "=film.dcm")
    header.Modality = "CT"
    header.save_as(folder / "=ct.dcm")
    cv2.imwrite(str(folder / "small.png"), np.arange(63 * 70, dtype=np.uint16).reshape(63, 70))
    for more, files in (("", ["=film.dcm"]), ("--any-modality", ["=ct.dcm", "=film.dcm"])):
        arguments = ["predict", "--run", str(finished), "--input", str(folder), "--output", str(out)]
        assert cli.main([*arguments, *more.split()]) == 0
        assert [row["image"] for row in _rows(out / "predictions.csv")] == [f"'{name}" for name in files]
    assert [row["file"] for row in _rows(out / "rejected.csv")] == ["small.png"]
    assert cli.main(["predict", "--run", str(finished), "--input", str(folder / "=ct.dcm"), "--output", str(out)]) == 3
    (row,) = _rows(out / "rejected.csv")
    assert row["file"] == "'=ct.dcm"
    assert row["reason"].startswith("'=ct.dcm: Modality is CT, neither MG")
    for pixels, word in ((np.ones((80, 80), np.uint16), "one value"), (np.eye(63, dtype=np.uint16), "63 × 63")):
        with pytest.raises(BadMammogram, match=word):
            mammojax.restore(str(finished)).predict(pixels)


def test_nothing_to_predict_is_3_and_a_patch_run_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    assert predict.predict_images([finished], tmp_path / "x.txt", tmp_path / "out") == 3
    with pytest.raises(BadCheckpoint, match="patch classifier"):
        predict.predict_images([finished / "patch"], tmp_path, tmp_path / "out")
    with pytest.raises(BadMammogram, match="no such file"):
        predict.predict_images([finished], tmp_path / "gone", tmp_path / "out")


def test_the_compressed_films_predict(finished: Path, shared: Path, tmp_path: Path) -> None:
    assert predict.predict_images([finished], shared / "data" / "wg04", tmp_path) == 0
    assert len(_rows(tmp_path / "predictions.csv")) == 2


def test_report_names_no_patient_and_no_folder(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for row in _rows(finished / "predictions" / "test.csv"):
        assert row["patient_id"] not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png") >= 5
    results = json.loads((finished / "metrics.json").read_text())
    assert f"{results['test']['auc']['value']:.3f}" in page


def test_several_runs_are_averaged_and_views_joined_to_breasts(finished: Path, tmp_path: Path) -> None:
    """The second run is the first with another head: a mean that equals either alone would be a mistake."""
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    _, _, variables = restore_best(finished)
    variables["params"]["head"]["logits"]["bias"] = variables["params"]["head"]["logits"]["bias"] + np.float32([0, 1])
    save_best(other, variables)
    rng = np.random.default_rng(0)
    rows = ["image,pathology,patient_id,exam_id,laterality,view"]
    for name, side, view in (("a", "L", "CC"), ("b", "L", "MLO"), ("c", "L", "CC"), ("d", "R", "MLO"), ("e", "L", "")):
        cv2.imwrite(str(tmp_path / f"{name}.png"), rng.integers(0, 65536, (120, 80), np.uint16))
        rows.append(f"{name}.png,,p1,e1,{side},{view}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")

    def scores(*runs: Path) -> dict[str, float]:
        assert predict.predict_images(list(runs), tmp_path / "m.csv", tmp_path / "out") == 0
        with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
            return {row["image"]: float(row["p_malignant"]) for row in csv.DictReader(file)}

    first, second, both = scores(finished), scores(other), scores(finished, other)
    for name in both:
        assert second[name] > first[name]
        assert both[name] == pytest.approx((first[name] + second[name]) / 2, rel=1e-6)
    with (tmp_path / "out" / "breasts.csv").open(newline="") as file:
        left, right = csv.DictReader(file)
    assert (left["laterality"], left["views"], left["p_benign"]) == ("L", "CC+MLO", "")
    cc = (both["a.png"] + both["c.png"]) / 2
    assert float(left["p_malignant"]) == pytest.approx((cc + both["b.png"]) / 2, rel=1e-6)
    assert (right["views"], float(right["p_malignant"])) == ("MLO", pytest.approx(both["d.png"], rel=1e-6))


def test_a_manifest_without_patients_is_listed_by_exam_and_header(tmp_path: Path) -> None:
    """Separated by semicolons; ids of headers are hashed with a key in the output folder, made where one is needed."""
    for k, patient in enumerate(["", "", "DOE", "DOE"]):
        pixels = np.random.default_rng(k).integers(0, 65536, (60, 50), np.uint16)
        phantom.save_dicom(tmp_path / f"{k}.dcm", patient, "L CC", pixels, [f"1.2.{k}.{n}" for n in range(3)])
    source, output = tmp_path / "m.csv", tmp_path / "out"
    source.write_text("Image;Pathology;Exam_ID\n0.dcm;;E1\n1.dcm;;E1\n")
    listed, rejected, _ = predict.listing(source, output)
    assert [facts["patient_id"] for _, facts in listed] == ["E1", "E1"]
    assert not rejected
    assert not output.exists()
    source.write_text("image;pathology\n1.dcm;\n2.dcm;\n3.dcm;\n")
    first, second, third = (facts["patient_id"] for _, facts in predict.listing(source, output)[0])
    assert first == "1.dcm"
    assert second == third == identity.hashed("DOE", identity.id_key(output))


def test_a_spreadsheet_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "exams.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(BadManifest, match=r"exams\.xlsx: it is a spreadsheet.*save it as CSV"):
        predict.listing(tmp_path / "exams.xlsx", tmp_path / "out")


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A run folder of random weights, and a mammogram, film.png."""
    config = quickstart.get_config()
    config.model.update(width=4, blocks=(1, 1, 1, 1), head="8x1")
    run, size = tmp_path / "run", (64, 64)
    save_best(run, init_variables(classifiers.build(config.model), size, 1, 0))
    facts = {"mean": 100.0, "framing": {"size": size, "crop": "none", "keep_aspect": False}}
    (run / "config.json").write_text(json.dumps({"config": json.loads(config.to_json_best_effort()), "facts": facts}))
    cv2.imwrite(str(tmp_path / "film.png"), np.random.default_rng(0).integers(0, 65536, (120, 80), np.uint16))
    return run


def _predict(run: Path) -> int:
    film, out = run.parent / "film.png", run.parent / "out"
    return cli.main(["predict", "--run", str(run), "--input", str(film), "--output", str(out)])


def test_a_flipped_byte_in_the_weights_gives_no_predictions(
    untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _predict(untrained) == 0
    files = (path for path in (untrained / "checkpoints" / "best").rglob("*") if path.is_file())
    largest = max(files, key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    assert "1 predicted" in capsys.readouterr().out
    for at in (len(whole) // 3, len(whole) - 9):
        largest.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert _predict(untrained) == 2
        printed = capsys.readouterr().err
        assert "are damaged" in printed
        assert len(printed.splitlines()) == 1


def test_answers_that_are_no_numbers_are_refused(untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finite weights so large that the network overflows, as damage that a checkpoint without digests hides."""
    _, _, variables = restore_best(untrained)
    save_best(untrained, jax.tree.map(lambda leaf: np.full_like(leaf, 3e38), variables))
    assert _predict(untrained) == 2
    assert "a probability that is not a number" in capsys.readouterr().err
