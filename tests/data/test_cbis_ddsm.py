"""The CBIS-DDSM reader on the four real CSVs, and on real film in its on-disk shape with all its oddities."""

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mammojax.data import cbis_ddsm, manifest
from mammojax.data.dicom import read_mask
from mammojax.errors import BadManifest


def test_counts_of_the_real_csvs(shared: Path) -> None:
    rows = cbis_ddsm.read_rows(shared / "data" / "cbis_csv")
    expected = {
        ("mass", "train"): (1318, 691, 1231),
        ("mass", "test"): (378, 201, 361),
        ("calcification", "train"): (1546, 602, 1227),
        ("calcification", "test"): (326, 151, 284),
    }
    for (kind, half), counts in expected.items():
        some = [r for r in rows if (r.abnormality, r.official) == (kind, half)]
        assert (len(some), len({r.patient for r in some}), len(cbis_ddsm.views(some))) == counts
    assert len(rows) == 3568
    assert len({r.patient for r in rows}) == 1566
    malignant = Counter((r.abnormality, r.official) for r in rows if r.pathology == "MALIGNANT")
    assert [malignant[key] for key in expected] == [637, 147, 544, 129]
    both = {r.patient for r in rows if r.official == "train"} & {r.patient for r in rows if r.official == "test"}
    assert len(both) == 31
    halves = cbis_ddsm.official_halves(rows)
    assert Counter(halves[patient] for patient, _, _ in cbis_ddsm.views(rows)) == {"train": 2441, "test": 591}
    assert all(halves[patient] == "train" for patient in both)


def test_splits_of_the_real_csvs(shared: Path) -> None:
    rows = cbis_ddsm.read_rows(shared / "data" / "cbis_csv")
    halves = cbis_ddsm.official_halves(rows)
    images = [
        manifest.Image("/".join(key), Path(), key[0], pathology=manifest.worst(r.pathology for r in group))
        for key, group in cbis_ddsm.views(rows).items()
    ]
    official = cbis_ddsm.splits(rows, images, "official", 0)
    assert {p for p, s in official.items() if s == "test"} == {p for p, h in halves.items() if h == "test"}
    shen = cbis_ddsm.splits(rows, images, "shen", 0)
    assert set(shen) == {p for p, h in halves.items() if h == "train"}
    counts = Counter(shen[i.patient_id] for i in images if i.patient_id in shen)
    assert counts["train"] == pytest.approx(1903, rel=0.05)  # the authors' own: 1903, 199, 376
    assert counts["test"] == pytest.approx(376, rel=0.1)
    assert set(cbis_ddsm.splits(rows, images, "all", 0)) == set(halves)


def test_every_row_of_the_real_tree_finds_its_image_and_its_mask(shared: Path) -> None:
    source = shared / "data" / "mias_as_cbis"
    rows = cbis_ddsm.read_rows(source)
    table = cbis_ddsm.read_tree(source, rows)
    assert not table.rejected
    assert len(table.images) == len(cbis_ddsm.views(rows))
    assert sum(len(image.lesions) for image in table.images) == len(rows)
    for image in table.images:
        for lesion in image.lesions:
            mask = read_mask(lesion.mask)
            assert len(np.unique(mask)) == 2
            assert mask.size > 500_000  # the mask's size is the image's, a crop's is a lesion's


def test_missing_files_are_listed(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "mias_as_cbis"
    for name in cbis_ddsm.CSVS.values():
        (tmp_path / name).write_bytes((source / name).read_bytes())
    rows = cbis_ddsm.read_rows(tmp_path)
    with pytest.raises(BadManifest, match="none of the"):
        cbis_ddsm.read_tree(tmp_path, rows)
    folders = sorted((source / "CBIS-DDSM").iterdir())
    kept = [folder for k, folder in enumerate(folders) if k % 3]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for folder in kept:
        (tmp_path / "deep" / "er" / folder.name).symlink_to(folder)
    (tmp_path / "deep" / "er" / "again").symlink_to(tmp_path)  # a loop
    table = cbis_ddsm.read_tree(tmp_path, rows)
    reasons, usable = dict(table.rejected), {folder.name for folder in kept}
    views = cbis_ddsm.views(rows).values()
    complete = [group for group in views if {row.image_folder for row in group} & usable]
    assert 0 < len(table.images) == len(complete) < len(views)
    for group in views:
        for row in group:
            if group not in complete:
                assert "full mammogram is not" in reasons[row.lesion_folder]
            else:
                assert ("no mask" in reasons.get(row.lesion_folder, "")) == (row.lesion_folder not in usable)
    (tmp_path / "mass_case_description_test_set.csv").unlink()
    with pytest.raises(BadManifest, match="mass_case_description_test_set"):
        cbis_ddsm.read_rows(tmp_path)


HEADER = "patient_id,breast density,left or right breast,image view,pathology,image file path,ROI mask file path\n"
NAME = "Mass-Training_P_00001_LEFT_CC"


def _source(
    folder: Path, *pathologies: str, lesion: dict[str, np.ndarray], described: dict[str, str] | None = None
) -> Path:
    """One view of 40 x 30 with as many lesions; the files of the first are given, and perhaps their descriptions."""
    for name in cbis_ddsm.CSVS.values():
        (folder / name).write_text(HEADER)
    lines = [
        f'P_00001,2,LEFT,CC,{pathology},{NAME}/1/000000.dcm,"{NAME}_{k}/1/000001.dcm\n"\n'
        for k, pathology in enumerate(pathologies, start=1)
    ]
    (folder / cbis_ddsm.CSVS["mass", "train"]).write_text(HEADER + "".join(lines))
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    files = {f"{NAME}/1/000000.dcm": noise} | {f"{NAME}_1/{name}": pixels for name, pixels in lesion.items()}
    for path, pixels in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        header = pydicom.Dataset()
        if text := (described or {}).get(path.removeprefix(f"{NAME}_1/")):
            header.SeriesDescription = text
        header.SOPClassUID, header.PhotometricInterpretation = "1.2.840.10008.5.1.4.1.1.7", "MONOCHROME2"
        header.Rows, header.Columns = pixels.shape
        header.BitsAllocated = header.BitsStored = 8
        header.HighBit, header.PixelRepresentation, header.SamplesPerPixel = 7, 0, 1
        header.PixelData = pixels.tobytes()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.SOPInstanceUID = pydicom.uid.generate_uid()
        header.save_as(folder / path, enforce_file_format=True)
    return folder


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"1/1-1.dcm": (80, 60), "1/1-2.dcm": (10, 12)}, "1/1-1.dcm"),  # of twice its image's size
        ({"1/000000.dcm": (10, 12), "1/000001.dcm": (40, 30)}, "1/000001.dcm"),  # the first is the crop
        ({"1/000000.dcm": (40, 30), "2/000000.dcm": (10, 12)}, "1/000000.dcm"),  # each in a series of its own
        ({"1/1-1.dcm": (42, 31), "1/1-2.dcm": (10, 12)}, "1/1-1.dcm"),  # another size than the image
        ({"1/1-1.dcm": (10, 12)}, ""),  # a crop alone is no mask
    ],
)
def test_mask_and_crop_without_a_description(tmp_path: Path, shapes: dict, expected: str) -> None:
    rng = np.random.default_rng(0)
    files = {
        name: np.where(rng.random(shape) < 0.2, 255, 0).astype(np.uint8) if shape[0] >= 40
        else rng.integers(0, 256, shape, np.uint8)
        for name, shape in shapes.items()
    }  # fmt: skip
    source = _source(tmp_path, "BENIGN", lesion=files)
    (image,) = cbis_ddsm.read_tree(source, cbis_ddsm.read_rows(source)).images
    assert image.lesions[0].mask == (source / f"{NAME}_1" / expected if expected else None)


def test_an_unknown_pathology_is_listed_and_never_benign(tmp_path: Path) -> None:
    source = _source(tmp_path, "", "MALIGNANT", "BENIGN_WITHOUT_CALLBACK", lesion={})
    table = cbis_ddsm.read_tree(source, cbis_ddsm.read_rows(source))
    assert [lesion.pathology for lesion in table.images[0].lesions] == ["MALIGNANT", "BENIGN"]
    assert "pathology" in dict(table.rejected)[f"{NAME}_1"]


def _lesion_files(mask: tuple[int, int], crop: tuple[int, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    drawn = np.zeros(mask, np.uint8)
    drawn[5:12, 4:14] = 255
    return {"1/1-1.dcm": rng.integers(1, 256, crop, np.uint8), "2/1-1.dcm": drawn}


@pytest.mark.parametrize("size", [(40, 30), (42, 31), (44, 33)])
def test_swapped_descriptions_do_not_make_a_mask_of_a_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    """The crop is described as mask and the mask as crop: size and values decide."""
    described = {"1/1-1.dcm": "ROI mask images", "2/1-1.dcm": "cropped images"}
    source = _source(tmp_path, "MALIGNANT", lesion=_lesion_files(size, (7, 10)), described=described)
    table = cbis_ddsm.read_tree(source, cbis_ddsm.read_rows(source))
    assert table.images[0].lesions[0].mask == source / f"{NAME}_1" / "2/1-1.dcm"
    assert not table.rejected


def test_a_gray_image_of_the_mammogram_s_size_is_no_mask(tmp_path: Path) -> None:
    source = _source(
        tmp_path, "MALIGNANT", lesion={"1/1-1.dcm": np.random.default_rng(1).integers(1, 256, (42, 31), np.uint8)},
        described={"1/1-1.dcm": "ROI mask images"},
    )  # fmt: skip
    table = cbis_ddsm.read_tree(source, cbis_ddsm.read_rows(source))
    assert table.images[0].lesions[0].mask is None
    assert "none has its mammogram's size or aspect, and two values" in dict(table.rejected)[f"{NAME}_1"]


def test_ambiguous_files_are_listed_and_not_used(tmp_path: Path) -> None:
    """Two masks of a lesion, then two full mammograms; a copy of a file is no second one."""
    files = _lesion_files((40, 30), (7, 10))
    files["3/1-1.dcm"] = files["2/1-1.dcm"][::-1].copy()
    source = _source(tmp_path, "MALIGNANT", lesion=files)
    rows = cbis_ddsm.read_rows(source)
    table = cbis_ddsm.read_tree(source, rows)
    assert table.images[0].lesions[0].mask is None
    assert "several of its files" in dict(table.rejected)[f"{NAME}_1"]
    _source(tmp_path, "MALIGNANT", lesion=files, described={"3/1-1.dcm": "ROI mask images"})
    table = cbis_ddsm.read_tree(source, rows)  # then the description decides
    assert table.images[0].lesions[0].mask == source / f"{NAME}_1" / "3/1-1.dcm"
    full = source / NAME / "1" / "000000.dcm"
    (source / NAME / "again").mkdir()
    (source / NAME / "again" / "1-1.dcm").write_bytes(full.read_bytes())
    assert cbis_ddsm.read_tree(source, rows).images[0].path == full
    (source / NAME / "again" / "1-1.dcm").write_bytes((source / f"{NAME}_1" / "2" / "1-1.dcm").read_bytes())
    with pytest.raises(BadManifest, match="none of the 1 rows"):
        cbis_ddsm.read_tree(source, rows)


def test_folders_of_other_names_are_joined_by_the_headers_uids(shared: Path, tmp_path: Path) -> None:
    """The same real files, each under a number of its own: every image and mask is the one of the named folders."""
    source = shared / "data" / "mias_as_cbis"
    for name in cbis_ddsm.CSVS.values():
        (tmp_path / name).write_bytes((source / name).read_bytes())
    for k, file in enumerate(sorted(source.rglob("*.dcm"))):
        (tmp_path / f"{k % 7}" / f"{k}").mkdir(parents=True)
        (tmp_path / f"{k % 7}" / f"{k}" / "image.dcm").symlink_to(file)
    rows = cbis_ddsm.read_rows(source)
    expected, table = cbis_ddsm.read_tree(source, rows), cbis_ddsm.read_tree(tmp_path, rows)
    assert not table.rejected
    assert len(table.images) == len(expected.images)
    for a, b in zip(expected.images, table.images, strict=True):
        assert b.path.resolve() == a.path.resolve()
        assert [x.mask.resolve() for x in b.lesions] == [x.mask.resolve() for x in a.lesions]
        assert (b.image, b.patient_id, b.pathology) == (a.image, a.patient_id, a.pathology)


def test_pixels_are_decoded_only_where_headers_do_not_decide(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []

    def read(path: Path) -> np.ndarray:
        decoded.append(path)
        return read_mask(path)

    monkeypatch.setattr(cbis_ddsm, "read_mask", read)
    source = shared / "data" / "mias_as_cbis"
    rows = cbis_ddsm.read_rows(source)
    assert not cbis_ddsm.read_tree(source, rows).rejected
    assert len(set(decoded)) == len(decoded) < len(rows) / 4
