"""Screening exams of a prepared data set: their images, their labels, and the windows that a network learns from.

Each training epoch has all exams with a biopsy and as many random others (Wu et al. 2019, section IV-A.1: "all exams
with biopsies in the training set (4,844 exams) but only a random subset of an equal number of exams without").
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, SupportsIndex

import cv2
import numpy as np

from mammojax.data.breast import Crop
from mammojax.data.dataset import Prepared
from mammojax.data.manifest import is_yes, merged
from mammojax.data.window import Random, best_centre, box, cut, standardise
from mammojax.errors import BadDataset
from mammojax.vocabulary import BIRADS, FINDINGS, LABELS, VIEWS

Heatmaps = tuple[Path, Sequence[int]]


@dataclass(frozen=True)
class View:
    """An image, cropped and facing right, with what else is a channel of its window, and where that is centred.

    Attributes:
        channels: [H, W] each: the image's pixels, uint16; for a network with heatmaps these too, in its order, float32
            of 0 … 1 or uint16 of 0 … 65535.
        centre: of the window (`window.best_centre`).
    """

    channels: tuple[np.ndarray, ...]
    centre: tuple[int, int]

    @classmethod
    def of(
        cls, pixels: np.ndarray, crop: Crop, angle: str, size: tuple[int, int], heatmaps: Sequence[np.ndarray] = ()
    ) -> "View":
        """The view of an image.

        Args:
            pixels: uint16 [H, W], cropped and facing right.
            crop: the points of its breast.
            angle: "CC" or "MLO".
            size: (height, width) of the window.
            heatmaps: see `channels`.
        """
        return cls((pixels, *heatmaps), best_centre(pixels, crop, angle, size))

    def window(self, angle: str, size: tuple[int, int], rng: Random, noise: int = 0) -> np.ndarray:
        """The view's window as the network takes it, standardised: float32 [height, width, C] of `size`.

        Args:
            angle, size: as of `of`.
            rng: moves the window and its borders, by at most `noise` pixels each.
        """
        return standardise(cut(self.channels, box(self.channels[0].shape, angle, self.centre, size, rng, noise), size))


def window_sizes(sizes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """(height, width) of the windows by "CC" and "MLO", of a config's `exam.sizes`."""
    return {angle: (int(height), int(width)) for angle, (height, width) in sizes.items()}


@dataclass
class Exam:
    """An exam of a data set.

    Attributes:
        exam_id, patient_id: as the manifest says; an exam without an id is its patient's only one.
        images: rows of the split's table by view ("L-CC", …), in the table's order.
        label: int [4] as LABELS, 1, 0, or -1 where the manifest says nothing of the breast.
        columns: for "L" and "R" the breast's cells of the manifest's further columns (`manifest.merged`).
    """

    exam_id: str
    patient_id: str
    images: dict[str, list[int]] = field(default_factory=dict)
    label: np.ndarray = field(default_factory=lambda: np.full(4, -1))
    columns: dict[str, dict[str, str]] = field(default_factory=lambda: {"L": {}, "R": {}})

    @property
    def birads(self) -> int:
        """Index in BIRADS of its most suspicious breast: 0, then 2, then 1; -1 if one has another or none."""
        categories = {side.get("birads", "") for side in self.columns.values()} - {""}
        if not categories or categories - set(BIRADS):
            return -1
        return BIRADS.index(next(category for category in ("0", "2", "1") if category in categories))

    def biopsied(self, side: str) -> bool:
        """Whether the breast, "L" or "R", was biopsied: as the column says, else where it has a benign or malignant
        finding, since those labels come from biopsies (section II)."""
        cell = self.columns[side].get("biopsied", "")
        if cell:
            return is_yes(cell)
        return bool((self.label[[k for k, name in enumerate(LABELS) if name[0].upper() == side]] == 1).any())


def exams_of(data: Prepared, split: str) -> list[Exam]:
    """The exams of a split of a data set of kind "exams", in the order of their first images."""
    exams: dict[tuple[str, str], Exam] = {}
    for index, row in enumerate(data.table(split)):
        key = (row["exam_id"] or row["patient_id"], row["patient_id"])
        exam = exams.setdefault(key, Exam(*key))
        side, facts = row["laterality"], json.loads(row["facts"])
        exam.images.setdefault(f"{side}-{row['view']}", []).append(index)
        for name in ("benign", "malignant"):
            place = LABELS.index(f"{'left' if side == 'L' else 'right'}_{name}")
            exam.label[place] = max(exam.label[place], facts[name])
        for column, value in facts["columns"].items():
            exam.columns[side][column] = merged(column, (exam.columns[side].get(column, ""), value))
    return list(exams.values())


def findings(rows: Iterable[dict[str, str]], splits: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Breasts with findings in each split, {split: {"malignant": {"visible": n, "occult": n}, "benign": …}}.

    Wu et al. 2019, Table I. A breast's finding is visible if one of its findings of that kind is visible in any image.
    """
    breasts: dict[tuple[str, ...], dict[str, list[bool]]] = {}
    for row in rows:
        facts = json.loads(row["facts"])
        key = (row["split"], row["patient_id"], row["exam_id"], row["laterality"])
        for name in FINDINGS:
            if facts[name] == 1:
                breasts.setdefault(key, {}).setdefault(name, []).append(facts[f"{name}_visible"])
    counts = {s: {n: {"visible": 0, "occult": 0} for n in FINDINGS} for s in splits}
    for (split, *_), of_breast in breasts.items():
        for name, visible in of_breast.items():
            counts[split][name]["visible" if any(visible) else "occult"] += 1
    return counts


def refuse_one_class(train_exams: Sequence[Exam], data: Prepared, target: str, angles: Sequence[str]) -> None:
    """Refuse data that nothing can be learned from or measured on, before hours of training.

    Args:
        train_exams: the training exams that are used.
        data: of kind "exams".
        target: "cancer" or "birads".
        angles: ("CC", "MLO") or one of them.

    Raises:
        BadDataset: the training exams are alike in every label, or the val or test split has no exam with a label and
            an image of one of `angles`.
    """
    remedy = "give the manifest more exams, another config.data.split or another config.data.seed"
    labels = np.array([[e.birads] if target == "birads" else e.label for e in train_exams])
    if (labels == labels[0]).all():
        alike = "one BI-RADS category" if target == "birads" else "the same four labels (no finding in any, or in all)"
        raise BadDataset(f"the {len(train_exams)} training exams have {alike}, so nothing can be told apart; {remedy}.")
    for split in ("val", "test"):
        every = exams_of(data, split)
        labelled = [e for e in every if (e.birads >= 0 if target == "birads" else (e.label >= 0).any())]
        if not any(view[2:] in angles for exam in labelled for view in exam.images):
            raise BadDataset(
                f"of the {len(every)} exams of the {split} split {len(labelled)} have a label that a {target} network"
                f" learns, and none of those has an image of {' or '.join(angles)}; {remedy}."
            )


class Images:
    """The images of a split as a network takes them: cropped, facing right, with heatmaps where a folder has them.

    Args:
        data: of kind "exams".
        split: "train", "val" or "test".
        sizes: (height, width) of the windows by "CC" and "MLO".
        heatmaps: the folder that `evaluate.heatmap.write_channels` filled, and, for each further channel, the index
            of its heatmap (malignant, benign); None for the image alone.
    """

    def __init__(
        self, data: Prepared, split: str, sizes: Mapping[str, Sequence[int]], heatmaps: Heatmaps | None = None
    ) -> None:
        self._source, self._table = data.source(split, masks=False), data.table(split)
        self._threshold = data.facts["crop"]["threshold"]
        self._folder = heatmaps[0] / split if heatmaps else None
        self._order = list(heatmaps[1]) if heatmaps else []
        self._sizes = window_sizes(sizes)

    def pixels(self, index: int) -> np.ndarray:
        """uint16 [H, W] of a row of the table."""
        return self._source[index]["image"][..., 0]

    def view(self, index: int) -> View:
        """One image with its window's centre.

        Raises:
            BadDataset: its heatmaps are missing.
        """
        row, pixels = self._table[index], self.pixels(index)
        facts = json.loads(row["facts"])
        crop = Crop(
            (0, pixels.shape[0], 0, pixels.shape[1]), ((0, 0), facts["reach"]), (facts["lowest"], (0, 0)), 0,
            facts.get("threshold", self._threshold),  # data sets of one threshold for all may not repeat it
        )  # fmt: skip
        heatmaps: list[np.ndarray] = []
        if self._folder is not None:
            stored = _stored(self._folder / f"{index}.png", len(self._order))
            heatmaps = [stored[k] for k in self._order]
        return View.of(pixels, crop, row["view"], self._sizes[row["view"]], heatmaps)


def read_ahead(
    data: Prepared, split: str, sizes: Mapping[str, Sequence[int]], heatmaps: Heatmaps | None = None, threads: int = 4,
    only: Sequence[Exam] | None = None,
) -> Iterator[tuple[Exam, dict[str, list[View]]]]:  # fmt: skip
    """The exams of a split with the images of their views, in the order of VIEWS, read ahead by threads.

    Args:
        data, split, sizes, heatmaps: see `Images`.
        threads: that read ahead.
        only: those of the split's exams that are read; None: all.
    """
    images = Images(data, split, sizes, heatmaps)

    def read(exam: Exam) -> tuple[Exam, dict[str, list[View]]]:
        return exam, {name: [images.view(k) for k in exam.images[name]] for name in VIEWS if name in exam.images}

    every = iter(exams_of(data, split) if only is None else only)
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque(pool.submit(read, exam) for exam in islice(every, threads + 1))  # all images would not fit
        while ahead:
            exam = ahead.popleft().result()
            ahead.extend(pool.submit(read, following) for following in islice(every, 1))
            yield exam


def write_heatmaps(path: Path, heatmaps: np.ndarray) -> None:
    """Write probabilities float32 [H, W, K] of 0 … 1 as one 16-bit PNG, one below the other; whole or not at all."""
    stacked = np.concatenate(list(np.moveaxis(heatmaps, -1, 0)))
    _, data = cv2.imencode(".png", np.round(stacked * 65535).astype(np.uint16), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(data.tobytes())
    unfinished.rename(path)


def read_heatmaps(path: Path, count: int = 2) -> np.ndarray:
    """The heatmaps that `write_heatmaps` wrote, float32 [H, W, count], to within 1/131070.

    Raises:
        BadDataset: there is no such file, or it is broken.
    """
    return np.stack(list(_stored(path, count).astype(np.float32) / 65535), axis=-1)


def _stored(path: Path, count: int) -> np.ndarray:
    """The same as they are stored, uint16 [count, H, W] of 0 … 65535."""
    stacked = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if stacked is None:
        raise BadDataset(f'the heatmaps "{path.parent.name}/{path.name}" of a data set are missing; run it again.')
    return stacked.reshape(count, -1, stacked.shape[1])


class Windows:
    """The training examples of a multi-view network: example k of a run depends on k and the seed alone.

    An example is {"image": {view: float32 [h, w, C], standardised}, "label": int32 [4] as LABELS or [1] of BIRADS,
    "image_id": the exam's id}. Of several images of a view one is drawn; each window moves and grows at random
    (Wu et al. 2019, supplement III). Exams that lack one of the network's views, or a label, are left out.

    Attributes:
        exams: those that are used.
        per_epoch: examples of one epoch.

    Args:
        data, heatmaps, sizes: see `Images`.
        target: "cancer", whose epoch is all biopsied exams and as many others; or "birads", all exams of BIRADS.
        angles: ("CC", "MLO") or one of them.
        noise: the most pixels by which a window and its borders move.
        batch: an epoch is a multiple of it. Further exams without a biopsy fill its last batch; where there are no
            more of those, exams that the epoch already has. No exam is dropped.
        epochs: their number.
        seed: of everything random.

    Raises:
        BadDataset: no exam can be used.
    """

    def __init__(
        self, data: Prepared, sizes: Mapping[str, Sequence[int]], *, target: str, angles: Sequence[str], noise: int,
        batch: int, epochs: int, seed: int, heatmaps: Heatmaps | None = None,
    ) -> None:  # fmt: skip
        self._images = Images(data, "train", sizes, heatmaps)
        self._sizes = window_sizes(sizes)
        self._noise, self._seed, self._target = noise, seed, target
        self._views = tuple(view for view in VIEWS if view[2:] in angles)
        every = exams_of(data, "train")
        labelled = [e for e in every if (e.birads >= 0 if target == "birads" else (e.label >= 0).all())]
        self.exams = [e for e in labelled if set(self._views) <= set(e.images)]
        if not self.exams:
            raise BadDataset(
                f"of {len(every)} training exams {len(labelled)} have the labels a {target} network learns, and none of"
                f" those has all of {', '.join(self._views)}; fill the manifest's pathology or birads, or add exams."
            )
        self.left_out = len(every) - len(self.exams)
        first = np.array([target == "birads" or e.biopsied("L") or e.biopsied("R") for e in self.exams])
        self._always, self._others = np.flatnonzero(first), np.flatnonzero(~first)
        self._drawn = min(len(self._others), len(self._always) or len(self._others))
        self.per_epoch = -(-(len(self._always) + self._drawn) // batch) * batch
        self._length, self._epoch = self.per_epoch * max(epochs, 1), (-1, np.zeros(0, int))

    def __len__(self) -> int:
        return self._length

    def share(self, label: str) -> float:
        """The share of an epoch's exams that has one of LABELS, on average over its draws."""
        has = np.array([exam.label[LABELS.index(label)] == 1 for exam in self.exams])
        drawn = self._drawn * has[self._others].mean() if len(self._others) else 0.0
        return float((has[self._always].sum() + drawn) / (len(self._always) + self._drawn))

    def chosen(self, epoch: int) -> np.ndarray:
        """Indices of the epoch's exams in their order, int [per_epoch]."""
        rng = np.random.default_rng([self._seed, epoch])
        drawn = rng.choice(self._others, self._drawn, replace=False)
        order = np.concatenate([self._always, drawn])
        if missing := self.per_epoch - len(order):
            further = rng.permutation(np.setdiff1d(self._others, drawn))
            order = np.concatenate([order, np.resize(np.concatenate([further, rng.permutation(order)]), missing)])
        return rng.permutation(order)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        epoch, place = divmod(int(index), self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self.chosen(epoch))
        exam = self.exams[self._epoch[1][place]]
        rng = np.random.default_rng([self._seed, 1, int(index)])
        image = {}
        for name in self._views:
            view = self._images.view(exam.images[name][rng.integers(len(exam.images[name]))])
            image[name] = view.window(name[2:], self._sizes[name[2:]], rng, self._noise)
        label = [exam.birads] if self._target == "birads" else exam.label
        return {"image": image, "label": np.array(label, np.int32), "image_id": exam.exam_id}
