"""Tables in plain text, for a terminal."""

import re
import textwrap
from collections.abc import Sequence

WIDTH = 120
"""Width of a terminal, in characters."""
STATUS = 60
"""The longest status in a cell, in characters."""


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """A table in plain text; the widest columns are wrapped, at spaces only, until a line fits in `width`."""
    # "[0.801, 0.901]" stays on one line
    unbroken = [[re.sub(r", (?=[+-]?[\d.]+\])", ",\xa0", cell) for cell in row] for row in (header, *rows)]
    columns = range(len(header))
    widths = [max(len(row[k]) for row in unbroken) for k in columns]
    least = [max(len(word) for row in unbroken for word in row[k].split(" ")) for k in columns]
    while sum(widths) + 2 * (len(header) - 1) > width and any(w > m for w, m in zip(widths, least, strict=True)):
        # the first column names the row and keeps more of its width
        widths[max((k for k in columns if widths[k] > least[k]), key=lambda k: widths[k] * (1 if k else 0.6))] -= 1
    lines = []
    for row in unbroken:
        cells = [textwrap.wrap(row[k], widths[k], break_long_words=False, break_on_hyphens=False) for k in columns]
        for line in range(max(map(len, cells))):
            parts = [(cells[k][line] if line < len(cells[k]) else "").ljust(widths[k]) for k in columns]
            lines.append("  ".join(parts).replace("\xa0", " ").rstrip())
    return "\n".join(lines)


def table_with_notes(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`text_table` with long statuses as numbered notes below it: a run may differ in many fields."""
    at = header.index("status") if "status" in header else len(header)
    notes = list(dict.fromkeys(row[at] for row in rows if at < len(row) and len(row[at]) > STATUS))
    shortened = []
    for row in rows:
        cells = list(row)
        if at < len(row) and row[at] in notes:
            cells[at] = f"{row[at].partition(' (')[0].partition(';')[0]} [{notes.index(row[at]) + 1}]"
        shortened.append(cells)
    lines = [textwrap.fill(f"[{k}] {note}", WIDTH, subsequent_indent="    ", break_long_words=False,
             break_on_hyphens=False) for k, note in enumerate(notes, start=1)]  # fmt: skip
    return "\n".join([text_table(header, shortened), *[""] * bool(lines), *lines])
