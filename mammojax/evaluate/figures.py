"""The papers' figures from finished runs: the choice of images and the layout of panels.

Shen et al. 2019: Fig. 2, 4, 5 and App. 2 of arXiv v1 (Fig. 3 is compare's). Wu et al. 2019: Fig. 2, 6 and 10 (Fig. 8
and 9 are readers'), where views hang as for reading: right breasts at the left, mirrored, CC above MLO. No figure shows
an id. Each function returns a matplotlib Figure; `write` is the command line's `mammojax figure NAME`.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import jax
import matplotlib
import ml_collections
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mammojax import arguments, metrics
from mammojax.data import dataset, exams, pairs
from mammojax.data.breast import breast_mask
from mammojax.errors import BadCheckpoint, NotComparable
from mammojax.evaluate import embedding, heatmap, plots, reader_file, table
from mammojax.evaluate import saliency as guided
from mammojax.train.checkpoint import patch_run, read_config, restore_best
from mammojax.vocabulary import FINDINGS, PAIRS, PATCH_CLASSES

NAMES = ("saliency", "heatmap", "confusion", "intensity", "loss")
EXAM_NAMES = ("lesions", "exam-heatmaps", "umap")
LARGEST = 800  # pixels of the longer side of an exam's images as drawn: many whole mammograms would take gigabytes
FEWEST = 15  # exams of an embedding: UMAP's number of neighbours
HUNG = (("R-CC", "L-CC"), ("R-MLO", "L-MLO"))
UNDATED: Any = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""Metadata by suffix that keeps dates out of the files, so that the same run gives the same bytes."""


def write(name: str, runs: Sequence[Path], output: Path, split: str = "test", readers: Path | None = None) -> None:
    """Draw one figure to a .png, .pdf or .svg file.

    Args:
        name: of NAMES or EXAM_NAMES.
        runs: run folders; figures of one run take the first.
        split: "test" or "val".
        readers: of umap, a reader study's CSV.

    Raises:
        BadCheckpoint: the figure does not fit a run. NotComparable: readers for a figure other than umap. Others: see
            the figures.
    """
    if readers is not None and name in ("lesions", "exam-heatmaps"):
        raise NotComparable(f"the figure {name} shows no readers; leave --readers out, it is for umap.")
    if name in NAMES:
        for run in runs:
            restore_best(run)  # a folder that is no run is refused before anything is drawn
    with matplotlib.rc_context(plots.FONT | {"svg.hashsalt": name}):
        match name:
            case "saliency":
                figure = saliency(runs[0], split)
            case "heatmap":
                figure = heatmaps(runs[0], split)
            case "confusion":
                figure = confusion(runs, split)
            case "intensity":
                figure = intensity(runs)
            case "loss":
                figure = loss(runs)
            case "lesions":
                figure = lesions(runs[0], split)
            case "exam-heatmaps":
                figure = exam_heatmaps(runs[0], split)
            case "umap":
                figure = umap(runs[0], split, readers)
            case _:
                raise ValueError(f'there is no figure "{name}".')
        figure.savefig(output, dpi=150, bbox_inches="tight", metadata=UNDATED[output.suffix.lower()])
    print(output, flush=True)


def saliency(run: Path, split: str = "test") -> Figure:
    """Fig. 4a–c: a true positive, a false positive and a false negative with their guided gradients.

    The operating point is the score at which Youden's index is greatest on this split (the paper names none); the
    figure shows the surest image of each kind, and leaves out kinds that do not occur; of a two-view run (not in the
    paper) the surest breasts, with both images. Red dots are gradients above the
    cutoff, their size by strength; outlines are lesions, malignant blue and benign green.
    """
    config, facts, variables = _whole_image_run(run, two_views=True)
    data, predictions = dataset.of_run(run), table.read_images(run, split)
    source, rows = pairs.examples(data, split, config.model)
    names = ["image"] if predictions.of_images else ["exam_id", "laterality"]
    place = {tuple(row[name] for name in names): k for k, row in enumerate(rows)}
    chosen = _errors(predictions.label(), predictions.score())
    if not chosen:
        raise BadCheckpoint(f'"{run}": its {split} split has no malignant image to show.')
    height, width = data.facts["framing"]["size"]
    views = ("",) if predictions.of_images else PAIRS[config.model.get("pair", "views")]
    figure = Figure(figsize=(3.2 * len(chosen), len(views) * (3.2 * height / width + 0.3) + 0.3), layout="constrained")
    panels = figure.subplots(len(views), len(chosen), squeeze=False)
    for column, (kind, k) in zip(panels.T, chosen, strict=True):
        example = source[place[tuple(predictions.frame.loc[k, names])]]
        dots = guided.saliency(config, facts, variables, jax.tree.map(lambda image: image[None], example["image"]))
        title = f"{kind}, p(malignant) = {predictions.score()[k]:.2f}"
        for axes, view in zip(column, views, strict=True):
            parts = (example["image"], example["masks"], dots)
            image, mask, map_ = (part[view] if view else part for part in parts)
            plots.image(axes, image[..., 0], f"{view}: {title}" if view else title)
            plots.dots(axes, map_[0])
            plots.outline(axes, mask[..., 0], plots.OF_SHEN, 1.1)
    keys = [Line2D([], [], color=plots.OF_SHEN[name], label=f"{name} lesion") for name in FINDINGS]
    keys.append(Line2D([], [], color="red", marker=".", linestyle="", label="saliency"))
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _errors(label: np.ndarray, score: np.ndarray) -> list[tuple[str, int]]:
    """The surest true positive, false positive and false negative, (kind, index), of those that occur."""
    fpr, tpr, thresholds = metrics.roc_curve(label, score)
    at = thresholds[np.argmax(tpr - fpr)]
    kinds = {
        "true positive": [k for k in np.argsort(-score) if label[k] == 1 and score[k] >= at],
        "false positive": [k for k in np.argsort(-score) if label[k] == 0 and score[k] >= at],
        "false negative": [k for k in np.argsort(score) if label[k] == 1 and score[k] < at],
    }
    return [(kind, int(images[0])) for kind, images in kinds.items() if images]


def heatmaps(run: Path, split: str = "test") -> Figure:
    """Fig. 4d: the four foreground classes of the patch classifier over the malignant image with the most of them."""
    config, _, _ = _whole_image_run(run)
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
    panels = figure.subplots(1, 5)
    plots.image(panels[0], example["image"][..., 0], "lesions outlined")
    plots.outline(panels[0], example["masks"][..., 0], plots.OF_SHEN, 1.1)
    for k, axes in enumerate(panels[1:], start=1):
        plots.image(axes, example["image"][..., 0], PATCH_CLASSES[k].replace("_", " "))
        colours = plots.overlay(axes, heatmap.enlarge(grid[..., k], (height, width)))
    figure.colorbar(colours, ax=panels, shrink=0.7, label="probability")
    return figure


def confusion(runs: Sequence[Path], split: str = "test") -> Figure:
    """Fig. 2: confusion matrices whose rows sum to one, of one or several runs side by side."""
    figure = Figure(figsize=(5.6 * len(runs), 5.0), layout="constrained")
    for axes, run, title in zip(np.atleast_1d(figure.subplots(1, len(runs))), runs, _titles(runs), strict=True):
        _, facts = read_config(run)
        matrix = json.loads((run / "metrics.json").read_text())[split]["confusion_matrix"]
        plots.confusion(axes, matrix, facts["classes"], title)
    return figure


def intensity(runs: Sequence[Path]) -> Figure:
    """Fig. 5: an image of each run's data set, and how often each gray value occurs in 50 of its training images.

    Only pixels of the breast count (data.breast.breast_mask).
    """
    figure = Figure(figsize=(2.6 * len(runs) + 4.4, 3.6), layout="constrained")
    *panels, histogram = figure.subplots(1, len(runs) + 1, width_ratios=[*[1.0] * len(runs), 1.7])
    for k, (axes, run) in enumerate(zip(panels, runs, strict=True)):
        data = dataset.of_run(run)
        source = data.source("train", masks=False)
        images = [source[int(i)]["image"][..., 0] for i in np.random.default_rng(0).permutation(len(source))[:50]]
        name = f"{chr(ord('A') + k)}: {data.facts['name']}"
        plots.image(axes, images[0], name)
        values = np.concatenate([image[breast_mask(image)][::7] for image in images]) / 65535
        plots.gray_values(histogram, values, name, (plots.ACCENT, plots.RED, plots.BLUE)[k % 3])
    histogram.set(xlabel="gray value, share of full scale", ylabel="density")
    histogram.legend(frameon=False)
    return figure


def loss(runs: Sequence[Path]) -> Figure:
    """arXiv v1, App. 2: train and validation loss by epoch; their gap shows overfitting."""
    figure = Figure(figsize=(4.6 * len(runs), 3.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(runs), sharey=True))
    panels[0].set_ylabel("loss (nats)")
    for axes, run, name in zip(panels, runs, _titles(runs), strict=True):
        plots.losses(axes, [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])
        config, _ = read_config(run)
        net = " + ".join(filter(None, (config.model.trunk, config.model.head)))
        axes.set_title(f"{name}\n{net}", fontsize=9)
        axes.legend(frameon=False)
    return figure


def _titles(runs: Sequence[Path]) -> list[str]:
    """Titles of the runs: their folders; for a nested patch run the run around it too; for namesakes whole paths."""
    folders = [run.absolute() for run in runs]
    names = [f"{f.parent.name}/{f.name}" if f.name == "patch" else f.name for f in folders]
    return names if len(set(names)) == len(set(folders)) else [str(run) for run in runs]


def _whole_image_run(run: Path, two_views: bool = False) -> tuple[Any, dict[str, Any], Any]:
    config, facts, variables = restore_best(run)
    task = config.model.task
    if task != "whole" and not (two_views and task == "two_view"):
        what = {"two_view": "a two-view run", "exam": "an exam run"}.get(task, "a patch run")
        raise BadCheckpoint(f'"{run}" is {what}; give the run of a whole-image classifier.')
    return config, facts, variables


@dataclass
class ExamPicture:
    """An exam to draw.

    Attributes:
        caption: the text above it, without ids.
        images: by view uint16 [H, W], cropped, facing right, at most LARGEST pixels high and wide.
        lesions: by view uint8 [H, W], of plots.MARKS.
        heatmaps: by view float32 [H, W, 2], the probabilities of FINDINGS; empty without a patch network.
    """

    caption: str
    images: dict[str, np.ndarray] = field(default_factory=dict)
    lesions: dict[str, np.ndarray] = field(default_factory=dict)
    heatmaps: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def panels(self) -> tuple[str, ...]:
        """The panels that `exam_figure` shows side by side."""
        return ("image", "malignant", "benign") if self.heatmaps else ("image", "lesions")


def outlined_exams(run: Path, split: str = "test", count: int = 3) -> list[ExamPicture]:
    """Exams of a split with outlined lesions: first those with malignant and benign ones, then those with malignant.

    Raises:
        BadCheckpoint: not an exam run. NotPrepared: its data set is gone.
    """
    _exam_run(run)
    data = dataset.of_run(run)
    source, facts = data.source(split), [json.loads(row["facts"]) for row in data.table(split)]
    ranked: list[tuple[int, bool, int, list[str], exams.Exam]] = []
    for exam in exams.exams_of(data, split):
        rows = [facts[index] for view in exam.images.values() for index in view]
        visible = [name for name in FINDINGS if any(row[f"{name}_visible"] for row in rows)]
        if visible:
            ranked.append((-len(visible), visible == ["benign"], len(ranked), visible, exam))
    pictures: list[ExamPicture] = []
    for *_, visible, exam in sorted(ranked, key=lambda item: item[:3]):
        picture = _picture(source, exam, f"Visible findings: {' and '.join(visible)}")
        if any(marks.any() for marks in picture.lesions.values()):  # a visible finding may have no outline
            pictures.append(picture)
        if len(pictures) == count:
            break
    return pictures


def surest_exams(run: Path, split: str = "test") -> list[ExamPicture]:
    """The exams of the malignant breasts with the highest and the lowest p(malignant), and of the benign one that is
    not malignant with the highest; with heatmaps where the network takes them. Kinds that do not occur are left out.

    Raises:
        BadCheckpoint: not an exam run. NotComparable: it has no predictions of breasts. NotPrepared: its data set is
            gone. BadDataset: its heatmaps are.
    """
    config, facts = _exam_run(run)
    breasts, data = table.read_breasts(run, split), dataset.of_run(run)
    channels = heatmap.channels_of(data, config, facts)
    score, malignant = breasts.score(), np.flatnonzero(breasts.label() == 1)
    benign = np.flatnonzero((breasts.label("benign") == 1) & (breasts.label() == 0))
    order, reverse = malignant[np.argsort(score[malignant])], benign[np.argsort(-score[benign])]
    kinds = {
        "Malignant breast with the highest score": order[-1:],
        "Malignant breast with the lowest score": order[: min(1, len(order) - 1)],  # not the same one twice
        "Benign breast scored most malignant": reverse[:1],
    }
    by_id = {(exam.exam_id, exam.patient_id): exam for exam in exams.exams_of(data, split)}
    pictures = []
    for kind, k in ((kind, int(k)) for kind, indices in kinds.items() for k in indices):
        exam_id, side = breasts.index[k]
        key = exam_id, breasts.patient[k]
        if key not in by_id:
            raise NotComparable(f'"{run}" scored exams that its data set does not hold; prepare the same data again.')
        lines = [f"{kind} ({'left' if side == 'L' else 'right'})"]
        for row in breasts.frame.to_dict("records"):
            if (row["exam_id"], row["patient_id"]) == key:
                truth = [name for name in FINDINGS if row[name] == 1]
                scores = [f"p({name}) = {row[f'p_{name}']:.2f}" for name in FINDINGS]
                breast = "left" if row["laterality"] == "L" else "right"
                lines.append(f"{breast}: {', '.join(scores)}; {' and '.join(truth) or 'no finding'}")
        folder = channels[0] / split if channels else None
        pictures.append(_picture(data.source(split), by_id[key], "\n".join(lines), folder))
    return pictures


def _picture(source: Any, exam: exams.Exam, caption: str, folder: Path | None = None) -> ExamPicture:
    """An exam's images, one per view: the first with an outlined lesion, else the first; heatmaps from `folder`."""
    picture = ExamPicture(caption)
    for view, indices in exam.images.items():
        examples = [source[index] for index in indices]
        k = next((k for k, example in enumerate(examples) if example["masks"].any()), 0)
        picture.images[view] = _small(examples[k]["image"][..., 0], cv2.INTER_AREA)
        picture.lesions[view] = _small(examples[k]["masks"][..., 0], cv2.INTER_NEAREST)
        if folder is not None:
            picture.heatmaps[view] = _small(exams.read_heatmaps(folder / f"{indices[k]}.png"), cv2.INTER_AREA)
    return picture


def _small(pixels: np.ndarray, interpolation: int) -> np.ndarray:
    factor = LARGEST / max(pixels.shape[:2])
    return pixels if factor >= 1 else cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=interpolation)


def exam_figure(pictures: Sequence[ExamPicture], panels: Sequence[str] = (), of: plots.Colours = plots.OF_WU) -> Figure:
    """One exam above the other: its images; beside them the same with lesions filled, or, where there are heatmaps,
    with each of them laid over (`plots.exam_view`), in the colours `of`. `panels` selects some; (): all."""
    panels = panels or pictures[0].panels
    headings = {"image": "image", "lesions": f"lesions: {', '.join(f'{n} {plots.WORDS[of[n]]}' for n in of)}"}
    # Positions in inches: constrained layout of figures within figures differs from call to call.
    side, panel_width = 1.6, 3.4
    texts = [0.6 + 0.17 * picture.caption.count("\n") if picture.caption else 0.3 for picture in pictures]
    heights = [
        [side * max((x.shape[0] / x.shape[1] for view, x in picture.images.items() if view in row), default=0.0)
         for row in HUNG]
        for picture in pictures
    ]  # fmt: skip
    width, height = panel_width * len(panels), sum(texts) + sum(high + 0.05 for rows in heights for high in rows)
    figure = Figure(figsize=(width, height))
    top = height
    for picture, text, rows in zip(pictures, texts, heights, strict=True):
        figure.text(0.5, (top - 0.16) / height, picture.caption, ha="center", va="top", fontsize=10)
        top -= text
        for k, panel in enumerate(panels):
            heading = headings.get(panel, f"p({panel}) of the patch network")
            figure.text((k + 0.48) / len(panels), (top + 0.04) / height, heading, ha="center", fontsize=8)
            below = top
            for views, high in zip(HUNG, rows, strict=True):
                below -= high + 0.05
                for column, view in enumerate(views):
                    if view in picture.images:
                        left = (k * panel_width + column * (side + 0.03)) / width
                        axes = figure.add_axes((left, below / height, side / width, high / height))
                        arrays = picture.images[view], picture.lesions[view], picture.heatmaps.get(view)
                        plots.exam_view(axes, view, panel, *arrays, of)
        top = below
    return figure


def lesions(run: Path, split: str = "test") -> Figure:
    """Fig. 2: exams with their lesions filled half-transparently, malignant red and benign green."""
    if not (pictures := outlined_exams(run, split)):
        raise BadCheckpoint(f'"{run}": its {split} split has no outlined lesion to show.')
    return exam_figure(pictures)


def exam_heatmaps(run: Path, split: str = "test") -> Figure:
    """Fig. 6: the exams of `surest_exams` with both heatmaps of the patch network."""
    _, facts = _exam_run(run)
    if not facts.get("heatmaps"):
        raise BadCheckpoint(f'"{run}" takes no heatmaps; name a run of a network that does.')
    if not (pictures := surest_exams(run, split)):
        raise BadCheckpoint(f'"{run}": its {split} split has no malignant or benign breast to show.')
    return exam_figure(pictures)


def umap(run: Path, split: str = "test", readers: Path | None = None) -> Figure:
    """Fig. 10: exams embedded by the columns' features and by the first fully connected layers' activations.

    The warmer and larger a point, the higher p(malignant), the mean of both breasts: of all readers if their CSV is
    given, and then only the exams that they read are shown; else the run's own. A cross marks exams with a malignant
    breast.

    Raises:
        BadCheckpoint: too few exams, or no umap-learn. BadManifest: of `reader_file.read`. Others: see
            `embedding.activations`.
    """
    config, _ = _exam_run(run)
    by_exam, whose = _scores_of_exams(run, config, split, readers)
    count = len(embedding.whole_exams(config, dataset.of_run(run), split, by_exam))
    if count < FEWEST:
        raise BadCheckpoint(
            f'"{run}": of its {split} split {count} exams have all views and both breasts scored; an embedding needs '
            f"{FEWEST} or more."
        )
    embedding.load_umap()  # a missing module is refused before the long part
    whole, columns, hidden = embedding.activations(run, split, by_exam)
    score = np.array([by_exam[exam.exam_id] for exam in whole])
    malignant = np.array([(exam.label[2:] == 1).any() for exam in whole])
    figure = Figure(figsize=(10.5, 5.2), layout="constrained")
    panels = figure.subplots(1, 2)
    names = ("columns' features", "first fully connected layers")
    for axes, vectors, name in zip(panels, (columns, hidden), names, strict=True):
        title = f"{name} ({vectors.shape[1]:,} activations)"
        colours = plots.embedding(axes, embedding.embed(vectors), score, malignant, title)
    figure.colorbar(colours, ax=panels, shrink=0.8, label="p(malignant), mean of both breasts")
    figure.suptitle(f"UMAP of {len(whole)} exams ({split}); colour and size: {whose}, mean of both breasts")
    if malignant.any():
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", frameon=False, fontsize=9)
    return figure


def _scores_of_exams(
    run: Path, config: ml_collections.ConfigDict, split: str, readers: Path | None
) -> tuple[dict[str, float], str]:
    """p(malignant) by exam_id, the mean of its breasts where both have one, and the source of these scores in words."""
    sides: dict[str, dict[str, float]] = {}
    if readers is not None:
        group = reader_file.read(readers)
        whose = f"mean of {len(group)} readers" if len(group) > 1 else "one reader"
        for (exam_id, side), p in zip(group.scores.index, group.scores.to_numpy(), strict=True):
            sides.setdefault(exam_id, {})[side] = float(np.mean(p))
    elif config.model.target == "birads":
        raise BadCheckpoint(f'"{run}" is a BI-RADS run, which scores no breasts; name a readers\' file (--readers).')
    else:
        whose, breasts = "this run's predictions", table.read_breasts(run, split)
        for (exam_id, side), p in zip(breasts.index, breasts.score(), strict=True):
            sides.setdefault(exam_id, {})[side] = float(p)
    return {exam_id: float(np.mean(list(both.values()))) for exam_id, both in sides.items() if len(both) == 2}, whose


def _exam_run(run: Path) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
    config, facts = read_config(run)
    if config.model.task != "exam":
        raise BadCheckpoint(f'"{run}" is not a network for exams; name the run of a multi-view network.')
    return config, facts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax figure`."""
    parser.add_argument("name", choices=[*NAMES, *EXAM_NAMES], help=f"of exams: {', '.join(EXAM_NAMES)}")
    parser.add_argument("--run", type=Path, required=True, action="append", help="a run's folder; some take several")
    parser.add_argument("--split", choices=["test", "val"], default="test")
    parser.add_argument("--readers", type=Path, help="of umap: colour by what readers say")
    parser.add_argument("--output", type=arguments.file(".png", ".pdf", ".svg"), required=True)


def main(args: argparse.Namespace) -> int:
    """Run `mammojax figure`; see `write`."""
    write(args.name, args.run, args.output, args.split, args.readers)
    return 0
