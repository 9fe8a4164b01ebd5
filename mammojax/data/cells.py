"""The cells of our CSVs: a spreadsheet runs no text of the data as a formula, and every text reads back as it was.

A spreadsheet runs a cell that begins with =, +, -, @, a tab or a line's end (OWASP, "CSV Injection"), and an id or a
file name may begin so. Such a text is written behind an apostrophe, as a spreadsheet itself marks text, and is read
without it.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

_NAMES = ("file", "image", "patient_id", "exam_id")  # a name is no number, even where it looks like one
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # the last four: full-width = + - @


def shielded(text: str) -> str:
    """The text, behind an apostrophe if a spreadsheet would run it as a formula (or it would read back changed)."""
    return f"'{text}" if _FORMULA.match(text) else text


def plain(text: str) -> str:
    """The text that `shielded` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


class Writer:
    """Writes a CSV, its header at once: texts shielded, numbers in columns that are not names as they are."""

    def __init__(self, file: TextIO, columns: Sequence[str]) -> None:
        self._rows, self._columns = csv.writer(file), columns
        self._rows.writerow([shielded(column) for column in columns])

    def row(self, cells: Sequence[Any] | Mapping[str, Any]) -> None:
        """A row: a cell for each column, in their order or by their names; further keys of a mapping are left out."""
        values = [cells[column] for column in self._columns] if isinstance(cells, Mapping) else cells
        self._rows.writerow([_cell(c, v) for c, v in zip(self._columns, values, strict=True)])

    def rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write several rows, see `row`."""
        for cells in rows:
            self.row(cells)


def read_table(file: TextIO) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a CSV of ours; a missing cell is empty, cells beyond the header are dropped."""
    reader = csv.DictReader(file, restval="")
    columns = [plain(column) for column in reader.fieldnames or ()]
    return columns, [{plain(k): plain(v) for k, v in row.items() if k is not None} for row in reader]


def _cell(column: str, value: Any) -> Any:
    if not isinstance(value, str) or (column not in _NAMES and _is_number(value)):
        return value
    return shielded(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
