"""From a source to splits: no picture and no patient in two of them, whatever files and ids are called."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from ml_collections import ConfigDict

from mammojax import cli
from mammojax.data import dataset, exams, phantom
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.errors import BadDataset, BadManifest, NotPrepared, UserError
from tests.test_extension import examples

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
    settings = {**FACTS, "source": str(tmp_path / "m.csv"), "name": "manifest", "kind": "whole", "data_dir": "x"}
    with pytest.raises(NotPrepared, match="--map 0=BENIGN,1=MALIGNANT"):
        dataset.find(Recipe.of_run({"data": {**settings, "map": "0=BENIGN,1=MALIGNANT"}}, tmp_path))
    same_settings = {**settings, "data_dir": str(tmp_path / "data"), "map": "1=MALIGNANT,0=benign"}
    assert dataset.find(Recipe.of_run({"data": same_settings}, tmp_path)).path == data.path
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
        {"exam_id": "e", "patient_id": "p", "laterality": "L", "view": view, "facts": facts % cells}
        for view, cells in (("CC", ("1", "0", "A")), ("MLO", ("0", "1", "B")))
    ]

    class Data:
        def table(self, split: str) -> list[dict[str, str]]:
            return rows

    (exam,) = exams.exams_of(Data(), "train")  # type: ignore[arg-type]
    assert exam.columns["L"] == {"birads": "0", "biopsied": "1", "vendor": "A"}
    assert exam.biopsied("L")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples of docs/extend.md on the path, and the folder that they read."""
    examples(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "source"
    (source / "outlines").mkdir(parents=True)
    mask = np.zeros((80, 70), np.uint8)
    mask[20:50, 20:45] = 255
    rows = ["file,woman,side,angle,biopsy"]
    for k in range(24):
        _png(source / f"{k:02d}.png", k)
        cv2.imwrite(str(source / "outlines" / f"{k:02d}.png"), mask)
        rows.append(f"{k:02d}.png,w{k // 2},{'LR'[k % 2]},CC,{'positive' if k % 4 < 2 else 'negative'}")
    (source / "reads.csv").write_text("\n".join(rows))
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        images, labels = rng.integers(0, 65536, (count, 16, 12), np.uint16), np.arange(count) % 2
        np.savez(source / split, images=images, labels=labels)
    return source


def test_a_function_outside_is_a_data_set_like_any_other(
    outside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prepare", "my_rows:rows", "--source", str(outside), "--data-dir", str(tmp_path / "data")]
    command += ["--kinds", "whole,patches_s1,exams", "--size", "16x16", "--patch-size", "8", "--iterations", "3"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("prepared my_rows:rows/whole_shen_16x16_s0: train ")
    assert printed[-3:] == [
        str(tmp_path / "data" / "my_rows_rows" / name / "1.0.0")
        for name in ("whole_shen_16x16_s0", "patches_s1_shen_16x16_p8_s0", "exams_shen_tautoi3_s0")
    ]
    config = ConfigDict(
        {"name": "my_rows:rows", "kind": "whole", "data_dir": str(tmp_path / "data"), "source": str(outside), "map": "",
         "size": (16, 16), "crop": "none", "keep_aspect": False, "patch_size": 8, "split": "shen", "seed": 0}
    )  # fmt: skip
    recipe = Recipe.of_run({"data": config}, tmp_path)
    whole = dataset.find(recipe)
    assert whole.facts["name"] == "my_rows:rows"
    splits = _splits(whole)
    assert len(splits) == 24
    assert all(splits[f"{k:02d}.png"] == splits[f"{k + 1:02d}.png"] for k in range(0, 24, 2))  # a woman's two
    assert {v for e in whole.source("train") for v in np.unique(e["masks"])} == {0, 1, 2}
    patches = dataset.find(recipe.of_kind("patches_s1"))
    assert patches.facts["mean"] == whole.facts["mean"]
    (exam, *_) = exams.exams_of(dataset.find(replace(recipe, kind="exams", iterations=3)), "train")
    assert set(exam.images) == {"L-CC", "R-CC"}
    assert cli.main(command) == 0  # and does nothing
    assert "prepared" not in capsys.readouterr().out
    rows = (outside / "reads.csv").read_text().splitlines()
    (outside / "reads.csv").write_text("\n".join(rows[:-2]))
    assert cli.main(command) == 2
    assert "my_rows:rows/whole_shen_16x16_s0 was prepared from other rows than it gives" in capsys.readouterr().err
    with pytest.raises(
        NotPrepared, match=r"run: mammojax prepare my_rows:rows --source \S+ --data-dir \S+ --kinds whole "
    ):
        dataset.find(replace(recipe, seed=1))


def test_a_builder_outside_makes_its_examples_itself(outside: Path, tmp_path: Path) -> None:
    recipe = Recipe("my_builder:Arrays", "whole", tmp_path / "data", outside, size=(16, 12))
    (path,) = prepare(recipe)
    assert path == tmp_path / "data" / "my_builder_Arrays" / "whole_shen_16x12_s0" / "1.0.0"
    data = dataset.Prepared(path)
    assert [len(data.table(split)) for split in ("train", "val", "test")] == [6, 2, 3]
    assert data.facts["counts"]["test"] == {"not malignant": 2, "malignant": 1}
    images = np.load(outside / "train.npz")["images"]
    np.testing.assert_array_equal(data.source("train")[4]["image"][..., 0], images[4])
    assert data.facts["mean"] == pytest.approx(images.mean() * 255 / 65535)
    stamp = (path / "index.csv").stat().st_mtime_ns
    assert prepare(recipe) == [path]
    assert (path / "index.csv").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere:rows", r'config\.data\.name: "nowhere" cannot be imported'),
        ("wrong:nothing", 'the module "wrong" has no "nothing"'),
        ("wrong:NUMBER", '"wrong:NUMBER" is neither a function that gives rows'),
        ("wrong:NoBuilder", '"wrong:NoBuilder" is neither a function that gives rows'),
        ("wrong:texts", '"wrong:texts" is neither a function that gives rows'),
        ("wrong:one", '"wrong:one" is neither a function that gives rows'),
        ("wrong:none", "wrong:none: it gives no rows"),
        ("wrong:nobody", r"wrong:nobody: of the image 'a' image or patient_id is empty"),
        ("wrong:worst", r"""wrong:worst: of the image 'a' pathology is "malignant"; write NORMAL"""),
        ("wrong:lesion", r"""wrong:lesion: of the image 'a' a lesion's pathology is "NORMAL"; write BENIGN"""),
        ("wrong:split", r"""wrong:split: of the image 'a' split is "dev"; write train"""),
        ("wrong:twice", "wrong:twice: two images are called 'a'"),
        ("wrong:halved", r"the split of its rows puts one patient in test and train \(see a\)"),
        ("wrong:Plain", r"wrong:Plain: its examples lack exam_id, image_id, laterality, patient_id, view"),
        ("../up", r'there is no data set "\.\./up"; write cbis_ddsm, .* or package\.module:function'),
    ],
)
def test_a_bad_data_set_is_one_sentence(name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=words):
        prepare(Recipe(name, "whole", tmp_path / "data", tmp_path, size=(16, 16)))
    assert not list((tmp_path / "data").rglob("dataset.json"))


WRONG = """
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from mammojax.data.manifest import Image, Lesion

NUMBER = 7
a = {"image": "a", "path": Path("a"), "patient_id": "p"}


class NoBuilder:
    pass


def texts(source): return ["a.png"]
def one(source): return Image(**a)
def none(source): return []
def nobody(source): return [Image(**a | {"patient_id": ""})]
def worst(source): return [Image(**a, pathology="malignant")]
def lesion(source): return [Image(**a, lesions=(Lesion(None, "NORMAL", "mass"),))]
def split(source): return [Image(**a, split="dev")]
def twice(source): return [Image(**a), Image(**a | {"patient_id": "q"})]
def halved(source): return [Image(**a, split="test"), Image(**a | {"image": "b"}, split="train")]


class Plain(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    def _info(self):
        image = tfds.features.Image(shape=(16, 16, 1), dtype=np.uint8)
        features = {"image": image, "label": tfds.features.Scalar(np.int64)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {}

    def _generate_examples(self):
        yield from ()
"""
