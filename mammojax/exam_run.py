"""One experiment on exams (Wu et al. 2019): heatmaps → windows → a multi-view network → breasts, populations, report.

What run.py does of mammograms, of exams of four views; the loop is the same.
"""

import json
from pathlib import Path
from typing import Any

import ml_collections

from mammojax.data import exams, pipeline, prepared
from mammojax.errors import BadCheckpoint, BadDataset
from mammojax.evaluate import exam_report, exam_split, heatmap
from mammojax.evaluate.exams import ExamPredictor, score_split
from mammojax.models import multi_view
from mammojax.train import loop, mesh
from mammojax.train.checkpoint import restore_best
from mammojax.vocabulary import FINDINGS, VIEWS

Tree = Any


def input_sizes(config: ml_collections.ConfigDict, data: ml_collections.ConfigDict) -> dict[str, tuple[int, int]]:
    """(height, width) of the windows of each view that the network takes.

    Raises:
        ValueError: a window that cannot be, or noise that leaves nothing of it.
    """
    exam, sizes = config.exam, {}
    for view in (view for view in VIEWS if view[2:] in config.model.angles):
        height, width = exam.sizes[view[2:]]
        if min(height, width) < 32:
            raise ValueError(f"exam.sizes.{view[2:]}={(height, width)}: a window of less than 32 pixels shows nothing.")
        if not 0 <= exam.noise < min(height, width) / 2:
            raise ValueError(f"exam.noise={exam.noise}: give a number of pixels below half of each window's side.")
        sizes[view] = (int(height), int(width))
    if not 0 < exam.stride <= exam.patch:
        raise ValueError(f"exam.stride={exam.stride}: steps longer than exam.patch={exam.patch} leave gaps.")
    if config.model.channels == 3 and data.patch_size != exam.patch:
        raise ValueError(f"exam.patch={exam.patch}: heatmaps slide what was learned; set data.patch_size to the same.")
    if sorted(exam.heatmaps) != sorted(FINDINGS):
        raise ValueError(
            f"exam.heatmaps={tuple(exam.heatmaps)}: name malignant and benign, in the order of the channels."
        )
    return sizes


def heatmaps_of(
    config: ml_collections.ConfigDict, data: prepared.Prepared, patch_run: Path | None
) -> tuple[exams.Heatmaps, str] | None:
    """The data set's heatmap channels, written now where they are not there yet, and the patch network's digest.

    Raises:
        BadCheckpoint: the network takes heatmaps and there is no patch network.
    """
    if config.model.channels == 1:
        return None
    if patch_run is None:
        raise BadCheckpoint("config.patch_run is empty; name the run of the patch network that makes the heatmaps.")
    net = heatmap.PatchNet(patch_run)
    return (heatmap.write_channels(data, net, config.exam), heatmap.order(config.exam)), net.digest


def experiment(
    config: ml_collections.ConfigDict, workdir: Path, data: prepared.Prepared, variables: Tree,
    heatmaps: exams.Heatmaps | None, title: str, notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Train on the exams of a data set, measure, report; what metrics.json holds.

    Args:
        config: of task "exam".
        workdir: the run folder, with its config.json.
        data: of kind "exams".
        variables: where to start.
        heatmaps: see `heatmaps_of`.
        title, notes: of the report.

    Raises:
        BadDataset: no exam can be learned from or measured. Stopped, Diverged: see `loop.train`.
    """
    exam, target = config.exam, config.model.target
    windows = exams.Windows(
        data, exam.sizes, target=target, angles=tuple(config.model.angles), noise=exam.noise, batch=config.batch,
        epochs=sum(stage.epochs for stage in config.stages.values()), seed=config.seed, heatmaps=heatmaps,
    )  # fmt: skip
    if windows.left_out:
        print(f"{windows.left_out} training exams are left out: a view or the label is missing", flush=True)
    exams.refuse_one_class(windows.exams, data, target, config.model.angles)
    pixels = sum(height * width for height, width in input_sizes(config, config.data).values())
    workers = pipeline.reading_processes(config.data.workers, windows.per_epoch, pixels)
    devices = mesh.data_mesh(config.batch)
    batches = pipeline.exam_batches(windows, batch=config.batch, workers=workers, mesh=devices)
    predictor = ExamPredictor(config, data.facts, variables)

    def scored(split: str, tta: str) -> exam_split.Scored:
        return list(score_split(predictor, data, split, tta, heatmaps, max(2, config.data.workers)))

    def validate(variables: Tree) -> dict[str, float]:
        predictor.variables = variables
        return exam_split.summary(scored("val", "none"), target)

    loop.train(config, multi_view.build(config.model), variables, batches, validate, workdir, None)
    _, _, predictor.variables = restore_best(workdir)
    results = {}
    for tta in ("none", "random10"):
        for split in ("val", "test"):
            found = scored(split, tta)
            if not found:
                raise BadDataset(f"the {split} split has no exam with the views that this network needs.")
            name = split if tta == "none" else f"{split}_{tta}"
            exam_split.write(workdir, name, found, target)
            results[name] = exam_split.measure(workdir, name, found, target, config.bootstrap_runs, config.seed)
    (workdir / "metrics.json").write_text(json.dumps(results, indent=2, sort_keys=True, allow_nan=False) + "\n")
    exam_report.write_exam_report(workdir, title, notes)
    return results
