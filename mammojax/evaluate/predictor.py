"""From images and exams to probabilities: the networks' inputs, and the means over flips, windows and networks.

Shen et al. 2019 average four flips of an image ("Augmented prediction and model averaging"), Wu et al. 2019 ten windows
of each view of an exam.
"""

import contextlib
import hashlib
import json
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mammojax import compilation, processes
from mammojax.data import exams
from mammojax.data.breast import Framing, crop, faces_right, warn_if_whole
from mammojax.data.dataset import Prepared
from mammojax.data.dicom import Mammogram, read_mammogram, refuse_small
from mammojax.data.exams import View
from mammojax.errors import BadCheckpoint, BadMammogram
from mammojax.evaluate import heatmap
from mammojax.evaluate.table import refuse_not_finite
from mammojax.evaluate.variations import TTAS, variations
from mammojax.models import classifiers, multi_view
from mammojax.train.checkpoint import restore_best
from mammojax.vocabulary import LABELS, PAIRS, VIEWS

Tree = Any
WINDOWS = {"none": 1, "random10": 10}  # windows per view of an exam, by test-time augmentation


def ensemble(scores: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of several networks' scores of the same images or exams, NaN where one of them has none."""
    return np.mean(scores, axis=0)


class ImagePredictor:
    """A network for single images, patches or whole mammograms, or for pairs of images.

    The images of a two-view network are {input: image}, with the inputs of `vocabulary.PAIRS`.

    Attributes:
        config: of its run.
        facts: of the data it was trained on: mean, framing, classes.
        variables: its weights.
    """

    def __init__(self, config: ml_collections.ConfigDict, facts: dict[str, Any], variables: Tree) -> None:
        compilation.keep()
        self.config, self.facts, self.variables = config, facts, variables
        model = config.model
        normalise = model.get("normalise", "mean")
        self._apply = classifiers.make_apply(classifiers.build(model), facts["mean"], model.channels, normalise)

    @classmethod
    def restore(cls, run: str | Path) -> "ImagePredictor":
        """The best weights of a run. Raises BadCheckpoint where the folder is none, or its network is for exams."""
        config, facts, variables = restore_best(run)
        if config.model.task == "exam":
            raise BadCheckpoint(f'"{run}" is a network for exams; give only runs for images, or only such ones.')
        return cls(config, facts, variables)

    def frame(self, image: Any) -> Any:
        """One image framed as in training, uint16 [H, W]; a patch network takes patches as they are.

        Args:
            image: a path, or pixels uint16 [H, W]; for a two-view network {input: such an image}.

        Raises:
            BadMammogram: the file or array cannot be used.
            ValueError: the images are not those that the network takes.
        """
        if self.config.model.task == "two_view":
            inputs = PAIRS[self.config.model.get("pair", "views")]
            if not isinstance(image, Mapping) or set(image) != set(inputs):
                raise ValueError(f"a two-view network takes {{{', '.join(f'{name!r}: image' for name in inputs)}}}.")
            return {name: self._framed(image[name]) for name in inputs}
        return self._framed(image)

    def _framed(self, image: str | Path | np.ndarray) -> np.ndarray:
        if self.config.model.task == "patch":
            return gray(image) if isinstance(image, np.ndarray) else read_mammogram(image).pixels
        pixels = read(image).pixels
        return Framing.from_json(self.facts["framing"]).place(pixels).image(pixels)

    def predict(self, images: Any, tta: str = "none") -> np.ndarray:
        """Probabilities of images, the same for files and for arrays.

        Args:
            images: one or several: the path of a DICOM or gray picture, or a mammogram uint16 [H, W]; for a two-view
                network {input: such an image}.
            tta: "none"; "flips": the mean over {as is, horizontal, vertical, both} (Shen et al. 2019, "Augmented
                prediction"); "shifts9": the mean over nine shifts, see `variations`.

        Returns:
            float32 [N], p(malignant); for a patch network float32 [N, 5].
        """
        if isinstance(images, (str, Path, Mapping)) or (isinstance(images, np.ndarray) and images.ndim == 2):
            images = [images]
        return self.score([self.frame(image) for image in images], tta)

    def score(self, framed: Sequence[Any], tta: str, batch: int | None = None) -> np.ndarray:
        """Probabilities of framed images, as `predict` returns them.

        Args:
            framed: from `frame`.
            tta: see `predict`.
            batch: images at a time; the last batch is filled up with zeros, so that one compiled program serves all.
                None: the config's `eval_batch`, or the number of images if that is smaller.

        Raises:
            BadCheckpoint: see `table.refuse_not_finite`.
        """
        if tta not in TTAS:
            raise ValueError(f'tta is "{tta}"; write "none", "flips" or "shifts9".')
        size = batch or min(self.config.eval_batch, max(1, len(framed)))
        scores = []
        for start in range(0, len(framed), size):
            some = framed[start : start + size]

            def stacked(*images: np.ndarray) -> np.ndarray:
                full = np.zeros((size, *images[0].shape, 1), images[0].dtype)
                full[: len(images), ..., 0] = images
                return full

            full = jax.tree.map(stacked, *some)
            scores.append(refuse_not_finite(self._probabilities(full, tta)[: len(some)]))
        result = np.concatenate(scores) if scores else np.zeros((0, self.config.model.classes), np.float32)
        return result[:, 1] if self.config.model.task in ("whole", "two_view") else result

    def score_split(self, batches: Iterable[dict[str, Any]], tta: str = "none") -> dict[str, Any]:
        """Score one pass over a data set.

        Args:
            batches: from `data.pipeline.eval_batches`, each process its own; the padding of the last one is dropped.
            tta: see `predict`.

        Returns:
            {"scores": float32 [N, K], "label": int [N], "image_id": N names}, of all processes.
        """
        scores, labels, names = [], [], []
        for batch in batches:
            real = np.asarray(batch["weight"]) > 0
            scores.append(self._probabilities(batch["image"], tta)[real])
            labels.append(np.asarray(batch["label"])[real])
            names += [name for name, keep in zip(batch["image_id"], real, strict=True) if keep]
        arrays = {"scores": np.concatenate(scores), "label": np.concatenate(labels)}
        gathered = {name: processes.gather(values) for name, values in arrays.items()}
        return gathered | {"image_id": processes.gather_texts(names)}

    def _probabilities(self, images: Any, tta: str) -> np.ndarray:
        """Probabilities float32 [B, K] of images [B, H, W, 1], or such by input: the mean over `variations`."""
        leaves, structure = jax.tree.flatten(images)
        every = zip(*(variations(np.asarray(leaf), tta) for leaf in leaves), strict=True)
        of_each = [
            np.asarray(self._apply(self.variables, jax.tree.unflatten(structure, [jnp.asarray(x) for x in each])))
            for each in every
        ]
        return np.mean(of_each, axis=0)


def read(image: str | Path | np.ndarray, any_modality: bool = False) -> Mammogram:
    """A mammogram to predict, from a file (see `read_mammogram`) or from pixels uint16 [H, W].

    Raises:
        BadMammogram: it cannot be read, is no mammogram, is smaller than MIN_SIDE on a side, or has one value only.
    """
    if not isinstance(image, np.ndarray):
        mammogram = read_mammogram(image, any_modality)
        refuse_small(Path(image).name, mammogram.pixels.shape)
        return mammogram
    pixels = gray(image)
    refuse_small("an array", pixels.shape)
    if pixels.min() == pixels.max():
        raise BadMammogram("an array holds one value only, no tissue; leave it out.")
    return Mammogram(pixels)


def gray(pixels: np.ndarray) -> np.ndarray:
    """The array itself. Raises BadMammogram where it is not uint16 [H, W]."""
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise BadMammogram(f"an array must be uint16 [H, W], not {pixels.dtype} {pixels.shape}; convert it.")
    return pixels


class ExamPredictor:
    """A network for exams of up to four views: crop, heatmaps, windows, network, averages (Wu et al. 2019).

    Attributes:
        config: of its run.
        facts: of the data it was trained on.
        variables: its weights.
        sizes: (height, width) of the windows by "CC" and "MLO".
    """

    def __init__(
        self, config: ml_collections.ConfigDict, facts: dict[str, Any], variables: Tree,
        patch_net: heatmap.PatchNet | None = None,
    ) -> None:  # fmt: skip
        compilation.keep()
        self.config, self.facts, self.variables = config, facts, variables
        self.sizes = exams.window_sizes(config.exam.sizes)
        network = multi_view.build(config.model)
        self._apply = jax.jit(lambda variables, images: network.apply(variables, images)[0])
        self._average = jax.jit(multi_view.probabilities)
        self._patch_net = patch_net
        # The published code draws all windows of a run, and all its patches, from one generator each.
        self._published_windows = np.random.RandomState(0)
        self._published_patches = random.Random(0)  # noqa: S311

    @classmethod
    def restore(cls, run: Path, patch_run: Path | None = None, threshold: int | None = None) -> "ExamPredictor":
        """The best weights of a run.

        Args:
            run: the run folder.
            patch_run: the patch network's run, for a network with heatmaps; None: the one that the run names.
            threshold: of the crop; None: that of its training images.

        Raises:
            BadCheckpoint: the run has no multi-view network, or its patch network is missing or another one.
        """
        config, facts, variables = restore_best(run)
        if config.model.task != "exam":
            raise BadCheckpoint(f'"{run}" is not a network for exams; give only such runs, or only whole-image ones.')
        if threshold is not None:
            facts = {**facts, "crop": {**facts["crop"], "threshold": threshold}}
        if config.model.channels == 1:
            return cls(config, facts, variables)
        candidates = [run / "patch", Path(config.get("patch_run", "") or run / "patch")]
        folder = patch_run or next((path for path in candidates if (path / "config.json").is_file()), None)
        if folder is None:
            raise BadCheckpoint("this network takes heatmaps: name the patch network's run with --patch-run.")
        net = heatmap.PatchNet(folder)
        if facts.get("heatmaps", net.digest) != net.digest:
            raise BadCheckpoint(f'"{folder}" is not the patch network on whose heatmaps "{run}" was trained.')
        return cls(config, facts, variables, net)

    @property
    def view_settings(self) -> str:
        """The settings of `view`: predictors with equal ones make equal views. A run that draws from one stream, as the
        published code does, shares its views with no other."""
        exam = self.config.exam
        if exam.random == "published":
            return str(id(self))
        net = self._patch_net.digest if self._patch_net else ""
        return json.dumps([self.facts["crop"], net, exam.to_dict()], default=str)

    def view(self, pixels: np.ndarray, name: str, faces_right: bool, file: str = "") -> View:
        """One image prepared for the network; warns on standard error if the crop keeps almost the whole image.

        Args:
            pixels: uint16 [H, W], as stored.
            name: "L-CC", "R-CC", "L-MLO" or "R-MLO".
            faces_right: the nipple points right in `pixels`.
            file: the image's name in that warning; "": its view.

        Raises:
            NoTissue: there is no breast to crop.
        """
        exam = self.config.exam
        breast = crop(pixels, faces_right, **self.facts["crop"])
        inner = breast.image(pixels)
        warn_if_whole(file or name, inner.shape, pixels.shape, breast.threshold)
        inner = inner if faces_right else inner[:, ::-1]
        heatmaps: list[np.ndarray] = []
        if self._patch_net is not None:
            rng = self._published_patches if exam.random == "published" else None
            both = self._patch_net.heatmaps(inner, exam, rng)
            heatmaps = [both[..., k] for k in heatmap.order(exam)]
        return View.of(inner, breast, name[2:], self.sizes[name[2:]], heatmaps)

    def predict(self, exam: Mapping[str, str | Path | np.ndarray], tta: str = "none") -> np.ndarray:
        """Probabilities of the labels of an exam; see `probabilities`.

        Args:
            exam: {"L-CC": a path, or pixels uint16 [H, W], …}, one image per view. Its pixels decide which way it
                faces.
            tta: "none", or "random10".

        Returns:
            float64 [4], as LABELS; NaN for a breast without a used view.

        Raises:
            BadMammogram: a file or array cannot be used, or the network needs views that the exam has not.
            BadCheckpoint: see `table.refuse_not_finite`.
        """
        pixels = {name: read(image).pixels for name, image in exam.items()}
        views = {name: [self.view(x, name, faces_right(x, name[0], ""))] for name, x in pixels.items()}
        return self.probabilities(views, "", tta)[:, 1]

    def used(self, views: Collection[str]) -> list[str]:
        """The views of an exam that the network predicts from, in the order of VIEWS.

        Image-wise: every view given, as a breast's prediction is the mean over its views. View-wise: complete pairs;
        without one, the views given, each standing in for the other side too. Breast-wise and joint: all, if both CC
        and MLO are given.

        Args:
            views: names of those that the exam has.

        Raises:
            BadMammogram: the network needs views that the exam has not.
        """
        join, angles = self.config.model.join, tuple(self.config.model.angles)
        present = [view for view in VIEWS if view in views and view[2:] in angles]
        if not present or (join in ("breast-wise", "joint") and len({view[2:] for view in present}) < len(angles)):
            raise BadMammogram(f"a {join} network has not the views it needs; leave the exam out.")
        paired = [view for view in present if {f"L-{view[2:]}", f"R-{view[2:]}"} <= set(present)]
        return (paired or present) if join == "view-wise" else present

    def probabilities(self, views: Mapping[str, Sequence[View]], exam_id: str, tta: str = "none") -> np.ndarray:
        """The network's probabilities for an exam.

        The network gets the views of `used`; where a side lacks one, the other side's stands in for it. An image-wise
        network's output for such a view is dropped.

        Args:
            views: from `view`, one or more images each, by "L-CC", ….
            exam_id: seeds the random windows, so that they do not depend on the exams before.
            tta: "none", or "random10": the mean over ten windows moved and resized at random.

        Returns:
            float64 [4, 2] by LABELS and (absent, present), NaN for a breast without a used view, or [1, 3] by BIRADS.

        Raises:
            BadMammogram: the network needs views that the exam has not. BadCheckpoint: see `table.refuse_not_finite`.
        """
        return next(self.each([(views, exam_id)], tta))

    def each(
        self, several: Iterable[tuple[Mapping[str, Sequence[View]], str]], tta: str = "none", batch: int = 1
    ) -> Iterator[np.ndarray]:
        """The `probabilities` of each of several exams, in their order.

        Args:
            several, tta: the views and the id of each; see `probabilities`.
            batch: windows of a view at a time, of exams with the same angles; zeros fill up the last ones.
        """
        if tta not in WINDOWS:
            raise ValueError(f'tta is "{tta}"; write "none" or "random10".')

        def draws() -> Iterator[tuple[list[str], dict[str, Any]]]:
            for views, exam_id in several:
                used, rng = self.used(views), self._rng(exam_id)
                for _ in range(WINDOWS[tta]):
                    windows = self.windows(views, rng, augmented=tta != "none")
                    sides = [("L", "R", view[2:]) for view in used] + [("R", "L", view[2:]) for view in used]
                    yield used, {f"{s}-{a}": windows.get(f"{s}-{a}", windows.get(f"{o}-{a}")) for s, o, a in sides}

        scores: list[np.ndarray] = []
        for _, alike in groupby(draws(), key=lambda draw: sorted(draw[1])):
            while some := list(islice(alike, batch)):
                scores += self._scores(some, batch)
                while len(scores) >= (count := WINDOWS[tta]):
                    yield np.mean(scores[:count], axis=0)
                    scores = scores[count:]

    def _scores(self, some: Sequence[tuple[list[str], dict[str, Any]]], batch: int) -> list[np.ndarray]:
        """Probabilities of each of at most `batch` sets of windows, see `_by_breast`."""
        images = {}
        for view, first in some[0][1].items():
            images[view] = np.zeros((batch, *first.shape), np.float32)
            for k, (_, windows) in enumerate(some):
                images[view][k] = windows[view]
        logits = self._apply(self.variables, images)
        every = np.array(self._average(logits), np.float64)
        return [self._by_breast(logits, every[k], k, used) for k, (used, _) in enumerate(some)]

    def _rng(self, exam_id: str) -> np.random.RandomState:
        """The generator of an exam's windows."""
        if self.config.exam.random == "published":
            return self._published_windows
        digest = hashlib.sha256(f"{self.config.seed}/{exam_id}".encode()).digest()
        return np.random.RandomState(int.from_bytes(digest[:4], "little"))

    def windows(
        self, views: Mapping[str, Sequence[View]], rng: np.random.RandomState, augmented: bool = False
    ) -> dict[str, np.ndarray]:
        """One window of each view, float32 [height, width, C], standardised.

        Args:
            views: see `probabilities`.
            rng: draws the image of a view and moves its window.
            augmented: if False, the first image of each view, with its window unmoved.
        """
        noise, windows = self.config.exam.noise if augmented else 0, {}
        for name in (view for view in VIEWS if view in views):
            k = int(rng.randint(0, len(views[name]))) if augmented else 0
            windows[name] = views[name][k].window(name[2:], self.sizes[name[2:]], rng, noise)
        return windows

    def _by_breast(self, logits: dict[str, Any], mean: np.ndarray, k: int, used: Sequence[str]) -> np.ndarray:
        """Probabilities of exam k of a batch, by breast, from their `mean` over the halves' logits."""
        result = refuse_not_finite(mean)
        if self.config.model.target == "birads":
            return result
        for side in ("L", "R"):
            rows = [row for row, label in enumerate(LABELS) if label[0].upper() == side]
            own = [view[2:] for view in used if view.startswith(side)]
            if not own:
                result[rows] = np.nan
            elif self.config.model.join == "image-wise" and len(own) < len(logits):
                result[rows] = np.asarray(self._average({angle: logits[angle] for angle in own})[k])[rows]
        return result

    def score_split(
        self, data: Prepared, split: str, tta: str = "none", heatmaps: exams.Heatmaps | None = None, threads: int = 4,
        batch: int = 1,
    ) -> list[tuple[exams.Exam, np.ndarray]]:  # fmt: skip
        """The exams of a split that the network can score, with the images it used, and their `probabilities`.

        Args:
            data, split, heatmaps: see `data.exams.Images`.
            tta: see `probabilities`.
            threads: that read ahead.
            batch: see `each`.
        """
        usable, used = [], []
        for exam in exams.exams_of(data, split):
            with contextlib.suppress(BadMammogram):
                used.append({view: exam.images[view] for view in self.used(exam.images)})
                usable.append(exam)
        own = [usable[k] for k in processes.share(len(usable))]
        read = exams.read_ahead(data, split, self.sizes, heatmaps, threads, own)
        scores = list(self.each(((views, exam.exam_id) for exam, views in read), tta, batch))
        shape = (1, 3) if self.config.model.target == "birads" else (4, 2)
        every = processes.gather(np.array(scores, np.float64).reshape(-1, *shape))
        return [(replace(exam, images=images), p) for exam, images, p in zip(usable, used, every, strict=True)]
