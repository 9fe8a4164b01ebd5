"""From a network's scores to probabilities and decisions: prior correction, temperature, operating point.

One number corrects overconfidence: the temperature that a network's log odds are divided by (Guo et al. 2017, "On
Calibration of Modern Neural Networks"). They then hold for the share of malignant examples that training amounted to,
one half if the loss weights classes alike; for another share a constant is added to them (Saerens et al. 2002,
"Adjusting the outputs of a classifier to new a priori probabilities"). Neither changes the order of scores, so AUCs
and decisions stay as they are.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from mammojax import metrics
from mammojax.errors import NotComparable
from mammojax.evaluate.table import Predictions

FILE = "calibration.json"
AIMS = ("sensitivity", "specificity", "recall_rate")
"""What an operating point may aim at; the recall rate is the share of all that are called malignant."""
RUNS = 3000
_EDGE = 1e-12  # scores of exactly 0 and 1 have no log odds
_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Point:
    """A further operating point: of AIMS, its value, and the scores from which on it recalls."""

    aim: str
    aimed_at: float
    threshold: float

    @property
    def column(self) -> str:
        """The column of its decisions, such as "decision_specificity_0.8"."""
        return f"decision_{self.aim}_{self.aimed_at:g}"


@dataclass(frozen=True)
class Calibration:
    """What a run folder's calibration.json says of its scores of malignant.

    Attributes:
        tta: the test-time augmentation it holds for: "none", "flips" or "random10".
        trained_prior: the share of malignant examples that training amounted to.
        prior: that of the examples it was fitted on; calibrated probabilities hold for this share.
        temperature: above 1 where the network is overconfident.
        aim, aimed_at: of AIMS, and its value; "" and None without an operating point.
        threshold: scores as the network gives them, at or above it, are a recall; None without an operating point.
        fitted_on: what it was fitted on, in words.
        chose_nothing: whether those examples chose nothing else, such as the epoch.
        further: operating points beside that of `aim`.
    """

    tta: str
    trained_prior: float
    prior: float
    temperature: float
    aim: str = ""
    aimed_at: float | None = None
    threshold: float | None = None
    fitted_on: str = ""
    chose_nothing: bool = False
    further: tuple[Point, ...] = ()

    def probability(self, score: np.ndarray, prevalence: float | None = None) -> np.ndarray:
        """Calibrated probabilities of scores [N], for this prevalence; None: for that of `prior`."""
        cooled = _sigmoid(_log_odds(score) / self.temperature)
        return prior_corrected(cooled, self.trained_prior, self.prior if prevalence is None else prevalence)

    @property
    def points(self) -> list[dict[str, Any]]:
        """{"aim", "aimed_at", "threshold"} of each operating point; the first decides."""
        first = {"aim": self.aim, "aimed_at": self.aimed_at, "threshold": self.threshold}
        return [first, *map(asdict, self.further)] if self.threshold is not None else []

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that predictions get: p_calibrated, and decisions if operating points were chosen."""
        first = ("decision",) * (self.threshold is not None)
        return ("p_calibrated", *first, *(point.column for point in self.further))

    def cells(self, score: float) -> dict[str, str]:
        """The cells of `columns` for a score; a decision is "recall" or "no recall"."""
        result = {"p_calibrated": repr(float(self.probability(np.array([score]))[0]))}
        if self.threshold is not None:
            result["decision"] = "recall" if score >= self.threshold else "no recall"
        for point in self.further:
            result[point.column] = "recall" if score >= point.threshold else "no recall"
        return result

    @classmethod
    def load(cls, run: Path) -> "Calibration | None":
        """A run's calibration; None where it has none.

        Raises:
            NotComparable: the file is broken.
        """
        file = run / FILE
        if not file.is_file():
            return None
        try:
            saved = json.loads(file.read_text())["calibration"]
            return cls(**{**saved, "further": tuple(Point(**point) for point in saved.get("further", ()))})
        except (ValueError, KeyError, TypeError):
            raise NotComparable(f'"{run}": {FILE} cannot be read; run mammojax calibrate again.') from None

    @staticmethod
    def measured(run: Path) -> dict[str, Any]:
        """What `save` wrote beside the calibration."""
        return {name: of for name, of in json.loads((run / FILE).read_text()).items() if name != "calibration"}

    def save(self, run: Path, measured: dict[str, Any]) -> None:
        """Write calibration.json: this, and what was measured with it."""
        contents = {"calibration": asdict(self), **measured}
        (run / FILE).write_text(json.dumps(contents, indent=2, allow_nan=False) + "\n")


def _log_odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(p, np.float64), _EDGE, 1 - _EDGE)
    return np.log(p) - np.log1p(-p)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def prior_corrected(score: np.ndarray, trained: float, prior: float) -> np.ndarray:
    """Probabilities [N] of a population with one share of malignant examples, from those of another."""
    return _sigmoid(_log_odds(score) + float(_log_odds(np.array(prior)) - _log_odds(np.array(trained))))


def fit_temperature(label: np.ndarray, score: np.ndarray, trained_prior: float) -> float:
    """The temperature with the lowest cross-entropy of scores [N] against labels [N], 0 and 1.

    The scores are corrected for the share of malignant examples among the labels.
    """
    shift = float(_log_odds(np.mean(label)) - _log_odds(np.array(trained_prior)))
    odds, sign = _log_odds(score), np.where(np.asarray(label) == 1, 1.0, -1.0)

    def cross_entropy(log_temperature: float) -> float:
        return float(np.logaddexp(0, -sign * (odds / np.exp(log_temperature) + shift)).mean())

    low, high = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(cross_entropy, bounds=(low, high), method="bounded").x))


def fit(
    predictions: Predictions, trained_prior: float, tta: str, fitted_on: str, chose_nothing: bool,
    aims: Sequence[tuple[str, float]] = (), prevalence: float | None = None,
) -> Calibration:  # fmt: skip
    """Fit temperature and operating points.

    Args:
        predictions: labelled, of examples that the network has not learned.
        trained_prior, tta, fitted_on, chose_nothing: see `Calibration`.
        aims: of AIMS, and their values; the first is that of the column decision.
        prevalence: of the recall rate that is aimed at; None: that of the predictions.

    Raises:
        NotComparable: too few of a class to fit.
    """
    label, score = predictions.label(), predictions.score()
    if metrics.too_few(label):
        negatives, positives = metrics.class_counts(label)
        raise NotComparable(
            f"{fitted_on}: {positives} malignant and {negatives} other examples are too few to calibrate on; "
            f"{metrics.ENOUGH} of each are the least. Give a manifest of other patients: --data."
        )
    prior = float(label.mean())
    temperature = fit_temperature(label, score, trained_prior)
    points = [Point(aim, value, threshold(predictions, aim, value, prevalence)) for aim, value in aims]
    fitted = Calibration(tta, trained_prior, prior, temperature, "", None, None, fitted_on, chose_nothing)
    if not points:
        return fitted
    first, *further = points
    return replace(
        fitted, aim=first.aim, aimed_at=first.aimed_at, threshold=first.threshold, further=tuple(further)
    )  # fmt: skip


def threshold(predictions: Predictions, aim: str, value: float, prevalence: float | None = None) -> float:
    """The score at or above which examples are recalled, so that an aim of AIMS is met on these predictions.

    Of sensitivity: the highest threshold that reaches it. Of specificity and of the recall rate: the lowest threshold
    that keeps specificity at or above, the recall rate at or below it.

    Args:
        predictions: labelled, with both classes.
        aim, value: see AIMS.
        prevalence: of the recall rate; None: that of the predictions.

    Raises:
        NotComparable: no threshold does.
    """
    fpr, tpr, at = metrics.roc_curve(predictions.label(), predictions.score())
    if aim == "sensitivity":
        return float(at[1:][np.argmax(tpr[1:] >= value - 1e-12)])
    share = float(predictions.label().mean()) if prevalence is None else prevalence
    wrong = 1 - value if aim == "specificity" else value
    cost = fpr if aim == "specificity" else tpr * share + fpr * (1 - share)
    if not (last := np.flatnonzero(cost <= wrong + 1e-12)[-1]):  # infinite: nothing would be recalled
        raise NotComparable(
            f"no threshold gives a {aim.replace('_', ' ')} of {value:g} on these examples; aim elsewhere."
        )
    return float(at[last])


def quality(predictions: Predictions, calibration: Calibration) -> dict[str, Any]:
    """Brier score and calibration error as the network scores, prior-corrected, and calibrated.

    Corrections are for the share of malignant examples among these predictions, so that both are judged on their own
    case mix.

    Returns:
        {"as it is" | "prior-corrected" | "calibrated": {"brier": interval, "ece": value, "mean": mean score},
        "malignant": share of malignant examples, "n": [negatives, positives]}.
    """
    label, share = predictions.label(), float(predictions.label().mean())
    kinds = scores_by_step(predictions, calibration)
    result: dict[str, Any] = {"malignant": share, "n": metrics.class_counts(label)}
    for name, score in kinds.items():
        interval = metrics.bootstrap(metrics.brier, label, score, predictions.patient, RUNS)
        ece = float(metrics.calibration_error(label, score))
        result[name] = {"brier": interval.to_json(), "ece": ece, "mean": float(score.mean())}
    return result


def scores_by_step(predictions: Predictions, calibration: Calibration) -> dict[str, np.ndarray]:
    """The scores [N] as they are, prior-corrected for these predictions' share of malignant ones, and calibrated."""
    score, share = predictions.score(), float(predictions.label().mean())
    if not 0 < share < 1:
        return {"as it is": score, "calibrated": calibration.probability(score)}
    return {
        "as it is": score,
        "prior-corrected": prior_corrected(score, calibration.trained_prior, share),
        "calibrated": calibration.probability(score, share),
    }


def operating(predictions: Predictions, at: float, prevalence: float) -> dict[str, Any]:
    """Sensitivity and specificity of recalling scores at or above `at`; PPV, NPV and recall rate at a prevalence.

    Each as `metrics.Interval.to_json` has it, by draws of patients; without bounds where a class is too small.
    """
    label, patient = predictions.label(), predictions.patient
    called = (predictions.score() >= at).astype(int)

    def values(weights: np.ndarray | None) -> dict[str, np.ndarray | float]:
        def share(of: int, calls: int) -> np.ndarray | float:
            among = label == of
            right = np.full(int(among.sum()), calls)
            return metrics.accuracy(called[among], right, None if weights is None else weights[:, among])

        sensitivity, specificity = share(1, 1), share(0, 0)
        rates = metrics.predictive_values(sensitivity, specificity, prevalence)
        return {"sensitivity": sensitivity, "specificity": specificity, **rates}

    def one(name: str) -> Callable[[np.ndarray | None], np.ndarray | float]:
        return lambda weights: values(weights)[name]

    result = {}
    for name, value in values(None).items():
        if metrics.too_few(label):
            result[name] = metrics.Interval(float(value), float("nan"), float("nan")).to_json()
        else:
            result[name] = metrics.interval_of(one(name), patient, RUNS).to_json()
    return {"prevalence": prevalence, **result}
