"""Synthetic exams: what their labels say, where their masks lie, and that the crop finds every breast."""

import csv
import filecmp
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from mammojax.data import manifest, phantom_exams
from mammojax.data.breast import crop
from mammojax.data.dicom import read_mammogram, read_mask

SIZE = (96, 72)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exams")
    phantom_exams.write_exams(root, exams=80, seed=0, image_size=SIZE)
    return root


def _rows(root: Path) -> list[dict[str, str]]:
    with (root / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_bytes_whatever_the_workers_and_the_number_of_exams(tmp_path: Path) -> None:
    for name, exams, workers in (("one", 12, 1), ("two", 12, 2), ("fewer", 5, 1), ("other", 5, 1)):
        seed = 4 if name == "other" else 3
        phantom_exams.write_exams(tmp_path / name, exams=exams, seed=seed, image_size=SIZE, workers=workers)
    files = {p.name: sorted(f.relative_to(p) for f in p.rglob("*") if f.is_file()) for p in tmp_path.iterdir()}
    assert files["one"] == files["two"]
    assert len(files["one"]) > 4 * 12
    assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", files["one"], shallow=False)[0] == files["one"]
    images = [f for f in files["fewer"] if f.suffix != ".csv"]
    assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "fewer", images, shallow=False)[0] == images
    assert (tmp_path / "other/manifest.csv").read_bytes() != (tmp_path / "fewer/manifest.csv").read_bytes()


def test_exams_of_other_indices_are_other_patients(written: Path, tmp_path: Path) -> None:
    phantom_exams.write_exams(tmp_path, exams=5, first=78, seed=0, image_size=SIZE)
    rows, before = _rows(tmp_path), _rows(written)
    assert sorted({row["patient_id"] for row in rows}) == [f"P_{k:05d}" for k in range(79, 84)]
    shared = [row for row in rows if row["patient_id"] in {row["patient_id"] for row in before}]
    assert shared == [row for row in before if row["patient_id"] in ("P_00079", "P_00080")]


def test_the_labels_are_composed_as_described(written: Path) -> None:
    exams: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _rows(written):
        exams[row["exam_id"]].append(row)
    counts: Counter[str] = Counter()
    for rows in exams.values():
        images = {row["image"]: (row["laterality"], row["view"]) for row in rows}
        assert set(images.values()) == {(side, view) for side in "LR" for view in ("CC", "MLO")}
        counts["repeated"] += len(images) == 5
        for column in ("patient_id", "birads", "density", "age_band", "vendor"):
            assert len({row[column] for row in rows}) == 1
        breasts = {side: [row for row in rows if row["laterality"] == side] for side in "LR"}
        exam = {row["pathology"] for row in rows}
        for breast in breasts.values():
            pathologies = {row["pathology"] for row in breast}
            assert {row["biopsied"] for row in breast} == {str(int(pathologies != {"NORMAL"}))}
            counts["both"] += pathologies == {"BENIGN", "MALIGNANT"}
            assert len({row["finding"] for row in breast}) == 1
            worst = max(pathologies, key=manifest.WORSE.__getitem__)
            assert breast[0]["finding"] in {row["abnormality"] for row in breast if row["pathology"] == worst}
            # The same findings in each of a breast's images.
            by_image: dict[str, list[tuple[str, ...]]] = defaultdict(list)
            for row in breast:
                by_image[row["image"]].append((row["pathology"], row["abnormality"], row["visible"]))
            assert len({tuple(findings) for findings in by_image.values()}) == 1
            for pathology, abnormality, visible in next(iter(by_image.values())):
                if pathology != "NORMAL":
                    counts[pathology] += 1
                    counts[f"{pathology} occult"] += visible == "0"
                elif abnormality:
                    counts["calcification, not biopsied"] += 1
                    assert abnormality == "calcification"
                    assert exam == {"NORMAL"}
        counts["biopsied"] += exam != {"NORMAL"}
        counts["malignant and benign"] += exam >= {"MALIGNANT", "BENIGN"}
        visible = [row["pathology"] for row in rows if row["visible"] == "1"]  # what a radiologist can see
        clean = 0 if set(visible) - {"NORMAL"} else 2 if visible else 1
        counts["noisy"] += int(rows[0]["birads"]) != clean
    for row in _rows(written):
        drawn = row["visible"] == "1" and row["pathology"] != "NORMAL"
        assert bool(row["mask"]) == drawn
    assert (len(exams), counts["biopsied"], counts["calcification, not biopsied"]) == (80, 40, 12)
    assert 18 <= counts["MALIGNANT"] <= 18 + 10
    assert 22 <= counts["BENIGN"] <= 22 + 10
    assert counts["both"] >= 1
    assert counts["malignant and benign"] > counts["both"]  # the other breast has further findings, too
    assert 0 < counts["MALIGNANT occult"] < 0.3 * counts["MALIGNANT"]
    assert 0.1 * counts["BENIGN"] < counts["BENIGN occult"] < 0.5 * counts["BENIGN"]
    assert 2 <= counts["repeated"] <= 16
    assert 2 <= counts["noisy"] <= 16


def test_the_manifest_is_read_whole(written: Path) -> None:
    table = manifest.read_manifest(written)
    assert not table.rejected
    assert sum(len(image.lesions) for image in table.images) == sum(r["biopsied"] == "1" for r in _rows(written))
    header = pydicom.dcmread(table.images[0].path)
    assert not any(tag.keyword.endswith(("Date", "Time")) or tag.keyword == "PatientName" for tag in header)


@pytest.mark.parametrize("size", [SIZE, (288, 224)])
def test_the_crop_finds_the_breast_alone_and_masks_lie_on_it(size: tuple[int, int], written: Path, tmp_path: Path):
    root = written
    if size != SIZE:
        root = tmp_path
        phantom_exams.write_exams(root, exams=6, seed=2, image_size=size)
    lesions = 0
    for image in manifest.read_manifest(root).images:
        pixels = read_mammogram(image.path).pixels
        assert pixels.shape == size
        _, labels, stats, _ = cv2.connectedComponentsWithStats((pixels > 0).astype(np.uint8), connectivity=4)
        breast = labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
        marker = (pixels > 0) & ~breast
        assert marker.any()
        assert 0.2 < breast.mean() < 0.7
        breast_crop = crop(pixels, image.laterality == "L", threshold=0, iterations=size[0] // 29)
        assert not breast_crop.image(marker).any()
        assert breast_crop.image(breast).sum() == breast.sum()
        assert breast_crop.distance_from_starting_side == 0
        for lesion in image.lesions:
            if lesion.mask is not None:
                lesions += 1
                mask = read_mask(lesion.mask) > 0
                assert mask.any()
                assert breast[mask].all()
    assert lesions


def test_contrast_changes_the_lesions_alone(tmp_path: Path) -> None:
    for contrast in (0.0, 1.0):
        phantom_exams.write_exams(tmp_path / str(contrast), exams=6, seed=2, image_size=SIZE, contrast=contrast)
    assert (tmp_path / "0.0/manifest.csv").read_bytes() == (tmp_path / "1.0/manifest.csv").read_bytes()
    visible = {row["image"] for row in _rows(tmp_path / "1.0") if row["visible"] == "1"}
    for image in {row["image"] for row in _rows(tmp_path / "1.0")}:
        pixels = [read_mammogram(tmp_path / contrast / image).pixels.astype(int) for contrast in ("0.0", "1.0")]
        changed = (pixels[0] != pixels[1]).any()
        assert changed == (image in visible)
