"""Breasts scored by exam networks: read from finished runs, averaged over runs, measured on parts of a test set.

Wu et al. 2019, section V: AUC and PR AUC of malignant/not and benign/not by breast, on the screening population (every
exam of the split) and on the biopsied one (breasts that were biopsied). Our intervals are over patients.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mammojax.evaluate.compare import NotComparable

FINDINGS = ("malignant", "benign")
KNOWN = ("exam_id", "patient_id", "laterality", "views", "p_benign", "p_malignant", "benign", "malignant")
"""Columns of an exam run's predictions/<split>.csv, a row a breast; after them biopsied, density, birads and whatever
other columns the manifest had."""


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
        NotComparable: the run has no such predictions, or is no exam run.
    """
    path = run / "predictions" / f"{split}.csv"
    if not path.is_file():
        raise NotComparable(f'"{run}" has no predictions/{split}.csv; name the folder of a finished exam run.')
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in KNOWN if name not in (reader.fieldnames or ())]:
            raise NotComparable(f'"{run}" is no exam run: predictions/{split}.csv has no column {missing[0]}.')
        rows = [row for row in reader if row["benign"] != "" and row["malignant"] != ""]
    if not rows:
        raise NotComparable(f'"{run}": predictions/{split}.csv has no labelled breast; nothing can be measured.')
    return Breasts(
        run.resolve().name, rows, {f: np.array([int(r[f]) for r in rows]) for f in FINDINGS},
        {f: np.array([float(r[f"p_{f}"]) for r in rows]) for f in FINDINGS}, np.array([r["patient_id"] for r in rows]),
    )  # fmt: skip


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
