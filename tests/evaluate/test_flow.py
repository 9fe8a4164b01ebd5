"""Who is in a run: the flow diagram and the table count what the files of the data set say, and name nobody."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mammojax.data.cells import Writer
from mammojax.data.dataset import COLUMNS
from mammojax.evaluate import flow
from mammojax.evaluate.report import Section, replace_part, write_page

CLASSES = ["not malignant", "malignant"]


def _data(folder: Path, rows: list[tuple[Any, ...]], rejected: list[tuple[str, str]], kind: str = "whole") -> Any:
    """A prepared data set: of `dataset.Prepared` only what the tables need."""
    folder.mkdir()
    with (folder / "rejected.csv").open("w", newline="") as file:
        Writer(file, ("file", "reason")).rows(rejected)
    columns = ("split", *COLUMNS, "facts")
    table = [dict(zip(columns, map(str, row), strict=False)) for row in rows]
    facts = {"name": "manifest", "kind": kind, "split": "all", "classes": CLASSES, "mean": 40.0, "patch_size": 32,
             "framing": {"size": [96, 64], "crop": "none"}}  # fmt: skip
    return SimpleNamespace(
        path=folder, facts=facts, table=lambda split: [row for row in table if row["split"] == split]
    )


def _run(folder: Path, test: list[tuple[str, str, str]]) -> Path:
    (folder / "predictions").mkdir(parents=True)
    with (folder / "predictions" / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "patient_id", "label", "p_malignant"), *((*row, "0.5") for row in test)])
    return folder


def _cells(density: str, **more: str) -> str:
    return json.dumps({"columns": {"density": density, **more}})


ROWS = [
    ("train", "a1", "P1", "E1", "L", "CC", 1, _cells("2", age="61", vendor="A")),
    ("train", "a2", "P1", "E1", "L", "MLO", 1, _cells("2", age="61", vendor="A")),
    ("train", "b1", "P2", "", "R", "CC", 0, _cells("3", age="49", vendor="B")),
    ("val", "c1", "P3", "E3", "L", "CC", 0, _cells("", age="55", vendor="A")),
    ("test", "d1", "P4", "E4", "L", "CC", 1, _cells("1", age="70", vendor="B")),
    ("test", "d2", "P4", "E4", "R", "CC", 0, _cells("1", age="70", vendor="B")),
    ("test", "e1", "P5", "E5", "", "CC", -1, _cells("4", vendor="B")),
]
REJECTED = [
    ("x/Doe_Jane.dcm", "PixelData is absent; leave the file out."),
    ("y.dcm", "PixelData is absent; leave the file out."),
    ("z", "its pixels are those of Doe Jane, another patient's in train"),
    ("a1", "a lesion without mask is not drawn; the image is used"),
    ("Doe_mask.png", "the mask of a1 does not exist; its lesion gives no patches"),
    ("w", 'pathology is "Doe"; write NORMAL, BENIGN, MALIGNANT or nothing, or say by a map (Doe=…) what it is'),
]


def test_the_flow_counts_from_the_files_to_what_was_measured(tmp_path: Path) -> None:
    data = _data(tmp_path / "data", ROWS, REJECTED)
    run = _run(tmp_path / "run", [("d1", "P4", "1"), ("d2", "P4", "0"), ("e1", "P5", "")])
    (run / "train_patients.txt").write_text("manifest\tP1\nphantom\tP7\nphantom\tP8\n")
    (run / "calibration_patients.txt").write_text("P3\n")
    diagram, population = flow.sections(run, {"model": {"task": "whole"}}, {"test": {}}, data)
    read, prepared, splits, measured = diagram.flow
    assert read.boxes[0].lines == ["11, of “manifest”, split “all”"]
    assert read.out is not None
    assert read.out.lines[:2] == ["4 in all", "2: PixelData is absent; leave the file out."]
    assert "Doe" not in json.dumps([read.out.lines, population.rows])
    assert prepared.boxes[0].lines == [
        "5 patients", "4 exams", "5 breasts", "7 images", "2 remarks on lesions of images that are used",
    ]  # fmt: skip
    train, val, test = splits.boxes
    assert train.lines == [
        "2 patients", "1 exam", "2 breasts", "3 images", "not malignant: 1", "malignant: 2",
        "learned from 1 patient of these", "runs before it learned from 2 further patients",
    ]  # fmt: skip
    assert val.lines[-1] == "1 patient set aside for calibration"
    assert test.lines[-1] == "label unknown: 1"
    assert splits.out is not None
    assert splits.out.lines == ["1 test images without a label"]
    assert measured.boxes[0].lines == ["2 images of 1 patient", "malignant: 1", "not malignant: 1"]


def test_the_table_describes_the_patients_by_split_and_class(tmp_path: Path) -> None:
    data, run = _data(tmp_path / "data", ROWS, []), _run(tmp_path / "run", [("d1", "P4", "1")])
    population = flow.sections(run, {"model": {"task": "whole"}}, {"test": {}}, data)[1]
    rows = {row[0]: list(row[1:]) for row in population.rows}
    assert list(population.header) == ["", "train", "val", "test", "test, malignant", "test, others"]
    assert rows["patients"] == ["2", "1", "2", "1", "1"]
    assert rows["breasts"] == ["2", "1", "2", "1", "1"]  # the side of e1 is unknown
    assert rows["images, malignant"] == ["2 (67 %)", "0 (0 %)", "1 (33 %)", "–", "–"]
    assert rows["vendor A"] == ["2 (67 %)", "1 (100 %)", "0 (0 %)", "0 (0 %)", "0 (0 %)"]
    assert rows["density not given"][1] == "1 (100 %)"
    assert rows["age of the patients, median (quartiles)"] == ["55 (52 – 58)", "55 (55 – 55)", *["70 (70 – 70)"] * 3]
    assert "Not reported, as the data do not say it: BI-RADS, source of the label." in population.note


def test_patches_are_counted_by_the_images_they_come_from(tmp_path: Path) -> None:
    rows = [("train", f"a1#{k}", "P1", "E1", "L", "CC", k % 2) for k in range(4)]
    rows += [("test", "b#1#0", "P2", "E2", "R", "CC", 0)]
    rejected = [("c1", "a lesion without mask gives no patches"), ("a1", "a lesion without mask gives no patches")]
    data, run = _data(tmp_path / "data", rows, rejected, "patches_s10"), _run(tmp_path / "run", [("b#1#0", "P2", "0")])
    diagram, population = flow.sections(run, {"model": {"task": "patch"}}, {"test": {}}, data)
    assert diagram.flow[0].boxes[0].lines == ["3, of “manifest”, split “all”"]
    assert "5 patches" in diagram.flow[1].boxes[0].lines
    assert "patches malignant: 2" in diagram.flow[2].boxes[0].lines
    assert {row[0]: list(row[1:]) for row in population.rows}["images"] == ["1", "0", "1"]
    assert "count as masses" not in population.note
    data.facts["one_type"] = True
    population = flow.sections(run, {"model": {"task": "patch"}}, {"test": {}}, data)[1]
    assert "mean gray value 40.00 of 255. Lesions of all types count as masses." in population.note


def test_examples_that_a_network_of_several_views_cannot_take_are_counted(tmp_path: Path) -> None:
    def row(split: str, patient: str, side: str, view: str, malignant: int = 0) -> tuple[Any, ...]:
        facts = json.dumps({"columns": {}, "malignant": malignant, "benign": malignant})
        return (split, f"{split}{patient}{side}{view}", patient, "E", side, view, max(malignant, 0), facts)

    whole = [row("train", "P1", side, view) for side in "LR" for view in ("CC", "MLO")]
    unknown = [row("train", "P2", side, view, -1) for side in "LR" for view in ("CC", "MLO")]
    part = [row("train", "P3", "L", "CC"), row("val", "P4", "R", "MLO"), row("test", "P5", "L", "MLO")]
    data = _data(tmp_path / "data", [*whole, *unknown, *part], [])
    run = _run(tmp_path / "run", [])
    exam = {"model": {"task": "exam", "angles": ("CC", "MLO"), "target": "cancer"}}
    out = flow.sections(run, exam, {"test": {}}, data)[0].flow[2].out
    assert out is not None
    assert out.lines == [
        "1 train exam without the views that the network needs", "1 train exam without a label of both breasts",
        "1 val exam without the views that the network needs",
    ]  # fmt: skip
    pairs = {"model": {"task": "two_view", "pair": "views"}}
    out = flow.sections(run, pairs, {"test": {"breasts_left_out": 1}}, data)[0].flow[2].out
    assert out is not None
    assert out.lines == [
        "1 train breasts with one of two images", "1 val breasts with one of two images",
        "1 test breasts with one of two images",
    ]  # fmt: skip


def test_a_part_of_a_written_page_is_replaced_at_its_place(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    old = [Section("first", "1"), Section("old", "a <b>", part="x"), Section("older", part="x"), Section("last")]
    write_page(page, "title", [], old)
    replace_part(page, "x", [Section("new", "b & c", part="x")])
    replace_part(page, "y", [Section("added", part="y")])
    text = page.read_text()
    places = [text.index(f"<h2>{name}</h2>") for name in ("first", "new", "added", "last")]
    assert places == sorted(places)
    assert "b &amp; c" in text
    assert "<h2>old" not in text
    replace_part(page, "x", [])
    assert "new" not in page.read_text()
