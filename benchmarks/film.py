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

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mammojax import run, run_folder, start, tasks
from mammojax.configs import film
from mammojax.data import folds, manifest, pipeline
from mammojax.errors import BadConfig
from mammojax.evaluate import compare, heatmap, localise, other_breast, table, two_step
from mammojax.models import classifiers
from mammojax.train.checkpoint import save_best

FOLDS, GROUPS = 5, 10
Key = tuple[int, int, int]  # split, seed, fold
Change = Callable[[ConfigDict, ConfigDict], None]


def _random(config: ConfigDict, patch: ConfigDict) -> None:
    """Random weights in the same recipe; their BatchNorm statistics are re-estimated, see `_random_start`."""
    config.model.pretrained = patch.model.pretrained = ""


def _beside(config: ConfigDict, patch: ConfigDict) -> None:
    """What lies beside the breast is kept."""
    config.data.crop = patch.data.crop = "breast"


def _strong(config: ConfigDict, patch: ConfigDict) -> None:
    """Stronger augmentation, photometric too; no copy is used twice."""
    patch.augment.update(rotation=45.0, zoom=(0.75, 1.33), shear=0.2, intensity=30.0, contrast=(0.7, 1.4))
    patch.stages.stage1.cache = 0


def _lite2(config: ConfigDict, patch: ConfigDict) -> None:
    for part in (config, patch):
        part.model.trunk = "efficientnet_lite2"
        part.stages.stage1.update(
            learn=(r"classifier/.*" if part is patch else "head/.*", r"trunk/block([7-9]|1\d|2\d)/.*", "trunk/head_.*"),
            freeze=("trunk/stem_.*", "trunk/block[0-6]/.*"),  # Lite 2 has two blocks more up to a resolution of 1/8
        )
        part.stages.stage1.slow = (*part.stages.stage1.learn[1:], *part.stages.stage1.slow[2:])


def _larger(config: ConfigDict, patch: ConfigDict) -> None:
    """Half as many pixels again along each axis; patches of about the same tissue."""
    config.data.update(size=(768, 432), patch_size=160)
    config.model.head = "heatmap5,max"


# "change": of the configs of the whole-image network and its patch net. "how": "slid", the patch net slid over the
# image; "trained", then trained end to end; "forest", the two-step forest on its heatmaps; "whole", end to end without
# patches; "linear", a linear classifier of frozen features. "minus": the arm that it is compared with.
ARMS: dict[str, dict[str, Any]] = {
    "patch net slid": {"how": "slid"},
    "end to end": {"how": "trained", "minus": "patch net slid"},
    "two-step forest": {"how": "forest", "minus": "patch net slid"},
    "whole image from ImageNet, no patches": {"how": "whole", "minus": "end to end"},
    "patch net slid, random weights": {"how": "slid", "change": _random, "minus": "patch net slid"},
    "end to end, random weights": {"how": "trained", "change": _random, "minus": "end to end"},
    "frozen ImageNet features, linear": {"how": "linear", "minus": "patch net slid"},
    "frozen random features, linear": {"how": "linear", "change": _random, "minus": "frozen ImageNet features, linear"},
    "end to end, film beside the breast kept": {"how": "trained", "change": _beside, "minus": "end to end"},
    "strong augmentation": {"how": "slid", "change": _strong, "minus": "patch net slid"},
    "Lite 2": {"how": "slid", "change": _lite2, "minus": "patch net slid"},
    "768 x 432": {"how": "slid", "change": _larger, "minus": "patch net slid"},
}
AVERAGED = {f"{arm}, seeds averaged": arm for arm in ("patch net slid", "end to end")}
"""Rows of the mean of all seeds' scores, beside the mean of their AUCs."""


def _folds(source: Path, split: int, workdir: Path) -> list[Path]:
    """The manifest once for each fold, its split column filled."""
    paths = [workdir / f"split_{split}_fold_{fold}.csv" for fold in range(FOLDS)]
    if not all(path.is_file() for path in paths):  # their times tell whether the prepared images are up to date
        folds.write_folds(source, manifest.read_manifest(source), workdir, FOLDS, split, GROUPS)
    return paths


def _configs(arm: str, source: Path, seed: int, workdir: Path) -> tuple[ConfigDict, ConfigDict]:
    """The configs of an arm's whole-image network, without a start, and of its patch net."""
    config = film.get_config()
    config.source, config.data.data_dir = str(source), str(workdir / "data")
    config.seed, config.gallery = seed, 0
    patch = start.part(config, "patch", workdir)
    patch.data.prepare, patch.model.pretrained = True, config.model.pretrained
    del config.patch
    change: Change | None = ARMS[arm].get("change")
    if change:
        change(config, patch)
        patch.data.size, patch.data.patch_size = config.data.size, config.data.patch_size
    return config, patch


def _name(*words: object) -> str:
    return "_".join(str(word).replace(", ", "_").replace(" ", "_") for word in words)


def _finish(config: ConfigDict, folder: Path) -> Path:
    """Run a config in a folder, unless it is finished there."""
    if not (folder / "metrics.json").is_file():
        run.run(config, folder)
    return folder


def _score(arm: str, source: Path, key: Key, workdir: Path, folder: Path) -> None:
    """Write an arm's predictions of a fold's test images, flips averaged."""
    how, change = ARMS[arm]["how"], ARMS[arm].get("change")
    config, patch = _configs(arm, source, key[1], workdir)
    patches = workdir / _name("patches", change.__name__ if change else "", *key)
    if how == "linear":
        return _linear(config, folder)
    if change is _random:
        patch.init_from = str(_random_start(patch, workdir / _name("start_random", *key)))
    if how == "whole":  # updates as many as the patch net and the whole-image network have together
        config.stages.stage1.update(epochs=10, slow_factor=0.03)
        _finish(config, folder)
        return None
    if how == "forest":
        end_to_end = _finish(*_end_to_end(config, patch, patches, workdir, key))
        two_step.two_step(end_to_end, folder, patch_run=patches, min_split=10)
        return None
    if how == "trained":
        _finish(*_end_to_end(config, patch, patches, workdir, key, folder))
        return None
    config.init_from = str(_finish(patch, patches))
    config.model.pretrained = ""
    folder.mkdir(exist_ok=True)
    config = run.check(config)
    data, task = run.dataset(config, folder), tasks.of(config.model.task)
    facts = task.facts(config, data, {"init_from": patches})
    variables = start.variables(config, task.network(config.model), task.sizes(config, config.data), patches)
    scored = task.score(config, data, facts, variables)(variables, "test", "flips")
    table.write_images(folder / "predictions" / "test_flips.csv", scored, data.table("test"), data.facts["classes"])
    return None


def _end_to_end(
    config: ConfigDict, patch: ConfigDict, patches: Path, workdir: Path, key: Key, folder: Path | None = None
) -> tuple[ConfigDict, Path]:
    """The config of the network that is trained end to end, and its folder."""
    config.init_from, config.model.pretrained = str(_finish(patch, patches)), ""
    return config, folder or workdir / _name("end to end", *key)


def _linear(config: ConfigDict, folder: Path) -> None:
    """A linear discriminant of the pooled output of block 10, frozen, flips averaged."""
    folder.mkdir(exist_ok=True)
    config = run.check(config)
    data, task = run.dataset(config, folder), tasks.of(config.model.task)
    model = task.network(config.model)
    variables = start.variables(config, model, task.sizes(config, config.data), None)
    if not config.model.pretrained:
        variables["batch_stats"] = _statistics(config, variables, data)

    @jax.jit
    def pooled(images: jax.Array) -> jax.Array:
        x = classifiers.as_input(images, data.facts["mean"], config.model.channels)
        both = [model.apply(variables, flipped)[1]["block10"].mean((1, 2)) for flipped in (x, x[:, ::-1])]
        return (both[0] + both[1]) / 2

    features = {
        split: np.concatenate([pooled(batch["image"]) for batch in _batches(data, split, config.eval_batch)])
        for split in ("train", "test")
    }
    features = {split: rows[: len(data.labels(split))] for split, rows in features.items()}
    linear = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features["train"], data.labels("train"))
    scored = {"scores": linear.predict_proba(features["test"]), "label": data.labels("test")}
    table.write_images(folder / "predictions" / "test_flips.csv", scored, data.table("test"), data.facts["classes"])


def _batches(data: Any, split: str, batch: int) -> Iterator[dict[str, Any]]:
    return iter(pipeline.eval_batches(data.source(split, masks=False), batch=batch))


def _random_start(patch: ConfigDict, folder: Path) -> Path:
    """A run folder of a patch net's random weights, whose statistics are those of the training patches."""
    if not (folder / "checkpoints").is_dir():
        folder.mkdir(exist_ok=True)
        patch = run.check(patch)
        data, task = run.dataset(patch, folder), tasks.of(patch.model.task)
        model = task.network(patch.model)
        variables = start.variables(patch, model, task.sizes(patch, patch.data), None)
        variables["batch_stats"] = _statistics(patch, variables, data)
        run_folder.write(folder, patch, task.facts(patch, data, {}) | {"folder": data.path.parent.name})
        save_best(folder, variables)
    return folder


def _statistics(config: ConfigDict, variables: dict[str, Any], data: Any) -> Any:
    """The BatchNorm statistics of random weights: a mean over the training images, where later batches count more."""
    settings = config.model.copy_and_resolve_references()
    settings.bn_momentum = 0.9  # a few dozen batches forget the start, 0 and 1
    model = tasks.of(config.model.task).network(settings)

    @jax.jit
    def moved(batch_stats: Any, images: jax.Array) -> Any:
        x = classifiers.as_input(images, data.facts["mean"], config.model.channels)
        return model.apply(
            variables | {"batch_stats": batch_stats}, x, train=True, mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )[1]  # fmt: skip

    batch_stats = variables["batch_stats"]
    for batch in _batches(data, "train", config.eval_batch):
        batch_stats = moved(batch_stats, batch["image"])["batch_stats"]
    return batch_stats


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
                    folder = args.workdir / _name(arm, *key)
                    if not args.finished and not (folder / "predictions" / "test_flips.csv").is_file():
                        try:
                            _score(arm, paths[fold], key, args.workdir, folder)
                        except BadConfig as error:
                            if "is in use" not in str(error):  # another call is at it
                                raise
                            continue
                    if (folder / "predictions" / "test_flips.csv").is_file():
                        scored[arm][key] = table.read_images(folder, "test_flips")
                        if ARMS[arm]["how"] == "trained":
                            trained.setdefault(arm, {})[key] = folder
                    change = ARMS[arm].get("change")
                    csv = args.workdir / _name("patches", change.__name__ if change else "", *key)
                    csv = csv / "predictions" / "test.csv"
                    if ARMS[arm]["how"] == "slid" and csv.is_file():
                        patches.setdefault(arm, {})[key] = table.read_csv(csv)
    names = {os.path.basename(name): value for name, value in pathology.items()}
    for arm, single in AVERAGED.items():
        for key, images in scored.get(single, {}).items():
            of_seeds = [other for other in scored[single] if (other[0], other[2]) == (key[0], key[2])]
            if len(of_seeds) > 1 and key[1] == of_seeds[0][1]:
                mean = table.ensemble([scored[single][other] for other in of_seeds])
                scored.setdefault(arm, {})[key] = replace(images, frame=mean.frame)
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
        minus = AVERAGED.get(arm) or ARMS[arm].get("minus", "")
        for name, view in views.items():
            mean = compare.over_repeats([(view(images), None) for images in repeats.values()])
            row = {"arm": arm, "measured": name, "runs": len(repeats), "auc": mean.value, "low": mean.low}
            row["high"] = mean.high
            both = [key for key in repeats if key in scored.get(minus, {})]
            if both:
                gap = compare.over_repeats([(view(repeats[key]), view(scored[minus][key])) for key in both])
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
