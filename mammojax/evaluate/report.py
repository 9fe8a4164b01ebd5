"""Pages, each one self-contained HTML file without anybody's name; and estimates with intervals as text."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

TOO_FEW = "too few to estimate"


@dataclass(frozen=True)
class Box:
    """A box of a diagram: its heading, and the lines below it."""

    heading: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class FlowStep:
    """A step of a flow diagram: its boxes, beside each other, and what leaves before the next step."""

    boxes: Sequence[Box]
    out: Box | None = None


@dataclass(frozen=True)
class Section:
    """A part of a page; empty fields are left out.

    Attributes:
        heading: of the section.
        text: a sentence above everything else.
        flow: the steps of a diagram, one below the other.
        header, rows: a table.
        words: whether the table's cells are text, not numbers.
        figures: (caption, data URL) of each.
        layout: of the figures: "two" side by side, "wide", or with captions below "gallery" or "sheet", of thumbnails.
        note: a sentence below table and figures.
        commands: lines of a shell.
        details: (heading, text) of each folded part.
        part: the name by which `replace_part` finds it in a written page.
        folded: what stands in place of the table until it is clicked; "": the table is open.
    """

    heading: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    words: bool = False
    figures: Sequence[tuple[str, str]] = ()
    layout: str = "two"
    note: str = ""
    commands: Sequence[str] = ()
    details: Sequence[tuple[str, str]] = ()
    flow: Sequence[FlowStep] = ()
    part: str = ""
    folded: str = ""


def write_page(
    path: Path, title: str, notes: Sequence[str], sections: Sequence[Section],
    cards: Sequence[tuple[str, str, str]] = (),
) -> None:  # fmt: skip
    """Write a single-file HTML page; every text is escaped.

    Args:
        path: the .html file.
        title, notes: at the top of the page.
        sections: one below the other.
        cards: the main numbers above them: (name, number, text below it).
    """
    page = _template("page").render(title=title, notes=notes, sections=sections, cards=cards)
    path.write_text(page, encoding="utf-8")


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mammojax.evaluate", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(f"{name}.html.j2")


def replace_part(path: Path, part: str, sections: Sequence[Section]) -> None:
    """Put sections into a written page in place of those of the same part; before its last one, if it has none."""
    page = path.read_text(encoding="utf-8")
    rendered = "".join(_template("section").render(section=section) for section in sections)
    old = [match.span() for match in re.finditer(rf'<section data-part="{part}">.*?</section>\n?', page, re.DOTALL)]
    at = old[0][0] if old else page.rindex("<section")
    for start, end in reversed(old):
        page = page[:start] + page[end:]
    path.write_text(page[:at] + rendered + page[at:], encoding="utf-8")


def png(figure: Figure, dpi: int = 150, tight: bool = True) -> str:
    """A figure as a data URL; `tight` cuts its empty margin."""
    data = io.BytesIO()
    box = "tight" if tight else None
    figure.savefig(data, format="png", dpi=dpi, bbox_inches=box, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def is_number(value: float | None) -> bool:
    """Whether a value could be computed: neither None nor NaN, which older runs wrote."""
    return value is not None and bool(np.isfinite(value))


def _number(value: float | None, form: str = ".3f") -> str:
    """The value as text, a dash if it could not be computed (one class only)."""
    return f"{value:{form}}" if is_number(value) else "–"


def interval_text(interval: Mapping[str, Any] | None, form: str = ".3f") -> str:
    """An estimate {"value", "low", "high"} with its interval: "0.910 [0.870, 0.940]".

    A dash without an estimate or its value; "too few to estimate" in place of a missing interval (`metrics.too_few`), a
    dash in place of a missing bound.
    """
    if interval is None or not is_number(interval["value"]):
        return "–"
    if not is_number(interval["low"]) and not is_number(interval["high"]):
        return f"{interval['value']:{form}} [{TOO_FEW}]"
    value, low, high = (_number(interval[part], form) for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def with_counts(interval: Mapping[str, Any] | None) -> str:
    """`interval_text` and, if given, the numbers measured of each class, negatives first: "…, n 28 + 12"."""
    counts = " + ".join(map(str, interval["n"])) if interval and "n" in interval else ""
    return interval_text(interval) + (f", n {counts}" if counts else "")
