"""CMMD's reader on a tree of its shape, with its spreadsheet as published."""

import sys
from pathlib import Path

import openpyxl
import pytest

from mammojax.data import cmmd
from mammojax.errors import BadManifest
from tests.data import small

ROWS = (
    ("ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype"),
    ("D1-0001", "R", 44, 2, "calcification", "Benign", None),
    ("D2-0003", "L", 51.0, 2, "both", "Malignant", "Luminal B"),
    ("D2-0003", "L", 51.0, 2, "mass", "Benign", None),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two patients of the table, one with both breasts, and one that it does not list."""
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append(row)
    book.save(tmp_path / "CMMD_clinicaldata_revision.xlsx")
    for patient, side, code, number in (
        ("D1-0001", "R", "399162004", 1), ("D2-0003", "L", "399368009", 1), ("D2-0003", "R", "399162004", 2),
        ("D2-0009", "L", "399162004", 1),
    ):  # fmt: skip
        path = tmp_path / "CMMD" / patient / "07-18-2010-NA-NA-79377" / "1.000000-NA-70244" / f"1-{number}.dcm"
        small.dicom(path, PatientID=patient, ImageLaterality=side, ViewCodeSequence=small.view_code(code))
    small.dicom(tmp_path / "CMMD" / "loose.dcm", PatientID="D1-0001")  # its header names no side
    return tmp_path


def test_a_breast_has_its_row_and_the_header_s_view(tree: Path) -> None:
    table = cmmd.read_table(tree)
    told = [(i.patient_id, i.laterality, i.view, i.pathology, i.columns["label_source"]) for i in table.images]
    assert told == [
        ("D1-0001", "R", "CC", "BENIGN", "biopsy"), ("D2-0003", "L", "MLO", "MALIGNANT", "biopsy"),
        ("D2-0003", "R", "CC", "", ""),
    ]  # fmt: skip
    assert table.images[1].columns.items() >= {"age": "51", "finding": "both", "subtype": "Luminal B"}.items()
    reasons = [reason for _, reason in sorted(table.rejected)]
    assert "no row of its patient" in reasons[0]
    assert "does not say which breast" in reasons[1]


def test_without_openpyxl_a_csv_does(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(BadManifest, match=r"mammojax\[sheets\].*or save it as CSV"):
        cmmd.read_table(tree)
    rows = [";".join("" if cell is None else str(cell) for cell in row) for row in ROWS]
    (tree / "CMMD_clinicaldata_revision.csv").write_text("\n".join(rows))
    assert [image.pathology for image in cmmd.read_table(tree).images] == ["BENIGN", "MALIGNANT", ""]
