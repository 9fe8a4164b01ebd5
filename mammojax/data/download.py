"""A published data set as downloaded: its tables, and its images at any depth and in whatever format they are kept."""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mammojax.data.sheet import SPREADSHEETS, separator_of
from mammojax.errors import BadManifest

SUFFIXES = (".dcm", ".dicom", ".png", ".tif", ".tiff", ".pgm", ".jpg", ".jpeg")
"""Of image files, the best first: of several files of one name the first is taken."""


def find(source: Path, *names: str) -> Path:
    """A file or folder of the download by one of its names, at the top of the source folder or anywhere in it.

    Raises:
        BadManifest: there is none.
    """
    for name in names:
        if (source / name).exists():
            return source / name
    for name in names:
        if paths := sorted(source.rglob(name)):
            return paths[0]
    raise BadManifest(f"{' or '.join(names)} is not in the source folder; give the folder of the whole download.")


def images(source: Path) -> dict[str, Path]:
    """The image files below a folder, links included, by name without suffix."""
    files: dict[str, Path] = {}
    for path in walk(source):
        rank = path.suffix.lower()
        if rank in SUFFIXES:
            before = files.get(path.stem)
            if before is None or SUFFIXES.index(rank) < SUFFIXES.index(before.suffix.lower()):
                files[path.stem] = path
    return files


def walk(source: Path) -> Iterator[Path]:
    """The files below a folder in the order of their names, links included, without hidden ones."""
    visited = set()
    for folder, below, names in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in visited else sorted(name for name in below if name[0] != ".")
        if real not in visited:  # a link to a folder above would never end
            visited.add(real)
            yield from (Path(folder) / name for name in sorted(names) if name[0] != ".")


def rows(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """The rows of a published table, CSV or .xlsx (its first sheet), one at a time: some have half a million.

    Args:
        path: the file.
        required, optional: columns in lower case; the header may have any case. Others are left out.

    Yields:
        {column: cell without spaces at its ends}; "" for a column that the table lacks, and for "nan" and "None",
        which pandas writes for nothing.

    Raises:
        BadManifest: a required column is missing, or the file cannot be read.
    """
    records = _records(path, required)
    header = [str(cell or "").strip().lower() for cell in next(records, [])]
    if missing := [name for name in required if name not in header]:
        raise BadManifest(f"{path.name}: the column {missing[0]} is missing; get the file again.")
    places = {name: header.index(name) for name in (*required, *optional) if name in header}
    empty = dict.fromkeys((*required, *optional), "")
    for cells in records:
        texts = {name: _text(cells[at]) for name, at in places.items() if at < len(cells)}
        if any(texts.values()):
            yield empty | texts


def _text(cell: object) -> str:
    text = "" if cell is None else str(cell).strip()
    if text.lower() in ("nan", "none"):
        return ""
    return text.removesuffix(".0") if re.fullmatch(r"\d+\.0", text) else text  # a whole number of a column with gaps


def _records(path: Path, required: Sequence[str]) -> Iterator[Sequence[object]]:
    """The rows as cells, the header first."""
    with path.open("rb") as binary:
        is_sheet = binary.read(4) in SPREADSHEETS
    if is_sheet:
        yield from _of_workbook(path)
        return
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = separator_of(file.readline(), required)
            file.seek(0)
            yield from csv.reader(file, delimiter=separator)
    except UnicodeDecodeError:
        raise BadManifest(f"{path.name}: it is no CSV in UTF-8; save it as one.") from None


def _of_workbook(path: Path) -> Iterable[Sequence[object]]:
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise BadManifest(
            f"{path.name}: reading a spreadsheet needs openpyxl: pip install 'mammojax[sheets]', or save it as CSV."
        ) from None
    try:
        sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
    except Exception as error:  # a broken archive fails in many ways
        raise BadManifest(f"{path.name}: the spreadsheet is broken ({type(error).__name__}); get it again.") from None
    return sheet.iter_rows(values_only=True)
