"""What a run will do before it does it: its stages, and its time and memory by one measured training step."""

import contextlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from mammojax import compilation, heap, tasks
from mammojax.data.recipe import patch_side
from mammojax.errors import BadConfig
from mammojax.train import mesh, stages
from mammojax.train.state import TrainState, abstract_variables
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


def program(
    config: ml_collections.ConfigDict, facts: Mapping[str, Any], stage: stages.Stage | None = None
) -> jax.stages.Lowered:
    """The training step of a config, traced for its devices; nothing is compiled, computed or allocated.

    Args:
        config: of one run, checked.
        facts: of its data; the mean is needed.
        stage: one of its stages; None: the last.

    The parts of `config.exact_devices` are traced as accumulated ones, which take about the same.
    """
    task, stage = tasks.of(config.model.task), stage or stages.from_config(config.stages)[-1]
    network, size = task.network(config.model), task.sizes(config, config.data)
    variables = abstract_variables(network, size, config.model.channels)
    tx = stages.optimizer(stage, variables["params"])
    state, batch = jax.eval_shape(partial(_state, tx), variables), blank(config)
    devices = mesh.of_config(config)
    whole, split = mesh.replicated(devices), jax.NamedSharding(devices, jax.P("data"))
    state, batch = (
        jax.tree.map(lambda x, place=place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)
        for tree, place in ((state, whole), (batch, split))
    )
    parts = config.get("exact_devices", 0) // devices.size  # they pass one after the other, as accumulated ones do
    remat, accumulate = config.get("remat", False), parts or config.get("accumulate", 1)
    step: Any = make_step(network, tx, stage, task.loss(config, facts), remat=remat, accumulate=accumulate)
    lowered: jax.stages.Lowered = step.lower(state, batch, jax.ShapeDtypeStruct((), np.float32))
    return lowered


def first_state(
    config: ml_collections.ConfigDict, variables: dict[str, Any], stage: stages.Stage | None = None
) -> TrainState:
    """The state before the first step of a stage (None: the last), on the config's devices.

    The step gives its state's memory away; `variables` are copied.
    """
    stage, whole = stage or stages.from_config(config.stages)[-1], mesh.replicated(mesh.of_config(config))
    variables = jax.device_put(jax.tree.map(np.array, variables), whole)
    state = jax.jit(partial(_state, stages.optimizer(stage, variables["params"])))(variables)
    return jax.device_put(state, whole)


def _state(tx: optax.GradientTransformation, variables: dict[str, Any]) -> TrainState:
    params, key = variables["params"], jax.random.key_data(jax.random.key(0))
    return TrainState(jax.numpy.int32(0), params, variables.get("batch_stats", {}), tx.init(params), key)


def needed_bytes(compiled: jax.stages.Compiled) -> int | None:
    """The memory that a compiled step needs on each device, by the compiler: weights, optimizer, batch and what lies
    between; None where the backend does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    used = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes + analysis.output_size_in_bytes
    return int(used - analysis.alias_size_in_bytes)


def fit(config: ml_collections.ConfigDict, memory: int, name: str = "config") -> None:
    """Set remat and accumulate of a config so that a training step fits into a device's memory.

    The first that fits by the compiler's own analysis is taken: the config as it is, with rematerialisation if that
    saves anything, then with the batch in 2, 4, … parts. Nothing is allocated and nothing runs. The stage that learns
    most is asked.

    Args:
        config: of one run, checked.
        memory: bytes of each device.
        name: of the config in messages, such as "config.patch".

    Raises:
        BadConfig: nothing fits.
    """
    compilation.keep()
    facts = {"mean": None if config.model.task == "exam_patch" else 0.0}
    all_stages, task = stages.from_config(config.stages), tasks.of(config.model.task)
    size = task.sizes(config, config.data)
    params = abstract_variables(task.network(config.model), size, config.model.channels)["params"]

    def learned(stage: stages.Stage) -> int:
        labels = zip(jax.tree.leaves(params), jax.tree.leaves(stages.labels(stage, params)), strict=True)
        return sum(leaf.size for leaf, label in labels if label != "freeze")

    stage, tried = max(reversed(all_stages), key=learned), []

    def needed(remat: bool, accumulate: int) -> int:
        config.remat, config.accumulate = remat, accumulate
        used = needed_bytes(program(config, facts, stage).compile())
        if used is None:
            raise BadConfig(f"{name}.memory: this backend does not say what a step needs; leave the field empty.")
        tried.append(used)
        print(f"{name}: a training step needs {gigabytes(used)}, remat={remat}, accumulate={accumulate}", flush=True)
        return used

    remat, accumulate = config.get("remat", False), config.get("accumulate", 1)
    used = needed(remat, accumulate)
    if used > memory and not remat:
        with_remat = needed(True, accumulate)
        remat, used = with_remat < used, min(used, with_remat)
    cached = any(stage.cache for stage in all_stages)
    while used > memory and not cached and config.batch % (2 * accumulate) == 0:
        accumulate *= 2
        used = needed(remat, accumulate)
    config.remat, config.accumulate = remat, accumulate
    if used > memory:
        raise BadConfig(
            f"{name}: a training step needs {gigabytes(min(tried))} at least, with remat={remat} and "
            f"accumulate={accumulate}, and config.memory is {gigabytes(memory)}; take smaller images (data.size) or a "
            "smaller batch."
        )


def gigabytes(count: int) -> str:
    """Bytes for a reader: "23.6 GB"."""
    return f"{count / 1e9:.3g} GB"


def free_bytes() -> int | None:
    """Free memory of a device: of an accelerator its own, of a CPU the machine's; None where it is not known."""
    if stats := jax.local_devices()[0].memory_stats():
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    with contextlib.suppress(OSError):
        if found := re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text()):
            return int(found[1]) * 1024
    return None


def measure(config: ml_collections.ConfigDict, variables: dict[str, Any], facts: Mapping[str, Any]) -> Cost:
    """Run a few steps of the last stage on blank images.

    Args:
        config: of one run, checked.
        variables: of its network.
        facts: of its data; the mean is needed.

    Raises:
        BadConfig: by the compiler a step needs more memory than is free; it was not run.
    """
    compilation.keep()
    stage, devices = stages.from_config(config.stages)[-1], mesh.of_config(config)
    started = time.perf_counter()
    compiled = program(config, facts, stage).compile()
    compiled_in = time.perf_counter() - started
    needed, free = needed_bytes(compiled), free_bytes()
    on_this = (needed or 0) * (devices.size if jax.default_backend() == "cpu" else 1)
    if free is not None and on_this > free:
        raise BadConfig(
            f"a training step of {config.batch} needs {gigabytes(on_this)}, and {gigabytes(free)} of this machine's "
            "memory are free; say what there is (config.memory, or --memory), and a batch goes through in parts."
        )
    state = first_state(config, variables, stage)
    batch = jax.device_put(blank(config), jax.NamedSharding(devices, jax.P("data")))
    started = time.perf_counter() - compiled_in
    state, terms = compiled(state, batch, np.float32(0))
    jax.block_until_ready(terms)
    heap.give_back()
    compiling, started = time.perf_counter() - started, time.perf_counter()
    for _ in range(_REPEATS):
        state, terms = compiled(state, batch, np.float32(0))
    jax.block_until_ready(terms)
    seconds = (time.perf_counter() - started) / _REPEATS
    learned = stages.labels(stage, variables["params"])
    sizes = [
        (leaf.size, label) for leaf, label in zip(*map(jax.tree.leaves, (variables["params"], learned)), strict=True)
    ]
    total, moving = sum(n for n, _ in sizes), sum(n for n, label in sizes if label != "freeze")
    return Cost(seconds, compiling, needed, (total, moving))


def blank(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """A batch as the task's loss takes it, all zero; NumPy arrays."""
    size: Any = tasks.of(config.model.task).sizes(config, config.data)
    if config.model.task == "two_view":
        inputs = {name: np.zeros((config.batch, *shape, 1), np.uint16) for name, shape in size.items()}
        return {"image": inputs, "label": np.zeros(config.batch, np.int32)}
    if isinstance(size, dict):
        channels = config.model.channels
        views = {view: np.zeros((config.batch, *shape, channels), np.float32) for view, shape in size.items()}
        labels = 1 if config.model.target == "birads" else 4
        return {"image": views, "label": np.zeros((config.batch, labels), np.int32)}
    stored = np.float32 if config.model.task == "exam_patch" else np.uint16
    batch = {"image": np.zeros((config.batch, *size, 1), stored), "label": np.zeros(config.batch, np.int32)}
    if config.model.get("auxiliary_classes", 0):
        count, side = config.auxiliary.batch, patch_side(config.auxiliary.kind, config.data.patch_size)
        batch["patch_image"] = np.zeros((count, side, side, 1), np.uint16)
        batch["patch_label"] = np.zeros(count, np.int32)
    return batch


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
