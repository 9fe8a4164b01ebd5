"""From arrays to matplotlib axes: curves, histograms, matrices, images with outlines and heatmaps; colours and fonts.

Plots know no runs, files or ids. Images are uint16 or uint8 [H, W]; lesions are masks uint8 [H, W] of MARKS.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from mammojax import metrics
from mammojax.vocabulary import FINDINGS

FONT: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "font.family": "DejaVu Sans"}
INK, GRAY, SOFT, SHADE = "#1c2430", "#5b6675", "#9aa5b1", "#eef2f5"
ACCENT, RED, BLUE = "#1f6f8b", "#c0392b", "#2c6fbb"
RUNS = (ACCENT, "#d08c2e", "#6a8f3c", "#8b5a9f", "#4f6d9a", "#a3563d")
"""Colours of several runs, in their order."""
MARKS = {"benign": 1, "malignant": 2}
"""Values of a lesion mask."""
Colours = Mapping[str, str]
OF_CLASS: Colours = {"malignant": "#d55e00", "benign": "#56b4e9"}
"""One colour a class on every page; Okabe and Ito 2008, "Color Universal Design": told apart by the colour-blind."""
OF_SHEN = {"malignant": "#4fa3ff", "benign": "#62d26f"}  # the outlines of Shen et al. 2019, Fig. 4
OF_WU: Colours = {"malignant": "#ff2d2d", "benign": "#2ecc40"}  # Wu et al. 2019, Fig. 2 and 6
WORDS = {"#d55e00": "orange", "#56b4e9": "blue", "#ff2d2d": "red", "#2ecc40": "green"}


def roc(axes: Axes, label: np.ndarray, score: np.ndarray, patient: np.ndarray, title: str = "ROC") -> None:
    """ROC curve of labels [N], 0 and 1, and scores [N] with its 95 % band over draws of patients [N]."""
    at = np.linspace(0, 1, 101)
    fpr, tpr, _ = metrics.roc_curve(label, score)
    if not metrics.too_few(label):
        low, high = metrics.roc_band(label, score, patient, at)
        axes.fill_between(at, low, high, color=ACCENT, alpha=0.15, linewidth=0, label="95 % band, by patient")
    axes.plot(fpr, tpr, color=ACCENT, linewidth=2, label=f"AUC {metrics.roc_auc(label, score):.3f}")
    frame_roc(axes, title)
    axes.legend(frameon=False, loc="lower right")


def rocs(
    axes: Axes, curves: Sequence[tuple[str, np.ndarray, np.ndarray]], title: str, ensemble: bool = True
) -> None:  # fmt: skip
    """ROC curves of (name, label [N], score [N]); with `ensemble` the last of several is drawn as that of the rest."""
    for k, (name, label, score) in enumerate(curves):
        fpr, tpr, _ = metrics.roc_curve(label, score)
        together = ensemble and len(curves) > 1 and k == len(curves) - 1
        axes.plot(fpr, tpr, color=INK if together else RUNS[k % len(RUNS)], linewidth=2.4 if together else 1.5,
                  label=f"{name}: {metrics.roc_auc(label, score):.3f}")  # fmt: skip
    frame_roc(axes, title)
    axes.legend(frameon=False, loc="lower right", fontsize=9)


def frame_roc(axes: Axes, title: str) -> None:
    """Draw the frame of a ROC plot: the line of chance, limits, names of the axes."""
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))


def frame_pr(axes: Axes, positives: float, title: str) -> None:
    """Draw the frame of a precision–recall plot; chance is the share of positives."""
    axes.plot([0, 1], [positives] * 2, color=SOFT, linewidth=1, linestyle=":")
    axes.set(xlabel="recall (sensitivity)", ylabel="precision", title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))


def reliability(axes: Axes, label: np.ndarray, scores: Mapping[str, np.ndarray], title: str) -> None:
    """The share of positives against the mean score, in bins of equally many.

    Labels [N] are 0 and 1; scores [N] have names.
    """
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":")
    for (name, score), colour, marker in zip(scores.items(), (RUNS[1], ACCENT), "so", strict=False):
        bins = metrics.score_bins(score)
        points = [(score[bins == k].mean(), label[bins == k].mean()) for k in np.unique(bins)]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, linewidth=1.4, label=name)
    axes.set(xlabel="mean score", ylabel="share malignant", title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(frameon=False, loc="upper left")


def scores(axes: Axes, label: np.ndarray, score: np.ndarray) -> None:
    """Histogram of malignant scores by class; labels [N], 0 and 1, scores [N]."""
    bins = np.linspace(0, 1, 26).tolist()
    for value, name, colour in ((0, "not malignant", SOFT), (1, "malignant", OF_CLASS["malignant"])):
        axes.hist(score[label == value], bins, color=colour, alpha=0.55, label=f"{name} ({(label == value).sum()})")
    axes.set(xlabel="p(malignant)", ylabel="images", title="Scores by class")
    axes.legend(frameon=False)


def breast_scores(axes: Axes, label: np.ndarray, score: np.ndarray, finding: str) -> None:
    """Histogram of scores, as shares of the breasts with and without a finding; labels [N], 0 and 1, scores [N]."""
    bins = np.linspace(0, 1, 26).tolist()
    for value, name, colour in ((0, f"not {finding}", SOFT), (1, finding, OF_CLASS[finding])):
        own = score[label == value]
        share = np.full(len(own), 1 / len(own))
        axes.hist(own, bins, weights=share, color=colour, alpha=0.6, label=f"{name} ({len(own)})")
    axes.set(xlabel=f"p({finding})", ylabel="share of the class's breasts", title="Scores by class")
    axes.legend(frameon=False)


def confusion(
    axes: Axes, matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str = "Confusion matrix (rows sum to 1)"
) -> None:
    """A confusion matrix, truth by row; each row sums to one, as in Shen et al. 2019, Fig. 2."""
    counts = np.array(matrix, float)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [name.replace("_", "\n") for name in classes]
    axes.set_xticks(range(len(classes)), names, fontsize=8)
    axes.set_yticks(range(len(classes)), names, fontsize=8)
    for (i, j), value in np.ndenumerate(share):
        axes.text(j, i, f"{value:.2f}\n({int(counts[i, j])})", ha="center", va="center", fontsize=8,
                  color="white" if value > 0.55 else "black")  # fmt: skip
    axes.set(xlabel="predicted", ylabel="truth", title=title)
    for spine in axes.spines.values():
        spine.set_visible(False)


def training(left: Axes, right: Axes, log: Sequence[Mapping[str, Any]]) -> None:
    """Loss, and validation AUC or else accuracy, by epoch through all stages; `log` holds the rows of metrics.jsonl."""
    marker = "o" if sum(row["kind"] == "train" for row in log) < 30 else ""
    losses(left, log, marker)
    left.set(ylabel="loss (nats)")
    validation(right, [row for row in log if row["kind"] == "val"], marker)
    for axes in (left, right):
        stages(axes, [row["stage"] for row in log if row["kind"] == "train"])
        axes.legend(frameon=False, fontsize=8)


def losses(axes: Axes, log: Sequence[Mapping[str, Any]], marker: str = "o") -> None:
    """Train and validation loss by epoch, without a label on the loss axis; `log` as in `training`."""
    for kind, name, colour in (("train", "train (augmented)", ACCENT), ("val", "validation", RED)):
        loss = [row["loss"] for row in log if row["kind"] == kind]
        axes.plot(range(1, len(loss) + 1), loss, color=colour, marker=marker, markersize=3, label=name)
    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def validation(axes: Axes, log: Sequence[Mapping[str, Any]], marker: str) -> None:
    """Validation AUC, or accuracy where there is none, by epoch, the kept epoch circled; `log`: rows of val only."""
    metric, name = ("auc", "AUC") if log and "auc" in log[0] else ("accuracy", "accuracy")
    score = [np.nan if row[metric] is None else row[metric] for row in log]  # None: one class only
    axes.plot(range(1, len(score) + 1), score, color=RED, marker=marker, markersize=3, label=f"validation {name}")
    if best := [k for k, row in enumerate(log) if row["best"]]:
        kept = best[-1]
        axes.plot(kept + 1, score[kept], "o", color=ACCENT, markersize=9, fillstyle="none", label="kept")
    axes.set(xlabel="epoch", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def stages(axes: Axes, names: Sequence[str]) -> None:
    """Name the stage above its epochs; with several stages, shade every second one."""
    start, groups = 0, [(name, len(list(epochs))) for name, epochs in groupby(names)]
    for k, (name, epochs) in enumerate(groups):
        if len(groups) > 1:
            axes.axvspan(start + 0.5, start + epochs + 0.5, color=SHADE if k % 2 else "white", zorder=0)
        axes.text(start + (epochs + 1) / 2, 1.01, name, ha="center", va="bottom", fontsize=8, color=GRAY,
                  transform=axes.get_xaxis_transform())  # fmt: skip
        start += epochs
    axes.set_xlim(0.5, start + 0.5)  # a curve without values would leave the names outside


def label_efficiency(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """AUC against patients labelled, with its intervals; `rows` from `families.sweep`."""
    rows = sorted(rows, key=lambda row: row["patients"])
    at = [row["patients"] for row in rows]
    value, low, high = (np.array([row[k] for row in rows], float) for k in ("auc", "low", "high"))  # None becomes NaN
    below, above = np.maximum(value - low, 0), np.maximum(high - value, 0)
    axes.axhline(0.5, color=SOFT, linewidth=1, linestyle=":")
    axes.errorbar(at, value, (below, above), color=ACCENT, marker="o", capsize=3, linewidth=1.8)
    for row, top in zip(rows, np.where(np.isfinite(high), high, value), strict=True):
        axes.annotate(f"{row['images']} images", (row["patients"], top), (0, 4), textcoords="offset points",
                      ha="center", fontsize=8, color=GRAY)  # fmt: skip
    lowest = min(0.4, np.nanmin(value, initial=1))
    axes.set(xlabel="patients with image labels", ylabel="test AUC by image", ylim=(lowest, 1.06))
    axes.margins(x=0.08)


def intervals(
    axes: Axes, names: Sequence[str], estimates: Sequence[Mapping[str, Any] | None], texts: Sequence[str]
) -> None:
    """A row for each name with its value and interval, {"value", "low", "high"} of 0 … 1, and its text at the right."""
    for k, (estimate, text) in enumerate(zip(estimates, texts, strict=True)):
        if estimate and estimate["value"] is not None:
            if estimate["low"] is not None:
                axes.plot(
                    [estimate["low"], estimate["high"]], [k, k], color=ACCENT, linewidth=2.2, solid_capstyle="butt"
                )
            axes.plot(estimate["value"], k, "o", color=ACCENT, markersize=6)
        axes.text(1.01, k - 0.28, text, ha="right", va="center", fontsize=8, color=GRAY)
    axes.axvline(0.5, color=SOFT, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.6))


def weights(
    axes: Axes, at: Sequence[float], values: Sequence[Sequence[float]], best: Sequence[tuple[float, float]],
    order: Sequence[int], published: float,
) -> None:  # fmt: skip
    """A metric of hybrids against the weight of the reader, a line a reader with ◇ at its best (Wu et al., Fig. 9).

    Args:
        at: the weights.
        values: the metric of each reader at each weight.
        best: of each reader, (weight, value).
        order: of the readers, drawn from dark to light.
        published: the weight that is marked.
    """
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(order)))
    for k, colour in zip(order, colours, strict=True):
        axes.plot(at, values[k], color=colour, linewidth=1.2, label=f"{k + 1}")
        axes.plot(*best[k], "D", color=colour, markersize=6.5, fillstyle="none")
    axes.axvline(published, color=SOFT, linewidth=1, linestyle=":")
    axes.set(xlabel="λ  (0: the model alone, 1: the reader alone)", xlim=(-0.02, 1.02))


def gray_values(axes: Axes, values: np.ndarray, name: str, colour: str) -> None:
    """Histogram of gray values, 0 … 1."""
    axes.hist(values, np.linspace(0, 1, 101).tolist(), density=True, histtype="step",
              linewidth=1.6, color=colour, label=name)  # fmt: skip


def levels(axes: Axes, values: np.ndarray, name: str, ranges: Sequence[float]) -> None:
    """Histogram of a gray level of images [N], 0 … 1, over the range (lowest, …, median, …, highest) of others."""
    if len(ranges):
        axes.axvspan(ranges[0], ranges[-1], color=SHADE, zorder=0)
        axes.axvline(ranges[len(ranges) // 2], color=GRAY, linewidth=1, linestyle=":")
    axes.hist(values, np.linspace(0, 1, 41).tolist(), color=ACCENT)
    axes.set(xlim=(0, 1), xlabel="gray value", ylabel="images")
    axes.set_title(name, fontsize=9)


def image(axes: Axes, pixels: np.ndarray, title: str = "", brightest: float = 65535) -> None:
    """A mammogram without axes."""
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=brightest)
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def outline(axes: Axes, lesions: np.ndarray, colours: Mapping[str, str], width: float = 0.9) -> None:
    """Outlines of lesions, in their class's colour."""
    for name, value in MARKS.items():
        if (lesions == value).any():
            axes.contour(lesions == value, levels=[0.5], colors=colours[name], linewidths=width)


def dots(axes: Axes, saliency: np.ndarray) -> None:
    """A saliency map float [H, W] over its image: a red dot wherever it is above 0, larger for higher values."""
    y, x = np.nonzero(saliency)
    axes.scatter(x, y, s=1 + 6 * saliency[y, x], c="red", linewidths=0)


def overlay(axes: Axes, probability: np.ndarray, alpha: float = 0.6) -> AxesImage:
    """A heatmap float [H, W] of 0 … 1 over its image."""
    return axes.imshow(probability, cmap="inferno", vmin=0, vmax=1, alpha=alpha)


def exam_view(
    axes: Axes, view: str, panel: str, pixels: np.ndarray, lesions: np.ndarray, heatmaps: np.ndarray | None,
    of: Colours = OF_WU,
) -> None:  # fmt: skip
    """A view as it hangs for reading, right breasts mirrored.

    Args:
        axes: for this view only.
        view: "L-CC", "R-CC", "L-MLO" or "R-MLO".
        panel: "image"; "lesions", filled half-transparently (Wu et al. 2019, Fig. 2); or one of FINDINGS, whose heatmap
            covers the image, more opaque where the probability is higher (Fig. 6).
        pixels: facing right.
        lesions: of `pixels`; outlined where there are heatmaps.
        heatmaps: float [H, W, 2] by FINDINGS, or None.
        of: the colour of each of FINDINGS.
    """

    def hung(array: np.ndarray) -> np.ndarray:
        return array[:, ::-1] if view.startswith("R") else array

    lesions = hung(lesions)
    axes.axis("off")
    # few pixels reach the file's brightest value
    axes.imshow(hung(pixels), cmap="gray", vmin=0, vmax=np.percentile(pixels, 99.8))
    at, side = (0.02, "left") if view.startswith("R") else (0.98, "right")  # beside the nipple, where it is dark
    axes.text(at, 0.98, view, color="white", fontsize=7, ha=side, va="top", transform=axes.transAxes)
    axes.set_anchor("NE" if view.startswith("R") else "NW")
    if panel == "lesions":
        for name, value in MARKS.items():
            if (lesions == value).any():
                axes.imshow(_tint(of[name], 0.5 * (lesions == value)))
        return
    if heatmaps is None:
        return
    if panel in FINDINGS:
        axes.imshow(_tint(of[panel], 0.75 * hung(heatmaps)[..., FINDINGS.index(panel)]))
    white = dict.fromkeys(MARKS, "white")  # an outline would vanish on a heatmap of its colour
    outline(axes, lesions, of if panel == "image" else white)


def _tint(colour: str, alpha: np.ndarray) -> np.ndarray:
    """A colour with opacity alpha [H, W], float [H, W, 4]."""
    return np.dstack([np.broadcast_to(to_rgb(colour), (*alpha.shape, 3)), alpha])


def embedding(axes: Axes, points: np.ndarray, score: np.ndarray, malignant: np.ndarray, title: str) -> PathCollection:
    """Points [N, 2], warmer and larger for higher scores [N]; a cross marks the malignant ones, bool [N]."""
    x, y = points.T
    size = 25 + 175 * (score - score.min()) / max(float(np.ptp(score)), 1e-9)
    last = np.argsort(score)  # the highest on top
    warm = axes.scatter(x[last], y[last], s=size[last], c=score[last], cmap="coolwarm", linewidths=0, alpha=0.9)
    axes.scatter(x[malignant], y[malignant], s=45, c="black", marker="x", linewidths=1.1, label="malignant breast")
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[["top", "right"]].set_visible(True)
    return warm
