"""`mammojax check`: what is wrong with a data set is found, named, and decides the exit code."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from mammojax import cli
from mammojax.check import check
from mammojax.data import phantom
from mammojax.data.concerns import CANNOT, NOTE, WARNING, Concern
from mammojax.data.dicom import read_mammogram
from mammojax.evaluate.check_report import Checked


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest of 176 images of 44 patients, a split column, and every lesion outlined."""
    folder = tmp_path_factory.mktemp("films")
    phantom.write_phantom(folder, patients=44, image_size=(192, 128), both_breasts=True)
    header, rows = _rows(folder)
    names = sorted({row[1] for row in rows})
    split = {name: ("train", "train", "val", "test")[k % 4] for k, name in enumerate(names)}
    _write(folder / "manifest.csv", [*header, "split"], [[*row, split[row[1]]] for row in rows])
    return folder


@pytest.fixture
def copy(films: Path, tmp_path: Path) -> Path:
    """A copy of the films that a test may spoil."""
    return Path(shutil.copytree(films, tmp_path / "films"))


def _write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _rows(folder: Path) -> tuple[list[str], list[list[str]]]:
    header, *rows = list(csv.reader((folder / "manifest.csv").read_text().splitlines()))
    return header, rows


def _about(checked: Checked, words: str) -> Concern:
    (concern,) = [concern for concern in checked.concerns if words in concern.text]
    return concern


def _edit(path: Path, pixels: np.ndarray | None = None, **tags: str) -> None:
    header = pydicom.dcmread(path)
    if pixels is not None:
        header.PixelData = pixels.astype(header.pixel_array.dtype).tobytes()
        header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        header["PixelData"].is_undefined_length = False
    for name, value in tags.items():
        setattr(header, name, value)
    header.save_as(path)


def test_what_is_wrong_is_found_and_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, rows = _rows(copy)
    column = header.index
    images = list(dict.fromkeys(row[0] for row in rows))
    first = {row[0]: row for row in rows}
    by_patient: dict[str, list[str]] = {}
    for name in images:
        by_patient.setdefault(first[name][1], []).append(name)
    one, two, three = list(by_patient.values())[:3]
    (copy / one[0]).write_bytes(b"not an image")
    _edit(copy / one[1], Modality="CT")
    _edit(copy / two[0], BurnedInAnnotation="YES", Manufacturer="HOLOGIC, Inc.", PatientID="SECRET^NAME")
    _edit(copy / two[1], PatientID="SECRET^NAME")
    _edit(copy / three[0], PatientID="SECRET^NAME")
    shutil.copy(copy / two[2], copy / three[2])  # another patient's picture
    _edit(copy / three[2], SOPInstanceUID="1.2.3")  # whose file differs
    masked = [row for row in rows if row[column("mask")] and row[0] not in (*one, *two, *three)]
    cv2.imwrite(str(copy / "empty.png"), np.zeros((192, 128), np.uint8))
    masked[0][column("mask")], masked[1][column("mask")] = "empty.png", "gone.png"
    view = masked[2]
    _edit(copy / view[0], ViewPosition="XCCL")
    _write(copy / "manifest.csv", header, rows)

    assert cli.main(["check", str(copy), "--output", str(copy / "out" / "check.html")]) == 1
    printed = capsys.readouterr().out
    checked = check(copy)
    assert {name for name, _ in _about(checked, "cannot be read or are no mammograms").files} == set(one[:2])
    assert _about(checked, "text is burned in").files == [(two[0], "BurnedInAnnotation is YES")]
    ((name, what),) = _about(checked, "pixels of another patient's image").files
    assert {name, what.split("those of ")[1].split(",")[0]} == {two[2], three[2]}
    assert "and they stand in" in what or first[two[2]][-1] == first[three[2]][-1]
    assert {n for n, _ in _about(checked, "several patient_id").files} <= {two[0], two[1], three[0], three[2]}
    assert [name for name, _ in _about(checked, "masks cannot be read, mark nothing").files] == ["empty.png"]
    assert [name for name, _ in _about(checked, "of the table cannot be used").files] == ["gone.png"]
    assert {name for name, _ in _about(checked, "contradict each other").files} == {view[0]}
    assert printed.startswith("Warnings: 174 images of films")
    page = (copy / "out" / "check.html").read_text()
    assert "SECRET" not in page + printed
    assert str(copy) not in page + printed.replace(f"→ {copy}", "")
    for words in ("HOLOGIC", "MONOCHROME2", "192 × 128", one[0], "data:image/jpeg;base64,", "with a malignant image"):
        assert words in page
    assert not re.search(r'(?:src|href)="http', page)


def test_a_data_set_without_fault_is_fine(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked = check(films)
    assert [c.kind for c in checked.concerns if c.kind != NOTE and "few" not in c.text and "small" not in c.text] == []
    assert len(checked.used) == 176
    header, rows = _rows(films)
    _write(films / "two.csv", header, [row for row in rows if row[header.index("view")] == "CC"])
    assert cli.main(["check", str(films / "two.csv")]) == 1  # classes too small to measure
    assert "too small to measure" in capsys.readouterr().out
    assert not [c for c in checked.concerns if "have no type" in c.text]
    outlined = [row for row in rows if row[header.index("mask")]]
    outlined[0][header.index("abnormality")] = ""
    _write(films / "untyped.csv", header, rows)
    (concern,) = [c for c in check(films / "untyped.csv").concerns if "have no type" in c.text]
    assert concern.kind == NOTE
    assert concern.text.startswith(f"1 of {len(outlined)} outlined lesions")
    assert "data.one_type=True" in concern.text


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda row, c: row.__setitem__(c("pathology"), ""), "can only be predicted"),
        (lambda row, c: row.__setitem__(c("pathology"), "BENIGN"), "All labelled images are not malignant"),
        (
            lambda row, c: row.__setitem__(c("split"), "val" if row[c("view")] == "CC" else "test"),
            "puts one patient in",
        ),
        (lambda row, c: row.__setitem__(c("split"), "train"), "val split has no labelled image"),
    ],
)
def test_what_cannot_be_trained_on_exits_with_two(
    films: Path, tmp_path: Path, spoil: Callable[..., None], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    header, rows = _rows(films)
    for row in rows:
        spoil(row, header.index)
    _write(films / "spoilt.csv", header, rows[:60])
    assert cli.main(["check", str(films / "spoilt.csv"), "--output", str(tmp_path / "check.html")]) == 2
    printed = capsys.readouterr().out
    assert f"{CANNOT}: " in printed
    assert words in printed
    assert "It cannot be trained on as it is" in (tmp_path / "check.html").read_text()


def test_a_folder_and_a_wrong_path(films: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "manifest.csv").unlink()
    for path in copy.glob("*.csv"):
        path.unlink()
    checked = check(copy)
    assert checked.verdict == CANNOT  # a folder has no labels
    assert len(checked.seen) == len([path for path in copy.rglob("*") if path.is_file()])
    shutil.make_archive(str(copy / "few"), "zip", copy / "normal")
    assert {file.image.image for file in check(copy / "few.zip").used} == {p.name for p in (copy / "normal").iterdir()}
    assert cli.main(["check", str(copy / "nowhere")]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err


def test_images_darker_than_those_of_a_run(finished: Path, copy: Path) -> None:
    facts = json.loads((finished / "config.json").read_text())["facts"]
    assert set(facts["levels"]) == {"background", "tissue", "brightest"}
    header, rows = _rows(copy)
    kept = list(dict.fromkeys(row[0] for row in rows))[:24]
    _write(copy / "some.csv", header, [row for row in rows if row[0] in kept])
    before = [c.kind for c in check(copy / "some.csv", finished).concerns if "this run has seen" in c.text]
    assert WARNING not in before
    for name in kept:
        _edit(copy / name, read_mammogram(copy / name).pixels // 5)
    checked = check(copy / "some.csv", finished)
    assert _about(checked, "darker than anything this run has seen (median of the breast").kind == WARNING
    saved = json.loads((finished / "config.json").read_text())
    older = copy / "older"  # a run folder from before levels were kept, whose data are still there
    (older / "checkpoints").mkdir(parents=True)
    del saved["facts"]["levels"]
    saved["config"]["data"]["data_dir"] = str(finished.parent / "data")
    (older / "config.json").write_text(json.dumps(saved))
    assert check(copy / "some.csv", older).ranges == checked.ranges
