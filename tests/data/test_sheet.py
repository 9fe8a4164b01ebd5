"""Tables as people type them: separators, the header's spelling, quotation marks; what cannot be read is named."""

import io
import zipfile
from pathlib import Path

import pytest

from mammojax.data.sheet import read_rows
from mammojax.errors import BadManifest

KNOWN = ("patient_id", "exam_id", "view", "split", "birads")


def _read(folder: Path, text: str, name: str = "m.csv") -> tuple[list[dict[str, str]], list[tuple[str, str]]]:
    (folder / name).write_text(text)
    rows, wrong = read_rows(folder / name, ("image", "pathology"), KNOWN)
    return [row for _, row in rows], wrong


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_the_header_s_case(tmp_path: Path, separator: str) -> None:
    text = "Image,PATHOLOGY, Patient_ID ,Scanner\r\na.dcm,BENIGN , P1,X\r\n\r\nb.dcm,,P2\r\n".replace(",", separator)
    rows, wrong = _read(tmp_path, "\ufeff" + text)
    assert rows == [
        {"image": "a.dcm", "pathology": "BENIGN", "patient_id": "P1", "Scanner": "X"},
        {"image": "b.dcm", "pathology": "", "patient_id": "P2", "Scanner": ""},
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("column", "meant"),
    [("PatientID", "patient_id"), ("patient", "patient_id"), ("Exam-ID", "exam_id"), ("views", "view"),
     ("splitt", "split"), ("BI-RADS", "birads")],
)  # fmt: skip
def test_a_misspelt_column_is_named_with_the_one_that_is_meant(tmp_path: Path, column: str, meant: str) -> None:
    with pytest.raises(BadManifest, match=f'm.csv: the column "{column}" is not known: did you mean {meant}'):
        _read(tmp_path, f"image,pathology,{column}\na.dcm,BENIGN,1\n")
    rows, _ = _read(tmp_path, f"image,pathology,{column},{meant}\na.dcm,BENIGN,1,2\n")  # beside it: a further column
    assert rows[0][column] == "1"


@pytest.mark.parametrize("column", ["age_band", "vendor", "finding", "patient_age", "exam_date", "image_id", "biopsy"])
def test_a_column_that_resembles_nothing_is_kept(tmp_path: Path, column: str) -> None:
    rows, _ = _read(tmp_path, f"image,pathology,{column}\na.dcm,BENIGN,x\n")
    assert rows[0][column] == "x"


def test_a_required_column_that_is_missing_or_twice_there(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match="did you mean pathology"):
        _read(tmp_path, "image,Patology\na.dcm,BENIGN\n")
    with pytest.raises(BadManifest, match=r'column image is missing \(is it "image_file"\?\)'):
        _read(tmp_path, "image_file;pathology\na.dcm;BENIGN\n")
    with pytest.raises(BadManifest, match='two columns are called "image"'):
        _read(tmp_path, "image,Image,pathology\na.dcm,b.dcm,BENIGN\n")
    with pytest.raises(BadManifest, match="column image is missing"):
        _read(tmp_path, "")


HEAD = "image,patient_id,view,pathology,scanner\n"
GOOD = "a.dcm,P1,CC,BENIGN,A\n"


@pytest.mark.parametrize(
    "rows",
    [
        'b.dcm,"P2,CC,BENIGN,A\nc.dcm,P3,CC,BENIGN,A\nd.dcm,P4,CC,BENIGN,A\n',  # never closed
        'b.dcm,"P2,CC,BENIGN,A\nc.dcm,P3",CC,BENIGN,A\nd.dcm,P4,CC,BENIGN,A\n',  # closed in another row
        'b.dcm,P2,CC,BENIGN,"\nc.dcm,P3,CC,BENIGN,A\nd.dcm,P4,CC,BENIGN,"\n',  # two strays
        'b.dcm,"P2"x,CC,BENIGN,A\nc.dcm,P3,CC,BENIGN,A\n',  # closed too early
    ],
)
def test_a_stray_quotation_mark_swallows_no_row(tmp_path: Path, rows: str) -> None:
    with pytest.raises(BadManifest, match=r"m\.csv, line 4: a quotation mark"):
        _read(tmp_path, HEAD + GOOD * 2 + rows + GOOD)


def test_quotation_marks_that_are_meant(tmp_path: Path) -> None:
    text = HEAD + 'a.dcm,P1,CC,BENIGN,"A, B\n(old)"\nb.dcm,P2,CC,BENIGN,5" film\n"c.dcm",P3,CC,BENIGN,"say ""x"""\n'
    rows, _ = _read(tmp_path, text)
    assert [row["scanner"] for row in rows] == ["A, B\n(old)", '5" film', 'say "x"']


def test_cells_too_many_are_listed_with_their_line(tmp_path: Path) -> None:
    rows, wrong = _read(tmp_path, HEAD + GOOD + "b.dcm,P2,CC,BENIGN,A,B\n" + "c.dcm,P3,CC,BENIGN,A,,\n")
    assert [row["image"] for row in rows] == ["a.dcm", "c.dcm"]
    assert [name for name, _ in wrong] == ["m.csv line 3"]
    assert "6 cells, the header 5" in wrong[0][1]


def test_files_that_are_no_csv_are_refused_with_a_reason(tmp_path: Path) -> None:
    book = io.BytesIO()
    with zipfile.ZipFile(book, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    for name in ("m.xlsx", "m.csv"):
        (tmp_path / name).write_bytes(book.getvalue())
        with pytest.raises(BadManifest, match=f"{name}: it is a spreadsheet.*save it as CSV"):
            read_rows(tmp_path / name, ("image",), ())
    for coding in ("latin-1", "utf-16", "utf-16-le"):
        (tmp_path / "m.csv").write_bytes("image,pathology\nbröst.dcm,BENIGN\n".encode(coding))
        with pytest.raises(BadManifest, match="UTF-8"):
            read_rows(tmp_path / "m.csv", ("image",), ())
