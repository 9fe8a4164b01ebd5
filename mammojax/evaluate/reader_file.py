"""The file of a reader study: each reader's probability of malignancy of each breast (Wu et al. 2019, section VI)."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mammojax.data.cells import plain
from mammojax.errors import BadManifest, NotComparable, near_file
from mammojax.evaluate.table import Predictions

COLUMNS = ("reader", "exam_id", "laterality", "p_malignant")


@dataclass(frozen=True, eq=False)
class Readers:
    """A reader study.

    Attributes:
        scores: p(malignant) 0 … 1, float64: one row per breast (exam_id, laterality) in the order of the first reader's
            rows, one column per reader, "reader 1" and so on in the file's order, as reports name nobody.
        line: int [N], the line of the file that holds the first reader's row of each breast.
    """

    scores: pd.DataFrame
    line: np.ndarray

    def __len__(self) -> int:
        return self.scores.shape[1]


def read(path: Path) -> Readers:
    """The readers of a CSV, a row for each reader and breast: reader, exam_id, laterality (L, R), p_malignant.

    Probabilities are 0 … 1 or, as in the paper, 0 … 100 %: if any value of the file is above 1, the whole file is in
    percent. A reader with no value above 1 in such a file is refused: these are hardly percentages.
    Other columns are ignored.

    Raises:
        BadManifest: no such file, no CSV, a column is missing, a row cannot be used, a reader read a breast twice, or
            not every breast that another reader read.
    """
    if not path.is_file():
        did = near_file(path, f"give a CSV with the columns {', '.join(COLUMNS)}.")
        raise BadManifest(f'"{path.name}": there is no such file; {did}')
    names: dict[str, str] = {}
    lines: dict[tuple[str, str, str], int] = {}
    scores: list[float] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if missing := [column for column in COLUMNS if column not in (rows.fieldnames or ())]:
                needed = ", ".join(COLUMNS)
                raise BadManifest(f"{path.name}: the column {missing[0]} is missing; it needs {needed}.")
            for row in rows:
                where = f"{path.name}, line {rows.line_num}"
                reader, exam_id, side, score = _row(row, where)
                key = (names.setdefault(reader, f"reader {len(names) + 1}"), exam_id, side)
                if key in lines:
                    raise BadManifest(
                        f"{where}, exam_id and laterality: {key[0]} gave this breast a probability in line "
                        f"{lines[key]} already; keep one of the rows."
                    )
                lines[key] = rows.line_num
                scores.append(score)
    except (UnicodeDecodeError, csv.Error):
        raise BadManifest(f"{path.name}: it is no CSV in UTF-8; save it as one, separated by commas.") from None
    if not names:
        raise BadManifest(f"{path.name}: it has no row below its header; give a row for each reader and breast.")
    long = pd.DataFrame(list(lines), columns=["reader", "exam_id", "laterality"])
    long["line"], long["score"] = list(lines.values()), scores
    wide = long.pivot(index=["exam_id", "laterality"], columns="reader")
    by_line = wide["line"][list(names.values())]
    _refuse_gaps(by_line, path.name)
    order = np.argsort(by_line["reader 1"].to_numpy())
    each = wide["score"][list(names.values())].iloc[order]
    return Readers(_as_shares(each, path.name), by_line["reader 1"].to_numpy(dtype=int)[order])


def _row(row: dict[str, Any], where: str) -> tuple[str, str, str, float]:
    """Reader, exam, side and the probability as written; `where` is the file and the line."""
    if None in row:
        raise BadManifest(f"{where}: more cells than columns; write decimals with a point and quote cells with commas.")
    cells = {column: plain((row[column] or "").strip()) for column in COLUMNS}
    for column in ("reader", "exam_id"):
        if not cells[column]:
            raise BadManifest(f"{where}, {column}: it is empty; fill it in.")
    if cells["laterality"] not in ("L", "R"):
        raise BadManifest(f'{where}, laterality: "{cells["laterality"]}" is no side; write L or R.')
    try:
        score = float(cells["p_malignant"])
    except ValueError:
        score = math.nan
    if not 0 <= score <= 100:
        raise BadManifest(
            f'{where}, p_malignant: "{cells["p_malignant"]}" is no probability; write a number from 0 to 1, or in the '
            "whole file from 0 to 100, without a sign for percent."
        )
    return cells["reader"], cells["exam_id"], cells["laterality"], score


def _refuse_gaps(lines: pd.DataFrame, file: str) -> None:
    """Refuse readers of different breasts; `lines`: of the file, by breast and reader, NaN where a row is missing."""
    of_any = lines.bfill(axis=1).iloc[:, 0].astype(int)
    for name in lines:
        if len(unread := of_any[lines[name].isna()]):
            raise BadManifest(
                f"{file}: {name} (from line {int(lines[name].min())} on) lacks {len(unread)} of the breasts that "
                f"others read (the first: that of line {unread.min()}); add the rows, or leave these breasts out."
            )


def _as_shares(scores: pd.DataFrame, file: str) -> pd.DataFrame:
    """Probabilities 0 … 1, whatever the file's scale."""
    highest = scores.max()
    if highest.max() <= 1:
        return scores
    if len(low := highest[highest <= 1]):
        raise BadManifest(
            f"{file}, p_malignant: {low.index[0]} gave no breast more than 1, where others go up to {highest.max():g}; "
            "write all readers on one scale, 0 to 1 or 0 to 100."
        )
    return scores / 100


def matched(breasts: Predictions, readers: Readers) -> tuple[Predictions, np.ndarray]:
    """The reader study's population: the predicted breasts that were read, in the file's order, and the readers'
    scores float64 [R, N].

    Raises:
        NotComparable: a breast that was read has no labelled prediction, or the breasts read have one class only.
    """
    place = breasts.index.get_indexer(readers.scores.index)
    if (lost := place < 0).any():
        raise NotComparable(
            f'"{breasts.name}" has no labelled prediction of {lost.sum()} of the {len(place)} breasts read (the '
            f"first: exam_id and laterality of line {readers.line[lost].min()} of the readers' file); give a run and a "
            "split that hold them, or leave their rows out."
        )
    chosen = breasts[place]
    if len(set(chosen.label().tolist())) < 2:
        raise NotComparable(f'"{breasts.name}": all breasts read have one label; read malignant and other breasts.')
    return chosen, np.ascontiguousarray(readers.scores.to_numpy().T)
