"""Reading a hand-made CSV: any separator, header spelling and quotation marks; no row is lost silently."""

import csv
import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from mammojax.errors import BadManifest

SEPARATORS = (",", ";", "\t")
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # the first bytes of .xlsx and .ods, and of .xls
NEAR = 0.82  # of difflib's ratio: "views" and "patients" are near view and patient_id, "exam_date" is not near exam_id
Row = tuple[int, dict[str, str]]


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> tuple[list[Row], list[tuple[str, str]]]:
    """Read a CSV in UTF-8, separated by commas, semicolons or tabs.

    Args:
        path: the file.
        required, optional: the expected columns, in lower case; the header may have any case.

    Returns:
        (line, {column: cell without spaces at its ends}) of each row, other columns as the header spells them; and
        (file and line, reason) of each row that has more cells than the header.

    Raises:
        BadManifest: it is no such CSV, a quotation mark swallows rows, or a column is missing, doubled, or spelt
            nearly like an expected one that is missing.
    """
    with path.open("rb") as binary:
        if binary.read(4) in SPREADSHEETS:
            raise BadManifest(f"{path.name}: it is a spreadsheet, which is not read; save it as CSV (UTF-8).")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = separator_of(file.readline(), required)
            file.seek(0)
            return _rows(path.name, file, separator, required, optional)
    except UnicodeDecodeError:
        raise BadManifest(f"{path.name}: it is no CSV in UTF-8; save it as one, separated by commas.") from None


def _rows(
    name: str, file: TextIO, separator: str, required: Sequence[str], optional: Sequence[str]
) -> tuple[list[Row], list[tuple[str, str]]]:
    rows: list[Row] = []
    wrong: list[tuple[str, str]] = []
    records = _records(name, file, separator)
    columns = _columns(name, next(records, (1, []))[1], required, optional)
    for line, cells in records:
        if any(cell.strip() for cell in cells[len(columns) :]):
            more = (
                f"it has {len(cells)} cells, the header {len(columns)}; put cells with a separator in quotation marks"
            )
            wrong.append((f"{name} line {line}", more))
        else:
            cells += [""] * (len(columns) - len(cells))
            rows.append((line, {column: cell.strip() for column, cell in zip(columns, cells, strict=False)}))
    return rows, wrong


def _records(name: str, file: TextIO, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line on which it begins; empty lines are left out.

    A cell may have several lines, but none that look like rows: those were swallowed by a stray quotation mark.
    """
    reader = csv.reader(file, delimiter=separator, strict=True)
    columns = 0
    while True:
        line = reader.line_num + 1
        stray = f"{name}, line {line}: a quotation mark is not closed or stands inside a cell; remove it or double it."
        try:
            cells = next(reader, None)
        except csv.Error:
            raise BadManifest(stray) from None
        if cells is None:
            return
        if any("\0" in cell for cell in cells):
            raise BadManifest(f"{name}, line {line}: it holds zero bytes, as no CSV in UTF-8 does; save it as one.")
        columns = columns or len(cells)
        if reader.line_num > line:
            inside = sum(cell.count(separator) for cell in cells if "\n" in cell or "\r" in cell)
            if columns > 1 and inside >= columns - 1:
                raise BadManifest(stray)
        if cells:
            yield line, cells


def separator_of(header: str, required: Sequence[str]) -> str:
    """The separator that gives a header the required columns, else the one that gives most columns."""

    def fit(separator: str) -> tuple[bool, int]:
        cells = [cell.strip().lower() for cell in next(csv.reader([header], delimiter=separator), [])]
        return set(required) <= set(cells), len(cells)

    return max(SEPARATORS, key=fit)


def _columns(name: str, header: list[str], required: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The names of the columns; expected ones in lower case."""
    expected = (*required, *optional)
    columns = [cell.strip().lower() if cell.strip().lower() in expected else cell.strip() for cell in header]
    for column in columns:
        if column and columns.count(column) > 1:
            raise BadManifest(f'{name}: two columns are called "{column}"; rename or remove one.')
    missing = [column for column in expected if column not in columns]
    for column in columns:
        if column not in expected and (near := _nearest(column, missing)):
            raise BadManifest(
                f'{name}: the column "{column}" is not known: did you mean {near}? Rename it, or call it otherwise.'
            )
    for column in required:
        if column in missing:
            like = difflib.get_close_matches(column, columns, 1)
            hint = f' (is it "{like[0]}"?)' if like else ""
            raise BadManifest(f"{name}: the column {column} is missing{hint}; docs/data.md lists the columns.")
    return columns


def _nearest(column: str, expected: Sequence[str]) -> str:
    """The expected name nearest to a misspelt one, or "": "PatientID", "Patient" and "patinet_id" are near."""
    text = re.sub(r"[^a-z0-9]", "", column.lower())
    near = {}
    for name in expected:
        plain = name.replace("_", "")
        alike = 1.0 if plain in (text, f"{text}id") else difflib.SequenceMatcher(None, text, plain).ratio()
        if alike >= NEAR:
            near[name] = alike
    return max(near, key=near.__getitem__, default="")
