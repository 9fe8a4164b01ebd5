"""Texts of the data in our CSVs: no formula to a spreadsheet, the same text when read again, all others untouched."""

import csv
import io
from pathlib import Path

import pytest

from mammojax.data.cells import Writer, plain, read_table, shielded
from mammojax.data.manifest import read_manifest

FORMULAS = ("=1+1", '=HYPERLINK("x","y")', "+49", "-1+2", "-5", "@SUM(A1)", "\tx", "\rx", "\n=x", "＝1")
ORDINARY = ("", "P_00001", "a-b=c", "0012", "'quoted'", "1e5", "é, ü", 'say "x"', " =x", "exam+1", "'")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_shielded_and_reads_back(text: str) -> None:
    assert shielded(text) == f"'{text}"
    for written in (text, f"'{text}", f"''{text}"):  # what looks shielded already is still another id
        assert plain(shielded(written)) == written


@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_text_is_untouched(text: str) -> None:
    assert shielded(text) == plain(text) == text


def test_a_table_is_that_of_the_csv_module_but_for_formulas(tmp_path: Path) -> None:
    columns = ("image", "patient_id", "note", "p")
    rows = [(text, text, text, 0.25) for text in ORDINARY]
    with (tmp_path / "ours.csv").open("w", newline="") as ours, (tmp_path / "theirs.csv").open("w", newline="") as file:
        Writer(ours, columns).rows(rows)
        csv.writer(file).writerows([columns, *rows])
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()
    file = io.StringIO(newline="")
    table = Writer(file, ("exam_id", "=column", "p"))
    table.row(
        {"exam_id": "-5", "=column": "-5.5e-1", "p": -0.5, "other": "x"}
    )  # an id that looks like a number is a text
    table.rows([(text, text, repr(-0.5)) for text in FORMULAS])
    assert file.getvalue().splitlines()[:2] == ["exam_id,'=column,p", "'-5,-5.5e-1,-0.5"]
    file.seek(0)
    names, read = read_table(file)
    assert names == ["exam_id", "=column", "p"]
    assert [row["exam_id"] for row in read] == ["-5", *FORMULAS]
    assert [row["=column"] for row in read] == ["-5.5e-1", *FORMULAS]
    with pytest.raises(ValueError, match="zip"):
        table.row(("too", "few"))


def test_a_manifest_may_hold_ids_copied_from_our_tables(tmp_path: Path) -> None:
    for name in ("=a.png", "'=b.png"):
        (tmp_path / name).write_bytes(b"")
    lines = ["image,pathology,patient_id,exam_id", "=a.png,,'=P1,=E1", "'=b.png,,=P1,'=E1"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    images = read_manifest(tmp_path / "m.csv").images
    assert [image.image for image in images] == ["=a.png", "'=b.png"]  # files are called what they are called
    assert {(image.patient_id, image.exam_id) for image in images} == {("=P1", "=E1")}
