"""The figures of Wu et al. 2019 that show the exams of a finished run: Fig. 2, 6 and 10. (Fig. 8 and 9 are readers'.)

Views hang as for reading: right breasts at the left, mirrored, CC above MLO. No figure holds an id.
"""

import json
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import matplotlib
import ml_collections
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from tqdm import tqdm

from mammojax.data import dataset, exams
from mammojax.errors import BadCheckpoint, NotComparable
from mammojax.evaluate import figures, heatmap, reader_file, report, table
from mammojax.evaluate.predictor import ExamPredictor
from mammojax.models import multi_view
from mammojax.train.checkpoint import read_config, restore_best
from mammojax.vocabulary import FINDINGS, VIEWS

COLOUR = {"malignant": "#ff2d2d", "benign": "#2ecc40"}  # as in Fig. 2 and 6
MARKS = {"benign": 1, "malignant": 2}  # of the prepared masks
HUNG = ("R-CC", "L-CC", "R-MLO", "L-MLO")
LARGEST = 800  # pixels of the longer side as drawn: many whole mammograms would take gigabytes
FEWEST = 15  # exams of an embedding, the neighbours that UMAP looks at
NAMES = ("lesions", "exam-heatmaps", "umap")


@dataclass
class Shown:
    """An exam to draw.

    Attributes:
        caption: what stands above it, without ids.
        image: by view uint16 [H, W], cropped, facing right, at most LARGEST pixels high and wide.
        lesions: by view uint8 [H, W], of MARKS.
        heatmaps: by view float32 [H, W, 2], the probabilities of FINDINGS; empty without a patch network.
    """

    caption: str
    image: dict[str, np.ndarray] = field(default_factory=dict)
    lesions: dict[str, np.ndarray] = field(default_factory=dict)
    heatmaps: dict[str, np.ndarray] = field(default_factory=dict)


def with_lesions(run: Path, split: str = "test", count: int = 3) -> list[Shown]:
    """Exams of a split with outlined lesions: first those with malignant and benign ones, then those with malignant.

    Raises:
        BadCheckpoint: the run is none of exams. NotPrepared: its data set is gone.
    """
    _of_exams(run)
    data = dataset.of_run(run)
    source, facts = data.source(split), [json.loads(row["facts"]) for row in data.table(split)]
    ranked: list[tuple[int, bool, int, list[str], exams.Exam]] = []
    for exam in exams.exams_of(data, split):
        rows = [facts[index] for view in exam.images.values() for index in view]
        seen = [name for name in ("malignant", "benign") if any(row[f"{name}_visible"] for row in rows)]
        if seen:
            ranked.append((-len(seen), seen == ["benign"], len(ranked), seen, exam))
    result: list[Shown] = []
    for *_, seen, exam in sorted(ranked, key=lambda item: item[:3]):
        shown = _load(source, exam, f"Visible findings: {' and '.join(seen)}")
        if any(marks.any() for marks in shown.lesions.values()):  # a visible finding may have no outline
            result.append(shown)
        if len(result) == count:
            break
    return result


def scored(run: Path, split: str = "test") -> list[Shown]:
    """The exams of the malignant breasts with the highest and the lowest p(malignant), and of the benign one that is
    not malignant with the highest; with heatmaps where the network takes them. Kinds that do not occur are left out.

    Raises:
        BadCheckpoint: the run is none of exams. NotComparable: it has no predictions of breasts. NotPrepared: its data
            set is gone. BadDataset: its heatmaps are.
    """
    _, folder = _heatmaps(run)
    breasts, data = table.read_breasts(run, split), dataset.of_run(run)
    score, malignant = breasts.score(), np.flatnonzero(breasts.label() == 1)
    benign = np.flatnonzero((breasts.label("benign") == 1) & (breasts.label() == 0))
    order, reverse = malignant[np.argsort(score[malignant])], benign[np.argsort(-score[benign])]
    chosen = {
        "Malignant breast with the highest score": order[-1:],
        "Malignant breast with the lowest score": order[: min(1, len(order) - 1)],  # not the same one twice
        "Benign breast scored most malignant": reverse[:1],
    }
    every = {(exam.exam_id, exam.patient_id): exam for exam in exams.exams_of(data, split)}
    result = []
    for kind, k in ((kind, int(k)) for kind, found in chosen.items() for k in found):
        exam_id, side = breasts.index[k]
        key = exam_id, breasts.patient[k]
        if key not in every:
            raise NotComparable(f'"{run}" scored exams that its data set does not hold; prepare the same data again.')
        lines = [f"{kind} ({'left' if side == 'L' else 'right'})"]
        for row in breasts.frame.to_dict("records"):
            if (row["exam_id"], row["patient_id"]) == key:
                truth = [name for name in FINDINGS if row[name] == 1]
                scores = [f"p({name}) = {row[f'p_{name}']:.2f}" for name in FINDINGS]
                breast = "left" if row["laterality"] == "L" else "right"
                lines.append(f"{breast}: {', '.join(scores)}; {' and '.join(truth) or 'no finding'}")
        result.append(_load(data.source(split), every[key], "\n".join(lines), folder / split if folder else None))
    return result


def panels_of(one: Shown) -> tuple[str, ...]:
    """What `draw` shows side by side of an exam."""
    return ("image", "malignant", "benign") if one.heatmaps else ("image", "lesions")


def draw(shown: Sequence[Shown], panels: Sequence[str] = ()) -> Figure:
    """One exam above the other: its images; beside them the same with lesions filled half-transparently, malignant red
    and benign green (Fig. 2), or, where there are heatmaps, with each of them laid over, the fuller the colour the
    higher the probability, and lesions outlined (Fig. 6). `panels` are some of `panels_of`; else all."""
    panels = panels or panels_of(shown[0])
    headings = {"image": "image", "lesions": "lesions: malignant red, benign green"}
    # Places in inches, not by constrained layout: of figures within figures it is not the same twice.
    side, panel_width = 1.6, 3.4
    texts = [0.6 + 0.17 * one.caption.count("\n") if one.caption else 0.3 for one in shown]
    rows = [
        [(row, side * max((x.shape[0] / x.shape[1] for view, x in one.image.items() if view in row), default=0.0))
         for row in (HUNG[:2], HUNG[2:])]
        for one in shown
    ]  # fmt: skip
    width, height = panel_width * len(panels), sum(texts) + sum(high + 0.05 for both in rows for _, high in both)
    figure = Figure(figsize=(width, height))
    top = height
    for one, text, both in zip(shown, texts, rows, strict=True):
        figure.text(0.5, (top - 0.16) / height, one.caption, ha="center", va="top", fontsize=10)
        top -= text
        for k, panel in enumerate(panels):
            heading = headings.get(panel, f"p({panel}) of the patch network")
            figure.text((k + 0.48) / len(panels), (top + 0.04) / height, heading, ha="center", fontsize=8)
            below = top
            for row, high in both:
                below -= high + 0.05
                for column, view in enumerate(row):
                    if view in one.image:
                        left = (k * panel_width + column * (side + 0.03)) / width
                        axes = figure.add_axes((left, below / height, side / width, high / height))
                        _draw_view(axes, one, view, panel)
        top = below
    return figure


def _draw_view(axes: Axes, one: Shown, view: str, panel: str) -> None:
    def hung(pixels: np.ndarray) -> np.ndarray:
        return pixels[:, ::-1] if view.startswith("R") else pixels

    image, marks = hung(one.image[view]), hung(one.lesions[view])
    axes.axis("off")
    axes.imshow(image, cmap="gray", vmin=0, vmax=np.percentile(image, 99.8))  # few are as bright as the file allows
    at, side = (0.02, "left") if view.startswith("R") else (0.98, "right")  # beside the nipple, where it is dark
    axes.text(at, 0.98, view, color="white", fontsize=7, ha=side, va="top", transform=axes.transAxes)
    axes.set_anchor("NE" if view.startswith("R") else "NW")
    if panel in COLOUR:
        seen = hung(one.heatmaps[view])[..., FINDINGS.index(panel)]
        axes.imshow(_tint(panel, 0.75 * seen))
    for name, value in MARKS.items():
        if (marks == value).any() and panel == "lesions":
            axes.imshow(_tint(name, 0.5 * (marks == value)))
        elif (marks == value).any() and one.heatmaps:  # on a heatmap of its own colour an outline would vanish
            colour = COLOUR[name] if panel == "image" else "white"
            axes.contour(marks == value, levels=[0.5], colors=colour, linewidths=0.9)


def _tint(name: str, alpha: np.ndarray) -> np.ndarray:
    """A colour laid over as far as alpha [H, W] says, float [H, W, 4]."""
    return np.dstack([np.broadcast_to(to_rgb(COLOUR[name]), (*alpha.shape, 3)), alpha])


def _load(source: Any, exam: exams.Exam, caption: str, folder: Path | None = None) -> Shown:
    """An exam's images, one a view: the first with an outlined lesion, else the first."""
    shown = Shown(caption)
    for view, indices in exam.images.items():
        examples = [source[index] for index in indices]
        k = next((k for k, example in enumerate(examples) if example["masks"].any()), 0)
        shown.image[view] = _small(examples[k]["image"][..., 0], cv2.INTER_AREA)
        shown.lesions[view] = _small(examples[k]["masks"][..., 0], cv2.INTER_NEAREST)
        if folder is not None:
            shown.heatmaps[view] = _small(exams.read_heatmaps(folder / f"{indices[k]}.png"), cv2.INTER_AREA)
    return shown


def _small(pixels: np.ndarray, interpolation: int) -> np.ndarray:
    factor = LARGEST / max(pixels.shape[:2])
    return pixels if factor >= 1 else cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=interpolation)


def activations(
    run: Path, split: str = "test", only: Collection[str] | None = None
) -> tuple[list[exams.Exam], np.ndarray, np.ndarray]:
    """What the network makes of the exams that have all of its views, each view's first image in a window unmoved.

    Args:
        run: the run folder.
        split: "train", "val" or "test".
        only: ids of the exams to take; None: all.

    Returns:
        The exams [N]; float32 [N, 1024] with the paper's widths, the concatenated features of the columns; and
        float32 [N, 1024], those of the first fully connected layers, after their ReLU (section VI-A).

    Raises:
        BadCheckpoint, NotPrepared, BadDataset: the run, its data set or its heatmaps are not there.
    """
    config, folder = _heatmaps(run)
    predictor, data = ExamPredictor(*restore_best(run)), dataset.of_run(run)
    network = multi_view.build(config.model)
    heatmaps = (folder, heatmap.order(config.exam)) if folder is not None else None
    images = exams.Images(data, split, predictor.sizes, heatmaps)
    views = [view for view in VIEWS if view[2:] in config.model.angles]
    rng = np.random.RandomState(0)  # windows unmoved do not depend on it

    @jax.jit
    def apply(variables: Any, windows: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        _, intermediates = network.apply(variables, windows)
        columns = [intermediates[f"{view}/features"] for view in views]
        hidden = [intermediates[name] for name in sorted(intermediates) if name.endswith("/hidden")]
        return jnp.concatenate(columns, axis=-1)[0], jnp.concatenate(hidden, axis=-1)[0]

    found = _whole(config, data, split, only)
    made = []
    for exam in tqdm(found, desc="activations", unit="exam", disable=None):
        windows = predictor.windows({view: [images.view(exam.images[view][0])] for view in views}, rng)
        made.append([np.asarray(part, np.float32) for part in apply(predictor.variables, windows)])
    columns, hidden = (np.array([pair[k] for pair in made]) for k in (0, 1))
    return found, columns, hidden


def _whole(
    config: ml_collections.ConfigDict, data: dataset.Prepared, split: str, only: Collection[str] | None
) -> list[exams.Exam]:
    """The exams of a split that have all views of a network, or those of them whose ids are in `only`."""
    views = {view for view in VIEWS if view[2:] in config.model.angles}
    found = [exam for exam in exams.exams_of(data, split) if views <= set(exam.images)]
    return [exam for exam in found if only is None or exam.exam_id in only]


def embed(vectors: np.ndarray) -> np.ndarray:
    """UMAP with the Euclidean distance, float32 [N, 2] of [N, D]; the same each time.

    Raises:
        BadCheckpoint: umap-learn is not installed.
    """
    neighbours = min(15, len(vectors) - 1)  # its default, and no more than there are
    # A seed allows one thread only; left unsaid it would warn of that.
    return _umap().UMAP(n_neighbors=neighbours, metric="euclidean", random_state=0, n_jobs=1).fit_transform(vectors)


def _umap() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)  # for a part we do not use
            import umap

            return umap
    except ModuleNotFoundError:
        raise BadCheckpoint("the figure umap needs umap-learn; run: pip install 'mammojax[umap]'.") from None


def embedding(run: Path, split: str = "test", readers: Path | None = None) -> Figure:
    """Fig. 10: exams embedded by the columns' features and by the first fully connected layers' activations.

    The warmer and larger a point, the higher p(malignant), the mean of both breasts: of all readers where their CSV is
    given, and only exams that they read are shown; else the run's own. A cross marks exams with a malignant breast.

    Raises:
        BadCheckpoint: too few exams, or no umap-learn. BadManifest: of `reader_file.read`. Others: see `activations`.
    """
    config = _of_exams(run)
    scores: dict[str, dict[str, float]] = {}
    if readers is not None:
        group = reader_file.read(readers)
        of = f"mean of {len(group)} readers" if len(group) > 1 else "one reader"
        for (exam_id, side), p in zip(group.scores.index, group.scores.to_numpy(), strict=True):
            scores.setdefault(exam_id, {})[side] = float(np.mean(p))
    else:
        if config.model.target == "birads":
            raise BadCheckpoint(
                f'"{run}" is a BI-RADS run, which scores no breasts; name a readers\' file (--readers).'
            )
        of, breasts = "this run's predictions", table.read_breasts(run, split)
        for (exam_id, side), p in zip(breasts.index, breasts.score(), strict=True):
            scores.setdefault(exam_id, {})[side] = float(p)
    score_of = {exam_id: float(np.mean(list(sides.values()))) for exam_id, sides in scores.items() if len(sides) == 2}
    count = len(_whole(config, dataset.of_run(run), split, score_of))
    if count < FEWEST:
        raise BadCheckpoint(
            f'"{run}": of its {split} split {count} exams have all views and both breasts scored; an embedding needs '
            f"{FEWEST} or more."
        )
    _umap()  # that it is missing is said before the long part
    found, columns, hidden = activations(run, split, score_of)
    score = np.array([score_of[exam.exam_id] for exam in found])
    malignant = np.array([(exam.label[2:] == 1).any() for exam in found])
    size = 25 + 175 * (score - score.min()) / max(float(np.ptp(score)), 1e-9)
    figure = Figure(figsize=(10.5, 5.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, vectors, name in zip(
        panels, (columns, hidden), ("columns' features", "first fully connected layers"), strict=True
    ):
        x, y = embed(vectors).T
        last = np.argsort(score)  # the highest on top
        dots = axes.scatter(x[last], y[last], s=size[last], c=score[last], cmap="coolwarm", linewidths=0, alpha=0.9)
        axes.scatter(x[malignant], y[malignant], s=45, c="black", marker="x", linewidths=1.1, label="malignant breast")
        axes.set(title=f"{name} ({vectors.shape[1]:,} activations)", xticks=[], yticks=[])
        axes.spines[["top", "right"]].set_visible(True)
    figure.colorbar(dots, ax=panels, shrink=0.8, label="p(malignant), mean of both breasts")
    figure.suptitle(f"UMAP of {len(found)} exams ({split}); colour and size: {of}, mean of both breasts")
    if malignant.any():
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", frameon=False, fontsize=9)
    return figure


def write(name: str, run: Path, output: Path, split: str = "test", readers: Path | None = None) -> None:
    """Draw one figure to a .png, .pdf or .svg file; `name` is of NAMES.

    Raises:
        BadCheckpoint: the run cannot be drawn so. NotComparable: readers for another figure than umap. Others: see
            `scored` and `embedding`.
    """
    if readers is not None and name != "umap":
        raise NotComparable(f"the figure {name} shows no readers; leave --readers out, it is for umap.")
    with matplotlib.rc_context(report.FONT | {"svg.hashsalt": name}):
        if name == "umap":
            figure = embedding(run, split, readers)
        else:
            if name == "exam-heatmaps" and _heatmaps(run)[1] is None:
                raise BadCheckpoint(f'"{run}" takes no heatmaps; name a run of a network that does.')
            shown = with_lesions(run, split) if name == "lesions" else scored(run, split)
            if not shown:
                wanted = "outlined lesion" if name == "lesions" else "malignant or benign breast"
                raise BadCheckpoint(f'"{run}": its {split} split has no {wanted} to show.')
            figure = draw(shown)
        figure.savefig(output, dpi=150, bbox_inches="tight", metadata=figures.UNDATED[output.suffix.lower()])
    print(output, flush=True)


def _of_exams(run: Path) -> ml_collections.ConfigDict:
    config, _ = read_config(run)
    if config.model.task != "exam":
        raise BadCheckpoint(f'"{run}" is not a network for exams; name the run of a multi-view network.')
    return config


def _heatmaps(run: Path) -> tuple[ml_collections.ConfigDict, Path | None]:
    """The config, and the folder of the heatmaps inside the data set; None where the network takes none."""
    config, (_, facts) = _of_exams(run), read_config(run)
    if not facts.get("heatmaps"):
        return config, None
    exam = config.exam
    return config, dataset.of_run(run).path / "heatmaps" / f"{facts['heatmaps']}_p{exam.patch}s{exam.stride}"
