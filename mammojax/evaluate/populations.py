"""Breasts scored by exam networks: read from finished runs, averaged over runs, measured on parts of a test set.

Wu et al. 2019, section V: AUC and PR AUC of malignant/not and benign/not by breast, on the screening population (every
exam of the split) and on the biopsied one. Section V-A has that one of exams with a biopsied breast, but section V-D
counts 401 breasts, each with a finding; so ours is of biopsied breasts. Our intervals are over patients.
"""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mammojax import metrics
from mammojax.data.cells import read_table
from mammojax.errors import NotComparable
from mammojax.evaluate import report
from mammojax.evaluate.compare import RUNS, names_of
from mammojax.evaluate.report import interval_text
from mammojax.evaluate.reproduce import WIDTH, text_table
from mammojax.vocabulary import FINDINGS

POPULATIONS = ("screening", "biopsied")
METRICS: dict[str, metrics.Metric] = {"auc": metrics.roc_auc, "pr_auc": metrics.pr_auc}
CASE_MIX = (
    "AUCs of different case mixes are not to be compared: the same network is lower on biopsied breasts, as the easy"
    " negatives are gone (Wu et al. 2019, footnote 6); PR AUC moves with the share of positives."
)
KNOWN = ("exam_id", "patient_id", "laterality", "views", "p_benign", "p_malignant", "benign", "malignant")
"""Columns of an exam run's predictions/<split>.csv, a row a breast; after them biopsied, density, birads and whatever
other columns the manifest had."""
MOST_GROUPS = 20
_NO_GROUPS = ("exam_id", "patient_id", "p_benign", "p_malignant")


@dataclass(frozen=True)
class Breasts:
    """The breasts of a split: `rows` of the CSV; for each of FINDINGS its label int [N] and score float64 [N] by name;
    patient [N]. A breast is known by its exam_id and laterality."""

    name: str
    rows: list[dict[str, str]]
    label: dict[str, np.ndarray]
    score: dict[str, np.ndarray]
    patient: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Breasts":
        """The breasts at these indices, int [M], or where bool [N] is True."""
        at = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return replace(
            self, rows=[self.rows[k] for k in at], label={f: x[at] for f, x in self.label.items()},
            score={f: x[at] for f, x in self.score.items()}, patient=self.patient[at],
        )  # fmt: skip


def read(run: Path, split: str) -> Breasts:
    """The labelled breasts of an exam run.

    Args:
        run: the run folder.
        split: "test", "val", or with ten augmented predictions averaged "test_random10", "val_random10".

    Raises:
        NotComparable: the run has no such predictions, is no exam run, names a breast twice or has a cell that is no
            number.
    """
    path = run / "predictions" / f"{split}.csv"
    if not path.is_file():
        raise NotComparable(f'"{run}" has no predictions/{split}.csv; name the folder of a finished exam run.')
    with path.open(newline="") as file:
        columns, every = read_table(file)
        if missing := [name for name in KNOWN if name not in columns]:
            raise NotComparable(f'"{run}" is no exam run: predictions/{split}.csv has no column {missing[0]}.')
        rows = [row for row in every if row["benign"] != "" and row["malignant"] != ""]
    if not rows:
        raise NotComparable(f'"{run}": predictions/{split}.csv has no labelled breast; nothing can be measured.')
    if twice := len(rows) - len({(row["exam_id"], row["laterality"]) for row in rows}):
        raise NotComparable(f'"{run}": predictions/{split}.csv names {twice} breasts twice; predict the split again.')
    try:
        label = {f: np.array([int(row[f]) for row in rows]) for f in FINDINGS}
        score = {f: np.array([float(row[f"p_{f}"]) for row in rows]) for f in FINDINGS}
    except ValueError:
        label = score = {}
    if not score or not all(np.isfinite(x).all() for x in score.values()):
        raise NotComparable(f'"{run}": predictions/{split}.csv has a score that is no number; predict the split again.')
    return Breasts(run.resolve().name, rows, label, score, np.array([row["patient_id"] for row in rows]))


def aligned(breasts: Sequence[Breasts]) -> list[Breasts]:
    """All in the order of the first.

    Raises:
        NotComparable: they are not of the same breasts with the same labels.
    """
    keys = [(row["exam_id"], row["laterality"]) for row in breasts[0].rows]
    result = []
    for one in breasts:
        place = {(row["exam_id"], row["laterality"]): k for k, row in enumerate(one.rows)}
        if other := set(keys) ^ set(place):
            raise NotComparable(
                f'"{breasts[0].name}" and "{one.name}" were measured on different breasts ({len(other)} stand in one '
                "alone); give runs of one data set, split and seed."
            )
        moved = one[np.array([place[key] for key in keys])]
        if any((moved.label[f] != breasts[0].label[f]).any() for f in FINDINGS):
            raise NotComparable(
                f'"{breasts[0].name}" and "{one.name}" have other labels for the same breasts; give one data set.'
            )
        result.append(moved)
    return result


def ensemble(breasts: Sequence[Breasts], name: str = "ensemble") -> Breasts:
    """The mean of the scores of runs on the same breasts (Wu et al. 2019, section V)."""
    same = aligned(breasts)
    return replace(same[0], name=name, score={f: np.mean([one.score[f] for one in same], axis=0) for f in FINDINGS})


def biopsied(breasts: Breasts) -> np.ndarray:
    """Which breasts were biopsied, bool [N]: where the column `biopsied` is "1"; a breast without that cell where it
    has a finding, as labels are of biopsies (Wu et al. 2019, section II)."""
    labelled = (breasts.label["malignant"] == 1) | (breasts.label["benign"] == 1)
    told = np.array([row.get("biopsied") or "" for row in breasts.rows])
    return np.where(told == "", labelled, told == "1")


def population(breasts: Breasts, name: str) -> Breasts:
    """The part of the breasts that is one of POPULATIONS."""
    return breasts if name == "screening" else breasts[biopsied(breasts)]


def described(breasts: Breasts, name: str) -> str:
    """What one of POPULATIONS is made of here, in a sentence."""
    if name == "screening":
        return "Every labelled breast of the split."
    untold = sum(not row.get("biopsied") for row in breasts.rows)
    if not untold:
        return "Breasts that the column biopsied calls so."
    kind = "Breasts" if untold == len(breasts.rows) else "Breasts that the column biopsied calls so, and others"
    return f"{kind} with a malignant or benign finding: {untold} have no cell biopsied, and labels are of biopsies."


def both_classes(label: np.ndarray) -> bool:
    """Whether an AUC can be computed."""
    return bool((label == 1).any() and (label == 0).any())


def estimate(breasts: Breasts, finding: str, metric: str, runs: int = RUNS, seed: int = 0) -> dict[str, Any] | None:
    """One of METRICS with its 95 % interval, as `metrics.Interval.to_json` has it; None where a class is absent."""
    label, score = breasts.label[finding], breasts.score[finding]
    if not both_classes(label):
        return None
    return metrics.bootstrap(METRICS[metric], label, score, breasts.patient, runs, seed).to_json(label)


def measure(breasts: Breasts, runs: int = RUNS, seed: int = 0) -> dict[str, Any]:
    """AUC and PR AUC of both findings on both populations.

    Args:
        breasts: as `read` or `ensemble` gives them.
        runs: bootstrap draws of patients.
        seed: of the draws.

    Returns:
        {population: {"counts": {"breasts", "malignant", "benign", "both", "patients"}, finding: {"auc", "pr_auc"}}} for
        POPULATIONS and FINDINGS; an estimate is as of `estimate`, or None where a class is absent. "malignant"
        and "benign" count breasts with the finding, "both" those with the two.
    """
    result: dict[str, Any] = {}
    for name in POPULATIONS:
        part = population(breasts, name)
        malignant, benign = part.label["malignant"] == 1, part.label["benign"] == 1
        counts = {
            "breasts": len(part.rows), "malignant": int(malignant.sum()), "benign": int(benign.sum()),
            "both": int((malignant & benign).sum()), "patients": len(set(part.patient)),
        }  # fmt: skip
        measured = {f: {metric: estimate(part, f, metric, runs, seed) for metric in METRICS} for f in FINDINGS}
        result[name] = {"counts": counts, **measured}
    return result


def parts(breasts: Breasts, column: str) -> dict[str, Breasts]:
    """The breasts by their value in a column of the predictions, in the values' order; an empty one is "unknown".

    Raises:
        NotComparable: there is no such column, or its values are no groups: names of exams, numbers, dates.
    """
    columns = [name for name in breasts.rows[0] if name and name not in _NO_GROUPS]
    if column not in columns:
        raise NotComparable(f'the predictions have no groups by "{column}"; --by takes {", ".join(columns)}.')
    values = np.array([row[column] or "unknown" for row in breasts.rows])
    found = sorted(set(values), key=lambda value: (value == "unknown", value))
    if len(found) > MOST_GROUPS:  # also keeps ids and dates out of reports
        raise NotComparable(
            f'the column "{column}" has {len(found)} values, more than {MOST_GROUPS}; group them in the manifest first.'
        )
    return {str(value): breasts[values == value] for value in found}


def subgroups(breasts: Breasts, column: str, runs: int = RUNS, seed: int = 0) -> dict[str, dict[str, Any]]:
    """`measure` for each value of a column of the predictions (density, vendor, …); errors as of `parts`."""
    return {value: measure(part, runs, seed) for value, part in parts(breasts, column).items()}


def read_all(runs: Sequence[Path], split: str) -> list[Breasts]:
    """A split of all runs in one order, by the names of `compare.names_of`.

    Raises:
        NotComparable: see `names_of`, `read` and `aligned`.
    """
    return aligned([replace(read(run, split), name=name) for run, name in zip(runs, names_of(runs), strict=True)])


def write(
    runs: Sequence[Path], split: str = "test_random10", by: Sequence[str] = (), output: Path | None = None,
    readers: Path | None = None,
) -> None:  # fmt: skip
    """Print what `mammojax populations` prints: each run, their ensemble, and parts of the breasts by columns.

    Args:
        runs: exam runs, measured on the same breasts.
        split: as of `read`.
        by: columns of the predictions; their parts are measured of the ensemble, or of the only run.
        output: a .json file for the numbers: {"split", "populations": {name: what it is made of}, "runs": {name: as
            `measure`}, "by": {column: as `subgroups`}}, with `readers` also "readers": as "runs", of the breasts read.
        readers: a reader study's CSV; the breasts that were read are a further population (section V-A).

    Raises:
        NotComparable: as `read_all`, `parts` and `readers.matched`.
    """
    breasts = read_all(runs, split)
    if len(breasts) > 1:
        breasts.append(ensemble(breasts, f"ensemble of {len(breasts)}"))
    together = breasts[-1]
    for column in by:  # a mistyped one is told before the long computation
        parts(together, column)
    result: dict[str, Any] = {
        "split": split,
        "populations": {name: described(together, name) for name in POPULATIONS},
        "runs": {one.name: measure(one) for one in breasts},
        "by": {column: subgroups(together, column) for column in by},
    }
    if readers is not None:
        from mammojax.evaluate import readers as study  # which is made of this file

        who = study.read(readers)
        result["readers"] = {one.name: measure(study.matched(one, who)[0]) for one in breasts}
        result["populations"]["reader study"] = "The breasts of the readers' file."
    for section in sections(result, together.name):
        print(f"\n## {section.heading}\n{section.text}\n\n{text_table(section.header, section.rows)}")
    print(
        "\n" + textwrap.fill(f"In brackets 95 % intervals from {RUNS} bootstrap draws of patients. {CASE_MIX}", WIDTH)
    )
    if output:
        output.write_text(json.dumps(result, indent=2) + "\n")
        print(f"\n→ {output}", flush=True)


def sections(result: dict[str, Any], together: str) -> list[report.Section]:
    """A table for each population, of the runs and of each column's parts; one of the breasts that readers read.

    Args:
        result: as `write` puts it into its .json file.
        together: whose parts those of the columns are.
    """
    tables = [("run", result["runs"], name, name, "") for name in POPULATIONS]
    if "readers" in result:  # all of what was read
        tables.append(("run", result["readers"], POPULATIONS[0], "reader study", ""))
    tables += [
        (column, values, name, name, f", {together} by {column}")
        for column, values in result["by"].items()
        for name in POPULATIONS
    ]
    columns = ("breasts", "patients", *FINDINGS, *(f"{m} {f}" for m in ("AUC", "PR AUC") for f in FINDINGS))
    made = []
    for first, measured, part, name, further in tables:
        rows = []
        for value, found in measured.items():
            counts = [str(found[part]["counts"][key]) for key in ("breasts", "patients", *FINDINGS)]
            rows.append([value, *counts, *(interval_text(found[part][f][m]) for m in METRICS for f in FINDINGS)])
        heading = f"{name.capitalize()} population, {result['split']}{further}"
        text = f"{result['populations'][name]} Not to be compared with AUCs of another case mix."
        made.append(report.Section(heading, text, (first, *columns), rows, words=True))
    return made
