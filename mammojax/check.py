"""`mammojax check`: what a manifest or a folder of mammograms holds, and what stands in the way of training on it."""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mammojax import arguments, train_patients
from mammojax.data import archive, concerns, dataset, manifest, prepare
from mammojax.data.breast import Framing
from mammojax.data.concerns import CANNOT, NOTE, WARNING, Concern
from mammojax.data.manifest import Image, Table
from mammojax.data.survey import Seen, survey
from mammojax.errors import BadMammogram, NotPrepared, UserError, near_file
from mammojax.evaluate.check_report import SPLIT_HEADER, VERDICTS, Checked, split_rows, write_check
from mammojax.evaluate.inputs import TABLES
from mammojax.evaluate.text_table import WIDTH, text_table
from mammojax.train.checkpoint import read_config

EXIT_CODES = {NOTE: 0, WARNING: 1, CANNOT: 2}
_SHOWN = 5  # files of a concern in the terminal


def check(source: Path, run: Path | None = None, words: str = "") -> Checked:
    """Look at every image of a data set.

    Args:
        source: a manifest's CSV, a folder with a manifest.csv, a folder or a .zip of images, or one image.
        run: a run whose framing, gray levels and training patients the data are compared with.
        words: the meaning of a manifest's words for pathologies, see `manifest.read_map`.

    Raises:
        BadManifest: the manifest cannot be read at all. BadMammogram: there is no such file or folder.
        BadCheckpoint: the run is none.
    """
    if source.suffix.lower() == ".zip":
        with archive.as_folder(source) as folder:
            return replace(check(folder, run, words), name=source.name)
    config, facts = read_config(run) if run else (None, {})
    table, of_manifest = _table(source, words)
    framed: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels  # noqa: E731
    if framing := facts.get("framing"):
        frame = Framing.from_json(framing)
        framed = lambda pixels: frame.place(pixels).image(pixels)  # noqa: E731
    seen = survey(table.images, framed)
    if not of_manifest:  # the headers alone say who is who
        seen = [replace(file, image=_named(file)) for file in seen]
        table = replace(table, images=[file.image for file in seen])
    usable = [file.image for file in seen if not file.reason]
    splits, found = concerns.splits_of(usable) if usable else ({}, [])
    ranges = _ranges(run, facts) if run else {}
    found = [*found, *concerns.beyond(seen, ranges), *concerns.concerns_of(table, seen, splits)]
    if run and config is not None and of_manifest:
        found += _known_patients(run, config.data.name, usable)
    if run and not ranges:
        found.append(Concern(NOTE, "The run does not say how bright its training images were, and its data are gone."))
    found.sort(key=lambda concern: list(reversed(EXIT_CODES)).index(concern.kind))
    return Checked(source.name, table, seen, splits, found, run.name if run else "", ranges)


def _table(source: Path, words: str) -> tuple[Table, bool]:
    """The images of a manifest, or of a folder, and whether it is a manifest."""
    if not source.exists():
        remedy = "give a manifest, a folder or an image."
        raise BadMammogram(f'"{source}": there is no such file or folder; {near_file(source, remedy)}')
    if (source / "manifest.csv").is_file() or source.suffix.lower() in TABLES:
        with tempfile.TemporaryDirectory() as keys:  # ids of headers only group images here
            return manifest.read_manifest(source, manifest.read_map(words), Path(keys)), True
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    if not files:
        raise BadMammogram(f'"{source}": the folder has no file; give a manifest, a folder of images or an image.')
    names = [path.relative_to(source).as_posix() if source.is_dir() else path.name for path in files]
    return Table([Image(name, path, name) for name, path in zip(names, files, strict=True)]), False


def _named(file: Seen) -> Image:
    """The image of a file that no manifest names, with what its header says."""
    patient = file.header_patient or file.image.image
    return replace(file.image, patient_id=patient, laterality=file.laterality, view=file.view)


def _ranges(run: Path, facts: Mapping[str, Any]) -> dict[str, list[float]]:
    """The gray levels of a run's training images: of its facts, else of its data set if that still exists."""
    if "levels" in facts:
        return dict(facts["levels"])
    try:
        data = dataset.of_run(run)
    except (NotPrepared, UserError, KeyError):
        return {}
    return prepare.training_levels(data) if data.facts["kind"] in prepare.WITHOUT_PATCHES else {}


def _known_patients(run: Path, name: str, images: list[Image]) -> list[Concern]:
    """Patients that the run was trained on: its scores on them are better than on others."""
    learned = {patient for data_set, patient in train_patients.read(run).patients if data_set in ("", "manifest")}
    known = [(image.image, "its patient is") for image in images if image.patient_id in learned]
    if not known or name != "manifest":
        return []
    patients = len({image.patient_id for image in images if image.patient_id in learned})
    text = f"The run was trained on {patients} of these patients; do not measure it on them."
    return [Concern(WARNING, text, known)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax check`."""
    parser.add_argument("input", type=Path, help="a manifest, a folder or .zip of images, or an image")
    parser.add_argument("--run", type=Path, help="compare with what this run was trained on")
    parser.add_argument("--output", type=arguments.file(".html"), help="also write a page with a contact sheet")
    parser.add_argument("--map", default="", help="a manifest's words for pathologies, such as 0=BENIGN,1=MALIGNANT")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax check`; exit code 0 fine, 1 warnings, 2 cannot train."""
    checked = check(args.input, args.run, args.map)
    print(f"{VERDICTS[checked.verdict]}: {len(checked.used)} images of {checked.name}\n")
    print(text_table(SPLIT_HEADER, split_rows(checked)))
    for concern in checked.concerns:
        print(f"\n{concern.kind}: {concern.text}")
        for name, what in concern.files[:_SHOWN]:
            print(f"    {name}: {what}"[: 2 * WIDTH])
        if len(concern.files) > _SHOWN:
            print(f"    … and {len(concern.files) - _SHOWN} more" + (", see the page" if args.output else ""))
    if args.output:
        write_check(args.output, checked)
        print(f"\n→ {args.output}", flush=True)
    return EXIT_CODES[checked.verdict]
