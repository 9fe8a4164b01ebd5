"""Who is in a run: the flow from the files of its data set to the images that it was measured on, and who they are.

The flow is the diagram that STARD asks for (Bossuyt et al. 2015, "STARD 2015", item 19; TRIPOD+AI, item 20a), the table
describes the patients by split (item 20b). All numbers are counted in the prepared data set's own files, index.csv and
rejected.csv, and in the run's lists of patients and predictions.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mammojax.data.cells import read_table
from mammojax.data.dataset import ASIDE, Prepared, out_and_remarks
from mammojax.data.exams import exams_of
from mammojax.data.manifest import SPLITS, merged
from mammojax.data.pairs import pairs_of
from mammojax.evaluate import table
from mammojax.evaluate.report import Box, FlowStep, Section
from mammojax.train.checkpoint import train_patients
from mammojax.vocabulary import VIEWS

MOST_REASONS = 6
MOST_VALUES = 10
"""Different values of a column; more are ids, dates or free text, and are not shown."""
NOT_GIVEN = "not given"
_UNITS = ("patient", "exam", "breast", "image")
_OF_IMAGES = {"side": ("laterality",), "view": ("view",), "density": ("density",), "vendor": ("vendor", "manufacturer"),
              "BI-RADS": ("birads",), "source of the label": ("label_source",)}  # fmt: skip
"""What the table says of images: its name, and the columns that may hold it."""


@dataclass(frozen=True)
class Population:
    """The images of a prepared data set, and what was left out.

    Attributes:
        images: of each split, a row an image: that of index.csv with the manifest's further columns; "classes" counts
            its examples by label, which are its patches in a data set of patches.
        left_out: (file or row, reason) of those that are not among the images.
        remarks: reasons that concern a part of an image, which is used.
        patches: whether the examples are patches.
    """

    images: dict[str, list[dict[str, Any]]]
    left_out: list[tuple[str, str]]
    remarks: list[str]
    patches: bool

    @classmethod
    def of(cls, data: Prepared) -> "Population":
        """Read index.csv and rejected.csv of a data set."""
        patches = "patches" in data.facts["kind"]
        images: dict[str, list[dict[str, Any]]] = {}
        for split in SPLITS:
            by_name: dict[str, dict[str, Any]] = {}
            for row in data.table(split):
                name = row["image"].rpartition("#")[0] if patches else row["image"]
                facts = json.loads(row.get("facts") or "{}")
                own = {**facts.pop("columns", {}), **facts, **row, "image": name, "classes": Counter()}
                by_name.setdefault(name, own)["classes"][int(row["label"])] += 1
            images[split] = list(by_name.values())
        every = [row for split in SPLITS for row in data.table(split)]
        out, remarks = out_and_remarks(_rejected(data.path / "rejected.csv"), every, data.facts["kind"])
        return cls(images, list(out.items()), remarks, patches)

    def rows(self, *splits: str) -> list[dict[str, Any]]:
        """The images of some splits, of all without an argument."""
        return [row for split in splits or SPLITS for row in self.images[split]]


def _rejected(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [(row["file"], row["reason"]) for row in read_table(file)[1]]


def _patient(row: Mapping[str, Any]) -> str:
    return str(row["patient_id"])


def _exam(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    return (row["patient_id"], row["exam_id"]) if row["exam_id"] else None


def _breast(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    return (row["patient_id"], row["exam_id"], row["laterality"]) if row["laterality"] else None


def _image(row: Mapping[str, Any]) -> str:
    return str(row["image"])


_KEYS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "patient": _patient, "exam": _exam, "breast": _breast, "image": _image
}  # fmt: skip


def _number(unit: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """How many patients, exams, breasts or images the rows are of."""
    return len({_KEYS[unit](row) for row in rows} - {None})


def words(n: int, noun: str) -> str:
    """A number and its noun: "1 image", "2 images"."""
    return f"{n:,} {noun}" + ("s" if n != 1 else "")


def _sizes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The numbers of patients, exams, breasts and images; those that the data do not name are left out."""
    return [words(n, unit) for unit in _UNITS if (n := _number(unit, rows))]


def sections(workdir: Path, config: Mapping[str, Any], results: Mapping[str, Any], data: Prepared) -> list[Section]:
    """The diagram and the table of a finished run.

    Args:
        workdir: the run folder.
        config: of config.json.
        results: metrics.json.
        data: the run's data set.
    """
    population = Population.of(data)
    return [_flow(workdir, config, results, data, population), _table(data, population)]


def _flow(
    workdir: Path, config: Mapping[str, Any], results: Mapping[str, Any], data: Prepared, population: Population
) -> Section:
    """The diagram: listed, prepared, split, measured, and beside each step what is left out."""
    every, facts = population.rows(), data.facts
    listed = len(every) + len(population.left_out)
    out = Box("Left out", reasons(population.left_out)) if population.left_out else None
    prepared = _sizes(every)
    if population.patches:
        prepared.append(f"{sum(int(row['classes'].total()) for row in every):,} patches")
    if population.remarks:
        prepared.append(f"{words(len(population.remarks), 'remark')} on lesions of images that are used")
    measured, unmeasured = _measured(workdir, config, results, data, population)
    unused = [*_not_learned_from(config["model"], data), *unmeasured]
    name = "Images that gave patches, or were left out" if population.patches else "Files and rows read"
    stages = [
        FlowStep([Box(name, [f"{listed:,}, of “{facts['name']}”, split “{facts['split']}”"])], out),
        FlowStep([Box("Prepared", prepared)]),
        FlowStep([Box(*_split(workdir, config, facts["classes"], population, split)) for split in SPLITS],
                 Box("Not used", unused) if unused else None),
        FlowStep([Box("Measured on the test split", measured)]),
    ]  # fmt: skip
    text = "From the files of the data set to the images that were measured; beside a step what it leaves out."
    return Section("Flow of patients and images", text, flow=stages)


def reasons(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """How many were left out, and the commonest reasons, without names of files, which may be of people."""
    names = {name for name, _ in left_out}
    counted = Counter(_nameless(reason, names) for _, reason in left_out)
    lines = [f"{n:,}: {reason}" for reason, n in counted.most_common(MOST_REASONS)]
    rest = counted.total() - sum(n for _, n in counted.most_common(MOST_REASONS))
    return [f"{len(left_out):,} in all", *lines, *([f"{rest:,}: for other reasons"] * (rest > 0))]


def _nameless(reason: str, names: set[str]) -> str:
    """A reason without what stands in quotation marks, in a file's name or as the name of another image."""
    reason = re.sub(r"its pixels are those of .*?, another patient's in (\w+)", r"another patient's, in \1, are the"
                    " same pixels", reason)  # fmt: skip
    reason = re.sub(r'"[^"]*"', "“…”", reason)
    reason = re.sub(r"\(\S+=…\)", "", reason)
    words = [("…" if re.search(r"\w\.(?:dcm|dicom|png|jpe?g|tiff?|pgm|xml)\b", word, re.IGNORECASE) or
              word.strip(",;:.") in names else word) for word in reason.split(" ")]  # fmt: skip
    return " ".join(words)


def _split(
    workdir: Path, config: Mapping[str, Any], classes: Sequence[str], population: Population, split: str
) -> tuple[str, list[str]]:
    """A split's box: its sizes, its classes, and for what its patients are used."""
    rows = population.images[split]
    lines = _sizes(rows)
    counts: Counter[int] = sum((row["classes"] for row in rows), Counter())
    noun = "patches " if population.patches else ""
    lines += [f"{noun}{name.replace('_', ' ')}: {counts[k]:,}" for k, name in enumerate(classes)]
    if counts[-1]:
        lines.append(f"label unknown: {counts[-1]:,}")
    patients = {_patient(row) for row in rows}
    if split == "train":
        own, others = _learned_from(workdir, patients)
        if own < len(patients):
            lines.append(f"learned from {words(own, 'patient')} of these")
        if others:
            lines.append(f"runs before it learned from {words(others, 'further patient')}")
    if split == "val" and (workdir / ASIDE).is_file():
        aside = patients & set((workdir / ASIDE).read_text().splitlines())
        lines.append(f"{words(len(aside), 'patient')} set aside for calibration")
    use = {"train": "learned from", "val": "chooses the epoch", "test": "measured"}
    if config.get("monitor") == "last":
        use["val"] = "chooses nothing"
    return f"{split}: {use[split]}", lines


def _learned_from(workdir: Path, patients: set[str]) -> tuple[int, int]:
    """How many of the training patients the run has learned from, and how many others those it started from have."""
    learned = train_patients(workdir)
    if learned is None:
        return len(patients), 0
    own = {patient for _, patient in learned} & patients
    return len(own), len([patient for _, patient in learned if patient not in patients])


def _measured(
    workdir: Path, config: Mapping[str, Any], results: Mapping[str, Any], data: Prepared, population: Population
) -> tuple[list[str], list[str]]:
    """What the test split's numbers are of, and what of it was not measured."""
    frame = table.read_csv(workdir / "predictions" / "test.csv")
    column = next((name for name in ("label", "malignant", "birads") if name in frame), "")
    labelled = frame[frame[column] != ""] if column else frame
    unit = "image" if "image" in frame else "exam" if column == "birads" else "breast"
    unit = "patch" if population.patches else unit
    plural = {"patch": "patches", "breast": "breasts", "image": "images", "exam": "exams"}
    lines = [f"{len(labelled):,} {plural[unit]} of {words(labelled['patient_id'].nunique(), 'patient')}"]
    if "malignant" in frame:
        positive = {name: int((labelled[name] == "1").sum()) for name in ("malignant", "benign")}
        lines += [f"{name}: {n:,}" for name, n in positive.items()]
    elif "p_malignant" in frame:
        positive = {name: int((labelled["label"] == value).sum()) for name, value in
                    (("malignant", "1"), ("not malignant", "0"))}  # fmt: skip
        lines += [f"{name}: {n:,}" for name, n in positive.items()]
    left = []
    if unknown := len(frame) - len(labelled):
        left.append(f"{unknown:,} test {plural[unit]} without a label")
    if without := results.get("test", {}).get("breasts_left_out", 0):
        left.append(f"{without:,} test breasts with one of two images")
    if unit in ("breast", "exam") and "exam_id" in frame and config["model"]["task"] != "two_view":
        missing = len({(r["exam_id"] or r["patient_id"]) for r in population.images["test"]} - set(frame["exam_id"]))
        if missing:
            left.append(f"{words(missing, 'test exam')} without the views that the network needs")
    return lines, left


def _not_learned_from(model: Mapping[str, Any], data: Prepared) -> list[str]:
    """What of the training and validation splits a network cannot take, as a view or a label is missing."""
    lines = []
    for split in ("train", "val"):
        if model["task"] == "two_view":
            if alone := pairs_of(data.table(split), model.get("pair", "views"))[1]:
                lines.append(f"{alone:,} {split} breasts with one of two images")
        elif model["task"] == "exam":
            views = {view for view in VIEWS if view[2:] in model["angles"]}
            exams = exams_of(data, split)
            whole = [exam for exam in exams if views <= set(exam.images)]
            if lacking := len(exams) - len(whole):
                lines.append(f"{words(lacking, f'{split} exam')} without the views that the network needs")
            birads = model.get("target") == "birads"
            unknown = sum(exam.birads < 0 if birads else bool((exam.label < 0).any()) for exam in whole)
            if split == "train" and unknown:
                missing = "a BI-RADS category" if birads else "a label of both breasts"
                lines.append(f"{words(unknown, 'train exam')} without {missing}")
    return lines


def _table(data: Prepared, population: Population) -> Section:
    """Counts by split, and by class of the test split; then what the data say of images and patients."""
    of_exams = data.facts["kind"] == "exams"
    columns: dict[str, list[dict[str, Any]]] = {split: population.images[split] for split in SPLITS}
    if not population.patches:
        for label, name in ((1, "malignant"), (0, "others")):
            columns[f"test, {name}"] = [row for row in population.images["test"] if row["classes"][label]]
    rows = []
    for unit in _UNITS:
        if any(counts := [_number(unit, of) for of in columns.values()]):
            rows.append([f"{unit}s", *map(str, counts)])
            if not population.patches:
                name = "images, malignant" if unit == "image" else f"{unit}s with a malignant image"
                cells = _with(columns, unit, lambda row: bool(row["classes"][1]))
                rows.append([name, *cells[: len(SPLITS)], *["–"] * (len(columns) - len(SPLITS))])
            if of_exams and unit == "breast":
                rows.append(["breasts with a benign finding", *_with(columns, unit, lambda row: row["benign"] == 1)])
    absent = []
    for name, candidates in _OF_IMAGES.items():
        column = next((c for c in candidates if any(row.get(c) for row in population.rows())), None)
        if column is None:
            absent.append(name)
        else:
            rows += _values(name, columns, [column], _image)
    age = next((c for c in ("age", "age_band") if any(row.get(c) for row in population.rows())), None)
    if age is None:
        absent.append("age")
    elif age == "age":
        rows.append(["age of the patients, median (quartiles)", *map(_quartiles, columns.values())])
    else:
        rows += _values("patients aged", columns, [age], _patient)
    note = "Shares are of images, for ages of patients."
    if absent:
        note += f" Not reported, as the data do not say it: {', '.join(absent)}."
    return Section("Who they are", header=("", *columns), rows=rows, note=f"{_framed(data.facts)} {note}", words=True)


def _with(
    columns: Mapping[str, Sequence[Mapping[str, Any]]], unit: str, has: Callable[[Mapping[str, Any]], bool]
) -> list[str]:
    """Of each column how many patients, exams, breasts or images have something, and their share."""
    cells = []
    for of in columns.values():
        n, every = _number(unit, [row for row in of if has(row)]), _number(unit, of)
        cells.append(_share(n, every))
    return cells


def _share(n: int, every: int) -> str:
    return f"{n} ({100 * n / every:.0f} %)" if every else "–"


def _values(
    name: str, columns: Mapping[str, Sequence[Mapping[str, Any]]], of: Sequence[str],
    key: Callable[[Mapping[str, Any]], str],
) -> list[list[str]]:  # fmt: skip
    """A row for each value of a column: how many images or patients have it, and their share."""
    counted: list[Counter[str]] = []
    for rows in columns.values():
        values: dict[str, list[str]] = {}
        for row in rows:
            values.setdefault(key(row), []).append(str(row.get(of[0], "")))
        counted.append(Counter(merged(of[0], cells) or NOT_GIVEN for cells in values.values()))
    words = sorted(set().union(*counted), key=lambda word: (word == NOT_GIVEN, word))
    if len(words) > MOST_VALUES:
        return [[f"{name}: different values", *(str(len(set(count) - {NOT_GIVEN})) for count in counted)]]
    return [
        [f"{name} {word}" if word != NOT_GIVEN else f"{name} {NOT_GIVEN}",
         *(_share(count[word], count.total()) for count in counted)]
        for word in words
    ]  # fmt: skip


def _quartiles(rows: Sequence[Mapping[str, Any]]) -> str:
    """Median and quartiles of the patients' ages; extremes could tell a patient."""
    ages: dict[str, float] = {}
    for row in rows:
        if re.fullmatch(r"\d+(\.\d+)?", text := str(row.get("age", "")).rstrip("Y")):
            ages.setdefault(_patient(row), float(text))
    if not ages:
        return NOT_GIVEN
    low, median, high = np.percentile(list(ages.values()), (25, 50, 75))
    return f"{median:.0f} ({low:.0f} – {high:.0f})"


def _framed(facts: Mapping[str, Any]) -> str:
    """How the images were prepared."""
    if framing := facts.get("framing"):
        size = f"{framing['size'][0]} × {framing['size'][1]} pixels, crop {framing['crop']}"
        types = " Lesions of all types count as masses." * facts.get("one_type", False)
        return f"Images of {size}; mean gray value {facts['mean']:.2f} of 255.{types}"
    if facts["kind"] == "exams":
        return "Images cropped to the breast."
    return f"Patches of {facts['patch_size']} pixels of cropped exams, on their image's scale."
