"""What `mammojax check` shows of a data set: tables for the terminal and the page, gray levels, a contact sheet."""

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mammojax.data.concerns import CANNOT, NOTE, WARNING, Concern
from mammojax.data.levels import LEVELS
from mammojax.data.manifest import SPLITS, Table
from mammojax.data.survey import Seen
from mammojax.evaluate import plots
from mammojax.evaluate.report import Section, png, write_page

SHEET = 60
"""Images of the contact sheet; those with a concern come first."""
MOST_VALUES = 12
VERDICTS = {CANNOT: "It cannot be trained on as it is", WARNING: "Warnings", NOTE: "Fine"}


@dataclass(frozen=True)
class Checked:
    """A data set as `mammojax check` found it.

    Attributes:
        name: of the manifest or folder.
        table: of its images.
        seen: their files, in the table's order.
        splits: patient → split, {} where there is none.
        concerns: most serious first.
        run: the name of the run it was compared with, or "".
        ranges: the gray levels of that run's training images, see `levels.ranges`; {} where unknown.
    """

    name: str
    table: Table
    seen: Sequence[Seen]
    splits: dict[str, str]
    concerns: Sequence[Concern]
    run: str = ""
    ranges: dict[str, list[float]] | None = None

    @property
    def verdict(self) -> str:
        """CANNOT, WARNING or NOTE: the worst of its concerns."""
        kinds = {concern.kind for concern in self.concerns}
        return next((kind for kind in (CANNOT, WARNING) if kind in kinds), NOTE)

    @property
    def used(self) -> list[Seen]:
        """The files that can be used."""
        return [file for file in self.seen if not file.reason]


def split_rows(checked: Checked) -> list[list[str]]:
    """A row for each split: images by label, and patients with a malignant image among all."""
    rows = []
    for split in (*SPLITS, "all"):
        images = [f.image for f in checked.used if split in ("all", checked.splits.get(f.image.patient_id, ""))]
        if not images:
            continue
        labels = Counter(image.pathology for image in images)
        sick = {image.patient_id for image in images if image.label == 1}
        counts = [labels[name] for name in ("MALIGNANT", "BENIGN", "NORMAL", "")]
        rows.append([split, *map(str, (len(images), *counts, len({i.patient_id for i in images}), len(sick)))])
    return rows


SPLIT_HEADER = ("split", "images", "malignant", "benign", "normal", "unknown", "patients", "with a malignant image")


def value_rows(checked: Checked) -> list[list[str]]:
    """(what, value, images, share) of everything counted by image; empty values are "not stated"."""
    used = checked.used
    of_file = {
        "view": [f"{f.image.laterality or f.laterality or '?'} {f.image.view or f.view or '?'}" for f in used],
        "file": [f.encoding for f in used],
        "photometric interpretation": [f.photometric for f in used],
        "SOP class": [f.sop_class for f in used],
        "modality": [f.modality for f in used],
        "maker": [f.maker for f in used],
        "bits stored": [str(f.bits or "") for f in used],
        "size, height × width": [f"{f.shape[0]} × {f.shape[1]}" for f in used],
        "pixel spacing in mm": [f"{f.spacing[0]:.3f} × {f.spacing[1]:.3f}" if f.spacing else "" for f in used],
        "BurnedInAnnotation": [f.burned_in for f in used],
        "letters in the image": ["yes" if f.letters else "no" for f in used],
    }
    patients = Counter(f.image.patient_id for f in used)
    rows = []
    for what, values in of_file.items():
        rows += _counted(what, values)
    for column in sorted({c for f in used for c in f.image.columns if c}):
        values = [f.image.columns.get(column, "") for f in used]
        if len(set(values)) <= MOST_VALUES:  # more are ids, dates or numbers, which no page shows
            rows += _counted(f"column {column}", values)
    return rows + _counted("images of a patient", [str(n) for n in patients.values()])


def _counted(what: str, values: Sequence[str]) -> list[list[str]]:
    counts = Counter(value or "not stated" for value in values).most_common()
    rows = [[what, value, str(n), f"{n / max(len(values), 1):.0%}"] for value, n in counts[:MOST_VALUES]]
    if rest := counts[MOST_VALUES:]:
        n = sum(n for _, n in rest)
        rows.append([what, f"{len(rest)} further values", str(n), f"{n / len(values):.0%}"])
    return [rows[0], *(["", *row[1:]] for row in rows[1:])] if rows else []


def write_check(path: Path, checked: Checked) -> None:
    """Write the page; it holds file names of the data set, no ids and no dates of headers."""
    used = checked.used
    concerned = [[c.kind, str(len(c.files) or "–"), c.text, _first(c)] for c in checked.concerns]
    sections = [
        Section(
            "What to know before training", header=("", "files", "what", "the first"), rows=concerned, words=True,
            text="" if concerned else "Nothing stands in the way of training.",
            details=[(f"All {len(c.files)}: {c.text}", _listed(c)) for c in checked.concerns if len(c.files) > 3],
        ),
        Section(
            "Images and patients", header=SPLIT_HEADER, rows=split_rows(checked),
            text="" if checked.splits else "There is no division into train, val and test.",
            note="Splits are those of the column split, else the ones that training would draw with seed 0.",
        ),
        Section("What the images are", header=("by image", "value", "images", "share"), rows=value_rows(checked),
                words=True),
    ]  # fmt: skip
    if used:
        with matplotlib.rc_context(plots.FONT):
            sections += [_levels(checked), _sheet(checked)]
    sick = {f.image.patient_id for f in used if f.image.label == 1}
    cards = [
        ("answer", VERDICTS[checked.verdict], f"{sum(c.kind != NOTE for c in checked.concerns)} things to look at"),
        ("images", str(len(used)), f"{len(checked.seen) - len(used)} files cannot be used"),
        ("patients", str(len({f.image.patient_id for f in used})), f"{len(sick)} with a malignant image"),
    ]
    notes = ["Made by mammojax check. Research use only.", "Letters found in an image are covered in its thumbnail."]
    write_page(path, f"Check of {checked.name}", notes, sections, cards)


def _first(concern: Concern) -> str:
    """The first files of a concern, in a table's cell."""
    named = [f"{name}: {what}" for name, what in concern.files[:3]]
    return "; ".join([*named, *([f"and {len(concern.files) - 3} more"] if len(concern.files) > 3 else [])]) or "–"


def _listed(concern: Concern) -> str:
    return "\n".join(f"{name}: {what}" for name, what in concern.files)


def _levels(checked: Checked) -> Section:
    """Histograms of the gray levels, with the range of the run's training images."""
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    for axes, (name, meaning) in zip(figure.subplots(1, len(LEVELS)), LEVELS.items(), strict=True):
        values = np.array([file.levels[name] for file in checked.used])
        ranges = (checked.ranges or {}).get(name, [])
        plots.levels(axes, values[np.isfinite(values)], meaning, ranges)
    text = "0 is black, 1 the brightest value that the file's encoding can hold."
    if checked.ranges:
        text += (
            f" Shaded: the training images of {checked.run}, from the darkest to the brightest; dotted: their middle."
        )
    elif checked.run:
        text += f" The run {checked.run} does not say what it was trained on."
    return Section("Gray levels", text, figures=[("Gray levels of the images", png(figure))], layout="wide")


def _sheet(checked: Checked) -> Section:
    """Thumbnails: images with a warning first, then an even sample of the others."""
    warned = [name for c in checked.concerns if c.kind != NOTE for name, _ in c.files]
    kinds = Counter(warned)
    first = sorted((f for f in checked.used if f.image.image in kinds), key=lambda f: f.image.image)[: SHEET // 2]
    names = {f.image.image for f in first}
    rest = [f for f in checked.used if f.image.image not in names]
    places = np.unique(np.linspace(0, len(rest) - 1, min(len(rest), SHEET - len(first))).astype(int))
    figures = []
    for file in [*first, *(rest[int(k)] for k in places)]:
        side, view = file.image.laterality or file.laterality, file.image.view or file.view
        words = [file.image.image, f"{side} {view}".strip(), file.image.pathology.lower()]
        caption = " · ".join(word for word in words if word)
        data = base64.b64encode(file.thumbnail).decode()
        figures.append((caption, f"data:image/jpeg;base64,{data}"))
    text = f"{len(figures)} of {len(checked.used)} images, those with a warning first."
    return Section("Contact sheet", text, figures=figures, layout="sheet")
