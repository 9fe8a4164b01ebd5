"""Prediction on exams of up to four views (Wu et al. 2019): crop, heatmaps, windows, networks, averages.

One flow from files to OUT/breasts.csv and OUT/exams.csv. Breast orientation is read from the pixels unless the
manifest's horizontal_flip says it ("NO": left breasts face right, as images are stored to hang).
"""

import hashlib
import json
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from tqdm import tqdm

from mammojax.data import exams
from mammojax.data.cells import Writer
from mammojax.data.crop import NoTissue, crop, faces_right, warn_if_whole
from mammojax.data.dicom import read_facts
from mammojax.data.exams import View
from mammojax.data.prepared import Prepared
from mammojax.data.projection import why_unused
from mammojax.data.window import best_centre, standardise, window
from mammojax.errors import BadCheckpoint, BadMammogram
from mammojax.evaluate import heatmap, predict
from mammojax.models import multi_view
from mammojax.train.checkpoint import restore_best
from mammojax.vocabulary import LABELS, VIEWS

EPOCHS = {"none": 1, "random10": 10}  # predictions averaged: Wu et al. average ten augmented ones
EXAM_COLUMNS = ("exam_id", "patient_id", *LABELS, "views", "note")


@dataclass
class Exam:
    """An exam's images, the views by name ("L-CC", …) in the manifest's order, ids, and what a reader must know."""

    exam_id: str
    patient_id: str
    views: dict[str, list[View]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class ExamPredictor:
    """A restored multi-view run.

    Attributes:
        config: its config.
        facts: of the data it was trained on.
        variables: its best weights.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, facts: dict[str, Any], variables: Any,
        patch_net: heatmap.PatchNet | None = None,
    ) -> None:  # fmt: skip
        self.config, self.facts, self.variables = config, facts, variables
        network = multi_view.build(config.model)
        self._apply = jax.jit(lambda variables, images: network.apply(variables, images)[0])
        self._average = jax.jit(multi_view.probabilities)
        self._patch_net = patch_net
        self._windows = np.random.RandomState(0)
        self._steps: random.Random | None = random.Random(0)  # noqa: S311

    @property
    def looks(self) -> str:
        """What its view of an exam depends on; one stream of random numbers for a run is nobody else's."""
        exam = self.config.exam
        if exam.random == "published":
            return str(id(self))
        net = self._patch_net.digest if self._patch_net else ""
        return json.dumps([self.facts["crop"], net, exam.to_dict()], default=str)

    def view(self, pixels: np.ndarray, name: str, faces_right: bool, file: str = "") -> View:
        """One image made ready; said on the standard error where its crop is hardly one.

        Args:
            pixels: uint16 [H, W], as stored.
            name: "L-CC", "R-CC", "L-MLO" or "R-MLO".
            faces_right: the nipple points right in `pixels`.
            file: what the image is called then; its view where empty.

        Raises:
            NoTissue: there is no breast to crop.
        """
        exam = self.config.exam
        found = crop(pixels, faces_right, **self.facts["crop"])
        cut = found.image(pixels)
        warn_if_whole(file or name, cut.shape, pixels.shape, found.threshold)
        cut = cut if faces_right else cut[:, ::-1]
        channels = [cut[..., None].astype(np.float32)]
        if self._patch_net is not None:
            rng = self._steps if exam.random == "published" else None
            channels.append(self._patch_net.heatmaps(cut, exam, rng)[..., heatmap.order(exam)])
        return View(
            np.concatenate(channels, axis=-1),
            best_centre(cut, found, name[2:], self._size(name)),
        )

    def _size(self, name: str) -> tuple[int, int]:
        height, width = self.config.exam.sizes[name[2:]]
        return int(height), int(width)

    def predict(self, exam: Exam | Mapping[str, Any], tta: str = "none") -> np.ndarray:
        """Probabilities of the labels of an exam; see `probabilities`.

        Args:
            exam: its views from `view`, or {"L-CC": a path, or pixels uint16 [H, W], …}, one image a view.
            tta: "none", or "random10".

        Returns:
            float64 [4], as LABELS; those of a breast without a view that is used are NaN.

        Raises:
            BadMammogram: the network needs views that the exam has not. BadCheckpoint: see `predict.numbers`.
        """
        if not isinstance(exam, Exam):
            pixels = {k: predict.read(x).pixels for k, x in exam.items()}
            exam = Exam("", "", {k: [self.view(x, k, faces_right(x, k[0], ""))] for k, x in pixels.items()})
        return self.probabilities(exam, tta)[:, 1]

    def used(self, views: Collection[str]) -> list[str]:
        """The views of an exam that the network predicts from, in the order of VIEWS.

        Image-wise: each that is there, as a breast's prediction is the mean of those of its views. View-wise: those
        whose pair is complete; where no pair is, those that are there, each standing for the other side too.
        Breast-wise and joint: all, where both CC and MLO are there.

        Args:
            views: names of those that the exam has.

        Raises:
            BadMammogram: the network needs views that the exam has not.
        """
        join, angles = self.config.model.join, tuple(self.config.model.angles)
        there = [view for view in VIEWS if view in views and view[2:] in angles]
        if not there or (join in ("breast-wise", "joint") and len({view[2:] for view in there}) < len(angles)):
            raise BadMammogram(f"a {join} network has not the views it needs; leave the exam out.")
        paired = [view for view in there if {f"L-{view[2:]}", f"R-{view[2:]}"} <= set(there)]
        return (paired or there) if join == "view-wise" else there

    def probabilities(self, exam: Exam, tta: str = "none") -> np.ndarray:
        """What the network says of an exam.

        It is shown the views of `used`; where a side lacks one, the other side's stands for it. Of an image-wise
        network what it says of such a view is not used.

        Args:
            exam: its views from `view`.
            tta: "none", or "random10": the mean over ten windows moved and resized at random.

        Returns:
            float64 [4, 2] by LABELS and (absent, present), NaN of a breast without a view that is used, or [1, 3] by
            BIRADS.

        Raises:
            BadMammogram: the network needs views that the exam has not.
        """
        if tta not in EPOCHS:
            raise ValueError(f'tta is "{tta}"; write "none" or "random10".')
        rng: Any = self._windows
        if self.config.exam.random != "published":  # an exam's numbers must not depend on those before it
            text = f"{self.config.seed}/{exam.exam_id}"
            rng = np.random.RandomState(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little"))
        used = self.used(exam.views)
        made = []
        for _ in range(EPOCHS[tta]):
            images = {}
            for name in (view for view in VIEWS if view in exam.views):
                views = exam.views[name]
                k = int(rng.randint(0, len(views))) if tta != "none" else 0
                cut = window(
                    views[k].image,
                    name[2:],
                    views[k].centre,
                    self._size(name),
                    rng,
                    self.config.exam.noise * (tta != "none"),
                )
                images[name] = jnp.asarray(standardise(cut)[None])
            shown = {}
            for angle in {view[2:] for view in used}:
                for side, other in (("L", "R"), ("R", "L")):
                    shown[f"{side}-{angle}"] = images.get(f"{side}-{angle}", images.get(f"{other}-{angle}"))
            made.append(self._by_breast(self._apply(self.variables, shown), used))
        return np.mean(made, axis=0)

    def _by_breast(self, logits: dict[str, Any], used: Sequence[str]) -> np.ndarray:
        """Probabilities, float64 [4, 2] or [1, 3], of the halves' logits; a breast's are of the views it has."""
        result = predict.numbers(np.array(self._average(logits)[0], np.float64))
        if self.config.model.target == "birads":
            return result
        for side in ("L", "R"):
            rows = [k for k, label in enumerate(LABELS) if label[0].upper() == side]
            own = [view[2:] for view in used if view.startswith(side)]
            if not own:
                result[rows] = np.nan
            elif self.config.model.join == "image-wise" and len(own) < len(logits):
                result[rows] = np.asarray(self._average({angle: logits[angle] for angle in own})[0])[rows]
        return result


def restore(run: Path, patch_run: Path | None = None, threshold: int | None = None) -> ExamPredictor:
    """A multi-view run as an ExamPredictor.

    Args:
        run: the run folder.
        patch_run: the patch network of a network with heatmaps; None: the one that the run names.
        threshold: of the crop; None: as its training images were cropped.

    Raises:
        BadCheckpoint: the run is none of a multi-view network, or its patch network is not there or another one.
    """
    config, facts, variables = restore_best(run)
    if config.model.task != "exam":
        raise BadCheckpoint(f'"{run}" is not a network for exams; give only such runs, or only whole-image ones.')
    if threshold is not None:
        facts = {**facts, "crop": {**facts["crop"], "threshold": threshold}}
    if config.model.channels == 1:
        return ExamPredictor(config, facts, variables)
    own = [run / "patch", Path(config.get("patch_run", "") or run / "patch")]
    found = patch_run or next((folder for folder in own if (folder / "config.json").is_file()), None)
    if found is None:
        raise BadCheckpoint("this network takes heatmaps: name the patch network's run with --patch-run.")
    net = heatmap.PatchNet(found)
    if facts.get("heatmaps", net.digest) != net.digest:
        raise BadCheckpoint(f'"{found}" is not the patch network on whose heatmaps "{run}" was trained.')
    return ExamPredictor(config, facts, variables, net)


def of_split(
    data: Prepared, split: str, sizes: Mapping[str, Sequence[int]], heatmaps: exams.Heatmaps | None, threads: int = 4
) -> Iterator[tuple[exams.Exam, Exam]]:
    """The exams of a split with their images, read ahead by threads."""
    images = exams.Images(data, split, sizes, heatmaps)

    def loaded(exam: exams.Exam) -> tuple[exams.Exam, Exam]:
        views = {view: [images.view(index) for index in exam.images[view]] for view in VIEWS if view in exam.images}
        return exam, Exam(exam.exam_id, exam.patient_id, views)

    every = exams.exams_of(data, split)
    with ThreadPoolExecutor(threads) as pool:
        for k in range(0, len(every), 2 * threads):  # in pieces: all images at once would not fit
            yield from pool.map(loaded, every[k : k + 2 * threads])


def score_split(
    predictor: ExamPredictor, data: Prepared, split: str, tta: str = "none", heatmaps: exams.Heatmaps | None = None,
    threads: int = 4,
) -> Iterator[tuple[exams.Exam, np.ndarray]]:  # fmt: skip
    """The exams of a split that the network can say something of, as `exam_split.Scored` has them.

    Args:
        predictor: of the network.
        data, split, heatmaps: see `exams.Images`.
        tta: see `ExamPredictor.probabilities`.
        threads: that read ahead.
    """
    for known, loaded in of_split(data, split, predictor.config.exam.sizes, heatmaps, threads):
        try:
            used = {view: known.images[view] for view in predictor.used(known.images)}
        except BadMammogram:
            continue
        yield replace(known, images=used), predictor.probabilities(loaded, tta)


def predict_exams(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", patch_run: Path | None = None,
    any_modality: bool = False, threshold: int | None = None,
) -> int:  # fmt: skip
    """Score the exams of a manifest, or of a folder of DICOMs (one study an exam).

    Several runs are an ensemble: the mean of their probabilities. Writes OUTPUT/exams.csv (EXAM_COLUMNS),
    OUTPUT/breasts.csv (its views: those that were used) and OUTPUT/rejected.csv, in full precision; exams with fewer
    than four views carry a note. Spot, magnification and other changed views are rejected; what is no mammogram too, by
    Modality unless `any_modality`. `patch_run` and `threshold` as of `restore`.

    Returns:
        0, or 3 when no exam could be predicted.

    Raises:
        BadCheckpoint: a run cannot be used. BadManifest, BadMammogram: the input cannot be.
    """
    models = [restore(run, patch_run, threshold) for run in runs]
    if any(model.config.model.target == "birads" for model in models):
        raise BadCheckpoint("a BI-RADS network says nothing of cancer; give runs whose config.model.target is cancer.")
    listed, rejected, key = predict.listing(source, output)
    grouped: dict[tuple[str, str], list[tuple[Path, dict[str, str]]]] = {}
    for path, facts in listed:
        try:
            known = facts if facts.get("laterality") and facts.get("view") and "patient_id" in facts else None
            facts = known or predict.facts_of(read_facts(path, any_modality), facts, key)
        except BadMammogram as error:
            rejected.append((facts["image"], str(error)))
            continue
        if reason := why_unused(facts["laterality"], facts["view"], facts.get("modifier", "")):
            rejected.append((facts["image"], reason))
            continue
        group = (facts["exam_id"] or facts["patient_id"], facts["patient_id"])
        grouped.setdefault(group, []).append((path, facts))
    done = 0
    output.mkdir(parents=True, exist_ok=True)
    with predict.table(output / "exams.csv") as exam_file, predict.table(output / "breasts.csv") as breast_file:
        exam_rows, breast_rows = Writer(exam_file, EXAM_COLUMNS), Writer(breast_file, predict.BREAST_COLUMNS)
        for (exam_id, patient_id), images in tqdm(grouped.items(), desc="predict", unit="exam", disable=None):
            try:
                scores, exam, used = _score(models, exam_id, patient_id, images, tta, rejected, any_modality)
            except BadMammogram as error:
                told = {name for name, _ in rejected}
                rejected += [(facts["image"], str(error)) for _, facts in images if facts["image"] not in told]
                continue
            values = dict(zip(LABELS, scores, strict=True))
            cells = ["" if np.isnan(v) else repr(float(v)) for v in scores]
            exam_rows.row([exam_id, patient_id, *cells, "+".join(exam.views), "; ".join(exam.notes)])
            for side, breast in (("L", "left"), ("R", "right")):
                if views := [view[2:] for view in used if view.startswith(side)]:
                    pair = [repr(float(values[f"{breast}_{finding}"])) for finding in ("benign", "malignant")]
                    breast_rows.row([exam_id, patient_id, side, "+".join(views), *pair])
            done += 1
            exam_file.flush()
            breast_file.flush()
    with predict.table(output / "rejected.csv") as file:
        Writer(file, ("file", "reason")).rows(rejected)
    print(f"{done} exams predicted, {len(rejected)} images rejected → {output}", flush=True)
    return 0 if done else 3


def _score(
    models: Sequence[ExamPredictor], exam_id: str, patient_id: str, images: list[tuple[Path, dict[str, str]]], tta: str,
    rejected: list[tuple[str, str]], any_modality: bool,
) -> tuple[np.ndarray, Exam, list[str]]:  # fmt: skip
    """The mean of the models' scores of one exam, and the views that any of them used, unless another model says
    nothing of the breast; unreadable images are listed and left out."""
    order = {view: k for k, view in enumerate(VIEWS)}
    images = sorted(images, key=lambda item: order[f"{item[1]['laterality']}-{item[1]['view']}"])
    decoded: dict[Path, np.ndarray] = {}
    for path, facts in images:
        try:
            decoded[path] = predict.read(path, any_modality).pixels
        except BadMammogram as error:
            rejected.append((facts["image"], str(error)))
    made: dict[str, Exam] = {}  # models that look alike share an exam's crops and heatmaps, which take longest
    scores, exam = [], Exam(exam_id, patient_id)
    for model in models:
        exam = made.setdefault(model.looks, Exam(exam_id, patient_id))
        for path, facts in images if not exam.views else ():
            name = f"{facts['laterality']}-{facts['view']}"
            if path not in decoded:
                continue
            right = faces_right(decoded[path], facts["laterality"], facts.get("horizontal_flip", ""))
            try:
                exam.views.setdefault(name, []).append(model.view(decoded[path], name, right, facts["image"]))
            except NoTissue as error:
                if not exam.views.get(name):
                    exam.views.pop(name, None)
                if model is models[0]:
                    rejected.append((facts["image"], str(error)))
        if not exam.views:
            raise BadMammogram("no image of its exam can be used")
        scores.append(model.predict(exam, tta))
    angles = sorted({angle for model in models for angle in model.config.model.angles})
    there = [view for view in exam.views if view[2:] in angles]
    if len(there) < 2 * len(angles):
        exam.notes.append(f"{len(there)} of {2 * len(angles)} views")
        paired = any({f"L-{angle}", f"R-{angle}"} <= set(there) for angle in angles)
        if not paired and any(model.config.model.join != "image-wise" for model in models):
            exam.notes.append("no pair is complete: one side stood for both")
    mean = np.mean(scores, axis=0)
    unseen = {label[0].upper() for label, value in zip(LABELS, mean, strict=True) if np.isnan(value)}
    for side in sorted(unseen & {view[0] for view in exam.views}):
        breast = "left" if side == "L" else "right"
        exam.notes.append(f"no prediction of the {breast} breast: it has no view that every network takes")
    by_any = {view for model in models for view in model.used(exam.views)}
    return mean, exam, [view for view in VIEWS if view in by_any and view[0] not in unseen]
