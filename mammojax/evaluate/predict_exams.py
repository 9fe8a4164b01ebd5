"""`mammojax predict` with exam runs: exams of up to four views; each file is in an exam or in rejected.csv."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mammojax import processes
from mammojax.data import beam
from mammojax.data.breast import NoTissue, faces_right
from mammojax.data.cells import Writer
from mammojax.data.exams import View
from mammojax.data.projection import why_unused
from mammojax.errors import BadCheckpoint, BadMammogram
from mammojax.evaluate import by_patient, heatmap, parts, provenance
from mammojax.evaluate.calibration import Calibration
from mammojax.evaluate.inputs import BREAST_COLUMNS, Facts, Listed, Rejected, finish, listing, open_csv, with_headers
from mammojax.evaluate.pictures import Pictures
from mammojax.evaluate.predictor import ExamPredictor, ensemble, read
from mammojax.vocabulary import LABELS, VIEWS

EXAM_COLUMNS = ("exam_id", "patient_id", *LABELS, "views", "note")


def predict_exams(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", patch_run: Path | None = None,
    any_modality: bool = False, threshold: int | None = None, calibration: Calibration | None = None, ids: str = "",
    drawn: str = "", dicom: str = "", runner: beam.Runner | None = None,
) -> int:  # fmt: skip
    """Score the exams of a manifest, or of a folder of DICOMs (one study an exam).

    Several runs are an ensemble: the mean of their probabilities. Writes OUTPUT/exams.csv (EXAM_COLUMNS),
    OUTPUT/breasts.csv ("views": those that were used), OUTPUT/patients.csv (the highest score of a breast),
    OUTPUT/predictions.json and OUTPUT/rejected.csv, in full precision; exams with fewer than four views carry a note;
    breasts.csv has the columns of `calibration` too. Spot, magnification and other modified views are rejected, and
    so are files that are no mammograms, by Modality unless `any_modality`. `patch_run` and
    `threshold`: see `ExamPredictor.restore`. The pixels decide which way a breast faces, unless the manifest's
    horizontal_flip does ("NO": left breasts face right, as images are stored to hang). With `drawn`, "heatmap",
    OUTPUT/overlays/<row of exams.csv>_<view>.png have each image under the patch network's heatmap of malignant;
    `dicom` is as of `predict.predict_images`, of each image, with a region where the network takes heatmaps. The score
    in both is the breast's. `runner`: see `parts.run`.

    Returns:
        0, or 3 when no exam could be predicted.

    Raises:
        BadCheckpoint: a run cannot be used. BadManifest, BadMammogram: the input cannot be.
    """
    opening = tuple(runs), patch_run, threshold
    networks = _exam_networks(*opening)
    if (runner or processes.several()) and any(network.config.exam.random == "published" for network in networks):
        raise BadCheckpoint(
            'a run with config.exam.random="published" draws all windows from one stream, which cannot be shared; '
            "predict it with one process."
        )
    if drawn and not any(network.config.model.channels > 1 for network in networks):
        raise BadCheckpoint("these exam networks take no heatmaps, which --overlays would draw; leave it out.")
    listed, rejected, key = listing(source, output, ids)
    exams = _by_exam(listed, rejected, key, any_modality)
    output.mkdir(parents=True, exist_ok=True)
    origins = [provenance.of_run(run) for run in runs]
    of_exams = Pictures.of(output, drawn, dicom, origins)

    def write(results: Iterator[tuple[int, Rejected, _ExamRows | None]]) -> int:
        breasts: list[by_patient.Breast] = []
        done = 0
        with open_csv(output / "exams.csv") as exam_file, open_csv(output / "breasts.csv") as breast_file:
            breast_columns = (*BREAST_COLUMNS, *(calibration.columns if calibration else ()))
            exam_rows, breast_rows = Writer(exam_file, EXAM_COLUMNS), Writer(breast_file, breast_columns)
            for position, reasons, rows in results:
                rejected.extend((name, reason) for name, reason in reasons)
                if rows is None:
                    continue
                exam, of_breasts, drawn_images = rows
                exam_rows.row(exam)
                for cells in of_breasts:
                    p = float(cells[-1])
                    breast_rows.row([*cells, *(calibration.cells(p).values() if calibration else ())])
                    breasts.append(by_patient.Breast(exam[0], exam[1], cells[2], cells[3], p))
                done += 1
                of_exams.place(output, position, done, drawn_images)
                exam_file.flush()
                breast_file.flush()
        by_patient.write_patients(output / "patients.csv", breasts)
        summary = f"{done} exams predicted, {len(rejected)} images rejected"
        return finish(output, rejected, summary, done, origins, tta, ids)

    work = parts.Work(_exam_networks, opening, _score_exams, (tta, any_modality, of_exams))
    return parts.run(work, networks, list(exams.items()), 1, output, "exam", write, runner)


def _exam_networks(runs: Sequence[Path], patch_run: Path | None, threshold: int | None) -> list[ExamPredictor]:
    networks = [ExamPredictor.restore(run, patch_run, threshold) for run in runs]
    if any(network.config.model.target == "birads" for network in networks):
        raise BadCheckpoint("a BI-RADS network says nothing of cancer; give runs whose config.model.target is cancer.")
    return networks


_ExamRows = tuple[list[str], list[list[str]], list[str]]
"""The cells of an exam in exams.csv, and of each of its breasts in breasts.csv; what tells its pictures apart."""


def _score_exams(
    networks: Sequence[ExamPredictor], exams: parts.Numbered, _size: int, tta: str, any_modality: bool,
    of_exams: Pictures,
) -> Iterator[tuple[int, Rejected, _ExamRows | None]]:  # fmt: skip
    """Score exams of `_by_exam` one after the other, and draw them; each gives its position, what was rejected, and its
    rows if it has a score."""
    for position, ((exam_id, patient_id), images) in exams:
        rejected: Rejected = []
        maps: Maps | None = {} if of_exams.drawn or of_exams.dicoms else None
        try:
            decoded = _decoded(images, rejected, any_modality)
            scored = _score(networks, exam_id, decoded, tta, rejected, maps)
        except BadMammogram as error:
            named = {name for name, _ in rejected}
            rejected += [(facts["image"], str(error)) for _, facts in images if facts["image"] not in named]
            yield position, rejected, None
            continue
        exam = [exam_id, patient_id, *scored.cells(LABELS), "+".join(scored.views), "; ".join(scored.notes)]
        breasts = []
        for side, breast in (("L", "left"), ("R", "right")):
            if views := [view[2:] for view in scored.used if view.startswith(side)]:
                pair = scored.cells([f"{breast}_benign", f"{breast}_malignant"])
                breasts.append([exam_id, patient_id, side, "+".join(views), *pair])
        names = [] if maps is None else _draw(of_exams, position, images, decoded, maps, scored)
        yield position, rejected, (exam, breasts, names)


def _draw(
    of_exams: Pictures, position: int, images: Listed, decoded: "Decoded", maps: "Maps", scored: "ScoredExam"
) -> list[str]:
    """Draw the images of an exam; what tells their names apart: "_L-CC", and "_L-CC_2" of a second image."""
    paths, names = {facts["image"]: path for path, facts in images}, list[str]()
    for view, pixels, facts in decoded:
        if view in scored.used:
            again = sum(name.split("_")[1] == view for name in names)
            names.append(f"_{view}" + (f"_{again + 1}" if again else ""))
            p = float(scored.scores[LABELS.index("left_malignant" if view[0] == "L" else "right_malignant")])
            own = maps.get(facts["image"])
            whole = {"heatmap": np.mean(own, axis=0)} if own else {}
            of_exams.write(paths[facts["image"]], f"{position}{names[-1]}", pixels, whole, p, view[0], "breast")
    return names


def _by_exam(listed: Listed, rejected: Rejected, key: bytes, any_modality: bool) -> dict[tuple[str, str], Listed]:
    """The images by (exam_id, patient_id), each with its side and view; other views are rejected."""
    exams: dict[tuple[str, str], Listed] = {}
    for path, facts in with_headers(listed, rejected, key, any_modality):
        if reason := why_unused(facts["laterality"], facts["view"], facts.get("modifier", "")):
            rejected.append((facts["image"], reason))
            continue
        exam = facts["exam_id"] or facts["patient_id"], facts["patient_id"]
        exams.setdefault(exam, []).append((path, facts))
    return exams


Decoded = list[tuple[str, np.ndarray, Facts]]
"""The images of an exam: the view ("L-CC", …), uint16 [H, W], facts; in the order of VIEWS."""
Maps = dict[str, list[np.ndarray]]
"""Of each image of an exam by its name: the networks' heatmaps of malignant, float32 [H, W]."""


def _decoded(images: Listed, rejected: Rejected, any_modality: bool) -> Decoded:
    """The images of an exam that can be read; others are rejected."""
    decoded: Decoded = []
    named = [(f"{facts['laterality']}-{facts['view']}", path, facts) for path, facts in images]
    for name, path, facts in sorted(named, key=lambda image: VIEWS.index(image[0])):
        try:
            decoded.append((name, read(path, any_modality).pixels, facts))
        except BadMammogram as error:
            rejected.append((facts["image"], str(error)))
    return decoded


@dataclass(frozen=True)
class ScoredExam:
    """The scores of one or several networks for an exam.

    Attributes:
        scores: float64 [4] by LABELS, NaN for a breast that a network does not score.
        views: the views that could be used.
        used: the views that a network used, without those of breasts without a score.
        notes: remarks for whoever reads the scores.
    """

    scores: np.ndarray
    views: Sequence[str]
    used: Sequence[str]
    notes: Sequence[str]

    def cells(self, labels: Sequence[str]) -> list[str]:
        """The scores of some LABELS in full precision, "" for NaN."""
        values = [float(self.scores[LABELS.index(label)]) for label in labels]
        return ["" if np.isnan(value) else repr(value) for value in values]


def _score(
    networks: Sequence[ExamPredictor], exam_id: str, images: Decoded, tta: str, rejected: Rejected, maps: Maps | None
) -> ScoredExam:
    """Score an exam with all networks; `maps` gets the heatmaps of each image, where they are wanted.

    Raises:
        BadMammogram: no image can be used, or a network needs views that are missing.
    """
    shared: dict[str, dict[str, list[View]]] = {}  # crops and heatmaps take most of the time
    scores, views = [], {}
    for network in networks:
        settings = network.view_settings
        if settings not in shared:
            shared[settings] = _views(network, images, rejected if network is networks[0] else [], maps)
        views = shared[settings]
        scores.append(network.probabilities(views, exam_id, tta)[:, 1])
    mean = ensemble(scores)
    unscored = {label[0].upper() for label, value in zip(LABELS, mean, strict=True) if np.isnan(value)}
    by_any = {view for network in networks for view in network.used(views)}
    used = [view for view in VIEWS if view in by_any and view[0] not in unscored]
    return ScoredExam(mean, list(views), used, _notes(networks, views, unscored))


def _views(
    network: ExamPredictor, images: Decoded, rejected: Rejected, maps: Maps | None
) -> dict[str, list[View]]:  # fmt: skip
    """The images as the network takes them, by view; images without a breast are rejected.

    Raises:
        BadMammogram: no image is left.
    """
    views: dict[str, list[View]] = {}
    for name, pixels, facts in images:
        right = faces_right(pixels, facts["laterality"], facts.get("horizontal_flip", ""))
        try:
            view = network.view(pixels, name, right, facts["image"])
        except NoTissue as error:
            rejected.append((facts["image"], str(error)))
        else:
            views.setdefault(name, []).append(view)
            if maps is not None and network.config.model.channels > 1:
                whole = heatmap.of_view(view, network.config.exam, pixels, right, network.facts["crop"])
                maps.setdefault(facts["image"], []).append(whole)
    if not views:
        raise BadMammogram("no image of its exam can be used")
    return views


def _notes(networks: Sequence[ExamPredictor], views: Collection[str], unscored: Collection[str]) -> list[str]:
    """Remarks for whoever reads an exam's scores: missing views, breasts (L, R) without a score."""
    notes = []
    angles = sorted({angle for network in networks for angle in network.config.model.angles})
    taken = [view for view in views if view[2:] in angles]
    if len(taken) < 2 * len(angles):
        notes.append(f"{len(taken)} of {2 * len(angles)} views")
        paired = any({f"L-{angle}", f"R-{angle}"} <= set(taken) for angle in angles)
        if not paired and any(network.config.model.join != "image-wise" for network in networks):
            notes.append("no pair is complete: one side stood for both")
    for side in sorted(set(unscored) & {view[0] for view in views}):
        breast = "left" if side == "L" else "right"
        notes.append(f"no prediction of the {breast} breast: it has no view that every network takes")
    return notes
