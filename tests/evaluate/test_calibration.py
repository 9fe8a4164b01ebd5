"""Probabilities and operating points: what each correction undoes, on scores whose truth is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss

from mammojax import metrics
from mammojax.errors import NotComparable
from mammojax.evaluate import calibration
from mammojax.evaluate.calibration import Calibration
from mammojax.evaluate.table import Predictions


def _predictions(label: np.ndarray, score: np.ndarray) -> Predictions:
    patients = [f"p{k // 2}" for k in range(len(label))]
    return Predictions("run", pd.DataFrame({"patient_id": patients, "malignant": label, "p_malignant": score}))


def _truth(n: int, prior: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and their true probabilities at this share of positives."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < prior).astype(int)
    x = rng.standard_normal(n) + 1.5 * label
    odds = 1.5 * x - 1.125 + np.log(prior / (1 - prior))
    return label, 1 / (1 + np.exp(-odds))


def test_both_corrections_are_undone() -> None:
    label, p = _truth(20000, 0.1)
    balanced = calibration.prior_corrected(p, 0.1, 0.5)  # what balanced training would have learned
    overconfident = 1 / (1 + ((1 - balanced) / balanced) ** 2.5)
    fitted = calibration.fit(_predictions(label, overconfident), 0.5, "none", "all", True)
    assert fitted.temperature == pytest.approx(2.5, rel=0.05)
    np.testing.assert_allclose(fitted.probability(overconfident), p, atol=0.03)
    plain = calibration.fit(_predictions(label, balanced), 0.5, "none", "all", True)
    assert plain.temperature == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(plain.probability(balanced), p, atol=0.03)
    other_label, other = _truth(20000, 0.01, seed=1)
    seen = calibration.prior_corrected(other, 0.01, 0.5)
    at_screening = plain.probability(seen, prevalence=0.01)
    assert at_screening.mean() == pytest.approx(other_label.mean(), abs=0.003)
    quality = calibration.quality(_predictions(label, overconfident), fitted)
    brier = [quality[step]["brier"]["value"] for step in ("as it is", "prior-corrected", "calibrated")]
    assert brier[0] > brier[1] > brier[2] >= brier_score_loss(label, p) - 1e-3
    assert quality["calibrated"]["ece"] < 0.3 * quality["as it is"]["ece"]
    low, high = quality["calibrated"]["brier"]["low"], quality["calibrated"]["brier"]["high"]
    assert low < brier[2] < high


def test_scores_of_zero_and_one_stay_numbers() -> None:
    label = np.array([0, 1] * 20)
    fitted = calibration.fit(_predictions(label, label.astype(float)), 0.5, "none", "all", True)
    assert np.isfinite(fitted.probability(np.array([0.0, 1.0, 0.5]))).all()


def test_brier_and_calibration_error_by_hand() -> None:
    label, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.6, 0.9])
    assert metrics.brier(label, score) == pytest.approx((0.01 + 0.09 + 0.16 + 0.01) / 4)
    assert metrics.calibration_error(label, score, bins=2) == pytest.approx((0.2 + 0.25) / 2)
    weights = np.array([[1, 1, 1, 1], [2, 0, 1, 1]])
    assert metrics.calibration_error(label, score, weights, bins=2)[1] == pytest.approx((0.2 + 0.5) / 4)
    assert metrics.brier(label, score, weights)[1] == pytest.approx((0.02 + 0.16 + 0.01) / 4)
    assert len(np.unique(metrics.score_bins(np.zeros(50)))) == 1


def test_values_at_a_prevalence_by_counting() -> None:
    values = metrics.predictive_values(0.9, 0.8, 0.01)  # of 10,000: 100 sick, 90 hit; 9,900 well, 1,980 called
    assert values["ppv"] == pytest.approx(90 / (90 + 1980))
    assert values["npv"] == pytest.approx(7920 / (7920 + 10))
    assert values["recall"] == pytest.approx(0.207)


@pytest.mark.parametrize("aim", ["sensitivity", "specificity", "recall_rate"])
def test_an_operating_point_meets_its_aim_by_the_least(aim: str) -> None:
    label, p = _truth(600, 0.3)
    predictions = _predictions(label, np.round(p, 2))
    at = calibration.threshold(predictions, aim, 0.8 if aim != "recall_rate" else 0.25)

    def rates(threshold: float) -> dict[str, float]:
        called = predictions.score() >= threshold
        return {"sensitivity": called[label == 1].mean(), "specificity": (~called[label == 0]).mean(),
                "recall_rate": called.mean()}  # fmt: skip

    others = np.unique(predictions.score())
    looser = others[others < at - 1e-9].max()
    stricter = others[others > at + 1e-9].min()
    if aim == "sensitivity":
        assert rates(at)[aim] >= 0.8 > rates(stricter)[aim]
    elif aim == "specificity":
        assert rates(at)[aim] >= 0.8 > rates(looser)[aim]
    else:
        assert rates(at)[aim] <= 0.25 < rates(looser)[aim]
    measured = calibration.operating(predictions, at, float(label.mean()))
    for name in ("sensitivity", "specificity"):
        assert measured[name]["value"] == pytest.approx(rates(at)[name])
        assert measured[name]["low"] < measured[name]["value"] < measured[name]["high"]
    assert measured["recall"]["value"] == pytest.approx(rates(at)["recall_rate"])
    rare = calibration.threshold(predictions, "recall_rate", 0.1, prevalence=0.006)
    called = predictions.score() >= rare
    assert 0.006 * called[label == 1].mean() + 0.994 * called[label == 0].mean() <= 0.1
    with pytest.raises(NotComparable, match="no threshold gives a recall rate of 0"):
        calibration.threshold(predictions, "recall_rate", 0.0)


def test_too_few_are_refused_and_a_broken_file_is_one_sentence(tmp_path: Path) -> None:
    label, p = _truth(40, 0.1)
    with pytest.raises(NotComparable, match="are too few to calibrate on"):
        calibration.fit(_predictions(label, p), 0.5, "none", "the images", True)
    assert Calibration.load(tmp_path) is None
    (tmp_path / "calibration.json").write_text("{}")
    with pytest.raises(NotComparable, match="run mammojax calibrate again"):
        Calibration.load(tmp_path)
