"""`mammojax populations`: metrics of exam runs and their ensemble on populations and parts of a test set."""

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mammojax import arguments
from mammojax.evaluate import reader_file, report, table
from mammojax.evaluate.measure import METRICS, RUNS, measure_breasts
from mammojax.evaluate.report import interval_text
from mammojax.evaluate.table import POPULATIONS, Predictions
from mammojax.evaluate.text_table import WIDTH, text_table
from mammojax.vocabulary import FINDINGS

CASE_MIX = (
    "AUCs of different case mixes are not to be compared: the same network is lower on biopsied breasts, as the easy"
    " negatives are gone (Wu et al. 2019, footnote 6); PR AUC moves with the share of positives."
)


def subgroups(breasts: Predictions, column: str, runs: int = RUNS, seed: int = 0) -> dict[str, dict[str, Any]]:
    """`measure_breasts` for each value of a column of the predictions (density, vendor, …); errors as in
    `table.parts`."""
    return {value: measure_breasts(part, runs, seed) for value, part in table.parts(breasts, column).items()}


def write(
    runs: Sequence[Path], split: str = "test_random10", by: Sequence[str] = (), output: Path | None = None,
    readers: Path | None = None,
) -> None:  # fmt: skip
    """Print the metrics of each run, of their ensemble, and of parts of the breasts by columns.

    Args:
        runs: exam runs, measured on the same breasts.
        split: see `table.read_breasts`.
        by: columns of the predictions; their parts are measured for the ensemble, or for the only run.
        output: a .json file for the numbers: {"split", "populations": {name: its description}, "runs": {name: from
            `measure_breasts`}, "by": {column: from `subgroups`}}; with `readers` also "readers": as "runs", on the
            breasts read.
        readers: a reader study's CSV; the breasts that were read are a further population (section V-A).

    Raises:
        NotComparable: as `table.read_all_breasts`, `table.parts` and `reader_file.matched`.
    """
    breasts = table.read_all_breasts(runs, split)
    if len(breasts) > 1:
        breasts.append(table.ensemble(breasts, f"ensemble of {len(breasts)}"))
    together = breasts[-1]
    for column in by:  # a mistyped column is refused before the long computation
        table.parts(together, column)
    result: dict[str, Any] = {
        "split": split,
        "populations": {name: table.description(together, name) for name in POPULATIONS},
        "runs": {run.name: measure_breasts(run) for run in breasts},
        "by": {column: subgroups(together, column) for column in by},
    }
    if readers is not None:
        study = reader_file.read(readers)
        result["readers"] = {run.name: measure_breasts(reader_file.matched(run, study)[0]) for run in breasts}
        result["populations"]["reader study"] = "The breasts of the readers' file."
    for section in sections(result, together.name):
        print(f"\n## {section.heading}\n{section.text}\n\n{text_table(section.header, section.rows)}")
    print(
        "\n" + textwrap.fill(f"In brackets 95 % intervals from {RUNS} bootstrap draws of patients. {CASE_MIX}", WIDTH)
    )
    if output:
        output.write_text(json.dumps(result, indent=2) + "\n")
        print(f"\n→ {output}", flush=True)


def sections(result: dict[str, Any], together: str) -> list[report.Section]:
    """A table for each population, with the runs and each column's parts, and one for the breasts that readers read.

    Args:
        result: the contents of the .json file of `write`.
        together: the name of the predictions whose parts are measured.
    """
    tables = [("run", result["runs"], name, name, "") for name in POPULATIONS]
    if "readers" in result:  # all breasts read
        tables.append(("run", result["readers"], POPULATIONS[0], "reader study", ""))
    tables += [
        (column, values, name, name, f", {together} by {column}")
        for column, values in result["by"].items()
        for name in POPULATIONS
    ]
    columns = ("breasts", "patients", *FINDINGS, *(f"{m} {f}" for m in ("AUC", "PR AUC") for f in FINDINGS))
    parts = []
    for first, measured, part, name, further in tables:
        rows = []
        for value, of in measured.items():
            counts = [str(of[part]["counts"][key]) for key in ("breasts", "patients", *FINDINGS)]
            rows.append([value, *counts, *(interval_text(of[part][f][m]) for m in METRICS for f in FINDINGS)])
        heading = f"{name.capitalize()} population, {result['split']}{further}"
        text = f"{result['populations'][name]} Not to be compared with AUCs of another case mix."
        parts.append(report.Section(heading, text, (first, *columns), rows, words=True))
    return parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax populations`."""
    parser.add_argument("--run", type=Path, required=True, action="append", help="an exam run; several average")
    parser.add_argument("--split", choices=["test_random10", "test", "val_random10", "val"], default="test_random10")
    parser.add_argument("--by", action="append", default=[], help="a column of the manifest, such as density")
    parser.add_argument("--readers", type=Path, help="a reader study's CSV: the breasts read are measured too")
    parser.add_argument("--output", type=arguments.file(".json"), help="also write the numbers to this file")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax populations`; see `write`."""
    write(args.run, args.split, args.by, args.output, args.readers)
    return 0
