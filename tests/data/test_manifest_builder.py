"""From a manifest to splits: no picture and no patient in two of them, whatever files and ids are called."""

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from mammojax import cli
from mammojax.data import dataset, exams, phantom
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.errors import BadDataset, BadManifest, NotPrepared

FACTS = {"size": (16, 16), "patch_size": 8, "crop": "none", "keep_aspect": False, "split": "shen", "seed": 0}


def _pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 65536, (80, 70), np.uint16)


def _png(path: Path, seed: int) -> None:
    cv2.imwrite(str(path), _pixels(seed))


def _dicom(path: Path, patient: str, seed: int) -> None:
    phantom.save_dicom(path, patient, "x", _pixels(seed), [pydicom.uid.generate_uid() for _ in range(3)])


def _prepare(folder: Path, rows: list[str], kind: str = "whole", **how: str) -> dataset.Prepared:
    (folder / "m.csv").write_text("\n".join(rows))
    paths = prepare(Recipe("manifest", kind, folder / "data", folder / "m.csv", **FACTS, **how))
    return dataset.Prepared(paths[-1])


def _splits(data: dataset.Prepared) -> dict[str, str]:
    return {row["image"].split("#")[0]: split for split in ("train", "val", "test") for row in data.table(split)}


def _rejected(data: dataset.Prepared) -> dict[str, str]:
    with (data.path / "rejected.csv").open(newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def test_the_images_of_a_header_s_patient_are_in_one_split(tmp_path: Path) -> None:
    rows = ["image,pathology"]
    for k in range(40):
        _dicom(tmp_path / f"{k:02d}.dcm", f"DOE^{k % 20}", k)
        rows.append(f"{k:02d}.dcm,{'MALIGNANT' if k % 20 < 8 else 'BENIGN'}")
    data = _prepare(tmp_path, rows)
    splits = _splits(data)
    assert all(splits[f"{k:02d}.dcm"] == splits[f"{k + 20:02d}.dcm"] for k in range(20))
    assert set(splits.values()) == {"train", "val", "test"}
    assert "DOE" not in (data.path / "index.csv").read_text()
    assert len({row["patient_id"] for split in ("train", "val", "test") for row in data.table(split)}) == 20
    assert (tmp_path / "data" / ".id_key").is_file()


def test_one_patient_in_every_header_gives_no_split(tmp_path: Path) -> None:
    for k in range(4):
        _dicom(tmp_path / f"{k}.dcm", "TRIAL", k)
    with pytest.raises(BadManifest, match="fill the column patient_id"):
        _prepare(tmp_path, ["image,pathology", *(f"{k}.dcm,BENIGN" for k in range(4))])
    split = [f"{k}.dcm,BENIGN,{'test' if k else 'train'}" for k in range(4)]
    _dicom(tmp_path / "0.dcm", "OTHER", 9)
    assert len(_splits(_prepare(tmp_path, ["image,pathology,split", *split]))) == 4
    with pytest.raises(BadManifest, match=r"one patient in .* as the DICOM header names the patient"):
        _prepare(tmp_path, ["image,pathology,split", *split[:3], "3.dcm,BENIGN,train"])


def test_a_copy_under_another_name_is_not_in_another_split(tmp_path: Path) -> None:
    for k in range(8):
        _png(tmp_path / f"{k}.png", k)
    for copy, of in (("c0", 0), ("c1", 1), ("c2", 2)):
        shutil.copy(tmp_path / f"{of}.png", tmp_path / f"{copy}.png")
    rows = ["image,patient_id,pathology"]
    rows += [f"{k}.png,{'' if k == 0 else f'P{k}'},{'MALIGNANT' if k < 4 else 'BENIGN'}" for k in range(8)]
    rows += ["c0.png,,MALIGNANT", "c1.png,P9,MALIGNANT", "c2.png,P2,MALIGNANT"]
    data = _prepare(tmp_path, rows)
    splits, rejected = _splits(data), _rejected(data)
    assert "0.png" in splits  # of nobody, as its copy is: the first is used
    assert rejected["c0.png"] == "its file is the same as 0.png, which is used"
    assert not {"1.png", "c1.png"} & set(splits)  # P1 or P9?
    assert "whose patient or pathology is another" in rejected["1.png"]
    assert "c1.png" in rejected
    assert splits["2.png"] == splits["c2.png"]  # both of P2


@pytest.mark.parametrize("kind", ["whole", "patches_s1"])
def test_equal_pixels_in_different_files_are_not_in_two_splits(tmp_path: Path, kind: str) -> None:
    """A mammogram made anonymous twice: only its pixels tell."""
    mask = np.zeros((80, 70), np.uint8)
    mask[20:40, 20:35] = 255
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    rows = ["image,patient_id,pathology,abnormality,mask,split"]
    for k, split in enumerate(["train", "train", "val", "test", "test"]):
        _dicom(tmp_path / f"{k}.dcm", f"P{k}", 1 if k == 4 else k)
        rows.append(f"{k}.dcm,P{k},{'MALIGNANT' if k % 2 else 'BENIGN'},mass,m.png,{split}")
    data = _prepare(tmp_path, rows, kind)
    assert _splits(data) == {"0.dcm": "train", "1.dcm": "train", "2.dcm": "val", "3.dcm": "test"}
    assert _rejected(data)["4.dcm"] == "its pixels are those of 1.dcm, another patient's in train"


def test_a_lesion_without_mask_is_listed_for_whole_images_too(tmp_path: Path) -> None:
    rows = ["image,pathology,abnormality,mask,split"]
    for k, (cells, split) in enumerate([(",", "train"), ("mass,gone.png", "train"), ("mass,", "val"), (",", "test")]):
        _png(tmp_path / f"{k}.png", k)
        rows.append(f"{k}.png,BENIGN,{cells},{split}")
    data = _prepare(tmp_path, rows)
    assert len(_splits(data)) == 4
    rejected = _rejected(data)
    assert set(rejected) == {"gone.png", "1.png", "2.png"}
    assert "without mask" in rejected["1.png"]


def test_labels_by_a_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["image,pathology,split", "0.png,0,train", "1.png,1,train", "2.png,1,val", "3.png,0,test"]
    for k in range(4):
        _png(tmp_path / f"{k}.png", k)
    (tmp_path / "m.csv").write_text("\n".join(rows))
    with pytest.raises(BadManifest, match=r'pathology is "0".*by a map'):
        _prepare(tmp_path, rows)
    command = ["prepare", "manifest", "--source", str(tmp_path / "m.csv"), "--data-dir", str(tmp_path / "data"),
               "--kinds", "whole", "--size", "16x16"]  # fmt: skip
    assert cli.main([*command, "--map", "0=BENIGN,1=MALIGNANT"]) == 0
    data = dataset.Prepared(capsys.readouterr().out.splitlines()[-1])
    assert data.labels("train").tolist() == [0, 1]
    assert data.facts["map"] == "0=BENIGN,1=MALIGNANT"
    asked = {**FACTS, "source": str(tmp_path / "m.csv"), "name": "manifest", "kind": "whole", "data_dir": "x"}
    with pytest.raises(NotPrepared, match="--map 0=BENIGN,1=MALIGNANT"):
        dataset.find(Recipe.of_run({"data": {**asked, "map": "0=BENIGN,1=MALIGNANT"}}, tmp_path))
    found = {**asked, "data_dir": str(tmp_path / "data"), "map": "1=MALIGNANT,0=benign"}
    assert dataset.find(Recipe.of_run({"data": found}, tmp_path)).path == data.path
    other = _prepare(tmp_path, rows, label_map="0=MALIGNANT,1=BENIGN")
    assert other.path != data.path
    assert other.labels("train").tolist() == [1, 0]
    assert cli.main([*command, "--map", "1=CANCER"]) == 2
    assert '"CANCER"' in capsys.readouterr().err
    with pytest.raises(BadDataset, match="a manifest's words"):
        Recipe("cbis_ddsm", "whole", tmp_path / "data", tmp_path, label_map="0=BENIGN", **FACTS)


def test_breasts_columns_are_the_worst_of_their_images() -> None:
    facts = '{"benign": 0, "malignant": 0, "columns": {"birads": "%s", "biopsied": "%s", "vendor": "%s"}}'
    rows = [
        {"exam_id": "e", "patient_id": "p", "laterality": "L", "view": view, "facts": facts % said}
        for view, said in (("CC", ("1", "0", "A")), ("MLO", ("0", "1", "B")))
    ]

    class Data:
        def table(self, split: str) -> list[dict[str, str]]:
            return rows

    (exam,) = exams.exams_of(Data(), "train")  # type: ignore[arg-type]
    assert exam.columns["L"] == {"birads": "0", "biopsied": "1", "vendor": "A"}
    assert exam.biopsied("L")
