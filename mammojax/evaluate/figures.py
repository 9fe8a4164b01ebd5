"""The figures of Shen et al. 2019 from finished runs: Fig. 2, 4, 5 and App. 2 of arXiv v1. (Fig. 3 is compare's.)

Each function returns a matplotlib Figure; `write` is the command line's `mammojax figure NAME`. No figure holds an id.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mammojax import arguments, metrics
from mammojax.data import dataset
from mammojax.data.breast import breast_mask
from mammojax.errors import BadCheckpoint
from mammojax.evaluate import exam_figures, heatmap, report, table
from mammojax.evaluate import saliency as guided
from mammojax.train.checkpoint import patch_run, restore_best
from mammojax.vocabulary import PATCH_CLASSES

MALIGNANT, BENIGN = "#4fa3ff", "#62d26f"  # the outlines' colours in Fig. 4


FIGURES = ("saliency", "heatmap", "confusion", "intensity", "loss")
EXAM_FIGURES = ("lesions", "exam-heatmaps", "umap")


def _outline(axes: Any, mask: np.ndarray) -> None:
    for value, colour in ((1, BENIGN), (2, MALIGNANT)):
        if (mask == value).any():
            axes.contour(mask == value, levels=[0.5], colors=colour, linewidths=1.1)


def _show(axes: Any, image: np.ndarray, title: str = "") -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=65535)
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def _titles(runs: Sequence[Path]) -> list[str]:
    """What to call the runs: their folders; a nested patch run with the run around it; whole paths of namesakes."""
    folders = [run.absolute() for run in runs]
    names = [f"{f.parent.name}/{f.name}" if f.name == "patch" else f.name for f in folders]
    return names if len(set(names)) == len(set(folders)) else [str(run) for run in runs]


def saliency(run: Path, split: str = "test") -> Figure:
    """Fig. 4a–c: a true positive, a false positive and a false negative with their guided gradients.

    The operating point is the score at which Youden's index is greatest on this split (the paper names none); of each
    kind the surest image is shown, and kinds that do not occur are left out. Red dots are gradients above the cutoff,
    their size by strength; outlines are lesions, malignant blue and benign green.
    """
    config, facts, variables = _whole(run)
    data, scored = dataset.of_run(run), table.read_images(run, split)
    source, place = data.source(split), {row["image"]: k for k, row in enumerate(data.table(split))}
    label, score = scored.label(), scored.score()
    fpr, tpr, thresholds = metrics.roc_curve(label, score)
    at = thresholds[np.argmax(tpr - fpr)]
    kinds = {
        "true positive": [k for k in np.argsort(-score) if label[k] == 1 and score[k] >= at],
        "false positive": [k for k in np.argsort(-score) if label[k] == 0 and score[k] >= at],
        "false negative": [k for k in np.argsort(score) if label[k] == 1 and score[k] < at],
    }
    chosen = [(name, found[0]) for name, found in kinds.items() if found]
    if not chosen:
        raise BadCheckpoint(f'"{run}": its {split} split has no malignant image to show.')
    height, width = data.facts["framing"]["size"]
    figure = Figure(figsize=(3.2 * len(chosen), 3.2 * height / width + 0.6), layout="constrained")
    for axes, (name, k) in zip(np.atleast_1d(figure.subplots(1, len(chosen))), chosen, strict=True):
        example = source[place[scored.index[k]]]
        map_ = guided.saliency(config, facts, variables, example["image"][None])[0]
        _show(axes, example["image"][..., 0], f"{name}, p(malignant) = {score[k]:.2f}")
        y, x = np.nonzero(map_)
        axes.scatter(x, y, s=1 + 6 * map_[y, x], c="red", linewidths=0)
        _outline(axes, example["masks"][..., 0])
    keys = [
        Line2D([], [], color=MALIGNANT, label="malignant lesion"),
        Line2D([], [], color=BENIGN, label="benign lesion"),
        Line2D([], [], color="red", marker=".", linestyle="", label="saliency"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def heatmaps(run: Path, split: str = "test") -> Figure:
    """Fig. 4d: the four foreground classes of the patch classifier over the malignant image with the most of them."""
    config, _, _ = _whole(run)
    folder = patch_run(run, config.init_from)
    if folder is None:
        raise BadCheckpoint(f'"{run}" started from no patch run, or it is gone; name a run whose patch run is there.')
    patch = restore_best(folder)
    data = dataset.of_run(run)
    source, label = data.source(split), data.labels(split)
    grids = {
        int(k): np.asarray(heatmap.heatmap(*patch, source[int(k)]["image"][None])[0])
        for k in np.flatnonzero(label == 1)
    }
    if not grids:
        raise BadCheckpoint(f'"{run}": its {split} split has no malignant image to show.')
    best = max(grids, key=lambda k: float(grids[k][..., 1:].max()))
    example, grid = source[best], grids[best]
    height, width = example["image"].shape[:2]
    figure = Figure(figsize=(2.6 * 5, 2.6 * height / width + 0.3), layout="constrained")
    axes = figure.subplots(1, 5)
    _show(axes[0], example["image"][..., 0], "lesions outlined")
    _outline(axes[0], example["masks"][..., 0])
    for k, ax in enumerate(axes[1:], start=1):
        _show(ax, example["image"][..., 0], PATCH_CLASSES[k].replace("_", " "))
        seen = ax.imshow(heatmap.enlarge(grid[..., k], (height, width)), cmap="inferno", vmin=0, vmax=1, alpha=0.6)
    figure.colorbar(seen, ax=axes, shrink=0.7, label="probability")
    return figure


def confusion(runs: Sequence[Path], split: str = "test") -> Figure:
    """Fig. 2: confusion matrices whose rows sum to one, of one or several runs side by side."""
    figure = Figure(figsize=(5.6 * len(runs), 5.0), layout="constrained")
    for axes, run, title in zip(np.atleast_1d(figure.subplots(1, len(runs))), runs, _titles(runs), strict=True):
        _, facts, _ = restore_best(run)
        matrix = json.loads((run / "metrics.json").read_text())[split]["confusion_matrix"]
        report.draw_confusion(axes, matrix, facts["classes"])
        axes.set_title(title)
    return figure


def intensity(runs: Sequence[Path]) -> Figure:
    """Fig. 5: an image of each run's data set, and how often each gray value occurs in 50 of its training images.

    Only pixels of the breast count (data.breast.breast_mask).
    """
    figure = Figure(figsize=(2.6 * len(runs) + 4.4, 3.6), layout="constrained")
    axes = figure.subplots(1, len(runs) + 1, width_ratios=[*[1.0] * len(runs), 1.7])
    for k, (ax, run) in enumerate(zip(axes, runs, strict=False)):
        data = dataset.of_run(run)
        source = data.source("train", masks=False)
        picked = np.random.default_rng(0).permutation(len(source))[:50]
        name = f"{chr(ord('A') + k)}: {data.facts['name']}"
        _show(ax, source[int(picked[0])]["image"][..., 0], name)
        images = [source[int(i)]["image"][..., 0] for i in picked]
        values = np.concatenate([image[breast_mask(image)][::7] for image in images]) / 65535
        colour = (report.ACCENT, report.RED, report.BLUE)[k % 3]
        axes[-1].hist(values, np.linspace(0, 1, 101).tolist(), density=True, histtype="step",
                      linewidth=1.6, color=colour, label=name)  # fmt: skip
    axes[-1].set(xlabel="gray value, share of full scale", ylabel="density")
    axes[-1].legend(frameon=False)
    return figure


def loss(runs: Sequence[Path]) -> Figure:
    """arXiv v1, App. 2: train and validation loss by epoch; the gap between the two is what overfitting looks like."""
    figure = Figure(figsize=(4.6 * len(runs), 3.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(runs), sharey=True))
    panels[0].set_ylabel("loss (nats)")
    for axes, run, name in zip(panels, runs, _titles(runs), strict=True):
        log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for kind, colour in (("train", report.ACCENT), ("val", report.RED)):
            values = [row["loss"] for row in log if row["kind"] == kind]
            axes.plot(range(1, len(values) + 1), values, color=colour, marker="o", markersize=3,
                      label={"train": "train (augmented)", "val": "validation"}[kind])  # fmt: skip
        config, _, _ = restore_best(run)
        axes.set_xlabel("epoch")
        net = " + ".join(filter(None, (config.model.trunk, config.model.head)))
        axes.set_title(f"{name}\n{net}", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
    return figure


UNDATED: Any = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""By suffix, metadata that keeps dates out of the files: the same run gives the same bytes."""
NAMES = ("saliency", "heatmap", "confusion", "intensity", "loss")


def write(name: str, runs: Sequence[Path], output: Path, split: str = "test") -> None:
    """Draw one figure to a .png, .pdf or .svg file; `name` is of NAMES. Those of one run take the first."""
    for run in runs:
        restore_best(run)  # a folder that is no run is said before anything is drawn
    with matplotlib.rc_context(report.FONT | {"svg.hashsalt": name}):
        if name == "saliency":
            figure = saliency(runs[0], split)
        elif name == "heatmap":
            figure = heatmaps(runs[0], split)
        elif name == "confusion":
            figure = confusion(runs, split)
        else:
            figure = {"intensity": intensity, "loss": loss}[name](runs)
        figure.savefig(output, dpi=150, bbox_inches="tight", metadata=UNDATED[output.suffix.lower()])
    print(output, flush=True)


def _whole(run: Path) -> tuple[Any, dict[str, Any], Any]:
    config, facts, variables = restore_best(run)
    if config.model.task != "whole":
        raise BadCheckpoint(f'"{run}" is a patch run; give the run of a whole-image classifier.')
    return config, facts, variables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax figure`."""
    parser.add_argument("name", choices=[*FIGURES, *EXAM_FIGURES], help=f"of exams: {', '.join(EXAM_FIGURES)}")
    parser.add_argument("--run", type=Path, required=True, action="append", help="a run's folder; some take several")
    parser.add_argument("--split", choices=["test", "val"], default="test")
    parser.add_argument("--readers", type=Path, help="of umap: colour by what readers say")
    parser.add_argument("--output", type=arguments.file(".png", ".pdf", ".svg"), required=True)


def main(args: argparse.Namespace) -> int:
    """What `mammojax figure` does; see `write`, of exams `exam_figures.write`."""
    if args.name in EXAM_FIGURES:
        exam_figures.write(args.name, args.run[0], args.output, args.split, args.readers)
    else:
        write(args.name, args.run, args.output, args.split)
    return 0
