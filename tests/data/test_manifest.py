"""The manifest's rules, and splits by patient that keep the proportion of cancers."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from mammojax.data import manifest, phantom
from mammojax.data.manifest import Image
from mammojax.errors import BadManifest

HEAD = "image,patient_id,laterality,view,pathology,abnormality,mask,visible\n"


def _read(folder: Path, *rows: str, head: str = HEAD) -> manifest.Table:
    for name in ("a.dcm", "b.dcm", "m.png"):
        (folder / name).touch()
    (folder / "m.csv").write_text(head + "\n".join(rows))
    return manifest.read_manifest(folder / "m.csv")


def test_an_image_is_as_bad_as_its_worst_row(tmp_path: Path) -> None:
    table = _read(
        tmp_path,
        "a.dcm,P1,left,cc,BENIGN,mass,m.png,",
        "a.dcm,P1,L,CC,MALIGNANT,calcification,m.png,0",
        "b.dcm,P2,,,,,,",
    )
    first, second = table.images
    assert (first.pathology, first.label, first.laterality, first.view) == ("MALIGNANT", 1, "L", "CC")
    assert [(x.pathology, x.abnormality, x.visible) for x in first.lesions] == [
        ("BENIGN", "mass", True), ("MALIGNANT", "calcification", False),
    ]  # fmt: skip
    assert (second.label, second.lesions) == (-1, ())


def test_a_cell_left_empty_is_taken_from_another_row_of_the_image(tmp_path: Path) -> None:
    (image,) = _read(tmp_path, "a.dcm,,,,BENIGN,asymmetry,m.png,", "a.dcm,P1,R,MLO,BENIGN,misc,m.png,").images
    assert (image.patient_id, image.laterality, image.view) == ("P1", "R", "MLO")
    assert [x.abnormality for x in image.lesions] == ["mass", "mass"]


def test_unusable_files_are_listed_with_their_reason(tmp_path: Path) -> None:
    table = _read(
        tmp_path, "a.dcm,P1,L,CC,BENIGN,mass,gone.png,", "gone.dcm,P1,L,CC,BENIGN,,,", "b.dcm,P2,L,CC,CANCER,,,",
        ",P3,L,CC,BENIGN,,,", "b.dcm,P2,X,CC,BENIGN,,,", "b.dcm,P2,L,CC,BENIGN,lump,,",
    )  # fmt: skip
    assert [image.image for image in table.images] == ["a.dcm"]
    reasons = " | ".join(reason for _, reason in table.rejected)
    assert len(table.rejected) == 6
    for words in ("mask of a.dcm", "does not exist", "CANCER", "image is empty", "laterality", "lump"):
        assert words in reasons


def test_a_table_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match="column pathology is missing"):
        _read(tmp_path, "a.dcm", head="image\n")
    with pytest.raises(BadManifest, match="no such manifest"):
        manifest.read_manifest(tmp_path / "x.csv")
    (tmp_path / "latin.csv").write_bytes("image,pathology\nbröst.dcm,BENIGN\n".encode("latin-1"))
    with pytest.raises(BadManifest, match="UTF-8"):
        manifest.read_manifest(tmp_path / "latin.csv")
    with pytest.raises(BadManifest, match="no row can be used"):
        _read(tmp_path, "gone.dcm,P1,L,CC,BENIGN,,,")


def test_splits_are_by_patient_stratified_and_independent_of_order() -> None:
    images = [
        Image(f"{p}_{k}", Path(), f"P{p}", pathology="MALIGNANT" if p % 3 == 0 and k == 0 else "BENIGN")
        for p in range(300) for k in range(1 + p % 4)
    ]  # fmt: skip
    splits = manifest.three_way(images, 0)
    assert splits == manifest.three_way(images[::-1], 0)
    assert splits != manifest.three_way(images, 1)
    assert set(splits) == {f"P{p}" for p in range(300)}
    for name, share in (("test", 0.15), ("val", 0.085), ("train", 0.765)):
        chosen = [int(p[1:]) for p, s in splits.items() if s == name]
        assert len(chosen) == pytest.approx(300 * share, abs=2)
        assert sum(p % 3 == 0 for p in chosen) == pytest.approx(len(chosen) / 3, abs=2)


def test_an_exam_without_patient_id_is_one_patient(tmp_path: Path) -> None:
    table = _read(tmp_path, "a.dcm,E1,BENIGN", "b.dcm,E1,BENIGN", "c.dcm,,BENIGN", head="image,exam_id,pathology\n")
    assert [name for name, _ in table.rejected] == ["c.dcm"]
    assert [image.patient_id for image in table.images] == ["E1", "E1"]
    (tmp_path / "c.dcm").touch()
    images = manifest.read_manifest(tmp_path / "m.csv").images
    assert [image.patient_id for image in images] == ["E1", "E1", "c.dcm"]


def _dicoms(folder: Path, patients: dict[str, str]) -> None:
    for k, (name, patient) in enumerate(patients.items()):
        pixels = np.random.default_rng(k).integers(0, 65536, (60, 50), np.uint16)
        phantom.save_dicom(folder / name, patient, "x", pixels, [pydicom.uid.generate_uid() for _ in range(3)])


def test_without_patient_id_the_headers_are_asked(tmp_path: Path) -> None:
    _dicoms(tmp_path, {"1": "Doe", "2": "Doe", "3": "Roe", "4": "", "5": "Poe", "6": "Poe"})
    rows = ["1,,BENIGN", "2,,BENIGN", "3,E1,BENIGN", "4,E1,BENIGN", "5,E1,BENIGN", "6,,BENIGN"]
    (tmp_path / "m.csv").write_text("image,exam_id,pathology\n" + "\n".join([*rows, "7.png,,NORMAL"]))
    (tmp_path / "7.png").touch()
    images = manifest.read_manifest(tmp_path / "m.csv", id_folder=tmp_path / "x").images
    ids = [image.patient_id for image in images]
    assert ids[0] == ids[1]
    assert ids[2] == ids[3] == ids[4] == ids[5]  # an exam and all that its headers name stay together
    assert ids[6] == "7.png"
    assert len(set(ids)) == 3
    assert not any(name in "".join(ids) for name in ("Doe", "Roe", "Poe"))
    assert all(len(i) == 16 for i in ids[:6])
    other = manifest.read_manifest(tmp_path / "m.csv", id_folder=tmp_path / "y").images
    assert ids[0] != other[0].patient_id
    for seed in range(5):  # another key, the same split
        drawn = [
            [groups[image.patient_id] for image in some]
            for some in (images, other) for groups in [manifest.three_way(some, seed)]
        ]  # fmt: skip
        assert drawn[0] == drawn[1]
    assert [i.patient_id for i in manifest.read_manifest(tmp_path / "m.csv").images[:2]] == ["1", "2"]


def test_an_id_in_the_table_counts_before_the_header(tmp_path: Path) -> None:
    _dicoms(tmp_path, {"1": "Doe", "2": "Doe", "3": "Roe", "4": "Roe", "5": "Roe"})
    rows = ["1,A,BENIGN", "2,,BENIGN", "3,B,BENIGN", "4,C,BENIGN", "5,,BENIGN"]
    (tmp_path / "m.csv").write_text("image,patient_id,pathology\n" + "\n".join(rows))
    table = manifest.read_manifest(tmp_path / "m.csv", id_folder=tmp_path)
    assert {i.image: i.patient_id for i in table.images} == {"1": "A", "2": "A", "3": "B", "4": "C"}
    assert [name for name, _ in table.rejected] == ["5"]  # its header is B's and C's
    assert not (tmp_path / ".id_key").exists()


def test_names_of_one_file_are_one_image(tmp_path: Path) -> None:
    (tmp_path / "link.dcm").symlink_to("a.dcm")
    table = _read(tmp_path, "a.dcm,P1,,,BENIGN,,,", "./a.dcm,P1,,,MALIGNANT,,,", "link.dcm,,L,,,,,", "b.dcm,P2,,,,,,")
    assert [(i.image, i.patient_id, i.pathology, i.laterality) for i in table.images] == [
        ("a.dcm", "P1", "MALIGNANT", "L"), ("b.dcm", "P2", "", ""),
    ]  # fmt: skip
    table = _read(tmp_path, "a.dcm,P1,,,BENIGN,,,", "./a.dcm,P3,,,BENIGN,,,", "b.dcm,P2,,,,,,")
    assert [image.image for image in table.images] == ["b.dcm"]
    assert table.rejected == [("a.dcm", "its rows name different patients")]


@pytest.mark.parametrize(
    ("column", "cell", "other"),
    [("split", "train", "test"), ("laterality", "L", "right"), ("view", "CC", "MLO"), ("exam_id", "1", "2"),
     ("horizontal_flip", "YES", "NO")],
)  # fmt: skip
def test_rows_that_contradict_each_other_are_listed(tmp_path: Path, column: str, cell: str, other: str) -> None:
    head = f"image,pathology,{column}\n"
    table = _read(tmp_path, f"a.dcm,BENIGN,{cell}", f"a.dcm,BENIGN,{other}", "b.dcm,BENIGN,", head=head)
    assert [image.image for image in table.images] == ["b.dcm"]
    ((name, reason),) = table.rejected
    assert name == "a.dcm"
    assert column.removesuffix("_id") in reason
    table = _read(tmp_path, f"a.dcm,BENIGN,{cell}", f"a.dcm,BENIGN,{cell.lower()}", "a.dcm,BENIGN,", head=head)
    assert not table.rejected


def test_birads_and_biopsied_are_the_worst_of_an_image_s_rows(tmp_path: Path) -> None:
    head = "image,pathology,birads,biopsied,vendor\n"
    for categories, expected in (("1 2", "2"), ("0 2 1", "0"), ("0 4A 2", "4A"), ("5 6", "6"), ("1 none", "none")):
        rows = [f"a.dcm,BENIGN,{birads},{k % 2},{k}" for k, birads in enumerate(categories.split())]
        (image,) = _read(tmp_path, *rows, "a.dcm,BENIGN,,,", head=head).images
        assert image.columns == {"birads": expected, "biopsied": "1", "vendor": "0"}


def test_other_words_for_pathologies_are_mapped(tmp_path: Path) -> None:
    words = manifest.read_map("0=benign, 1 = MALIGNANT,Unklar=")
    assert words == {"0": "BENIGN", "1": "MALIGNANT", "unklar": ""}
    assert manifest.read_map("") == {}
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.dcm").touch()
    (tmp_path / "m.csv").write_text("image,pathology\na.dcm,0\nb.dcm,1\nc.dcm,UNKLAR\nd.dcm,NORMAL\n")
    images = manifest.read_manifest(tmp_path / "m.csv", words).images
    assert [image.pathology for image in images] == ["BENIGN", "MALIGNANT", "", "NORMAL"]
    for text, why in (("1=CANCER", '"CANCER" of "1"'), ("1", 'the part "1"'), ("1=BENIGN,1=MALIGNANT", "two meanings")):
        with pytest.raises(BadManifest, match=why):
            manifest.read_map(text)


def test_a_mask_that_is_missing_is_listed_whatever_its_row_says(tmp_path: Path) -> None:
    rows = ("a.dcm,P1,L,CC,,,gone.png,", "b.dcm,P2,L,CC,BENIGN,mass,lost.png,")
    assert [name for name, _ in _read(tmp_path, *rows).rejected] == ["gone.png", "lost.png"]
