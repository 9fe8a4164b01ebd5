"""What a reader says, kept as two CSVs in a folder: error tags and comments, and probabilities of a blind reading."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mammojax.data.cells import Writer, read_table
from mammojax.errors import BadManifest
from mammojax.evaluate import reader_file

TAGS = (
    "missed lesion", "subtle sign", "dense tissue", "benign lookalike", "artefact", "marker or text", "positioning",
    "wrong label", "other",
)  # fmt: skip
"""Why a network erred, or seems to have."""
COLUMNS = ("image", "patient_id", "exam_id", "laterality", "view", "label", "p_malignant", "tags", "comment")
FILE, READS = "marks.csv", "readers.csv"
LONGEST = 2000  # characters of a comment


class Marks:
    """The two files of a folder; each change is written at once, by way of a second file.

    Attributes:
        images: name of an image → its row of marks.csv, by COLUMNS.
        reads: (reader, exam_id, laterality) → probability of malignancy, 0 … 1.
    """

    def __init__(self, folder: Path) -> None:
        """Read what the folder holds. Raises BadManifest where its files are not ours."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.images = {row["image"]: row for row in _rows(folder / FILE, COLUMNS)}
        self.reads: dict[tuple[str, str, str], float] = {}
        for row in _rows(folder / READS, reader_file.COLUMNS):
            try:
                self.reads[row["reader"], row["exam_id"], row["laterality"]] = float(row["p_malignant"])
            except ValueError:
                raise BadManifest(f"{READS}: a probability is no number; move the file elsewhere.") from None

    def mark(self, facts: Mapping[str, Any], tags: Sequence[str], comment: str) -> None:
        """Note tags and a comment of an image; neither removes its row.

        Args:
            facts: the first seven of COLUMNS.

        Raises:
            BadManifest: a tag is none of TAGS, or the comment is too long.
        """
        if unknown := set(tags) - set(TAGS):
            raise BadManifest(f'"{min(unknown)}" is no tag; take one of: {", ".join(TAGS)}.')
        if len(comment) > LONGEST:
            raise BadManifest(f"the comment has {len(comment)} characters; {LONGEST} are the most.")
        text = " ".join(comment.split())
        self.images.pop(facts["image"], None)
        if tags or text:
            words = "; ".join(tag for tag in TAGS if tag in tags)
            self.images[facts["image"]] = {**facts, "tags": words, "comment": text}
        _write(self._folder / FILE, COLUMNS, self.images.values())

    def read(self, reader: str, exam_id: str, laterality: str, p: float) -> None:
        """Note a reader's probability of malignancy of a breast, 0 … 1; a second one replaces the first.

        Raises:
            BadManifest: it is no probability, or the breast has no side.
        """
        if not 0 <= p <= 1 or laterality not in ("L", "R"):
            raise BadManifest("a reading is a probability from 0 to 1 of a left or a right breast.")
        self.reads[reader, exam_id, laterality] = p
        rows = [dict(zip(reader_file.COLUMNS, (*key, value), strict=True)) for key, value in self.reads.items()]
        _write(self._folder / READS, reader_file.COLUMNS, rows)

    def of_reader(self, reader: str) -> dict[tuple[str, str], float]:
        """(exam_id, laterality) → probability, of what a reader has read."""
        return {(exam, side): value for (name, exam, side), value in self.reads.items() if name == reader}

    def csv(self, name: str) -> bytes:
        """A file's bytes, its header if it holds nothing yet."""
        columns = COLUMNS if name == FILE else reader_file.COLUMNS
        if not (self._folder / name).is_file():
            _write(self._folder / name, columns, [])
        return (self._folder / name).read_bytes()


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        written, rows = read_table(file)
    if tuple(written) != tuple(columns):
        raise BadManifest(f"{path.name}: it was not written by mammojax view; name another folder with --mark.")
    return rows


def _write(path: Path, columns: Sequence[str], rows: Any) -> None:
    second = path.with_suffix(".part")
    with second.open("w", newline="", encoding="utf-8") as file:
        writer = Writer(file, columns)
        for row in rows:
            writer.row(row)
    os.replace(second, path)
