"""OUTPUT/predictions.html of `mammojax predict`: how many files were scored and why others were not, and the scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mammojax.evaluate import flow, plots, provenance, table
from mammojax.evaluate.report import Box, FlowStep, Section, png, write_page

FILE = "predictions.html"
HIGHEST = 10
TABLES = {"predictions.csv": "image", "breasts.csv": "breast", "exams.csv": "exam", "patients.csv": "patient"}
"""The tables of `mammojax predict`, and what a row of each is."""


def write(
    output: Path, rejected: Sequence[tuple[str, str]], origins: Sequence[Mapping[str, Any]], tta: str
) -> None:  # fmt: skip
    """Write the page from the tables in the folder; it names no file, exam or patient.

    Args:
        output: the folder of the tables.
        rejected: (file, reason) of what was not scored.
        origins: `provenance.of_run` of each run.
        tta: the test-time augmentation.
    """
    frames = {what: table.read_csv(output / name) for name, what in TABLES.items() if (output / name).is_file()}
    one = next(iter(frames))
    one = one if "p_malignant" in frames[one] else "breast"
    unit, first = f"{one}s", frames[one]
    first = first[first["p_malignant"] != ""]  # an exam's breast may have no score
    score = first["p_malignant"].map(float).to_numpy(np.float64)
    counts = [flow.words(len(first if what == one else frame), what) for what, frame in frames.items()]
    out = Box("Not scored", flow.reasons(rejected)) if rejected else None
    cards = [(f"{unit} scored", f"{len(first):,}", f"{len(rejected):,} files or rows not, see rejected.csv")]
    if "decision" in first and len(first):
        recalled = int((first["decision"] == "recall").sum())
        cards.append(("recalled", f"{recalled:,}", f"{100 * recalled / len(first):.0f} % of the {unit}"))
    if len(score):
        low, middle, high = np.percentile(score, (25, 50, 75))
        cards.append(("median score", f"{middle:.3f}", f"quartiles {low:.3f} and {high:.3f}"))
    where = [[origin["run"], origin["model"], ", ".join(origin["trained_on"]), origin["config_sha256"][:12]]
             for origin in origins]  # fmt: skip
    sections = [
        Section("Flow", flow=[FlowStep([Box("Files and rows given", [_given(frames[one], rejected)])], out),
                              FlowStep([Box("Scored", counts)])]),
        *([_scores(score, unit), _highest(first, unit)] if len(score) else []),
        Section("Where the scores come from", header=("run", "network", "learned from", "config"), rows=where,
                words=True, note=f"Test-time augmentation: {tta}."),
    ]  # fmt: skip
    notes = ["A score orders images. It is a probability only where mammojax calibrate made one.", provenance.USE]
    write_page(output / FILE, "Predictions", notes, sections, cards)


def _given(scored: Any, rejected: Sequence[tuple[str, str]]) -> str:
    """How many files were given: those in the table, or the images of its breasts, and those left out."""
    left_out = len({name for name, _ in rejected})
    if "views" not in scored:
        return f"{len(scored) + left_out:,}"
    views = sum(cell.count("+") + 1 for cell in scored["views"])
    return f"{views + left_out:,}, or more where a breast has several images of a view"


def _scores(score: np.ndarray, unit: str) -> Section:
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(6.4, 3.4))
        axes = figure.subplots()
        axes.hist(score, np.linspace(0, 1, 41).tolist(), color=plots.ACCENT)
        axes.set(xlabel="p(malignant)", ylabel=unit, xlim=(0, 1))
        picture = png(figure)
    return Section("Scores", figures=[(f"Histogram of the scores of the {unit}", picture)])


def _highest(scored: Any, unit: str) -> Section:
    """The lines of the table with the highest scores."""
    score = scored["p_malignant"].map(float).to_numpy()
    columns = [c for c in ("laterality", "view", "views", "p_calibrated", "decision") if c in scored]
    rows = [[str(k + 2), f"{score[k]:.4f}", *(str(scored[c].iloc[k]) for c in columns)]
            for k in np.argsort(-score, kind="stable")[:HIGHEST]]  # fmt: skip
    file = "predictions.csv" if unit == "images" else "breasts.csv"
    text = f"By their line in {file}; files, exams and patients have no names here, as names may be of people."
    return Section("The highest scores", text, ("line", "p(malignant)", *columns), rows, words=True)
