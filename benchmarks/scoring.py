"""Inference beside PyTorch's: python -m benchmarks inference|heatmap [--json FILE] [--exam-run RUN] [--patch-runs RUN]

Random weights; both take turns in one process (`_timing`). `inference`: images of one size → probabilities, and one
matrix product, which is how fast each library's own convolutions can be. `heatmap`: a patch network slid over one
mammogram as Wu et al. 2019 do, and the trunk run once over it (Shen et al. 2019), both beside the sliding window in
PyTorch. `heatmap --exam-run RUN` instead measures how far the heatmaps of a finished run with `config.exam.dense` are
from those of its windows, on the images of its test split. `heatmap --patch-runs RUN …` does so for patch classifiers
of whole images: are they slid what they are patch by patch?
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks import _timing
from benchmarks.training import FACTS, configured
from mammojax import tasks
from mammojax.configs import exam_patch, patch_resnet
from mammojax.data import dataset, exams, sliding
from mammojax.data.recipe import Recipe
from mammojax.evaluate import compare, heatmap, table
from mammojax.models import classifiers
from mammojax.models.head import TISSUE
from mammojax.train.checkpoint import restore_best
from mammojax.train.state import init_variables
from mammojax.vocabulary import FINDINGS, MALIGNANT_PATCHES


def main(arguments: Sequence[str]) -> Iterator[dict]:
    """A row for each network and batch, or each way to a heatmap: ours, PyTorch's, their ratio (below 1: faster)."""
    name, *rest = arguments
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}")
    precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    parser.add_argument("--precision", default=precision, choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    if name == "heatmap":
        parser.add_argument("--size", type=int, nargs=2, default=(768, 512), help="of the mammogram")
        parser.add_argument("--exam-run", type=Path, help="a finished run with heatmaps")
        parser.add_argument("--patch-runs", type=Path, nargs="+", help="finished runs of patch classifiers")
        args = parser.parse_args(rest)
        if args.exam_run:
            yield from _difference(args.exam_run)
        elif args.patch_runs:
            yield from _slid(args.patch_runs)
        else:
            yield from _heatmap(args)
        return
    parser.add_argument("--trunk", nargs="+", default=["resnet50", "efficientnet_lite0"])
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224))
    yield from _inference(parser.parse_args(rest))


def _inference(args: argparse.Namespace) -> Iterator[dict]:
    peak, size = _timing.peaks(args.precision), tuple(args.size)
    for trunk in args.trunk:
        for batch in args.batch:
            config = configured(patch_resnet.get_config("s10-random"), trunk, args.precision, batch)
            network = tasks.of("patch").network(config.model)
            variables = jax.device_put(init_variables(network, size, 3, 0))
            images = np.random.default_rng(0).integers(0, 65535, (batch, *size, 1), np.uint16)
            resident = jax.device_put(images)

            @jax.jit
            def score(variables: Any, images: jax.Array, network: Any = network) -> jax.Array:
                logits, _ = network.apply(variables, classifiers.as_input(images, FACTS["mean"], 3))
                return jax.nn.softmax(logits)

            lowered = score.lower(variables, resident)
            compiled = lowered.compile()

            def ours(turns: int, call: Any = compiled, variables: Any = variables, images: Any = resident) -> None:
                for _ in range(turns):
                    result = call(variables, images)
                result.block_until_ready()

            seconds = _timing.medians({"ours": ours, "torch": _peer(trunk, images, args.precision)})
            row = {"network": trunk, "size": f"{size[0]}×{size[1]}", "batch": batch, "precision": args.precision}
            row |= _timing.columns(seconds, batch)
            yield row | _timing.roofline(lowered, compiled, seconds["ours"], peak)
    yield _product(args.precision)


def _product(precision: str) -> dict[str, Any]:
    """One large matrix product in both: what no arrangement of the layers changes."""
    import torch

    from benchmarks import _torch

    product, square = jax.jit(lambda a: a @ a), _timing.square(precision)
    peer = torch.ones(square.shape, dtype=getattr(torch, precision), device=_torch.device())

    def ours(turns: int) -> None:
        [product(square) for _ in range(turns)][-1].block_until_ready()

    def theirs(turns: int) -> None:
        _torch.wait([peer @ peer for _ in range(turns)][-1])

    height, width = square.shape
    row = {"network": "matrix product", "size": f"{height}×{width}", "batch": 1, "precision": precision}
    return row | _timing.columns(_timing.medians({"ours": ours, "torch": theirs}), 1)


def _peer(trunk: str, images: np.ndarray, precision: str) -> Callable[[int], object]:
    import torch

    from benchmarks import _torch

    score = _torch.scorer(_torch.Classifier(trunk, 5), precision)
    gray = torch.tensor(np.moveaxis(images.astype(np.float32) * (255 / 65535), -1, 1), device=_torch.device())

    def turns(count: int) -> None:
        for _ in range(count):
            value = score(_torch.as_input(gray, augmented=False))
        _torch.wait(value)

    return turns


def _difference(run: Path) -> Iterator[dict]:
    """Of each finding's heatmap: how far the trunk run once is from windows of its patches, and the time of both."""
    config, _, _ = restore_best(run)
    data, net = dataset.of_run(run), heatmap.PatchNet(Path(config.patch_run) if config.patch_run else run / "patch")
    images, maps = exams.Images(data, "test", {}), {}
    with config.unlocked():
        config.exam.patch = max(1, round(config.exam.patch / sliding.CELL)) * sliding.CELL
    seconds = {}
    for dense in (True, False):
        with config.unlocked():
            config.exam.dense = dense
        net.heatmaps(images.pixels(0), config.exam)  # compiled
        started = time.perf_counter()
        maps[dense] = [net.heatmaps(images.pixels(k), config.exam) for k in range(len(data.table("test")))]
        seconds[dense] = (time.perf_counter() - started) / len(maps[dense])
    for k, name in enumerate(FINDINGS):
        pairs = [(ours[..., k], windows[..., k]) for ours, windows in zip(maps[True], maps[False], strict=True)]
        row = {"heatmap": name, "images": len(pairs), "patch": config.exam.patch, "stride": config.exam.stride}
        row["mean"] = float(np.mean([windows.mean() for _, windows in pairs]))
        row["mean_difference"] = float(np.mean([np.abs(ours - windows).mean() for ours, windows in pairs]))
        row["correlation"] = float(np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))
        highest = [(a.max(), b.max()) for a, b in pairs]
        row["correlation_of_highest"] = float(np.corrcoef(np.array(highest).T)[0, 1])
        yield row | {"dense_s": seconds[True], "window_s": seconds[False], "ratio": seconds[True] / seconds[False]}


def _slid(runs: Sequence[Path]) -> Iterator[dict]:
    """The log odds of malignant of slid patch classifiers, and of the patches cut out around the same places.

    At places of the test images whose patch is at least a quarter tissue; the AUC is that of an image's highest place.
    """
    both: list[tuple[table.Predictions, table.Predictions]] = []
    correlations = []
    for run in runs:
        config, facts, variables = restore_best(run)
        recipe = Recipe.of_run(config, run)
        data, side = dataset.find(recipe.of_kind("whole")), recipe.patch_side
        of_patches = partial(
            classifiers.make_apply(
                classifiers.build(config.model),
                facts["mean"],
                config.model.channels,
                config.model.get("normalise", "mean"),
            ),
            variables,
        )
        places: list[np.ndarray] = []
        highest: list[np.ndarray] = []
        for example in tqdm(data.source("test", masks=False), desc=run.name, unit="image", disable=None):
            image = np.asarray(example["image"])
            grid = np.asarray(heatmap.heatmap(config, facts, variables, image[None]))[0]
            around = [(side - heatmap.STRIDE) // 2, side]
            padded = np.pad(image, (around, around, (0, 0)))
            cut = np.empty_like(grid)
            for y in range(len(grid)):
                starts = np.arange(grid.shape[1]) * heatmap.STRIDE
                row = padded[y * heatmap.STRIDE :][:side]
                cut[y] = of_patches(np.stack([row[:, x : x + side] for x in starts]))
            tissue = (image[..., 0] > image.min()).astype(np.float32)
            share = cv2.blur(tissue, (recipe.patch_size,) * 2)[heatmap.STRIDE // 2 :: heatmap.STRIDE]
            asked = share[:, heatmap.STRIDE // 2 :: heatmap.STRIDE] >= TISSUE
            odds = np.stack([_log_odds(x)[asked] for x in (grid, cut)])
            places.append(odds)
            highest.append(odds.max(axis=1))
        rows = pd.DataFrame(data.table("test"))
        frame = pd.DataFrame({"image": rows["image"], "patient_id": rows["patient_id"]})
        frame["malignant"] = rows["label"].astype(int)
        scores = 1 / (1 + np.exp(-np.array(highest)))
        slid, alone = (table.Predictions(run.name, frame.assign(p_malignant=score)) for score in scores.T)
        both.append((slid, alone))
        correlations.append(float(np.corrcoef(np.concatenate(places, axis=1))[0, 1]))
        yield {"run": run.name, "images": len(frame), "correlation": correlations[-1]}
    yield {"runs": len(runs), "correlation": float(np.mean(correlations)), "least": min(correlations)}
    for name, pairs in (
        ("slid", [(slid, None) for slid, _ in both]),
        ("patch by patch", [(alone, None) for _, alone in both]),
        ("patch by patch less slid", [(alone, slid) for slid, alone in both]),
    ):
        mean = compare.over_repeats(pairs)
        yield {"measured": name, "auc": mean.value, "low": mean.low, "high": mean.high}


def _log_odds(probability: np.ndarray) -> np.ndarray:
    """Malignant against all other classes of patches, of probabilities [..., 5]."""
    malignant = probability[..., list(MALIGNANT_PATCHES)].sum(-1)
    rest = np.delete(probability, list(MALIGNANT_PATCHES), axis=-1).sum(-1)
    return np.log(np.maximum(malignant, 1e-30)) - np.log(np.maximum(rest, 1e-30))


def _heatmap(args: argparse.Namespace) -> Iterator[dict]:
    """The sliding window of both, and our trunk run once; a host's part, the sum of windows, is in both windows."""
    import torch

    from benchmarks import _torch

    config, (batch,) = exam_patch.get_config(), args.batch
    config.model.dtype = args.precision
    network = classifiers.build(config.model)
    patch, stride = sliding.PATCH, sliding.STRIDE
    variables = jax.device_put(init_variables(network, (patch, patch), config.model.channels, 0))
    pixels = np.random.default_rng(0).integers(0, 65535, tuple(args.size), np.uint16)

    @jax.jit
    def classify(patches: jax.Array) -> jax.Array:
        x = jax.numpy.repeat(patches[..., None], config.model.channels, axis=-1)
        return jax.nn.softmax(network.apply(variables, x)[0])

    score = _torch.scorer(_torch.Classifier(config.model.trunk, config.model.classes), args.precision)
    place = _torch.device()

    def classify_peer(patches: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(patches).to(place)[:, None].expand(-1, 3, -1, -1)
        return score(x.contiguous(memory_format=torch.channels_last)).cpu().numpy()

    def slide(classify: Any) -> Callable[[int], object]:
        def turns(count: int) -> None:
            for _ in range(count):
                sliding.heatmaps(pixels, classify, patch=patch, stride=stride, batch=batch)

        return turns

    facts = FACTS | {"kind": "patches_s10", "patch_size": patch}

    def dense(count: int) -> None:
        for _ in range(count):
            heatmap.heatmap(config, facts, variables, pixels[None, ..., None]).block_until_ready()

    calls = {"ours": slide(classify), "dense": dense, "torch": slide(classify_peer)}
    seconds = _timing.medians(calls)
    row = {"network": config.model.trunk, "size": "×".join(map(str, args.size)), "batch": batch}
    row["precision"] = args.precision
    for way, key in (("window", "ours"), ("trunk once", "dense")):
        yield row | {"way": way} | _timing.columns({"ours": seconds[key], "torch": seconds["torch"]}, 1)
