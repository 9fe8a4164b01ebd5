"""A run's report: one HTML file, nothing outside it, nobody's name in it."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mammojax import metrics
from mammojax.data.cells import read_table

TOO_FEW = "too few to estimate"
ACCENT, SOFT, RED, BLUE = "#1f6f8b", "#9aa5b1", "#c0392b", "#2c6fbb"
FONT: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "font.family": "DejaVu Sans"}
_PATHS = (
    "data_dir",
    "source",
    "init_from",
    "patch_run",
    "pretrained",
)  # config fields that would show the machine's folders


@dataclass(frozen=True)
class GalleryItem:
    """One image of the gallery: uint8 [H, W]; the patch net's malignant probability [H, W] or None; lesion marks uint8
    [H, W] (1 benign, 2 malignant) or None; a caption without ids."""

    image: np.ndarray
    heatmap: np.ndarray | None
    mask: np.ndarray | None
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, a sentence, a table (`words`: cells are text, not numbers), figures, commands."""

    heading: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    words: bool = False
    figures: Sequence[tuple[str, str]] = ()
    commands: Sequence[str] = ()


def write_page(path: Path, title: str, notes: Sequence[str], sections: Sequence[Section]) -> None:
    """Write a single-file HTML page of tables and figures; every text is escaped."""
    page = _template("tables.html.j2").render(title=title, notes=notes, sections=sections)
    path.write_text(page, encoding="utf-8")


def _template(name: str) -> jinja2.Template:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("mammojax.evaluate", "."), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template(name)


def write_report(workdir: Path, *, title: str, notes: Sequence[str] = (), gallery: Sequence[GalleryItem] = ()) -> Path:
    """Write WORKDIR/report.html from the run's own files; returns its path.

    Reads config.json, versions.json, metrics.json, metrics.jsonl and predictions/test.csv.
    """
    saved = json.loads((workdir / "config.json").read_text())
    results = json.loads((workdir / "metrics.json").read_text())
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    facts = saved["facts"]
    label, scores, patient = _predictions(workdir / "predictions" / "test.csv")
    splits = [split for split in ("val", "test") if split in results]
    measured = [name for name, value in results["test"].items() if isinstance(value, dict)]
    measured.sort(key=lambda name: (not name.startswith("auc"), name != "pr_auc", name))
    with matplotlib.rc_context(FONT):
        figures = []
        if scores.shape[1] == 1 and 0 < label.mean() < 1:
            figures.append(("ROC curve with its band", png(roc_figure(label, scores[:, 0], patient))))
            figures.append(("Scores by class", png(_scores(label, scores[:, 0]))))
        matrix = results["test"]["confusion_matrix"]
        figures.append(("Confusion matrix", png(confusion_figure(matrix, facts["classes"]))))
        curves = png(curves_figure(log))
        pictures = [{"src": _picture(item), "caption": item.caption} for item in gallery]
    best = next((row for row in reversed(log) if row["kind"] == "val" and row["best"]), None)
    page = _template("report.html.j2").render(
        title=title,
        notes=notes,
        cards=[(_words(name), *_card(results["test"][name])) for name in measured[:4]],
        splits=splits,
        results=[(_words(n), [with_counts(results[s].get(n)) for s in splits]) for n in measured],
        classes=facts["classes"],
        counts=facts["counts"],
        data_line=f"{facts['name']}, {facts['kind']}, split “{facts['split']}”, {_made_by(facts)}; "
        f"{facts['rejected']} files or rows left out.",
        curves=curves,
        best=f"{best['stage']}, epoch {best['epoch']}" if best else "none",
        figures=figures,
        gallery=pictures,
        config=json.dumps(without_paths(saved["config"]), indent=2),
        versions=(workdir / "versions.json").read_text(),
    )
    path = workdir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _card(found: Mapping[str, Any]) -> tuple[str, str]:
    """A number, and below it its interval and the counts of each class."""
    value, _, rest = with_counts(found).partition(" ")
    return value, rest.replace("[", "" if TOO_FEW in rest else "95 % by patient: ").replace("]", "")


def _made_by(facts: dict[str, Any]) -> str:
    """How the images of a data set were framed, or of exams cropped."""
    if framing := facts.get("framing"):
        size = f"{framing['size'][0]} × {framing['size'][1]} pixels, crop {framing['crop']}"
        return f"{size}; mean gray value {facts['mean']:.2f} of 255"
    return f"patches of {facts['patch_size']} pixels of cropped exams, on their image's scale"


def _words(name: str) -> str:
    """A metric's name as a reader would say it."""
    return {"auc": "AUC", "pr_auc": "PR AUC", "auc_by_patient": "AUC by patient"}.get(name, name.replace("_", " "))


def known(value: float | None) -> bool:
    """Whether a number could be computed: not None, and not NaN, as it was written in older runs."""
    return value is not None and bool(np.isfinite(value))


def _number(value: float | None, form: str = ".3f") -> str:
    """A dash for what cannot be computed (one class only)."""
    return f"{value:{form}}" if known(value) else "–"


def interval_text(found: Mapping[str, Any] | None, form: str = ".3f") -> str:
    """An estimate {"value", "low", "high"} with its interval: "0.910 [0.870, 0.940]".

    A dash where there is none, or where its value cannot be computed; "too few to estimate" in place of an interval
    that is none (`metrics.too_few`), a dash in place of one bound.
    """
    if found is None or not known(found["value"]):
        return "–"
    if not known(found["low"]) and not known(found["high"]):
        return f"{found['value']:{form}} [{TOO_FEW}]"
    value, low, high = (_number(found[part], form) for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def with_counts(found: Mapping[str, Any] | None) -> str:
    """`interval_text`, and where it is known how many of each class were measured, negatives first: "…, n 28 + 12"."""
    counts = " + ".join(map(str, found["n"])) if found and "n" in found else ""
    return interval_text(found) + (f", n {counts}" if counts else "")


def without_paths(config: Any) -> Any:
    """A config of dicts in dicts whose fields that name folders or files of the machine read "…"."""
    if not isinstance(config, dict):
        return config
    return {k: "…" if k in _PATHS and v else without_paths(v) for k, v in config.items()}


def _predictions(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels [N], scores [N, 1 or K] and patients [N] of the labelled rows."""
    with path.open(newline="") as file:
        rows = [row for row in read_table(file)[1] if row["label"] != ""]
    columns = [name for name in (rows[0] if rows else {"p_malignant": ""}) if name.startswith("p_")]
    return (
        np.array([int(row["label"]) for row in rows]),
        np.array([[float(row[c]) for c in columns] for row in rows]).reshape(len(rows), len(columns)),
        np.array([row["patient_id"] for row in rows]),
    )


def png(figure: Figure) -> str:
    """A figure as a data URL."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def roc_figure(label: np.ndarray, score: np.ndarray, patient: np.ndarray) -> Figure:
    """ROC curve of labels [N], 0 and 1, and scores [N] with its 95 % band over draws of patients [N]."""
    figure = Figure(figsize=(4.6, 4.3))
    axes = figure.subplots()
    at = np.linspace(0, 1, 101)
    fpr, tpr, _ = metrics.roc_curve(label, score)
    if not metrics.too_few(label):
        low, high = metrics.roc_band(label, score, patient, at)
        axes.fill_between(at, low, high, color=ACCENT, alpha=0.15, linewidth=0, label="95 % band, by patient")
    axes.plot(fpr, tpr, color=ACCENT, linewidth=2, label=f"AUC {metrics.roc_auc(label, score):.3f}")
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", title="ROC", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(frameon=False, loc="lower right")
    return figure


def _scores(label: np.ndarray, score: np.ndarray) -> Figure:
    figure = Figure(figsize=(4.6, 4.3))
    axes = figure.subplots()
    bins = np.linspace(0, 1, 26).tolist()
    for value, name, color in ((0, "not malignant", BLUE), (1, "malignant", RED)):
        axes.hist(score[label == value], bins, color=color, alpha=0.55, label=f"{name} ({(label == value).sum()})")
    axes.set(xlabel="p(malignant)", ylabel="images", title="Scores by class")
    axes.legend(frameon=False)
    return figure


def confusion_figure(matrix: list[list[int]], classes: Sequence[str]) -> Figure:
    """What `draw_confusion` draws, larger for more than two classes."""
    figure = Figure(figsize=(4.6, 4.3) if len(classes) == 2 else (6.2, 5.2))
    draw_confusion(figure.subplots(), matrix, classes)
    return figure


def draw_confusion(axes: Any, matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
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
    axes.set(xlabel="predicted", ylabel="truth", title="Confusion matrix (rows sum to 1)")
    for spine in axes.spines.values():
        spine.set_visible(False)


def curves_figure(log: list[dict[str, Any]]) -> Figure:
    """Loss, and validation AUC or else accuracy, by epoch through all stages; `log` is the rows of metrics.jsonl."""
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    train = [row for row in log if row["kind"] == "train"]
    val = [row for row in log if row["kind"] == "val"]
    epochs = np.arange(1, len(train) + 1)
    dots = "o" if len(train) < 30 else ""
    left.plot(
        epochs,
        [row["loss"] for row in train],
        color=ACCENT,
        marker=dots,
        markersize=3,
        label="train (augmented)",
    )
    left.plot(epochs, [row["loss"] for row in val], color=RED, marker=dots, markersize=3, label="validation")
    left.set(xlabel="epoch", ylabel="loss (nats)")
    name = "auc" if val and "auc" in val[0] else "accuracy"
    scores = [np.nan if row[name] is None else row[name] for row in val]  # None: of one class
    right.plot(epochs, scores, color=RED, marker=dots, markersize=3, label=f"validation {_words(name)}")
    best = [i for i, row in enumerate(val) if row["best"]]
    if best:
        right.plot(best[-1] + 1, scores[best[-1]], "o", color=ACCENT, markersize=9, fillstyle="none", label="kept")
    right.set(xlabel="epoch", ylabel=_words(name))
    stages = [row["stage"] for row in train]
    for axes in (left, right):
        for i in range(len(stages)):
            if i == 0 or stages[i] != stages[i - 1]:
                end = next((j for j in range(i, len(stages)) if stages[j] != stages[i]), len(stages))
                if len(set(stages)) > 1:
                    axes.axvspan(i + 0.5, end + 0.5, color="#eef2f5" if len(set(stages[:i])) % 2 else "white", zorder=0)
                axes.text((i + end + 1) / 2, 1.01, stages[i], ha="center", va="bottom", fontsize=8, color="#5b6675",
                          transform=axes.get_xaxis_transform())  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8)
    return figure


def _picture(item: GalleryItem) -> str:
    """The image with its lesions outlined, the heatmap beside it."""
    panels = 1 + (item.heatmap is not None)
    height, width = item.image.shape
    figure = Figure(figsize=(2.1 * panels, 2.1 * height / width), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, panels))
    for ax in axes:
        ax.imshow(item.image, cmap="gray", vmin=0, vmax=255)
        ax.axis("off")
    if item.mask is not None:
        for value, color in ((1, BLUE), (2, RED)):
            if (item.mask == value).any():
                axes[0].contour(item.mask == value, levels=[0.5], colors=color, linewidths=0.9)
    if item.heatmap is not None:
        axes[1].imshow(item.heatmap, cmap="inferno", vmin=0, vmax=1, alpha=0.55)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
