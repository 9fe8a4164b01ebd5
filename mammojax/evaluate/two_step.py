"""The two-step baseline: a random forest on regions of the patch classifier's heatmaps.

Shen et al. 2019, "Comparison to prior two-step approach" (after earlier work on lymph nodes): softmax heatmaps are
cut at 0.3, 0.5, 0.7 and 0.9 for each of the four foreground classes; features of the connected regions go to a random
forest of 500 trees, depth 9, at least 300 samples to split. Published AUC 0.73. The list of features is the published
code's; of how many regions they are taken (REGIONS) is ours, as no source gives it.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import label, regionprops
from sklearn.ensemble import RandomForestClassifier
from tqdm import tqdm

from mammojax.data import prepared
from mammojax.data.patches import PATCH_CLASSES
from mammojax.evaluate import heatmap, measure, predict
from mammojax.train.checkpoint import BadCheckpoint, restore_best

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
    """What the forest sees of one image.

    Args:
        grid: softmax heatmap float32 [h, w, 5], background first (data.patches.PATCH_CLASSES).

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
        output: gets config.json, metrics.json and predictions/{val,test}.csv as a run has them.
        patch_run: the patch classifier; None: the one the run started from.
        trees, depth, min_split: of the forest, the paper's by default. With fewer training images than `min_split`
            no tree can split, which is refused.
        seed: of the forest.

    Returns:
        The contents of metrics.json.

    Raises:
        BadCheckpoint: no patch classifier is found, or there are too few training images.
    """
    config, _, _ = restore_best(run)
    if config.model.task != "whole":
        raise BadCheckpoint(f'"{run}" is a patch run; two-step needs a whole-image run, which names the images.')
    folder = patch_run or (run / "patch" if (run / "patch" / "config.json").is_file() else Path(config.init_from))
    patch_config, facts, variables = restore_best(folder)
    if patch_config.model.task != "patch":
        raise BadCheckpoint(f'"{folder}" is no patch run; name one with --patch-run.')
    data = prepared.of_run(run)
    known = int((data.labels("train") >= 0).sum())
    if known < min_split:
        raise BadCheckpoint(
            f"{known} training images are fewer than the {min_split} a node needs to split, the paper's setting; "
            "choose fewer with --min-split."
        )
    seen = {split: _all_features(patch_config, facts, variables, data, split) for split in ("train", "val", "test")}
    forest = RandomForestClassifier(
        trees, max_depth=depth, min_samples_split=min_split, random_state=seed, n_jobs=-1
    ).fit(seen["train"], data.labels("train"))
    forest.set_params(n_jobs=1)  # several jobs add the trees' votes in any order, which moves the last digit
    output.mkdir(parents=True, exist_ok=True)
    results = {}
    for split in ("val", "test"):
        scored = {"scores": forest.predict_proba(seen[split]), "label": data.labels(split), "image_id": []}
        table = data.table(split)
        predict.write_split(output / "predictions" / f"{split}.csv", scored, table, data.facts["classes"])
        patients = [row["patient_id"] for row in table]
        results[split] = measure.measure(scored, patients, runs=config.bootstrap_runs, seed=config.seed)
    saved = json.loads((run / "config.json").read_text())
    forest_config = {"trees": trees, "depth": depth, "min_split": min_split, "regions": REGIONS, "seed": seed}
    saved["config"] |= {"row": "two_step", "seed": seed, "two_step": forest_config}
    (output / "config.json").write_text(json.dumps(saved, indent=2) + "\n")
    (output / "metrics.json").write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    return results


def _all_features(
    config: Any, facts: dict[str, Any], variables: Any, data: prepared.Prepared, split: str
) -> np.ndarray:
    """Features of every image of a split, [N, F]."""
    source, rows = data.source(split), []
    for k in tqdm(range(len(source)), desc=f"heatmaps of {split}", unit="image", disable=None):
        rows.append(features(np.asarray(heatmap.heatmap(config, facts, variables, source[k]["image"][None])[0])))
    return np.stack(rows)


def write(run: Path, output: Path, patch_run: Path | None, min_split: int) -> None:
    """`two_step` with its test AUC printed."""
    auc = two_step(run, output, patch_run=patch_run, min_split=min_split)["test"]["auc"]
    print("test AUC {value:.3f} [{low:.3f}, {high:.3f}]".format(**auc), "→", output, flush=True)
