"""The exams' half of docs/findings.md: python -m benchmarks findings --task exams [--only ARM] [--seeds 0 1 2].

The nets of configs/exam_quickstart.py on its phantom exams, a task that was fixed when only the plain arm, view-wise
with heatmaps and BI-RADS pretraining, had been run; the arm with more pretraining exams was thought of when the others
had been. A seed changes data, split and initialisation together; all arms of a seed share its data, its patch network
and (but for that one) its BI-RADS network. Each arm's AUC by breast, ten windows averaged, is compared with the plain
arm's on the same test breasts, with intervals from draws of patients (see findings.py).
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import exam_quickstart
from mammojax.evaluate import compare, populations

ARMS = {
    "plain": "view-wise+heatmaps",
    "image only": "view-wise",
    "no pretraining": "view-wise+heatmaps-scratch",
    "image only, no pretraining": "view-wise-scratch",
    "image-wise": "image-wise+heatmaps",
    "breast-wise": "breast-wise+heatmaps",
    "joint": "joint+heatmaps",
    "four times the pretraining exams": "view-wise+heatmaps",
}
MORE = 1600  # exams of that arm's BI-RADS network; its training exams hold the other arms'
# What is taken from what beside the plain arm: heatmaps and pretraining help each with and without the other.
AGAINST = dict.fromkeys(("image only, no pretraining", "four times the pretraining exams"), "no pretraining")


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

        def part(name: str, exams: int, seed: int = seed, whole: ConfigDict = whole) -> str:
            """A network that arms share: its run folder, trained now where it is not yet."""
            config = whole[name].copy_and_resolve_references()
            with config.unlocked():
                config.data.update(whole.data.copy_and_resolve_references())
                config.data.kind, config.seed = whole[name].data.kind, seed
                config.phantom = ConfigDict(whole.phantom.to_dict() | {"exams": exams})
            more = f" of {exams} exams" * (exams != whole.phantom.exams)
            folder = workdir / f"exams_{name}{more.replace(' ', '_')}_{seed}"
            once(f"{name} network{more}", seed, config, folder)
            return str(folder)

        for arm, argument in ARMS.items():
            if only in (None, arm):
                config, exams = _config(argument, seed, workdir), whole.phantom.exams
                config.patch_run = part("patch", exams) if "patch" in config else ""
                exams = MORE if arm.startswith("four times") else exams
                config.init_from = part("birads", exams) if "birads" in config else ""
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
    """Each arm's mean AUC over the seeds and its mean difference from the plain (or AGAINST's) arm's, by finding."""
    rows: list[dict[str, Any]] = []
    done = [arm for arm in ARMS if all((_folder(workdir, arm, s) / "metrics.json").is_file() for s in seeds)]
    for finding in populations.FINDINGS:
        for arm in done:
            ours = [_scored(workdir, arm, seed, finding) for seed in seeds]
            mean = compare.over_repeats([(one, None) for one in ours])
            row = {"arm": arm, "finding": finding, "seeds": len(ours), "mean_auc": mean.value}
            row |= {"low": mean.low, "high": mean.high}
            for against in ("plain", AGAINST.get(arm, "")):
                if against in done and against != arm:
                    theirs = [_scored(workdir, against, seed, finding) for seed in seeds]
                    gap = compare.over_repeats(list(zip(ours, theirs, strict=True)))
                    difference = {"minus": against, "difference": gap.value, "from": gap.low, "to": gap.high}
                    rows.append(row | difference)
            if arm == "plain":
                rows.append(row)
    return rows
