"""What a calibration is worth, in tables and pictures: for the console, calibration.html and the report of the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from mammojax import metrics
from mammojax.errors import NotComparable
from mammojax.evaluate import calibration, plots, report, table
from mammojax.evaluate.calibration import Calibration, Point
from mammojax.evaluate.report import Section, interval_text
from mammojax.evaluate.table import Predictions
from mammojax.evaluate.text_table import text_table

PART = "calibration"
STEPS = ("as it is", "prior-corrected", "calibrated")
SHARES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV", "recall": "recalled"}
_POINTS = (
    "Each point is a tenth of the examples: their mean score and the share of malignant ones among them. On the dotted"
    " line scores are probabilities. The line ends where the scores end."
)


def of_run(run: Path, task: str) -> list[Section]:
    """What the report of a run says: calibration and operating point, or how far its scores are from probabilities.

    Args:
        run: the run folder, with its predictions; calibration.json if there is one.
        task: of its config, "whole", "two_view" or "exam".

    Raises:
        NotComparable: calibration.json or the predictions are broken.
    """
    if (fitted := Calibration.load(run)) is None:
        return _not_calibrated(run, task)
    test = _read(run, task, fitted.tta)
    sections = _sections(fitted, Calibration.measured(run))
    picture = Section(
        "Reliability", figures=[_reliability("the test split", test, fitted)], note=f"{_POINTS} The examples it was"
        " fitted on are in calibration.html.", part=PART,
    )  # fmt: skip
    return [*sections[1:], sections[0], picture]


def _read(run: Path, task: str, tta: str) -> Predictions:
    read = table.read_breasts if task == "exam" else table.read_images
    return read(run, "test" if tta == "none" else f"test_{tta}")


def _not_calibrated(run: Path, task: str) -> list[Section]:
    """How far the scores are from probabilities, and the command that calibrates; nothing for too few examples."""
    try:
        test = _read(run, task, "none")
    except NotComparable:  # no labelled example
        return []
    label, score = test.label(), test.score()
    text = (
        "The scores are as the network gives them: they order, but are no probabilities, and no threshold is chosen. "
    )
    text += "After this command the report has both, with PPV, NPV and recall at the prevalences that are given."
    command = ["mammojax calibrate RUN --sensitivity 0.9 --prevalence 0.006"]
    if metrics.too_few(label):
        text += " There are too few test examples of a class to measure calibration on."
        return [Section("Calibration and operating point", text, commands=command, part=PART)]
    brier = metrics.bootstrap(metrics.brier, label, score, test.patient, calibration.RUNS).to_json()
    row = ["test, as it is", interval_text(brier, ".4f"), f"{metrics.calibration_error(label, score):.4f}",
           f"{score.mean():.3f}", f"{label.mean():.3f}"]  # fmt: skip
    header = ("scores", "Brier score", "ECE", "mean score", "share malignant")
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(4.8, 4.6))
        plots.reliability(figure.subplots(), label, {STEPS[0]: score}, "test split")
        picture = ("Reliability on the test split", report.png(figure))
    return [
        Section(
            "Calibration and operating point", text, header, [row], figures=[picture], note=_POINTS, commands=command,
            part=PART,
        )
    ]  # fmt: skip


def _reliability(name: str, predictions: Predictions, fitted: Calibration) -> tuple[str, str]:
    """The reliability plot of some predictions before and after calibration."""
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(4.8, 4.6))
        curves = calibration.scores_by_step(predictions, fitted)
        plots.reliability(figure.subplots(), predictions.label(), {k: curves[k] for k in STEPS[::2]}, name)
        return f"Reliability on {name}", report.png(figure)


def write(
    run: Path, fitted: Calibration, measured: Mapping[str, Any], test: Predictions, examples: Predictions
) -> None:
    """Print the tables; write RUN/calibration.html."""
    sections = _sections(fitted, measured)
    for section in sections:
        print(f"\n{section.heading}\n{section.text}\n{text_table(section.header, section.rows)}")
    figures = [_reliability(name, of, fitted) for name, of in (("test split", test), (fitted.fitted_on, examples))]
    picture = Section("Reliability", figures=figures, note=_POINTS)
    quality = measured["quality"]["test"]
    cards = [_card(f"Brier score, {step}", quality[step]["brier"]) for step in STEPS[::2] if step in quality]
    if fitted.threshold is not None:
        cards += [_card(name, measured["operating"][0][name]) for name in ("sensitivity", "specificity")]
    notes = [f"Fitted on {fitted.fitted_on}." + ("" if fitted.chose_nothing else " It is optimistic for that reason.")]
    notes += [
        "Research use only. Probabilities hold for populations like the one they were fitted on, at its prevalence."
    ]
    report.write_page(
        run / "calibration.html",
        f"Calibration of {run.resolve().name}",
        notes,
        [*sections[:1], picture, *sections[1:]],
        cards,
    )
    print(f"\n→ {run / 'calibration.html'}", flush=True)


def _card(name: str, interval: Mapping[str, Any]) -> tuple[str, str, str]:
    value, _, rest = interval_text(interval).partition(" ")
    return name, value, rest


def _sections(fitted: Calibration, measured: Mapping[str, Any]) -> list[Section]:
    rows = []
    for name, quality in (("test", measured["quality"]["test"]), ("fitted on", measured["quality"]["fitted on"])):
        negatives, positives = quality["n"]
        for step in STEPS:
            if step in quality:
                of = quality[step]
                brier = interval_text(of["brier"], ".4f")
                cells = (f"{positives} + {negatives}", brier, f"{of['ece']:.4f}", f"{of['mean']:.3f}")
                rows.append([name, step, *cells, f"{quality['malignant']:.3f}"])
    text = f"Fitted on {fitted.fitted_on}: temperature {fitted.temperature:.2f}; the share of malignant examples is "
    text += f"{fitted.trained_prior:.3f} in what training amounted to, {fitted.prior:.3f} in what it was fitted on."
    test = measured["quality"]["test"]
    if test["calibrated"]["brier"]["value"] > test["as it is"]["brier"]["value"]:
        text += " On the test split the calibrated scores are worse than those of the network: do not use p_calibrated."
    header = ("", "scores", "malignant + other", "Brier score", "ECE", "mean score", "share malignant")
    note = (
        "Lower is better. ECE: the expected calibration error over ten bins of equally many examples; on few examples "
    )
    note += "it does not reach 0."
    sections = [Section("Probabilities", text, header, rows, note=note, part=PART)]
    if fitted.threshold is None:
        return sections
    first = Point(fitted.aim, float(fitted.aimed_at or 0), fitted.threshold)
    sections.append(_operating("Operating point", first, "decision", measured, fitted))
    for point, of_point in zip(fitted.further, measured.get("further", ()), strict=True):
        sections.append(_operating("Further operating point", point, point.column, of_point, fitted))
    return sections


def _operating(heading: str, point: Point, column: str, measured: Mapping[str, Any], fitted: Calibration) -> Section:
    """The table of an operating point."""
    rows = [
        ["fitted on", *_cells(measured["operating_fitted_on"])],
        *(["test", *_cells(o)] for o in measured["operating"]),
    ]
    text = f"Recall from a score of {point.threshold:.4f} on, chosen for a {point.aim.replace('_', ' ')} of "
    text += f"{point.aimed_at:g} on {fitted.fitted_on}. From now on the tables of mammojax predict --tta {fitted.tta} "
    text += f"have the column {column}."
    note = "PPV, NPV and the share recalled follow from sensitivity and specificity by Bayes' rule; the first two rows "
    note += (
        "are at the prevalence of the examples themselves. A screening population has other, mostly easier, negatives."
    )
    columns = ("", "prevalence", *SHARES.values())
    return Section(heading, text, columns, rows, note=note, part=PART)


def _cells(operating: Mapping[str, Any]) -> list[str]:
    return [f"{operating['prevalence']:.4f}", *(interval_text(operating[name]) for name in SHARES)]
