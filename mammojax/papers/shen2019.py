"""The tables of Shen et al. 2019, as far as our copies have them, beside our runs.

Our copy of the Scientific Reports article has its tables' captions but not their cells, so this module holds only
the numbers in that version's text; arXiv v1's Tables 1–3 are complete (one of our two copies lacks the last rows'
epochs).
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mammojax import metrics
from mammojax.errors import NotComparable
from mammojax.evaluate import compare, report, table
from mammojax.papers.runs import PLAIN, PaperRun, Setting, settings_of, starts_from, status
from mammojax.papers.tables import MISSING, Row, ToDo, members, rows_of

TITLE = "Shen et al. 2019: published values and ours"
SCIREP, ARXIV = "Scientific Reports 2019", "arXiv v1"
NO_FLIPS = (
    f"{SCIREP}: Table 2: whole images, Resnet50 patch classifiers",
    f"{SCIREP}: Table 3: whole images, VGG16 patch classifiers",
)
"""Tables whose A-AUC column (averaged flips) is missing in all our copies."""
HEADER = ("row", "published", "source", "ours", "ours, flips", "best epoch", "data, seeds", "status", "command")
NOTES = (
    "Published figures of CBIS-DDSM are of the authors' own random split of the official training images, whose lists"
    " are not public; on the official test split others measured 0.69 to 0.75 for the released models.",
    "CBIS-DDSM is malignant against benign lesions; INbreast labels are BI-RADS (1, 2 against 4, 5, 6): AUCs of the two"
    " are not of one task.",
    "Ours differ from the published code, following the paper, in: frozen BatchNorms keep their statistics, weight"
    " decay acts on all kernels that learn, background patches keep clear of all lesions of an image, no shear.",
    "Intervals of ours are drawn by patient. The paper drew breasts for two views, and does not say what it drew"
    " elsewhere.",
    "arXiv v1 measured INbreast on the images that it calls its validation set, and does not say whether its hybrid was"
    " transferred before or after the 200 further epochs; ours is measured on a test set, and transferred after them.",
    "Operating points: the paper reads 86.1 % sensitivity at 80.1 % specificity (CBIS-DDSM, ensemble) and 86.7 % at"
    " 96.1 % (INbreast, ensemble) on the test set itself; `mammojax compare` prints ours both chosen on validation and"
    " read on test.",
)


def sections(
    runs: Sequence[PaperRun], readers: Path | None = None, root: Path = Path("runs")
) -> list[report.Section]:  # fmt: skip
    """A section for each table, with a row of text cells for each row of the paper; `root` gets the runs of the
    commands, `readers` are for another paper's tables."""
    result = []
    for heading, rows in rows_of("shen2019").items():
        if heading == "Differences":
            result.append(_differences(runs, rows))
            continue
        cells = [
            [
                row.label,
                _published(row),
                row.where or "–",
                *(_ensemble if _is_ensemble(row) else _ours)(runs, row),
                _command_of(runs, row, root),
            ]
            for row in rows
        ]
        measure = "AUC by image" if rows[0].measure == "auc" else "accuracy, five classes"
        text = f"Test {measure}, {rows[0].data}."
        if heading in NO_FLIPS:
            text += f" Its column of A-AUC, flips averaged, is {MISSING}."
        result.append(report.Section(heading, text, HEADER, cells, words=True))
    return result


def _is_ensemble(row: Row) -> bool:
    return row.row.startswith("ensemble:")


def _settings(runs: Iterable[PaperRun], row: str, data: str, patients: int = 0) -> list[Setting]:
    """The settings of a row's runs, the nearest to the paper first: on the row's data set, with the shortest status."""
    settings = settings_of([run for run in runs if run.patients == patients], row, lambda run: run.deviations(data))

    def order(setting: Setting) -> tuple[bool, bool, int, str]:
        text = setting.status
        return text.startswith("run on "), text != "run", len(text), text

    return sorted(settings, key=order)


def nearest(runs: Iterable[PaperRun], row: str, data: str, patients: int = 0) -> list[PaperRun]:
    """The runs of a row that are nearest to the paper's, all with one status; they never mix data sets or sizes."""
    settings = _settings(runs, row, data, patients)
    return settings[0].runs if settings else []


def _published(row: Row) -> str:
    """The published cells of a row as one text."""
    parts = [row.published] if row.published else []
    if row.second:
        parts.append(f"flips {row.second}")
    if row.epoch:
        parts.append(f"epoch {row.epoch}")
    return "; ".join(parts)


def _ours(runs: Sequence[PaperRun], row: Row) -> list[str]:
    """Our cells of a row: value, with flips, epoch, data and seeds, status."""
    settings = _settings(runs, row.row, row.data, int(row.patients or 0))
    if not settings:
        return ["–", "–", "–", "–", "not run"]
    group = settings[0].runs
    others = f"; others: {', '.join(sorted(other.status for other in settings[1:]))}" if settings[1:] else ""
    values = [run.metrics.get("test", {}).get(row.measure) for run in group]
    flips = [run.metrics.get("test_flips", {}).get(row.measure) for run in group]
    epochs = [epoch for run in group if (epoch := run.best_epoch()) is not None]
    return [
        _value(values),
        _value(flips),
        ", ".join(map(str, epochs)) or "–",
        _data(group),
        settings[0].status + others,
    ]


def _data(runs: Iterable[PaperRun]) -> str:
    """Data set and seeds."""
    runs = list(runs)
    seeds = sorted({int(run.config["seed"]) for run in runs})
    return f"{runs[0].facts['name']}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _value(intervals: Iterable[dict[str, float] | None], form: str = ".3f") -> str:
    """For one run its value and interval, for several their mean and range. A run on one class only has no AUC."""
    estimates = [interval for interval in intervals if interval and report.is_number(interval["value"])]
    if not estimates:
        return "–"
    if len(estimates) == 1:
        return report.interval_text(estimates[0], form)
    values = [interval["value"] for interval in estimates]
    return f"{np.mean(values):{form}}, {min(values):{form}} to {max(values):{form}} in {len(values)} runs"


def _ensemble(runs: Sequence[PaperRun], row: Row) -> list[str]:
    """Our cells of an ensemble: the mean scores of one run per member, without and with flips, on the same images."""
    names = members(row.row)
    members_runs = [group[0] for name in names if (group := nearest(runs, name, row.data))]
    if len(members_runs) < len(names):
        return ["–", "–", "–", "–", f"not run: {len(names) - len(members_runs)} of {len(names)} members missing"]
    cells = []
    try:
        for split in ("test", "test_flips"):
            mean = table.ensemble([table.read_images(run.path, split) for run in members_runs])
            cells.append(_value([compare.auc(mean)]))
    except NotComparable:
        return ["–", "–", "–", "–", "not the same test images"]
    return [*cells, "–", _data(members_runs), _statuses(members_runs, row.data)]


def _statuses(runs: Iterable[PaperRun], data: str) -> str:
    """The status of a number from several runs: "run" only if all have it."""
    return "; ".join(sorted({status(run.deviations(data)) for run in runs}))


def _differences(runs: Sequence[PaperRun], differences: Sequence[Row]) -> report.Section:
    """Published differences beside ours, paired on the same images."""
    rows = []
    for row in differences:
        pairs = _pairs(runs, row)
        if not pairs:
            cells = ["–", "–", "not run"]
        else:
            every = list(dict.fromkeys(run for pair in pairs for run in pair))
            try:
                gaps = [_difference(a.path, b.path, row.minus).to_json() for a, b in pairs]
                cells = [_value(gaps, "+.3f"), _data(every), _statuses(every, row.data)]
            except NotComparable:
                cells = ["–", _data(every), "not the same test images"]
        rows.append([row.label, row.published, row.where, *cells])
    text = f"{SCIREP}; AUC of the first minus AUC of the second, on the same images or breasts."
    header = ("difference", "published", "source", "ours", "data, seeds", "status")
    return report.Section("Differences", text, header, rows, words=True)


def _pairs(runs: Sequence[PaperRun], row: Row) -> list[tuple[PaperRun, PaperRun]]:
    """The pairs of runs of a difference, seed by seed; if the two share no seed, the first run of each."""
    a = nearest(runs, row.row, row.data)
    if row.minus in ("two views", "flips"):
        return [(run, run) for run in a]
    b = nearest(runs, row.minus, row.data)
    of_seed = {run.config["seed"]: run for run in b}
    same = [(run, of_seed[run.config["seed"]]) for run in a if run.config["seed"] in of_seed]
    return same or list(zip(a[:1], b[:1], strict=False))


def _difference(a: Path, b: Path, kind: str) -> metrics.Interval:
    if kind == "two views":
        return compare.two_views(table.by_breast(table.read_images(a, "test")))["gain"]
    splits = ("test_flips" if kind == "flips" else "test", "test")
    first, second = table.aligned([table.read_images(run, split) for run, split in zip((a, b), splits, strict=True)])
    return compare.difference(first, second)


def to_do(runs: Sequence[PaperRun], root: Path) -> ToDo:
    """The commands for the rows that are not run on the paper's data."""
    lines = commands(runs, root)
    if not lines:
        return []
    text = "Patch classifiers first, as the others start from them; docs/reproduce.md says where the .h5 are from."
    section = report.Section("To fill the rows not run on the paper's data", text, commands=lines)
    return [("\n## To fill the rows that are not run on the paper's data\n\n" + "\n".join(lines), section)]


def _command_of(runs: Sequence[PaperRun], row: Row, root: Path) -> str:
    """The command that fills a row, for the cell beside it; a dash where a run on the paper's data does."""
    if all(_finished(runs, member, row.data, int(row.patients or 0)) for member in members(row.row)):
        return "–"
    return "computed from the rows of its members" if _is_ensemble(row) else _command(runs, row, root)


def _command(runs: Sequence[PaperRun], row: Row, root: Path) -> str:
    kind, _, argument = row.row.partition(":")
    if kind == "two_step":
        whole = _place(runs, f"whole_resnet:{PLAIN}", root)
        patch = _place(runs, "patch_resnet:s10", root)
        return f"mammojax two-step --run {whole} --patch-run {patch} --output {root / 'two_step'}"
    config = row.row
    if kind == "inbreast":
        config = f"{'label_efficiency' if row.patients else 'inbreast'}:{argument}"
    return _launch(config, root) + _init(runs, row.row, root)


def commands(runs: Sequence[PaperRun], root: Path = Path("runs")) -> list[str]:
    """The commands for the rows that no run on the paper's data fills, in an order that works; `root` gets the runs."""
    lines: dict[str, list[str]] = {"patch": [], "whole": [], "inbreast": [], "rest": []}
    for row in (row for rows in rows_of("shen2019").values() for row in rows if not row.minus):
        kind, _, _ = row.row.partition(":")
        if all(_finished(runs, member, row.data, int(row.patients or 0)) for member in members(row.row)):
            continue  # ensembles are computed here once their members are run
        group = {"two_step": "rest", "inbreast": "inbreast"}.get(kind, "patch" if kind.startswith("patch") else "whole")
        if kind != "ensemble":
            lines[group].append(_command(runs, row, root))
    return [line for group in lines.values() for line in dict.fromkeys(group)]


def _finished(runs: Iterable[PaperRun], row: str, data: str, patients: int = 0) -> PaperRun | None:
    """A run of the row on the row's data, or None."""
    return next((run for run in nearest(runs, row, data, patients) if run.facts["name"] == data), None)


def _place(runs: Iterable[PaperRun], row: str, root: Path) -> str:
    """The folder of a row's run: an existing one, or the one that the commands make."""
    run = _finished(runs, row, "cbis_ddsm")
    return shlex.quote(str(run.path if run else root / re.sub(r"[^\w+-]", "_", row)))


def _launch(row: str, root: Path) -> str:
    kind, _, argument = row.partition(":")
    return f"python launch.py --config configs/{kind}.py:{argument} --workdir {_place((), row, root)}"


def _init(runs: Iterable[PaperRun], row: str, root: Path) -> str:
    """The flag that names a row's start."""
    kind, _, argument = row.partition(":")
    if kind.startswith("patch"):
        net = "resnet50" if kind == "patch_resnet" else "vgg16"
        file = f"{net}_weights_tf_dim_ordering_tf_kernels_notop.h5"  # as Keras publishes it, see docs/reproduce.md
        return "" if argument.endswith("-random") else f" --config.model.pretrained={file}"
    return f" --config.init_from={_place(runs, starts_from(row), root)}"
