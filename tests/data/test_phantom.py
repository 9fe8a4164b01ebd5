"""The phantom: its spectrum, its disk shape, and no shortcut from global brightness."""

import csv
import filecmp
from collections import Counter
from pathlib import Path

import cv2
import jax
import numpy as np
import pydicom
from sklearn.linear_model import LogisticRegression

from mammojax import metrics
from mammojax.configs import quickstart
from mammojax.data import cbis_ddsm, manifest, phantom
from mammojax.data.dicom import read_mammogram, read_mask
from mammojax.models import classifiers
from mammojax.train.state import init_variables


def test_texture_has_the_power_spectrum_of_breast_tissue() -> None:
    rng = np.random.default_rng(0)
    power = np.mean(
        [
            np.abs(np.fft.fft2(phantom.texture((128, 128), rng) * np.outer(np.hanning(128), np.hanning(128)))) ** 2
            for _ in range(40)
        ],
        0,
    )
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    ring = (frequency > 0.04) & (frequency < 0.3)
    slope = np.polyfit(np.log(frequency[ring]), np.log(power[ring]), 1)[0]
    assert -3.2 < slope < -2.8


def test_lesions_are_where_their_masks_are_and_bright() -> None:
    for kind in ("mass", "calc"):
        for malignant in (False, True):
            for seed in range(6):
                pixels, (finding,) = phantom.draw(
                    (288, 224), "R", "CC", [(kind, malignant)], np.random.default_rng(seed)
                )
                assert pixels.dtype == np.uint16
                near = cv2.dilate(finding.mask.astype(np.uint8), np.ones((25, 25))) > 0
                ring = near & ~finding.mask & (pixels > 0.05 * 65535)
                assert np.percentile(pixels[finding.mask], 95) > np.percentile(pixels[ring], 95)


def test_the_tree_is_cbis_ddsm_and_the_same_whatever_the_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        phantom.write_phantom(tmp_path / str(workers), patients=16, seed=3, image_size=(96, 64), workers=workers)
    files = [sorted(p.relative_to(tmp_path / w) for p in (tmp_path / w).rglob("*") if p.is_file()) for w in "12"]
    assert files[0] == files[1]
    assert all(filecmp.cmp(tmp_path / "1" / f, tmp_path / "2" / f, shallow=False) for f in files[0])
    rows = cbis_ddsm.read_rows(tmp_path / "1")
    table = cbis_ddsm.read_tree(tmp_path / "1", rows)
    assert not table.rejected
    assert {(i.view) for i in table.images} == {"CC", "MLO"}
    malignant = {i.patient_id for i in table.images if i.label == 1}
    assert len(malignant) == 8
    for image in table.images:
        shape = read_mammogram(image.path).pixels.shape
        assert shape == (96, 64)
        for lesion in image.lesions:
            mask = read_mask(lesion.mask)
            assert abs(mask.shape[0] - shape[0]) <= 2
            assert 0 < (mask > 0).mean() < 0.3
    raw = (tmp_path / "1" / "mass_case_description_train_set.csv").read_text()
    assert '\n"' in raw  # path cells that end in a newline, as in the real ones


def test_brightness_does_not_tell_malignant_from_benign() -> None:
    labels, features = [], []
    for k in range(240):
        rng = np.random.default_rng([9, k])
        malignant, kind = bool(k % 2), ("mass", "calc")[k // 2 % 2]
        pixels, _ = phantom.draw((144, 112), "L", ("CC", "MLO")[k // 4 % 2], [(kind, malignant)], rng)
        labels.append(int(malignant))
        features.append([pixels.mean(), pixels.std(), pixels.max(), np.median(pixels)])
    for feature in np.array(features, float).T:
        assert 0.36 < metrics.roc_auc(np.array(labels), feature) < 0.64


def test_a_random_weights_probe_is_near_chance() -> None:
    """Random convolutions, pooled, and a linear classifier on top: the lesions' kind must be learnt, not picked up."""
    config = quickstart.get_config().model
    model = classifiers.build(config)
    images, labels = [], []
    for k in range(360):
        rng = np.random.default_rng([11, k])
        malignant, kind = bool(k % 2), ("mass", "calc")[k // 2 % 2]
        images.append(
            phantom.draw((144, 112), "LR"[k // 8 % 2], ("CC", "MLO")[k // 4 % 2], [(kind, malignant)], rng)[0]
        )
        labels.append(int(malignant))
    variables = init_variables(model, (144, 112), 1, 0)
    features = jax.jit(lambda x: model.apply(variables, classifiers.as_input(x, 40.0, 1))[1]["features"].mean((1, 2)))
    counts = np.concatenate([np.asarray(features(np.stack(images[i : i + 40])[..., None])) for i in range(0, 360, 40)])
    counts = (counts - counts[:240].mean(0)) / (counts[:240].std(0) + 1e-6)
    probe = LogisticRegression(C=0.01, max_iter=2000).fit(counts[:240], labels[:240])
    auc = metrics.roc_auc(np.array(labels[240:]), probe.decision_function(counts[240:]))
    assert 0.3 < auc < 0.7


def _pixels(path: Path) -> np.ndarray:
    return pydicom.dcmread(path).pixel_array


def test_the_tree_has_the_traps_of_the_real_one(tmp_path: Path) -> None:
    """Read with csv and pydicom alone, as anyone would who had downloaded it."""
    phantom.write_phantom(tmp_path, patients=60, seed=1, image_size=(96, 64))
    counts: Counter[str] = Counter()
    halves: dict[str, set[str]] = {"train": set(), "test": set()}
    for (kind, half), name in cbis_ddsm.CSVS.items():
        with (tmp_path / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == phantom.HEADERS[kind].split(",")
        for row in rows:
            halves[half].add(row["patient_id"])
            counts[row["pathology"]] += 1
            assert row["ROI mask file path"].endswith("\n")
            image, crop, mask = (row[f"{c} file path"].strip() for c in ("image", "cropped image", "ROI mask"))
            full = next((tmp_path / "CBIS-DDSM" / image.split("/")[0]).rglob("*.dcm"))
            assert pydicom.dcmread(full).SeriesDescription == "full mammogram images"
            assert _pixels(full).dtype == np.uint16
            folder = tmp_path / "CBIS-DDSM" / mask.split("/")[0]
            assert folder.name[-1] == row["abnormality id"]
            files = {path.name: _pixels(path) for path in folder.rglob("*.dcm")}
            assert sorted(a.dtype.itemsize for a in files.values()) == [1, 2]
            listed_mask = files.get(Path(mask).name)
            if listed_mask is None:
                counts["new layout"] += 1
                assert sorted(files) == ["1-1.dcm", "1-2.dcm"]
                continue
            counts["old layout"] += 1
            assert (tmp_path / "CBIS-DDSM" / mask).is_file()
            assert (tmp_path / "CBIS-DDSM" / crop).is_file()
            counts["swapped" if listed_mask.dtype == np.uint16 else "right"] += 1
            eight = next(a for a in files.values() if a.dtype == np.uint8)
            counts["other size"] += eight.shape != (96, 64)
    assert not halves["train"] & halves["test"]
    assert len(halves["test"]) == 12
    assert all(counts[k] for k in ("MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK", "new layout", "other size"))
    assert 0 < counts["swapped"] < counts["right"]


def test_a_digital_phantom_is_black_beside_the_breast(tmp_path: Path) -> None:
    for name, digital in (("film", False), ("digital", True)):
        phantom.write_phantom(
            tmp_path / name, patients=1, seed=5, image_size=(96, 64), both_breasts=True, digital=digital
        )
    for image in manifest.read_manifest(tmp_path / "digital").images:
        film = read_mammogram(tmp_path / "film" / image.path.relative_to(tmp_path / "digital")).pixels
        pixels = read_mammogram(image.path).pixels
        assert np.mean(pixels == 0) > 0.2 > 0.1 > np.mean(film == 0)
        assert np.mean(pixels[pixels > 300] == film[pixels > 300]) > 0.9  # the same breast; the marker is smaller


def test_both_breasts_add_the_normal_views_and_change_nothing_else(tmp_path: Path) -> None:
    for name, both in (("lesions", False), ("all", True)):
        phantom.write_phantom(tmp_path / name, patients=12, seed=5, image_size=(96, 64), both_breasts=both)
    for path in (p for p in (tmp_path / "lesions").rglob("*") if p.is_file()):
        assert filecmp.cmp(path, tmp_path / "all" / path.relative_to(tmp_path / "lesions"), shallow=False)
    table = manifest.read_manifest(tmp_path / "all")
    assert not table.rejected
    assert set(Counter((i.patient_id, i.laterality, i.view) for i in table.images).values()) == {1}
    assert len(table.images) == 4 * 12
    truth = cbis_ddsm.read_tree(tmp_path / "all", cbis_ddsm.read_rows(tmp_path / "all")).images
    listed = {(i.patient_id, i.laterality, i.view): i for i in table.images if i.lesions}
    assert len(listed) == len(truth)
    for image in truth:
        same = listed[image.patient_id, image.laterality, image.view]
        assert same.pathology == image.pathology
        assert [lesion.abnormality for lesion in same.lesions] == [lesion.abnormality for lesion in image.lesions]
        assert sorted(lesion.mask for lesion in same.lesions) == sorted(lesion.mask for lesion in image.lesions)
    for image in table.images:
        assert (image.pathology == "NORMAL") == (not image.lesions)
        assert read_mammogram(image.path).pixels.shape == (96, 64)
