"""The pairs of images that a two-view network takes: the two views of a breast, or a breast and the other one."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
from ml_collections import ConfigDict

from mammojax.data.dataset import Prepared
from mammojax.errors import BadDataset
from mammojax.vocabulary import PAIRS

ANGLES = ("MLO", "CC", "")
"""The views in which breasts are paired, the first that both breasts have."""


@dataclass(frozen=True)
class Pair:
    """A breast with both images.

    Attributes:
        exam_id, patient_id: as the data set says; a breast without an exam is of its patient's only one.
        laterality: "L" or "R".
        views: of the breast itself, such as "CC+MLO".
        images: rows of the split's table, in the order of PAIRS.
        label: 1 malignant, 0 not, -1 unknown: the worst of the breast's own images.
    """

    exam_id: str
    patient_id: str
    laterality: str
    views: str
    images: tuple[int, int]
    label: int


def pairs_of(table: Sequence[dict[str, str]], pair: str) -> tuple[list[Pair], int]:
    """The pairs of a split's table, in the order of their first images, and how many breasts have none.

    Of several images of a view the first counts. An image without a side, or of another view than CC and MLO, is in no
    pair of views.

    Args:
        table: of a data set of kind "whole", see `Prepared.table`.
        pair: a key of PAIRS. "views": CC and MLO of a breast, an example. "breasts": a breast and the other one of its
            exam, in the first of ANGLES that both have; each breast is an example.
    """
    breasts: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for index, row in enumerate(table):
        if row["laterality"]:
            key = (row["exam_id"] or row["patient_id"], row["patient_id"], row["laterality"])
            breasts[key].setdefault(row["view"], index)
    result = []
    for (exam, patient, side), views in breasts.items():
        if pair == "views":
            images = [views[view] for view in PAIRS["views"] if view in views]
            words, own = "+".join(PAIRS["views"]), images
        else:
            other = breasts.get((exam, patient, "R" if side == "L" else "L"), {})
            angle = next((angle for angle in ANGLES if angle in views and angle in other), None)
            images = [] if angle is None else [views[angle], other[angle]]
            words, own = angle or "", images[:1]
        if len(images) == 2:
            label = max(int(table[k]["label"]) for k in own)
            result.append(Pair(exam, patient, side, words, (images[0], images[1]), label))
    return result, len(breasts) - len(result)


class Pairs:
    """Random access to the pairs of a split of a data set of kind "whole".

    An example is {"label", "image_id": patient, exam and side, between tabs} and, with images, "image": {input: uint16
    [H, W, 1]}, with masks, "masks": {input: uint8 [H, W, 1]}; the inputs are those of PAIRS.

    Attributes:
        pairs: the breasts.
        left_out: how many breasts have no pair.
        table: a row for each pair, with the columns that `dataset.of_patients` and tables of predictions take; its
            "facts" are those of its first image.

    Args:
        data: of kind "whole".
        split: "train", "val" or "test".
        pair: a key of PAIRS.
        masks: decode the masks too.
        images: decode the images.
    """

    def __init__(self, data: Prepared, split: str, pair: str, masks: bool = False, images: bool = True) -> None:
        rows = data.table(split)
        self.pairs, self.left_out = pairs_of(rows, pair)
        self.table = [
            {"exam_id": p.exam_id, "patient_id": p.patient_id, "laterality": p.laterality, "views": p.views,
             "label": str(p.label), "facts": rows[p.images[0]].get("facts", "")} for p in self.pairs
        ]  # fmt: skip
        self._source, self._inputs = data.source(split, masks=masks, images=images), PAIRS[pair]
        self._parts = [part for part, used in (("image", images), ("masks", masks)) if used]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        pair = self.pairs[int(index)]
        examples = [self._source[k] for k in pair.images]
        arrays = {p: {name: e[p] for name, e in zip(self._inputs, examples, strict=True)} for p in self._parts}
        return arrays | {
            "label": np.int64(pair.label),
            "image_id": f"{pair.patient_id}\t{pair.exam_id}\t{pair.laterality}",
        }


def examples(
    data: Prepared, split: str, model: ConfigDict, masks: bool = True, images: bool = True
) -> tuple[Any, list[dict[str, str]]]:
    """What a network gives one score for, and its table: the split's images, or its pairs.

    Args:
        data: of kind "whole".
        split: "train", "val" or "test".
        model: `config.model` of a whole-image or two-view run.
        masks, images: which of them are decoded.
    """
    if model.task != "two_view":
        return data.source(split, masks, images), data.table(split)
    pairs = Pairs(data, split, model.get("pair", "views"), masks, images)
    return pairs, pairs.table


def by_view(value: Any) -> dict[str, Any]:
    """An example's images or masks by the input that counts: the only one, both views, or the breast itself."""
    if not isinstance(value, dict):
        return {"": value}
    return {"breast": value["breast"]} if "breast" in value else value


def refuse(splits: dict[str, Pairs], pair: str) -> None:
    """Refuse data that nothing can be learned from or measured on, before hours of training.

    Raises:
        BadDataset: the training pairs are of one class, or val or test has no labelled pair.
    """
    words = {"views": "breasts with a CC and an MLO view", "breasts": "breasts whose other breast is there too"}[pair]
    labels = {split: [p.label for p in pairs.pairs] for split, pairs in splits.items()}
    counts = "; ".join(
        f"{split}: {sum(k == 0 for k in label)} not malignant, {sum(k == 1 for k in label)} malignant"
        for split, label in labels.items()
    )
    remedy = "give it more patients, another config.data.split or another config.data.seed"
    if len(set(labels["train"]) - {-1}) < 2:
        raise BadDataset(f"the {words} of the train split are of fewer than two classes ({counts}); {remedy}.")
    for split in ("val", "test"):
        if not set(labels[split]) - {-1}:
            raise BadDataset(f"the {split} split has no labelled {words} ({counts}); {remedy}.")
