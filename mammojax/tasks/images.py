"""Classifiers of one image: patches and whole mammograms (Shen et al. 2019), patches of exams (Wu et al. 2019)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mammojax import extension, start
from mammojax.data import dataset, pairs, pipeline
from mammojax.data.recipe import Recipe, patch_side
from mammojax.evaluate import heatmap, localise, run_report, table
from mammojax.evaluate import measure as measures
from mammojax.evaluate.predictor import ImagePredictor
from mammojax.models import classifiers
from mammojax.train import losses, mesh
from mammojax.train.augment import augment
from mammojax.train.checkpoint import patch_run, restore_best
from mammojax.train.step import Loss, Network, Terms

Tree = Any
Predictions = dict[str, Any]
"""Scores of a split, see `ImagePredictor.score_split`."""


def network(model: ConfigDict) -> nn.Module:
    """The network of config.model, see `classifiers.build`; ValueError names an invalid field."""
    return classifiers.build(model)


def sizes(config: ConfigDict, data: ConfigDict) -> tuple[int, int]:
    """(height, width) of the images; `data` is the outer run's config.data, `config` may be of a run inside it.

    Raises:
        ValueError: patches with a context are averaged whole, or those without one in their middle alone; or patches
            with a context are learned beside whole images.
    """
    context, model = data.get("context", 0), config.model
    if model.task == "patch" and bool(context) != bool(model.get("window", 0)):
        raise ValueError(
            f"data.context={context} and model.window={model.get('window', 0)}: the features of a patch with context"
            " are averaged in its middle, those of one without everywhere; set both or neither."
        )
    if model.get("auxiliary_classes", 0) and context:
        raise ValueError(
            f"data.context={context}: patches that are learned beside whole images (model.auxiliary_classes) have none;"
            " write data.context=0."
        )
    side = patch_side(config.data.kind, data.patch_size, context if model.task == "patch" else 0)
    size = (int(data.size[0]), int(data.size[1])) if model.task == "whole" else (side, side)
    mesh.refuse(config, size, stride=32)
    return size


def facts(config: ConfigDict, data: dataset.Prepared, starts: Mapping[str, Path]) -> dict[str, Any]:
    """The data's facts, with the mean that config.data.mean sets in place of theirs; and the mean that the start
    subtracted, if it differs."""
    mean = config.data.get("mean", None)
    return start.with_start_mean(data.facts | ({} if mean is None else {"mean": mean}), starts.get("init_from"))


def batches(
    config: ConfigDict, workdir: Path, data: dataset.Prepared, facts: Mapping[str, Any]
) -> pipeline.Batches | pipeline.Paired:
    """Shuffled images, with patches beside them if the network learns those too (`model.auxiliary_classes`).

    Raises:
        BadDataset: the training images are of one class, or val or test has no labelled image.
    """
    devices = mesh.of_config(config)
    train = data.source("train", masks=False)
    if config.data.shuffle_labels:
        train = Relabelled(train, data.table("train"), config.seed)
    patients = config.data.patients
    only = dataset.of_patients(data.table("train"), patients, config.seed) if patients else None
    dataset.refuse_one_class(data, only)

    def stream(source: Any, batch: int, pixels: int, only: np.ndarray | None = None) -> pipeline.Batches:
        workers = pipeline.reading_processes(config.data.workers, len(source if only is None else only), pixels)
        return pipeline.train_batches(source, only=only, batch=batch, seed=config.seed, workers=workers, mesh=devices)

    images = stream(train, config.batch, int(np.prod(np.array(sizes(config, config.data)))), only)
    if not config.model.get("auxiliary_classes", 0):
        return images
    patches = dataset.find(Recipe.of_run(config, workdir).of_kind(config.auxiliary.kind))
    return pipeline.Paired(images, stream(patches.source("train"), config.auxiliary.batch, config.data.patch_size**2))


def loss(config: ConfigDict, facts: Mapping[str, Any]) -> Loss:
    """Cross-entropy of augmented images, or the loss that `config.loss` names.

    A batch holds "image" uint16 [B, H, W, 1] and "label" int32 [B]. For patches the loss is weighted so that the
    classes of a batch count alike (`config.balance_loss`). With "patch_image" and "patch_label" beside them, the
    patches' balanced mean cross-entropy times `config.auxiliary.weight` is added.
    """
    mean, name = facts["mean"], config.get("loss", "")
    normalise = config.model.get("normalise", "mean")
    of_logits = extension.load(name, "config.loss") if name else losses.cross_entropy
    devices = mesh.of_config(config)

    def as_input(image: Any, key: jax.Array) -> Any:
        if isinstance(image, dict):  # the inputs of a two-view network, augmented independently
            return {name: as_input(x, jax.random.fold_in(key, k)) for k, (name, x) in enumerate(sorted(image.items()))}
        gray = image.astype(jnp.float32) * (1 if mean is None else 255 / 65535)
        if config.augment.enabled:
            gray = augment(key, gray, config.augment)
        return classifiers.centre(gray, mean or 0.0, config.model.channels, normalise)

    def of_batch(batch: dict[str, jax.Array], key: jax.Array) -> Callable[[Network], tuple[jax.Array, Terms]]:
        label, x = batch["label"], as_input(batch["image"], key)
        patches = as_input(batch["patch_image"], jax.random.fold_in(key, 1)) if "patch_image" in batch else None

        def of_network(network: Network) -> tuple[jax.Array, Terms]:
            (logits, _), moved = mesh.banded(network, devices)(x)
            plain = of_logits(logits, label)
            each = plain * losses.balanced_weights(label, config.model.classes) if config.balance_loss else plain
            total = weighted = each.mean()
            if patches is not None:  # a separate pass: the running statistics stay those of whole images
                ((patch_logits, _), _), truth = network(patches, auxiliary=True), batch["patch_label"]
                weights = losses.balanced_weights(truth, patch_logits.shape[-1])
                total += config.auxiliary.weight * (losses.cross_entropy(patch_logits, truth) * weights).mean()
            return total, Terms(plain, weighted, jnp.argmax(logits, -1), moved.get("batch_stats", {}))

        return of_network

    return of_batch


def score(
    config: ConfigDict, data: dataset.Prepared, facts: Mapping[str, Any], variables: Tree
) -> Callable[[Tree, str, str], Predictions]:
    """A function that scores a split, compiled once for all splits."""
    return scorer(config, facts, variables, lambda split: data.source(split, masks=False))


def scorer(
    config: ConfigDict, facts: Mapping[str, Any], variables: Tree, source: Callable[[str], Any]
) -> Callable[[Tree, str, str], Predictions]:
    """`score` of the examples that `source` gives for a split: images or pairs."""
    predictor = ImagePredictor(config, dict(facts), variables)

    def of_split(variables: Tree, split: str, tta: str) -> Predictions:
        predictor.variables = variables
        return predictor.score_split(pipeline.eval_batches(source(split), batch=config.eval_batch), tta)

    return of_split


def ttas(config: ConfigDict) -> tuple[str, ...]:
    """Whole images are also scored with averaged flips, the paper's "augmented" AUC; the plain scores come last."""
    return whole_ttas(config) if config.model.task == "whole" else ("none",)


def whole_ttas(config: ConfigDict) -> tuple[str, ...]:
    """Averaged flips and, if config.shifts says so, nine averaged shifts (Petrini et al. 2022); none comes last."""
    return (*(("shifts9",) if config.get("shifts", False) else ()), "flips", "none")


def summary(config: ConfigDict, predictions: Predictions) -> dict[str, float]:
    """Loss, accuracy and, with two classes, AUC."""
    return measures.summary(predictions)


def measure(
    config: ConfigDict, workdir: Path, name: str, predictions: Predictions, data: dataset.Prepared, split: str
) -> dict[str, Any]:
    """Write predictions/NAME.csv; return the metrics with their intervals."""
    rows = data.table(split)
    table.write_images(workdir / "predictions" / f"{name}.csv", predictions, rows, data.facts["classes"])
    patients = [row["patient_id"] for row in rows]
    return measures.measure(predictions, patients, runs=config.bootstrap_runs, seed=config.seed)


def only(predictions: Predictions, data: dataset.Prepared, split: str, patients: set[str]) -> Predictions:
    """The predictions of these patients' images."""
    chosen = np.array([row["patient_id"] in patients for row in data.table(split)], bool)
    return {name: np.asarray(values)[chosen] for name, values in predictions.items()}


def report(
    config: ConfigDict, workdir: Path, data: dataset.Prepared, predictions: Predictions, notes: list[str]
) -> None:
    """Write report.html; for whole images with a gallery of the surest and the worst."""
    whole = config.model.task == "whole"
    head = config.model.get("head", "")
    title = f"{'Whole-image' if whole else 'Patch'} classifier {config.model.trunk}{' + ' + head if head else ''}"
    title = f"{title} on {config.data.name}"
    if not whole:
        run_report.write_image_report(workdir, title=title, notes=notes, data=data)
        return
    write_report(config, workdir, data, data.source("test"), data.table("test"), predictions, title, notes)


def write_report(
    config: ConfigDict, workdir: Path, data: dataset.Prepared, source: Any, rows: Sequence[dict[str, str]],
    predictions: Predictions, title: str, notes: list[str],
) -> None:  # fmt: skip
    """Write report.html of whole images or pairs: what the network can do, where it looks, the surest and the worst.

    Args:
        config, workdir, data: of the run.
        source: of the test examples, with "image" and "masks", or such by input.
        rows: of the test examples, see `Prepared.table` and `Pairs.table`.
        predictions: of the test examples.
        title, notes: of the page.
    """
    label = predictions["label"]
    marked, _ = pairs.examples(data, "test", config.model, images=False)
    masks = [localise.outlines(marked[k]["masks"]) for k in range(len(label))]
    malignant = np.array([localise.outlined(of, localise.MALIGNANT) for of in masks], bool)
    benign = np.array([localise.outlined(of, localise.BENIGN) for of in masks], bool) & ~malignant
    patients = [row["patient_id"] for row in rows]
    abilities, places = {}, None
    if benign.any():
        score = predictions["scores"][:, 1]
        abilities = measures.abilities(score, label, benign, patients, config.bootstrap_runs)
    if malignant[label == 1].any() and (patch_run(workdir, config.init_from) or heatmap.is_map(config.model.head)):
        places = localise.localise(workdir, tolerance=heatmap.STRIDE // 2, saliency_too=False, masks=masks)
    run_report.write_image_report(
        workdir, title=title, notes=notes, abilities=abilities, places=places, data=data,
        gallery=_gallery(config, workdir, source, predictions, data.facts["classes"]),
    )  # fmt: skip


def _gallery(
    config: ConfigDict, workdir: Path, source: Any, predictions: Predictions, classes: Sequence[str]
) -> list[run_report.GalleryItem]:  # fmt: skip
    """The surest and the worst test examples, each with the network's own heatmap or its patch network's.

    The images of a pair are shown beside each other.
    """
    p, label = predictions["scores"][:, 1], predictions["label"]
    order = np.argsort(p)
    malignant, others = [i for i in order[::-1] if label[i] == 1], [i for i in order if label[i] == 0]  # surest first
    halves = [min(config.gallery, (len(indices) + 1) // 2) for indices in (malignant, others)]  # no image twice
    groups = {
        f"surest {classes[1]}": malignant[: halves[0]],
        f"surest {classes[0]}": others[: halves[1]],
        f"{classes[1]} scored lowest": malignant[halves[0] :][::-1],
        f"{classes[0]} scored highest": others[halves[1] :][::-1],
    }
    folder = patch_run(workdir, config.init_from)
    own = restore_best(workdir) if heatmap.is_map(config.model.head) else None
    net = restore_best(folder) if folder and not own else None
    items = []

    def of_view(image: np.ndarray) -> np.ndarray | None:
        if own:
            return heatmap.of_head(*own, image[None])[0]
        if net:
            return heatmap.malignant(np.asarray(heatmap.heatmap(*net, image[None])[0]), image.shape[:2])
        return None

    for group, indices in groups.items():
        for i in indices[: config.gallery]:
            example = source[int(i)]
            images, masks = (jax.tree.leaves(example[name]) for name in ("image", "masks"))
            maps = [map_ for image in images if (map_ := of_view(image)) is not None]
            overlay = np.concatenate(maps, axis=1) if maps else None
            items.append(
                run_report.GalleryItem(
                    image=(np.concatenate(images, axis=1)[..., 0] >> 8).astype(np.uint8),
                    heatmap=overlay,
                    mask=np.concatenate(masks, axis=1)[..., 0],
                    caption=f"{group}: p(malignant) = {p[i]:.2f}, line {i + 2} of predictions/test.csv",
                )
            )
    return items


class Relabelled:
    """A control experiment: each patient's labels replaced by another patient's, which no image can predict."""

    def __init__(self, source: Any, table: list[dict[str, str]], seed: int) -> None:
        self._source = source
        patients: dict[str, list[int]] = {}
        for row in table:
            patients.setdefault(row["patient_id"], []).append(int(row["label"]))
        names = sorted(patients)
        partner = dict(zip(names, np.random.default_rng(seed).permutation(names), strict=True))
        taken: dict[str, int] = dict.fromkeys(names, 0)
        self._labels = []
        for row in table:
            name = row["patient_id"]
            labels = patients[partner[name]]
            self._labels.append(labels[taken[name] % len(labels)])
            taken[name] += 1

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._source[index], "label": self._labels[index]}
