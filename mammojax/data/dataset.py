"""A prepared data set: the files that TFDS wrote, and beside them dataset.json and index.csv for the runs."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mammojax.data.cells import read_table
from mammojax.data.recipe import WITHOUT_PATCHES, Recipe
from mammojax.errors import BadDataset, NotPrepared

ASIDE = "calibration_patients.txt"
"""The file of a run folder that lists the validation patients that choose no epoch, one id a line."""
COLUMNS = ("image", "patient_id", "exam_id", "laterality", "view", "label")
_OF_LESIONS = re.compile("lesion|mask|finding")  # such a reason of rejected.csv is not of an image


class Prepared:
    """One data set on disk.

    Attributes:
        path: its folder.
        facts: dataset.json: name, kind, framing, patch_size, mean (gray value of the training images, 0 … 255),
            classes, counts {split: {class: n}}, rejected (number of files and rows left out), remarks (number of
            lines of rejected.csv on images that are used).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.facts: dict[str, Any] = json.loads((path / "dataset.json").read_text())
        with (path / "index.csv").open(newline="") as file:
            _, self._rows = read_table(file)
        self._builder = tfds.builder_from_directory(path)

    def source(self, split: str, masks: bool = True, images: bool = True) -> Any:
        """Random access to the examples of "train", "val" or "test"; see `builder.MammogramBuilder`.

        Without `masks`, the masks of whole images stay undecoded, which saves a tenth of the reading time; without
        `images` the images do.
        """
        if not self.table(split):
            return []
        skip = {} if images else {"image": tfds.decode.SkipDecoding()}
        if not masks and self.facts["kind"] in WITHOUT_PATCHES:
            skip["masks"] = tfds.decode.SkipDecoding()
        return self._builder.as_data_source(split, decoders=skip or None)

    def table(self, split: str) -> list[dict[str, str]]:
        """One row per example, in the source's order: COLUMNS and, for exams, their facts as JSON."""
        return [row for row in self._rows if row["split"] == split]

    def labels(self, split: str) -> np.ndarray:
        """int64 [N], the label of each example."""
        return np.array([int(row["label"]) for row in self.table(split)], np.int64)


def out_and_remarks(
    rejected: Iterable[tuple[str, str]], rows: Iterable[Mapping[str, str]], kind: str
) -> tuple[dict[str, str], list[str]]:
    """What is not among the images of a data set, and what is said of images that are.

    Args:
        rejected: (file or row, reason), the lines of rejected.csv.
        rows: of index.csv.
        kind: of the examples.

    Returns:
        The first reason by the name of each file or row that is left out; the reasons that concern a part of an image
        that is used, such as a lesion without a mask.
    """
    patches = "patches" in kind
    used = {row["image"].rpartition("#")[0] if patches else row["image"] for row in rows}
    out: dict[str, str] = {}
    remarks = []
    for name, reason in rejected:
        if name in used or (not patches and _OF_LESIONS.search(reason)):
            remarks.append(reason)
        else:
            out.setdefault(name, reason)
    return out, remarks


def find(recipe: Recipe) -> Prepared:
    """The prepared data set of a recipe.

    Raises:
        NotPrepared: with the command that prepares it.
        BadDataset: the recipe's manifest does not exist.
    """
    path = recipe.path
    if not (path / "dataset.json").is_file():
        data_set = f"{recipe.name}/{recipe.config_name}"
        raise NotPrepared(f"the data set {data_set} is not prepared; run: {recipe.command}")
    return Prepared(path)


def of_run(run: Path) -> Prepared:
    """The data set that a run was trained on.

    Raises:
        NotPrepared: the data set is gone.
    """
    return find(Recipe.of_run(json.loads((run / "config.json").read_text())["config"], run))


def of_patients(table: list[dict[str, str]], patients: int, seed: int) -> np.ndarray:
    """The rows of `patients` patients, int64 [M], in order; the share of patients with a malignant row is the table's.

    A smaller number's patients are among those of a greater one (Shen et al. 2019, Table 4: "training subsets with 20,
    30, 40, 50 and 60 patients were sampled"; nesting them is ours, it takes the draw out of the comparison).

    Raises:
        BadDataset: there are fewer patients.
    """
    malignant: dict[str, bool] = {}
    for row in table:
        malignant[row["patient_id"]] = malignant.get(row["patient_id"], False) or row["label"] == "1"
    if patients > len(malignant):
        raise BadDataset(f"config.data.patients is {patients}, but the train split has {len(malignant)}; take fewer.")
    rng = np.random.default_rng(seed)
    place: list[tuple[float, str]] = []  # strata spread evenly over 0 … 1: any first part keeps the proportion
    for stratum in (True, False):
        ids = rng.permutation(sorted(p for p, m in malignant.items() if m is stratum))
        place += [((k + 0.5) / len(ids), str(name)) for k, name in enumerate(ids)]
    chosen = {name for _, name in sorted(place)[:patients]}
    return np.array([k for k, row in enumerate(table) if row["patient_id"] in chosen], np.int64)


def set_aside(data: Prepared, share: float, seed: int) -> set[str]:
    """A share of the validation patients that choose no epoch, for calibration; see `of_patients`.

    Raises:
        BadDataset: the share leaves no patient on one of the two sides.
    """
    rows = data.table("val")
    every = {row["patient_id"] for row in rows}
    aside = {rows[k]["patient_id"] for k in of_patients(rows, round(share * len(every)), seed)} if share else set()
    if share and not 0 < len(aside) < len(every):
        raise BadDataset(
            f"config.calibration is {share}: of {len(every)} validation patients it leaves {len(aside)} for "
            "calibration; some must be left on either side."
        )
    return aside


def refuse_one_class(data: Prepared, only: np.ndarray | None = None) -> None:
    """Refuse data that nothing can be learned from or measured on, before hours of training.

    Args:
        data: of whole images or patches.
        only: int [M], the training examples that are used; None: all.

    Raises:
        BadDataset: the training examples are of one class, or the val or test split has no labelled example.
    """
    kind, classes = data.facts["kind"], data.facts["classes"]
    labels = {split: data.labels(split) for split in ("train", "val", "test")}
    if only is not None:
        labels["train"] = labels["train"][only]
    counts = {split: [int((label == k).sum()) for k in range(len(classes))] for split, label in labels.items()}
    numbers = "; ".join(
        f"{split}: {', '.join(f'{n} {name}' for name, n in zip(classes, row, strict=True))}"
        for split, row in counts.items()
    )
    remedy = "give it more patients, another config.data.split or another config.data.seed"
    for split in ("val", "test"):
        if not sum(counts[split]):
            raise BadDataset(f"the {split} split of {kind} has no labelled example ({numbers}); {remedy}.")
    if sum(n > 0 for n in counts["train"]) < 2:
        raise BadDataset(
            f"the train split of {kind} has fewer than two classes, so nothing can be told apart ({numbers}); {remedy}."
        )
