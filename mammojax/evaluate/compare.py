"""Comparing and averaging finished runs by their predictions: ensembles, two views, operating points.

Shen et al. 2019: "Augmented prediction and model averaging" (flips averaged, the malignant scores of the best models
averaged) and "Combining the CC and MLO views for prediction" (the mean of a breast's two views, compared with single
views over draws of breasts). Our draws are of patients, whose two breasts are not independent.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mammojax import arguments, metrics
from mammojax.errors import NotComparable
from mammojax.evaluate import other_breast, paired, plots, provenance, report, table
from mammojax.evaluate.measure import RUNS
from mammojax.evaluate.report import interval_text
from mammojax.evaluate.table import Predictions
from mammojax.evaluate.text_table import text_table


def over_repeats(
    repeats: Sequence[tuple[Predictions, Predictions | None]],
    runs: int = RUNS,
    seed: int = 0,
    finding: str = "malignant",
) -> metrics.Interval:
    """Mean over repeats (seeds or folds) of an AUC, or of the difference between two on the same images.

    Args:
        repeats: (a, b) of each repeat: AUC of a minus AUC of b; with b None, AUC of a.
        runs, seed: of the draws of patients.
        finding: of FINDINGS.

    Returns:
        The mean with its interval, or without one where all repeats together have too few of a class. A draw takes the
        same patients in every repeat: seeds and splits of one data set are not independent. It covers the chance of
        the test patients but not that of training.
    """
    both = [table.aligned([a, b]) if b is not None else [a] for a, b in repeats]
    patients, place = np.unique(np.concatenate([first.patient for first, *_ in both]), return_inverse=True)
    places = np.split(place, np.cumsum([len(first) for first, *_ in both])[:-1])

    def auc(images: Predictions, weights: np.ndarray | None) -> np.ndarray | float:
        return metrics.roc_auc(images.label(finding), images.score(finding), weights)

    def statistic(weights: np.ndarray | None) -> np.ndarray | float:
        values: list[Any] = []
        for (first, *second), chosen in zip(both, places, strict=True):
            own = None if weights is None else weights[:, chosen]
            values.append(auc(first, own) - (auc(second[0], own) if second else 0))
        return np.asarray(np.mean(values, axis=0))

    mean = metrics.interval_of(statistic, patients, runs, seed)
    few = metrics.too_few(np.concatenate([a.label(finding) for a, _ in repeats]))
    return mean._replace(low=float("nan"), high=float("nan")) if few else mean


def difference(a: Predictions, b: Predictions, finding: str = "malignant") -> metrics.Interval:
    """AUC of a minus AUC of b, both `table.aligned`, on the same draws of patients."""
    return metrics.paired_bootstrap(
        metrics.roc_auc, a.label(finding), a.score(finding), b.score(finding), a.patient, RUNS
    )


def two_views(pairs: pd.DataFrame, runs: int = RUNS, seed: int = 0) -> dict[str, metrics.Interval]:
    """Breast-level AUC of each view and of their mean; "gain" is the AUC of the mean minus the mean of the two AUCs.

    Args:
        pairs: from `table.by_breast`.
        runs, seed: of the draws of patients.
    """
    label, patient = pairs["malignant"].to_numpy(), pairs["patient_id"].to_numpy(dtype=str)
    scores = {name: pairs[name].to_numpy() for name in ("CC", "MLO", "both")}

    def gain(weights: np.ndarray | None) -> np.ndarray | float:
        cc, mlo, both = (metrics.roc_auc(label, score, weights) for score in scores.values())
        return both - (cc + mlo) / 2

    result = {
        name: metrics.bootstrap(metrics.roc_auc, label, score, patient, runs, seed) for name, score in scores.items()
    }
    if metrics.too_few(label):
        return result | {"gain": metrics.Interval(float(gain(None)), float("nan"), float("nan"))}
    return result | {"gain": metrics.interval_of(gain, patient, runs, seed)}


def threshold(predictions: Predictions, sensitivity: float) -> float:
    """The highest score at which at least `sensitivity` of the malignant images count as malignant (score ≥ it); NaN
    where none is malignant."""
    if not (predictions.label() == 1).any():
        return float("nan")
    _, tpr, at = metrics.roc_curve(predictions.label(), predictions.score())
    return float(at[1:][np.argmax(tpr[1:] >= sensitivity - 1e-12)])  # at[0] is infinite, no score


def operating_point(
    predictions: Predictions, at: float, runs: int = RUNS, seed: int = 0
) -> dict[str, metrics.Interval]:
    """Sensitivity and specificity of calling scores ≥ `at` malignant."""
    called, label = (predictions.score() >= at).astype(int), predictions.label()

    def share(of: int) -> metrics.Interval:
        """The share of the images labelled `of` that are called so."""

        def statistic(weights: np.ndarray | None) -> np.ndarray | float:
            return metrics.accuracy(label[among], called[among], None if weights is None else weights[:, among])

        among = label == of
        if among.sum() < metrics.ENOUGH:
            return metrics.Interval(float(statistic(None)), float("nan"), float("nan"))
        return metrics.interval_of(statistic, predictions.patient, runs, seed)

    return {"sensitivity": share(1), "specificity": share(0)}


def compare(
    runs: Sequence[Path],
    split: str = "test",
    sensitivity: float = 0.86,
    asymmetry: bool = False,
    by: Sequence[str] = (),
) -> dict[str, Any]:
    """The numbers that `mammojax compare` prints.

    Args:
        runs: folders of whole-image and two-view runs, measured on the same images. If there is a two-view run among
            them, all are measured by breast: a whole-image run by the mean of the two views' scores.
        split: "test" or "val".
        sensitivity: the aim of the operating points; 0.86 is the U.S. average that Shen et al. use.
        asymmetry: also measure each image against the same patient's other breast, see `other_breast.asymmetry`.
        by: columns of the predictions, which are those of the manifest; see `paired.subgroups`.

    Returns:
        {"split", "unit" ("image" or "breast"), "images" (their number), "rows": [{"name", "auc", "auc_flips",
        "gain_flips", "two_views"}], "ensemble_gain", "operating": [{"name", "chosen_on_val", "read_on_test"}],
        "differences", "by"}; the last two are of scores with flips averaged, from `paired.differences` and
        `paired.subgroups`. Intervals: see `metrics.Interval.to_json`.
        With `asymmetry` also "asymmetry": [{"name", "images", "auc_flips", "auc", "gain"}].
        With several runs the last row is the ensemble; its gain is over the best single run, chosen on these very
        images, so the gain is a cautious one. Operating points use averaged flips; "read_on_test" is the paper's way
        ("determined the model specificity to be 80.1% at a similar sensitivity of 86.1%"). With the validation split
        there is only "read_on_val". A point is None where no malignant image gives a threshold.

    Raises:
        NotComparable: see `table.read_all_images` and `table.parts`; with `asymmetry`, no patient has both breasts.
    """
    plain = table.read_all_images(runs, split)
    for column in by:  # a mistyped column is refused before the long computation
        table.parts(plain[0], column)
    flips = table.aligned([plain[0], *table.read_all_images(runs, f"{split}_flips")])[1:]  # pairs need the same order
    val = table.read_all_images(runs, "val_flips")
    if len(runs) > 1:
        for group in (plain, flips, val):
            group.append(table.ensemble(group))
    rows, points = [], []
    for as_is, turned, chooser in zip(plain, flips, val, strict=True):
        pairs = table.by_breast(turned) if turned.of_images else pd.DataFrame({"malignant": []})
        rows.append(
            {
                "name": as_is.name,
                "auc": auc(as_is),
                "auc_flips": auc(turned),
                "gain_flips": difference(turned, as_is).to_json(),
                "breasts": len(pairs),
                "malignant_breasts": int(pairs["malignant"].sum()),
                "two_views": {k: v.to_json() for k, v in two_views(pairs).items()} if len(pairs) else None,
            }
        )
        point: dict[str, Any] = {"name": as_is.name}
        if split != "val":
            point["chosen_on_val"] = _point(turned, threshold(chooser, sensitivity))
        points.append(point | {f"read_on_{split}": _point(turned, threshold(turned, sensitivity))})
    gain = None
    if len(runs) > 1:
        best = max(flips[:-1], key=lambda s: float(metrics.roc_auc(s.label(), s.score())))
        gain = {"over": best.name, **difference(flips[-1], best).to_json()}
    result = {
        "split": split, "unit": "image" if plain[0].of_images else "breast",
        "images": len(plain[0]), "patients": len(set(plain[0].patient)), "rows": rows,
        "ensemble_gain": gain, "sensitivity": sensitivity, "operating": points,
        "differences": paired.differences(flips[: len(runs)]), "by": paired.subgroups(flips, by),
    }  # fmt: skip
    return result | {"asymmetry": [_asymmetry(run) for run in flips]} if asymmetry else result


def _asymmetry(run: Predictions) -> dict[str, Any]:
    """The AUC of images of patients with both breasts, by their own score and by `other_breast.asymmetry`."""
    against = other_breast.by_asymmetry(run)
    if not len(against):
        raise NotComparable(
            f'"{run.name}" has no patient with an image of both breasts, so none can be measured against the other; '
            "leave --asymmetry out."
        )
    alone = run[run.index.get_indexer(against.index)]
    return {
        "name": run.name, "images": len(against), "auc_flips": auc(alone), "auc": auc(against),
        "gain": difference(against, alone).to_json(),
    }  # fmt: skip


def auc(predictions: Predictions) -> dict[str, Any]:
    """The AUC of malignant against not malignant with its interval, as `metrics.Interval.to_json` has it."""
    label = predictions.label()
    return metrics.bootstrap(metrics.roc_auc, label, predictions.score(), predictions.patient, RUNS).to_json(label)


def _point(predictions: Predictions, at: float) -> dict[str, Any] | None:
    if not np.isfinite(at):
        return None
    return {"threshold": at} | {k: v.to_json() for k, v in operating_point(predictions, at).items()}


def roc_figure(
    predictions: Sequence[Predictions], title: str = "ROC, flips averaged (AUC in the legend)", ensemble: bool = True
) -> Figure:
    """ROC curves of single runs and, the last of several, their ensemble (Fig. 3)."""
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(6.0, 5.4))
        curves = [(run.name, run.label(), run.score()) for run in predictions]
        plots.rocs(figure.subplots(), curves, title, ensemble)
    return figure


def write(
    sources: Sequence[Path], output: Path | None, split: str = "test", sensitivity: float = 0.86,
    asymmetry: bool = False, by: Sequence[str] = (), json_file: Path | None = None,
) -> None:  # fmt: skip
    """Print the comparison; with `output` also write compare.json, compare.html and roc.png there.

    Args:
        sources: run folders, or CSVs of predictions (`table.read_plain`), or both.
        output: a folder.
        split: of runs.
        sensitivity, asymmetry, by: see `compare`; asymmetry takes run folders only.
        json_file: also gets the numbers.
    """
    if any(source.suffix.lower() == ".csv" for source in sources):
        if asymmetry:
            raise NotComparable("--asymmetry takes run folders only; leave it out, or the CSVs.")
        result, drawn = paired.compare_plain(sources, split, by)
        sections = [paired.plain_section(result), *paired.sections(result["differences"], result["by"])]
        title = "ROC (AUC in the legend)"
    else:
        result = compare(sources, split, sensitivity, asymmetry, by)
        sections = [*_sections(result), *paired.sections(result["differences"], result["by"])]
        drawn, title = table.read_all_images(sources, f"{split}_flips"), "ROC, flips averaged (AUC in the legend)"
        drawn = [*drawn, table.ensemble(drawn)] if len(drawn) > 1 else drawn
    for section in sections:
        print(f"\n{section.heading}\n{section.text}\n{text_table(section.header, section.rows)}")
    numbers = json.dumps(result, indent=2, allow_nan=False) + "\n"
    if json_file:
        json_file.write_text(numbers)
        print(f"\n→ {json_file}", flush=True)
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    (output / "compare.json").write_text(numbers)
    figure = roc_figure(drawn, title, ensemble=len(drawn) > len(sources))
    figure.savefig(output / "roc.png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    picture = report.Section(
        "ROC curves", figures=[(f"ROC curves of {', '.join(p.name for p in drawn)}", report.png(figure))]
    )
    notes = [f"In brackets 95 % intervals from {RUNS} bootstrap draws of patients.", provenance.USE]
    page = [*sections[:1], picture, *sections[1:]]
    report.write_page(output / "compare.html", "Compared", notes, page, _cards(result))
    print(f"\n→ {output}", flush=True)


def _cards(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The answer first: the AUC of up to three runs, and the first difference between two."""
    cells = [(f"AUC, {r['name']}", interval_text(r.get("auc_flips", r["auc"]))) for r in result["rows"][:3]]
    for r in result["differences"][:1]:
        cells.append((f"AUC, {r['name']} − {r['minus']}", interval_text(r["bootstrap"], "+.3f")))
    parted = [(name, *text.partition(" ")) for name, text in cells]
    return [(name, value, rest) for name, value, _, rest in parted]


def _sections(result: dict[str, Any]) -> list[report.Section]:
    split = result["split"]
    rows = [
        [r["name"], *(interval_text(r[k]) for k in ("auc", "auc_flips")), interval_text(r["gain_flips"], "+.3f")]
        for r in result["rows"]
    ]
    negatives, positives = result["rows"][0]["auc"]["n"]
    unit = result["unit"]
    text = f"{split} split, {positives} malignant and {negatives} other {unit}s of {result['patients']} patients."
    if unit == "breast":
        text += " Breasts that the two-view runs score; a single-view run scores one by the mean of its views."
    if gain := result["ensemble_gain"]:
        text += f" The ensemble, the mean of all runs' scores with flips, minus the best of them ({gain['over']}): "
        text += f"{interval_text(gain, '+.3f')}."
    sections = [report.Section(f"AUC by {unit}", text, ("run", "as is", "flips averaged", "flips − as is"), rows)]
    views = [r for r in result["rows"] if r["two_views"]]
    if views:
        rows = [
            [r["name"], str(r["breasts"]), str(r["malignant_breasts"]),
             *(interval_text(r["two_views"][k]) for k in ("CC", "MLO", "both")),
             interval_text(r["two_views"]["gain"], "+.3f")] for r in views
        ]  # fmt: skip
        text = (
            "Breasts with both views; their scores averaged, flips too. The gain is over the mean of the views' AUCs."
        )
        header = ("run", "breasts", "malignant", "CC alone", "MLO alone", "mean of both", "gain")
        sections.append(report.Section("AUC by breast, two views", text, header, rows))
    if "asymmetry" in result:
        rows = [
            [r["name"], str(r["images"]), interval_text(r["auc_flips"]), interval_text(r["auc"]),
             interval_text(r["gain"], "+.3f")] for r in result["asymmetry"]
        ]  # fmt: skip
        text = (
            f"{unit.capitalize()}s of patients with both breasts, flips averaged: by their own score, and by the "
            "difference of their log odds from those of the other breast."
        )
        names = ("run", f"{unit}s", "own score", "minus the other breast", "gain")
        sections.append(report.Section(f"AUC by {unit}, against the other breast", text, names, rows))
    text = f"Aiming at a sensitivity of {result['sensitivity']:.2f}. "
    if split != "val":
        text += "A threshold chosen on val does not know these images; val also chose each run's epoch. "
    text += f"One read on {split} comes from the very images it is printed for, the paper's way, so it is optimistic."
    rows, shares = [], ("sensitivity", "specificity")
    for kind in [key for key in result["operating"][0] if key != "name"]:
        for point in result["operating"]:
            shares_at = point[kind]
            cells = (
                [f"{shares_at['threshold']:.3f}", *(interval_text(shares_at[k]) for k in shares)]
                if shares_at
                else "–––"
            )
            rows.append([point["name"], kind.replace("_", " "), *cells])
    return [*sections, report.Section("Operating points", text, ("run", "threshold", "at", *shares), rows)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax compare`."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN|CSV",
        help="folder of a whole-image or two-view run, or a CSV of predictions",
    )  # fmt: skip
    parser.add_argument("--split", choices=["test", "val"], default="test")
    parser.add_argument("--sensitivity", type=arguments.share, default=0.86, help="what operating points aim at")
    parser.add_argument(
        "--asymmetry", action="store_true", help="also measure each image against the patient's other breast"
    )
    parser.add_argument("--by", action="append", default=[], help="a column of the manifest, such as density")
    parser.add_argument("--json", type=arguments.file(".json"), help="also write the numbers to this file")
    parser.add_argument("--output", type=arguments.folder, help="a folder for compare.html, compare.json and roc.png")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax compare`; see `write`."""
    write(args.runs, args.output, args.split, args.sensitivity, args.asymmetry, args.by, args.json)
    return 0
