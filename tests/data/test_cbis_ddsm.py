"""The CBIS-DDSM reader on the four real CSVs, and on real film in its on-disk shape with all its oddities."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mammojax.data import manifest
from mammojax.data.builders import cbis_ddsm
from mammojax.data.dicom import read_mask


def test_counts_of_the_real_csvs(shared: Path) -> None:
    rows = cbis_ddsm.read_rows(shared / "data" / "cbis_csv")
    wanted = {
        ("mass", "train"): (1318, 691, 1231),
        ("mass", "test"): (378, 201, 361),
        ("calcification", "train"): (1546, 602, 1227),
        ("calcification", "test"): (326, 151, 284),
    }
    for (kind, half), counts in wanted.items():
        some = [r for r in rows if (r.abnormality, r.official) == (kind, half)]
        assert (len(some), len({r.patient for r in some}), len(cbis_ddsm.views(some))) == counts
    assert len(rows) == 3568
    assert len({r.patient for r in rows}) == 1566
    malignant = Counter((r.abnormality, r.official) for r in rows if r.pathology == "MALIGNANT")
    assert [malignant[key] for key in wanted] == [637, 147, 544, 129]
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


def test_what_is_absent_is_listed(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "mias_as_cbis"
    for name in cbis_ddsm.CSVS.values():
        (tmp_path / name).write_bytes((source / name).read_bytes())
    folders = sorted((source / "CBIS-DDSM").iterdir())
    (tmp_path / "images").mkdir()
    for folder in folders[: len(folders) // 2]:
        (tmp_path / "images" / folder.name).symlink_to(folder)
    rows = cbis_ddsm.read_rows(tmp_path)
    # os.walk does not follow links: nothing is found, and that is said
    with pytest.raises(manifest.BadManifest, match="none of the"):
        cbis_ddsm.read_tree(tmp_path, rows)
    (tmp_path / "mass_case_description_test_set.csv").unlink()
    with pytest.raises(manifest.BadManifest, match="mass_case_description_test_set"):
        cbis_ddsm.read_rows(tmp_path)
