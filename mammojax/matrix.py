"""`mammojax matrix`: several runs on several data sets, "train on A, test on B", as one table and one picture."""

import argparse
import hashlib
import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from mammojax import arguments, train_patients
from mammojax.data import manifest, manifest_writer
from mammojax.data.dicom import read_facts
from mammojax.data.manifest import Image
from mammojax.data.recipe import Recipe
from mammojax.errors import BadCheckpoint, BadDataset, BadMammogram, UserError
from mammojax.evaluate import measure, plots, report, table
from mammojax.evaluate.predict import predict
from mammojax.evaluate.report import interval_text
from mammojax.evaluate.table import Predictions
from mammojax.evaluate.text_table import WIDTH, text_table
from mammojax.train.checkpoint import read_config

UNITS = ("breast", "image")
HEADER = ("run", "trained on", "measured on", "patients", "left out", "AUC by breast", "AUC by image", "note")
NOTES = (
    "Brackets and bars: 95 % intervals from draws of that data set's patients; the chance of training is not in them.",
    "Left out: patients that the run, or one it started from, was trained on or whose images chose its epoch.",
    "Compare runs within a data set. AUCs of different data sets are of different case mixes: the share of cancers, of"
    " benign findings and of normal breasts, and what the labels come from (a BI-RADS category is no biopsy).",
)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A manifest as it is measured.

    Attributes:
        name: of its file or folder.
        images: the rows of its test split; without a split column all.
        path: a manifest of these images alone.
        rows: in words, which they are.
    """

    name: str
    images: list[Image]
    path: Path
    rows: str

    @property
    def digest(self) -> str:
        """Tells one set of rows from another."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Trained:
    """A run, and the patients it must not be measured on.

    Attributes:
        name: of its folder.
        path: the folder.
        task: of its network.
        data: the name of the data set it was trained on.
        origin: the folder or file of that data set; None where it is not known.
        known: (data set, patient id) of those patients; "" for the data set where a file names none.
    """

    name: str
    path: Path
    task: str
    data: str
    origin: Path | None
    known: set[tuple[str, str]]

    @property
    def digest(self) -> str:
        """Tells one config and its weights from another."""
        digest = hashlib.sha256((self.path / "config.json").read_bytes())
        best = self.path / "checkpoints" / "best"
        for file in sorted(path for path in best.rglob("*") if path.is_file()):
            digest.update(f"{file.relative_to(best)}\n".encode() + file.read_bytes())
        return digest.hexdigest()[:16]

    def knows(self, image: Image) -> bool:
        """Whether it was trained, or its epoch chosen, on the image's patient; equal ids count in one data set."""
        names = {"", "manifest", image.columns.get("data_set", "manifest")}
        if self.origin is not None and image.path.resolve().is_relative_to(self.origin):
            names |= {name for name, _ in self.known}  # the very files of its own data set
        return any((name, image.patient_id) in self.known for name in names)


@dataclass(frozen=True, eq=False)
class Cell:
    """What a run says of a data set.

    Attributes:
        run, data: of the cell.
        auc, pr_auc: by unit of UNITS, as `measure.estimate` has them; None where they cannot be measured.
        patients: that were measured.
        left_out: patients, see `Trained.knows`.
        rejected: files that the run could not predict.
        note: why there is no number.
    """

    run: Trained
    data: DataSet
    auc: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)
    pr_auc: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)
    patients: int = 0
    left_out: int = 0
    rejected: int = 0
    note: str = ""


def matrix(runs: Sequence[Path], data: Sequence[Path], output: Path, augmented: bool = False, words: str = "",
           draws: int = measure.RUNS) -> list[Cell]:  # fmt: skip
    """Predict every data set with every run, and measure. A finished cell is not predicted again.

    Args:
        runs: folders of whole-image, two-view or exam runs.
        data: manifests, or folders with a manifest.csv.
        output: the folder of the predictions, OUTPUT/cells/RUN/DATA.
        augmented: average an image's flips, an exam's ten windows.
        words: the meaning of the manifests' words for pathologies, see `manifest.read_map`.
        draws: of patients, for the intervals.

    Returns:
        The cells, run by run.

    Raises:
        BadCheckpoint: a run cannot be used, or OUTPUT holds a cell of another run or other data by that name.
        BadManifest: a manifest cannot be used. NotComparable: a run or a manifest is given twice.
    """
    trained = [_trained(path, name) for path, name in zip(runs, table.names_of(runs), strict=True)]
    plain = [path if path.is_dir() else path.parent if path.name == "manifest.csv" else path.with_suffix("")
             for path in data]  # fmt: skip
    sets = [_data_set(path, name, output, words) for path, name in zip(data, table.names_of(plain), strict=True)]
    for run in trained:  # before anything is predicted
        for data_set in sets:
            _is_finished(output, run, data_set, augmented)
    return [_cell(run, data_set, output, augmented, draws) for run in trained for data_set in sets]


def _trained(path: Path, name: str) -> Trained:
    config, _ = read_config(path)
    if config.model.task in ("patch", "exam_patch"):
        raise BadCheckpoint(f'"{path}" is a patch classifier; give runs that say something of whole images or exams.')
    known = set(train_patients.read(path).patients)
    source: Mapping[str, Any] = config.get("data") or {}
    own = source.get("name", "published weights")
    for file in ("val", "val_random10"):
        rows = path / "predictions" / f"{file}.csv"
        if rows.is_file():
            known |= {(own, patient) for patient in table.read_csv(rows).get("patient_id", ())}
    try:
        origin = Recipe.of_run(config, path).origin.resolve() if source else None
    except (BadDataset, KeyError):
        origin = None
    if origin is not None and origin.is_file():
        origin = origin.parent
    return Trained(name, path, config.model.task, own, origin, known)


def _data_set(path: Path, name: str, output: Path, words: str) -> DataSet:
    read = manifest.read_manifest(path, manifest.read_map(words), output)
    manifest.leave_out_copies(read)
    test = [image for image in read.images if image.split == "test"]
    divided = any(image.split for image in read.images)
    if divided and not test:
        raise BadDataset(f"{name}: its split column names no test image; name some, or leave the column empty.")
    file = output / "data" / f"{name.replace('/', '__')}.csv"
    images = [_with_side(image) for image in (test if divided else read.images)]
    manifest_writer.write(file, replace(read, images=images))
    written = {image.path.resolve(): image for image in manifest.read_manifest(file, id_folder=output).images}
    images = [replace(image, image=written[image.path.resolve()].image) for image in images]
    return DataSet(name, images, file, "test split" if divided else "all rows")


def _with_side(image: Image) -> Image:
    """The image with the side and view of its header where the manifest names none."""
    if image.laterality and image.view:
        return image
    try:
        facts = read_facts(image.path)
    except BadMammogram:  # listed when it is predicted
        return image
    return replace(image, laterality=image.laterality or facts.laterality, view=image.view or facts.view)


def _folder(output: Path, run: Trained, data: DataSet) -> Path:
    return output / "cells" / run.name.replace("/", "__") / data.name.replace("/", "__")


def _is_finished(output: Path, run: Trained, data: DataSet, augmented: bool) -> bool:
    """Whether a cell has been predicted already.

    Raises:
        BadCheckpoint: its folder is of another run, other data or without `augmented`.
    """
    file = _folder(output, run, data) / "cell.json"
    if not file.is_file():
        return False
    now = {"run": run.digest, "data": data.digest, "augmented": augmented}
    if differing := [key for key, value in json.loads(file.read_text()).items() if value != now.get(key)]:
        raise BadCheckpoint(
            f'"{file.parent}" was predicted with another {" and ".join(differing)}; remove that folder, or give '
            "another --output."
        )
    return True


def _cell(run: Trained, data: DataSet, output: Path, augmented: bool, draws: int) -> Cell:
    folder = _folder(output, run, data)
    if not _is_finished(output, run, data, augmented):
        tta = "none" if not augmented else "random10" if run.task == "exam" else "flips"
        try:
            predict([run.path], data.path, folder, tta)
        except UserError as error:
            return Cell(run, data, note=str(error))
        done = {"run": run.digest, "data": data.digest, "augmented": augmented}
        (folder / "cell.json").write_text(json.dumps(done) + "\n")
    else:
        print(f"{run.name} on {data.name}: predicted before", flush=True)
    kept = [image for image in data.images if not run.knows(image)]
    by_unit = {unit: _predictions(folder, kept, unit) for unit in UNITS}
    found = {unit: breasts for unit, breasts in by_unit.items() if breasts is not None and len(breasts)}
    estimates = {
        metric: {unit: measure.estimate(breasts, "malignant", metric, draws) for unit, breasts in found.items()}
        for metric in measure.METRICS
    }
    rejected = len(table.read_csv(folder / "rejected.csv")) if (folder / "rejected.csv").is_file() else 0
    note = "" if found else "no labelled image could be predicted"
    if found and not any(estimates["auc"].values()):
        note = "images of one class only"
    patients = {patient for breasts in found.values() for patient in breasts.patient}
    left_out = {image.patient_id for image in data.images} - {image.patient_id for image in kept}
    return Cell(run, data, estimates["auc"], estimates["pr_auc"], len(patients), len(left_out), rejected, note)


def _predictions(folder: Path, kept: Sequence[Image], unit: str) -> Predictions | None:
    """The labelled predictions of a cell by image, or by breast with the breast's label; None without such a file."""
    file = folder / ("predictions.csv" if unit == "image" else "breasts.csv")
    if not file.is_file():
        return None
    frame = table.read_csv(file)
    keys = ["image"] if unit == "image" else ["exam_id", "patient_id", "laterality"]
    if not len(frame) or "p_malignant" not in frame:
        return None
    labels: dict[tuple[str, ...], int] = {}
    for image in kept:
        breast = (image.exam_id or image.patient_id, image.patient_id, image.laterality)
        key = (image.image,) if unit == "image" else breast
        labels[key] = max(image.label, labels.get(key, -1))
    if unit == "breast":  # whole-image runs leave an unknown exam empty, exam runs put the patient there
        frame["exam_id"] = frame["exam_id"].where(frame["exam_id"] != "", frame["patient_id"])
    label = [labels.get(tuple(row), -1) for row in frame[keys].itertuples(index=False, name=None)]
    frame = frame.assign(malignant=label, p_malignant=frame["p_malignant"].replace("", "nan").map(float))
    usable = (frame["malignant"] >= 0) & frame["p_malignant"].notna()
    return Predictions(unit, frame[usable].reset_index(drop=True))


def rows_of(cells: Sequence[Cell]) -> list[list[str]]:
    """The table's cells, HEADER by column."""
    return [
        [cell.run.name, cell.run.data, cell.data.name, str(cell.patients), str(cell.left_out),
         *(report.with_counts(cell.auc.get(unit)) for unit in UNITS),
         cell.note or (f"{cell.rejected} files rejected" if cell.rejected else "")]
        for cell in cells
    ]  # fmt: skip


def data_rows(cells: Sequence[Cell]) -> list[list[str]]:
    """A row for each data set: what is measured, and what its labels come from."""
    rows = []
    for data in dict.fromkeys(cell.data for cell in cells):
        kinds = Counter(image.pathology or "unknown" for image in data.images)
        sources = Counter(image.columns.get("label_source") or "not stated" for image in data.images if image.pathology)
        patients = len({image.patient_id for image in data.images})
        counts = ", ".join(f"{kind.lower()} {kinds[kind]}" for kind in sorted(kinds))
        labels = ", ".join(f"{source} {count}" for source, count in sources.most_common())
        rows.append([data.name, data.rows, str(len(data.images)), str(patients), counts, labels or "–"])
    return rows


def frame_of(cells: Sequence[Cell]) -> pd.DataFrame:
    """The numbers, a row for each cell and unit."""
    rows = []
    for cell in cells:
        facts = {"run": cell.run.name, "trained_on": cell.run.data, "measured_on": cell.data.name}
        counts = {"patients": cell.patients, "patients_left_out": cell.left_out, "files_rejected": cell.rejected}
        for unit in UNITS:
            auc, pr_auc = cell.auc.get(unit), cell.pr_auc.get(unit)
            negatives, positives = auc["n"] if auc else ("", "")
            rows.append(
                facts | {"unit": unit, "negatives": negatives, "positives": positives} | _numbers("auc", auc)
                | _numbers("pr_auc", pr_auc) | counts | {"note": cell.note}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _numbers(name: str, estimate: Mapping[str, Any] | None) -> dict[str, Any]:
    keys = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
    return {column: "" if not estimate or estimate[key] is None else estimate[key] for key, column in keys.items()}


def picture(cells: Sequence[Cell]) -> Figure:
    """A panel for each data set with the AUC and interval of each run; by breast where every run has breasts there."""
    runs = list(dict.fromkeys(cell.run for cell in cells))
    sets = list(dict.fromkeys(cell.data for cell in cells))
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(1.6 + 3.1 * len(sets), 1.2 + 0.5 * len(runs)), layout="constrained")
        panels = figure.subplots(1, len(sets), sharex=True, sharey=True, squeeze=False)[0]
        for axes, data in zip(panels, sets, strict=True):
            column = [cell for cell in cells if cell.data is data]
            unit = "breast" if all(cell.auc.get("breast") for cell in column if not cell.note) else "image"
            plots.intervals(
                axes, [run.name for run in runs], [cell.auc.get(unit) for cell in column],
                [interval_text(cell.auc.get(unit)) if cell.auc.get(unit) else "–" for cell in column],
            )  # fmt: skip
            axes.set(title=data.name, xlabel=f"AUC by {unit}")
        bounds = [
            estimate[end] for cell in cells for estimate in cell.auc.values() if estimate for end in ("value", "low")
        ]
        panels[0].set_xlim(min(0.45, *(bound - 0.03 for bound in bounds if bound is not None), 1.0), 1.02)
    return figure


def write(cells: Sequence[Cell], output: Path) -> None:
    """Print the table; write OUTPUT/matrix.csv, matrix.png and matrix.html."""
    figure = picture(cells)
    text = "By breast: the mean of its views. Behind n the numbers of each class, negatives first."
    columns = ("data set", "rows", "images", "patients", "pathology", "label from")
    sections = [
        report.Section("AUC", text, HEADER, rows_of(cells), words=True),
        report.Section("Intervals by patient", figures=[("AUC of each run on each data set", report.png(figure))],
                       layout="wide"),
        report.Section("What was measured", header=columns, rows=data_rows(cells), words=True),
    ]  # fmt: skip
    for section in (sections[2], sections[0]):
        text = f"\n{section.text}\n" if section.text else ""
        print(f"\n## {section.heading}\n{text}\n{text_table(section.header, section.rows)}")
    print()
    for note in NOTES:
        print(textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  "))
    table.write(output / "matrix.csv", frame_of(cells))
    figure.savefig(output / "matrix.png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    report.write_page(output / "matrix.html", "Runs on data sets", NOTES, sections)
    print(f"\n→ {output / 'matrix.html'}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax matrix`."""
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run folders, converted or your own")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="manifests, or folders with a manifest.csv")
    parser.add_argument("--output", type=arguments.folder, required=True, help="a folder; run again to go on")
    parser.add_argument(
        "--augmented", action="store_true", help="average four flips of an image, ten windows of an exam"
    )
    parser.add_argument("--map", default="", help="the manifests' words for pathologies, such as 0=BENIGN,1=MALIGNANT")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax matrix`; exit code 3 where nothing could be measured."""
    cells = matrix(args.runs, args.data, args.output, args.augmented, args.map)
    write(cells, args.output)
    return 0 if any(any(cell.auc.values()) for cell in cells) else 3
