"""`mammojax predict`: mammograms or exams from files to tables; each file is predicted or listed in rejected.csv."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mammojax import arguments, processes
from mammojax.data import archive, beam
from mammojax.data.breast import Placement
from mammojax.data.cells import Writer
from mammojax.errors import BadCheckpoint, BadMammogram
from mammojax.evaluate import by_patient, other_breast, overlays, parts, pictures, provenance, table
from mammojax.evaluate.calibration import Calibration
from mammojax.evaluate.inputs import Facts, ahead, facts_of, finish, listing, open_csv
from mammojax.evaluate.pictures import Pictures
from mammojax.evaluate.predict_exams import predict_exams
from mammojax.evaluate.predict_pairs import predict_pairs
from mammojax.evaluate.predictor import ImagePredictor, ensemble, read
from mammojax.evaluate.table import IMAGE_COLUMNS
from mammojax.train.checkpoint import read_config


def predict(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", patch_run: Path | None = None,
    any_modality: bool = False, threshold: int | None = None, asymmetry: bool = False,
    drawn: str = "", ids: str = "", dicom: str = "", runner: beam.Runner | None = None,
) -> int:  # fmt: skip
    """Score mammograms with whole-image runs, breasts with two-view runs, or exams with exam runs; see
    `predict_images`, `predict_pairs.predict_pairs` and `predict_exams.predict_exams`.

    A .zip counts as the folder that it holds. With `asymmetry` predictions.csv of images and breasts.csv get a last
    column of that name: how much higher the log odds are than those of the same patient's other breast
    (`other_breast.asymmetry`), empty where that has no score.

    All processes of a run call it alike: each scores its share, and the first writes the tables. With `runner`, of
    Beam, its workers score; they see the same paths.
    """
    if source.suffix.lower() == ".zip":
        if runner:
            raise BadMammogram("Beam's workers see no .zip that is unpacked here; unpack it and give the folder.")
        with archive.as_folder(source) as folder:
            return predict(runs, folder, output, tta, patch_run, any_modality, threshold, asymmetry, drawn, ids, dicom)
    task = read_config(runs[0])[0].model.task
    if task == "exam":
        if tta in ("flips", "shifts9"):
            raise BadCheckpoint(f"{tta} are for whole-image runs; exams are predicted with --tta none or random10.")
        if drawn == "saliency":
            raise BadCheckpoint("--overlays saliency is for whole-image runs; exams take --overlays, the heatmap.")
        calibration = _calibration(runs, tta)
        code = predict_exams(
            runs, source, output, tta, patch_run, any_modality, threshold, calibration, ids, drawn, dicom, runner
        )
        return _add_asymmetry(output, ("breasts.csv",), code) if asymmetry else code
    if tta == "random10" or patch_run or threshold is not None:
        raise BadCheckpoint(
            "random10, --patch-run and --threshold are for exams; whole images take --tta none, flips or shifts9."
        )
    if task == "two_view":
        calibration = _calibration(runs, tta)
        code = predict_pairs(runs, source, output, tta, any_modality, calibration, ids, drawn, dicom, runner)
        return _add_asymmetry(output, ("breasts.csv",), code) if asymmetry else code
    code = predict_images(runs, source, output, tta, any_modality, drawn, ids, dicom, runner)
    return _add_asymmetry(output, ("predictions.csv", "breasts.csv"), code) if asymmetry else code


def _add_asymmetry(output: Path, names: Sequence[str], code: int) -> int:
    """Add the column `asymmetry` to tables of OUTPUT; `code` is returned."""
    with processes.in_turn() as first:
        for name in names if first else ():
            _add_column(output / name)
    return code


def _add_column(path: Path) -> None:
    """Add the column `asymmetry` to a table of images or breasts."""
    frame = table.read_csv(path)
    scores = pd.to_numeric(frame["p_malignant"]).to_numpy(np.float64)  # an exam's breast may have no score
    scored = np.isfinite(scores)
    values = np.full(len(frame), np.nan)
    values[scored] = other_breast.asymmetry(frame[scored].assign(p_malignant=scores[scored]))
    table.write(path, frame.assign(asymmetry=[repr(float(x)) if np.isfinite(x) else "" for x in values]))


def predict_images(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", any_modality: bool = False,
    drawn: str = "", ids: str = "", dicom: str = "", runner: beam.Runner | None = None,
) -> int:  # fmt: skip
    """Score a file, every file below a folder, or the images of a manifest.

    Several runs are an ensemble: the mean of their malignant scores, each framing the image its own way (Shen et al.
    2019, "Augmented prediction and model averaging"). Writes OUTPUT/predictions.csv (IMAGE_COLUMNS; label empty where
    unknown), OUTPUT/breasts.csv (BREAST_COLUMNS; the mean over a breast's views, of images whose side and view are
    known), OUTPUT/exams.csv and patients.csv (see `by_patient`), OUTPUT/predictions.json (the runs and their training
    data), OUTPUT/predictions.html (see `predict_report`) and OUTPUT/rejected.csv (file, reason): each file is there or
    in predictions.csv. Ids from DICOM headers
    become keyed hashes (the key: OUTPUT/.id_key) and a manifest's are kept, unless `ids` says otherwise, see
    `inputs.listing`. Files that are no mammograms are rejected, by Modality too unless `any_modality`. `drawn`,
    "heatmap" or "saliency", writes OUTPUT/overlays/<row of predictions.csv>.png, the first row being 1.png: the full
    mammogram, and that map over it. `dicom`, "deidentified" or "keep" (the identity), writes
    OUTPUT/dicom/<row>_overlay.dcm and <row>_report.dcm of each row that comes from a DICOM, see `dicom_out`.
    `runner`: see `parts.run`.

    Returns:
        0, or 3 when no image could be predicted.

    Raises:
        BadCheckpoint: a run cannot be used. BadManifest, BadMammogram: the input cannot be used.
    """
    opening = tuple(runs), pictures.kinds(drawn, dicom)
    networks, _ = opened = _image_networks(*opening)
    listed, rejected, key = listing(source, output, ids)
    output.mkdir(parents=True, exist_ok=True)
    origins = [provenance.of_run(run) for run in runs]
    of_images = Pictures.of(output, drawn, dicom, origins)
    size = max(1, min(*(network.config.eval_batch for network in networks), len(listed)))
    calibration = _calibration(runs, tta)

    def write(results: Iterator[_ScoredImage]) -> int:
        rows: list[tuple[Facts, float]] = []
        with open_csv(output / "predictions.csv") as file:
            writer = Writer(file, (*IMAGE_COLUMNS, *(calibration.columns if calibration else ())))
            for position, facts, p, reason in results:
                if p is None:
                    rejected.append((facts["image"], reason))
                    continue
                writer.row({**facts, "p_malignant": repr(p), **(calibration.cells(p) if calibration else {})})
                file.flush()
                rows.append((facts, p))
                of_images.place(output, position, len(rows))
        breasts = by_patient.of_images(rows)
        by_patient.write_breasts(output / "breasts.csv", breasts)
        by_patient.write_exams(output / "exams.csv", breasts)
        by_patient.write_patients(output / "patients.csv", breasts)
        summary = f"{len(rows)} predicted, {len(rejected)} rejected"
        return finish(output, rejected, summary, len(rows), origins, tta, ids)

    work = parts.Work(_image_networks, opening, _score_images, (tta, any_modality, key, of_images))
    return parts.run(work, opened, listed, size, output, "image", write, runner)


_ScoredImage = tuple[int, Facts, float | None, str]
"""An image's position in the list, its facts, and its score or, without one, the reason."""
Maps = dict[str, list[overlays.Map]]
"""The maps of each network by kind, of `overlays.KINDS`."""


def _score_images(
    opened: tuple[list[ImagePredictor], Maps], listed: parts.Numbered, size: int, tta: str, any_modality: bool,
    key: bytes, of_images: Pictures,
) -> Iterator[_ScoredImage]:  # fmt: skip
    """Score images, `size` at a time.

    Args:
        opened: from `_image_networks`.
        listed: paths and facts.
        size, tta, any_modality: see `predict_images`.
        key: of the ids, see `inputs.listing`.
        of_images: what is drawn.
    """
    networks, maps = opened

    def load(item: tuple[int, tuple[Path, Facts]]) -> tuple[Facts, list[np.ndarray], list[Placement], str]:
        """The facts of a file with its framed image for each network (as stored, too, and where it lies in each frame,
        to draw on it), or with the reason for its rejection."""
        path, facts = item[1]
        try:
            mammogram = read(path, any_modality)
            places = [overlays.placed(network, mammogram.pixels) for network in networks]
            frames = [place.image(mammogram.pixels) for place in places]
            facts = facts_of(mammogram, facts, key)
            return facts, [*frames, mammogram.pixels] if maps else frames, places if maps else [], ""
        except BadMammogram as error:
            return facts, [], [], str(error)

    loaded = ahead(load, listed, size)
    for start, batch in zip(range(0, len(listed), size), loaded, strict=True):
        framed = [item for item in batch if not item[-1]]
        scores = ensemble(  # batches are always full: rejected files must not change the shape
            [network.score([item[1][k] for item in framed], tta, size) for k, network in enumerate(networks)]
        )
        following = iter(scores.tolist())
        for (position, (path, _)), (facts, frames, places, reason) in zip(listed[start:], batch, strict=False):
            if reason:
                yield position, facts, None, reason
                continue
            p = next(following)
            if maps:
                whole = {kind: overlays.mean_map(places, frames[:-1], of_kind) for kind, of_kind in maps.items()}
                of_images.write(path, str(position), frames[-1], whole, p, facts["laterality"])
            yield position, facts, p, ""


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


def _image_networks(runs: Sequence[Path], kinds: Sequence[str]) -> tuple[list[ImagePredictor], Maps]:
    """The networks of whole-image runs and, to draw them, their maps of some kinds."""
    networks = [ImagePredictor.restore(run) for run in runs]
    for run, network in zip(runs, networks, strict=True):
        if network.config.model.task == "two_view":
            raise BadCheckpoint(f'"{run}" is a two-view run; give only such runs, or only whole-image ones.')
        if network.config.model.task != "whole":
            raise BadCheckpoint(f'"{run}" is a patch classifier; give the run of a whole-image classifier.')
    pairs = list(zip(runs, networks, strict=True))
    return networks, {kind: [overlays.map_of(run, network, kind) for run, network in pairs] for kind in kinds}


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
        "--overlays", nargs="?", const="heatmap", default="", choices=overlays.KINDS,
        help="draw each mammogram under its heatmap, or its saliency: overlays/<row>.png",
    )  # fmt: skip
    parser.add_argument("--patch-run", type=Path, help="the patch network of exam networks that take heatmaps")
    parser.add_argument(
        "--threshold",
        type=arguments.count,
        help="of exams: tissue is above this gray value of 0 to 65535; else as in training",
    )
    processes.add_arguments(parser)
    beam.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run `mammojax predict`; see `predict`."""
    if args.keep_identity and args.format != "dicom":
        raise BadCheckpoint("--keep-identity is of --format dicom; for tables write --ids keep.")
    dicom = "" if args.format == "csv" else "keep" if args.keep_identity else "deidentified"
    runner = beam.of(args)
    processes.start(args.coordinator, args.num_processes, args.process_id)
    with processes.losses_as_sentences():
        command = {name: str(value) for name, value in vars(args).items() if name not in processes.FLAGS}
        processes.refuse_different(json.dumps(command))
        return predict(
            args.run, args.input, args.output, args.tta, args.patch_run, args.any_modality, args.threshold,
            args.asymmetry, args.overlays, args.ids, dicom, runner,
        )  # fmt: skip
