"""prepare: once, whatever the workers, clean after an interruption; nothing is lost in silence."""

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mammojax.data import dataset, examples, phantom, shards
from mammojax.data.manifest import Image
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.errors import BadDataset, BadManifest, NotPrepared
from mammojax.vocabulary import PATCH_CLASSES

FACTS = {"size": (96, 64), "patch_size": 32, "crop": "none", "keep_aspect": False, "split": "all", "seed": 0}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom tree of 20 patients."""
    folder = tmp_path_factory.mktemp("source")
    phantom.write_phantom(folder, patients=20, image_size=(192, 128))
    return folder


def _examples(path: Path, split: str = "train") -> list[dict]:
    return list(dataset.Prepared(path).source(split))


def test_a_second_time_does_nothing_and_workers_change_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = prepare(Recipe("cbis_ddsm", "patches_s10", tmp_path / "1", source, **FACTS))
    stamp = [p.stat().st_mtime_ns for path in first for p in sorted(path.iterdir())]
    assert str(source) not in capsys.readouterr().out
    assert prepare(Recipe("cbis_ddsm", "patches_s10", tmp_path / "1", source, **FACTS)) == first
    assert stamp == [p.stat().st_mtime_ns for path in first for p in sorted(path.iterdir())]
    two = prepare(Recipe("cbis_ddsm", "patches_s10", tmp_path / "2", source, **FACTS), workers=2)
    for a, b in zip(first, two, strict=True):
        assert (a / "index.csv").read_bytes() == (b / "index.csv").read_bytes()
        assert (a / "dataset.json").read_bytes() == (b / "dataset.json").read_bytes()
        for x, y in zip(_examples(a), _examples(b), strict=True):
            np.testing.assert_array_equal(x["image"], y["image"])


def test_the_facts_that_a_run_needs_are_written(source: Path, tmp_path: Path) -> None:
    whole_path, patch_path = prepare(Recipe("cbis_ddsm", "patches_s1", tmp_path, source, **FACTS))
    whole, patches = dataset.Prepared(whole_path), dataset.Prepared(patch_path)
    owners = {s: {row["patient_id"] for row in whole.table(s)} for s in ("train", "val", "test")}
    assert not owners["train"] & owners["test"]
    assert not owners["train"] & owners["val"]
    assert not owners["val"] & owners["test"]
    examples = _examples(whole_path)
    assert examples[0]["image"].dtype == np.uint16
    assert examples[0]["image"].shape == (96, 64, 1)
    assert {v for e in examples for v in np.unique(e["masks"])} == {0, 1, 2}
    for row, example in zip(whole.table("train"), examples, strict=True):
        assert row["image"] == example["image_id"].decode()
        assert int(row["label"]) == example["label"] == int((example["masks"] == 2).any())
    mean = np.mean([e["image"].mean() for e in examples]) * 255 / 65535
    assert whole.facts["mean"] == pytest.approx(mean)
    assert patches.facts["mean"] == whole.facts["mean"]
    assert patches.facts["classes"] == list(PATCH_CLASSES)
    for split in ("train", "val", "test"):
        assert {row["patient_id"] for row in patches.table(split)} <= owners[split]
    assert sum(patches.facts["counts"]["train"].values()) == len(patches.labels("train"))


def test_an_interrupted_one_leaves_nothing_half(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = shards.examples_of, itertools.count()

    def killed(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 9:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(shards, "examples_of", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(Recipe("cbis_ddsm", "whole", tmp_path, source, **FACTS))
    monkeypatch.undo()
    (path,) = prepare(Recipe("cbis_ddsm", "whole", tmp_path, source, **FACTS))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    expected = (path / "index.csv").read_bytes()
    (path / "dataset.json").unlink()  # killed before the last file was written
    (path / "index.csv").write_text("half")
    with pytest.raises(NotPrepared, match="mammojax prepare cbis_ddsm"):
        dataset.find(Recipe("cbis_ddsm", "whole", tmp_path, **FACTS))
    prepare(Recipe("cbis_ddsm", "whole", tmp_path, source, **FACTS))
    assert (path / "index.csv").read_bytes() == expected


def test_another_download_is_not_passed_off_as_the_first(source: Path, tmp_path: Path) -> None:
    prepare(Recipe("cbis_ddsm", "whole", tmp_path, source, **FACTS))
    other = tmp_path / "other"
    phantom.write_phantom(other, patients=4, image_size=(192, 128), seed=9)
    with pytest.raises(BadDataset, match="other CSVs"):
        prepare(Recipe("cbis_ddsm", "whole", tmp_path, other, **FACTS))


def test_a_bad_request_is_one_sentence(source: Path, tmp_path: Path) -> None:
    for wrong, words in (
        ({"split": "mine"}, "no split"),
        ({"patch_size": 0}, "show nothing"),
        ({"size": (0, 9)}, "0x9"),
    ):
        with pytest.raises(BadDataset, match=words):
            prepare(Recipe("cbis_ddsm", "whole", tmp_path, source, **FACTS | wrong))
    with pytest.raises(BadDataset, match='kind "x"'):
        prepare(Recipe("cbis_ddsm", "x", tmp_path, source, **FACTS))
    with pytest.raises(NotPrepared, match=r"run: mammojax prepare phantom --data-dir \S+ --kinds whole"):
        dataset.find(Recipe("phantom", "whole", tmp_path, **FACTS))


def test_broken_files_are_listed_and_skipped(source: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(source, tree)
    full = sorted(p for p in tree.rglob("*.dcm") if p.stat().st_size > 40_000)
    full[0].write_bytes(b"no image")
    (path,) = prepare(Recipe("cbis_ddsm", "whole", tmp_path / "data", tree, **FACTS))
    rejected = (path / "rejected.csv").read_text()
    assert "neither DICOM nor PNG" in rejected
    assert dataset.Prepared(path).facts["rejected"] == 1


def test_a_header_that_pydicom_chokes_on_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def choke(path: Path) -> None:
        raise NotImplementedError("Unknown Value Representation")

    monkeypatch.setattr(examples, "read_mammogram", choke)
    image = Image("a.dcm", tmp_path / "a.dcm", "P1")
    prepared, rejected = examples.examples_of(image, Recipe("manifest", "whole", tmp_path, **FACTS))
    assert prepared == []
    assert rejected == [("a.dcm", "it cannot be read (NotImplementedError); get the file again")]


def test_a_manifest_with_splits_of_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["image,patient_id,pathology,abnormality,mask,split"]
    for k, split in enumerate(["train", "train", "val", "test"]):
        cv2.imwrite(str(tmp_path / f"{k}.png"), rng.integers(0, 65536, (60, 50), np.uint16))
        mask = np.zeros((60, 50), np.uint8)
        mask[20:40, 20:35] = 255
        cv2.imwrite(str(tmp_path / f"m{k}.png"), mask)
        rows.append(f"{k}.png,P{k},{'MALIGNANT' if k % 2 else 'BENIGN'},mass,m{k}.png,{split}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    paths = prepare(Recipe("manifest", "whole", tmp_path / "data", tmp_path, **FACTS), ("whole", "patches_s1"))
    whole = dataset.Prepared(paths[0])
    assert [len(whole.table(s)) for s in ("train", "val", "test")] == [2, 1, 1]
    # In train and val a label is needed; a lesion of no known kind or without its mask gives no patches.
    more = [
        *rows,
        "4.png,P4,,,,train",
        "5.png,P5,,,,test",
        "1.png,P1,BENIGN,mass,,train",
        "6.png,P6,BENIGN,,m0.png,train",
    ]
    for k in (4, 5, 6):
        cv2.imwrite(str(tmp_path / f"{k}.png"), rng.integers(0, 65536, (60, 50), np.uint16))
    (tmp_path / "manifest.csv").write_text("\n".join(more))
    paths = prepare(Recipe("manifest", "whole", tmp_path / "data", tmp_path, **FACTS), ("whole", "patches_s10"))
    whole, patches = (dataset.Prepared(path) for path in paths)
    assert [row["image"] for row in whole.table("train")] == ["0.png", "1.png", "6.png"]
    assert list(whole.labels("test")) == [1, -1]
    assert "4.png,its pathology is empty" in (whole.path / "rejected.csv").read_text()
    assert (whole.facts["rejected"], whole.facts["remarks"]) == (1, 1)  # 1.png is used, one lesion has no outline
    names = [row["image"].split("#")[0] for row in patches.table("train")]
    assert (names.count("0.png"), names.count("1.png"), names.count("6.png")) == (20, 10, 0)
    reasons = (patches.path / "rejected.csv").read_text()
    assert "6.png,a lesion without abnormality" in reasons
    assert "1.png,one of its lesions has no mask" in reasons
    (tmp_path / "manifest.csv").write_text("\n".join(rows).replace("P3", "P0"))
    with pytest.raises(BadManifest, match=r"one patient in"):
        prepare(Recipe("manifest", "whole", tmp_path / "data", tmp_path, **FACTS))
    with pytest.raises(BadDataset, match="no manifest"):
        prepare(Recipe("manifest", "whole", tmp_path / "data", tmp_path / "x", **FACTS))


def test_lesions_of_one_type(tmp_path: Path) -> None:
    """`one_type`: those of all types, and those without one, give the patches that as many masses give."""
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 50), np.uint8)
    mask[20:40, 20:35] = 255
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    kinds = ["MALIGNANT,calcification", "BENIGN,mass", "BENIGN,calcification", "MALIGNANT,", "BENIGN,"]
    for k in range(len(kinds)):
        cv2.imwrite(str(tmp_path / f"{k}.png"), rng.integers(0, 65536, (60, 50), np.uint16))

    def patches_of(name: str, kinds: list[str], **more: bool) -> dataset.Prepared:
        rows = [f"{k}.png,P{k},{kind},m.png,train" for k, kind in enumerate(kinds)]
        text = "\n".join(["image,patient_id,pathology,abnormality,mask,split", *rows])
        (tmp_path / name).write_text(text)
        recipe = Recipe("manifest", "whole", tmp_path / "data", tmp_path / name, **FACTS, **more)
        return dataset.Prepared(prepare(recipe, ("whole", "patches_jittered"))[1])

    both = patches_of("both.csv", kinds)
    alike = patches_of("both.csv", kinds, one_type=True)
    masses = patches_of("masses.csv", [kind.split(",")[0] + ",mass" for kind in kinds])
    assert set(both.labels("train")) == {0, 2, 3, 4}
    assert "3.png,a lesion without abnormality" in (both.path / "rejected.csv").read_text()
    assert list(alike.labels("train")) == list(masses.labels("train"))
    assert list(np.bincount(alike.labels("train"))[1:]) == [20, 30]
    for k in range(len(alike.labels("train"))):
        np.testing.assert_array_equal(alike.source("train")[k]["image"], masses.source("train")[k]["image"])
    assert alike.facts["one_type"] is True
    assert alike.facts["rejected"] == 0


def test_whoever_comes_second_waits_and_finds_it_made(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare_again(_: int) -> list[Path]:
        return prepare(Recipe("phantom", "whole", tmp_path, source, **FACTS))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(prepare_again, range(2))
    assert first == second
    assert capsys.readouterr().out.count("prepared phantom/") == 1


def test_masks_need_not_be_decoded(source: Path, tmp_path: Path) -> None:
    (path,) = prepare(Recipe("phantom", "whole", tmp_path, source, **FACTS))
    data = dataset.Prepared(path)
    with_masks, without_masks = data.source("train")[3], data.source("train", masks=False)[3]
    assert with_masks["masks"].shape == (96, 64, 1)
    assert isinstance(without_masks["masks"], bytes)
    np.testing.assert_array_equal(with_masks["image"], without_masks["image"])


@pytest.mark.parametrize("name", ["phantom", "phantom_exams"])
def test_a_folder_that_is_no_phantom_is_never_removed(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years")
    recipe = Recipe(name, "whole" if name == "phantom" else "exams", tmp_path / "data", tmp_path / "mine", split="all")
    with pytest.raises(BadDataset, match="holds something else than a complete phantom; name a new folder"):
        prepare(recipe, (recipe.kind,), 1)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "three years"
