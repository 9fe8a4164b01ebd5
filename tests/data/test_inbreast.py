"""INbreast's reader on a small tree in its real shape, with the traps of the real one."""

import csv
import plistlib
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mammojax import cli
from mammojax.data import dataset, inbreast, manifest
from mammojax.data.examples import examples_of
from mammojax.data.recipe import Recipe
from mammojax.errors import BadManifest

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
    """24 patients of two to four images; BI-RADS of all kinds; everything irregular that the real ones have."""
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
    for name in ("notes.dcm", "30000005_00000000000000ae_MG_L_CC_ANON (1).dcm", "._20586903_0_MG_R_CC_ANON.dcm"):
        (inside / "AllDICOMs" / name).write_bytes(b"")
    (inside / "AllDICOMs" / "30000001_00000000000000af_MG_L_FB_ANON.dcm").write_bytes(b"")  # its number again
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
    assert "_ANON.dcm" in reasons["AllDICOMs"]
    assert "_ANON.dcm" in reasons["30000005"]
    assert "several files" in reasons["30000001"]
    assert not any("000000000000" in text for row in table.rejected for text in row)  # no patient
    assert (images["30000001"].view, images["30000001"].patient_id) == ("FB", "00000000000000aa")
    assert {image.density for image in images.values() if image.patient_id == f"{3:016x}"} == {""}
    first = images["20586903"]
    assert (first.patient_id, first.laterality, first.view, first.pathology) == ("0" * 16, "R", "CC", "NORMAL")
    assert images["20586906"].view == "MLO"
    assert {image.label for image in images.values() if image.patient_id == f"{2:016x}"} == {1}  # 4a
    assert first.lesions == ()  # no XML for a normal image
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


def test_birads() -> None:
    """The real set's counts, and how many of its 410 images have a label: the 280 + 107 of Shen et al. 2019."""
    counts = {"1": 67, "2": 220, "3": 23, "4a": 13, "4b": 8, "4c": 22, "5": 49, "6": 8}
    labels = [inbreast.pathology(birads) for birads, n in counts.items() for _ in range(n)]
    assert [labels.count(p) for p in ("NORMAL", "BENIGN", "MALIGNANT", None)] == [67, 220, 100, 23]
    assert len(labels) - labels.count(None) == 280 + 107
    assert [inbreast.pathology(text) for text in ("4A ", "4", "0", "10", "")] == ["MALIGNANT"] * 2 + [None] * 3


@pytest.mark.parametrize(
    ("outline", "size"),
    [(((60, 60),), (15, 15)), (((60, 60),) * 3, (15, 15)), (((60, 60), (80, 60)), (15, 35)),
     (((40, 100), (80, 100), (80, 140), (40, 140)), (41, 41)), (((2, 3),), (11, 10))],
)  # fmt: skip
def test_an_outline_as_a_mask(outline: tuple[tuple[float, float], ...], size: tuple[int, int], tmp_path: Path) -> None:
    _dicom(tmp_path / "a.dcm", 0)
    lesion = manifest.Lesion(None, "MALIGNANT", "calcification", outline=outline)
    image = manifest.Image("a", tmp_path / "a.dcm", "p", pathology="MALIGNANT", lesions=(lesion,))
    (example,), rejected = examples_of(image, Recipe("inbreast", "whole", tmp_path, size=SIZE))
    drawn = cv2.imdecode(np.frombuffer(example["masks"].getvalue(), np.uint8), cv2.IMREAD_UNCHANGED) == 2
    assert (drawn.any(1).sum(), drawn.any(0).sum()) == size
    assert not rejected


def test_prepared_by_the_command(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prepare", "inbreast", "--source", str(tree), "--data-dir", str(tmp_path), "--size", "96x64"]
    arguments += ["--patch-size", "32", "--crop", "breast", "--keep-aspect"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert "000000000000" not in printed.out + printed.err  # no patient
    assert not [path for path in tmp_path.rglob("*") if "000000000000" in path.name]
    facts = {"size": (96, 64), "patch_size": 32, "crop": "breast", "keep_aspect": True, "split": "shen", "seed": 0}
    whole = dataset.find(Recipe("inbreast", "whole", tmp_path, **facts))
    patients = {split: {row["patient_id"] for row in whole.table(split)} for split in ("train", "val", "test")}
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["val"]
    assert not patients["val"] & patients["test"]
    assert sum(map(len, patients.values())) == 25
    assert len(patients["val"]) == 2  # a tenth of the 17 training patients
    assert 6 <= len(patients["test"]) <= 9  # 30 % of 25, by stratum
    assert {row["exam_id"] for row in whole.table("train") + whole.table("test")} <= {"1", "2"}  # no date
    with (whole.path / "rejected.csv").open(newline="") as file:
        rejected = dict(csv.reader(file))
    assert rejected["30000004"].startswith(
        "it is neither DICOM nor PNG"
    )  # and not the file's name: it holds the patient
    mask_values = [np.unique(example["masks"]).tolist() for example in whole.source("train") if example["label"] == 1]
    assert mask_values
    assert all(
        values == [0, 2] for values in mask_values if len(values) > 1
    )  # every lesion of a malignant image is malignant
    assert (
        sum(len(values) > 1 for values in mask_values) >= len(mask_values) - 2
    )  # an image whose XML is cut off shows none
    patches = dataset.find(Recipe("inbreast", "patches_s10", tmp_path, **facts))
    classes = {c for split in patches.facts["counts"].values() for c, n in split.items() if n}
    assert {"background", "malignant_mass", "malignant_calcification", "benign_mass"} <= classes
    assert cli.main([*arguments, "--split", "official"]) == 2
    assert "has no split" in capsys.readouterr().err


def test_a_missing_csv_or_column_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match=r"INbreast.csv is not in the source folder"):
        inbreast.read_table(tmp_path)
    (tmp_path / "INbreast.csv").write_text("File Name;View\n1;CC\n")
    with pytest.raises(BadManifest, match=r'lacks the column "Laterality"'):
        inbreast.read_table(tmp_path)
