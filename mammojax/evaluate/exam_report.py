"""The report of a run on exams (Wu et al. 2019): one HTML file, nothing outside it, nobody's name in it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mammojax import metrics
from mammojax.data.cells import read_table
from mammojax.errors import BadDataset, NotPrepared
from mammojax.evaluate import exam_figures, populations, report, table
from mammojax.evaluate.measure import RUNS, both_classes, measure_breasts
from mammojax.evaluate.report import Section
from mammojax.vocabulary import BIRADS, FINDINGS

SPLITS = {"val": "val", "test": "test", "val_random10": "val, ten windows", "test_random10": "test, ten windows"}
CATEGORIES = ("0_incomplete", "1_normal", "2_benign")  # BI-RADS, section IV-C
Pictures = list[tuple[str, str]]


def write_exam_report(workdir: Path, title: str, notes: Sequence[str]) -> Path:
    """Write WORKDIR/report.html from the run's own files; returns its path.

    Reads config.json, versions.json, metrics.json, metrics.jsonl and predictions/, and shows up to three exams where
    the data set still stands. A BI-RADS run has curves and a confusion matrix of its categories instead of breasts.

    Raises:
        NotComparable: the predictions of breasts cannot be used, see `table.read_breasts`.
    """
    saved = json.loads((workdir / "config.json").read_text())
    results = json.loads((workdir / "metrics.json").read_text())
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    config, facts = saved["config"], saved["facts"]
    birads = config["model"]["target"] == "birads"
    with matplotlib.rc_context(report.FONT):
        parts = _birads(workdir, results) if birads else _breasts(workdir, config, results)
        parts += [_training(log), _data(facts, results), *([] if birads else _gallery(workdir))]
    shown = report.without_paths(config)
    parts.append(Section("Config", commands=[json.dumps(shown, indent=2, ensure_ascii=False)]))
    parts.append(Section("Versions", commands=[(workdir / "versions.json").read_text()]))
    report.write_page(workdir / "report.html", title, notes, parts)
    return workdir / "report.html"


def _breasts(workdir: Path, config: dict[str, Any], results: dict[str, Any]) -> list[Section]:
    """The test breasts by population, all numbers, curves and scores."""
    read = {split: table.read_breasts(workdir, split) for split in ("test", "test_random10")}
    runs, seed = config.get("bootstrap_runs", RUNS), config["seed"]
    measured = {SPLITS[split]: measure_breasts(breasts, runs, seed) for split, breasts in read.items()}
    breasts = read["test_random10"]
    told = {name: table.described(breasts, name) for name in table.POPULATIONS}
    by = populations.sections({"split": "test split", "populations": told, "runs": measured, "by": {}}, "")
    by = [replace(section, header=("predictions", *section.header[1:])) for section in by]
    curves = []
    for finding in FINDINGS:
        label, score = breasts.label(finding), breasts.score(finding)
        figures: Pictures = []
        if both_classes(label):
            roc = _titled(report.roc_figure(label, score, breasts.patient), f"ROC, {finding} or not")
            figures.append((f"ROC curve of {finding} with its band", report.png(roc)))
            figures.append((f"Scores of {finding} by class", report.png(_scores(label, score, finding))))
        text = "Every labelled breast; the mean of ten windows, moved and resized at random."
        text = text if figures else "All are alike, so there is no curve."
        curves.append(Section(f"Test breasts, {finding} or not", text, figures=figures))
    words = "AUC alone is the mean of the four labels' AUCs by exam, all others are by breast. Ten windows: the mean of"
    return [*by, _numbers(results, f"{words} their predictions."), *curves]


def _birads(workdir: Path, results: dict[str, Any]) -> list[Section]:
    """All numbers, and the test exams' categories: each against the others, and which was taken for which."""
    with (workdir / "predictions" / "test.csv").open(newline="") as file:
        rows = [row for row in read_table(file)[1] if row["birads"] != ""]
    truth = np.array([BIRADS.index(row["birads"]) for row in rows], int)
    scores = np.array([[float(row[f"p_{name}"]) for name in BIRADS] for row in rows]).reshape(-1, len(BIRADS))
    patient = np.array([row["patient_id"] for row in rows])
    figures: Pictures = []
    for k, category in enumerate(CATEGORIES):
        if both_classes(label := (truth == k).astype(int)):
            name = f"BI-RADS {category.replace('_', ', ')}, or not"
            roc = _titled(report.roc_figure(label, scores[:, k], patient), name)
            figures.append((f"ROC curve of {name}", report.png(roc)))
    matrix = metrics.confusion_matrix(truth, scores.argmax(1), len(BIRADS)).tolist()
    confusion = [("Confusion matrix", report.png(report.confusion_figure(matrix, CATEGORIES)))]
    words = "AUC 0, 1, 2 are of that BI-RADS category against the others; AUC alone is their mean."
    text = f"{len(rows)} test exams of {len(set(patient))} patients. A category that none or all have has no curve."
    return [
        _numbers(results, words),
        Section("BI-RADS of the test exams", text, figures=figures),
        Section("What they were taken for", "The likeliest of the three.", figures=confusion),
    ]


def _numbers(results: dict[str, Any], text: str) -> Section:
    """All metrics of metrics.json by split."""
    splits = [split for split in SPLITS if split in results]
    names = dict.fromkeys(n for split in splits for n, value in results[split].items() if isinstance(value, dict))
    rows = []
    for name in sorted(names, key=lambda name: ("biopsied" in name, name.startswith("pr_"), name)):
        cells = [results[split].get(name) for split in splits]
        word = (
            name.replace("pr_auc", "PR AUC").replace("auc", "AUC").replace("_", " ").replace("biopsied", "(biopsied)")
        )
        rows.append([word, *(report.with_counts(cell) for cell in cells)])
    text += " In brackets 95 % intervals, drawn by patient. n: negatives + positives; of AUC alone, of the rarest."
    text += " The val numbers are optimistic: they chose the epoch."
    return Section("All numbers", text, ("", *(SPLITS[split] for split in splits)), rows)


def _training(log: list[dict[str, Any]]) -> Section:
    best = next((row for row in reversed(log) if row["kind"] == "val" and row["best"]), None)
    text = f"Kept: {best['stage']}, epoch {best['epoch']}. " if best else ""
    text += "The training loss is summed over the halves that predict apart (CC and MLO), "
    text += "the validation loss is of their averaged probabilities; both are nats an exam."
    figures = [("Loss and validation AUC by epoch", report.png(report.curves_figure(log)))]
    return Section("Training", text, figures=figures)


def _data(facts: dict[str, Any], results: dict[str, Any]) -> Section:
    """How many exams, images and findings each split has (Table I)."""
    rows = []
    for split, found in facts.get("findings", {}).items():
        exams = results.get(split, {}).get("exams", "–")
        seen = [found[name][how] for name in FINDINGS for how in ("visible", "occult")]
        rows.append([split, str(exams), str(sum(facts["counts"][split].values())), *map(str, seen)])
    columns = (f"{name} breasts, {how}" for name in FINDINGS for how in ("visible", "occult"))
    made = f"{facts['name']}, split “{facts['split']}”; {facts['rejected']} files or rows left out. "
    made += "Exams: those that were predicted. Occult findings are in no image. A breast may have both kinds."
    return Section("Data", made, ("split", "exams", "images", *columns), rows)


def _gallery(workdir: Path) -> list[Section]:
    """The surest and the worst malignant breast and the worst benign one; else exams with outlined lesions."""
    try:
        shown = exam_figures.scored(workdir) or exam_figures.with_lesions(workdir)
    except (NotPrepared, BadDataset):  # the data set or its heatmaps are gone, the rest of the report is not
        return []
    sections = []
    for one in shown:
        heading, *lines = one.caption.split("\n")
        bare = replace(one, caption="")
        figures = [(name, report.png(exam_figures.draw([bare], [name]))) for name in exam_figures.panels_of(one)]
        text = "".join(f"{line[0].upper()}{line[1:]}. " for line in lines) + "Occult findings have no outline."
        sections.append(Section(heading, text, figures=figures))
    return sections


def _titled(figure: Figure, title: str) -> Figure:
    figure.axes[0].set_title(title)
    return figure


def _scores(label: np.ndarray, score: np.ndarray, finding: str) -> Figure:
    figure = Figure(figsize=(4.6, 4.3))
    axes = figure.subplots()
    bins = np.linspace(0, 1, 26).tolist()
    colour = exam_figures.COLOUR[finding]
    for value, name, own in ((0, f"not {finding}", report.SOFT), (1, finding, colour)):
        chosen = score[label == value]
        share = np.full(len(chosen), 1 / len(chosen))
        axes.hist(chosen, bins, weights=share, color=own, alpha=0.6, label=f"{name} ({len(chosen)})")
    axes.set(xlabel=f"p({finding})", ylabel="share of the class's breasts", title="Scores by class")
    axes.legend(frameon=False)
    return figure
