"""The exams' half of docs/findings.md: python -m benchmarks findings --task exams [--only ARM] [--seeds 0 1 2].

The nets of configs/exam_quickstart.py on its phantom exams. A seed changes data, split and initialisation together;
all arms of a seed share its data, its patch network and its BI-RADS network, which learns from OTHERS: exams of
patients in no split of the arms. Each arm's AUC by breast, ten windows averaged, is compared with the plain
arm's on the same test breasts, with intervals from draws of patients (see findings.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from benchmarks._arms import Book, over_seeds
from mammojax.configs import exam_quickstart
from mammojax.evaluate.table import Predictions, read_breasts
from mammojax.vocabulary import FINDINGS

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
# The arms that an arm is compared with, beside the plain one: the effect of heatmaps with and without pretraining,
# and of pretraining with and without heatmaps.
AGAINST = dict.fromkeys(("image only, no pretraining", "pretrained on its own exams"), "no pretraining")


def _config(argument: str, seed: int, workdir: Path) -> ConfigDict:
    """The config of an arm: the exam quickstart with the seed's patch and BI-RADS networks."""
    config = exam_quickstart.get_config(argument)
    config.seed = config.data.seed = config.phantom.seed = seed
    config.data.data_dir = str(workdir / f"data_{seed}")
    return config


def run_arms(workdir: Path, seeds: Sequence[int], only: Sequence[str], book: Path) -> list[dict[str, Any]]:
    """Run the arms without a result; return a row for each arm, seed and finding, then the differences."""
    results = Book(book)
    for seed in seeds:
        whole = _config("view-wise+heatmaps", seed, workdir)

        def part(name: str, others: dict[str, int], seed: int = seed, whole: ConfigDict = whole) -> str:
            """The run folder of a network that arms share, trained now if it is missing."""
            config = whole[name].copy_and_resolve_references()
            with config.unlocked():
                config.data.update(whole.data.copy_and_resolve_references())
                config.data.kind, config.seed = whole[name].data.kind, seed
                config.phantom = ConfigDict(whole.phantom.to_dict() | others)
            network = f"{name} network{' of other exams' * bool(others)}"
            folder = workdir / f"exams_{network.replace(' ', '_')}_{seed}"
            results.once(network, seed, config, folder)
            return str(folder)

        for arm, argument in ARMS.items():
            if not only or arm in only:
                config = _config(argument, seed, workdir)
                config.patch_run = part("patch", {}) if "patch" in config else ""
                others = {} if arm.endswith("own exams") else OTHERS
                config.init_from = part("birads", others) if "birads" in config else ""
                results.once(arm, seed, config, _folder(workdir, arm, seed))
    return results.rows + _differences(workdir, seeds)


def _folder(workdir: Path, arm: str, seed: int) -> Path:
    return workdir / f"exams_{arm.replace(', ', '_').replace(' ', '_')}_{seed}"


def _differences(workdir: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Each arm's AUC over its finished seeds and its difference from the plain (or AGAINST's) arm's, by finding."""
    rows: list[dict[str, Any]] = []

    def scored(arm: str) -> dict[int, Predictions]:
        finished = [seed for seed in seeds if (_folder(workdir, arm, seed) / "metrics.json").is_file()]
        return {seed: read_breasts(_folder(workdir, arm, seed), "test_random10") for seed in finished}

    for finding in FINDINGS:
        for arm in ARMS:
            arms = {name: scored(name) for name in dict.fromkeys(("plain", AGAINST.get(arm, "plain"), arm))}
            ours = arms[arm]
            if not ours:
                continue
            others = [name for name in arms if name != arm] or [""]
            rows += [{"finding": finding, **over_seeds(arm, ours, arms.get(o, {}), o, finding)} for o in others]
    return rows
