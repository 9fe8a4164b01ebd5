"""The experiments of docs/findings.md: python -m benchmarks findings [--only ARM] [--seeds 0 1 2] [--workdir DIR].

With --task exams those of four-view exams, see _exam_findings.py; here those of single mammograms.

The nets of configs/quickstart.py on phantom mammograms of CONTRAST, where the plain arm is neither at chance nor
perfect; that factor was fixed before any other arm was run. One arm and seed at a time: a run that was stopped goes on,
a finished one is not run again. A seed changes data, split and initialisation together; all arms of a seed share its
data, and its patch classifiers where they start from the same one. Results are appended to findings.jsonl.
Then each arm's AUC is compared with the plain arm's on the same test images: the mean difference over seeds, with an
interval from bootstrap draws of patients, each seed's own (paired; Shen et al. report such differences too).
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from benchmarks import _exam_findings as exam_findings
from configs import patch_resnet, quickstart
from mammojax.evaluate import compare, two_step

CONTRAST = 0.6
RESIDUAL, VGG = "32-32-128x1,32-32-128x1", "64x1,32x1"
# What an arm changes: the patch run it starts from ("" for none), the head, and the words of `_config`.
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shuffled labels": {"patch": "resnet50_s10_shuffled"},
    "random weights": {"patch": ""},
    "random weights, lesion labels beside": {"patch": ""},
    "S1 patches": {"patch": "resnet50_s1"},
    "S1g patches": {"patch": "resnet50_s1g"},
    "all layers at once": {},
    "heatmap, residual blocks": {"head": f"heatmap2,{RESIDUAL}"},
    "heatmap, FC": {"head": "heatmap2,fc64-32"},
    "ResNet, VGG head": {"head": VGG},
    "VGG, small VGG head": {"patch": "vgg16_s10", "head": VGG},
    "VGG, large VGG head": {"patch": "vgg16_s10", "head": "128x3,128x3"},
    "VGG, residual head": {"patch": "vgg16_s10"},
}
FOUR_BEST = ("plain", "ResNet, VGG head", "VGG, small VGG head", "VGG, residual head")  # the paper's four


def _quickstart(seed: int, workdir: Path) -> ConfigDict:
    config = quickstart.get_config()
    config.seed = config.data.seed = config.phantom.seed = seed
    config.phantom.contrast = CONTRAST
    config.data.data_dir = str(workdir / f"data_{seed}")
    return config


def _trunk(model: ConfigDict, trunk: str) -> None:
    model.trunk = trunk
    if trunk == "vgg16":
        model.width = 8  # its convolutions at full resolution cost ten times those of the ResNet


def _patch_config(name: str, seed: int, workdir: Path) -> ConfigDict:
    """A patch run: trunk_set or trunk_set_shuffled."""
    trunk, patch_set, *shuffled = name.split("_")
    config = _quickstart(seed, workdir)
    patch = config.patch
    with patch.unlocked():
        patch.data = config.data.copy_and_resolve_references()
        patch.phantom, patch.seed = config.phantom, seed
    patch.data.kind, patch.data.shuffle_labels = f"patches_{patch_set}", bool(shuffled)
    if patch_set != "s10":  # a tenth of the patches: as many steps
        patch.stages.stage1.epochs *= 10
    _trunk(patch.model, trunk)
    return patch


def _config(arm: str, seed: int, workdir: Path) -> ConfigDict:
    """The quickstart's whole-image run with one thing changed."""
    change = ARMS[arm]
    patch = change.get("patch", "resnet50_s10")
    config = _quickstart(seed, workdir)
    del config.patch
    config.model.head = change.get("head", RESIDUAL)
    config.gallery = 0
    if patch:
        config.init_from = str(workdir / f"{patch}_{seed}")
        _trunk(config.model, patch.split("_")[0])
    if config.model.head.startswith("heatmap"):  # the heatmap is the patch classifier's: it stays with the trunk
        config.stages.stage1.update(learn=("head/(?!heatmap/).*",), freeze=("trunk/.*", "head/heatmap/.*"))
    if config.model.trunk == "vgg16":
        config.stages.stage2.fix_statistics = ()
    config.data.shuffle_labels = arm == "shuffled labels"
    if arm.startswith("random weights"):  # nothing is worth freezing
        stage = patch_resnet.stage("all layers", (".*",), (), 1e-3, 11)
        config.stages = ConfigDict({"stage1": stage})
        config.model.auxiliary_classes = 5 if arm.endswith("beside") else 0
    if arm == "all layers at once":
        config.stages.stage2.epochs = 11
        config.stages = ConfigDict({"stage1": config.stages.stage2})
    return config


def main(arguments: Sequence[str]) -> list[dict]:
    """Run the arms that have no result yet; a row for each arm and seed, then the differences from the plain arm."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks findings")
    parser.add_argument("--task", choices=["mammograms", "exams"], default="mammograms")
    parser.add_argument("--only", choices=[*ARMS, *exam_findings.ARMS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/findings"))
    args = parser.parse_args(arguments)
    from mammojax.run import run

    args.workdir.mkdir(parents=True, exist_ok=True)
    if args.only and args.only not in (exam_findings.ARMS if args.task == "exams" else ARMS):
        parser.error(f'--task {args.task} has no arm "{args.only}"')
    if args.task == "exams":
        return exam_findings.run_arms(args.workdir, args.seeds, args.only, args.workdir / "exam_findings.jsonl")
    book = args.workdir / "findings.jsonl"
    rows = [json.loads(line) for line in book.read_text().splitlines()] if book.exists() else []

    def once(arm: str, seed: int, config: ConfigDict, folder: Path) -> None:
        if any(row["arm"] == arm and row["seed"] == seed for row in rows):
            return
        started = time.perf_counter()
        test = run(config, folder)["test"]
        name = "auc" if "auc" in test else "accuracy"
        row = {"arm": arm, "seed": seed, "measure": name, **test[name], "minutes": (time.perf_counter() - started) / 60}
        rows.append(row)
        with book.open("a") as file:
            file.write(json.dumps(row) + "\n")

    for seed in args.seeds:
        for arm in [args.only] if args.only else ARMS:
            if patch := ARMS[arm].get("patch", "resnet50_s10"):
                once(f"patch {patch}", seed, _patch_config(patch, seed, args.workdir), args.workdir / f"{patch}_{seed}")
            once(arm, seed, _config(arm, seed, args.workdir), _folder(args.workdir, arm, seed))
    return rows + _differences(args.workdir, args.seeds)


def _folder(workdir: Path, arm: str, seed: int) -> Path:
    return workdir / f"{arm.replace(', ', '_').replace(' ', '_')}_{seed}"


def _differences(workdir: Path, seeds: Sequence[int]) -> list[dict]:
    """Each arm's mean AUC over the seeds, and its mean difference from the plain arm's with an interval.

    Beside the trained arms those that come of them: flips averaged, a breast's two views averaged, the four best as an
    ensemble (flips averaged, as the paper's), and the two-step forest on the plain arm's patch classifier.
    """
    rows: list[dict] = []

    def row(arm: str, a: list[compare.Scored], b: list[compare.Scored] | None, against: str = "plain") -> None:
        mean = compare.over_repeats([(one, None) for one in a])
        found: dict[str, Any] = {
            "arm": arm,
            "seeds": len(a),
            "mean_auc": mean.value,
            "low": mean.low,
            "high": mean.high,
        }
        if b:
            gap = compare.over_repeats(list(zip(a, b, strict=True)))
            found |= {"minus": against, "difference": gap.value, "from": gap.low, "to": gap.high}
        rows.append(found)

    def read(arm: str, split: str = "test") -> list[compare.Scored]:
        return [compare.read(_folder(workdir, arm, seed), split) for seed in seeds]

    def done(arm: str) -> bool:
        return all((_folder(workdir, arm, seed) / "metrics.json").is_file() for seed in seeds)

    if not done("plain"):
        return rows
    plain, flips = read("plain"), read("plain", "test_flips")
    for arm in filter(done, ARMS):
        row(arm, read(arm), None if arm == "plain" else plain)
    row("plain, flips averaged", flips, plain)
    if all(map(done, FOUR_BEST)):
        group = [read(arm, "test_flips") for arm in FOUR_BEST]
        row("ensemble of four, flips", [compare.ensemble(m) for m in zip(*group, strict=True)], flips, "plain, flips")
    for seed in seeds:
        folder = workdir / f"two-step_{seed}"
        if not (folder / "metrics.json").is_file():
            two_step.two_step(_folder(workdir, "plain", seed), folder)
    row("two-step forest", [compare.read(workdir / f"two-step_{seed}", "test") for seed in seeds], plain)
    gains = [compare.two_views(compare.breasts(one))["gain"] for one in plain]
    for seed, gain in zip(seeds, gains, strict=True):
        rows.append(
            {"arm": "plain, two views - one", "seed": seed, "difference": gain.value, "from": gain.low, "to": gain.high}
        )
    return rows
