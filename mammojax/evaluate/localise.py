"""Does a map light up at the lesion? Saliency maps and heatmaps against lesion outlines, on any data set with masks.

Three measures, each with a patient-clustered interval. *Share*: how much of a map's sum lies inside the outlines, per
malignant image. *Pointing game* (Zhang et al. 2018): does the map's maximum lie inside one, within a tolerance, on
malignant images. *FROC*: the share of malignant lesions hit against false marks per image, over malignant and other
images; marks are the map's local maxima, a lesion is hit by a mark inside its outline, and a mark on a benign lesion is
false. Shen et al. 2019 show single saliency maps (Fig. 4) and measure none of these; the measures are ours.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import jax
import ml_collections
import numpy as np
from scipy.sparse import coo_array
from skimage.feature import peak_local_max
from tqdm import tqdm

from mammojax import arguments, metrics
from mammojax.data import dataset, pairs
from mammojax.data.pairs import by_view
from mammojax.errors import BadCheckpoint
from mammojax.evaluate import heatmap, saliency
from mammojax.evaluate.report import interval_text
from mammojax.models import classifiers
from mammojax.train.checkpoint import patch_run, restore_best

RATES = (0.25, 0.5, 1.0, 2.0)  # false marks per image at which FROC is read
MARKS = 10  # the most maxima of a map that count as marks
BENIGN, MALIGNANT = 1, 2  # of a mask's pixels
Outlines = dict[str, coo_array]
"""An example's masks by view, [H, W], of which only the pixels of lesions are kept; see `outlines`."""


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
    maxima = peak_local_max(map_, min_distance=distance, threshold_abs=1e-12, num_peaks=MARKS, exclude_border=False)
    return sorted(((float(map_[y, x]), int(y), int(x)) for y, x in maxima), reverse=True)


def hits(marks_: Sequence[tuple[float, int, int]], mask: np.ndarray) -> tuple[list[tuple[float, bool]], int]:
    """Which of an image's marks hit a lesion; each connected region of `mask` (bool [H, W]) is a lesion.

    Returns:
        (score, hit) of each mark, but of several on one lesion only the highest; and the number of lesions.
    """
    count, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    result, hit = [], set()
    for score, y, x in sorted(marks_, reverse=True):
        region = int(regions[y, x])
        if region not in hit:
            result.append((score, region > 0))
        if region:
            hit.add(region)
    return result, count - 1


def froc(
    marks_: Sequence[Sequence[tuple[float, bool]]], lesions: Sequence[int], rates: Sequence[float] = RATES,
    weight: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Share of lesions hit at each number of false marks per image.

    Args:
        marks_: (score, hit) of each image's marks, from `hits`.
        lesions: their number in each image.
        rates: mean false marks per image.
        weight: how often each image counts, [R, N] for R values at once; None: once.

    Returns:
        float64 [R, len(rates)], R = 1 without weights: the highest sensitivity whose false marks stay within the rate;
        NaN without lesions.
    """
    weights = np.ones((1, len(lesions))) if weight is None else weight
    of = np.repeat(np.arange(len(marks_)), [len(image) for image in marks_])
    score = np.array([score for image in marks_ for score, _ in image])
    hit = np.array([hit for image in marks_ for _, hit in image], bool)
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=-np.inf))  # equal scores are one threshold
    of, hit = of[order], hit[order]
    true = np.pad(np.cumsum(weights[:, of] * hit, axis=1)[:, last], ((0, 0), (1, 0)))  # first: no mark at all
    false = np.pad(np.cumsum(weights[:, of] * ~hit, axis=1)[:, last], ((0, 0), (1, 0)))
    allowed = weights.sum(axis=1, keepdims=True)
    best = np.stack([np.where(false <= rate * allowed, true, 0.0).max(axis=1) for rate in rates], axis=1)
    with np.errstate(invalid="ignore"):
        return best / (weights @ np.asarray(lesions, float))[:, None]


def random_variables(variables: Any, seed: int) -> Any:
    """Untrained variables of the same shapes: he-normal kernels, fresh scales and statistics."""
    rng = np.random.default_rng(seed)

    def draw(tree: Any, name: str = "") -> Any:
        if isinstance(tree, dict):
            return {key: draw(tree[key], key) for key in sorted(tree)}
        shape = np.shape(tree)
        if name != "kernel":
            return np.full(shape, float(name in ("scale", "var")), np.float32)
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype(np.float32)

    return draw(variables)


def localise(
    run: Path, split: str = "test", limit: int = 0, tolerance: int = 0, runs: int = 1000, saliency_too: bool = True,
    masks: Sequence[Outlines] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure a run's saliency, its patch run's heatmap and that of its own head, if it has them.

    The views of a two-view run's pair are images of their own, each marked by its part of the pair's map; of two
    breasts the first counts, whose label it is.

    Malignant images without an outline are left out. A saliency map only ranks pixels within its image, so
    across images its marks rank by the map times the image's p_malignant, for trained and random weights alike.

    Args:
        run: a whole-image or two-view run whose data set has lesion masks.
        split: "test" or "val".
        limit: measure only the first so many malignant and so many other images; 0: all.
        tolerance: of the pointing game, pixels of the framed image.
        runs: bootstrap draws of patients.
        saliency_too: False leaves out the saliency maps, which take most of the time.
        masks: `outlines` of each example of the split, where they are read already; None: they are decoded.

    Returns:
        {"split", "images" (malignant), "others", "lesions", "tolerance", "maps": {name: {"share", "pointing", "froc":
        {rate: interval}}}}, intervals as {"value", "low", "high"}; names: "saliency", "saliency, random weights",
        "heatmap" (the patch run's), "own heatmap" (`heatmap.of_head`), "area" (a constant map: the lesions' share of
        the image, the value of chance).

    Raises:
        BadCheckpoint: not such a run, or nothing malignant in the split has a mask.
    """
    config, facts, variables = restore_best(run)
    if config.model.task not in ("whole", "two_view"):
        what = "a network for exams" if config.model.task == "exam" else "a patch classifier"
        raise BadCheckpoint(f'"{run}" is {what}; localise needs the run of a whole-image or two-view classifier.')
    data = dataset.of_run(run)
    source, table = pairs.examples(data, split, config.model, masks=masks is None)
    positive = (k for k, row in enumerate(table) if row["label"] == "1")
    with_outline = (k for k in positive if outlined(masks[k] if masks else outlines(source[k]["masks"]), MALIGNANT))
    malignant = list(islice(with_outline, limit or None))
    if not malignant:
        raise BadCheckpoint(f'"{run}": no malignant image of its {split} split has a lesion mask to compare with.')
    others = list(islice((k for k, row in enumerate(table) if row["label"] == "0"), limit or None))
    folder = patch_run(run, config.init_from)
    patch = restore_best(folder) if folder else None
    nets = {"saliency": variables, "saliency, random weights": random_variables(variables, config.seed)}
    nets = nets if saliency_too else {}
    log_p = _log_p(config, facts["mean"])
    rows: dict[str, _Row] = {name: _Row() for name in nets}
    patients: list[str] = []
    count = 0
    for k in tqdm(malignant + others, desc="localise", unit="image", disable=None):
        example = source[k]
        images = jax.tree.map(lambda image: image[None], example["image"])
        marked = masks[k] if masks else outlines(example["masks"])
        lesions = {view: mask.toarray() == MALIGNANT for view, mask in marked.items()}
        if table[k]["label"] == "1":
            lesions = {view: mask for view, mask in lesions.items() if mask.any()}
            count += len(lesions)
        patients += [table[k]["patient_id"]] * len(lesions)
        for name, weights in nets.items():
            maps = by_view(saliency.saliency(config, facts, weights, images))
            log_weight = float(log_p(weights, images))
            for view, mask in lesions.items():
                rows[name].add(maps[view][0], mask, tolerance, log_weight)
        for view, mask in lesions.items():
            image = by_view(images)[view]
            if patch:
                grid = np.asarray(heatmap.heatmap(*patch, image)[0])
                rows.setdefault("heatmap", _Row()).add(heatmap.malignant(grid, mask.shape), mask, tolerance)
            if heatmap.is_map(config.model.head):
                own = heatmap.of_head(config, facts, variables, image)[0]
                rows.setdefault("own heatmap", _Row()).add(own, mask, tolerance)
            rows.setdefault("area", _Row()).add(np.ones(mask.shape, np.float32), mask, tolerance)
    return {
        "split": split, "images": count, "others": len(patients) - count, "lesions": sum(rows["area"].lesions),
        "tolerance": tolerance,
        "maps": {name: row.measured(np.array(patients), count, runs, name != "area") for name, row in rows.items()},
    }  # fmt: skip


def outlines(masks: Any) -> Outlines:
    """An example's masks, uint8 [H, W, 1] or such by input, without what is no lesion: thousands fit into memory."""
    return {view: coo_array(mask[..., 0]) for view, mask in by_view(masks).items()}


def outlined(marked: Outlines, kind: int) -> bool:
    """Whether a lesion of a kind, BENIGN or MALIGNANT, is outlined in one of an example's masks."""
    return any(bool((mask.data == kind).any()) for mask in marked.values())


def _log_p(config: ml_collections.ConfigDict, mean: float) -> Any:
    """A jitted function: variables, one image uint16 [1, H, W, 1], or a pair by input → log(p_malignant).

    The logarithm, since random weights give logits thousands apart: p itself would be 0, a tie, for many images.
    """

    model, normalise = classifiers.build(config.model), config.model.get("normalise", "mean")

    @jax.jit
    def log_p(variables: Any, image: Any) -> jax.Array:
        logits, _ = model.apply(variables, classifiers.as_input(image, mean, config.model.channels, normalise))
        return jax.nn.log_softmax(logits, axis=-1)[0, 1]

    return log_p


class _Row:
    """The measurements of one kind of map, image by image; the maps themselves would fill the memory."""

    def __init__(self) -> None:
        self.inside: list[float] = []
        self.points: list[bool] = []
        self.marks: list[list[tuple[float, bool]]] = []
        self.lesions: list[int] = []

    def add(self, map_: np.ndarray, mask: np.ndarray, tolerance: int, log_weight: float = 0.0) -> None:
        weighted = [
            (log_weight + float(np.log(score)), y, x)
            for score, y, x in marks(map_, max(1, round(min(mask.shape) * 0.05)))
        ]
        marks_, lesions = hits(weighted, mask)
        self.inside.append(share(map_, mask))
        self.points.append(pointing(map_, mask, tolerance))
        self.marks.append(marks_)
        self.lesions.append(lesions)

    def measured(self, patients: np.ndarray, malignant: int, runs: int, points: bool) -> dict[str, Any]:
        """The cells of a row; the first `malignant` images are the malignant ones."""

        def mean(values: np.ndarray) -> dict[str, float]:
            def statistic(weights: np.ndarray | None) -> np.ndarray:
                return values.mean() if weights is None else weights @ values / weights.sum(axis=1)

            return metrics.interval_of(statistic, patients[:malignant], runs).to_json()

        result: dict[str, Any] = {"share": mean(np.array(self.inside[:malignant]))}
        if points:
            result["pointing"] = mean(np.array(self.points[:malignant], float))
            value = froc(self.marks, self.lesions)[0]
            drawn = metrics.draws_of(lambda w: froc(self.marks, self.lesions, weight=w), patients, runs, 0)
            result["froc"] = {
                str(rate): metrics.interval(float(value[k]), drawn[:, k]).to_json() for k, rate in enumerate(RATES)
            }
        return result


def write(run: Path, split: str, limit: int, tolerance: int, output: Path | None) -> None:
    """Print the measurements of `localise`; with `output`, also write them as JSON."""
    result = localise(run, split, limit, tolerance)
    print(f"{split}: {result['images']} malignant images, {result['lesions']} malignant lesions; 95 % by patient")
    print(f"FROC: lesions hit at so many false marks per image, {result['others']} other images included")
    print(f"{'map':<26}{'share inside':<24}{'pointing game':<24}" + "".join(f"FROC {r:<19}" for r in RATES))
    for name, cells in result["maps"].items():
        line = [interval_text(cells["share"]), interval_text(cells.get("pointing"))]
        line += [interval_text(cells.get("froc", {}).get(str(rate))) for rate in RATES]
        print(f"{name:<26}" + "".join(f"{cell:<24}" for cell in line).rstrip())
    if output:
        output.write_text(json.dumps(result, indent=2) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax localise`."""
    parser.add_argument(
        "--run", type=Path, required=True, help="a whole-image or two-view run whose data set has lesion masks"
    )
    parser.add_argument("--split", choices=["test", "val"], default="test")
    parser.add_argument("--images", type=arguments.count, default=0, help="only so many malignant and so many others")
    parser.add_argument("--tolerance", type=arguments.count, default=0, help="of the pointing game, pixels")
    parser.add_argument("--json", type=arguments.file(".json"), help="also write the numbers to this file")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax localise`; see `write`."""
    write(args.run, args.split, args.images, args.tolerance, args.json)
    return 0
