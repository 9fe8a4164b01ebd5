"""The exams' half of docs/findings.md: python -m benchmarks findings --task exams [--only ARM] [--seeds 0 1 2].

The nets of configs/exam_quickstart.py on its phantom exams. A seed changes data, split and initialisation together; all
arms of a seed share its data, its patch network and its BI-RADS network, which learns from OTHERS: exams of patients who
stand in no split of the arms. Each arm's AUC by breast, ten windows averaged, is compared with the plain arm's on the
same test breasts, with intervals from draws of patients (see findings.py).
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import exam_quickstart
from mammojax.evaluate import compare, populations

ARMS = {
    "plain": "view-wise+heatmaps",
    "no pretraining": "view-wise+heatmaps-scratch",
    "image only": "view-wise",
    "image only, no pretraining": "view-wise-scratch",
    "pretrained on its own exams": "view-wise+heatmaps",
    "image-wise": "image-wise+heatmaps",
    "breast-wise": "breast-wise+heatmaps",
    "joint": "joint+heatmaps",
}
OTHERS = {"exams": 960, "first": 10_000}  # half of them train; they overlap no seed's exams
# What is taken from what beside the plain arm: heatmaps and pretraining help each with and without the other.
AGAINST = dict.fromkeys(("image only, no pretraining", "pretrained on its own exams"), "no pretraining")


def _config(argument: str, seed: int, workdir: Path) -> ConfigDict:
    """An arm: the quickstart of exams whose patch and BI-RADS networks are the seed's."""
    config = exam_quickstart.get_config(argument)
    config.seed = config.data.seed = config.phantom.seed = seed
    config.data.data_dir = str(workdir / f"data_{seed}")
    return config


def run_arms(workdir: Path, seeds: Sequence[int], only: str | None, book: Path) -> list[dict[str, Any]]:
    """Run the arms that have no result yet; a row for each arm, seed and finding, then the differences."""
    from mammojax.run import run

    rows = [json.loads(line) for line in book.read_text().splitlines()] if book.exists() else []

    def once(arm: str, seed: int, config: ConfigDict, folder: Path) -> None:
        if any(row["arm"] == arm and row["seed"] == seed for row in rows):
            return
        started = time.perf_counter()
        results = run(config, folder)
        test = results.get("test_random10", results["test"])
        minutes = (time.perf_counter() - started) / 60
        for name in ("auc_malignant", "auc_benign", "auc", "accuracy"):
            if name in test:
                rows.append({"arm": arm, "seed": seed, "measure": name, **test[name], "minutes": minutes})
                with book.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")

    for seed in seeds:
        whole = _config("view-wise+heatmaps", seed, workdir)

        def part(name: str, others: dict[str, int], seed: int = seed, whole: ConfigDict = whole) -> str:
            """A network that arms share: its run folder, trained now where it is not yet."""
            config = whole[name].copy_and_resolve_references()
            with config.unlocked():
                config.data.update(whole.data.copy_and_resolve_references())
                config.data.kind, config.seed = whole[name].data.kind, seed
                config.phantom = ConfigDict(whole.phantom.to_dict() | others)
            network = f"{name} network{' of other exams' * bool(others)}"
            folder = workdir / f"exams_{network.replace(' ', '_')}_{seed}"
            once(network, seed, config, folder)
            return str(folder)

        for arm, argument in ARMS.items():
            if only in (None, arm):
                config = _config(argument, seed, workdir)
                config.patch_run = part("patch", {}) if "patch" in config else ""
                others = {} if arm.endswith("own exams") else OTHERS
                config.init_from = part("birads", others) if "birads" in config else ""
                once(arm, seed, config, _folder(workdir, arm, seed))
    return rows + _differences(workdir, seeds)


def _folder(workdir: Path, arm: str, seed: int) -> Path:
    return workdir / f"exams_{arm.replace(', ', '_').replace(' ', '_')}_{seed}"


def _scored(workdir: Path, arm: str, seed: int, finding: str) -> compare.Scored:
    """An arm's test breasts as `compare` takes images."""
    breasts = populations.read(_folder(workdir, arm, seed), "test_random10")
    rows = [row | {"image": f"{row['exam_id']} {row['laterality']}"} for row in breasts.rows]
    return compare.Scored(arm, rows, breasts.label[finding], breasts.score[finding], breasts.patient)


def _differences(workdir: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Each arm's AUC over its finished seeds and its difference from the plain (or AGAINST's) arm's, by finding."""
    rows: list[dict[str, Any]] = []

    def scored(arm: str, finding: str) -> dict[int, compare.Scored]:
        finished = [seed for seed in seeds if (_folder(workdir, arm, seed) / "metrics.json").is_file()]
        return {seed: _scored(workdir, arm, seed, finding) for seed in finished}

    for finding in populations.FINDINGS:
        for arm in ARMS:
            arms = {name: scored(name, finding) for name in dict.fromkeys(("plain", AGAINST.get(arm, "plain"), arm))}
            ours = arms[arm]
            if not ours:
                continue
            row = {"finding": finding, **over_seeds(arm, ours, {})}
            compared = [
                {"finding": finding, **over_seeds(arm, ours, theirs, name)}
                for name, theirs in arms.items()
                if name != arm
            ]
            rows += compared or [row]
    return rows


def over_seeds(
    arm: str, ours: dict[int, compare.Scored], theirs: dict[int, compare.Scored], against: str = ""
) -> dict[str, Any]:
    """An arm's AUC by seed and its mean, and the same of its difference from another arm on the seeds both have.

    The interval is of the test patients' chance, the spread (standard deviation over seeds) also of data and training.
    """

    def mean(repeats: list[tuple[compare.Scored, compare.Scored | None]]) -> dict[str, Any]:
        values = [compare.over_repeats([pair], runs=1).value for pair in repeats]
        mean = compare.over_repeats(repeats)
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return {"by_seed": values, "mean": mean.value, "low": mean.low, "high": mean.high, "spread": spread}

    row: dict[str, Any] = {"arm": arm, "seeds": sorted(ours), "auc": mean([(ours[s], None) for s in sorted(ours)])}
    if both := sorted(set(ours) & set(theirs)):
        row |= {"minus": against, "difference": mean([(ours[s], theirs[s]) for s in both])}
    return row
