"""AUC and its relatives, with intervals from a bootstrap over patients. NumPy only.

Images of one patient are not independent, so whole patients are drawn (Shen et al. 2019 and Wu et al. 2019 draw images
and breasts; the interval by patient is wider, and honest). A draw is a weight for each patient, the number of times it
was drawn; so each metric takes weights, one row per draw, and thousands of draws are one array operation.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

Metric = Callable[..., np.ndarray | float]
Statistic = Callable[[np.ndarray | None], np.ndarray | float]


ENOUGH = 10
"""The fewest positives, and negatives, for an interval: with fewer, a bootstrap only shows how few there are."""


class Interval(NamedTuple):
    """A value and its 95 % interval; NaN where it cannot be computed; bounds also where there are `too_few` labels."""

    value: float
    low: float
    high: float

    def to_json(self, label: np.ndarray | None = None) -> dict[str, Any]:
        """{"value", "low", "high"}, None in place of NaN, which JSON lacks.

        With the labels [N] that were measured also "n", the number of each class, negatives first.
        """
        result: dict[str, Any] = {k: float(v) if np.isfinite(v) else None for k, v in self._asdict().items()}
        return result if label is None else result | {"n": class_counts(label)}


def class_counts(label: np.ndarray) -> list[int]:
    """The number of labels of each class, of at least two classes."""
    return np.bincount(np.asarray(label, np.int64), minlength=2).tolist()


def too_few(label: np.ndarray) -> bool:
    """Whether an interval would mean nothing: fewer than ENOUGH positives or negatives, or examples of more classes."""
    counts = class_counts(label)
    return min(counts) < ENOUGH if len(counts) == 2 else sum(counts) < ENOUGH


def _ranked(
    label: np.ndarray, score: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds in falling order and the weighted positives and negatives at or above each: [T], [R, T], [R, T]."""
    label, score = np.asarray(label), np.asarray(score, np.float64)
    weights = np.ones((1, len(label))) if weight is None else np.atleast_2d(weight)
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # ties are one threshold
    positive = np.cumsum(weights[:, order] * (label[order] == 1), axis=1)[:, last]
    negative = np.cumsum(weights[:, order] * (label[order] == 0), axis=1)[:, last]
    return score[order][last], positive, negative


def _out(values: np.ndarray, weight: np.ndarray | None) -> np.ndarray | float:
    """One number without weights or with a vector of them, else one for each row."""
    return float(values[0]) if weight is None or np.ndim(weight) == 1 else values


def roc_auc(label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray | float:
    """Area under the ROC curve, ties counted half.

    Args:
        label: [N] of 0 and 1.
        score: [N], higher means 1.
        weight: None, [N], or [R, N] for R values at once.

    Returns:
        A float, or float64 [R]; NaN where a class is absent.
    """
    _, positive, negative = _ranked(label, score, weight)
    tp = np.pad(positive, ((0, 0), (1, 0)))
    fp = np.pad(negative, ((0, 0), (1, 0)))
    area = np.sum(np.diff(fp, axis=1) * (tp[:, 1:] + tp[:, :-1]) / 2, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _out(area / (tp[:, -1] * fp[:, -1]), weight)


def pr_auc(label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray | float:
    """Average precision: precision at each threshold, weighted by the recall it adds.

    Arguments and result as in `roc_auc`. So it is NaN without negatives, where scikit-learn returns 1: a bootstrap draw
    of positives only must not count as perfect.
    """
    _, positive, negative = _ranked(label, score, weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(positive + negative > 0, positive / (positive + negative), 0.0)
        gained = np.diff(np.pad(positive, ((0, 0), (1, 0))), axis=1)
        area = np.sum(precision * gained, axis=1) / positive[:, -1]
    return _out(np.where(negative[:, -1] > 0, area, np.nan), weight)


def accuracy(label: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray | float:
    """Share of labels predicted correctly; `predicted` holds any number of classes."""
    weights = np.ones((1, len(label))) if weight is None else np.atleast_2d(weight)
    right = np.asarray(label) == np.asarray(predicted)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _out(weights @ right / weights.sum(axis=1), weight)


def sensitivity_at_specificity(
    label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None, specificity: float = 0.8
) -> np.ndarray | float:
    """The highest sensitivity whose specificity is at least `specificity`; thresholds are the scores themselves."""
    _, positive, negative = _ranked(label, score, weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        enough = 1 - negative / negative[:, -1:] >= specificity - 1e-12
        best = np.max(np.where(enough, positive, 0.0), axis=1) / positive[:, -1]
    return _out(np.where(negative[:, -1] > 0, best, np.nan), weight)


def specificity_at_sensitivity(
    label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None, sensitivity: float = 0.86
) -> np.ndarray | float:
    """The highest specificity whose sensitivity is at least `sensitivity` (Shen et al.: 0.86, the U.S. average)."""
    _, positive, negative = _ranked(label, score, weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        enough = positive / positive[:, -1:] >= sensitivity - 1e-12
        least = np.min(np.where(enough, negative, np.inf), axis=1)
        return _out(np.where(positive[:, -1] > 0, 1 - least / negative[:, -1], np.nan), weight)


def roc_curve(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positive rate at or above each threshold, from (0, 0) on, and the thresholds (first: inf)."""
    threshold, positive, negative = _ranked(label, score, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr, fpr = positive[0] / positive[0, -1], negative[0] / negative[0, -1]
    return np.append(0.0, fpr), np.append(0.0, tpr), np.append(np.inf, threshold)


def confusion_matrix(label: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 [classes, classes], truth by row."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(label), np.asarray(predicted)), 1)
    return matrix


def draws(patient: np.ndarray, runs: int, seed: int) -> np.ndarray:
    """How often each example is in each bootstrap draw of patients, float64 [runs, N]."""
    ids, index = np.unique(np.asarray(patient), return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=runs)
    return counts[:, index].astype(np.float64)


def interval(value: float, values: np.ndarray) -> Interval:
    """A value with the 2.5th and 97.5th percentile of its draws."""
    values = values[np.isfinite(values)]  # draws without one of the classes have no value
    if not len(values) or not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def _chunks(patient: np.ndarray, runs: int, seed: int) -> Iterator[np.ndarray]:
    """The draws in chunks of at most 4 M weights, so that 50,000 patches fit in memory."""
    size = max(1, 4_000_000 // max(1, len(patient)))
    for k in range(0, runs, size):
        yield draws(patient, min(size, runs - k), seed + k)


def bootstrap(
    metric: Metric, label: np.ndarray, score: np.ndarray, patient: np.ndarray, runs: int = 3000, seed: int = 0
) -> Interval:
    """A metric with its 95 % percentile interval over patients (Shen et al. 2019: 3000 runs).

    Args:
        metric: one of this module that takes (label, score, weight).
        label, score: [N].
        patient: [N], the patient of each example.

    Returns:
        The value without bounds where there are `too_few` labels of a class.
    """
    if too_few(label):
        return Interval(float(metric(label, score)), float("nan"), float("nan"))
    return interval_of(lambda weights: metric(label, score, weights), patient, runs, seed)


def paired_bootstrap(
    metric: Metric, label: np.ndarray, score_a: np.ndarray, score_b: np.ndarray, patient: np.ndarray,
    runs: int = 3000, seed: int = 0,
) -> Interval:  # fmt: skip
    """metric(a) − metric(b) with its interval, as in `bootstrap`; both are measured on the same draws of patients."""

    def difference(weights: np.ndarray | None) -> np.ndarray | float:
        return metric(label, score_a, weights) - metric(label, score_b, weights)

    if too_few(label):
        return Interval(float(difference(None)), float("nan"), float("nan"))
    return interval_of(difference, patient, runs, seed)


def interval_of(statistic: Statistic, patient: np.ndarray, runs: int = 3000, seed: int = 0) -> Interval:
    """A statistic of weights [R, N] (None: all examples once) with its 95 % interval over draws of patients."""
    return interval(float(statistic(None)), draws_of(statistic, patient, runs, seed))


def draws_of(statistic: Statistic, patient: np.ndarray, runs: int, seed: int) -> np.ndarray:
    """The statistic in each bootstrap draw of patients, float64 [runs]; NaN where a draw lacks a class."""
    return np.concatenate([np.atleast_1d(statistic(weights)) for weights in _chunks(patient, runs, seed)])


def roc_band(
    label: np.ndarray, score: np.ndarray, patient: np.ndarray, at: np.ndarray, runs: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """2.5th and 97.5th percentile of the sensitivity at each false positive rate of `at`, over draws of patients."""
    curves = []
    for weights in _chunks(patient, runs, seed):
        _, positive, negative = _ranked(label, score, weights)
        for tp, fp in zip(positive, negative, strict=True):
            if tp[-1] and fp[-1]:
                curves.append(np.interp(at, np.append(0, fp / fp[-1]), np.append(0, tp / tp[-1])))
    if not curves:
        return np.full(len(at), np.nan), np.full(len(at), np.nan)
    low, high = np.percentile(curves, [2.5, 97.5], axis=0)
    return low, high


def brier(label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray | float:
    """Mean squared distance of probabilities from labels (Brier 1950); arguments and result as in `roc_auc`."""
    weights = np.ones((1, len(label))) if weight is None else np.atleast_2d(weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _out(weights @ (np.asarray(score) - np.asarray(label)) ** 2 / weights.sum(axis=1), weight)


def score_bins(score: np.ndarray, bins: int = 10) -> np.ndarray:
    """The bin of each score, int [N]: `bins` bins of equally many scores, fewer where scores are tied."""
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, score, side="right")


def calibration_error(
    label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None, bins: int = 10
) -> np.ndarray | float:
    """Expected calibration error: the mean distance of a bin's mean score from its share of positives.

    The bins hold equally many examples (Nixon et al. 2019, "Measuring Calibration in Deep Learning"): with few
    positives, bins of equal width are almost all empty. It is biased upwards on few examples, more so in bootstrap
    draws, so it is given without an interval. Arguments and result as in `roc_auc`.
    """
    weights = np.ones((1, len(label))) if weight is None else np.atleast_2d(weight)
    own = np.equal.outer(score_bins(score, bins), np.arange(bins)).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        gaps = np.abs((weights * (np.asarray(score, np.float64) - np.asarray(label))) @ own)
        return _out(gaps.sum(axis=1) / weights.sum(axis=1), weight)


def predictive_values(
    sensitivity: np.ndarray | float, specificity: np.ndarray | float, prevalence: float
) -> dict[str, np.ndarray | float]:
    """PPV, NPV and the share recalled in a population of this prevalence, by Bayes' rule."""
    hit, false = np.multiply(sensitivity, prevalence), (1 - np.asarray(specificity)) * (1 - prevalence)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "ppv": hit / (hit + false),
            "npv": (1 - prevalence - false) / (1 - hit - false),
            "recall": hit + false,
        }


def delong(label: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUCs of several scores of the same examples, and their covariance.

    DeLong et al. 1988, "Comparing the areas under two or more correlated ROC curves", by the midranks of Sun and Xu
    2014. It takes examples for independent; a patient's images are not, see `bootstrap`.

    Args:
        label: [N] of 0 and 1, with two or more of each.
        scores: [K, N].

    Returns:
        float64 [K], and float64 [K, K].
    """
    label, scores = np.asarray(label), np.atleast_2d(scores)
    positive, negative = scores[:, label == 1], scores[:, label == 0]
    m, n = positive.shape[1], negative.shape[1]
    both = np.concatenate([positive, negative], axis=1)
    ranks, of_positive, of_negative = (np.stack([_midranks(row) for row in x]) for x in (both, positive, negative))
    wins = (ranks[:, :m] - of_positive) / n  # of each positive: the share of negatives it beats, ties half
    losses = 1 - (ranks[:, m:] - of_negative) / m
    covariance = np.atleast_2d(np.cov(wins)) / m + np.atleast_2d(np.cov(losses)) / n
    return wins.mean(axis=1), covariance


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on; tied values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
