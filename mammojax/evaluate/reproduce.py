"""A paper's tables beside our runs: `mammojax reproduce shen2019 --runs DIR`.

Runs are matched to rows by `config.row`, which the files of configs/ set. A run on other data, at another size or with
other epochs than the paper's is shown, and said to be that; controls with shuffled labels are left out.
"""

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mammojax import metrics
from mammojax.evaluate import compare, report, shen2019
from mammojax.evaluate.compare import NotComparable
from mammojax.train.checkpoint import BadCheckpoint

HEADER = ("row", "published", "source", "ours", "ours, flips", "best epoch", "data, seeds", "status")


@dataclass(frozen=True)
class Run:
    """A finished run as the tables need it."""

    path: Path
    row: str
    config: dict[str, Any]
    facts: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def patients(self) -> int:
        """Labelled patients it was trained on; 0: all."""
        return int(self.config["data"].get("patients", 0))

    def best_epoch(self) -> int | None:
        """Epoch of the best checkpoint, counted through all stages; None where nothing was trained by gradient."""
        log = self.path / "metrics.jsonl"
        if not log.is_file():
            return None
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        best = [k for k, row in enumerate((r for r in rows if r["kind"] == "val"), start=1) if row["best"]]
        return best[-1] if best else None

    def status(self, data: str) -> str:
        """ "run" where data set, split, size, width and start are the paper's, else what differs."""
        ours, framing, model = self.facts["name"], self.facts["framing"], self.config["model"]
        size, wrong = tuple(framing["size"]), []
        if size != (1152, 896):
            wrong.append(f"{size[0]}x{size[1]}")
        if self.facts["split"] != "shen":
            wrong.append(f"split {self.facts['split']}")
        if model["width"] != 64:
            wrong.append(f"width {model['width']}")
        epochs = sum(stage["epochs"] for stage in self.config["stages"].values())
        if self.row != "two_step" and epochs != _epochs(self.row):
            wrong.append(f"{epochs} epochs")
        if not self.row.endswith("-random") and not self._pretrained():
            wrong.append("not from ImageNet weights")
        where = f"run on {ours}" if ours != data else "run"
        return where + (f" ({', '.join(wrong)})" if wrong else "")

    def _pretrained(self) -> bool:
        """Whether ImageNet weights were the start, of this run or, back through init_from, of what it started from."""
        config, folder = self.config, self.path
        while not config["model"]["pretrained"]:
            folder = folder / "patch" if (folder / "patch" / "config.json").is_file() else Path(config["init_from"])
            if not (folder / "config.json").is_file() or folder == Path():
                return False
            config = json.loads((folder / "config.json").read_text())["config"]
        return True


def _epochs(row: str) -> int:
    """The paper's epochs for a row, all stages together."""
    kind, _, argument = row.partition(":")
    if kind.startswith("patch"):
        return 50 if argument.startswith("s10") else 200
    if kind == "inbreast":
        return 200
    return 50 + int(argument.partition("+")[2] or 0)


def find_runs(folder: Path) -> list[Run]:
    """The finished runs below a folder, patch runs inside whole-image runs included, in the order of their paths.

    Raises:
        BadCheckpoint: the folder does not exist.
    """
    if not folder.is_dir():
        raise BadCheckpoint(f'--runs: there is no folder "{folder}"; name the one that holds the run folders.')
    found = []
    for path in sorted(folder.rglob("metrics.json")):
        if (path.parent / "config.json").is_file():
            saved = json.loads((path.parent / "config.json").read_text())
            row = saved["config"].get("row", "").removesuffix("/s10")
            if saved["config"]["data"].get("shuffle_labels"):
                continue
            found.append(Run(path.parent, row, saved["config"], saved["facts"], json.loads(path.read_text())))
    return found


def _of_row(runs: Iterable[Run], row: shen2019.Row) -> list[Run]:
    return [run for run in runs if run.row == row.row and run.patients == row.patients]


def tables(runs: Sequence[Run]) -> list[report.Section]:
    """A section for each table, with a row of text cells for each of the paper's; then the differences."""
    sections = []
    for table in shen2019.TABLES:
        rows = []
        for row in table.rows:
            published = _published(row)
            ours = _ensemble(runs, row) if row.row.startswith("ensemble:") else _ours(_of_row(runs, row), table)
            rows.append([row.label, published, row.where or "–", *ours])
        text = f"{table.version}; test {'AUC by image' if table.measure == 'auc' else 'accuracy, five classes'}."
        sections.append(report.Section(f"{table.version}: {table.name}", text, HEADER, rows, words=True))
    return [*sections, _differences(runs)]


def _published(row: shen2019.Row) -> str:
    parts = [row.published]
    if row.flips not in (shen2019.MISSING, "NA"):
        parts = [f"flips {row.flips}"] if row.published == shen2019.MISSING else [*parts, f"flips {row.flips}"]
    if row.epoch != shen2019.MISSING:
        parts.append(f"epoch {row.epoch}")
    return "; ".join(parts)


def _ours(runs: list[Run], table: shen2019.Table) -> list[str]:
    """The cells of a row: ours, flips, epoch, data and seeds, status."""
    if not runs:
        return ["–", "–", "–", "–", "not run"]
    status = [run.status(table.data) for run in runs]
    if len(set(status)) > 1:  # never averaged over data sets or sizes: the runs nearest to the paper's speak
        first = min(status, key=lambda s: (s != "run", s))
        runs = [run for run, s in zip(runs, status, strict=True) if s == first]
        status = [f"{first}; others: {', '.join(sorted(set(status) - {first}))}"]
    values = [run.metrics["test"][table.measure] for run in runs]
    flips = [run.metrics["test_flips"]["auc"] for run in runs if "test_flips" in run.metrics]
    epochs = [epoch for run in runs if (epoch := run.best_epoch()) is not None]
    seeds = sorted({int(run.config["seed"]) for run in runs})
    seed = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return [
        _value(values), _value(flips), ", ".join(map(str, epochs)) or "–", f"{runs[0].facts['name']}, {seed}", status[0]
    ]  # fmt: skip


def _value(intervals: list[dict[str, float]]) -> str:
    """One run: value and interval; several: their mean and range."""
    if not intervals:
        return "–"
    if len(intervals) == 1:
        return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**intervals[0])
    values = [interval["value"] for interval in intervals]
    return f"{np.mean(values):.3f}, {min(values):.3f} to {max(values):.3f} in {len(values)} runs"


def _ensemble(runs: Sequence[Run], row: shen2019.Row) -> list[str]:
    """The mean of the scores with flips of one run a member, of members measured on the same images."""
    members = row.row.removeprefix("ensemble:").split("|")
    found = [[run for run in runs if run.row == member and not run.patients] for member in members]
    if not all(found):
        return ["–", "–", "–", "–", f"not run: {sum(not f for f in found)} of {len(members)} members missing"]
    try:
        together = compare.ensemble([compare.read(group[0].path, "test_flips") for group in found])
    except NotComparable:
        return ["–", "–", "–", "–", "members were not measured on the same images"]
    auc = metrics.bootstrap(metrics.roc_auc, together.label, together.score, together.patient)
    first = found[0][0]
    return ["–", _value([auc._asdict()]), "–", first.facts["name"], first.status(_data_of(row))]


def _data_of(row: shen2019.Row) -> str:
    return next(table.data for table in shen2019.TABLES if row in table.rows)


def _differences(runs: Sequence[Run]) -> report.Section:
    """Published differences beside ours, paired on the same images."""
    rows = []
    for wanted in shen2019.DIFFERENCES:
        a = [run for run in runs if run.row == wanted.a and not run.patients]
        b = a if wanted.b in ("two views", "flips") else [r for r in runs if r.row == wanted.b and not r.patients]
        if not a or not b:
            cells = ["–", "not run"]
        else:
            try:
                cells = [_cell(_difference(a[0].path, b[0].path, wanted.b)), a[0].status("cbis_ddsm")]
            except NotComparable:
                cells = ["–", "the two runs were not measured on the same images"]
        rows.append([wanted.label, wanted.published, wanted.where, *cells])
    text = "Scientific Reports 2019; AUC of the first minus AUC of the second, on the same images or breasts."
    return report.Section(
        "Differences", text, ("difference", "published", "source", "ours", "status"), rows, words=True
    )


def _difference(a: Path, b: Path, kind: str) -> metrics.Interval:
    if kind == "two views":
        return compare.two_views(compare.breasts(compare.read(a, "test")))["gain"]
    first, second = compare.aligned(
        [compare.read(a, "test_flips" if kind == "flips" else "test"), compare.read(b, "test")]
    )
    return metrics.paired_bootstrap(metrics.roc_auc, first.label, first.score, second.score, first.patient)


def _cell(interval: metrics.Interval) -> str:
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval) if np.isfinite(interval.value) else "–"


def commands(runs: Sequence[Run]) -> list[str]:
    """What to type to fill the rows that no run on the paper's data fills, in an order that works."""
    lines: dict[str, list[str]] = {"patch": [], "whole": [], "inbreast": [], "rest": []}
    for table in shen2019.TABLES:
        for row in table.rows:
            if any(run.status(table.data).startswith("run (") or run.status(table.data) == "run"
                   for run in _of_row(runs, row)):  # fmt: skip
                continue
            kind, _, argument = row.row.partition(":")
            if kind == "ensemble":
                members = " ".join(_folder(member) for member in argument.split("|"))
                lines["rest"].append(f"mammojax compare {members} --output runs/compared_{len(lines['rest'])}")
            elif kind == "two_step":
                start = f"--run {_folder('whole_resnet:' + shen2019.PLAIN)} --patch-run {_folder('patch_resnet:s10')}"
                lines["rest"].append(f"mammojax two-step {start} --output runs/two_step")
            elif kind == "inbreast":
                sweep = "label_efficiency" if row.patients else "inbreast"
                lines["inbreast"].append(_launch(f"{sweep}:{argument}", _init(row.row)))
            else:
                lines["patch" if kind.startswith("patch") else "whole"].append(_launch(row.row, _init(row.row)))
    return [line for group in lines.values() for line in dict.fromkeys(group)]


def _folder(row: str) -> str:
    return "runs/" + "".join(c if c.isalnum() or c in "_+-" else "_" for c in row)


def _launch(row: str, start: str) -> str:
    kind, _, argument = row.partition(":")
    return f"python launch.py --config configs/{kind}.py:{argument} --workdir {_folder(row)}{start}"


def _init(row: str) -> str:
    """The flag that names what a row starts from."""
    kind, _, argument = row.partition(":")
    if kind.startswith("patch"):
        net = "resnet50" if kind == "patch_resnet" else "vgg16"
        file = f"{net}_weights_tf_dim_ordering_tf_kernels_notop.h5"  # as Keras publishes it, see docs/reproduce.md
        return "" if argument.endswith("-random") else f" --config.model.pretrained={file}"
    if kind == "inbreast":
        whole = dict(zip(shen2019.INBREAST, shen2019.FOUR_BEST, strict=True)).get(row, argument)
        return f" --config.init_from={_folder(whole)}"
    patch_set = argument.rpartition("/")[2] if "/" in argument else "s10"
    return f" --config.init_from={_folder(kind.replace('whole', 'patch') + ':' + patch_set)}"


def write(folder: Path, output: Path | None) -> None:
    """Print the tables and the commands for the rows not run; as a page too where `output` names a .html file."""
    runs = find_runs(folder)
    sections = tables(runs)
    for section in sections:
        print(f"\n## {section.heading}\n")
        shown = [section.header, *section.rows]
        # "source" is left to the page: a terminal is narrow.
        keep = [k for k, name in enumerate(section.header) if name != "source"]
        widths = {k: max(len(row[k]) for row in shown) for k in keep}
        for row in shown:
            print("  ".join(row[k].ljust(widths[k]) for k in keep).rstrip())
    print("\n## Notes\n")
    for note in shen2019.NOTES:
        print(textwrap.fill(note, 100, initial_indent="- ", subsequent_indent="  "))
    todo = commands(runs)
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
