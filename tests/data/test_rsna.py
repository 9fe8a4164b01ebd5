"""RSNA's reader on a tree of its shape."""

from pathlib import Path

import cv2
import pytest

from mammojax.data import rsna
from mammojax.errors import BadManifest
from tests.data import small

HEADER = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,"
    "difficult_negative_case\n"
)


def test_a_cancer_a_biopsy_and_a_reading_are_told_apart(tmp_path: Path) -> None:
    rows = (
        "2,10006,462822612,L,CC,61.0,0,0,0,,0,,29,False",
        "2,10006,1459541791,R,MLO,61.0,1,1,1,0.0,0,B,29,False",
        "1,10011,220375232,L,AT,,0,1,0,0.0,1,C,21,True",
        "1,10011,541722628,R,CC,,0,0,0,1.0,1,C,21,True",
    )
    (tmp_path / "train.csv").write_text(HEADER + "\n".join(rows))
    small.dicom(tmp_path / "train_images/10006/462822612.dcm")
    small.dicom(tmp_path / "train_images/10006/1459541791.dcm")
    (tmp_path / "train_images/10011").mkdir()
    cv2.imwrite(str(tmp_path / "train_images/10011/220375232.png"), small.pixels("a"))  # as people convert them
    table = rsna.read_table(tmp_path)
    told = [(i.laterality, i.view, i.pathology, i.density, i.columns["label_source"]) for i in table.images]
    assert told == [
        ("L", "CC", "NORMAL", "", "reading"), ("R", "MLO", "MALIGNANT", "B", "biopsy"),
        ("L", "AT", "BENIGN", "C", "biopsy"),
    ]  # fmt: skip
    last = table.images[-1]
    assert (last.patient_id, last.path.name, last.label) == ("10011", "220375232.png", 0)
    facts = {"birads": "0", "biopsied": "1", "implant": "1", "site": "1", "machine": "21", "age": ""}
    assert last.columns.items() >= facts.items()
    assert table.rejected == [("541722628", "train.csv lists it, but there is no file of that name")]


def test_what_is_no_download_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match=r"train.csv is not in the source folder"):
        rsna.read_table(tmp_path)
    (tmp_path / "train.csv").write_text("patient_id,image_id\n")
    with pytest.raises(BadManifest, match="column laterality is missing"):
        rsna.read_table(tmp_path)
    (tmp_path / "train.csv").write_text(HEADER)
    with pytest.raises(BadManifest, match=r"put train.csv beside train_images"):
        rsna.read_table(tmp_path)
