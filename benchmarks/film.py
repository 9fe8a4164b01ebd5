"""What is learned on real film? python -m benchmarks film --source DIR [--only ARM …] [--splits 0 1 2] [--seeds 0 1 2].

configs/film.py and its changes on a manifest, cross-validated by patient: a split draws ten groups of patients with the
malignant ones spread evenly; in turn two are the test set of a fold, the next one is validation (it chooses nothing:
the last epoch is kept), seven train. A seed draws the rest. One arm and fold at a time: a call that was stopped goes
on, a finished run is not run again; two calls may share a folder. `--finished` measures what there is.

Each row is the mean over folds, splits and seeds of an AUC by image, with an interval from draws of patients within
each fold: as it is; minus the patient's other breast (`other_breast.asymmetry`); by patient; malignant against normal
and against benign alone; and the difference from the arm that it is compared with, on the same images. Then how well
patch nets tell test patches apart, and at how many lesions the heatmaps are highest.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import _film_arms
from benchmarks._film_arms import ARMS, AVERAGED, SUBTRACTED, Fold, Key
from mammojax.data import folds, manifest
from mammojax.errors import BadConfig
from mammojax.evaluate import compare, heatmap, localise, other_breast, table

FOLDS, GROUPS = 5, 10


def _folds(source: Path, split: int, workdir: Path) -> list[Path]:
    """The manifest once for each fold, its split column filled."""
    paths = [workdir / f"split_{split}_fold_{fold}.csv" for fold in range(FOLDS)]
    if not all(path.is_file() for path in paths):  # their times tell whether the prepared images are up to date
        folds.write_folds(source, manifest.read_manifest(source), workdir, FOLDS, split, GROUPS)
    return paths


def main(arguments: Sequence[str]) -> list[dict]:
    """A row for each arm and what is measured of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks film")
    parser.add_argument("--source", type=Path, required=True, help="a manifest, or a folder with a manifest.csv")
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--finished", action="store_true", help="run nothing, measure what is finished")
    parser.add_argument("--workdir", type=Path, default=Path("runs/film_folds"))
    args = parser.parse_args(arguments)
    args.workdir.mkdir(parents=True, exist_ok=True)
    source = args.source / "manifest.csv" if args.source.is_dir() else args.source
    pathology = {image.image: image.pathology for image in manifest.read_manifest(source).images}
    scored: dict[str, dict[Key, table.Predictions]] = {arm: {} for arm in args.only}
    patches: dict[str, dict[Key, pd.DataFrame]] = {}
    trained: dict[str, dict[Key, Path]] = {}
    for split in args.splits:
        paths = _folds(source, split, args.workdir)
        for seed in args.seeds:
            for fold in args.folds:
                for arm in args.only:
                    key = (split, seed, fold)
                    folder = args.workdir / _film_arms.name(arm, *key)
                    of_arm = Fold(paths[fold], key, args.workdir, folder, ARMS[arm].change, ARMS[arm].start)
                    if not args.finished and not (folder / "predictions" / "test_flips.csv").is_file():
                        try:
                            ARMS[arm].score(of_arm)
                        except BadConfig as error:
                            if "is in use" not in str(error):  # another call is at it
                                raise
                            continue
                    if (folder / "predictions" / "test_flips.csv").is_file():
                        scored[arm][key] = table.read_images(folder, "test_flips")
                        if ARMS[arm].score is _film_arms.trained:
                            trained.setdefault(arm, {})[key] = folder
                    csv = of_arm.patches() / "predictions" / "test.csv"
                    if ARMS[arm].score is _film_arms.slid and csv.is_file():
                        patches.setdefault(arm, {})[key] = table.read_csv(csv)
    names = {os.path.basename(name): value for name, value in pathology.items()}
    for arm, single in AVERAGED.items():
        for key, images in scored.get(single, {}).items():
            of_seeds = [other for other in scored[single] if (other[0], other[2]) == (key[0], key[2])]
            if len(of_seeds) > 1 and key[1] == of_seeds[0][1]:
                mean = table.ensemble([scored[single][other] for other in of_seeds])
                scored.setdefault(arm, {})[key] = replace(images, frame=mean.frame)
    for arm, single in SUBTRACTED.items():
        scored[arm] = {key: other_breast.by_asymmetry(images) for key, images in scored.get(single, {}).items()}
    return [*_rows(scored, names), *_patch_rows(patches), *_place_rows(trained)]


def _rows(scored: dict[str, dict[Key, table.Predictions]], pathology: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What is measured of each arm, and its difference from the arm that it is compared with, on the same folds."""

    def among(words: tuple[str, ...]) -> Callable[[table.Predictions], table.Predictions]:
        def choose(images: table.Predictions) -> table.Predictions:
            return images[np.array([pathology[os.path.basename(name)] in words for name in images.frame["image"]])]

        return choose

    views: dict[str, Callable[[table.Predictions], table.Predictions]] = {
        "by image": lambda images: images,
        "asymmetry": other_breast.by_asymmetry,
        "by patient": _by_patient,
        "against normal": among(("MALIGNANT", "NORMAL")),
        "against benign": among(("MALIGNANT", "BENIGN")),
    }
    for arm, repeats in scored.items():
        if not repeats:
            continue
        minus = AVERAGED.get(arm) or SUBTRACTED.get(arm) or ARMS[arm].minus
        on_phantom = arm in ARMS and ARMS[arm].change is _film_arms.digital
        for name, view in views.items():
            if on_phantom and name != "by image":  # it has no normal breasts, and no films
                continue
            mean = compare.over_repeats([(view(images), None) for images in repeats.values()])
            row = {"arm": arm, "measured": name, "runs": len(repeats), "auc": mean.value, "low": mean.low}
            row["high"] = mean.high
            both = [
                (key, other)
                for key in repeats
                for other in scored.get(minus, {})
                if (key[0], key[2]) == (other[0], other[2]) and (arm in AVERAGED or key == other)
            ]  # averaged scores stand beside those of each seed
            if both:
                gap = compare.over_repeats([(view(repeats[key]), view(scored[minus][other])) for key, other in both])
                row |= {"minus": minus, "pairs": len(both), "difference": gap.value, "from": gap.low, "to": gap.high}
            yield row


def _by_patient(images: table.Predictions) -> table.Predictions:
    """The highest score of each patient, who is malignant where one of the images is."""
    frame = images.frame.assign(image=images.frame["patient_id"])
    return replace(images, frame=frame.groupby("image", as_index=False).max())


def _place_rows(runs: dict[str, dict[Key, Path]]) -> Iterator[dict[str, Any]]:
    """At how many outlined lesions a network's own heatmap and its patch net's are highest, all folds together."""
    for arm, repeats in runs.items():
        results = [localise.localise(folder, tolerance=heatmap.STRIDE // 2, saliency_too=False) for folder in
                   repeats.values()]  # fmt: skip
        for name in ("own heatmap", "heatmap", "area"):
            images, lesions = (sum(result[key] for result in results) for key in ("images", "lesions"))
            row: dict[str, Any] = {"arm": arm, "measured": f"places: {name}", "runs": len(results), "images": images}
            cells = [(result, result["maps"][name]) for result in results]
            row["share inside"] = sum(result["images"] * cell["share"]["value"] for result, cell in cells) / images
            if name != "area":
                row["points at a lesion"] = round(sum(r["images"] * c["pointing"]["value"] for r, c in cells))
                hit = sum(r["lesions"] * c["froc"]["1.0"]["value"] for r, c in cells)
                row |= {"lesions": lesions, "hit at 1 false mark an image": round(hit)}
            yield row


def _patch_rows(patches: dict[str, dict[Key, pd.DataFrame]]) -> Iterator[dict[str, Any]]:
    """How well a patch net tells the test patches apart: lesions from tissue, malignant ones from both others."""
    for arm, repeats in patches.items():
        for name, chosen, positive in (
            ("patches: lesion against background", range(5), range(1, 5)),
            ("patches: malignant against background", (0, 1, 3), (1, 3)),
            ("patches: malignant against benign", range(1, 5), (1, 3)),
        ):
            pairs = []
            for frame in repeats.values():
                label = frame["label"].astype(int)
                frame = frame[label.isin(chosen)].reset_index(drop=True)
                columns = [column for column in frame if column.startswith("p_")]
                score = frame[[columns[k] for k in positive]].astype(float).sum(axis=1)
                if name.endswith("benign"):
                    score /= frame[[columns[k] for k in range(1, 5)]].astype(float).sum(axis=1)
                labels = frame["label"].astype(int).isin(positive).astype(int)
                pairs.append((table.Predictions(arm, frame.assign(malignant=labels, p_malignant=score)), None))
            mean = compare.over_repeats(pairs)
            row = {"arm": arm, "measured": name, "runs": len(repeats), "auc": mean.value, "low": mean.low}
            yield row | {"high": mean.high}
