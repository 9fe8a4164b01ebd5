"""A paper's tables beside our runs: `mammojax reproduce shen2019|wu2019|petrini2022|petrini2025 --runs DIR`.

Each published row is a line of a CSV here, `shen2019.csv`, `wu2019.csv` and so on; `Row` describes the columns. To add
a row to a table, add a line: `table` as in the table's other lines, `row` the `config.row` of the runs that fill it.
The row is printed in the file's order with our numbers beside it, and with a command to run it if no run fills it yet.
In shen2019.csv a new name in `table` is a new table. A number that none of our sources states is `MISSING`, never
guessed.

Runs are matched to rows by `config.row`, see `runs`. A number comes from the runs nearest to the paper's; the status
beside it lists the deviations. A paper is a module here with TITLE, NOTES, `sections` and `to_do`, and its CSV.
"""

import argparse
import importlib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mammojax import arguments
from mammojax.evaluate import report, table
from mammojax.evaluate.text_table import WIDTH, table_with_notes
from mammojax.papers.runs import find_runs

FOLDER = Path(__file__).parent
PAPERS = ("shen2019", "wu2019", "petrini2022", "petrini2025")
MISSING = "not in our copy"
ToDo = Sequence[tuple[str, report.Section]]
"""Commands for the rows that are not run: (printed text, section of the page) of each."""


@dataclass(frozen=True)
class Row:
    """A row of a published table, a line of a paper's CSV; a column that the CSV lacks is empty.

    Attributes:
        table: the table's heading.
        label: the paper's name of the row.
        row: `config.row` of the runs that fill it; "ensemble:a|b|…" is computed from other rows' runs.
        published: the value, with its interval or deviation if the paper gives one; empty if the paper states only
            the second.
        second: a second value. Shen et al.: with averaged flips (A-AUC). Wu et al.: in Table I the occult breasts, in
            Table III the ensemble, in the reader study the PR AUC.
        epoch: of the best checkpoint.
        patients: labelled patients of a label-efficiency row; empty: all.
        measure, data: the metric, "accuracy", "auc" or "equal_error", and the data set.
        split, trunk: of Petrini et al., "official" or "folds", and the network's trunk.
        population, finding: of Wu et al., such as "screening" and "malignant".
        minus: of a difference, the row that is subtracted; "two views" is the gain from a breast's two views, "flips"
            that from averaged flips.
        where: the place of the value in the paper.
    """

    table: str
    label: str
    row: str = ""
    published: str = ""
    second: str = ""
    epoch: str = ""
    patients: str = ""
    measure: str = ""
    data: str = ""
    split: str = ""
    trunk: str = ""
    population: str = ""
    finding: str = ""
    minus: str = ""
    where: str = ""


def rows_of(paper: str) -> dict[str, list[Row]]:
    """The rows of a paper's CSV by table, both in the file's order."""
    tables: dict[str, list[Row]] = {}
    for cells in table.read_csv(FOLDER / f"{paper}.csv").to_dict("records"):
        row = Row(**{str(column): cell for column, cell in cells.items()})
        tables.setdefault(row.table, []).append(row)
    return tables


def members(row: str) -> list[str]:
    """The rows whose runs a row is computed from; for a row that is no ensemble, the row itself."""
    return row.removeprefix("ensemble:").split("|") if row.startswith("ensemble:") else [row]


def with_sources(section: report.Section) -> str:
    """A section's table in plain text; letters behind the published values name the sources below the table. Commands
    stay on the page: here they would leave the other columns no room."""
    if "command" in section.header:
        last = section.header.index("command")
        section = replace(section, header=section.header[:last], rows=[row[:last] for row in section.rows])
    if "source" not in section.header:
        return table_with_notes(section.header, section.rows)
    at = section.header.index("source")
    sources = list(dict.fromkeys(row[at] for row in section.rows if row[at] != "–"))
    rows = []
    for row in section.rows:
        mark = f" ({chr(ord('a') + sources.index(row[at]))})" if row[at] in sources else ""
        rows.append([*row[: at - 1], row[at - 1] + mark, *row[at + 1 :]])
    text = table_with_notes([*section.header[:at], *section.header[at + 1 :]], rows)
    notes = "; ".join(f"({chr(ord('a') + k)}) {source}" for k, source in enumerate(sources))
    return f"{text}\n\nPublished: {textwrap.fill(notes, WIDTH - 11)}" if notes else text


def write(paper: str, folder: Path, output: Path | None = None, readers: Path | None = None) -> None:
    """Print a paper's tables and the commands for the rows that are not run.

    Args:
        paper: of PAPERS.
        folder: the folder that holds the run folders.
        output: a .html file for the same tables.
        readers: for Wu et al. the readers' CSV, see `reader_file.read`.

    Raises:
        BadCheckpoint: see `find_runs`. BadManifest: see `reader_file.read`.
    """
    module = importlib.import_module(f"mammojax.papers.{paper}")
    runs = find_runs(folder)
    sections = module.sections(runs, readers, folder)
    for section in sections:
        text = textwrap.fill(section.text, WIDTH)
        print(f"\n## {section.heading}\n{text}\n\n{with_sources(section)}")
    print("\n## Notes\n")
    for note in module.NOTES:
        print(textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  "))
    for text, section in module.to_do(runs, folder):
        print(text, flush=True)
        sections.append(section)
    if output:
        pages = [replace(section, folded=f"{len(section.rows)} rows, none run") if _run(section) == 0 else section
                 for section in sections]  # fmt: skip
        report.write_page(output, module.TITLE, module.NOTES, [_coverage(sections), *pages])
        print(f"\n→ {output}", flush=True)


def _run(section: report.Section) -> int | None:
    """How many rows of a table some run fills; None for a table that says nothing of runs."""
    if "status" not in section.header or not section.rows:
        return None
    at = section.header.index("status")
    return sum(not row[at].startswith("not run") for row in section.rows)


def _coverage(sections: Sequence[report.Section]) -> report.Section:
    """How many rows of each table are filled."""
    rows = [[section.heading, str(n), str(len(section.rows))] for section in sections
            if (n := _run(section)) is not None]  # fmt: skip
    filled, every = (sum(int(row[k]) for row in rows) for k in (1, 2))
    text = f"{filled} of {every} rows have a run. Tables without one are folded."
    return report.Section("Coverage", text, ("table", "rows with a run", "rows"), rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax reproduce`."""
    parser.add_argument("paper", choices=PAPERS)
    parser.add_argument("--runs", type=Path, required=True, help="the folder that holds the run folders")
    parser.add_argument("--readers", type=Path, help="of wu2019: a reader study's CSV, for the hybrid rows")
    parser.add_argument("--output", type=arguments.file(".html"), help="also write the tables to this .html file")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax reproduce`; see `write`."""
    write(args.paper, args.runs, args.output, args.readers)
    return 0
