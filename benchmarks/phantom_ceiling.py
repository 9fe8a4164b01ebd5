"""What knowing all that is drawn would score on phantom exams: python -m benchmarks phantom_ceiling [--exams N].

Occult findings label a breast and are not drawn, and benign calcifications look alike whether biopsied or not. Half of
the exams give the share of labelled breasts for each sight of both breasts, the other half is scored by it.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mammojax import metrics
from mammojax.data.phantom_exams import PhantomExam, exam


def _sight(of: PhantomExam, side: str) -> tuple:
    """What a breast and the other one show: kind and look of every drawn finding, in no order."""
    sides = (side, "R" if side == "L" else "L")
    return tuple(
        tuple(sorted((f.kind, f.pathology == "MALIGNANT") for f in of.breasts[one] if f.visible)) for one in sides
    )


def main(arguments: Sequence[str]) -> list[dict]:
    """A row for each finding: its AUC by breast."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks phantom_ceiling")
    parser.add_argument("--exams", type=int, default=40_000)
    count = parser.parse_args(arguments).exams
    breasts = [(_sight(one, s), {f.pathology for f in one.breasts[s]})
               for one in (exam(0, index) for index in range(count)) for s in "LR"]  # fmt: skip
    rows = []
    for finding in ("MALIGNANT", "BENIGN"):
        seen: dict[tuple, list[int]] = defaultdict(list)
        for sight, found in breasts[:count]:
            seen[sight].append(finding in found)
        label = np.array([finding in found for _, found in breasts[count:]], int)
        score = np.array([np.mean(seen.get(sight, [0.5])) for sight, _ in breasts[count:]])
        rows.append({"finding": finding.lower(), "exams": count, "auc": metrics.roc_auc(label, score)})
    return rows
