"""What a run will do before it does it: its stages, and its time and memory by one measured training step."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import ml_collections
import numpy as np

from mammojax import tasks
from mammojax.train import mesh, stages
from mammojax.train.state import TrainState
from mammojax.train.step import make_step

_REPEATS = 2
_FORWARD = 1 / 3  # of a training step's time for as many images: a backward pass costs about two forward passes


@dataclass(frozen=True)
class Cost:
    """One training step of a config on this machine.

    Attributes:
        seconds: of a step, compiled.
        compiling: seconds until the first step is done.
        bytes: memory that the step's program needs on each device: weights, optimizer, batch and what lies between;
            None where the backend does not say.
        parameters: of the network, and those that the stage learns.
    """

    seconds: float
    compiling: float
    bytes: int | None
    parameters: tuple[int, int]


def measure(config: ml_collections.ConfigDict, variables: dict[str, Any], facts: Mapping[str, Any]) -> Cost:
    """Run a few steps of the last stage on blank images.

    Args:
        config: of one run, checked.
        variables: of its network.
        facts: of its data; the mean is needed.
    """
    task, (*_, stage) = tasks.of(config.model.task), stages.from_config(config.stages)
    devices = mesh.data_mesh(config.batch)
    variables = jax.tree.map(np.array, variables)  # the step gives its state's memory away
    params, batch_stats = jax.device_put((variables["params"], variables["batch_stats"]), mesh.replicated(devices))
    tx = stages.optimizer(stage, params)
    key = jax.random.key_data(jax.random.key(0))
    state = TrainState(jax.numpy.int32(0), params, batch_stats, jax.jit(tx.init)(params), key)
    state = jax.device_put(state, mesh.replicated(devices))
    batch = jax.device_put(_blank(config, task.sizes(config, config.data)), jax.NamedSharding(devices, jax.P("data")))
    step: Any = make_step(task.network(config.model), tx, stage, task.loss(config, facts))
    started = time.perf_counter()
    compiled = step.lower(state, batch, np.float32(0)).compile()
    state, terms = compiled(state, batch, np.float32(0))
    jax.block_until_ready(terms)
    compiling, started = time.perf_counter() - started, time.perf_counter()
    for _ in range(_REPEATS):
        state, terms = compiled(state, batch, np.float32(0))
    jax.block_until_ready(terms)
    seconds = (time.perf_counter() - started) / _REPEATS
    analysis = compiled.memory_analysis()
    used = None
    if analysis is not None:
        used = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes + analysis.output_size_in_bytes
        used -= analysis.alias_size_in_bytes
    learned = stages.labels(stage, variables["params"])
    sizes = [
        (leaf.size, label) for leaf, label in zip(*map(jax.tree.leaves, (variables["params"], learned)), strict=True)
    ]
    total, moving = sum(n for n, _ in sizes), sum(n for n, label in sizes if label != "freeze")
    return Cost(seconds, compiling, used, (total, moving))


def _blank(config: ml_collections.ConfigDict, size: Any) -> dict[str, Any]:
    """A batch as the task's loss takes it, all zero."""
    if config.model.task == "two_view":
        inputs = {name: np.zeros((config.batch, *shape, 1), np.uint16) for name, shape in size.items()}
        return {"image": inputs, "label": np.zeros(config.batch, np.int32)}
    if isinstance(size, dict):
        channels = config.model.channels
        views = {view: np.zeros((config.batch, *shape, channels), np.float32) for view, shape in size.items()}
        labels = 1 if config.model.target == "birads" else 4
        return {"image": views, "label": np.zeros((config.batch, labels), np.int32)}
    return {"image": np.zeros((config.batch, *size, 1), np.uint16), "label": np.zeros(config.batch, np.int32)}


def training_seconds(config: ml_collections.ConfigDict, cost: Cost, images: Mapping[str, int]) -> float:
    """Seconds that all stages take, validation and the final scoring with flips or windows too.

    Args:
        config: of the run.
        cost: of its step.
        images: the number of examples of each split; of exams, of exams.
    """
    each = cost.seconds / config.batch
    epochs = sum(stage.epochs for stage in stages.from_config(config.stages))
    steps = max(1, images["train"] // config.batch)
    ways = 11 if config.model.task == "exam" else 5
    scoring = (epochs * images["val"] + ways * (images["val"] + images["test"])) * each * _FORWARD
    return cost.compiling + epochs * steps * cost.seconds + scoring


def duration(seconds: float) -> str:
    """Rounded for a reader: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def stage_lines(config: ml_collections.ConfigDict) -> list[str]:
    """A line for each stage: epochs, learning rate, what it learns."""
    lines = []
    for stage in stages.from_config(config.stages):
        slow = f", {', '.join(stage.slow)} at {stage.slow_factor:g} of it" if stage.slow else ""
        patience = f", ends after {stage.patience} epochs without a better {config.monitor}" if stage.patience else ""
        lines.append(
            f"{stage.name}: {stage.epochs} epochs at {stage.learning_rate:g} ({stage.schedule}){slow}; learns "
            f"{', '.join(stage.learn)}{patience}"
        )
    return lines
