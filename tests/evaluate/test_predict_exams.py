"""Exams from files to tables: the published numbers on a phantom exam; missing views, broken files, ensembles."""

import csv
import json
import pickle
import runpy
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pydicom
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file

import mammojax
from mammojax import cli
from mammojax.data import dataset
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.errors import BadMammogram
from mammojax.evaluate import table
from mammojax.evaluate.predict_exams import EXAM_COLUMNS
from mammojax.evaluate.predictor import ExamPredictor
from mammojax.models import multi_view
from mammojax.train.checkpoint import save_best
from mammojax.vocabulary import LABELS, VIEWS
from tests.random_variables import random_variables

SIZES = {"CC": (96, 64), "MLO": (112, 64)}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _published(golden: Path, name: str, folder: Path) -> Path:
    formula = runpy.run_path(str(golden / "formula_weights.py"))["formula"]
    keys = json.loads((golden / "state_dict_keys.json").read_text())[name]
    file = folder / f"{name}.safetensors"
    save_file({key: np.ascontiguousarray(formula(key, shape)) for key, shape in keys}, file)
    assert cli.main(["convert", "nyu", str(file), "--out", str(folder / name)]) == 0
    return folder / name


def _phantom(golden: Path, letter: str, folder: Path) -> Path:
    draw = runpy.run_path(str(golden / "phantom_exams" / "phantom.py"))["phantom"]
    (folder / "images").mkdir()
    exam: dict = {"horizontal_flip": "NO"}
    for view in VIEWS:
        name = f"{letter}_{view.replace('-', '_')}"
        cv2.imwrite(str(folder / "images" / f"{name}.png"), draw(name))
        exam[view] = [name]
    (folder / "exams.pkl").write_bytes(pickle.dumps([exam]))
    assert cli.main(["convert", "nyu-exam-list", str(folder / "exams.pkl"), "--out", str(folder / "manifest.csv")]) == 0
    return folder / "manifest.csv"


def test_from_published_files_to_published_numbers(shared: Path, tmp_path: Path) -> None:
    """Exam list and weights converted, images cropped, windowed and predicted, all by the commands."""
    golden = shared / "golden" / "nyu"
    run, manifest = _published(golden, "view_split_1", tmp_path), _phantom(golden, "P", tmp_path)
    arguments = ["predict", "--run", str(run), "--input", str(manifest), "--output", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    (exam,) = _rows(tmp_path / "out" / "exams.csv")
    recorded = np.load(golden / "phantom_exams" / "big_vs_image_augno.npy")[0]
    np.testing.assert_allclose([float(exam[label]) for label in LABELS], recorded, atol=1e-5)
    assert (exam["views"], exam["note"]) == ("+".join(VIEWS), "")
    left, right = _rows(tmp_path / "out" / "breasts.csv")
    assert (left["laterality"], left["p_malignant"]) == ("L", exam["left_malignant"])
    assert (right["views"], right["p_benign"]) == ("CC+MLO", exam["right_benign"])


@pytest.mark.slow
@pytest.mark.parametrize(("tta", "file"), [("none", "augno"), ("random10", "augyes")])
def test_heatmaps_to_published_numbers(shared: Path, tmp_path: Path, tta: str, file: str) -> None:
    golden = shared / "golden" / "nyu"
    run, patch = (_published(golden, name, tmp_path) for name in ("view_split_3", "patch"))
    arguments = ["predict", "--run", str(run), "--patch-run", str(patch), "--tta", tta]
    arguments += ["--input", str(_phantom(golden, "S", tmp_path)), "--output", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    (exam,) = _rows(tmp_path / "out" / "exams.csv")
    recorded = np.load(golden / "phantom_exams" / f"small_vs_imageheatmaps_{file}.npy")[0]
    np.testing.assert_allclose([float(exam[label]) for label in LABELS], recorded, atol=1e-4)


def _tiny(
    folder: Path,
    join: str = "view-wise",
    seed: int = 0,
    angles: tuple[str, ...] = ("CC", "MLO"),
    threshold: int | None = 0,
) -> Path:
    """A run of a tiny network with random weights."""
    config = ConfigDict(
        {
            "row": "", "seed": 0,
            "model": {"task": "exam", "join": join, "angles": angles, "tie": "sides", "target": "cancer",
                      "width": 2, "blocks": (1, 1, 1, 1, 1), "padding": "paper", "noise": 0.01, "channels": 1,
                      "dtype": "float32"},
            "exam": {"sizes": SIZES, "noise": 5, "random": "exam", "heatmaps": ("malignant", "benign")},
        }
    )  # fmt: skip
    network = multi_view.build(config.model)
    images = {view: jax.ShapeDtypeStruct((1, *SIZES[view[2:]], 1), jnp.float32) for view in VIEWS}
    save_best(folder, random_variables(network, images, seed=seed))
    saved = {
        "config": json.loads(config.to_json_best_effort()),
        "facts": {"name": "tiny", "crop": {"threshold": threshold, "iterations": 3}},
    }
    (folder / "config.json").write_text(json.dumps(saved))
    return folder


def _breast(seed: int, faces_right: bool) -> np.ndarray:
    y, x = np.mgrid[:140, :100]
    rng = np.random.default_rng(seed)
    pixels = np.where(np.hypot((y - 70) / 60, x / 80) < 1, rng.integers(9000, 20000, (140, 100)), 0).astype(np.uint16)
    return pixels if faces_right else np.ascontiguousarray(pixels[:, ::-1])


@pytest.fixture
def exams(tmp_path: Path) -> Path:
    """A whole exam, one without its R-CC, one of L-MLO alone, one broken, one whose side is unknown."""
    rows = ["image,pathology,patient_id,exam_id,laterality,view"]
    expected = {"a": VIEWS, "b": ("L-CC", "L-MLO", "R-MLO"), "c": ("L-MLO",), "d": ("L-CC",), "e": ("L-CC",)}
    for k, (exam, views) in enumerate(expected.items()):
        for view in views:
            name = f"{exam}_{view}.png" if exam != "e" else "e.png"  # a file's name can tell the side too
            cv2.imwrite(str(tmp_path / name), _breast(10 * k + VIEWS.index(view), view.startswith("L")))
            side, angle = view.split("-")
            rows.append(f"{name},,p{exam},{exam},{'' if exam == 'e' else side},{angle}")
    (tmp_path / "d_L-CC.png").write_bytes(b"broken")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "manifest.csv"


def _predict(runs: list[Path], source: Path, out: Path, *extra: str) -> dict[str, dict[str, str]]:
    arguments = [part for run in runs for part in ("--run", str(run))]
    assert cli.main(["predict", *arguments, "--input", str(source), "--output", str(out), *extra]) == 0
    rows = _rows(out / "exams.csv")
    assert tuple(rows[0]) == (*EXAM_COLUMNS, "origin")
    return {row["exam_id"]: row for row in rows}


def test_fewer_views_are_predicted_and_flagged(exams: Path, tmp_path: Path) -> None:
    run = _tiny(tmp_path / "run")
    rows = _predict([run], exams, tmp_path / "out")
    assert set(rows) == {"a", "b", "c"}
    assert rows["a"]["note"] == ""
    assert rows["b"]["note"] == "3 of 4 views"
    assert rows["c"]["note"] == "1 of 4 views; no pair is complete: one side stood for both"
    assert rows["c"]["right_malignant"] == "" != rows["c"]["left_malignant"]
    model = mammojax.restore(str(run))
    views = {view: _breast(10 + VIEWS.index(view), view.startswith("L")) for view in ("L-MLO", "R-MLO")}
    expected = model.predict(views)  # exam b: its MLO pair is complete, the lone CC is left out
    np.testing.assert_allclose([float(rows["b"][label]) for label in LABELS], expected, rtol=1e-6)
    breasts = _rows(tmp_path / "out" / "breasts.csv")
    assert [(row["exam_id"], row["laterality"], row["views"]) for row in breasts] == [
        ("a", "L", "CC+MLO"), ("a", "R", "CC+MLO"), ("b", "L", "MLO"), ("b", "R", "MLO"), ("c", "L", "MLO")
    ]  # fmt: skip
    rejected = {row["file"]: row["reason"] for row in _rows(tmp_path / "out" / "rejected.csv")}
    assert {"d_L-CC.png", "e.png"} == set(rejected)
    assert "side or view" in rejected["e.png"]


def _image(exam: str, view: str) -> np.ndarray:
    """The image of the fixture `exams`."""
    return _breast(10 * "abc".index(exam) + VIEWS.index(view), view.startswith("L"))


def test_image_wise_a_lone_view_is_used(exams: Path, tmp_path: Path) -> None:
    """No pair is needed: the left breast of exam b is its CC and MLO view's, the right one's its MLO view's."""
    run = _tiny(tmp_path / "run", "image-wise")
    rows = _predict([run], exams, tmp_path / "out")
    assert (rows["b"]["note"], rows["c"]["note"]) == ("3 of 4 views", "1 of 4 views")
    model = mammojax.restore(str(run))
    whole = {view: _image("b", view) for view in ("L-CC", "L-MLO", "R-MLO")} | {"R-CC": _image("a", "R-CC")}
    both, mlo = model.predict(whole), model.predict({view: whole[view] for view in ("L-MLO", "R-MLO")})
    assert abs(both - mlo).max() > 1e-3  # so the views tell
    expected = [both[0], mlo[1], both[2], mlo[3]]
    np.testing.assert_allclose([float(rows["b"][label]) for label in LABELS], expected, rtol=1e-6)
    pair = model.predict({"L-MLO": _image("c", "L-MLO"), "R-MLO": _image("a", "R-MLO")})
    assert float(rows["c"]["left_malignant"]) == pytest.approx(pair[2], rel=1e-6)
    assert rows["c"]["right_malignant"] == ""
    views = {(row["exam_id"], row["laterality"]): row["views"] for row in _rows(tmp_path / "out" / "breasts.csv")}
    assert views == {
        ("a", "L"): "CC+MLO", ("a", "R"): "CC+MLO", ("b", "L"): "CC+MLO", ("b", "R"): "MLO", ("c", "L"): "MLO"
    }  # fmt: skip


def test_a_breast_of_which_no_view_is_used_is_not_predicted(exams: Path, tmp_path: Path) -> None:
    """Of exam b's right breast there is no CC view: a network of CC views says nothing of it, nor does an ensemble."""
    exams.write_text("\n".join(line for line in exams.read_text().splitlines() if line[0] in "ib") + "\n")
    run, other = _tiny(tmp_path / "run", angles=("CC",)), _tiny(tmp_path / "other")
    for runs in ([run], [run, other]):
        prediction = _predict(runs, exams, tmp_path / "out")["b"]
        assert prediction["right_malignant"] == "" != prediction["left_malignant"]
        assert "no prediction of the right breast" in prediction["note"]
        rows = [row for row in _rows(tmp_path / "out" / "breasts.csv") if row["exam_id"] == "b"]
        assert [(row["laterality"], row["views"]) for row in rows] == [("L", "CC+MLO" if len(runs) == 2 else "CC")]


def test_a_split_s_predictions_name_the_views_used(exams: Path, tmp_path: Path) -> None:
    """predictions/<split>.csv of exam b, whose R-CC is missing, from a prepared data set."""
    lines = exams.read_text().splitlines()
    splits = {"b": "test", "a": "train"}
    rows = [f"{line.replace(',,', ',NORMAL,', 1)},{splits[line[0]]}" for line in lines[1:] if line[0] in splits]
    exams.write_text("\n".join([f"{lines[0]},split", *rows]) + "\n")
    (path,) = prepare(Recipe("manifest", "exams", tmp_path / "data", exams, iterations=3))
    expected = {"view-wise": {"L": "MLO", "R": "MLO"}, "image-wise": {"L": "CC+MLO", "R": "MLO"}}
    for join, views in expected.items():
        run = _tiny(tmp_path / join, join)
        scored = list(ExamPredictor.restore(run).score_split(dataset.Prepared(path), "test"))
        table.write_exams(run / "predictions" / "test.csv", scored, "cancer")
        assert dict(table.read_breasts(run, "test").frame[["laterality", "views"]].to_numpy()) == views


def test_a_split_is_scored_in_batches_with_equal_results(exams: Path, tmp_path: Path) -> None:
    """Exam b lacks a view and exam c has one only: a batch holds exams of the same angles, its rest is zeros."""
    lines = exams.read_text().splitlines()
    rows = [f"{line.replace(',,', ',NORMAL,', 1)},{'train' if line[0] == 'a' else 'test'}" for line in lines[1:]]
    rows += [row.replace("b,", "bb,").replace("b_", "bb_") for row in rows if row[0] == "b"]
    for file in list(exams.parent.glob("b_*")):
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(file.with_name(file.name.replace("b_", "bb_"))), image // 2 * 2 + 1)
    exams.write_text("\n".join([f"{lines[0]},split", *rows]) + "\n")
    (path,) = prepare(Recipe("manifest", "exams", tmp_path / "data", exams, iterations=3))
    predictor = ExamPredictor.restore(_tiny(tmp_path / "run", "image-wise"))
    sizes: list[tuple[int, set[int]]] = []
    apply = predictor._apply

    def counted(variables: Any, images: dict[str, np.ndarray]) -> Any:
        sizes.append((len(images), {len(image) for image in images.values()}))
        return apply(variables, images)

    predictor._apply = counted
    for tta, inputs in (("none", [4, 2]), ("random10", [4] * 5 + [2] * 3)):  # of b and bb, then of c
        alone = list(predictor.score_split(dataset.Prepared(path), "test", tta))
        sizes.clear()
        together = list(predictor.score_split(dataset.Prepared(path), "test", tta, batch=4))
        assert [exam.exam_id for exam, _ in together] == [exam.exam_id for exam, _ in alone] == ["b", "bb", "c"]
        for (_, a), (_, b) in zip(together, alone, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)
        assert sizes == [(count, {4}) for count in inputs]


def test_augmented_predictions_do_not_depend_on_the_other_exams(exams: Path, tmp_path: Path) -> None:
    run = _tiny(tmp_path / "run")
    plain = _predict([run], exams, tmp_path / "out")["b"]
    moved = _predict([run], exams, tmp_path / "out", "--tta", "random10")["b"]
    assert moved != plain
    lines = exams.read_text().splitlines()
    exams.write_text("\n".join([lines[0], *(line for line in lines if line.startswith("b_"))]) + "\n")
    assert _predict([run], exams, tmp_path / "out", "--tta", "random10")["b"] == moved


def _dicom(path: Path, view: str, **tags: object) -> None:
    pixels = _breast(VIEWS.index(view), view.startswith("L"))
    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.3.4"
    header.Modality, header.PatientID, header.StudyInstanceUID = "MG", "secret-id", "1.2.3"
    header.ImageLaterality, header.ViewPosition = view.split("-")
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    for name, value in tags.items():
        setattr(header, name, value)
    header.PixelData = pixels.tobytes()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.save_as(path, enforce_file_format=True)


def test_other_modalities_and_changed_views_are_no_part_of_an_exam(tmp_path: Path) -> None:
    """A spot view of the left breast, a CT and free text in ViewPosition lie among the four views."""
    run, folder = _tiny(tmp_path / "run"), tmp_path / "in"
    folder.mkdir()
    for view in VIEWS:
        _dicom(folder / f"{view}.dcm", view)
    alone = _predict([run], folder, tmp_path / "out")
    spot = pydicom.Dataset()
    spot.CodeValue = "399055006"
    _dicom(folder / "spot.dcm", "L-CC", ViewModifierCodeSequence=pydicom.Sequence([spot]))
    _dicom(folder / "ct.dcm", "L-CC", Modality="CT")
    _dicom(folder / "text.dcm", "L-CC", ViewPosition="SMITH JOHN")
    assert list(_predict([run], folder, tmp_path / "out").values()) == list(alone.values())
    rejected = {row["file"]: row["reason"] for row in _rows(tmp_path / "out" / "rejected.csv")}
    assert rejected["spot.dcm"].startswith("it is no screening view (spot compression)")
    assert rejected["ct.dcm"].startswith("ct.dcm: Modality is CT, neither MG nor")
    assert "side or view" in rejected["text.dcm"]
    assert "SMITH" not in "".join(path.read_text() for path in (tmp_path / "out").glob("*.csv"))
    taken = _predict([run], folder, tmp_path / "out", "--any-modality")
    assert {row["file"] for row in _rows(tmp_path / "out" / "rejected.csv")} == {"spot.dcm", "text.dcm"}
    assert list(taken) == list(alone)


def test_ids_that_are_formulas_are_written_as_texts(exams: Path, tmp_path: Path) -> None:
    exams.write_text(exams.read_text().replace(",pa,a,", ",=1+1,@a,").replace("d_L-CC.png", "=d.png"))
    (tmp_path / "=d.png").write_bytes(b"broken")
    assert "'@a" in _predict([_tiny(tmp_path / "run")], exams, tmp_path / "out")
    assert "\n'@a,'=1+1,0." in (tmp_path / "out" / "exams.csv").read_text().replace("\r", "")
    assert "\n'@a,'=1+1,L,CC+MLO,0." in (tmp_path / "out" / "breasts.csv").read_text().replace("\r", "")
    assert "\n'=d.png,\"'=d.png: " in (tmp_path / "out" / "rejected.csv").read_text().replace("\r", "")


def test_small_and_blank_arrays_are_refused(tmp_path: Path) -> None:
    model = mammojax.restore(str(_tiny(tmp_path / "run")))
    for pixels, word in ((_breast(0, True)[:63], "63 × 100 pixels"), (np.zeros((140, 100), np.uint16), "one value")):
        with pytest.raises(BadMammogram, match=f"an array.*{word}"):
            model.predict({"L-MLO": pixels, "R-MLO": _breast(1, False)})


def test_an_ensemble_averages_its_members(exams: Path, tmp_path: Path) -> None:
    runs = [_tiny(tmp_path / "one"), _tiny(tmp_path / "two", seed=1)]
    alone = [_predict([run], exams, tmp_path / "out")["a"] for run in runs]
    both = _predict(runs, exams, tmp_path / "out")["a"]
    for label in LABELS:
        assert float(both[label]) == pytest.approx(np.mean([float(row[label]) for row in alone]), rel=1e-6)


def test_a_threshold_that_is_given_wins_and_whole_images_are_named(
    exams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Film, background 20 %, by a run of threshold 0, as it is and given 14000, and by one that finds it by image."""
    exams.write_text("\n".join(line for line in exams.read_text().splitlines() if line[0] in "ia") + "\n")
    for view in VIEWS:
        film = 13107 + 0.5 * _image("a", view)
        cv2.imwrite(str(exams.parent / f"a_{view}.png"), film.astype(np.uint16))
    printed, score = {}, {}
    for name, crop, extra in (("0", 0, ()), ("given", 0, ("--threshold", "14000")), ("found", None, ())):
        score[name] = _predict([_tiny(tmp_path / name, threshold=crop)], exams, tmp_path / "out", *extra)["a"]
        printed[name] = capsys.readouterr().err
    for view in VIEWS:
        assert f"a_{view}.png: the crop keeps 100% of the image (tissue: above 0)" in printed["0"]
    assert "keeps" not in printed["given"] + printed["found"]
    assert ExamPredictor.restore(tmp_path / "found", threshold=0).facts["crop"] == {"threshold": 0, "iterations": 3}
    close = [float(score["found"][label]) - float(score["given"][label]) for label in LABELS]
    apart = [float(score["0"][label]) - float(score["given"][label]) for label in LABELS]
    assert np.abs(close).max() < 0.2 * np.abs(apart).max()


def test_bad_requests_are_refused(exams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joint, out = _tiny(tmp_path / "joint", "joint"), str(tmp_path / "out")
    rows = _predict([joint], exams, tmp_path / "out")
    assert set(rows) == {"a", "b"}  # exam c has no CC view at all
    rejected = {row["file"]: row["reason"] for row in _rows(tmp_path / "out" / "rejected.csv")}
    assert "has not the views it needs" in rejected["c_L-MLO.png"]
    assert cli.main(["predict", "--run", str(joint), "--tta", "flips", "--input", str(exams), "--output", out]) == 2
    assert "flips are for whole-image runs" in capsys.readouterr().err
    assert cli.main(["convert", "nyu", str(exams), "--out", str(tmp_path / "x")]) == 2
    assert "is unknown; use .p" in capsys.readouterr().err
