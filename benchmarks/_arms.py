"""Shared by the findings of both tasks: the book of finished arms, and an arm's AUC over seeds."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mammojax.evaluate import compare
from mammojax.evaluate.table import Predictions

MEASURES = ("auc_malignant", "auc_benign", "auc", "accuracy")


class Book:
    """Results of arms, one line of JSON each; an arm and seed in the book are not run again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = [json.loads(line) for line in path.read_text().splitlines()]

    def once(self, arm: str, seed: int, config: ConfigDict, folder: Path) -> None:
        """Run an arm's config in its folder and write down its scores on the test split."""
        from mammojax.run import run

        if any(row["arm"] == arm and row["seed"] == seed for row in self.rows):
            return
        started = time.perf_counter()
        results = run(config, folder)
        test = results.get("test_random10", results["test"])
        minutes = (time.perf_counter() - started) / 60
        measures = [name for name in MEASURES if name in test]
        for name in measures if "auc_malignant" in measures else measures[:1]:
            self.rows.append({"arm": arm, "seed": seed, "measure": name, **test[name], "minutes": minutes})
            with self._path.open("a") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")


def over_seeds(
    arm: str,
    ours: dict[int, Predictions],
    theirs: dict[int, Predictions],
    against: str = "",
    finding: str = "malignant",
) -> dict[str, Any]:
    """An arm's AUC by seed with its mean, and likewise its difference from another arm on their shared seeds.

    The interval covers the chance of the test patients; the standard deviation over seeds also that of data and
    training.
    """

    def mean(repeats: list[tuple[Predictions, Predictions | None]]) -> dict[str, Any]:
        values = [compare.over_repeats([pair], runs=1, finding=finding).value for pair in repeats]
        mean = compare.over_repeats(repeats, finding=finding)
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return {"by_seed": values, "mean": mean.value, "low": mean.low, "high": mean.high, "spread": spread}

    row: dict[str, Any] = {"arm": arm, "seeds": sorted(ours), "auc": mean([(ours[s], None) for s in sorted(ours)])}
    if both := sorted(set(ours) & set(theirs)):
        row |= {"minus": against, "difference": mean([(ours[s], theirs[s]) for s in both])}
    return row
