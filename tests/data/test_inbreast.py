"""INbreast's reader on a small tree in its real shape, with the traps of the real one."""

import csv
import plistlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mammojax import cli
from mammojax.data import manifest, prepared
from mammojax.data.builders import inbreast

HEADER = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"
SIZE = (240, 180)


def _dicom(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    breast = np.hypot((y - SIZE[0] / 2) / 100, x / 140) < 1
    pixels = (breast * rng.integers(1000, 3000, SIZE)).astype(np.uint16)
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", generate_uid(entropy_srcs=[path.name])
    data.Modality, data.PatientName, data.PatientID = "MG", "removed", "removed"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = SIZE
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = pixels.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def _xml(path: Path, regions: list[tuple[str, list[tuple[float, float]]]]) -> None:
    rois = [
        {"Name": name, "NumberOfPoints": len(points), "Point_px": [f"({x:.6f}, {y:.6f})" for x, y in points]}
        for name, points in regions
    ]
    path.write_bytes(plistlib.dumps({"Images": [{"ImageIndex": 0, "NumberOfROIs": len(rois), "ROIs": rois}]}))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 patients of two to four images; BI-RADS of all kinds; everything that reference/data.md warns of."""
    root = tmp_path_factory.mktemp("inbreast")
    inside = root / "INbreast Release 1.0"  # the archive's own folder
    for name in ("AllDICOMs", "AllXML"):
        (inside / name).mkdir(parents=True)
    square = [(40.0, 100.0), (80.0, 100.0), (80.0, 140.0), (40.0, 140.0)]
    rows, number = [HEADER], 20586900
    for patient in range(24):
        birads = ("1", "2", "4a", "5", "6", "2")[patient % 6]
        for side, view in (("R", "CC"), ("R", "ML"), ("L", "CC"), ("L", "ML"))[: 2 + 2 * (patient % 2)]:
            number += 3
            _dicom(inside / "AllDICOMs" / f"{number}_{patient:016x}_MG_{side}_{view}_ANON.dcm", number)
            mlo = "MLO" if view == "ML" else view
            date = "201001" if patient else ("201001" if side == "R" else "200805")
            rows.append(f"removed;removed;{side};{mlo};{date};{number};{'' if patient == 3 else 2};{birads}")
            if birads != "1":
                names = ("Mass", "Calcification", "Espiculated Region", "Assymetry", "Cluster")
                _xml(
                    inside / "AllXML" / f"{number}.xml",
                    [(names[patient % 5], square), ("Calcifications", [(60.0, 60.0)])],
                )
    rows += ["removed;removed;R;CC;201001;99999999;1;2", ";;;;;;;"]  # no such file; an empty line of the spreadsheet
    _dicom(inside / "AllDICOMs" / "30000001_00000000000000aa_MG_L_FB_ANON.dcm", 1)
    rows.append("removed;removed;L;FB;201001;30000001;2;2")
    _dicom(inside / "AllDICOMs" / "30000002_00000000000000ab_MG_L_CC_ANON.dcm", 2)
    rows.append("removed;removed;L;CC;201001;30000002;2;3")  # BI-RADS 3
    _dicom(inside / "AllDICOMs" / "30000003_00000000000000ac_MG_L_CC_ANON.dcm", 3)  # not in the CSV
    (inside / "AllDICOMs" / "30000004_00000000000000ad_MG_L_CC_ANON.dcm").write_bytes(b"broken")
    rows.append("removed;removed;L;CC;201001;30000004;2;2")
    (inside / "AllDICOMs" / "notes.dcm").write_bytes(b"")
    (inside / "AllXML" / f"{20586900 + 3 * 4}.xml").write_text("<plist>")  # cut off
    (inside / "INbreast.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    return root


def test_the_table(tree: Path) -> None:
    table = inbreast.read_table(tree)
    images = {image.image: image for image in table.images}
    reasons = dict(table.rejected)
    assert "AllDICOMs has no file" in reasons["99999999"]
    assert 'BI-RADS "3"' in reasons["30000002"]
    assert "the CSV does not list it" in reasons["30000003"]
    assert "_ANON.dcm" in reasons["notes.dcm"]
    assert images["30000001"].view == "FB"
    first = images["20586903"]
    assert (first.patient_id, first.laterality, first.view, first.pathology) == ("0" * 16, "R", "CC", "NORMAL")
    assert images["20586906"].view == "MLO"
    assert {image.label for image in images.values() if image.patient_id == f"{2:016x}"} == {1}  # 4a
    assert [images[k].lesions for k in ("20586903",)] == [()]  # no XML for a normal image
    malignant = next(image for image in images.values() if image.patient_id == f"{2:016x}")
    assert [(lesion.pathology, lesion.abnormality) for lesion in malignant.lesions] == [
        ("MALIGNANT", "mass"), ("MALIGNANT", "calcification")
    ]  # fmt: skip
    assert malignant.lesions[0].outline[2] == (80.0, 140.0)
    broken = [key for key in reasons if key.endswith(".xml")]
    assert broken
    assert images[broken[0].removesuffix(".xml")].lesions == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Calcification", "calcification"), ("Cluster", "calcification"), ("Mass", "mass"), ("Espiculated Region", "mass"),
     ("Spiculated Region ", "mass"), ("Assymetry", "mass"), ("Distortion", "mass"), ("Unnamed", "")],
)  # fmt: skip
def test_regions_names_however_they_are_spelt(name: str, kind: str) -> None:
    assert inbreast.abnormality(name) == kind


def test_prepared_by_the_command(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prepare", "inbreast", "--source", str(tree), "--data-dir", str(tmp_path), "--size", "96x64"]
    arguments += ["--patch-size", "32", "--crop", "breast", "--keep-aspect"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "0000000000000000" not in printed  # no patient
    facts = {"size": (96, 64), "patch_size": 32, "crop": "breast", "keep_aspect": True, "split": "shen", "seed": 0}
    whole = prepared.find("inbreast", "whole", tmp_path, **facts)
    patients = {split: {row["patient_id"] for row in whole.table(split)} for split in ("train", "val", "test")}
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["val"]
    assert sum(map(len, patients.values())) == 25
    assert 6 <= len(patients["test"]) <= 9  # 30 % of 25, by stratum
    assert {row["exam_id"] for row in whole.table("train") + whole.table("test")} <= {"1", "2"}  # no date
    with (whole.path / "rejected.csv").open(newline="") as file:
        rejected = dict(csv.reader(file))
    assert "30000004" in rejected
    for example in whole.source("train"):
        if example["label"] == 1:
            assert (example["masks"] == 2).any()
            break
    patches = prepared.find("inbreast", "patches_s10", tmp_path, **facts)
    classes = {c for split in patches.facts["counts"].values() for c, n in split.items() if n}
    assert {"background", "malignant_mass", "malignant_calcification", "benign_mass"} <= classes
    assert cli.main([*arguments, "--split", "official"]) == 2
    assert "has no split" in capsys.readouterr().err


def test_what_is_missing_is_said(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(manifest.BadManifest, match=r"INbreast.csv is not in the source folder"):
        inbreast.read_table(tmp_path)
    (tmp_path / "INbreast.csv").write_text("File Name;View\n1;CC\n")
    with pytest.raises(manifest.BadManifest, match=r'lacks the column "Laterality"'):
        inbreast.read_table(tmp_path)
