"""Every metric against scikit-learn, with ties; the bootstrap against drawing patients one at a time."""

import json
import tracemalloc
from functools import partial

import numpy as np
import pytest
from sklearn import metrics as reference

from mammojax import metrics


def _data(seed: int = 0, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    score = np.round(rng.normal(label * 0.8, 1), 1)  # rounded: many ties
    return label, score, rng.integers(0, 90, n)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_scikit_learn_with_and_without_weights(seed: int) -> None:
    label, score, patient = _data(seed)
    weights = metrics.draws(patient, 5, seed)
    for ours, theirs in (
        (metrics.roc_auc, reference.roc_auc_score),
        (metrics.pr_auc, reference.average_precision_score),
    ):
        assert ours(label, score) == pytest.approx(theirs(label, score))
        got = ours(label, score, weights)
        assert got == pytest.approx([theirs(label, score, sample_weight=w) for w in weights])
    assert metrics.accuracy(label, score > 0.5) == pytest.approx(reference.accuracy_score(label, score > 0.5))
    np.testing.assert_array_equal(
        metrics.confusion_matrix(label, (score > 0.5).astype(int), 2), reference.confusion_matrix(label, score > 0.5)
    )
    fpr, tpr, _ = reference.roc_curve(label, score, drop_intermediate=False)
    ours_fpr, ours_tpr, _ = metrics.roc_curve(label, score)
    np.testing.assert_allclose((ours_fpr, ours_tpr), (fpr, tpr))
    assert metrics.sensitivity_at_specificity(label, score) == pytest.approx(tpr[1 - fpr >= 0.8].max())
    assert metrics.specificity_at_sensitivity(label, score) == pytest.approx((1 - fpr)[tpr >= 0.86].max())


def test_bootstrap_draws_patients_not_images() -> None:
    label, score, patient = _data()
    ours = metrics.bootstrap(metrics.roc_auc, label, score, patient, runs=4000)
    rng, ids, values = np.random.default_rng(5), np.unique(patient), []
    for _ in range(1500):
        index = np.concatenate([np.flatnonzero(patient == p) for p in rng.choice(ids, len(ids))])
        values.append(reference.roc_auc_score(label[index], score[index]))
    assert ours.value == pytest.approx(reference.roc_auc_score(label, score))
    np.testing.assert_allclose(ours[1:], np.percentile(values, [2.5, 97.5]), atol=0.012)


def test_clusters_widen_the_interval() -> None:
    label, score, _ = _data(n=60)
    repeated = [np.repeat(a, 6) for a in (label, score)]
    by_patient = metrics.bootstrap(metrics.roc_auc, *repeated, np.repeat(np.arange(60), 6))
    by_image = metrics.bootstrap(metrics.roc_auc, *repeated, np.arange(360))
    assert by_patient.high - by_patient.low > 1.8 * (by_image.high - by_image.low)


def test_paired_difference_of_a_score_with_itself_is_nothing() -> None:
    label, score, patient = _data()
    assert metrics.paired_bootstrap(metrics.roc_auc, label, score, score, patient) == (0.0, 0.0, 0.0)
    better = metrics.paired_bootstrap(metrics.roc_auc, label, score + label, score, patient)
    assert 0 < better.low < better.value < better.high


def test_one_class_gives_nan_and_no_error() -> None:
    interval = metrics.bootstrap(metrics.roc_auc, np.ones(5, int), np.arange(5.0), np.arange(5), runs=10)
    assert np.isnan(interval).all()


@pytest.mark.parametrize(("positives", "negatives"), [(9, 300), (300, 9), (10, 10)])
def test_fewer_than_ten_of_a_class_have_a_value_and_no_interval(positives: int, negatives: int) -> None:
    label = np.repeat([1, 0], (positives, negatives))
    score = np.random.default_rng(0).random(len(label)) + label
    first = metrics.bootstrap(metrics.roc_auc, label, score, np.arange(len(label)), runs=50)
    second = metrics.paired_bootstrap(metrics.roc_auc, label, score, -score, np.arange(len(label)), runs=50)
    assert first.value > 0.9
    for interval in (first, second):
        assert np.isfinite(interval[1:]).all() == (positives == negatives == 10)
    saved = json.loads(json.dumps(first.to_json(label), allow_nan=False))
    assert saved["n"] == [negatives, positives]
    assert (saved["low"] is None) == (saved["high"] is None) == (min(positives, negatives) < 10)


def test_of_many_classes_ten_examples_are_enough() -> None:
    label = np.arange(12) % 5
    assert metrics.bootstrap(metrics.accuracy, label, label, np.arange(12), runs=50) == (1, 1, 1)
    assert np.isnan(metrics.bootstrap(metrics.accuracy, label[:9], label[:9], np.arange(9), runs=50).low)


def test_a_draw_of_positives_alone_is_dropped() -> None:
    """Two patients, one of each class: half of the draws lack a class; the others are perfect or they are not."""
    for metric in (metrics.roc_auc, metrics.pr_auc):
        label, score = np.array([0, 1]), np.array([0.2, 0.1])
        of_draws = metrics.interval_of(partial(metric, label, score), np.arange(2))  # `bootstrap` has too few
        assert of_draws.high < 1


def test_many_draws_of_many_patches_fit_in_memory() -> None:
    rng = np.random.default_rng(0)
    label, predicted, patient = rng.integers(0, 5, (3, 20_000))
    tracemalloc.start()
    metrics.bootstrap(metrics.accuracy, label, predicted, patient, runs=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # all weights at once are 160 MB


def test_band_holds_the_curve() -> None:
    label, score, patient = _data()
    at = np.linspace(0, 1, 21)
    low, high = metrics.roc_band(label, score, patient, at, runs=400)
    fpr, tpr, _ = metrics.roc_curve(label, score)
    middle = np.interp(at, fpr, tpr)
    assert ((low - 0.02 <= middle) & (middle <= high + 0.02)).all()
