"""The two-step baseline: a random forest on regions of the patch classifier's heatmaps.

Shen et al. 2019, "Comparison to prior two-step approach" (after earlier work on lymph nodes): softmax heatmaps are
cut at 0.3, 0.5, 0.7 and 0.9 for each of the four foreground classes; features of the connected regions go to a random
forest of 500 trees, depth 9, at least 300 samples to split. Published AUC 0.73. The list of features is the published
code's; the number of regions (REGIONS) is ours, as no source gives it.
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from skimage.measure import label, regionprops
from sklearn.ensemble import RandomForestClassifier
from tqdm import tqdm

from mammojax import arguments
from mammojax.data import dataset, pipeline
from mammojax.errors import BadCheckpoint, BadDataset
from mammojax.evaluate import heatmap, measure, report, table
from mammojax.evaluate.predictor import ensemble
from mammojax.evaluate.variations import variations
from mammojax.train import checkpoint
from mammojax.train.checkpoint import restore_best
from mammojax.vocabulary import PATCH_CLASSES

CUTOFFS = (0.3, 0.5, 0.7, 0.9)
REGIONS = 3
PROPERTIES = (
    "area", "area / convex area", "area / filled area", "eccentricity", "equivalent diameter", "Euler number", "extent",
    "inertia eigenvalue 1", "inertia eigenvalue 2", "major axis", "minor axis", "maximum", "mean", "orientation",
    "perimeter", "solidity",
)  # fmt: skip


def _properties(region: Any) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hull of a region one position wide has no area: its solidity is 1
        hull = max(float(region.area_convex), float(region.area))
    first, second = region.inertia_tensor_eigvals
    return [
        region.area, region.area / hull, region.area / region.area_filled, region.eccentricity,
        region.equivalent_diameter_area, region.euler_number, region.extent, first, second, region.axis_major_length,
        region.axis_minor_length, region.intensity_max, region.intensity_mean, region.orientation, region.perimeter,
        region.area / hull,
    ]  # fmt: skip


def features(grid: np.ndarray) -> np.ndarray:
    """The forest's input for one image.

    Args:
        grid: softmax heatmap float32 [h, w, 5], background first (vocabulary.PATCH_CLASSES).

    Returns:
        float64 [4 · 4 · (3 + REGIONS · 16)]: for each foreground class and cutoff the number of regions, their total
        area and the map's maximum, then PROPERTIES of the REGIONS largest regions (8-connected), 0 where there is none.
    """
    result: list[float] = []
    for k in range(1, len(PATCH_CLASSES)):
        probability = np.asarray(grid[..., k], np.float64)
        for cutoff in CUTOFFS:
            regions = regionprops(label(probability >= cutoff, connectivity=2), intensity_image=probability)
            regions.sort(key=lambda region: (-region.area, region.label))
            result += [len(regions), sum(region.area for region in regions), probability.max()]
            for region in regions[:REGIONS]:
                result += _properties(region)
            result += [0.0] * len(PROPERTIES) * max(0, REGIONS - len(regions))
    return np.array(result, np.float64)


def two_step(
    run: Path, output: Path, *, patch_run: Path | None = None, trees: int = 500, depth: int = 9, min_split: int = 300,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Fit the forest on a whole-image run's training images and score its validation and test images.

    Args:
        run: a whole-image run: it names the data set.
        output: gets config.json, metrics.json and predictions/{val,test}[_flips].csv, as a run folder; flips average
            the forest's scores over four flips, which the paper did not do here.
        patch_run: the patch classifier; None: the one that the run started from.
        trees, depth, min_split: of the forest, the paper's by default. With fewer training images than `min_split`
            no tree can split, which is an error.
        seed: of the forest; the seed in config.json is the run's.

    Returns:
        The contents of metrics.json.

    Raises:
        BadCheckpoint: there is no patch classifier, `min_split` is below 2 or above the number of training images,
            or `output` holds a trained run.
        BadDataset: the training images are all of one class.
    """
    config, _, _ = restore_best(run)
    if config.model.task != "whole":
        raise BadCheckpoint(f'"{run}" is a patch run; two-step needs a whole-image run, which names the images.')
    if (output / "checkpoints").exists():  # its measurements would be overwritten
        raise BadCheckpoint(f'"{output}" is the folder of a trained run; give two-step another --output.')
    folder = patch_run or checkpoint.patch_run(run, config.init_from)
    if folder is None:
        raise BadCheckpoint(f'"{run}" started from no patch run, or it is gone; name one with --patch-run.')
    patch = restore_best(folder)
    if patch[0].model.task != "patch":
        raise BadCheckpoint(f'"{patch_run}" is no patch run; name one with --patch-run.')
    data = dataset.of_run(run)
    labels = data.labels("train")
    if min_split < 2:
        raise BadCheckpoint(f"--min-split is {min_split}; a node needs at least 2 images to split.")
    if len(labels) < min_split:
        raise BadCheckpoint(
            f"{len(labels)} training images are fewer than the {min_split} a node needs to split, the paper's setting; "
            "choose fewer with --min-split."
        )
    if len(np.unique(labels)) < 2:
        raise BadDataset("the training images are all of one class; two-step needs malignant and other ones.")
    inputs = all_features(patch, data, "train", config.eval_batch)[0]
    forest = RandomForestClassifier(
        trees, max_depth=depth, min_samples_split=min_split, random_state=seed, n_jobs=-1
    ).fit(inputs, labels)
    forest.set_params(n_jobs=1)  # several jobs add the trees' votes in any order, which changes the last digit
    output.mkdir(parents=True, exist_ok=True)
    results = {}
    for split in ("val", "test"):
        images, labels = data.table(split), data.labels(split)
        patients = [row["patient_id"] for row in images]
        every = all_features(patch, data, split, config.eval_batch, "flips")
        votes = [forest.predict_proba(rows) for rows in every]
        for name, scores in ((f"{split}_flips", ensemble(votes)), (split, votes[0])):
            scored = {"scores": scores, "label": labels}
            table.write_images(output / "predictions" / f"{name}.csv", scored, images, data.facts["classes"])
            results[name] = measure.measure(scored, patients, runs=config.bootstrap_runs, seed=config.seed)
    saved = json.loads((run / "config.json").read_text())
    forest_config = {
        "trees": trees, "depth": depth, "min_split": min_split, "regions": REGIONS, "seed": seed,
        "patch_run": str(folder),
    }  # fmt: skip
    saved["config"] |= {"row": "two_step", "two_step": forest_config}
    # Whatever the run was trained on, the forest learned from all training images with their own labels.
    saved["config"]["data"] |= {"patients": 0, "shuffle_labels": False}
    (output / "config.json").write_text(json.dumps(saved, indent=2) + "\n")
    (output / "metrics.json").write_text(json.dumps(results, indent=2, sort_keys=True, allow_nan=False) + "\n")
    return results


def all_features(
    patch: tuple[Any, dict[str, Any], Any], data: dataset.Prepared, split: str, batch: int, tta: str = "none"
) -> np.ndarray:
    """Features of every image of a split, float64 [1 or 4, N, F]: of each of `variations`."""
    result: list[list[np.ndarray]] = [[] for _ in range(4 if tta == "flips" else 1)]
    source = data.source(split, masks=False)
    with tqdm(total=len(source), desc=f"heatmaps of {split}", unit="image", disable=None) as bar:
        for part in pipeline.eval_batches(source, batch=batch):
            images, real = part["image"], part["weight"] > 0  # the last batch is padded
            for rows, turned in zip(result, variations(images, tta), strict=True):
                grids = np.asarray(heatmap.heatmap(*patch, jnp.asarray(turned)))
                rows += [features(grid) for grid in grids[real]]
            bar.update(int(real.sum()))
    return np.array(result)


def write(run: Path, output: Path, patch_run: Path | None, min_split: int) -> None:
    """Run `two_step` and print its test AUC."""
    auc = two_step(run, output, patch_run=patch_run, min_split=min_split)["test"]["auc"]
    print(f"test AUC {report.interval_text(auc)} → {output}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax two-step`."""
    parser.add_argument("--run", type=Path, required=True, help="a whole-image run; it names the images")
    parser.add_argument("--output", type=arguments.folder, required=True)
    parser.add_argument("--patch-run", type=Path, help="the patch classifier; else the one the run started from")
    parser.add_argument("--min-split", type=int, default=300, help="images a node needs to split; the paper's 300")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax two-step`; see `write`."""
    write(args.run, args.output, args.patch_run, args.min_split)
    return 0
