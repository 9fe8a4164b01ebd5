"""Does a map light up where the lesion is? Saliency and heatmaps against lesion outlines, on any data set with masks.

Three measures, each with a patient-clustered interval. *Share*: how much of a map's sum lies inside the outlines, per
image. *Pointing game* (Zhang et al. 2018): does the map's maximum lie inside one, within a tolerance. *FROC*: the share
of lesions hit against false marks per image; marks are the map's local maxima, a lesion is hit by a mark inside its
outline. Shen et al. 2019 show single saliency maps (Fig. 4) and measure none of these: they are ours.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage.feature import peak_local_max
from tqdm import tqdm

from mammojax import metrics
from mammojax.data import prepared
from mammojax.data.patches import PATCH_CLASSES
from mammojax.evaluate import heatmap, saliency
from mammojax.evaluate.predict import make_apply
from mammojax.models import whole_image
from mammojax.train.checkpoint import BadCheckpoint, restore_best

RATES = (0.25, 0.5, 1.0, 2.0)  # false marks per image at which FROC is read
MARKS = 10  # at most so many of a map's maxima are marks


def share(map_: np.ndarray, mask: np.ndarray) -> float:
    """The part of a map's sum inside the mask, 0 … 1; 0 for an empty map. `map_` float [H, W] ≥ 0, `mask` bool."""
    total = float(map_.sum())
    return float(map_[mask].sum()) / total if total > 0 else 0.0


def pointing(map_: np.ndarray, mask: np.ndarray, tolerance: int = 0) -> bool:
    """Whether the map's maximum lies at most `tolerance` pixels outside the mask; an empty map points nowhere."""
    if map_.max() <= 0:
        return False
    y, x = np.unravel_index(int(map_.argmax()), map_.shape)
    near = mask[max(0, y - tolerance) : y + tolerance + 1, max(0, x - tolerance) : x + tolerance + 1]
    return bool(near.any())


def marks(map_: np.ndarray, distance: int) -> list[tuple[float, int, int]]:
    """The map's MARKS highest local maxima at least `distance` apart: (score, y, x), highest first."""
    found = peak_local_max(map_, min_distance=distance, threshold_abs=1e-12, num_peaks=MARKS, exclude_border=False)
    return sorted(((float(map_[y, x]), int(y), int(x)) for y, x in found), reverse=True)


def froc(
    found: Sequence[Sequence[tuple[float, int, int]]], masks: Sequence[np.ndarray], rates: Sequence[float] = RATES,
    weight: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Share of lesions hit at each number of false marks per image.

    Args:
        found: the marks of each image.
        masks: bool [H, W] of each image; a connected region is a lesion.
        rates: mean false marks per image.
        weight: how often each image counts, [N]; None: once.

    Returns:
        float64 [len(rates)]: the highest sensitivity whose false marks stay within the rate.
    """
    hits, false, lesions = [], [], 0.0
    weights = np.ones(len(masks)) if weight is None else weight
    for image, mask, times in zip(found, masks, weights, strict=True):
        count, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        lesions += times * (count - 1)
        seen = set()
        for score, y, x in image:
            region = int(regions[y, x])
            if region and region not in seen:
                hits.append((score, times))
                seen.add(region)
            elif not region:
                false.append((score, times))
    thresholds = sorted({score for score, _ in hits}, reverse=True)
    hit_scores, hit_times = (np.array(column) for column in zip(*hits, strict=True)) if hits else (np.zeros(0),) * 2
    false_scores, false_times = (np.array(c) for c in zip(*false, strict=True)) if false else (np.zeros(0),) * 2
    curve = [(false_times[false_scores >= t].sum(), hit_times[hit_scores >= t].sum()) for t in thresholds]
    images = weights.sum()
    best = [max((hit for wrong, hit in curve if wrong <= rate * images), default=0.0) for rate in rates]
    return np.array(best) / lesions if lesions else np.full(len(rates), np.nan)


def random_variables(variables: Any, seed: int) -> Any:
    """Variables of the same shapes that learned nothing: he-normal kernels, fresh scales and statistics."""
    rng = np.random.default_rng(seed)

    def draw(tree: Any, name: str = "") -> Any:
        if isinstance(tree, dict):
            return {key: draw(tree[key], key) for key in sorted(tree)}
        shape = np.shape(tree)
        if name != "kernel":
            return np.full(shape, float(name in ("scale", "var")), np.float32)
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype(np.float32)

    return draw(variables)


def localise(run: Path, split: str = "test", limit: int = 0, tolerance: int = 0, runs: int = 1000) -> dict[str, Any]:
    """Measure a whole-image run's saliency, and its patch run's heatmap where it has one, on malignant images.

    Args:
        run: a whole-image run whose data set has lesion masks.
        split: "test" or "val".
        limit: measure so many images only; 0: all.
        tolerance: of the pointing game, pixels of the framed image.
        runs: bootstrap draws of patients.

    Returns:
        {"split", "images", "lesions", "maps": {name: {"share", "pointing", "froc": {rate: interval}}}}, intervals
        as {"value", "low", "high"}; names: "saliency", "saliency, random weights", "heatmap", "area" (a map that is
        the same everywhere: the lesions' share of the image, what chance gives).

    Raises:
        BadCheckpoint: not a whole-image run, or nothing malignant in the split has a mask.
    """
    config, facts, variables = restore_best(run)
    if config.model.task != "whole":
        raise BadCheckpoint(f'"{run}" is a patch classifier; localise needs the run of a whole-image classifier.')
    data = prepared.of_run(run)
    source, table = data.source(split), data.table(split)
    picked = [k for k, row in enumerate(table) if row["label"] == "1" and (source[k]["masks"] == 2).any()]
    picked = picked[: limit or None]
    if not picked:
        raise BadCheckpoint(f'"{run}": no malignant image of its {split} split has a lesion mask to compare with.')
    patch = patch_run(run, config)
    blank = random_variables(variables, config.seed)
    sure = make_apply(whole_image.build(config.model), facts["mean"], config.model.channels)
    masks = []
    maps: dict[str, list[np.ndarray]] = {
        name: [] for name in ("saliency", "saliency, random weights", "heatmap", "area")
    }
    for k in tqdm(picked, desc="localise", unit="image", disable=None):
        image = source[k]["image"][None]
        masks.append(source[k]["masks"][..., 0] == 2)
        # A saliency map knows only what counts most within its image: its marks weigh as much as the net is sure.
        p_malignant = float(sure(variables, image)[0, 1])
        maps["saliency"].append(p_malignant * saliency.saliency(config, facts, variables, image)[0])
        maps["saliency, random weights"].append(saliency.saliency(config, facts, blank, image)[0])
        maps["area"].append(np.ones(image.shape[1:3], np.float32))
        if patch:
            grid = np.asarray(heatmap.heatmap(*patch, image)[0])
            seen = grid[..., [c for c, name in enumerate(PATCH_CLASSES) if name.startswith("malignant")]].sum(-1)
            maps["heatmap"].append(heatmap.enlarge(seen, masks[-1].shape))
    patients = np.array([table[k]["patient_id"] for k in picked])
    distance = max(1, round(min(masks[0].shape) * 0.05))
    result = {}
    for name, made in maps.items():
        if made:
            result[name] = _measured(made, masks, patients, tolerance, distance, runs, points=name != "area")
    lesions = sum(cv2.connectedComponents(mask.astype(np.uint8))[0] - 1 for mask in masks)
    return {"split": split, "images": len(picked), "lesions": lesions, "tolerance": tolerance, "maps": result}


def _measured(
    made: list[np.ndarray], masks: list[np.ndarray], patients: np.ndarray, tolerance: int, distance: int, runs: int,
    points: bool,
) -> dict[str, Any]:  # fmt: skip
    def mean(values: np.ndarray) -> dict[str, float]:
        def statistic(weights: np.ndarray | None) -> np.ndarray:
            return values.mean() if weights is None else weights @ values / weights.sum(axis=1)

        return metrics.interval_of(statistic, patients, runs)._asdict()

    inside = np.array([share(m, mask) for m, mask in zip(made, masks, strict=True)])
    result: dict[str, Any] = {"share": mean(inside)}
    if points:
        pairs = zip(made, masks, strict=True)
        result["pointing"] = mean(np.array([pointing(m, mask, tolerance) for m, mask in pairs], float))
        found = [marks(m, distance) for m in made]
        drawn = np.array([froc(found, masks, weight=w) for w in metrics.draws(patients, min(runs, 200), 0)])
        value = froc(found, masks)
        result["froc"] = {
            str(rate): metrics.interval(float(value[k]), drawn[:, k])._asdict() for k, rate in enumerate(RATES)
        }
    return result


def patch_run(run: Path, config: Any) -> tuple[Any, Any, Any] | None:
    """The patch run a whole-image run started from, where it still stands."""
    for folder in (run / "patch", Path(config.init_from), Path(config.init_from) / "patch"):
        if (folder / "config.json").is_file():
            restored = restore_best(folder)
            if restored[0].model.task == "patch":
                return restored
    return None


def write(run: Path, split: str, limit: int, tolerance: int, output: Path | None) -> None:
    """Print what `localise` measures; also as JSON where `output` is given."""
    result = localise(run, split, limit, tolerance)
    print(f"{split}: {result['images']} malignant images, {result['lesions']} malignant lesions; 95 % by patient")
    print(f"{'map':<26}{'share inside':<24}{'pointing game':<24}" + "".join(f"FROC {r:<19}" for r in RATES))
    for name, cells in result["maps"].items():
        line = [_cell(cells["share"]), _cell(cells.get("pointing"))]
        line += [_cell(cells["froc"][str(rate)]) if "froc" in cells else "–" for rate in RATES]
        print(f"{name:<26}" + "".join(f"{cell:<24}" for cell in line).rstrip())
    if output:
        output.write_text(json.dumps(result, indent=2) + "\n")


def _cell(interval: dict[str, float] | None) -> str:
    return "–" if interval is None else "{value:.3f} [{low:.3f}, {high:.3f}]".format(**interval)
