"""`mammojax predict`: mammograms or exams from files to tables; each file is predicted or listed in rejected.csv."""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mammojax import arguments
from mammojax.data import archive
from mammojax.data.breast import NoTissue, Placement, faces_right
from mammojax.data.cells import Writer
from mammojax.data.exams import View
from mammojax.data.identity import id_key
from mammojax.data.projection import why_unused
from mammojax.errors import BadCheckpoint, BadMammogram
from mammojax.evaluate import by_patient, other_breast, overlays, provenance, table
from mammojax.evaluate.calibration import Calibration
from mammojax.evaluate.dicom_out import DicomWriter
from mammojax.evaluate.inputs import (
    BREAST_COLUMNS,
    Facts,
    Listed,
    Rejected,
    ahead,
    facts_of,
    finish,
    listing,
    open_csv,
    progress,
    with_headers,
)
from mammojax.evaluate.predict_pairs import predict_pairs
from mammojax.evaluate.predictor import ExamPredictor, ImagePredictor, ensemble, read
from mammojax.evaluate.table import IMAGE_COLUMNS
from mammojax.train.checkpoint import read_config
from mammojax.vocabulary import LABELS, VIEWS

EXAM_COLUMNS = ("exam_id", "patient_id", *LABELS, "views", "note")


def predict(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", patch_run: Path | None = None,
    any_modality: bool = False, threshold: int | None = None, asymmetry: bool = False,
    with_overlays: bool = False, ids: str = "", dicom: str = "",
) -> int:  # fmt: skip
    """Score mammograms with whole-image runs, breasts with two-view runs, or exams with exam runs; see
    `predict_images`, `predict_pairs.predict_pairs` and `predict_exams`.

    A .zip counts as the folder that it holds. With `asymmetry` predictions.csv of images and breasts.csv get a last
    column of that name: how much higher the log odds are than those of the same patient's other breast
    (`other_breast.asymmetry`), empty where that has no score.
    """
    if source.suffix.lower() == ".zip":
        with archive.as_folder(source) as folder:
            return predict(
                runs, folder, output, tta, patch_run, any_modality, threshold, asymmetry, with_overlays, ids, dicom
            )
    task = read_config(runs[0])[0].model.task
    if dicom and task in ("exam", "two_view"):
        raise BadCheckpoint("--format dicom is for whole-image runs, which have a heatmap; leave it out for these.")
    if task == "exam":
        if tta in ("flips", "shifts9"):
            raise BadCheckpoint(f"{tta} are for whole-image runs; exams are predicted with --tta none or random10.")
        if with_overlays:
            raise BadCheckpoint("--overlays is for whole-image runs; leave it out for exams.")
        code = predict_exams(runs, source, output, tta, patch_run, any_modality, threshold, ids)
        return _add_asymmetry(output, ("breasts.csv",), code) if asymmetry else code
    if tta == "random10" or patch_run or threshold is not None:
        raise BadCheckpoint(
            "random10, --patch-run and --threshold are for exams; whole images take --tta none, flips or shifts9."
        )
    if task == "two_view":
        code = predict_pairs(runs, source, output, tta, any_modality, _calibration(runs, tta), ids, with_overlays)
        return _add_asymmetry(output, ("breasts.csv",), code) if asymmetry else code
    code = predict_images(runs, source, output, tta, any_modality, with_overlays, ids, dicom)
    return _add_asymmetry(output, ("predictions.csv", "breasts.csv"), code) if asymmetry else code


def _add_asymmetry(output: Path, names: Sequence[str], code: int) -> int:
    """Add the column `asymmetry` to tables of OUTPUT; `code` is returned."""
    for name in names:
        frame = table.read_csv(output / name)
        scores = pd.to_numeric(frame["p_malignant"]).to_numpy(np.float64)  # an exam's breast may have no score
        scored = np.isfinite(scores)
        values = np.full(len(frame), np.nan)
        values[scored] = other_breast.asymmetry(frame[scored].assign(p_malignant=scores[scored]))
        table.write(output / name, frame.assign(asymmetry=[repr(float(x)) if np.isfinite(x) else "" for x in values]))
    return code


def predict_images(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", any_modality: bool = False,
    with_overlays: bool = False, ids: str = "", dicom: str = "",
) -> int:  # fmt: skip
    """Score a file, every file below a folder, or the images of a manifest.

    Several runs are an ensemble: the mean of their malignant scores, each framing the image its own way (Shen et al.
    2019, "Augmented prediction and model averaging"). Writes OUTPUT/predictions.csv (IMAGE_COLUMNS; label empty where
    unknown), OUTPUT/breasts.csv (BREAST_COLUMNS; the mean over a breast's views, of images whose side and view are
    known), OUTPUT/exams.csv and patients.csv (see `by_patient`), OUTPUT/predictions.json (the runs and their training
    data), OUTPUT/predictions.html (see `predict_report`) and OUTPUT/rejected.csv (file, reason): each file is there or
    in predictions.csv. Ids from DICOM headers
    become keyed hashes (the key: OUTPUT/.id_key) and a manifest's are kept, unless `ids` says otherwise, see
    `inputs.listing`. Files that are no mammograms are rejected, by Modality too unless `any_modality`. `with_overlays`
    draws OUTPUT/overlays/<row of predictions.csv>.png, the first row being 1.png: the full mammogram, and its heatmap
    over it. `dicom`, "deidentified" or "keep" (the identity), writes OUTPUT/dicom/<row>_overlay.dcm and
    <row>_report.dcm of each row that comes from a DICOM, see `dicom_out`.

    Returns:
        0, or 3 when no image could be predicted.

    Raises:
        BadCheckpoint: a run cannot be used. BadManifest, BadMammogram: the input cannot be used.
    """
    networks = _image_networks(runs)
    drawn = with_overlays or bool(dicom)
    maps = [overlays.map_of(run, network) for run, network in zip(runs, networks, strict=True)] if drawn else []
    listed, rejected, key = listing(source, output, ids)
    output.mkdir(parents=True, exist_ok=True)
    origins = [provenance.of_run(run) for run in runs]
    dicoms = DicomWriter.of(output / "dicom", origins, id_key(output), dicom == "keep") if dicom else None
    size = max(1, min(*(network.config.eval_batch for network in networks), len(listed)))

    def load(item: tuple[Path, Facts]) -> tuple[Path, Facts, list[np.ndarray], list[Placement], str]:
        """The facts of a file with its framed image for each network (as stored, too, and where it lies in each frame,
        to draw on it), or with the reason for its rejection."""
        path, facts = item
        try:
            mammogram = read(path, any_modality)
            places = [overlays.placed(network, mammogram.pixels) for network in networks]
            frames = [place.image(mammogram.pixels) for place in places]
            facts = facts_of(mammogram, facts, key)
            return path, facts, [*frames, mammogram.pixels] if maps else frames, places if maps else [], ""
        except BadMammogram as error:
            return path, facts, [], [], str(error)

    rows: list[tuple[Facts, float]] = []
    calibration = _calibration(runs, tta)
    with open_csv(output / "predictions.csv") as file, progress(len(listed), "image") as bar:
        writer = Writer(file, (*IMAGE_COLUMNS, *(calibration.columns if calibration else ())))
        for batch in ahead(load, listed, size):
            rejected += [(facts["image"], reason) for _, facts, *_, reason in batch if reason]
            framed = [item[:-1] for item in batch if not item[-1]]
            scores = ensemble(  # batches are always full: rejected files must not change the shape
                [network.score([item[2][k] for item in framed], tta, size) for k, network in enumerate(networks)]
            )
            for (path, facts, frames, places), p in zip(framed, scores.tolist(), strict=True):
                writer.row({**facts, "p_malignant": repr(p), **(calibration.cells(p) if calibration else {})})
                rows.append((facts, p))
                if maps:
                    whole = overlays.mean_map(places, frames[:-1], maps)
                if with_overlays:
                    overlays.save(output, str(len(rows)), frames[-1], whole, p)
                if dicoms:
                    dicoms.write(path, str(len(rows)), frames[-1], whole, p, facts["laterality"])
            file.flush()
            bar.update(len(batch))
    breasts = by_patient.of_images(rows)
    by_patient.write_breasts(output / "breasts.csv", breasts)
    by_patient.write_exams(output / "exams.csv", breasts)
    by_patient.write_patients(output / "patients.csv", breasts)
    return finish(output, rejected, f"{len(rows)} predicted, {len(rejected)} rejected", len(rows), origins, tta, ids)


def _calibration(runs: Sequence[Path], tta: str) -> Calibration | None:
    """The calibration of a run, if there is one run only and its calibration is for this augmentation."""
    calibrations = [calibration for run in runs if (calibration := Calibration.load(run))]
    if not calibrations:
        return None
    if len(runs) > 1 or calibrations[0].tta != tta:
        why = "it is of one run" if len(runs) > 1 else f"it is for --tta {calibrations[0].tta}"
        print(f"no calibrated probabilities and decisions: {why}", flush=True)
        return None
    return calibrations[0]


def _image_networks(runs: Sequence[Path]) -> list[ImagePredictor]:
    networks = [ImagePredictor.restore(run) for run in runs]
    for run, network in zip(runs, networks, strict=True):
        if network.config.model.task == "two_view":
            raise BadCheckpoint(f'"{run}" is a two-view run; give only such runs, or only whole-image ones.')
        if network.config.model.task != "whole":
            raise BadCheckpoint(f'"{run}" is a patch classifier; give the run of a whole-image classifier.')
    return networks


def predict_exams(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", patch_run: Path | None = None,
    any_modality: bool = False, threshold: int | None = None, ids: str = "",
) -> int:  # fmt: skip
    """Score the exams of a manifest, or of a folder of DICOMs (one study an exam).

    Several runs are an ensemble: the mean of their probabilities. Writes OUTPUT/exams.csv (EXAM_COLUMNS),
    OUTPUT/breasts.csv ("views": those that were used), OUTPUT/patients.csv (the highest score of a breast),
    OUTPUT/predictions.json and OUTPUT/rejected.csv, in full precision; exams with fewer
    than four views carry a note. Spot, magnification and other modified views are rejected, and so are files that are
    no mammograms, by Modality unless `any_modality`. `patch_run` and `threshold`: see `ExamPredictor.restore`. The
    pixels decide which way a breast faces, unless the manifest's horizontal_flip does ("NO": left breasts face right,
    as images are stored to hang).

    Returns:
        0, or 3 when no exam could be predicted.

    Raises:
        BadCheckpoint: a run cannot be used. BadManifest, BadMammogram: the input cannot be.
    """
    networks = [ExamPredictor.restore(run, patch_run, threshold) for run in runs]
    if any(network.config.model.target == "birads" for network in networks):
        raise BadCheckpoint("a BI-RADS network says nothing of cancer; give runs whose config.model.target is cancer.")
    listed, rejected, key = listing(source, output, ids)
    exams, done = _by_exam(listed, rejected, key, any_modality), 0
    breasts: list[by_patient.Breast] = []
    calibration = _calibration(runs, tta)
    output.mkdir(parents=True, exist_ok=True)
    bar = progress(len(exams), "exam")
    with open_csv(output / "exams.csv") as exam_file, open_csv(output / "breasts.csv") as breast_file, bar:
        breast_columns = (*BREAST_COLUMNS, *(calibration.columns if calibration else ()))
        exam_rows, breast_rows = Writer(exam_file, EXAM_COLUMNS), Writer(breast_file, breast_columns)
        for (exam_id, patient_id), images in exams.items():
            bar.update()
            try:
                decoded = _decoded(images, rejected, any_modality)
                scored = _score(networks, exam_id, decoded, tta, rejected)
            except BadMammogram as error:
                named = {name for name, _ in rejected}
                rejected += [(facts["image"], str(error)) for _, facts in images if facts["image"] not in named]
                continue
            exam_rows.row([exam_id, patient_id, *scored.cells(LABELS), "+".join(scored.views), "; ".join(scored.notes)])
            for side, breast in (("L", "left"), ("R", "right")):
                if views := [view[2:] for view in scored.used if view.startswith(side)]:
                    pair = scored.cells([f"{breast}_benign", f"{breast}_malignant"])
                    more = calibration.cells(float(pair[1])).values() if calibration else ()
                    breast_rows.row([exam_id, patient_id, side, "+".join(views), *pair, *more])
                    breasts.append(by_patient.Breast(exam_id, patient_id, side, "+".join(views), float(pair[1])))
            done += 1
            exam_file.flush()
            breast_file.flush()
    by_patient.write_patients(output / "patients.csv", breasts)
    summary, origins = f"{done} exams predicted, {len(rejected)} images rejected", list(map(provenance.of_run, runs))
    return finish(output, rejected, summary, done, origins, tta, ids)


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
    networks: Sequence[ExamPredictor], exam_id: str, images: Decoded, tta: str, rejected: Rejected
) -> ScoredExam:
    """Score an exam with all networks.

    Raises:
        BadMammogram: no image can be used, or a network needs views that are missing.
    """
    shared: dict[str, dict[str, list[View]]] = {}  # crops and heatmaps take most of the time
    scores, views = [], {}
    for network in networks:
        settings = network.view_settings
        if settings not in shared:
            shared[settings] = _views(network, images, rejected if network is networks[0] else [])
        views = shared[settings]
        scores.append(network.probabilities(views, exam_id, tta)[:, 1])
    mean = ensemble(scores)
    unscored = {label[0].upper() for label, value in zip(LABELS, mean, strict=True) if np.isnan(value)}
    by_any = {view for network in networks for view in network.used(views)}
    used = [view for view in VIEWS if view in by_any and view[0] not in unscored]
    return ScoredExam(mean, list(views), used, _notes(networks, views, unscored))


def _views(network: ExamPredictor, images: Decoded, rejected: Rejected) -> dict[str, list[View]]:
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax predict`."""
    parser.add_argument("--run", type=Path, required=True, action="append", help="the run's folder; several average")
    parser.add_argument(
        "--input", type=Path, required=True, help="a DICOM, PNG, JPEG, TIFF or PGM, a folder, a .zip, or a manifest"
    )
    parser.add_argument(
        "--output", type=arguments.folder, required=True, help="folder for predictions.csv and rejected.csv"
    )
    parser.add_argument(
        "--tta", choices=["none", "flips", "shifts9", "random10"], default="none", help="random10: exams"
    )
    parser.add_argument(
        "--format", choices=["csv", "dicom"], default="csv",
        help="dicom: beside the tables an overlay and a structured report of each DICOM, de-identified",
    )  # fmt: skip
    parser.add_argument(
        "--keep-identity", action="store_true", help="patient, study and UIDs as they are in what --format dicom writes"
    )
    parser.add_argument(
        "--ids", choices=["keep", "hash"], default="",
        help="patient and exam ids of headers and manifests alike; else: headers' hashed, a manifest's kept",
    )  # fmt: skip
    parser.add_argument("--any-modality", action="store_true", help="DICOMs of other modalities than mammography too")
    parser.add_argument(
        "--asymmetry", action="store_true", help="a column with each score against the patient's other breast"
    )
    parser.add_argument(
        "--overlays", action="store_true", help="draw each mammogram with its heatmap: overlays/<row>.png"
    )
    parser.add_argument("--patch-run", type=Path, help="the patch network of exam networks that take heatmaps")
    parser.add_argument(
        "--threshold",
        type=arguments.count,
        help="of exams: tissue is above this gray value of 0 to 65535; else as in training",
    )


def main(args: argparse.Namespace) -> int:
    """Run `mammojax predict`; see `predict`."""
    if args.keep_identity and args.format != "dicom":
        raise BadCheckpoint("--keep-identity is of --format dicom; for tables write --ids keep.")
    dicom = "" if args.format == "csv" else "keep" if args.keep_identity else "deidentified"
    return predict(
        args.run, args.input, args.output, args.tta, args.patch_run, args.any_modality, args.threshold, args.asymmetry,
        args.overlays, args.ids, dicom,
    )  # fmt: skip
