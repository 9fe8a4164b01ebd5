"""A paper's tables beside our runs: `mammojax reproduce shen2019 --runs DIR`.

Runs are matched to rows by `config.row`, see `paper_run`. A number is of the runs nearest to the paper's; what
differs is said beside it.
"""

import re
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mammojax import metrics
from mammojax.errors import NotComparable
from mammojax.evaluate import compare, paper_config, report, shen2019
from mammojax.evaluate import table as predictions
from mammojax.evaluate.console import WIDTH, with_notes
from mammojax.evaluate.paper_run import PaperRun, find_runs, nearest, starts_from

HEADER = ("row", "published", "source", "ours", "ours, flips", "best epoch", "data, seeds", "status")


def tables(runs: Sequence[PaperRun]) -> list[report.Section]:
    """A section for each table, with a row of text cells for each of the paper's; then the differences."""
    sections = []
    for table in shen2019.TABLES:
        rows = []
        for row in table.rows:
            ours = _ensemble(runs, row, table) if row.row.startswith("ensemble:") else _ours(runs, row, table)
            rows.append([row.label, _published(row), row.where or "–", *ours])
        measure = "AUC by image" if table.measure == "auc" else "accuracy, five classes"
        text = f"Test {measure}, {table.data}. {table.lacks}".strip()
        sections.append(report.Section(f"{table.version}: {table.name}", text, HEADER, rows, words=True))
    return [*sections, _differences(runs)]


def _published(row: shen2019.Row) -> str:
    """The published cells of a row as one text."""
    parts = [row.published] if row.published else []
    if row.flips:
        parts.append(f"flips {row.flips}")
    if row.epoch:
        parts.append(f"epoch {row.epoch}")
    return "; ".join(parts)


def _ours(runs: Sequence[PaperRun], row: shen2019.Row, table: shen2019.Table) -> list[str]:
    """The cells of a row: ours, flips, epoch, data and seeds, status."""
    group = nearest(runs, row.row, table.data, row.patients)
    if not group:
        return ["–", "–", "–", "–", "not run"]
    status = group[0].status(table.data)
    every = {run.status(table.data) for run in runs if run.row == row.row and run.patients == row.patients}
    others = f"; others: {', '.join(sorted(every - {status}))}" if len(every) > 1 else ""
    values = [run.metrics.get("test", {}).get(table.measure) for run in group]
    flips = [run.metrics.get("test_flips", {}).get(table.measure) for run in group]
    epochs = [epoch for run in group if (epoch := run.best_epoch()) is not None]
    return [_value(values), _value(flips), ", ".join(map(str, epochs)) or "–", _data(group), status + others]


def _data(runs: Iterable[PaperRun]) -> str:
    """Data set and seeds."""
    runs = list(runs)
    seeds = sorted({int(run.config["seed"]) for run in runs})
    return f"{runs[0].facts['name']}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _value(intervals: Iterable[dict[str, float] | None], form: str = ".3f") -> str:
    """One run: value and interval; several: their mean and range. A run of one class only has no AUC."""
    found = [interval for interval in intervals if interval and report.known(interval["value"])]
    if not found:
        return "–"
    if len(found) == 1:
        return report.interval_text(found[0], form)
    values = [interval["value"] for interval in found]
    return f"{np.mean(values):{form}}, {min(values):{form}} to {max(values):{form}} in {len(values)} runs"


def _ensemble(runs: Sequence[PaperRun], row: shen2019.Row, table: shen2019.Table) -> list[str]:
    """The mean of the scores of one run a member, as they are and with flips, measured on the same images."""
    members = row.row.removeprefix("ensemble:").split("|")
    found = [group[0] for member in members if (group := nearest(runs, member, table.data))]
    if len(found) < len(members):
        return ["–", "–", "–", "–", f"not run: {len(members) - len(found)} of {len(members)} members missing"]
    cells = []
    try:
        for split in ("test", "test_flips"):
            mean = predictions.ensemble([predictions.read_images(run.path, split) for run in found])
            cells.append(_value([compare.auc(mean)]))
    except NotComparable:
        return ["–", "–", "–", "–", "not the same test images"]
    return [*cells, "–", _data(found), _statuses(found, table.data)]


def _statuses(runs: Iterable[PaperRun], data: str) -> str:
    """What several runs that make one number are: "run" only where all are."""
    return "; ".join(sorted({run.status(data) for run in runs}))


def _differences(runs: Sequence[PaperRun]) -> report.Section:
    """Published differences beside ours, paired on the same images."""
    rows = []
    for wanted in shen2019.DIFFERENCES:
        pairs = _pairs(runs, wanted)
        if not pairs:
            cells = ["–", "–", "not run"]
        else:
            members = list(dict.fromkeys(run for pair in pairs for run in pair))
            try:
                found = [_difference(a.path, b.path, wanted.b).to_json() for a, b in pairs]
                cells = [_value(found, "+.3f"), _data(members), _statuses(members, "cbis_ddsm")]
            except NotComparable:
                cells = ["–", _data(members), "not the same test images"]
        rows.append([wanted.label, wanted.published, wanted.where, *cells])
    text = f"{shen2019.SCIREP}; AUC of the first minus AUC of the second, on the same images or breasts."
    header = ("difference", "published", "source", "ours", "data, seeds", "status")
    return report.Section("Differences", text, header, rows, words=True)


def _pairs(runs: Sequence[PaperRun], wanted: shen2019.Difference) -> list[tuple[PaperRun, PaperRun]]:
    """The runs whose difference is wanted, seed by seed; where no seed is in both, the first of each."""
    a = nearest(runs, wanted.a, "cbis_ddsm")
    if wanted.b in ("two views", "flips"):
        return [(run, run) for run in a]
    b = nearest(runs, wanted.b, "cbis_ddsm")
    of_seed = {run.config["seed"]: run for run in b}
    same = [(run, of_seed[run.config["seed"]]) for run in a if run.config["seed"] in of_seed]
    return same or list(zip(a[:1], b[:1], strict=False))


def _difference(a: Path, b: Path, kind: str) -> metrics.Interval:
    if kind == "two views":
        return compare.two_views(predictions.by_breast(predictions.read_images(a, "test")))["gain"]
    splits = ("test_flips" if kind == "flips" else "test", "test")
    first, second = predictions.aligned(
        [predictions.read_images(run, split) for run, split in zip((a, b), splits, strict=True)]
    )
    return compare.difference(first, second)


def commands(runs: Sequence[PaperRun], root: Path = Path("runs")) -> list[str]:
    """What to type to fill the rows that no run on the paper's data fills, in an order that works; `root` gets them."""
    lines: dict[str, list[str]] = {"patch": [], "whole": [], "inbreast": [], "rest": []}
    for table in shen2019.TABLES:
        for row in table.rows:
            kind, _, argument = row.row.partition(":")
            members = argument.split("|") if kind == "ensemble" else [row.row]
            if all(_finished(runs, member, table.data, row.patients) for member in members):
                continue  # an ensemble is computed here as soon as its members are run
            start = "" if kind in ("ensemble", "two_step") else _init(runs, row.row, root)
            if kind == "two_step":
                whole = _place(runs, f"whole_resnet:{shen2019.PLAIN}", root)
                patch = _place(runs, "patch_resnet:s10", root)
                lines["rest"].append(
                    f"mammojax two-step --run {whole} --patch-run {patch} --output {root / 'two_step'}"
                )
            elif kind == "inbreast":
                sweep = "label_efficiency" if row.patients else "inbreast"
                lines["inbreast"].append(_launch(f"{sweep}:{argument}", root) + start)
            elif kind != "ensemble":
                lines["patch" if kind.startswith("patch") else "whole"].append(_launch(row.row, root) + start)
    return [line for group in lines.values() for line in dict.fromkeys(group)]


def _finished(runs: Iterable[PaperRun], row: str, data: str, patients: int = 0) -> PaperRun | None:
    """A run of the row on the row's data, if there is one."""
    return next((run for run in nearest(runs, row, data, patients) if run.facts["name"] == data), None)


def _place(runs: Iterable[PaperRun], row: str, root: Path) -> str:
    """The folder of a row's run: the one there is, or the one that the commands make."""
    run = _finished(runs, row, "cbis_ddsm")
    return shlex.quote(str(run.path if run else root / re.sub(r"[^\w+-]", "_", row)))


def _launch(row: str, root: Path) -> str:
    kind, _, argument = row.partition(":")
    return f"python launch.py --config configs/{kind}.py:{argument} --workdir {_place((), row, root)}"


def _init(runs: Iterable[PaperRun], row: str, root: Path) -> str:
    """The flag that names what a row starts from."""
    kind, _, argument = row.partition(":")
    if kind.startswith("patch"):
        net = "resnet50" if kind == "patch_resnet" else "vgg16"
        file = f"{net}_weights_tf_dim_ordering_tf_kernels_notop.h5"  # as Keras publishes it, see docs/reproduce.md
        return "" if argument.endswith("-random") else f" --config.model.pretrained={file}"
    return f" --config.init_from={_place(runs, starts_from(row), root)}"


def _with_footnotes(section: report.Section) -> str:
    """A section's table in plain text, its sources as letters behind the published values, explained below it."""
    at = section.header.index("source")
    sources = list(dict.fromkeys(row[at] for row in section.rows if row[at] != "–"))
    rows = []
    for row in section.rows:
        mark = f" ({chr(ord('a') + sources.index(row[at]))})" if row[at] in sources else ""
        rows.append([*row[: at - 1], row[at - 1] + mark, *row[at + 1 :]])
    table = with_notes([*section.header[:at], *section.header[at + 1 :]], rows)
    notes = "; ".join(f"({chr(ord('a') + k)}) {source}" for k, source in enumerate(sources))
    return f"{table}\n\nPublished: {textwrap.fill(notes, WIDTH - 11)}" if notes else table


def write(folder: Path, output: Path | None) -> None:
    """Print the tables and the commands for the rows not run; as a page too where `output` names a .html file.

    Raises:
        BadCheckpoint: as `find_runs`.
    """
    runs = find_runs(folder)
    if not paper_config.at_hand():
        print(paper_config.MISSING)
    sections = tables(runs)
    for section in sections:
        print(f"\n## {section.heading}\n{section.text}\n\n{_with_footnotes(section)}")
    print("\n## Notes\n")
    for note in shen2019.NOTES:
        print(textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  "))
    todo = commands(runs, folder)
    if todo:
        print("\n## To fill the rows that are not run on the paper's data\n")
        print("\n".join(todo), flush=True)
    if output:
        if todo:
            text = (
                "Patch classifiers first, as the others start from them; docs/reproduce.md says where the .h5 are from."
            )
            sections.append(report.Section("To fill the rows not run on the paper's data", text, commands=todo))
        title = "Shen et al. 2019: published values and ours"
        report.write_page(output, title, shen2019.NOTES, sections)
        print(f"\n→ {output}", flush=True)
