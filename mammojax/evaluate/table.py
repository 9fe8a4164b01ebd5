"""Tables of predictions of images and breasts: writing, reading, matching, averaging and grouping.

Everything about finished runs is computed from these tables, so it needs no weights, no images and no GPU. Ids are
text; scores keep every digit, written with `repr` and read with `float`.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mammojax.data.cells import Writer, plain
from mammojax.data.exams import Exam
from mammojax.errors import BadCheckpoint, NotComparable
from mammojax.vocabulary import BIRADS, FINDINGS, LABELS

IMAGE_COLUMNS = ("image", "patient_id", "exam_id", "laterality", "view", "label", "p_malignant")
"""Columns of a whole-image run's predictions/<split>.csv, one row per image."""
PAIR_COLUMNS = ("exam_id", "patient_id", "laterality", "views", "label", "p_malignant")
"""Columns of a two-view run's predictions/<split>.csv, one row per breast; further ones are of its first image."""
BREAST_COLUMNS = ("exam_id", "patient_id", "laterality", "views", "p_benign", "p_malignant", "benign", "malignant")
"""Columns of an exam run's predictions/<split>.csv, one row per breast; after them biopsied, density, birads and
whatever other columns the manifest has."""
POPULATIONS = ("screening", "biopsied")
MOST_GROUPS = 20
_NO_GROUPS = ("exam_id", "patient_id", "p_benign", "p_malignant", "image")

Exams = Sequence[tuple[Exam, np.ndarray]]
"""Scored exams, with the images that the network uses, and its probabilities: float64 [4, 2] by LABELS and (absent,
present), NaN for a breast without such an image, or [1, 3] by BIRADS."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The labelled predictions of a split.

    Attributes:
        name: of the run, or of the ensemble.
        frame: one row per image or breast, with the CSV's columns as text, except the findings' labels 0 or 1, int64,
            in `malignant` (for images the CSV's `label`) and, for breasts, `benign`, and their scores 0 … 1, float64,
            in `p_malignant` and `p_benign`.
    """

    name: str
    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, chosen: np.ndarray) -> "Predictions":
        """The rows at these indices, int [M], or where bool [N] is True."""
        return replace(self, frame=self.frame.iloc[chosen].reset_index(drop=True))

    def label(self, finding: str = "malignant") -> np.ndarray:
        """int64 [N], 0 or 1."""
        return self.frame[finding].to_numpy()

    def score(self, finding: str = "malignant") -> np.ndarray:
        """float64 [N]."""
        return self.frame[f"p_{finding}"].to_numpy()

    @property
    def patient(self) -> np.ndarray:
        """Patient ids, str [N]."""
        return self.frame["patient_id"].to_numpy(dtype=str)

    @property
    def of_images(self) -> bool:
        """Whether the rows are images, not breasts."""
        return "image" in self.frame

    @property
    def index(self) -> pd.Index:
        """Names of images, or (exam_id, laterality) of breasts."""
        return self.frame.set_index("image" if self.of_images else ["exam_id", "laterality"]).index


def refuse_not_finite(probabilities: np.ndarray) -> np.ndarray:
    """The probabilities, unchanged.

    Raises:
        BadCheckpoint: one is not finite, which only happens with diverged weights.
    """
    if not np.isfinite(probabilities).all():
        raise BadCheckpoint(
            "the network answers an image with a probability that is not a number, so its weights are no use; copy the "
            "run folder again from where it is whole, or train it again at a lower learning rate."
        )
    return probabilities


def write(path: Path, frame: pd.DataFrame) -> None:
    """Write a CSV: floats as `repr` has them, texts that a spreadsheet would run as formulas behind an apostrophe."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        Writer(file, list(frame.columns)).rows(frame.itertuples(index=False, name=None))


def write_images(
    path: Path, scored: dict[str, Any], rows: Sequence[dict[str, str]], classes: Sequence[str],
    columns: Sequence[str] = IMAGE_COLUMNS,
) -> None:  # fmt: skip
    """Write predictions/<split>.csv of images or pairs: `columns` and the manifest's further ones; for a patch network,
    a column p_<class> for each class.

    Args:
        path: of the CSV.
        scored: "scores" float [N, K] and "label" int [N], -1 where unknown, from `ImagePredictor.score_split`.
        rows: [N], the split's table, or `Pairs.table`.
        classes: [K].
        columns: IMAGE_COLUMNS or PAIR_COLUMNS.

    Raises:
        BadCheckpoint: see `refuse_not_finite`.
    """
    scores = refuse_not_finite(scored["scores"]).astype(np.float64)
    frame = pd.DataFrame(list(rows), columns=columns[:-2])
    frame["label"] = [int(label) if label >= 0 else "" for label in scored["label"]]
    for k, name in enumerate(classes):
        if len(classes) > 2 or k == 1:
            frame["p_malignant" if len(classes) == 2 else f"p_{name}"] = scores[:, k]
    further = [json.loads(row.get("facts") or "{}").get("columns", {}) for row in rows]
    for column in dict.fromkeys(name for cells in further for name in cells if name not in frame):
        frame[column] = [cells.get(column, "") for cells in further]
    write(path, frame)


def write_exams(path: Path, scored: Exams, target: str) -> None:
    """Write predictions/<split>.csv: one row per breast with a used image; for a BI-RADS network one row per exam.

    Raises:
        BadCheckpoint: see `refuse_not_finite`.
    """
    if target == "birads":
        scores = refuse_not_finite(np.array([p[0] for _, p in scored], np.float64).reshape(-1, len(BIRADS)))
        rows = [(e.exam_id, e.patient_id, BIRADS[e.birads] if e.birads >= 0 else "") for e, _ in scored]
        frame = pd.DataFrame(rows, columns=["exam_id", "patient_id", "birads"])
        write(path, frame.assign(**{f"p_{name}": scores[:, k] for k, name in enumerate(BIRADS)}))
        return
    own = (*BREAST_COLUMNS, "biopsied")
    further = dict.fromkeys(c for exam, _ in scored for side in exam.columns.values() for c in side if c not in own)
    cells = [[*row, *(columns.get(c, "") for c in further)] for row, columns in _breasts(scored)]
    frame = pd.DataFrame(cells, columns=[*own, *further])
    refuse_not_finite(frame[["p_benign", "p_malignant"]].to_numpy(np.float64))
    write(path, frame)


def _breasts(scored: Exams) -> Iterator[tuple[list[Any], dict[str, str]]]:
    """Cells of BREAST_COLUMNS and `biopsied` of each breast, and the manifest's further columns."""
    for exam, p in scored:
        for side, breast in (("L", "left"), ("R", "right")):
            if views := [view[2:] for view in exam.images if view.startswith(side)]:
                at = [LABELS.index(f"{breast}_{finding}") for finding in ("benign", "malignant")]
                labels = ["" if exam.label[k] < 0 else int(exam.label[k]) for k in at]
                cells = [exam.exam_id, exam.patient_id, side, "+".join(views), *(float(p[k, 1]) for k in at), *labels]
                yield [*cells, int(exam.biopsied(side))], exam.columns[side]


def read_csv(path: Path, errors: str = "backslashreplace") -> pd.DataFrame:
    """A CSV of ours as text; bytes that are no UTF-8 escaped, missing cells empty, cells beyond the header dropped."""
    form: Any = {"header": None, "dtype": str, "keep_default_na": False, "encoding_errors": errors}
    try:  # the header is read as a row, or pandas renames columns; `usecols` lets long rows pass
        cells = pd.read_csv(path, usecols=lambda _: True, **form).map(plain)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    return cells.iloc[1:].set_axis(cells.iloc[0].tolist(), axis=1).reset_index(drop=True)


def read_images(run: Path, split: str) -> Predictions:
    """The labelled images of a whole-image run, or the labelled breasts of a two-view run.

    Args:
        run: the run folder.
        split: "test", "val", or with flips averaged "test_flips", "val_flips".

    Raises:
        NotComparable: the run has none, is a patch or an exam run, or names an image or a breast twice.
    """
    path = run / "predictions" / f"{split}.csv"
    if not path.is_file():
        raise NotComparable(f'"{run}" has no predictions/{split}.csv; name the folder of a finished whole-image run.')
    frame = read_csv(path)
    if len(frame) and "label" not in frame:
        raise NotComparable(f'"{run}" is an exam run; compare whole-image runs.')
    frame = frame[frame["label"] != ""].reset_index(drop=True) if len(frame) else frame
    if len(frame) and "p_malignant" not in frame:
        raise NotComparable(f'"{run}" is a patch run; compare whole-image runs.')
    if not len(frame):
        raise NotComparable(f'"{run}": predictions/{split}.csv has no labelled image; nothing can be measured.')
    breast = [name for name in ("exam_id", "laterality") if "image" not in frame]
    if breast and (count := int(frame.duplicated(breast).sum())):
        raise NotComparable(f'"{run}": predictions/{split}.csv names {count} breasts twice; predict the split again.')
    if not breast and (twice := frame["image"].duplicated()).any():
        name = frame["image"][twice].iloc[0]
        raise NotComparable(f'"{run}": predictions/{split}.csv names "{name}" twice; predict the split again.')
    frame = _label_as_malignant(frame)
    return Predictions(_folder(run).name, _with_numbers(frame, ("malignant",), f'"{run}": predictions/{split}.csv'))


def read_plain(path: Path) -> Predictions:
    """The labelled predictions of a CSV that anybody has written.

    Columns: p_malignant, 0 … 1; label (or malignant), 0 or 1, rows with an empty one are left out; image, or exam_id
    and laterality for breasts. Without patient_id each image counts as a patient of its own. Further columns are kept.

    Raises:
        NotComparable: there is no such file, or it is no such table.
    """
    if not path.is_file():
        raise NotComparable(f'there is no file "{path}"; give a CSV of predictions.')
    try:
        frame = _label_as_malignant(read_csv(path, "strict"))
    except (ValueError, UnicodeDecodeError):
        raise NotComparable(f"{path.name}: it is no CSV in UTF-8, separated by commas; save it as one.") from None
    keys = ["image"] if "image" in frame else ["exam_id", "laterality"]
    for column in (*keys, "p_malignant", "malignant"):
        if column not in frame:
            name = {"malignant": "label", "exam_id": "image"}.get(column, column)
            raise NotComparable(f"{path.name}: it has no column {name}; it needs image, p_malignant and label.")
    if frame.columns.duplicated().any():
        raise NotComparable(f"{path.name}: two columns are called {frame.columns[frame.columns.duplicated()][0]}.")
    frame = frame[frame["malignant"] != ""].reset_index(drop=True)
    if not len(frame):
        raise NotComparable(f"{path.name}: no row has a label; fill the column with 0 and 1.")
    if wrong := set(frame["malignant"]) - {"0", "1"}:
        raise NotComparable(f'{path.name}: a label is "{min(wrong)}"; write 0 or 1.')
    if (twice := frame.duplicated(keys)).any():
        raise NotComparable(f"{path.name}: {int(twice.sum())} rows name an image or breast again; leave one of each.")
    if "patient_id" not in frame:
        frame["patient_id"] = frame[keys].agg("/".join, axis=1)
    if (empty := frame["patient_id"] == "").any():
        frame.loc[empty, "patient_id"] = frame.loc[empty, keys].agg("/".join, axis=1)
    return Predictions(path.stem, _with_numbers(frame, ("malignant",), path.name))


def read_breasts(run: Path, split: str) -> Predictions:
    """The labelled breasts of an exam run.

    Args:
        run: the run folder.
        split: "test", "val", or with ten augmented predictions averaged "test_random10", "val_random10".

    Raises:
        NotComparable: the run has no such predictions, is no exam run, names a breast twice or has a cell that is no
            number.
    """
    path = run / "predictions" / f"{split}.csv"
    if not path.is_file():
        raise NotComparable(f'"{run}" has no predictions/{split}.csv; name the folder of a finished exam run.')
    frame = read_csv(path)
    if missing := [name for name in BREAST_COLUMNS if name not in frame]:
        raise NotComparable(f'"{run}" is no exam run: predictions/{split}.csv has no column {missing[0]}.')
    frame = frame[(frame["benign"] != "") & (frame["malignant"] != "")].reset_index(drop=True)
    if not len(frame):
        raise NotComparable(f'"{run}": predictions/{split}.csv has no labelled breast; nothing can be measured.')
    if twice := int(frame.duplicated(["exam_id", "laterality"]).sum()):
        raise NotComparable(f'"{run}": predictions/{split}.csv names {twice} breasts twice; predict the split again.')
    return Predictions(_folder(run).name, _with_numbers(frame, FINDINGS, f'"{run}": predictions/{split}.csv'))


def _label_as_malignant(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose column label is called malignant, in place of a column of that name."""
    if "label" not in frame:
        return frame
    return frame.drop(columns="malignant", errors="ignore").rename(columns={"label": "malignant"})


def _with_numbers(frame: pd.DataFrame, findings: Sequence[str], where: str) -> pd.DataFrame:
    """The frame with its findings' labels int64 and scores float64."""
    try:
        labels = {finding: frame[finding].map(int) for finding in findings}
        scores = {f"p_{finding}": frame[f"p_{finding}"].map(float) for finding in findings}
    except ValueError:
        scores = {}
    if not scores or not all(np.isfinite(score).all() for score in scores.values()):
        raise NotComparable(f"{where} has a score that is no number; predict it again.")
    return frame.assign(**labels, **scores)


def read_all_images(runs: Sequence[Path], split: str) -> list[Predictions]:
    """A split of all runs in one order, by the names of `names_of`; errors as there, in `read_images`, `aligned`.

    If there is a two-view run among them, all are by breast: those breasts that it scores, see `as_breasts`.
    """
    read = [replace(read_images(run, split), name=n) for run, n in zip(runs, names_of(runs), strict=True)]
    two_views = next((run for run in read if not run.of_images), None)
    return aligned(
        read if two_views is None else [as_breasts(run, two_views) if run.of_images else run for run in read]
    )


def as_breasts(images: Predictions, like: Predictions) -> Predictions:
    """Breasts, each scored by the mean over its views (Shen et al. 2019); several images of a view count as one.

    Args:
        images: by image.
        like: by breast. Only its breasts count, and of these the views that it names.
    """
    frame = images.frame
    frame = frame.assign(exam_id=frame["exam_id"].where(frame["exam_id"] != "", frame["patient_id"]))
    keys = ["exam_id", "patient_id", "laterality"]
    named = (
        like.frame[["exam_id", "laterality", "views"]].assign(view=like.frame["views"].str.split("+")).explode("view")
    )
    frame = frame.merge(named, on=["exam_id", "laterality", "view"])
    views = frame.groupby([*keys, "views", "view"])["p_malignant"].agg(lambda scores: np.mean(scores.to_numpy()))
    breasts = views.groupby([*keys, "views"]).agg(lambda scores: np.mean(scores.to_numpy())).reset_index()
    label = frame.groupby(keys)["malignant"].max().reset_index()
    return replace(images, frame=breasts.merge(label, on=keys))


def read_all_breasts(runs: Sequence[Path], split: str) -> list[Predictions]:
    """A split of all runs in one order, by the names of `names_of`; errors as there, in `read_breasts`, `aligned`."""
    return aligned([replace(read_breasts(run, split), name=n) for run, n in zip(runs, names_of(runs), strict=True)])


def _folder(run: Path) -> Path:
    """The run folder by its own name, even if given as "." or with ".."."""
    return Path(os.path.abspath(run))


def names_of(runs: Sequence[Path]) -> list[str]:
    """Names of runs: those of their folders; if two are alike, all with their parent folders.

    Raises:
        NotComparable: a run is given twice.
    """
    folders = [_folder(run) for run in runs]
    if len(set(folders)) < len(folders):
        twice = next(folder for k, folder in enumerate(folders) if folder in folders[:k])
        raise NotComparable(f'"{twice.name}" is given twice; name each once.')
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    above = os.path.commonpath(folders)
    return [os.path.relpath(folder, above) for folder in folders]


def aligned(predictions: Sequence[Predictions]) -> list[Predictions]:
    """All in the order of the first; images are matched by name, breasts by exam and side.

    Raises:
        NotComparable: they are not of the same images or breasts with the same labels.
    """
    first = predictions[0]
    images, index = first.of_images, first.index
    findings = [finding for finding in FINDINGS if finding in first.frame]
    result = []
    for run in predictions:
        both = f'"{first.name}" and "{run.name}"'
        if len(unmatched := index.symmetric_difference(run.index)):
            example = f', the first: "{unmatched[0]}"' if images else ""  # messages show no exam ids
            raise NotComparable(
                f"{both} were measured on different {'images' if images else 'breasts'} ({len(unmatched)} stand in one "
                f"alone{example}); give runs of one data set, split and seed."
            )
        reordered = run[run.index.get_indexer(index)]
        differ = np.flatnonzero(np.any([reordered.label(f) != first.label(f) for f in findings], axis=0))
        if len(differ) and not images:
            raise NotComparable(f"{both} have other labels for the same breasts; give one data set.")
        if len(differ):
            raise NotComparable(
                f'{both} have other labels for {len(differ)} of the same images (the first: "{index[differ[0]]}"); '
                "give runs of one data set."
            )
        result.append(reordered)
    return result


def ensemble(predictions: Sequence[Predictions], name: str = "ensemble") -> Predictions:
    """The mean of the scores of runs on the same images or breasts (Wu et al. 2019, section V)."""
    runs = aligned(predictions)
    columns = [f"p_{finding}" for finding in FINDINGS if finding in runs[0].frame]
    means = {column: np.mean([run.frame[column].to_numpy() for run in runs], axis=0) for column in columns}
    return Predictions(name, runs[0].frame.assign(**means))


def by_breast(images: Predictions) -> pd.DataFrame:
    """The breasts that have a CC and an MLO view, sorted by patient, exam and side.

    Returns:
        Columns patient_id, exam_id (the patient's where it is empty), laterality; `malignant` int, 1 where one of its
        images is; `CC` and `MLO` float64, of several images of a view their mean; `both`, the mean of the two views.
    """
    frame = images.frame
    frame = frame.assign(exam_id=frame["exam_id"].where(frame["exam_id"] != "", frame["patient_id"]))
    frame = frame[(frame["laterality"] != "") & frame["view"].isin(("CC", "MLO"))]
    breast = ["patient_id", "exam_id", "laterality"]
    # NumPy's mean, as everywhere: pandas adds in another order, which changes the last digit
    views = frame.groupby([*breast, "view"])["p_malignant"].agg(lambda scores: np.mean(scores.to_numpy()))
    pairs = views.unstack("view").reindex(columns=["CC", "MLO"]).dropna()
    pairs["both"] = (pairs["CC"] + pairs["MLO"]) / 2
    return pairs.join(frame.groupby(breast)["malignant"].max()).reset_index()


def biopsied(breasts: Predictions) -> np.ndarray:
    """Which breasts were biopsied, bool [N]: where the column `biopsied` is "1"; a breast without that cell, if it
    has a finding, as labels come from biopsies (Wu et al. 2019, section II)."""
    labelled = (breasts.label("malignant") == 1) | (breasts.label("benign") == 1)
    cell = _biopsied_cells(breasts)
    return np.where(cell == "", labelled, cell == "1")


def _biopsied_cells(breasts: Predictions) -> np.ndarray:
    """The column `biopsied`, str [N]; empty where there is none."""
    if "biopsied" not in breasts.frame:
        return np.full(len(breasts), "")
    return breasts.frame["biopsied"].to_numpy(dtype=str)


def population(breasts: Predictions, name: str) -> Predictions:
    """The breasts of one of POPULATIONS (Wu et al. 2019, section V-A)."""
    return breasts if name == "screening" else breasts[biopsied(breasts)]


def description(breasts: Predictions, name: str) -> str:
    """A sentence that describes one of POPULATIONS."""
    if name == "screening":
        return "Every labelled breast of the split."
    empty = int((_biopsied_cells(breasts) == "").sum())
    if not empty:
        return "Breasts that the column biopsied calls so."
    kind = "Breasts" if empty == len(breasts) else "Breasts that the column biopsied calls so, and others"
    return f"{kind} with a malignant or benign finding: {empty} have no cell biopsied, and labels are of biopsies."


def parts(breasts: Predictions, column: str) -> dict[str, Predictions]:
    """The breasts or images by their value in a column of the predictions, in the values' order; "unknown" if empty.

    Raises:
        NotComparable: there is no such column, or its values are no groups but names of exams, numbers or dates.
    """
    columns = [name for name in breasts.frame if name and name not in _NO_GROUPS]
    if column not in columns:
        raise NotComparable(f'the predictions have no groups by "{column}"; --by takes {", ".join(columns)}.')
    values = breasts.frame[column].astype(str).replace("", "unknown").to_numpy()
    groups = sorted(set(values), key=lambda value: (value == "unknown", value))
    if (count := len(groups)) > MOST_GROUPS:  # this also keeps ids and dates out of reports
        raise NotComparable(
            f'the column "{column}" has {count} values, more than {MOST_GROUPS}; group them in the manifest first.'
        )
    return {str(value): breasts[values == value] for value in groups}
