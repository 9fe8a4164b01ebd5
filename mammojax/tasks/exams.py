"""Multi-view networks on exams of four views (Wu et al. 2019): four labels of cancer, or BI-RADS."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from mammojax import extension
from mammojax.data import dataset, exams, pipeline
from mammojax.data.sliding import CELL
from mammojax.errors import BadCheckpoint, BadDataset
from mammojax.evaluate import heatmap, run_report, table
from mammojax.evaluate import measure as measures
from mammojax.evaluate.predictor import ExamPredictor
from mammojax.models import multi_view
from mammojax.train import losses, mesh
from mammojax.train.step import Loss, Network, Terms
from mammojax.vocabulary import FINDINGS, VIEWS

Tree = Any
Predictions = table.Exams


def network(model: ConfigDict) -> nn.Module:
    """The network of config.model, see `multi_view.build`; ValueError names an invalid field."""
    return multi_view.build(model)


def sizes(config: ConfigDict, data: ConfigDict) -> dict[str, tuple[int, int]]:
    """(height, width) of the windows of each view that the network takes.

    Raises:
        ValueError: an impossible window, or noise that leaves nothing of it.
    """
    exam, windows = config.exam, {}
    for view in (view for view in VIEWS if view[2:] in config.model.angles):
        height, width = exam.sizes[view[2:]]
        if min(height, width) < 32:
            raise ValueError(f"exam.sizes.{view[2:]}={(height, width)}: a window of less than 32 pixels shows nothing.")
        if not 0 <= exam.noise < min(height, width) / 2:
            raise ValueError(f"exam.noise={exam.noise}: give a number of pixels below half of each window's side.")
        windows[view] = (int(height), int(width))
    if not 0 < exam.stride <= exam.patch:
        raise ValueError(f"exam.stride={exam.stride}: steps longer than exam.patch={exam.patch} leave gaps.")
    if exam.get("dense", False) and exam.patch % CELL:
        raise ValueError(f"exam.patch={exam.patch}: exam.dense needs a multiple of {CELL} pixels.")
    if config.model.channels == 3 and data.patch_size != exam.patch:
        raise ValueError(f"exam.patch={exam.patch}: heatmaps slide what was learned; set data.patch_size to the same.")
    if sorted(exam.heatmaps) != sorted(FINDINGS):
        raise ValueError(
            f"exam.heatmaps={tuple(exam.heatmaps)}: name malignant and benign, in the order of the channels."
        )
    mesh.refuse(config, windows, stride=64)
    return windows


def facts(config: ConfigDict, data: dataset.Prepared, starts: Mapping[str, Path]) -> dict[str, Any]:
    """The data's facts, and the digest of the patch network whose heatmaps are channels of the images.

    Missing heatmaps are written now, beside the data.

    Raises:
        BadCheckpoint: the network takes heatmaps and there is no patch network.
    """
    if config.model.channels == 1:
        return data.facts
    if "patch_run" not in starts:
        raise BadCheckpoint("config.patch_run is empty; name the run of the patch network that makes the heatmaps.")
    net = heatmap.PatchNet(starts["patch_run"])
    heatmap.write_channels(data, net, config.exam, max(2, config.data.workers))
    return data.facts | {"heatmaps": net.digest}


def batches(
    config: ConfigDict, workdir: Path, data: dataset.Prepared, facts: Mapping[str, Any]
) -> pipeline.Batches | pipeline.Paired:
    """The exams of each epoch, see `exams.Windows`.

    Raises:
        BadDataset: there is no exam to learn from or to measure.
    """
    target = config.model.target
    windows = exams.Windows(
        data, config.exam.sizes, target=target, angles=tuple(config.model.angles), noise=config.exam.noise,
        batch=config.batch, epochs=sum(stage.epochs for stage in config.stages.values()), seed=config.seed,
        heatmaps=heatmap.channels_of(data, config, facts),
    )  # fmt: skip
    if windows.left_out:
        print(f"{windows.left_out} training exams are left out: a view or the label is missing", flush=True)
    exams.refuse_one_class(windows.exams, data, target, config.model.angles)
    pixels = sum(height * width for height, width in sizes(config, config.data).values())
    workers = pipeline.reading_processes(config.data.workers, windows.per_epoch, pixels)
    devices = mesh.of_config(config)
    return pipeline.exam_batches(windows, batch=config.batch, workers=workers, mesh=devices)


def loss(config: ConfigDict, facts: Mapping[str, Any]) -> Loss:
    """`losses.exam_loss`, or the loss that `config.loss` names.

    A batch holds "image" {view: float32 [B, h, w, C]} and "label" int32 [B, R]; its windows are augmented already.
    """
    name = config.get("loss", "")
    of_logits = extension.load(name, "config.loss") if name else losses.exam_loss
    devices = mesh.of_config(config)

    def of_batch(batch: dict[str, Any], key: jax.Array) -> Callable[[Network], tuple[jax.Array, Terms]]:
        def of_network(network: Network) -> tuple[jax.Array, Terms]:
            (logits, _), moved = mesh.banded(network, devices)(batch["image"])
            plain = of_logits(logits, batch["label"])
            total = plain.mean()
            return total, Terms(plain, total, losses.exam_classes(logits), moved.get("batch_stats", {}))

        return of_network

    return of_batch


def score(
    config: ConfigDict, data: dataset.Prepared, facts: Mapping[str, Any], variables: Tree
) -> Callable[[Tree, str, str], Predictions]:
    """A function that scores a split, compiled once for all splits.

    The function raises BadDataset where a split has no exam with the views that the network needs.
    """
    predictor = ExamPredictor(config, dict(facts), variables)
    heatmaps, threads = heatmap.channels_of(data, config, facts), max(2, config.data.workers)

    def of_split(variables: Tree, split: str, tta: str) -> Predictions:
        predictor.variables = variables
        return list(predictor.score_split(data, split, tta, heatmaps, threads, config.batch))

    return of_split


def ttas(config: ConfigDict) -> tuple[str, ...]:
    """One window a view, and the mean of ten drawn at random (Wu et al. 2019, section IV-A.1)."""
    return ("none", "random10")


def summary(config: ConfigDict, predictions: Predictions) -> dict[str, float]:
    """Loss, and the mean AUC of the labels or categories."""
    return measures.exam_summary(predictions, config.model.target)


def measure(
    config: ConfigDict, workdir: Path, name: str, predictions: Predictions, data: dataset.Prepared, split: str
) -> dict[str, Any]:
    """Write predictions/NAME.csv, one row per breast (BI-RADS: per exam); return the metrics with their intervals.

    Raises:
        BadDataset: there are no predictions.
    """
    if not predictions:
        raise BadDataset(f"the {split} split has no exam with the views that this network needs.")
    target = config.model.target
    table.write_exams(workdir / "predictions" / f"{name}.csv", predictions, target)
    return measures.measure_exams(workdir, name, predictions, target, config.bootstrap_runs, config.seed)


def only(predictions: Predictions, data: dataset.Prepared, split: str, patients: set[str]) -> Predictions:
    """The predictions of these patients' exams."""
    return [(exam, scores) for exam, scores in predictions if exam.patient_id in patients]


def report(
    config: ConfigDict, workdir: Path, data: dataset.Prepared, predictions: Predictions, notes: list[str]
) -> None:
    """Write report.html."""
    title = f"{config.model.join} network for {config.model.target} on {config.data.name}"
    run_report.write_exam_report(workdir, title, notes, data)
