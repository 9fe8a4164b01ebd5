"""What is learned on real film? python -m benchmarks film --source DIR [--only ARM …] [--splits 0 1 2] [--seeds 0 1 2].

configs/film.py on a manifest, cross-validated by patient: in turn each of five folds is the test set, the next one the
validation set, and three train. A split draws the folds, a seed the rest. One arm and fold at a time: a run that was
stopped goes on, a finished one is not run again. Choices are made inside the training folds (the epoch, by validation
loss); no fold was looked at for the recipe, which is the first that was tried at this size.

Each row: the mean over folds, splits and seeds of the AUC by image, with an interval from draws of patients within each
fold; as it is, and of the log odds minus those of the same patient's other breast ("asymmetry"); malignant against
normal and against benign; and the difference from the arm it is compared with on the same images.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mammojax.configs import base, film
from mammojax.data import folds, manifest
from mammojax.evaluate import compare, table

FOLDS = 5
MAMMOGRAM = tuple[int, int, int]  # split, seed, fold
# What an arm starts from, what is changed, and the arm it is compared with. "slid" trains nothing: the whole-image
# network at its start is the patch classifier slid over the image.
ARMS: dict[str, dict[str, Any]] = {
    "end to end": {"start": "ImageNet"},
    "patch net slid": {"start": "ImageNet", "slid": True, "minus": "end to end"},
    "end to end, random weights": {"start": "random", "minus": "end to end"},
    "patch net slid, random weights": {"start": "random", "slid": True, "minus": "patch net slid"},
    "whole image from ImageNet, no patches": {"start": "", "minus": "end to end"},
}


def _random(config: ConfigDict) -> None:
    """All layers from random weights, as many updates, a rate for them, statistics that follow."""
    config.model.pretrained, config.model.bn_momentum = "", 0.9
    config.stages.stage1.update(learn=(".*",), freeze=(), fix_statistics=(), slow=(), slow_factor=1.0)
    config.stages.stage1.learning_rate = 1e-3


def _configs(arm: str, source: Path, seed: int, workdir: Path, patch_folder: Path) -> Iterator[tuple[Path, ConfigDict]]:
    """The runs of an arm that come first, each with its folder, then its own, whose folder the caller knows."""
    change = ARMS[arm]
    config = film.get_config()
    config.source, config.data.data_dir = str(source), str(workdir / "data")
    config.seed = seed
    patch = config.patch.copy_and_resolve_references()
    with patch.unlocked():
        patch.data.update(config.data.copy_and_resolve_references())
        patch.data.kind, patch.seed = config.patch.data.kind, seed
        patch.model.pretrained = "imagenet"
    del config.patch
    if change["start"]:
        config.model.pretrained, config.init_from = "", str(patch_folder)
        if change["start"] == "random":
            _random(patch)
            _random(config)
        yield patch_folder, patch
    else:  # as many updates as the patch net and the whole-image net have together, about
        config.stages.stage1.epochs += 40
        config.stages.stage1.slow_factor = 0.03
    if change.get("slid"):
        config.stages = ConfigDict({"stage1": base.stage("nothing", ("head/scale",), ("trunk/.*", "head/.*"), 0.0, 1)})
    yield Path(), config


def _asymmetry(images: table.Predictions) -> table.Predictions:
    """The log odds of each image minus the mean of those of the patient's other breast; 0 where there is none."""
    frame = images.frame
    odds = np.log(np.clip(images.score(), 1e-12, 1)) - np.log(np.clip(1 - images.score(), 1e-12, 1))
    values = []
    for patient, side, value in zip(frame["patient_id"], frame["laterality"], odds, strict=True):
        other = odds[((frame["patient_id"] == patient) & (frame["laterality"] != side)).to_numpy()]
        values.append(value - other.mean() if len(other) else 0.0)
    return replace(images, frame=frame.assign(p_malignant=values))


def main(arguments: Sequence[str]) -> list[dict]:
    """A row for each arm and what is measured of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks film")
    parser.add_argument("--source", type=Path, required=True, help="a manifest, or a folder with a manifest.csv")
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/film_folds"))
    args = parser.parse_args(arguments)
    from mammojax.run import run

    args.workdir.mkdir(parents=True, exist_ok=True)
    source = args.source / "manifest.csv" if args.source.is_dir() else args.source
    read = manifest.read_manifest(source)
    pathology = {image.image: image.pathology for image in read.images}
    scored: dict[str, dict[MAMMOGRAM, table.Predictions]] = {arm: {} for arm in args.only}
    for split in args.splits:
        for fold, path in enumerate(folds.write_folds(source, read, args.workdir, FOLDS, split)):
            for seed in args.seeds:
                for arm in args.only:
                    name = f"{split}_{fold}_{seed}"
                    folder = args.workdir / f"{arm.replace(', ', '_').replace(' ', '_')}_{name}"
                    patches = args.workdir / f"patches_{ARMS[arm]['start']}_{name}"
                    for first, config in _configs(arm, path, seed, args.workdir, patches):
                        here = folder if first == Path() else first
                        if not (here / "metrics.json").is_file():
                            run(config, here)
                    scored[arm][split, seed, fold] = table.read_images(folder, "test_flips")
    return list(_rows(scored, {os.path.basename(name): value for name, value in pathology.items()}))


def _rows(scored: dict[str, dict[MAMMOGRAM, table.Predictions]], pathology: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What is measured of each arm, and its difference from the arm that it is compared with."""

    def among(words: tuple[str, ...]) -> Callable[[table.Predictions], table.Predictions]:
        def choose(images: table.Predictions) -> table.Predictions:
            return images[np.array([pathology[os.path.basename(name)] in words for name in images.frame["image"]])]

        return choose

    views: dict[str, Callable[[table.Predictions], table.Predictions]] = {
        "all": lambda images: images,
        "asymmetry": _asymmetry,
        "against normal": among(("MALIGNANT", "NORMAL")),
        "against benign": among(("MALIGNANT", "BENIGN")),
    }
    for arm, repeats in scored.items():
        minus = ARMS[arm].get("minus", "")
        for name, view in views.items():
            mean = compare.over_repeats([(view(images), None) for images in repeats.values()])
            row = {"arm": arm, "measured": name, "runs": len(repeats), "auc": mean.value, "low": mean.low}
            row["high"] = mean.high
            if minus in scored:
                both = [(view(repeats[key]), view(scored[minus][key])) for key in repeats]
                gap = compare.over_repeats(both)
                row |= {"minus": minus, "difference": gap.value, "from": gap.low, "to": gap.high}
            yield row
