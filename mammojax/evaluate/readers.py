"""Readers beside the model and with it: the reader study of Wu et al. 2019, section VI, for anyone's readers.

Each reader gave every breast a probability of malignancy. A hybrid is λ · reader + (1 − λ) · model; the paper takes
λ = 0.5 for all readers, and shows every λ in Fig. 9. "Average performance" is of curves and areas, not of scores.
"""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammojax import metrics
from mammojax.data.cells import plain
from mammojax.errors import BadManifest, NotComparable
from mammojax.evaluate import populations, report
from mammojax.evaluate.compare import COLOURS, RUNS
from mammojax.evaluate.populations import METRICS, Breasts
from mammojax.evaluate.report import interval_text
from mammojax.evaluate.reproduce import text_table

COLUMNS = ("reader", "exam_id", "laterality", "p_malignant")
NAMES = {"auc": "AUC", "pr_auc": "PR AUC"}
WEIGHT = 0.5
WEIGHTS = np.round(np.linspace(0, 1, 101), 2)
DIFFERENCES = (("mean hybrid", "model"), ("mean hybrid", "mean reader"), ("model", "mean reader"))
PANELS = {"a": "readers", "b": "hybrids", "e": "averages", "c": "readers", "d": "hybrids", "f": "averages"}  # of Fig. 8
OF = {"model": COLOURS[1], "mean reader": COLOURS[0], "mean hybrid": COLOURS[3]}
Breast = tuple[str, str]  # exam_id, laterality
BEST = "the best λ is chosen on these very breasts, so what it gives is optimistic"
NOTES = (
    "After Wu et al. 2019, section VI; hybrid = λ · reader + (1 − λ) · model.",
    f"In brackets 95 % intervals from {RUNS} bootstrap draws of patients. They say nothing of other readers.",
    "A mean is that of the readers' (hybrids') areas, sd their standard deviation over these readers (divided by "
    "their number, as the paper's). PR AUC is the average precision.",
)
CURVES = (
    "Mean curves: of the sensitivities at each false positive rate, of the precisions at each recall. Dotted: chance."
)
SWEEP = (
    f"A line for each reader, dark to light by falling AUC; dotted: λ = {WEIGHT}; {BEST}. A line that leaps just below "
    "λ = 1 is of a reader with few different values: any weight on the model breaks ties."
)


@dataclass(frozen=True)
class Reader:
    """One reader: "reader 1" and so on in the file's order, as reports name nobody; the probability of malignancy
    0 … 1 of each breast (exam_id, laterality), and the line of the file that gives it."""

    name: str
    score: dict[Breast, float]
    line: dict[Breast, int]


def read(path: Path) -> list[Reader]:
    """The readers of a CSV, a row for each reader and breast: reader, exam_id, laterality (L, R), p_malignant.

    Probabilities are 0 … 1 or, as in the paper, 0 … 100 %: where any value of the file is above 1, the whole file is
    in percent. So a reader of whom none is above 1, in a file where others' are, is refused: it is hardly a percentage.
    Other columns are ignored.

    Raises:
        BadManifest: no such file, no CSV, a column is missing, a row cannot be used, a reader read a breast twice, or
            not every breast that another read.
    """
    if not path.is_file():
        raise BadManifest(f'"{path.name}": there is no such file; give a CSV with the columns {", ".join(COLUMNS)}.')
    found: dict[str, Reader] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if missing := [column for column in COLUMNS if column not in (rows.fieldnames or ())]:
                raise BadManifest(f"{path.name}: the column {missing[0]} is missing; it needs {', '.join(COLUMNS)}.")
            for row in rows:
                where = f"{path.name}, line {rows.line_num}"
                name, breast, score = _row(row, where)
                reader = found.setdefault(name, Reader(f"reader {len(found) + 1}", {}, {}))
                if breast in reader.score:
                    raise BadManifest(
                        f"{where}, exam_id and laterality: {reader.name} gave this breast a probability in line "
                        f"{reader.line[breast]} already; keep one of the rows."
                    )
                reader.score[breast], reader.line[breast] = score, rows.line_num
    except (UnicodeDecodeError, csv.Error):
        raise BadManifest(f"{path.name}: it is no CSV in UTF-8; save it as one, separated by commas.") from None
    if not found:
        raise BadManifest(f"{path.name}: it has no row below its header; give a row for each reader and breast.")
    _complete(list(found.values()), path.name)
    return _as_shares(list(found.values()), path.name)


def _row(row: dict[str, Any], where: str) -> tuple[str, Breast, float]:
    """Reader, breast and the probability as written; `where` is the file and the line."""
    if None in row:
        raise BadManifest(f"{where}: more cells than columns; write decimals with a point and quote cells with commas.")
    cells = {column: plain((row[column] or "").strip()) for column in COLUMNS}
    for column in ("reader", "exam_id"):
        if not cells[column]:
            raise BadManifest(f"{where}, {column}: it is empty; fill it in.")
    if cells["laterality"] not in ("L", "R"):
        raise BadManifest(f'{where}, laterality: "{cells["laterality"]}" is no side; write L or R.')
    try:
        score = float(cells["p_malignant"])
    except ValueError:
        score = math.nan
    if not 0 <= score <= 100:
        raise BadManifest(
            f'{where}, p_malignant: "{cells["p_malignant"]}" is no probability; write a number from 0 to 1, or in the '
            "whole file from 0 to 100, without a sign for percent."
        )
    return cells["reader"], (cells["exam_id"], cells["laterality"]), score


def _complete(readers: Sequence[Reader], file: str) -> None:
    every = {breast: line for reader in readers[::-1] for breast, line in reader.line.items()}
    for reader in readers:
        if unread := [line for breast, line in every.items() if breast not in reader.score]:
            raise BadManifest(
                f"{file}: {reader.name} (from line {min(reader.line.values())} on) lacks {len(unread)} of the breasts "
                f"that others read (the first: that of line {min(unread)}); add the rows, or leave these breasts out."
            )


def _as_shares(readers: Sequence[Reader], file: str) -> list[Reader]:
    """Probabilities 0 … 1, whichever scale the file is on."""
    highest = [max(reader.score.values()) for reader in readers]
    if max(highest) <= 1:
        return list(readers)
    if low := [reader.name for reader, value in zip(readers, highest, strict=True) if value <= 1]:
        raise BadManifest(
            f"{file}, p_malignant: {low[0]} gave no breast more than 1, where others go up to {max(highest):g}; write "
            "all readers on one scale, 0 to 1 or 0 to 100."
        )
    return [replace(reader, score={b: value / 100 for b, value in reader.score.items()}) for reader in readers]


def matched(breasts: Breasts, readers: Sequence[Reader]) -> tuple[Breasts, np.ndarray]:
    """The reader study's population: the predicted breasts that were read, in the file's order, and the readers'
    scores float64 [R, N].

    Raises:
        NotComparable: a breast that was read has no labelled prediction, or those read are of one class only.
    """
    place = {(row["exam_id"], row["laterality"]): k for k, row in enumerate(breasts.rows)}
    first = readers[0]
    if lost := [first.line[breast] for breast in first.score if breast not in place]:
        raise NotComparable(
            f'"{breasts.name}" has no labelled prediction of {len(lost)} of the {len(first.score)} breasts read (the '
            f"first: exam_id and laterality of line {min(lost)} of the readers' file); give a run and a split that "
            "hold them, or leave their rows out."
        )
    chosen = breasts[np.array([place[breast] for breast in first.score])]
    if not populations.both_classes(chosen.label["malignant"]):
        raise NotComparable(f'"{breasts.name}": all breasts read have one label; read malignant and other breasts.')
    return chosen, np.array([[reader.score[breast] for breast in first.score] for reader in readers])


def hybrids(scores: np.ndarray, model: np.ndarray, weight: float = WEIGHT) -> np.ndarray:
    """λ · reader + (1 − λ) · model, float64 [R, N], of the readers' scores [R, N] and the model's [N]."""
    return weight * scores + (1 - weight) * model


def hybrid_summary(breasts: Breasts, readers: Sequence[Reader], weight: float = WEIGHT) -> dict[str, dict[str, Any]]:
    """The numbers of the paper's section VI.

    Returns:
        {"readers", "hybrids": {"auc_mean", "auc_sd", "pr_auc_mean", "pr_auc_sd"}, "model": {"auc_mean",
        "pr_auc_mean"}}. The sd is that of these readers, divided by their number: the paper's 0.0435 and 0.0496 of
        14 readers. It is None of a single reader.

    Raises:
        NotComparable: see `matched`.
    """
    chosen, scores = matched(breasts, readers)
    label, model = chosen.label["malignant"], chosen.score["malignant"]
    result: dict[str, dict[str, Any]] = {"readers": {}, "hybrids": {}, "model": {}}
    for name, metric in METRICS.items():
        for group, each in (("readers", scores), ("hybrids", hybrids(scores, model, weight))):
            values = _values(metric, label, each)
            result[group][f"{name}_mean"] = float(np.mean(values))
            result[group][f"{name}_sd"] = float(np.std(values)) if len(values) > 1 else None
        result["model"][f"{name}_mean"] = float(metric(label, model))
    return result


def study(breasts: Breasts, readers: Sequence[Reader], runs: int = RUNS, seed: int = 0) -> dict[str, Any]:
    """Everything about readers that `mammojax readers` writes.

    Args:
        breasts: a model's predictions; only the breasts that were read count.
        readers: as `read` gives them.
        runs, seed: of the bootstrap over patients. The readers are the same in each draw.

    Returns:
        {"model_name", "breasts", "patients", "malignant", "weight", "measures": {"auc", "pr_auc": {"model",
        "mean reader", "mean hybrid", "readers": [R], "hybrids": [R], "differences": {"A − B"}, "sweep": [R][101],
        "best_weight": [R], "best_value": [R], "best_weight_mean"}}, "sweep_weights": [101], "summary"}. Intervals are
        {"value", "low", "high"}; those of means are of the mean over readers, so differences are paired by patient and
        by reader. The best weight, the lowest of equally good ones, is chosen on these very breasts.

    Raises:
        NotComparable: see `matched`.
    """
    chosen, scores = matched(breasts, readers)
    label, model = chosen.label["malignant"], chosen.score["malignant"]
    count = len(readers)
    every = np.concatenate([scores, hybrids(scores, model), model[None]])
    columns = {"mean reader": slice(count), "mean hybrid": slice(count, 2 * count), "model": slice(2 * count, None)}
    measures = {}
    for name, metric in METRICS.items():
        of = partial(_values, metric, label, every)
        values, drawn = of(), metrics.draws_of(of, chosen.patient, runs, seed)
        each = [metrics.interval(v, d).to_json() for v, d in zip(values, drawn.T, strict=True)]
        means = {key: (values[at].mean(), drawn[:, at].mean(axis=1)) for key, at in columns.items()}
        sweep = np.array([_values(metric, label, hybrids(scores, model, weight)) for weight in WEIGHTS]).T
        best = sweep.argmax(axis=1)
        measures[name] = {
            **{key: metrics.interval(*mean).to_json() for key, mean in means.items()},
            "readers": each[:count],
            "hybrids": each[count:-1],
            "differences": {
                f"{a} − {b}": metrics.interval(means[a][0] - means[b][0], means[a][1] - means[b][1]).to_json()
                for a, b in DIFFERENCES
            },
            "sweep": sweep.tolist(),
            "best_weight": WEIGHTS[best].tolist(),
            "best_value": sweep.max(axis=1).tolist(),
            "best_weight_mean": float(WEIGHTS[best].mean()),
        }
    return {
        "model_name": breasts.name, "breasts": len(label), "patients": len(set(chosen.patient)),
        "malignant": int(label.sum()), "weight": WEIGHT, "measures": measures, "sweep_weights": WEIGHTS.tolist(),
        "summary": hybrid_summary(breasts, readers),
    }  # fmt: skip


def _values(
    metric: metrics.Metric, label: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """The metric of each row of scores [S, N], float64 [S]; [draws, S] with weights [draws, N], paired over S."""
    return np.stack([metric(label, score, weights) for score in scores], axis=-1)


def mean_roc(label: np.ndarray, scores: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The mean over rows of scores [R, N] of the sensitivity at each false positive rate of `at` (vertical averaging;
    the area below it is the mean of the areas)."""
    curves = [metrics.roc_curve(label, score) for score in scores]
    return np.mean([np.interp(at, fpr, tpr) for fpr, tpr, _ in curves], axis=0)


def mean_pr(label: np.ndarray, scores: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The mean over rows of scores [R, N] of the precision at each recall of `at`, 0 < at ≤ 1: that of the highest
    threshold which reaches it, a step function, so that the area below is the mean of the average precisions."""
    positives, negatives = (label == 1).sum(), (label == 0).sum()
    curves = []
    for score in scores:
        fpr, recall, _ = metrics.roc_curve(label, score)
        precision = recall[1:] * positives / (recall[1:] * positives + fpr[1:] * negatives)
        curves.append(precision[np.searchsorted(recall[1:], at - 1e-12)])
    return np.mean(curves, axis=0)


def draw_panel(axes: Axes, panel: str, breasts: Breasts, scores: np.ndarray) -> None:
    """A panel of Fig. 8: a, b, e ROC and c, d, f PR curves of the breasts that were read; `scores` as of `matched`."""
    label, model = breasts.label["malignant"], breasts.score["malignant"]
    roc = panel in "abe"
    at = np.linspace(0, 1, 1001)
    groups = {"model": model[None], "mean reader": scores, "mean hybrid": hybrids(scores, model)}
    shown = {"readers": ["mean reader"], "hybrids": ["mean hybrid"], "averages": list(groups)}[PANELS[panel]]

    def line(of: np.ndarray, **style: Any) -> None:
        if roc:  # it rises from (0, 0)
            axes.plot(np.append(0, at), np.append(0, mean_roc(label, of, at)), **style)
        else:
            axes.plot(at[1:], mean_pr(label, of, at[1:]), **style)

    for name in shown:
        values = _values(metrics.roc_auc if roc else metrics.pr_auc, label, groups[name])
        if len(shown) == 1:
            for k, score in enumerate(groups[name]):
                text = f"each: {values.min():.3f} to {values.max():.3f}" if k == 0 else None
                line(score[None], color=report.SOFT, linewidth=0.8, alpha=0.75, label=text)
        line(groups[name], color=OF[name], linewidth=2.2, label=f"{name}: {values.mean():.3f}")
    axes.plot([0, 1], [0, 1] if roc else [label.mean()] * 2, color=report.SOFT, linewidth=1, linestyle=":")
    kind = f" (λ = {WEIGHT})" if PANELS[panel] == "hybrids" else ""
    axes.set(title=f"({panel}) {PANELS[panel]}{kind}", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set(xlabel="1 − specificity" if roc else "recall (sensitivity)", ylabel="sensitivity" if roc else "precision")
    axes.legend(
        loc="lower right" if roc else "lower left", fontsize=9, edgecolor="none", framealpha=0.85,
        title=NAMES["auc" if roc else "pr_auc"], title_fontsize=9, alignment="left",
    )  # fmt: skip


def figure8(breasts: Breasts, scores: np.ndarray, panel: str = "") -> Figure:
    """ROC and PR curves of the readers, their hybrids and their averages beside the model (Fig. 8), or one panel."""
    with matplotlib.rc_context(report.FONT):
        figure = Figure(figsize=(4.3, 4.0) if panel else (13.5, 9.0), layout="constrained")
        grid = figure.subplots(*((1, 1) if panel else (2, 3)), squeeze=False)
        for axes, each in zip(grid.flat, panel or PANELS, strict=True):
            draw_panel(axes, each, breasts, scores)
    return figure


def figure9(result: dict[str, Any], names: Sequence[str] = tuple(METRICS)) -> Figure:
    """AUC and PR AUC against λ (Fig. 9), or one of them, a line a reader with ◇ at its best, dark to light by falling
    AUC; `result` is of `study`."""
    order = np.argsort([-reader["value"] for reader in result["measures"]["auc"]["readers"]], kind="stable")
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(order)))
    with matplotlib.rc_context(report.FONT):
        figure = Figure(figsize=(5.3 * len(names), 4.9), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False).flat, names, strict=True):
            measure = result["measures"][name]
            for k, colour in zip(order, colours, strict=True):
                axes.plot(result["sweep_weights"], measure["sweep"][k], color=colour, linewidth=1.2, label=f"{k + 1}")
                best = measure["best_weight"][k], measure["best_value"][k]
                axes.plot(*best, "D", color=colour, markersize=6.5, fillstyle="none")
            axes.axvline(result["weight"], color=report.SOFT, linewidth=1, linestyle=":")
            axes.set(xlabel="λ  (0: the model alone, 1: the reader alone)", ylabel=NAMES[name], xlim=(-0.02, 1.02))
            axes.set(title=f"{NAMES[name]} of the hybrids (◇ best λ)")
        lines = axes.get_legend_handles_labels()
        figure.legend(
            *lines, loc="outside lower center", ncols=min(len(lines[0]), 7 * len(names)), frameon=False, fontsize=9,
            title="reader, by falling AUC", title_fontsize=9, handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip
    return figure


def write(runs: Sequence[Path], readers_csv: Path, output: Path, split: str = "test_random10") -> None:
    """Print the reader study and write readers.json, readers.html, fig8.png and fig9.png to `output`.

    Args:
        runs: folders of exam runs; several are an ensemble.
        readers_csv: see `read`.
        split: the one that holds the breasts that were read.

    Raises:
        BadManifest: see `read`.
        NotComparable: see `populations.read_all` and `matched`.
    """
    readers = read(readers_csv)
    breasts = populations.read_all(runs, split)
    model = breasts[0] if len(runs) == 1 else populations.ensemble(breasts, f"ensemble of {len(runs)} runs")
    result = study(model, readers)
    chosen, scores = matched(model, readers)
    averages, each = _tables(result)
    print(f"{averages.text}\n\n{text_table(averages.header, averages.rows)}")
    output.mkdir(parents=True, exist_ok=True)
    (output / "readers.json").write_text(json.dumps(result, indent=2) + "\n")
    for name, figure in (("fig8", figure8(chosen, scores)), ("fig9", figure9(result))):
        figure.savefig(output / f"{name}.png", dpi=150, metadata={"Software": None})
    # a panel a picture: six in one would be too small to read on a page
    panels = [(f"Fig. 8 ({panel}): {of}", report.png(figure8(chosen, scores, panel))) for panel, of in PANELS.items()]
    sweeps = [(f"Fig. 9: {NAMES[name]} against λ", report.png(figure9(result, [name]))) for name in METRICS]
    curves = report.Section("Curves", CURVES, figures=panels)
    weights = report.Section("Weights of reader and model", SWEEP, figures=sweeps)
    report.write_page(output / "readers.html", "Reader study", NOTES, [averages, curves, each, weights])
    print(f"\n→ {output}", flush=True)


def _tables(result: dict[str, Any]) -> list[report.Section]:
    """The averages with their differences, and the readers one by one."""
    measures, summary = result["measures"], result["summary"]
    count = len(measures["auc"]["readers"])
    rows = []
    for name, group in (("model", "model"), ("mean reader", "readers"), ("mean hybrid", "hybrids")):
        sds = [summary[group].get(f"{key}_sd") for key in measures]
        cells = zip((interval_text(one[name]) for one in measures.values()), sds, strict=True)
        rows.append([name, *(f"{one}, sd {sd:.4f}" if sd is not None else one for one, sd in cells)])
    for name in measures["auc"]["differences"]:
        rows.append([name, *(interval_text(one["differences"][name], "+.3f") for one in measures.values())])
    text = (
        f"{count} reader{'s' if count > 1 else ''}; {result['breasts']} breasts of {result['patients']} patients, "
        f"{result['malignant']} malignant. The model: {result['model_name']}."
    )
    averages = report.Section("Averages", text, ("", *NAMES.values()), rows)
    rows = [[f"reader {k + 1}"] for k in range(count)]
    for one in measures.values():
        for k, row in enumerate(rows):
            row += [interval_text(one["readers"][k]), interval_text(one["hybrids"][k]), f"{one['best_weight'][k]:.2f}"]
    rows.append(["mean", *(c for m in measures.values() for c in ("", "", f"{m['best_weight_mean']:.2f}"))])
    header = ("", *(f"{NAMES[key]}{of}" for key in METRICS for of in ("", ", hybrid", ", best λ")))
    text = f"In the order of their file. Hybrids are of λ = {result['weight']}; {BEST}."
    return [averages, report.Section("Each reader", text, header, rows)]
