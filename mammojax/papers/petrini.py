"""The tables of the two-view papers (Petrini et al. 2022, Petrini & Kim 2025) beside our runs.

Of both papers we have the abstracts alone, so the tables hold the numbers that stand there. A row names its config, the
experiment single_view or two_view, by `row`; the runs that fill it are those of that config, on the row's split.
VinDr-Mammo comes as a manifest (`mammojax manifest vindr`), five folds as five manifests (`--folds 5`).
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mammojax import metrics
from mammojax.errors import NotComparable
from mammojax.evaluate import compare, report, table
from mammojax.evaluate.measure import both_classes
from mammojax.evaluate.table import Predictions
from mammojax.papers import settings
from mammojax.papers.runs import PaperRun, Setting, status
from mammojax.papers.tables import Row, rows_of

HEADER = ("row", "published", "source", "ours", "data, seeds", "status", "command")
FOLD = re.compile(r"_fold_(\d+)\.csv$")
FOLDS = 5
NETWORKS = {"efficientnet_b0": "2022", "efficientnet_b3": "2025", "convnext_base": "vindr"}
"""The argument of a config by its trunk."""
BREAST = ["patient_id", "exam_id", "laterality"]


def sections(
    paper: str, runs: Sequence[PaperRun], readers: Path | None = None, root: Path = Path("runs")
) -> list[report.Section]:  # fmt: skip
    """A section for each data set of a paper.

    Args:
        paper: "petrini2022" or "petrini2025".
        runs: finished runs.
        readers: for another paper's tables.
        root: the folder of runs, for the commands.
    """
    result = []
    for heading, rows in rows_of(paper).items():
        cells = [
            [row.label, row.published, row.where or "–", *_ours(runs, row), _command_of(paper, row, root)]
            for row in rows
        ]
        text = "Test AUC, of one view by image, of two views by breast. The command makes the run of the row."
        result.append(report.Section(heading, text, HEADER, cells, words=True))
    return result


def _ours(runs: Sequence[PaperRun], row: Row) -> list[str]:
    """Our cells of a row: value, data and seeds, status."""
    settings_of_row = _settings(runs, row, row.row)
    if not settings_of_row:
        return ["–", "–", "not run"]
    nearest = settings_of_row[0]
    try:
        if row.minus:
            before = _settings(runs, row, row.minus)
            if not before:
                return ["–", _data(nearest.runs), f"no run of {row.minus}"]
            value = _gain(nearest.runs, before[0].runs)
        elif row.measure == "equal_error":
            value = f"{np.mean([equal_error(_breasts(run)) for run in nearest.runs]):.3f}"
        else:
            value = _auc(nearest.runs)
    except NotComparable as error:
        return ["–", _data(nearest.runs), str(error)]
    others = ", ".join(sorted(other.status for other in settings_of_row[1:]))
    return [value, _data(nearest.runs), nearest.status + (f"; others: {others}" if others else "")]


def _settings(runs: Sequence[PaperRun], row: Row, kind: str) -> list[Setting]:
    """The runs of a row's config on its split, grouped by their deviations, the nearest to the paper first; five folds
    count as one setting, and only if all are there."""
    groups: dict[tuple[str, ...], list[PaperRun]] = {}
    for run in runs:
        if run.row.partition(":")[0] == kind and _is_of_split(run, row):
            groups.setdefault(tuple(deviations(run, row)), []).append(run)
    if row.split == "folds":
        groups = {key: group for key, group in groups.items() if {_fold(run) for run in group} >= set(range(FOLDS))}
    return sorted(
        (Setting(*group) for group in groups.items()),
        key=lambda s: (s.status.startswith("run on "), s.status != "run", len(s.status), s.status),
    )


def _is_of_split(run: PaperRun, row: Row) -> bool:
    """Whether a run was measured on a row's split; a manifest's column of VinDr-Mammo is its official one."""
    if row.split == "folds":
        return _fold(run) >= 0
    if row.data == "vindr":
        return bool(run.facts["name"] == "manifest") and _fold(run) < 0
    return bool(run.facts.get("split") == row.split)


def _fold(run: PaperRun) -> int:
    """The fold of a run, by its manifest's name; -1 for others."""
    match = FOLD.search(str(run.config["data"].get("source", "")))
    return int(match[1]) if match else -1


def deviations(run: PaperRun, row: Row) -> list[str]:
    """A run's deviations from a row: its data set first, then its trunk and the fields of its config.

    What a manifest holds is not known, so it counts as another data set for CBIS-DDSM, but for VinDr-Mammo and for
    folds, which only come as manifests.
    """
    data, framing = run.facts["name"], run.facts.get("framing") or {}
    size, trunk = tuple(framing.get("size", ())), run.config["model"].get("trunk", "")
    by_manifest = data == "manifest" and (row.data == "vindr" or row.split == "folds")
    tests = [
        (data != row.data and not by_manifest, f"on {data}"),
        (trunk != row.trunk, f"trunk {trunk}"),
        (size != (1152, 896), "x".join(map(str, size))),
        (framing.get("crop", "none") != "none", "cropped"),
    ]
    own = [text for text in settings.differences(run.config, run.row) if not text.startswith("trunk ")]
    return [text for differs, text in tests if differs] + own


def _data(runs: Sequence[PaperRun]) -> str:
    seeds = sorted({int(run.config["seed"]) for run in runs})
    return f"{runs[0].facts['name']}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _auc(runs: Sequence[PaperRun]) -> str:
    """For one run its value and interval, for several their mean; the interval is over the patients of each."""
    if len(runs) == 1:
        return report.interval_text(runs[0].metrics.get("test", {}).get("auc"))
    return report.interval_text(compare.over_repeats([(_scored(run), None) for run in runs])._asdict())


def _gain(after: Sequence[PaperRun], before: Sequence[PaperRun]) -> str:
    """AUC by breast of two views minus that of one view's mean over the breast, for each seed that both have."""
    first = {run.config["seed"]: run for run in before}
    pairs = [(run, first[run.config["seed"]]) for run in after if run.config["seed"] in first]
    pairs = pairs or list(zip(after[:1], before[:1], strict=False))
    repeats = []
    for two, one in pairs:
        a, b = _breasts(two), _breasts(one)
        merged = a.frame.merge(b.frame, on=BREAST, suffixes=("", "_of_one"), validate="one_to_one")
        if len(merged) < max(len(a), len(b)) or (merged["malignant"] != merged["malignant_of_one"]).any():
            raise NotComparable("not measured on the same breasts")
        other = merged.assign(p_malignant=merged["p_malignant_of_one"])
        repeats.append((Predictions("two views", merged), Predictions("one view", other)))
    return report.interval_text(compare.over_repeats(repeats)._asdict(), "+.3f")


def _scored(run: PaperRun) -> Predictions:
    """The labelled test rows of a run: images or breasts, with `malignant` and `p_malignant` as numbers.

    Raises:
        NotComparable: there are none.
    """
    path = run.path / "predictions" / "test.csv"
    frame = table.read_csv(path) if path.is_file() else pd.DataFrame()
    label = "malignant" if "malignant" in frame else "label"
    if label not in frame or "p_malignant" not in frame:
        raise NotComparable("a run has no labelled predictions/test.csv")
    frame = frame[frame[label] != ""].reset_index(drop=True)
    numbers = {"malignant": frame[label].map(int), "p_malignant": frame["p_malignant"].map(float)}
    scored = Predictions(run.path.name, frame.assign(**numbers))
    if not both_classes(scored.label()):
        raise NotComparable("its test rows are of one class")
    return scored


def _breasts(run: PaperRun) -> Predictions:
    """The breasts of a run's test rows; of images those with both views, whose mean is the score."""
    scored = _scored(run)
    if not scored.of_images:
        return scored
    pairs = table.by_breast(scored)
    return Predictions(scored.name, pairs.assign(p_malignant=pairs["both"]))


def equal_error(scored: Predictions) -> float:
    """The accuracy where sensitivity and specificity are equal, between the two nearest thresholds; 0 … 1."""
    fpr, tpr, _ = metrics.roc_curve(scored.label(), scored.score())
    return float(np.interp(0.0, fpr + tpr - 1, tpr))


def _command_of(paper: str, row: Row, root: Path) -> str:
    return "computed from the two rows above" if row.minus else command(paper, row, root)


def command(paper: str, row: Row, root: Path) -> str:
    """The command line of a row's run. A two-view run starts from the single-view run of its paper and data set."""
    data = {
        "folds": "--config.data.name=manifest --config.data.split=all "
        "--config.data.source=cbis_ddsm_folds/split_0_fold_0.csv",
        "vindr": "--config.data.source=vindr.csv",
    }.get(row.split if row.split == "folds" else row.data, f"--config.data.split={row.split}")
    words = [f"python launch.py --config configs/{row.row}.py:{NETWORKS[row.trunk]} {data}"]
    if row.row == "two_view":
        words.append(f"--config.init_from={_folder(paper, 'single_view', row, root)}")
    return " ".join([*words, f"--workdir {_folder(paper, row.row, row, root)}"])


def _folder(paper: str, kind: str, row: Row, root: Path) -> str:
    return shlex.quote(str(root / f"{paper}_{kind}_{row.data}" / ("fold_0" if row.split == "folds" else row.split)))


def missing(paper: str, runs: Sequence[PaperRun], root: Path) -> list[str]:
    """The commands of the rows that no run fills on the paper's data, one view before two."""
    lines: dict[str, list[str]] = {"single_view": [], "two_view": []}
    for row in (row for rows in rows_of(paper).values() for row in rows if not row.minus):
        if not any(s.status.partition(" (")[0] == status([]) for s in _settings(runs, row, row.row)):
            lines[row.row].append(command(paper, row, root))
    return [line for group in lines.values() for line in dict.fromkeys(group)]


def to_do(paper: str, runs: Sequence[PaperRun], root: Path) -> list[tuple[str, report.Section]]:
    """The commands for the rows that are not run on the paper's data, single views first."""
    lines = missing(paper, runs, root)
    if not lines:
        return []
    text = (
        "vindr.csv: mammojax manifest vindr --source DIR --birads-3 malignant --output vindr.csv. cbis_ddsm_folds: "
        f"mammojax manifest cbis_ddsm --source DIR --folds {FOLDS} --output cbis_ddsm.csv, then one run for each fold."
    )
    section = report.Section("To fill the rows not run on the paper's data", text, commands=lines)
    return [("\n## To fill the rows that are not run on the paper's data\n\n" + "\n".join([*lines, text]), section)]
