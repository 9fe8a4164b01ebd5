"""Prediction on exams of up to four views (Wu et al. 2019): crop, heatmaps, windows, networks, averages.

One flow from files to OUT/breasts.csv and OUT/exams.csv. Breast orientation is read from the pixels unless the
manifest's horizontal_flip says it ("NO": left breasts face right, as images are stored to hang).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mammojax.data.cells import Writer
from mammojax.data.crop import NoTissue, faces_right
from mammojax.data.dicom import read_facts
from mammojax.data.exams import View
from mammojax.data.projection import why_unused
from mammojax.errors import BadCheckpoint, BadMammogram
from mammojax.evaluate import predict
from mammojax.evaluate.predictor import ExamPredictor, ensemble, read
from mammojax.vocabulary import LABELS, VIEWS

EXAM_COLUMNS = ("exam_id", "patient_id", *LABELS, "views", "note")


@dataclass
class LoadedExam:
    """An exam to predict.

    Attributes:
        exam_id, patient_id: of the manifest or the header.
        views: its images by "L-CC", …, several of a view in the manifest's order.
        notes: what a reader of its prediction must know.
    """

    exam_id: str
    patient_id: str
    views: dict[str, list[View]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def predict_exams(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", patch_run: Path | None = None,
    any_modality: bool = False, threshold: int | None = None,
) -> int:  # fmt: skip
    """Score the exams of a manifest, or of a folder of DICOMs (one study an exam).

    Several runs are an ensemble: the mean of their probabilities. Writes OUTPUT/exams.csv (EXAM_COLUMNS),
    OUTPUT/breasts.csv (its views: those that were used) and OUTPUT/rejected.csv, in full precision; exams with fewer
    than four views carry a note. Spot, magnification and other changed views are rejected; what is no mammogram too, by
    Modality unless `any_modality`. `patch_run` and `threshold` as of `restore`.

    Returns:
        0, or 3 when no exam could be predicted.

    Raises:
        BadCheckpoint: a run cannot be used. BadManifest, BadMammogram: the input cannot be.
    """
    models = [ExamPredictor.restore(run, patch_run, threshold) for run in runs]
    if any(model.config.model.target == "birads" for model in models):
        raise BadCheckpoint("a BI-RADS network says nothing of cancer; give runs whose config.model.target is cancer.")
    listed, rejected, key = predict.listing(source, output)
    grouped: dict[tuple[str, str], list[tuple[Path, dict[str, str]]]] = {}
    for path, facts in listed:
        try:
            known = facts if facts.get("laterality") and facts.get("view") and "patient_id" in facts else None
            facts = known or predict.facts_of(read_facts(path, any_modality), facts, key)
        except BadMammogram as error:
            rejected.append((facts["image"], str(error)))
            continue
        if reason := why_unused(facts["laterality"], facts["view"], facts.get("modifier", "")):
            rejected.append((facts["image"], reason))
            continue
        group = (facts["exam_id"] or facts["patient_id"], facts["patient_id"])
        grouped.setdefault(group, []).append((path, facts))
    done = 0
    output.mkdir(parents=True, exist_ok=True)
    with predict.table(output / "exams.csv") as exam_file, predict.table(output / "breasts.csv") as breast_file:
        exam_rows, breast_rows = Writer(exam_file, EXAM_COLUMNS), Writer(breast_file, predict.BREAST_COLUMNS)
        for (exam_id, patient_id), images in tqdm(grouped.items(), desc="predict", unit="exam", disable=None):
            try:
                scores, exam, used = _score(models, exam_id, patient_id, images, tta, rejected, any_modality)
            except BadMammogram as error:
                told = {name for name, _ in rejected}
                rejected += [(facts["image"], str(error)) for _, facts in images if facts["image"] not in told]
                continue
            values = dict(zip(LABELS, scores, strict=True))
            cells = ["" if np.isnan(v) else repr(float(v)) for v in scores]
            exam_rows.row([exam_id, patient_id, *cells, "+".join(exam.views), "; ".join(exam.notes)])
            for side, breast in (("L", "left"), ("R", "right")):
                if views := [view[2:] for view in used if view.startswith(side)]:
                    pair = [repr(float(values[f"{breast}_{finding}"])) for finding in ("benign", "malignant")]
                    breast_rows.row([exam_id, patient_id, side, "+".join(views), *pair])
            done += 1
            exam_file.flush()
            breast_file.flush()
    with predict.table(output / "rejected.csv") as file:
        Writer(file, ("file", "reason")).rows(rejected)
    print(f"{done} exams predicted, {len(rejected)} images rejected → {output}", flush=True)
    return 0 if done else 3


def _score(
    models: Sequence[ExamPredictor], exam_id: str, patient_id: str, images: list[tuple[Path, dict[str, str]]], tta: str,
    rejected: list[tuple[str, str]], any_modality: bool,
) -> tuple[np.ndarray, LoadedExam, list[str]]:  # fmt: skip
    """The mean of the models' scores of one exam, and the views that any of them used, unless another model says
    nothing of the breast; unreadable images are listed and left out."""
    order = {view: k for k, view in enumerate(VIEWS)}
    images = sorted(images, key=lambda item: order[f"{item[1]['laterality']}-{item[1]['view']}"])
    decoded: dict[Path, np.ndarray] = {}
    for path, facts in images:
        try:
            decoded[path] = read(path, any_modality).pixels
        except BadMammogram as error:
            rejected.append((facts["image"], str(error)))
    made: dict[str, LoadedExam] = {}  # models that look alike share an exam's crops and heatmaps, which take longest
    scores, exam = [], LoadedExam(exam_id, patient_id)
    for model in models:
        exam = made.setdefault(model.view_settings, LoadedExam(exam_id, patient_id))
        for path, facts in images if not exam.views else ():
            name = f"{facts['laterality']}-{facts['view']}"
            if path not in decoded:
                continue
            right = faces_right(decoded[path], facts["laterality"], facts.get("horizontal_flip", ""))
            try:
                exam.views.setdefault(name, []).append(model.view(decoded[path], name, right, facts["image"]))
            except NoTissue as error:
                if not exam.views.get(name):
                    exam.views.pop(name, None)
                if model is models[0]:
                    rejected.append((facts["image"], str(error)))
        if not exam.views:
            raise BadMammogram("no image of its exam can be used")
        scores.append(model.probabilities(exam.views, exam_id, tta)[:, 1])
    angles = sorted({angle for model in models for angle in model.config.model.angles})
    there = [view for view in exam.views if view[2:] in angles]
    if len(there) < 2 * len(angles):
        exam.notes.append(f"{len(there)} of {2 * len(angles)} views")
        paired = any({f"L-{angle}", f"R-{angle}"} <= set(there) for angle in angles)
        if not paired and any(model.config.model.join != "image-wise" for model in models):
            exam.notes.append("no pair is complete: one side stood for both")
    mean = ensemble(scores)
    unseen = {label[0].upper() for label, value in zip(LABELS, mean, strict=True) if np.isnan(value)}
    for side in sorted(unseen & {view[0] for view in exam.views}):
        breast = "left" if side == "L" else "right"
        exam.notes.append(f"no prediction of the {breast} breast: it has no view that every network takes")
    by_any = {view for model in models for view in model.used(exam.views)}
    return mean, exam, [view for view in VIEWS if view in by_any and view[0] not in unseen]
