"""Readers, the model, and hybrids of both: the reader study of Wu et al. 2019, section VI, for any readers.

Each reader gave every breast a probability of malignancy. A hybrid is λ · reader + (1 − λ) · model; the paper uses
λ = 0.5 for all readers, and shows every λ in Fig. 9. "Average performance" is of curves and areas, not of scores.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammojax import arguments, metrics
from mammojax.evaluate import plots, reader_file, report, table
from mammojax.evaluate.measure import METRICS, RUNS
from mammojax.evaluate.reader_file import Readers, matched
from mammojax.evaluate.report import interval_text
from mammojax.evaluate.table import Predictions
from mammojax.evaluate.text_table import text_table

NAMES = {"auc": "AUC", "pr_auc": "PR AUC"}
WEIGHT = 0.5
WEIGHTS = np.round(np.linspace(0, 1, 101), 2)
DIFFERENCES = (("mean hybrid", "model"), ("mean hybrid", "mean reader"), ("model", "mean reader"))
PANELS = {"a": "readers", "b": "hybrids", "e": "averages", "c": "readers", "d": "hybrids", "f": "averages"}  # of Fig. 8
OF = {"model": plots.RUNS[1], "mean reader": plots.RUNS[0], "mean hybrid": plots.RUNS[3]}
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


def hybrids(scores: np.ndarray, model: np.ndarray, weight: float = WEIGHT) -> np.ndarray:
    """λ · reader + (1 − λ) · model, float64 [R, N], of the readers' scores [R, N] and the model's [N]."""
    return weight * scores + (1 - weight) * model


def hybrid_summary(breasts: Predictions, readers: Readers, weight: float = WEIGHT) -> dict[str, dict[str, Any]]:
    """The numbers of the paper's section VI.

    Returns:
        {"readers", "hybrids": {"auc_mean", "auc_sd", "pr_auc_mean", "pr_auc_sd"}, "model": {"auc_mean",
        "pr_auc_mean"}}. The sd over readers divides by their number, as the paper's 0.0435 and 0.0496 of 14
        readers. It is None for a single reader.

    Raises:
        NotComparable: see `reader_file.matched`.
    """
    chosen, scores = matched(breasts, readers)
    label, model = chosen.label(), chosen.score()
    result: dict[str, dict[str, Any]] = {"readers": {}, "hybrids": {}, "model": {}}
    for name, metric in METRICS.items():
        for group, each in (("readers", scores), ("hybrids", hybrids(scores, model, weight))):
            values = _values(metric, label, each)
            result[group][f"{name}_mean"] = float(np.mean(values))
            result[group][f"{name}_sd"] = float(np.std(values)) if len(values) > 1 else None
        result["model"][f"{name}_mean"] = float(metric(label, model))
    return result


def study(breasts: Predictions, readers: Readers, runs: int = RUNS, seed: int = 0) -> dict[str, Any]:
    """The numbers of readers.json.

    Args:
        breasts: a model's predictions; only breasts that were read count.
        readers: from `reader_file.read`.
        runs, seed: of the bootstrap over patients. The readers are the same in each draw.

    Returns:
        {"model_name", "breasts", "patients", "malignant", "weight", "measures": {"auc", "pr_auc": {"model",
        "mean reader", "mean hybrid", "readers": [R], "hybrids": [R], "differences": {"A − B"}, "sweep": [R][101],
        "best_weight": [R], "best_value": [R], "best_weight_mean"}}, "sweep_weights": [101], "summary"}. Intervals are
        {"value", "low", "high"}; those of means are of the mean over readers, so differences are paired by patient and
        by reader. The best weight, the lowest among equals, is chosen on these very breasts.

    Raises:
        NotComparable: see `reader_file.matched`.
    """
    chosen, scores = matched(breasts, readers)
    label, model = chosen.label(), chosen.score()
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


def draw_panel(axes: Axes, panel: str, breasts: Predictions, scores: np.ndarray) -> None:
    """A panel of Fig. 8: a, b, e ROC and c, d, f PR curves of breasts and scores from `matched`."""
    label, model = breasts.label(), breasts.score()
    roc = panel in "abe"
    at = np.linspace(0, 1, 1001)
    groups = {"model": model[None], "mean reader": scores, "mean hybrid": hybrids(scores, model)}
    names = {"readers": ["mean reader"], "hybrids": ["mean hybrid"], "averages": list(groups)}[PANELS[panel]]

    def line(of: np.ndarray, **style: Any) -> None:
        if roc:  # the curve rises from (0, 0)
            axes.plot(np.append(0, at), np.append(0, mean_roc(label, of, at)), **style)
        else:
            axes.plot(at[1:], mean_pr(label, of, at[1:]), **style)

    for name in names:
        values = _values(metrics.roc_auc if roc else metrics.pr_auc, label, groups[name])
        if len(names) == 1:
            for k, score in enumerate(groups[name]):
                text = f"each: {values.min():.3f} to {values.max():.3f}" if k == 0 else None
                line(score[None], color=plots.SOFT, linewidth=0.8, alpha=0.75, label=text)
        line(groups[name], color=OF[name], linewidth=2.2, label=f"{name}: {values.mean():.3f}")
    title = f"({panel}) {PANELS[panel]}" + (f" (λ = {WEIGHT})" if PANELS[panel] == "hybrids" else "")
    if roc:
        plots.frame_roc(axes, title)
    else:
        plots.frame_pr(axes, float(label.mean()), title)
    axes.legend(
        loc="lower right" if roc else "lower left", fontsize=9, edgecolor="none", framealpha=0.85,
        title=NAMES["auc" if roc else "pr_auc"], title_fontsize=9, alignment="left",
    )  # fmt: skip


def figure8(breasts: Predictions, scores: np.ndarray, panel: str = "") -> Figure:
    """ROC and PR curves of the readers, their hybrids and their averages beside the model (Fig. 8), or one panel."""
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(4.3, 4.0) if panel else (13.5, 9.0), layout="constrained")
        grid = figure.subplots(*((1, 1) if panel else (2, 3)), squeeze=False)
        for axes, each in zip(grid.flat, panel or PANELS, strict=True):
            draw_panel(axes, each, breasts, scores)
    return figure


def figure9(result: dict[str, Any], names: Sequence[str] = tuple(METRICS)) -> Figure:
    """AUC and PR AUC against λ (Fig. 9), or one of them, a line a reader with ◇ at its best, dark to light by falling
    AUC; `result` is from `study`."""
    order = np.argsort([-reader["value"] for reader in result["measures"]["auc"]["readers"]], kind="stable")
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(5.3 * len(names), 4.9), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False).flat, names, strict=True):
            measure = result["measures"][name]
            best = list(zip(measure["best_weight"], measure["best_value"], strict=True))
            plots.weights(axes, result["sweep_weights"], measure["sweep"], best, order.tolist(), result["weight"])
            axes.set(ylabel=NAMES[name], title=f"{NAMES[name]} of the hybrids (◇ best λ)")
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
        readers_csv: see `reader_file.read`.
        split: the split with the breasts that were read.

    Raises:
        BadManifest: see `reader_file.read`.
        NotComparable: see `table.read_all_breasts` and `reader_file.matched`.
    """
    readers = reader_file.read(readers_csv)
    breasts = table.read_all_breasts(runs, split)
    model = breasts[0] if len(runs) == 1 else table.ensemble(breasts, f"ensemble of {len(runs)} runs")
    result = study(model, readers)
    chosen, scores = matched(model, readers)
    averages, each = _tables(result)
    print(f"{averages.text}\n\n{text_table(averages.header, averages.rows)}")
    output.mkdir(parents=True, exist_ok=True)
    (output / "readers.json").write_text(json.dumps(result, indent=2) + "\n")
    for name, figure in (("fig8", figure8(chosen, scores)), ("fig9", figure9(result))):
        figure.savefig(output / f"{name}.png", dpi=150, metadata={"Software": None})
    # one image per panel: six panels in one would be too small on a page
    panels = [(f"Fig. 8 ({panel}): {of}", report.png(figure8(chosen, scores, panel))) for panel, of in PANELS.items()]
    sweeps = [(f"Fig. 9: {NAMES[name]} against λ", report.png(figure9(result, [name]))) for name in METRICS]
    curves = report.Section("Curves", CURVES, figures=panels)
    weights = report.Section("Weights of reader and model", SWEEP, figures=sweeps)
    report.write_page(output / "readers.html", "Reader study", NOTES, [averages, curves, each, weights])
    print(f"\n→ {output}", flush=True)


def _tables(result: dict[str, Any]) -> list[report.Section]:
    """The table of averages and differences, and the table of readers."""
    measures, summary = result["measures"], result["summary"]
    count = len(measures["auc"]["readers"])
    rows = []
    for name, group in (("model", "model"), ("mean reader", "readers"), ("mean hybrid", "hybrids")):
        sds = [summary[group].get(f"{key}_sd") for key in measures]
        cells = zip((interval_text(measured[name]) for measured in measures.values()), sds, strict=True)
        rows.append([name, *(f"{measured}, sd {sd:.4f}" if sd is not None else measured for measured, sd in cells)])
    for name in measures["auc"]["differences"]:
        rows.append([name, *(interval_text(measured["differences"][name], "+.3f") for measured in measures.values())])
    text = (
        f"{count} reader{'s' if count > 1 else ''}; {result['breasts']} breasts of {result['patients']} patients, "
        f"{result['malignant']} malignant. The model: {result['model_name']}."
    )
    averages = report.Section("Averages", text, ("", *NAMES.values()), rows)
    rows = [[f"reader {k + 1}"] for k in range(count)]
    for measured in measures.values():
        for k, row in enumerate(rows):
            row += [
                interval_text(measured["readers"][k]),
                interval_text(measured["hybrids"][k]),
                f"{measured['best_weight'][k]:.2f}",
            ]
    rows.append(["mean", *(c for m in measures.values() for c in ("", "", f"{m['best_weight_mean']:.2f}"))])
    header = ("", *(f"{NAMES[key]}{of}" for key in METRICS for of in ("", ", hybrid", ", best λ")))
    text = f"In the order of their file. Hybrids are of λ = {result['weight']}; {BEST}."
    return [averages, report.Section("Each reader", text, header, rows)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax readers`."""
    parser.add_argument("--run", type=Path, required=True, action="append", help="an exam run; several average")
    parser.add_argument("--readers", type=Path, required=True, help="CSV of reader, exam_id, laterality, p_malignant")
    parser.add_argument("--split", choices=["test_random10", "test"], default="test_random10")
    parser.add_argument("--output", type=arguments.folder, required=True)


def main(args: argparse.Namespace) -> int:
    """Run `mammojax readers`; see `write`."""
    write(args.run, args.readers, args.output, args.split)
    return 0
