"""Finished runs beside and with each other, from their predictions alone: ensembles, two views, operating points.

Shen et al. 2019: "Augmented prediction and model averaging" (flips averaged, the malignant scores of the best models
averaged) and "Combining the CC and MLO views for prediction" (the mean of a breast's two views, compared with single
views over draws of breasts). Our draws are of patients, whose two breasts are not independent.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mammojax import metrics
from mammojax.data.cells import read_table
from mammojax.errors import NotComparable
from mammojax.evaluate import report
from mammojax.evaluate.report import interval_text

RUNS = 3000
COLOURS = ("#1f6f8b", "#d08c2e", "#6a8f3c", "#8b5a9f", "#4f6d9a", "#a3563d")


@dataclass(frozen=True)
class Scored:
    """A split's labelled images: `rows` of the CSV, label int [N], score float64 [N] (p_malignant), patient [N]."""

    name: str
    rows: list[dict[str, str]]
    label: np.ndarray
    score: np.ndarray
    patient: np.ndarray


def read(run: Path, split: str) -> Scored:
    """The predictions of a run.

    Args:
        run: the run folder.
        split: "test", "val", or with flips averaged "test_flips", "val_flips".

    Raises:
        NotComparable: the run has none, is a patch run, or names an image twice.
    """
    path = run / "predictions" / f"{split}.csv"
    if not path.is_file():
        raise NotComparable(f'"{run}" has no predictions/{split}.csv; name the folder of a finished whole-image run.')
    with path.open(newline="") as file:
        rows = [row for row in read_table(file)[1] if row["label"] != ""]
    if rows and "p_malignant" not in rows[0]:
        raise NotComparable(f'"{run}" is a patch run; compare whole-image runs.')
    if not rows:
        raise NotComparable(f'"{run}": predictions/{split}.csv has no labelled image; nothing can be measured.')
    names = [row["image"] for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise NotComparable(f'"{run}": predictions/{split}.csv names "{twice}" twice; predict the split again.')
    return Scored(
        _folder(run).name, rows, np.array([int(r["label"]) for r in rows]),
        np.array([float(r["p_malignant"]) for r in rows]), np.array([r["patient_id"] for r in rows]),
    )  # fmt: skip


def _folder(run: Path) -> Path:
    """The run folder by its own name, where it was given as "." or with ".."."""
    return Path(os.path.abspath(run))


def aligned(scored: Sequence[Scored]) -> list[Scored]:
    """All in the order of the first; images are matched by name.

    Raises:
        NotComparable: they are not of the same images with the same labels.
    """
    names = [row["image"] for row in scored[0].rows]
    result = []
    for one in scored:
        place = {row["image"]: k for k, row in enumerate(one.rows)}
        if other := sorted(set(names) ^ set(place)):
            raise NotComparable(
                f'"{scored[0].name}" and "{one.name}" were measured on different images ({len(other)} stand in one '
                f'alone, the first: "{other[0]}"); give runs of one data set, split and seed.'
            )
        order = [place[name] for name in names]
        rows = [one.rows[k] for k in order]
        differ = np.flatnonzero(one.label[order] != scored[0].label)
        if len(differ):
            raise NotComparable(
                f'"{scored[0].name}" and "{one.name}" have other labels for {len(differ)} of the same images (the '
                f'first: "{names[differ[0]]}"); give runs of one data set.'
            )
        result.append(
            replace(one, rows=rows, label=one.label[order], score=one.score[order], patient=one.patient[order])
        )
    return result


def ensemble(scored: Sequence[Scored], name: str = "ensemble") -> Scored:
    """The mean of the malignant scores of runs on the same images."""
    same = aligned(scored)
    return replace(same[0], name=name, score=np.mean([one.score for one in same], axis=0))


def over_repeats(repeats: Sequence[tuple[Scored, Scored | None]], runs: int = RUNS, seed: int = 0) -> metrics.Interval:
    """Mean over repeats (seeds or folds) of an AUC, or of the difference between two on the same images.

    Args:
        repeats: (a, b) of each: AUC of a minus AUC of b; b None: AUC of a alone.

    Returns:
        The mean with its interval, without one where a repeat has too few of a class; each repeat's patients are drawn
        anew, which covers the test images' chance but not that of training.
    """
    values, drawn, few = [], [], False
    for k, (a, b) in enumerate(repeats):
        first, second = aligned([a, b]) if b else (a, None)

        def statistic(
            weights: np.ndarray | None, one: Scored = first, other: Scored | None = second
        ) -> np.ndarray | float:
            auc = metrics.roc_auc(one.label, one.score, weights)
            return auc - metrics.roc_auc(other.label, other.score, weights) if other else auc

        values.append(float(statistic(None)))
        few = few or metrics.too_few(first.label)
        drawn.append(metrics.draws_of(statistic, first.patient, runs, seed + k))
    mean = metrics.interval(float(np.mean(values)), np.mean(drawn, axis=0))
    return mean._replace(low=float("nan"), high=float("nan")) if few else mean


@dataclass(frozen=True)
class Breasts:
    """Breasts with both views: label int [B], `cc` and `mlo` float64 [B] (several images of a view: their mean), the
    mean of the two as `both`, patient [B]."""

    label: np.ndarray
    cc: np.ndarray
    mlo: np.ndarray
    patient: np.ndarray

    @property
    def both(self) -> np.ndarray:
        """The mean score of the two views."""
        return (self.cc + self.mlo) / 2


def breasts(scored: Scored) -> Breasts:
    """The breasts that have a CC and an MLO view; a breast is malignant where one of its images is."""
    groups: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    for k, row in enumerate(scored.rows):
        if row["laterality"] and row["view"] in ("CC", "MLO"):
            key = (row["patient_id"], row["exam_id"], row["laterality"])
            groups.setdefault(key, {}).setdefault(row["view"], []).append(k)
    pairs = [(views["CC"], views["MLO"], key[0]) for key, views in sorted(groups.items()) if len(views) == 2]
    return Breasts(
        np.array([int(scored.label[[*cc, *mlo]].max()) for cc, mlo, _ in pairs], int),
        np.array([scored.score[cc].mean() for cc, _, _ in pairs]),
        np.array([scored.score[mlo].mean() for _, mlo, _ in pairs]),
        np.array([patient for _, _, patient in pairs]),
    )


def two_views(pairs: Breasts, runs: int = RUNS, seed: int = 0) -> dict[str, metrics.Interval]:
    """Breast-level AUC of each view and of their mean; "gain" is that of the mean minus the mean of the two AUCs."""

    def gain(weights: np.ndarray | None) -> np.ndarray | float:
        cc, mlo, both = (metrics.roc_auc(pairs.label, s, weights) for s in (pairs.cc, pairs.mlo, pairs.both))
        return both - (cc + mlo) / 2

    result = {
        name: metrics.bootstrap(metrics.roc_auc, pairs.label, score, pairs.patient, runs, seed)
        for name, score in (("CC", pairs.cc), ("MLO", pairs.mlo), ("both", pairs.both))
    }
    if metrics.too_few(pairs.label):
        return result | {"gain": metrics.Interval(float(gain(None)), float("nan"), float("nan"))}
    return result | {"gain": metrics.interval_of(gain, pairs.patient, runs, seed)}


def threshold(scored: Scored, sensitivity: float) -> float:
    """The highest score at which at least `sensitivity` of the malignant images is called malignant (score ≥ it); NaN
    where none is malignant."""
    if not (scored.label == 1).any():
        return float("nan")
    _, tpr, at = metrics.roc_curve(scored.label, scored.score)
    return float(at[1:][np.argmax(tpr[1:] >= sensitivity - 1e-12)])  # at[0] is no score


def operating_point(scored: Scored, at: float, runs: int = RUNS, seed: int = 0) -> dict[str, metrics.Interval]:
    """Sensitivity and specificity of calling scores ≥ `at` malignant."""
    called, label = (scored.score >= at).astype(int), scored.label

    def share(of: int) -> metrics.Interval:
        """How many of the images labelled `of` are called so."""

        def statistic(weights: np.ndarray | None) -> np.ndarray | float:
            return metrics.accuracy(label[among], called[among], None if weights is None else weights[:, among])

        among = label == of
        if among.sum() < metrics.ENOUGH:
            return metrics.Interval(float(statistic(None)), float("nan"), float("nan"))
        return metrics.interval_of(statistic, scored.patient, runs, seed)

    return {"sensitivity": share(1), "specificity": share(0)}


def names_of(runs: Sequence[Path]) -> list[str]:
    """What to call runs: their folders' names; where two are alike, all by the folders they lie in too.

    Raises:
        NotComparable: a run is given twice.
    """
    folders = [_folder(run) for run in runs]
    if len(set(folders)) < len(folders):
        twice = next(folder for k, folder in enumerate(folders) if folder in folders[:k])
        raise NotComparable(f'"{twice.name}" is given twice; name each run once.')
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    above = os.path.commonpath(folders)
    return [os.path.relpath(folder, above) for folder in folders]


def _of_all(runs: Sequence[Path], split: str) -> list[Scored]:
    """A split of all runs in one order, by the names of `names_of`."""
    return aligned([replace(read(run, split), name=name) for run, name in zip(runs, names_of(runs), strict=True)])


def compare(runs: Sequence[Path], split: str = "test", sensitivity: float = 0.86) -> dict[str, Any]:
    """Everything about some runs that `mammojax compare` prints.

    Args:
        runs: folders of whole-image runs, measured on the same images.
        split: "test" or "val".
        sensitivity: what operating points aim at; 0.86 is the U.S. average that Shen et al. take.

    Returns:
        {"split", "images", "rows": [{"name", "auc", "auc_flips", "gain_flips", "two_views"}], "ensemble_gain",
        "operating": [{"name", "chosen_on_val", "read_on_test"}]}; intervals are as `metrics.Interval.to_json` has them.
        The last row is the ensemble where there are several runs; its gain is over the best single run, whose choice
        on these very images makes it a modest one. Operating points are of flips averaged; "read_on_test" is what the
        paper did ("determined the model specificity to be 80.1% at a similar sensitivity of 86.1%"). With the
        validation split there is "read_on_val" alone. A point whose threshold no malignant image gives is None.

    Raises:
        NotComparable: a run is given twice; see `read` and `aligned`.
    """
    plain = _of_all(runs, split)
    flips = aligned([plain[0], *_of_all(runs, f"{split}_flips")])[1:]  # pairs need one order
    val = _of_all(runs, "val_flips")
    if len(runs) > 1:
        for group in (plain, flips, val):
            group.append(ensemble(group))
    rows, points = [], []
    for one, turned, chooser in zip(plain, flips, val, strict=True):
        pairs = breasts(turned)
        rows.append(
            {
                "name": one.name,
                "auc": _auc(one),
                "auc_flips": _auc(turned),
                "gain_flips": _difference(turned, one),
                "breasts": len(pairs.label),
                "malignant_breasts": int(pairs.label.sum()),
                "two_views": {k: v.to_json() for k, v in two_views(pairs).items()} if len(pairs.label) else None,
            }
        )
        point: dict[str, Any] = {"name": one.name}
        if split != "val":
            point["chosen_on_val"] = _point(turned, threshold(chooser, sensitivity))
        points.append(point | {f"read_on_{split}": _point(turned, threshold(turned, sensitivity))})
    gain = None
    if len(runs) > 1:
        best = max(flips[:-1], key=lambda s: float(metrics.roc_auc(s.label, s.score)))
        gain = {"over": best.name, **_difference(flips[-1], best)}
    return {
        "split": split, "images": len(plain[0].rows), "patients": len(set(plain[0].patient)), "rows": rows,
        "ensemble_gain": gain, "sensitivity": sensitivity, "operating": points,
    }  # fmt: skip


def _auc(scored: Scored) -> dict[str, Any]:
    return metrics.bootstrap(metrics.roc_auc, scored.label, scored.score, scored.patient, RUNS).to_json(scored.label)


def _difference(a: Scored, b: Scored) -> dict[str, Any]:
    return metrics.paired_bootstrap(metrics.roc_auc, a.label, a.score, b.score, a.patient, RUNS).to_json()


def _point(scored: Scored, at: float) -> dict[str, Any] | None:
    if not np.isfinite(at):
        return None
    return {"threshold": at} | {k: v.to_json() for k, v in operating_point(scored, at).items()}


def roc_figure(scored: Sequence[Scored]) -> Figure:
    """ROC curves of single runs and their ensemble (Fig. 3); the last of several is drawn as the ensemble."""
    with matplotlib.rc_context(report.FONT):
        figure = Figure(figsize=(6.0, 5.4))
        axes = figure.subplots()
        for k, one in enumerate(scored):
            fpr, tpr, _ = metrics.roc_curve(one.label, one.score)
            together = len(scored) > 1 and k == len(scored) - 1
            colour = "#1c2430" if together else COLOURS[k % len(COLOURS)]
            label = f"{one.name}: {metrics.roc_auc(one.label, one.score):.3f}"
            axes.plot(fpr, tpr, color=colour, linewidth=2.4 if together else 1.5, label=label)
        axes.plot([0, 1], [0, 1], color=report.SOFT, linewidth=1, linestyle=":")
        axes.set(xlabel="1 − specificity", ylabel="sensitivity", title="ROC, flips averaged (AUC in the legend)")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.legend(frameon=False, loc="lower right", fontsize=9)
    return figure


def write(runs: Sequence[Path], output: Path | None, split: str = "test", sensitivity: float = 0.86) -> None:
    """Print the comparison; with `output` also write compare.json, compare.html and roc.png there."""
    result = compare(runs, split, sensitivity)
    sections = _sections(result)
    for section in sections:
        print(f"\n{section.heading}\n{section.text}")
        widths = [max(len(row[k]) for row in [section.header, *section.rows]) for k in range(len(section.header))]
        for row in [section.header, *section.rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    (output / "compare.json").write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    flips = _of_all(runs, f"{split}_flips")
    figure = roc_figure([*flips, ensemble(flips)] if len(flips) > 1 else flips)
    figure.savefig(output / "roc.png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    picture = report.Section("ROC curves", figures=[("ROC curves of the runs and their ensemble", report.png(figure))])
    notes = ["In brackets 95 % intervals from 3000 bootstrap draws of patients."]
    report.write_page(output / "compare.html", "Runs compared", notes, [*sections[:1], picture, *sections[1:]])
    print(f"\n→ {output}", flush=True)


def _sections(result: dict[str, Any]) -> list[report.Section]:
    split = result["split"]
    rows = [
        [r["name"], *(interval_text(r[k]) for k in ("auc", "auc_flips")), interval_text(r["gain_flips"], "+.3f")]
        for r in result["rows"]
    ]
    negatives, positives = result["rows"][0]["auc"]["n"]
    text = f"{split} split, {positives} malignant and {negatives} other images of {result['patients']} patients."
    if gain := result["ensemble_gain"]:
        text += f" The ensemble, the mean of all runs' scores with flips, minus the best of them ({gain['over']}): "
        text += f"{interval_text(gain, '+.3f')}."
    sections = [report.Section("AUC by image", text, ("run", "as is", "flips averaged", "flips − as is"), rows)]
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
    text = f"Aiming at a sensitivity of {result['sensitivity']:.2f}. "
    if split != "val":
        text += "A threshold chosen on val does not know these images; val also chose each run's epoch. "
    text += f"One read on {split} comes from the very images it is printed for, the paper's way, so it is optimistic."
    rows, shares = [], ("sensitivity", "specificity")
    for kind in [key for key in result["operating"][0] if key != "name"]:
        for point in result["operating"]:
            one = point[kind]
            cells = [f"{one['threshold']:.3f}", *(interval_text(one[k]) for k in shares)] if one else "–––"
            rows.append([point["name"], kind.replace("_", " "), *cells])
    return [*sections, report.Section("Operating points", text, ("run", "threshold", "at", *shares), rows)]
