"""The AUC of a reader who knew all that is drawn in phantom exams: python -m benchmarks phantom_ceiling [--exams N].

Occult findings label a breast and are not drawn, and benign calcifications look alike whether biopsied or not. Half of
the exams give the share of labelled breasts for each sight of both breasts; these shares score the other half.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mammojax import metrics
from mammojax.data.phantom_exams import PhantomExam, exam


def _sight(phantom_exam: PhantomExam, side: str) -> tuple:
    """The drawn findings of a breast and of the other one: kind and malignancy of each, without an order."""
    sides = (side, "R" if side == "L" else "L")
    return tuple(
        tuple(sorted((f.kind, f.pathology == "MALIGNANT") for f in phantom_exam.breasts[each_side] if f.visible))
        for each_side in sides
    )


def main(arguments: Sequence[str]) -> list[dict]:
    """A row for each finding: its AUC by breast."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks phantom_ceiling")
    parser.add_argument("--exams", type=int, default=40_000)
    count = parser.parse_args(arguments).exams
    breasts = [(_sight(phantom_exam, side), {f.pathology for f in phantom_exam.breasts[side]})
               for phantom_exam in (exam(0, index) for index in range(count)) for side in "LR"]  # fmt: skip
    rows = []
    for finding in ("MALIGNANT", "BENIGN"):
        labels_by_sight: dict[tuple, list[int]] = defaultdict(list)
        for sight, pathologies in breasts[:count]:
            labels_by_sight[sight].append(finding in pathologies)
        label = np.array([finding in pathologies for _, pathologies in breasts[count:]], int)
        score = np.array([np.mean(labels_by_sight.get(sight, [0.5])) for sight, _ in breasts[count:]])
        rows.append({"finding": finding.lower(), "exams": count, "auc": metrics.roc_auc(label, score)})
    return rows
