"""The phantom: its spectrum, its disk shape, and no shortcut from global brightness."""

import filecmp
from pathlib import Path

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression

from configs import quickstart
from mammojax import metrics
from mammojax.data import phantom
from mammojax.data.builders import cbis_ddsm
from mammojax.data.dicom import read_mammogram, read_mask
from mammojax.models import whole_image
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
    rng = np.random.default_rng(1)
    for kind in ("mass", "calc"):
        for malignant in (False, True):
            pixels, (finding,) = phantom.draw((288, 224), "R", "CC", [(kind, malignant)], rng)
            without = phantom.draw((288, 224), "R", "CC", [], np.random.default_rng(2))[0]
            assert pixels.shape == without.shape == (288, 224)
            grown = np.pad(finding.mask, 12)[12:-12, 12:-12]
            ring = ~grown & (np.roll(grown, 14, 0) | np.roll(grown, -14, 0))
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
    model = whole_image.build(config)
    images, labels = [], []
    for k in range(360):
        rng = np.random.default_rng([11, k])
        malignant, kind = bool(k % 2), ("mass", "calc")[k // 2 % 2]
        images.append(
            phantom.draw((144, 112), "LR"[k // 8 % 2], ("CC", "MLO")[k // 4 % 2], [(kind, malignant)], rng)[0]
        )
        labels.append(int(malignant))
    variables = init_variables(model, (144, 112), 1, 0)
    features = jax.jit(lambda x: model.apply(variables, whole_image.as_input(x, 40.0, 1))[1]["features"].mean((1, 2)))
    seen = np.concatenate([np.asarray(features(np.stack(images[i : i + 40])[..., None])) for i in range(0, 360, 40)])
    seen = (seen - seen[:240].mean(0)) / (seen[:240].std(0) + 1e-6)
    probe = LogisticRegression(C=0.01, max_iter=2000).fit(seen[:240], labels[:240])
    auc = metrics.roc_auc(np.array(labels[240:]), probe.decision_function(seen[240:]))
    assert 0.3 < auc < 0.7
