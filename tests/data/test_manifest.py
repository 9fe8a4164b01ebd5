"""The manifest's rules, and splits by patient that keep the proportion of cancers."""

from pathlib import Path

import pytest

from mammojax.data import manifest
from mammojax.data.manifest import Image

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


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path: Path) -> None:
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
    with pytest.raises(manifest.BadManifest, match="column pathology is missing"):
        _read(tmp_path, "a.dcm", head="image\n")
    with pytest.raises(manifest.BadManifest, match="no such manifest"):
        manifest.read_manifest(tmp_path / "x.csv")
    (tmp_path / "latin.csv").write_bytes("image,pathology\nbröst.dcm,BENIGN\n".encode("latin-1"))
    with pytest.raises(manifest.BadManifest, match="UTF-8"):
        manifest.read_manifest(tmp_path / "latin.csv")
    with pytest.raises(manifest.BadManifest, match="no row can be used"):
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
