"""What the reading room shows: images of a run, a manifest or a folder, by exam, and a run's scores of them."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mammojax import metrics
from mammojax.data import manifest, source
from mammojax.data.dicom import read_facts
from mammojax.data.identity import hashed, id_key
from mammojax.data.manifest import Image
from mammojax.data.recipe import Recipe
from mammojax.errors import BadMammogram, BadManifest, NotComparable, UserError, near_file
from mammojax.evaluate import table
from mammojax.evaluate.calibration import Calibration
from mammojax.evaluate.inputs import TABLES
from mammojax.train.checkpoint import read_config
from mammojax.vocabulary import VIEWS

RUNS = 1000  # bootstrap draws of patients at each threshold
MOST_THRESHOLDS = 200
MEASURES = ("sensitivity", "specificity", "recall")


@dataclass(frozen=True)
class Scored:
    """What a run was measured on: an image, or a breast. NaN: no score; -1: no label."""

    label: int
    score: float


@dataclass
class Worklist:
    """The images to look at.

    Attributes:
        name: of the run, the manifest or the folder.
        images: with path and lesions.
        scored: of each image: its own score, or its breast's.
        by_breast: the scores are of breasts.
        chosen: the run's operating point, scores at or above it are a recall; None without one.
        cases: the indices of each exam's images, in the order of `vocabulary.VIEWS`.
        rejected: (file, reason) of what cannot be shown.
    """

    name: str
    images: list[Image]
    scored: list[Scored] = field(default_factory=list)
    by_breast: bool = False
    chosen: float | None = None
    cases: list[list[int]] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scored = self.scored or [Scored(image.label, np.nan) for image in self.images]
        exams: dict[str, list[int]] = {}
        for k, image in enumerate(self.images):
            exams.setdefault(exam_of(image) or image.image, []).append(k)
        self.cases = [sorted(indices, key=self._place) for indices in exams.values()]

    def _place(self, index: int) -> tuple[int, int]:
        view = f"{self.images[index].laterality}-{self.images[index].view}"
        return (VIEWS.index(view) if view in VIEWS else len(VIEWS)), index

    def operating(self) -> dict[str, Any] | None:
        """Sensitivity, specificity and recall (the share at or above) at each threshold, see `at_thresholds`; None
        where nothing has both a label and a score."""
        units: dict[Any, tuple[Scored, str]] = {}  # a breast stands beside each of its images
        for image, scored in zip(self.images, self.scored, strict=True):
            if scored.label >= 0 and np.isfinite(scored.score):
                units[breast_of(image) if self.by_breast else image.image] = (
                    scored,
                    image.patient_id or exam_of(image),
                )
        if not units:
            return None
        every = list(units.values())
        label, score = np.array([s.label for s, _ in every]), np.array([s.score for s, _ in every])
        measured = at_thresholds(label, score, np.array([patient for _, patient in every]))
        return {"unit": "breasts" if self.by_breast else "images", "chosen": self.chosen, **measured}


def exam_of(image: Image) -> str:
    """The exam of an image, its patient's if it has none."""
    return image.exam_id or image.patient_id


def breast_of(image: Image) -> tuple[str, str]:
    """(exam, side) of an image, as tables of breasts name it."""
    return exam_of(image), image.laterality


def at_thresholds(label: np.ndarray, score: np.ndarray, patient: np.ndarray) -> dict[str, Any]:
    """What is recalled at or above each of up to MOST_THRESHOLDS thresholds, with 95 % intervals by patient.

    Args:
        label, score, patient: [N].

    Returns:
        {"n": [others, malignant], "threshold": [T], rising, and for each of MEASURES [T] of [value, low, high]}, None
        where a value cannot be computed, or its bounds as there are too few (`metrics.too_few`).
    """
    thresholds = np.unique(np.append(score, np.nextafter(score.max(), np.inf)))
    if len(thresholds) > MOST_THRESHOLDS:
        thresholds = np.unique(np.quantile(thresholds, np.linspace(0, 1, MOST_THRESHOLDS), method="nearest"))
    called = (score[:, None] >= thresholds).astype(np.float64)

    def rates(weights: np.ndarray) -> dict[str, np.ndarray]:
        def share(among: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore"):
                return (weights * among) @ called / (weights * among).sum(axis=1, keepdims=True)

        return {"sensitivity": share(label == 1), "specificity": 1 - share(label == 0), "recall": share(label >= 0)}

    values = rates(np.ones((1, len(label))))
    draws = rates(metrics.draws(patient, RUNS, 0))
    result: dict[str, Any] = {"n": metrics.class_counts(label), "threshold": thresholds.tolist()}
    few = {"sensitivity": result["n"][1], "specificity": result["n"][0], "recall": len(label)}
    for name in MEASURES:
        rows = [metrics.interval(float(v), draws[name][:, t]) for t, v in enumerate(values[name][0])]
        if few[name] < metrics.ENOUGH:
            rows = [row._replace(low=np.nan, high=np.nan) for row in rows]
        result[name] = [[float(x) if np.isfinite(x) else None for x in row] for row in rows]
    return result


def of_run(run: Path, split: str) -> Worklist:
    """The images that a run was measured on, with its scores: of images, or of breasts.

    Raises:
        BadCheckpoint: the folder is no run. NotComparable: it has no such predictions, or not of mammograms.
        BadManifest: its images are gone.
    """
    config, _ = read_config(run)
    path = run / "predictions" / f"{split}.csv"
    if not path.is_file():
        raise NotComparable(f'"{run}" has no predictions/{split}.csv; name a finished run and one of its splits.')
    frame = table.read_csv(path)
    if "p_malignant" not in frame:
        raise NotComparable(f'"{run}" has no scores of mammograms; name the run of a whole-image or an exam network.')
    recipe = Recipe.of_run(config, run)
    try:
        every, _ = source.read(recipe)
    except UserError as error:
        raise BadManifest(
            f'the images of "{run}" cannot be read ({error}); name their manifest or folder, and the run with --run.'
        ) from None
    calibration = Calibration.load(run)
    chosen = calibration.threshold if calibration and calibration.tta == [*split.split("_"), "none"][1] else None
    return replace(joined(Worklist(run.resolve().name, every.images, rejected=every.rejected), frame), chosen=chosen)


def joined(worklist: Worklist, frame: pd.DataFrame) -> Worklist:
    """The images that a table of predictions scores, with its scores.

    Args:
        frame: as text, from `table.read_csv`: a row an image (`image`), or a breast (`exam_id`, `laterality`).

    Raises:
        NotComparable: it scores none of the images.
    """
    by_breast = "image" not in frame
    truth = "malignant" if "malignant" in frame and by_breast else "label"
    scores: dict[Any, Scored] = {}
    for row in frame.to_dict("records"):
        key = (row["exam_id"] or row["patient_id"], row["laterality"]) if by_breast else row["image"]
        label = str(row.get(truth, ""))
        scores[key] = Scored(int(label) if label else -1, float(row["p_malignant"] or "nan"))
    key_of: Callable[[Image], Any] = breast_of if by_breast else (lambda image: image.image)
    kept = [image for image in worklist.images if key_of(image) in scores]
    if not kept:
        what = "breasts (exam_id, laterality)" if by_breast else "images"
        raise NotComparable(f"the predictions name none of the {what} of {worklist.name}; give those made of it.")
    scored = [scores[key_of(image)] for image in kept]
    known = [replace(s, label=image.label) if s.label < 0 else s for s, image in zip(scored, kept, strict=True)]
    return Worklist(worklist.name, kept, known, by_breast, rejected=worklist.rejected)


def of_input(path: Path, words: Mapping[str, str], id_folder: Path | None) -> Worklist:
    """The images of a manifest, of a folder (its manifest.csv, else its files), or one file.

    Args:
        path: of it.
        words: see `manifest.read_map`.
        id_folder: where the key of hashed ids is kept; None: a new key each time.

    Raises:
        BadMammogram: there is no such file, or nothing can be shown. BadManifest: see `manifest.read_manifest`.
    """
    if not path.exists():
        remedy = "give a run, a manifest, a folder or an image."
        raise BadMammogram(f'"{path}": there is no such file or folder; {near_file(path, remedy)}')
    with tempfile.TemporaryDirectory() as folder:
        keys = id_folder or Path(folder)
        if (path / "manifest.csv").is_file() or path.suffix.lower() in TABLES:
            read = manifest.read_manifest(path, words, keys)
            return Worklist(path.name, read.images, rejected=read.rejected)
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        images, rejected = _with_headers(path, files, id_key(keys))
    if not images:
        why = f"; the first: {rejected[0][1]}" if rejected else ""
        raise BadMammogram(f'"{path.name}": it holds no mammogram{why}; give a folder of DICOMs or images.')
    return Worklist(path.resolve().name, images, rejected=rejected)


def _with_headers(folder: Path, files: Sequence[Path], key: bytes) -> tuple[list[Image], list[tuple[str, str]]]:
    """The files that are mammograms, with what their headers say, ids hashed; and the others."""
    images, rejected = [], []
    for file in files:
        name = file.relative_to(folder).as_posix() if folder.is_dir() else file.name
        try:
            header = read_facts(file)
        except BadMammogram as error:
            rejected.append((name, str(error)))
            continue
        ids = (hashed(header.patient_id, key), hashed(header.exam_id, key))
        images.append(Image(name, file, ids[0], ids[1], header.laterality, header.view))
    return images, rejected
