"""Several scores of the same images or breasts: differences of their AUCs, and subgroups, from tables alone.

Each difference has a bootstrap interval over patients, and the test of DeLong et al. 1988, which takes images for
independent and is what most papers report. Where the two disagree, believe the bootstrap: a patient's images are alike.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mammojax import metrics
from mammojax.errors import NotComparable
from mammojax.evaluate import report, table
from mammojax.evaluate.measure import RUNS
from mammojax.evaluate.report import interval_text
from mammojax.evaluate.table import Predictions

_SIGMAS = 1.959964  # of a 95 % interval


def read(sources: Sequence[Path], split: str = "test") -> list[Predictions]:
    """The predictions of CSVs and run folders, of a run those of `split` as they are, in one order.

    Raises:
        NotComparable: they are not of the same images or breasts with the same labels, or one cannot be read.
    """
    predictions = []
    for source, name in zip(sources, _names(sources), strict=True):
        if source.is_dir():
            run = table.read_breasts if _is_exam_run(source, split) else table.read_images
            own = run(source, split)
        else:
            own = table.read_plain(source)
        predictions.append(Predictions(name, own.frame))
    kinds = {own.of_images for own in predictions}
    if len(kinds) > 1:
        raise NotComparable("some of them are of images and some of breasts; give one kind.")
    other = ["benign", "p_benign"]  # the finding that only exam runs score
    return table.aligned([Predictions(p.name, p.frame.drop(columns=other, errors="ignore")) for p in predictions])


def _is_exam_run(run: Path, split: str) -> bool:
    path = run / "predictions" / f"{split}.csv"
    return path.is_file() and "image" not in table.read_csv(path)


def _names(sources: Sequence[Path]) -> list[str]:
    """Names of files and folders, without suffix where that tells them apart."""
    stems = [source.resolve().stem if source.is_file() else source.resolve().name for source in sources]
    return stems if len(set(stems)) == len(stems) else table.names_of(sources)


def differences(predictions: Sequence[Predictions]) -> list[dict[str, Any]]:
    """Each AUC minus that of the first, of `table.aligned` predictions.

    Returns:
        For each but the first {"name", "minus", "bootstrap": interval, "delong": interval, "p"}; intervals as
        `metrics.Interval.to_json` has them, p of DeLong's two-sided test, None where it cannot be computed.
    """
    first, *others = predictions
    label, patient = first.label(), first.patient
    rows = []
    for other in others:
        drawn = metrics.paired_bootstrap(metrics.roc_auc, label, other.score(), first.score(), patient, RUNS)
        row = {"name": other.name, "minus": first.name, "bootstrap": drawn.to_json()}
        rows.append(row | _delong_difference(label, other.score(), first.score()))
    return rows


def _delong_difference(label: np.ndarray, a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    nan = float("nan")
    if min(metrics.class_counts(label)) < 2:
        value = float(metrics.roc_auc(label, a) - metrics.roc_auc(label, b))
        return {"delong": metrics.Interval(value, nan, nan).to_json(), "p": None}
    (first, second), covariance = metrics.delong(label, np.stack([a, b]))
    value = float(first - second)
    deviation = math.sqrt(max(0.0, float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
    if metrics.too_few(label):
        return {"delong": metrics.Interval(value, nan, nan).to_json(), "p": None}
    interval = metrics.Interval(value, value - _SIGMAS * deviation, value + _SIGMAS * deviation)
    p = math.erfc(abs(value) / deviation / math.sqrt(2)) if deviation > 1e-12 else None
    return {"delong": interval.to_json(), "p": 1.0 if p is None and abs(value) < 1e-12 else p}  # 1: the same order


def aucs(predictions: Sequence[Predictions]) -> list[dict[str, Any]]:
    """{"name", "auc": interval by draws of patients, "delong": interval} of each."""
    rows = []
    for own in predictions:
        label = own.label()
        drawn = metrics.bootstrap(metrics.roc_auc, label, own.score(), own.patient, RUNS).to_json(label)
        delong = metrics.Interval(float("nan"), float("nan"), float("nan"))
        if not metrics.too_few(label):
            (value,), covariance = metrics.delong(label, own.score()[None])
            reach = _SIGMAS * math.sqrt(max(0.0, float(covariance[0, 0])))
            delong = metrics.Interval(float(value), max(0.0, value - reach), min(1.0, value + reach))
        rows.append({"name": own.name, "auc": drawn, "delong": delong.to_json()})
    return rows


def subgroups(predictions: Sequence[Predictions], columns: Sequence[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """{column: {value: `aucs` of that part}}; the first predictions' column divides all.

    Raises:
        NotComparable: see `table.parts`.
    """
    result: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for column in columns:
        result[column] = {}
        values = table.parts(predictions[0], column)
        for value, part in values.items():
            own = predictions[0].index.isin(part.index)
            result[column][value] = aucs([each[own] for each in predictions])
    return result


def compare_plain(sources: Sequence[Path], split: str, by: Sequence[str]) -> tuple[dict[str, Any], list[Predictions]]:
    """The numbers of `mammojax compare` where one of the sources is a CSV, and the predictions.

    Returns:
        {"unit": "images" or "breasts", "n", "patients", "rows": from `aucs`, "differences": from `differences`, "by":
        from `subgroups`}.

    Raises:
        NotComparable: see `read` and `subgroups`.
    """
    predictions = read(sources, split)
    for column in by:  # a mistyped column is refused before the long computation
        table.parts(predictions[0], column)
    first = predictions[0]
    result = {
        "unit": "images" if first.of_images else "breasts", "n": metrics.class_counts(first.label()),
        "patients": len(set(first.patient)), "rows": aucs(predictions), "differences": differences(predictions),
        "by": subgroups(predictions, by),
    }  # fmt: skip
    return result, predictions


def plain_section(result: dict[str, Any]) -> report.Section:
    """The table of AUCs of `compare_plain`."""
    negatives, positives = result["n"]
    text = f"{positives} malignant and {negatives} other {result['unit']} of {result['patients']} patients."
    rows = [[row["name"], interval_text(row["auc"]), interval_text(row["delong"])] for row in result["rows"]]
    return report.Section("AUC", text, ("", "AUC, drawn by patient", "AUC, DeLong"), rows)


def sections(differing: Sequence[dict[str, Any]], by: dict[str, Any]) -> list[report.Section]:
    """Tables of `differences` and `subgroups`; none where they are empty."""
    made = []
    if differing:
        rows = [
            [row["name"], row["minus"], interval_text(row["bootstrap"], "+.3f"), interval_text(row["delong"], "+.3f"),
             "–" if row["p"] is None else f"{row['p']:.3f}" if row["p"] >= 0.001 else "< 0.001"] for row in differing
        ]  # fmt: skip
        text = "DeLong's interval and p take images for independent; believe the draws of patients where they disagree."
        header = ("", "minus", "AUC difference, drawn by patient", "DeLong", "p, DeLong")
        made.append(report.Section("Differences", text, header, rows))
    for column, values in by.items():
        rows = []
        for value, of in values.items():
            negatives, positives = of[0]["auc"]["n"]
            rows.append([value, str(positives), str(negatives), *(interval_text(row["auc"]) for row in of)])
        names = [row["name"] for row in next(iter(values.values()))]
        text = "Case mixes differ between the parts, so their AUCs are not to be compared with each other."
        made.append(report.Section(f"By {column}", text, (column, "malignant", "other", *names), rows))
    return made
