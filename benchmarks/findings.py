"""The experiments of docs/findings.md: python -m benchmarks findings [--only ARM …] [--seeds 0 1 2] [--workdir DIR].

--task exams runs those of four-view exams, see _exam_findings.py; this file has those of single mammograms.

The nets of configs/quickstart.py on phantom mammograms of CONTRAST, where the plain arm is neither at chance nor
perfect; CONTRAST was fixed before any other arm was run. One arm and seed runs at a time: a stopped run goes on, a
finished one is not run again. A seed changes data, split and initialisation together; all arms of a seed share its
data, and its patch classifiers if they start from the same one. Results are appended to findings.jsonl.
Then each arm's AUC is compared with another arm's (the plain arm's by default) on the same test images: the
difference by seed, its mean over seeds with an interval from bootstrap draws of patients, each seed's own (paired; Shen
et al. report such differences too), and its spread over seeds.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks import _exam_findings as exam_findings
from benchmarks._arms import Book, over_seeds
from mammojax.configs import base, quickstart
from mammojax.data import dataset
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.evaluate import compare, table, two_step
from mammojax.models import classifiers
from mammojax.train.checkpoint import restore_best

CONTRAST, EASIER = 0.6, 1.0
RESIDUAL, VGG = "32-32-128x1,32-32-128x1", "64x1,32x1"
# Patch classifiers: TRUNK_SET, and the changed fields.
PATCHES: dict[str, dict[str, Any]] = {
    "resnet50_s10": {},
    "resnet50_s10_shuffled": {"data.shuffle_labels": True},
    "resnet50_s1g": {},
    "vgg16_s10": {},
    "narrow_s10": {},
    "narrow_s1": {},
    "narrow_s1_moved": {"augment.translation": 0.25},
    "wide_s10": {},
    "wide_s1": {},
    "wide_s1_moved": {"augment.translation": 0.25},
    "double_s10": {},
}
# Half as wide networks on the quickstart's own contrast, EASIER, for arms that would take too long: the enlargement of
# the images, and the number of patients. In "wide" ones a patch has 7 x 7 positions at the trunk's end as in the paper,
# not 2 x 2. (At CONTRAST the narrow network itself reached 0.58 on seed 0, too low to compare arms.)
NARROW = {"narrow": (1, 340), "wide": (3.5, 120), "double": (2, 170)}
# Random weights: as many updates as the narrow arm's patch and whole-image network together, a learning rate that falls
# to zero, and running statistics averaged over the last hundred batches.
ANNEALED = {"stages.stage1.schedule": "cosine", "stages.stage1.epochs": 32, "model.bn_momentum": 0.99}
# The changes of an arm: the run it starts from (a patch classifier or another arm; "" for none), the head, the stages
# that it runs (by default both), fields of the config; and the arm it is compared with.
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shuffled labels": {"start": "resnet50_s10_shuffled", "set": {"data.shuffle_labels": True}},
    "S1g patches": {"start": "resnet50_s1g"},
    "heatmap, residual blocks": {"head": f"heatmap2,{RESIDUAL}"},
    "heatmap, FC": {"head": "heatmap2,fc64-32"},
    "ResNet, VGG head": {"head": VGG},
    "VGG, small VGG head": {"start": "vgg16_s10", "head": VGG},
    "VGG, large VGG head": {"start": "vgg16_s10", "head": "128x3,128x3"},
    "VGG, residual head": {"start": "vgg16_s10"},
    "narrow": {"start": "narrow_s10", "minus": ""},
    "narrow, all layers at once": {
        "start": "narrow_s10", "minus": "narrow", "stages": ("stage2",), "set": {"stages.stage2.epochs": 11},
    },
    "narrow, all layers at once, new ones at 1e-3": {
        "start": "narrow_s10", "minus": "narrow", "stages": ("stage2",),
        "set": {
            "stages.stage2.epochs": 11, "stages.stage2.learning_rate": 1e-3, "stages.stage2.slow": ("trunk/.*",),
            "stages.stage2.slow_factor": 0.1,
        },
    },
    "narrow, S1 patches": {"start": "narrow_s1", "minus": "narrow"},
    "narrow, S1 patches, translated": {"start": "narrow_s1_moved", "minus": "narrow"},
    "narrow, random weights": {"start": "", "minus": "narrow", "stages": ("all",), "set": ANNEALED},
    "narrow, random weights, lesion labels beside": {
        "start": "", "minus": "narrow", "stages": ("all",), "set": ANNEALED | {"model.auxiliary_classes": 5},
    },
    "wide": {"start": "wide_s10", "minus": ""},
    "wide, S1 patches": {"start": "wide_s1", "minus": "wide"},
    "wide, S1 patches, translated": {"start": "wide_s1_moved", "minus": "wide"},
    "batches of 2, new layers": {
        "start": "double_s10", "minus": "", "stages": ("stage1",),
        "set": {"batch": 2, "stages.stage1.epochs": 3, "stages.stage1.learning_rate": 3e-4},
    },
}  # fmt: skip
# Stage 2 on batches of 2, as in the paper: do the trunk's BatchNorms keep the patches' statistics, and which kernels
# decay?
for fixed in (True, False):
    for decay in (".*", "head/.*"):
        name = f"batches of 2, {'fixed' if fixed else 'moving'} statistics, "
        ARMS[name + f"decay on {'all' if decay == '.*' else 'new'} layers"] = {
            "start": "batches of 2, new layers", "stages": ("stage2",), "minus": "batches of 2, new layers",
            "set": {
                "batch": 2, "stages.stage2.weight_decay": 1e-2, "stages.stage2.decay": (decay,),
                "stages.stage2.fix_statistics": ("trunk/.*",) if fixed else (),
            },
        }  # fmt: skip
FOUR_BEST = ("plain", "ResNet, VGG head", "VGG, small VGG head", "VGG, residual head")  # the paper's four


def _quickstart(seed: int, workdir: Path, trunk: str) -> ConfigDict:
    """The quickstart on the seed's phantom, with a trunk of PATCHES."""
    config = quickstart.get_config()
    config.seed = config.data.seed = config.phantom.seed = seed
    config.phantom.contrast = CONTRAST
    config.data.data_dir = str(workdir / f"data_{seed}")
    config.gallery = 0
    if trunk in NARROW:
        scale, config.phantom.patients = NARROW[trunk]
        config.phantom.contrast = EASIER
        config.data.update(size=(round(288 * scale), round(224 * scale)), patch_size=round(64 * scale))
        config.model.width = config.patch.model.width = 8
    if trunk == "vgg16":
        config.model.trunk = config.patch.model.trunk = trunk
        config.model.width = config.patch.model.width = 8  # at full resolution its convolutions take ten times as long
        config.stages.stage2.fix_statistics = ()
    return config


def _patch_config(name: str, seed: int, workdir: Path) -> ConfigDict:
    """A patch run of PATCHES."""
    trunk, patch_set = name.split("_")[:2]
    config = _quickstart(seed, workdir, trunk)
    patch = config.patch
    with patch.unlocked():
        patch.data = config.data.copy_and_resolve_references()
        patch.phantom, patch.seed = config.phantom, seed
    patch.data.kind = f"patches_{patch_set}"
    if patch_set != "s10":  # a tenth of the patches: as many steps
        patch.stages.stage1.epochs *= 10
    patch.update_from_flattened_dict(PATCHES[name])
    return patch


def _config(arm: str, seed: int, workdir: Path) -> ConfigDict:
    """The quickstart's whole-image run with the arm's changes."""
    change = ARMS[arm]
    start = change.get("start", "resnet50_s10")
    patch = ARMS[start]["start"] if start in ARMS else start
    config = _quickstart(seed, workdir, patch.split("_")[0] or arm.split(",")[0])
    del config.patch
    config.model.head = change.get("head", RESIDUAL)
    if start:
        config.init_from = str(_folder(workdir, start, seed))
    if config.model.head.startswith("heatmap"):  # the heatmap is the patch classifier's: it stays with the trunk
        config.stages.stage1.update(learn=("head/(?!heatmap/).*",), freeze=("trunk/.*", "head/heatmap/.*"))
    if change.get("stages") == ("all",):  # there is nothing worth freezing
        config.stages = ConfigDict({"stage1": base.stage("all layers", (".*",), (), 1e-3, 11)})
    config.update_from_flattened_dict(change.get("set", {}))
    if change.get("stages", ("all",)) != ("all",):
        config.stages = ConfigDict({stage: config.stages[stage] for stage in change["stages"]})
    return config


def main(arguments: Sequence[str]) -> list[dict]:
    """Run the arms without a result; return a row for each arm and seed, then the differences."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks findings")
    parser.add_argument("--task", choices=["mammograms", "exams"], default="mammograms")
    parser.add_argument("--only", nargs="+", choices=[*ARMS, *exam_findings.ARMS], default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/findings"))
    args = parser.parse_args(arguments)
    args.workdir.mkdir(parents=True, exist_ok=True)
    arms = exam_findings.ARMS if args.task == "exams" else ARMS
    for name in args.only:
        if name not in arms:
            parser.error(f'--task {args.task} has no arm "{name}"')
    if args.task == "exams":
        return exam_findings.run_arms(args.workdir, args.seeds, args.only, args.workdir / "exam_findings.jsonl")
    book = Book(args.workdir / "findings.jsonl")

    def train(arm: str, seed: int) -> None:
        """Train an arm, and first the run that it starts from."""
        folder = _folder(args.workdir, arm, seed)
        if arm in PATCHES:
            book.once(f"patch {arm}", seed, _patch_config(arm, seed, args.workdir), folder)
            return
        if start := ARMS[arm].get("start", "resnet50_s10"):
            train(start, seed)
        book.once(arm, seed, _config(arm, seed, args.workdir), folder)

    for seed in args.seeds:
        for arm in args.only or ARMS:
            train(arm, seed)
    return book.rows + _differences(args.workdir, args.seeds) + _off_centre(args.workdir, args.seeds)


def _folder(workdir: Path, arm: str, seed: int) -> Path:
    return workdir / f"{arm.replace(', ', '_').replace(' ', '_')}_{seed}"


def _differences(workdir: Path, seeds: Sequence[int]) -> list[dict]:
    """Each arm's AUC over its finished seeds, and its difference from another arm's.

    The rows include arms derived from the trained ones: flips averaged, a breast's two views averaged, the four best as
    an ensemble (flips averaged, as the paper's), and the two-step forest on the plain arm's patch classifier.
    """

    def scored(arm: str, split: str = "test") -> dict[int, table.Predictions]:
        finished = [seed for seed in seeds if (_folder(workdir, arm, seed) / "metrics.json").is_file()]
        return {seed: table.read_images(_folder(workdir, arm, seed), split) for seed in finished}

    rows: list[dict] = []
    plain, flips = scored("plain"), scored("plain", "test_flips")
    for arm, change in ARMS.items():
        if ours := scored(arm):
            against = change.get("minus", "plain")
            rows.append(over_seeds(arm, ours, {} if against in ("", arm) else scored(against), against))
    if not plain:
        return rows
    rows.append(over_seeds("plain, flips averaged", flips, plain, "plain"))
    four = [scored(arm, "test_flips") for arm in FOUR_BEST]
    if together := set.intersection(*map(set, four)):
        mean = {seed: table.ensemble([predictions[seed] for predictions in four]) for seed in together}
        rows.append(over_seeds("ensemble of four, flips", mean, flips, "plain, flips"))
    for seed in plain:
        folder = workdir / f"two-step_{seed}"
        if not (folder / "metrics.json").is_file():
            two_step.two_step(_folder(workdir, "plain", seed), folder)
    rows.append(over_seeds("two-step forest", scored("two-step"), plain, "plain"))
    for seed, predictions in plain.items():
        gain = compare.two_views(table.by_breast(predictions))["gain"]
        rows.append(
            {"arm": "plain, two views - one", "seed": seed, "difference": gain.value, "from": gain.low, "to": gain.high}
        )
    return rows


def _off_centre(workdir: Path, seeds: Sequence[int]) -> list[dict]:
    """How often a patch network calls a patch a lesion, by the distance of its centre from a test lesion's, in shares
    of its side.

    The row "background" is for the background patches of S10.
    """
    rows = []
    for name in PATCHES:
        if name.startswith("vgg16") or "shuffled" in name or name.endswith("s1g"):
            continue
        for seed in seeds:
            folder = _folder(workdir, name, seed)
            if not (folder / "metrics.json").is_file():
                continue
            config, facts, variables = restore_best(folder)
            apply = classifiers.make_apply(classifiers.build(config.model), facts["mean"], config.model.channels)
            side = config.data.patch_size

            def called(patches: list[np.ndarray], apply: Any = apply, variables: Any = variables) -> float:
                batches = [np.stack(patches[k : k + 32]) for k in range(0, len(patches), 32)]
                answers = np.concatenate([np.asarray(apply(variables, batch[..., None])) for batch in batches])
                return float((answers.argmax(1) != 0).mean())

            recipe = Recipe.of_run(config, folder).of_kind(
                "patches_s10"
            )  # an S1 network's run may not have prepared it
            whole, s10 = map(dataset.Prepared, prepare(recipe))
            background = [example["image"][..., 0] for example in s10.source("test") if example["label"] == 0]
            row: dict[str, Any] = {"patch net": name, "seed": seed, "background": called(background)}
            for share in (0, 0.125, 0.25, 0.375):
                row[f"off by {share:g}"] = called(_around_lesions(whole, side, round(share * side)))
            rows.append(row)
    return rows


def _around_lesions(whole: dataset.Prepared, side: int, distance: int) -> list[np.ndarray]:
    """Patches uint16 [side, side] whose centre is `distance` pixels above, below, left and right of a lesion's."""
    patches = []
    for example in whole.source("test"):
        rows, columns = np.nonzero(example["masks"][..., 0])
        if not len(rows):
            continue
        padded = np.pad(example["image"][..., 0], side)
        y, x = round(float(rows.mean())) + side - side // 2, round(float(columns.mean())) + side - side // 2
        for dy, dx in {(0, 0)} if not distance else ((1, 0), (-1, 0), (0, 1), (0, -1)):
            top, left = y + dy * distance, x + dx * distance
            patches.append(padded[top : top + side, left : left + side])
    return patches
