"""The one training loop, for networks of every task: train → run_stage → run_epoch."""

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from tqdm import tqdm

from mammojax import heap, processes
from mammojax.data.pipeline import Batches, Paired
from mammojax.errors import BadConfig, Diverged, Stopped
from mammojax.train import mesh, stages
from mammojax.train.cache import Cache
from mammojax.train.checkpoint import Latest, save_best
from mammojax.train.state import TrainState
from mammojax.train.step import ARRAYS, Loss, make_step
from mammojax.train.tracker import Tracker

TIMED = 5
"""Steps after the first one that the expected time of a stage is taken from."""
Tree = Any
Validate = Callable[[dict[str, Tree]], dict[str, float]]


def train(
    config: ml_collections.ConfigDict,
    model: nn.Module,
    variables: dict[str, Tree],
    batches: Batches | Paired,
    validate: Validate,
    workdir: Path,
    loss: Loss,
) -> dict[str, Any]:
    """Train through the config's stages; write the best weights to `workdir/checkpoints/best`.

    Args:
        config: fields seed, batch, stages, monitor, checkpoint_steps, balance_loss.
        model: a network of mammojax.models.
        variables: the start, unless the workdir holds a checkpoint of this run.
        batches: an endless stream; `batches.steps_per_epoch` steps are one epoch.
        validate: variables → {"loss", "accuracy", …}; `config.monitor` names the one whose highest value (of "loss"
            the lowest) chooses the best epoch (patches: accuracy; whole images: AUC; Shen et al. keep the best, across
            stages). If it cannot be computed, as an AUC of one class, the loss chooses instead, and a printed line
            says so. "last" keeps the last epoch, for a validation split that is too small to choose one.
        workdir: the run folder.
        loss: the task's.

    Returns:
        {"value", "epoch", "stage", "monitor"} of the best epoch; "monitor" names the metric that chose it.

    Raises:
        Stopped: on SIGTERM, after saving.
        Diverged: the loss or a weight is not finite.
        BadConfig: a stage cannot work.
    """
    plan = stages.from_config(config.stages)
    for stage in plan:
        if stage.patience and config.monitor == "last":
            raise BadConfig(
                f'config.monitor="last" keeps the last epoch, so config.stages.{stage.key}.patience has nothing to '
                "wait for; write 0, or a metric to choose by."
            )
        stages.labels(stage, variables["params"])  # a bad pattern is refused before hours of training, not after
    # Start order: own checkpoint → init_from → pretrained file → random. The last three are run.py's `variables`.
    with processes.in_turn() as is_first:
        latest = Latest(workdir)
        saved = latest.host()
        progress = Progress(**saved) if saved else Progress()
        log = _Log(workdir, progress.log_bytes, progress.step, Tracker(config, workdir)) if is_first else _Silence()
    if saved:
        batches.set_state(progress.batches)
    with _sigterm() as stop_signals, contextlib.closing(log):
        run = _Run(config, model, batches, validate, workdir, loss, latest, log, progress, stop_signals)
        if progress.stage < len(plan) - 1 or progress.stage_step < plan[-1].epochs * batches.steps_per_epoch:
            _say_plan(run, plan)
        if not saved:
            log.text("config", json.dumps(json.loads(config.to_json_best_effort()), indent=2))
        params, batch_stats = jax.device_put((variables["params"], variables["batch_stats"]), run.devices)
        key = np.asarray(jax.random.key_data(jax.random.key(config.seed)))
        carried = _Carried(np.int32(progress.step), params, batch_stats, key)
        for index in range(progress.stage, len(plan)):
            carried = run_stage(run, plan[index], index, carried, resumed=bool(saved) and index == progress.stage)
    return run.progress.best or {}


def _say_plan(run: "_Run", plan: Sequence[stages.Stage]) -> None:
    """Print what is trained on which device, and what the marks behind the epochs mean."""
    of = f", of {jax.process_count()} processes" if processes.several() else ""
    print(f"device: {jax.device_count()} × {jax.devices()[0].device_kind}{of}", flush=True)
    for stage in plan:
        words = f"{stage.epochs} epochs of {run.batches.steps_per_epoch} steps, rate {stage.learning_rate:g}"
        print(f"  {stage.name}: at most {words}" if stage.patience else f"  {stage.name}: {words}")
    chosen = "every epoch replaces the one before" if run.config.monitor == "last" else f"by val {run.config.monitor}"
    print(f"* marks an epoch whose weights are kept as the best so far: {chosen}", flush=True)


@dataclass
class Progress:
    """The progress of a run, the host's part of a checkpoint: plain numbers and text, JSON on disk.

    Attributes:
        stage: index of the current stage.
        stage_step, step: steps done in that stage, and in the whole run.
        best: of the best epoch so far, see `train`.
        sums: the sum of the values that this epoch's steps returned (`step.make_step`).
        log_bytes: the length of metrics.jsonl.
        batches: the position in the stream of batches.
    """

    stage: int = 0
    stage_step: int = 0
    step: int = 0
    best: dict[str, Any] | None = None
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    log_bytes: int = 0
    batches: Any = None

    def __post_init__(self) -> None:
        self.sums += self.sums[:1] * (3 - len(self.sums))  # of an older run, which kept only the weighted loss

    def add(self, terms: jax.Array) -> None:
        """Add the values that one step returned."""
        self.sums = [a + float(b) for a, b in zip(self.sums, np.asarray(terms), strict=True)]


@dataclass
class _Run:
    """The parts of a run that all stages and epochs share."""

    config: ml_collections.ConfigDict
    model: nn.Module
    batches: Batches | Paired
    validate: Validate
    workdir: Path
    loss: Loss
    latest: Latest
    log: "_Log | _Silence"
    progress: Progress
    stop_signals: list[bool]
    began: float = 0.0  # of a stage whose first step is not done
    first_step: float | None = None  # seconds from there to the end of the step, until they are logged
    timed_from: tuple[int, float] = (0, 0.0)  # the stage's step and the time from which its steps are timed

    @property
    def devices(self) -> jax.NamedSharding:
        """All devices, each with the whole state."""
        return mesh.replicated(mesh.of_config(self.config))


@dataclass
class _Carried:
    """The state that passes from stage to stage, without the optimizer's moments: every stage has its own."""

    step: Any
    params: Tree
    batch_stats: Tree
    key: Any


def run_stage(run: _Run, stage: stages.Stage, index: int, carried: _Carried, resumed: bool) -> _Carried:
    """All epochs of a stage, from where the checkpoint stands if the run is `resumed` in it."""
    run.began, run.first_step = time.perf_counter(), None
    tx = stages.optimizer(stage, carried.params)
    moments = jax.jit(tx.init)(carried.params)
    state = TrainState(carried.step, carried.params, carried.batch_stats, moments, carried.key)
    state = jax.device_put(state, run.devices)
    if resumed:
        state = jax.device_put(run.latest.state(state), run.devices)
    else:
        run.progress.stage, run.progress.stage_step = index, 0
    length, done = run.batches.steps_per_epoch, run.progress.stage_step
    total = stage.epochs * length
    cache = Cache(run.model, stage, run.loss) if stage.cache else None
    if cache and done:
        _keep_again(run, cache, state, length)
    remat, accumulate = run.config.get("remat", False), run.config.get("accumulate", 1)
    parts = run.config.get("exact_devices", 0)
    step = make_step(run.model, tx, stage, run.loss, cache, remat=remat, accumulate=accumulate, exact_devices=parts)
    with tqdm(total=total, initial=done, desc=stage.name, unit="step", disable=None, leave=False) as bar:
        for epoch in range(done // length, stage.epochs):
            first = run.progress.stage_step % length
            # Checked before an epoch, not after one: a run that is resumed here stops here too.
            if not first and _stale(stage, epoch, run.progress.best):
                break
            if stage.renew and not first:
                moments = jax.device_put(jax.jit(tx.init)(state.params), run.devices)
                state = replace(state, opt_state=moments)
            state = run_epoch(run, stage, epoch, state, step, cache, first, bar)
    return _Carried(state.step, state.params, state.batch_stats, state.key)


def _keep_again(run: _Run, cache: Cache, state: TrainState, length: int) -> None:
    """Fill the cache of a resumed stage as it was: its images from its first step on are read and passed again."""
    done, before = run.progress.stage_step, run.progress.step - run.progress.stage_step
    run.batches.back(done)
    for k in range(done):
        batch = next(run.batches)
        arrays = {name: batch[name] for name in ARRAYS if name in batch}
        cache.outputs(state, before + k, batch, arrays, k // length, length)


def run_epoch(
    run: _Run, stage: stages.Stage, epoch: int, state: TrainState, step: Callable[..., Any], cache: Cache | None,
    first: int, bar: tqdm,
) -> TrainState:  # fmt: skip
    """Train epoch `epoch` of a stage, counted from 0, from its step `first` on; then validate and save a checkpoint.

    Raises:
        Stopped, Diverged: see `train`.
    """
    length, progress = run.batches.steps_per_epoch, run.progress
    started, images, waiting = time.perf_counter(), 0, None
    for k in range(first, length):
        batch = next(run.batches)
        arrays = {name: batch[name] for name in ARRAYS if name in batch}
        if cache:
            arrays["kept"] = cache.outputs(state, progress.step, batch, arrays, epoch, length)
            del arrays["image"]
        state, terms = step(state, arrays, np.float32(stage.rate(epoch * length + k, stage.epochs * length)))
        if run.began:  # the first step of a stage is compiled
            jax.block_until_ready(terms)
            heap.give_back()
            run.first_step, run.began = time.perf_counter() - run.began, 0.0
            print(f"{stage.name:<16} first step after {run.first_step:.1f} s", flush=True)
            run.timed_from = (progress.stage_step, time.perf_counter())
            if progress.step == 0:
                run.log.examples(batch["image"])
        images += sum(len(view) for view in jax.tree.leaves(batch["image"]))
        if waiting is not None:  # fetched only after the next step was dispatched: the device never waits
            progress.add(waiting)
        waiting = terms
        progress.stage_step, progress.step = progress.stage_step + 1, progress.step + 1
        bar.update()
        last = k + 1 == length
        stopping = processes.told_to_stop() if processes.several() else bool(run.stop_signals)
        if run.first_step is not None and progress.stage_step == run.timed_from[0] + 1 + TIMED:
            jax.block_until_ready(terms)
            each = (time.perf_counter() - run.timed_from[1]) / TIMED
            rest = _left(each * (stage.epochs * length - progress.stage_step))
            print(f"{stage.name:<16} {each:.2f} s a step{rest}, validation not counted", flush=True)
        if last or stopping or progress.stage_step % run.config.checkpoint_steps == 0:
            progress.add(waiting)
            waiting, on_host = None, jax.device_get(state)
            # The last update may spoil weights whose loss, taken before it, was still a number.
            if wrong := "the loss" if not np.isfinite(progress.sums).all() else "" if _finite(on_host) else "a weight":
                raise _diverged(wrong, stage, epoch + 1)
            if last:
                _end_epoch(run, stage, epoch + 1, state, images, started)
            progress.log_bytes, progress.batches = run.log.position(), run.batches.get_state()
            run.latest.save(progress.step, state if processes.several() else on_host, asdict(progress))
            if stopping:
                raise Stopped(f"stopped at step {progress.step}; the same command goes on from there.")
        elif progress.stage_step % 20 == 0:
            seconds = time.perf_counter() - started
            bar.set_postfix_str(f"loss {float(np.asarray(terms)[0]):.3f}, {images / seconds:.0f} images/s")
    return state


def _end_epoch(run: _Run, stage: stages.Stage, epoch: int, state: TrainState, images: int, started: float) -> None:
    """Validate after epoch `epoch`, counted from 1; keep the weights if they are the best so far; write the log.

    `started` is the time at its first step since the start or a resumption, and `images` count from there.
    """
    seconds = time.perf_counter() - started
    images_per_s = images / seconds
    progress, length = run.progress, run.batches.steps_per_epoch
    common = {"stage": stage.name, "epoch": epoch, "step": progress.step}
    loss, correct, weighted = (total / length for total in progress.sums)
    rate = float(stage.rate(epoch * length - 1, stage.epochs * length))
    learned = {"loss": loss, "accuracy": correct, "learning_rate": rate}
    if run.config.get("balance_loss", False):
        learned["weighted_loss"] = weighted
    if run.first_step is not None:
        learned["first_step_s"], run.first_step = run.first_step, None
    run.log.write({"kind": "train", **common, **learned, "images_per_s": images_per_s, "seconds": seconds})
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    measured, best = processes.of_first(run.validate(processes.local(variables))), progress.best
    if not np.isfinite(measured["loss"]):
        raise _diverged("the validation loss", stage, epoch)
    monitor = best.get("monitor", run.config.monitor) if best else run.config.monitor
    last, monitor = monitor == "last", "loss" if monitor == "last" else monitor
    if best is None and not np.isfinite(measured[monitor]):
        print(f"val {monitor} cannot be computed (is the split of one class?): epochs are chosen by loss", flush=True)
        monitor = "loss"
    value = measured[monitor]
    better = last or _better(monitor, value, best)
    run.log.write({"kind": "val", **common, **measured, "best": better})
    if better:
        progress.best = {"value": value, "epoch": epoch, "stage": stage.name, "monitor": "last" if last else monitor}
        save_best(run.workdir, variables)
    print(
        f"{stage.name:<16} epoch {epoch:>3}/{stage.epochs}  loss {loss:.3f}  val {monitor} {value:.3f}"
        f"{' *' if better else '  '}  {images_per_s:.0f} images/s"
        f"{_left((stage.epochs - epoch) * (time.perf_counter() - started))}",
        flush=True,
    )
    progress.sums = [0.0, 0.0, 0.0]


def _left(seconds: float) -> str:
    """The rest of a stage in words, as long as its last epoch took; "" at its end."""
    if seconds <= 0:
        return ""
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f", about {f'{hours} h ' if hours else ''}{minutes} min left in this stage"


def _stale(stage: stages.Stage, epochs: int, best: dict[str, Any] | None) -> bool:
    """Whether the last `stage.patience` epochs of this stage brought no improvement (Wu et al. 2019: 20)."""
    if not stage.patience or best is None:
        return False
    return epochs - (best["epoch"] if best["stage"] == stage.name else 0) >= stage.patience


def _finite(tree: Tree) -> bool:
    """Whether all numbers of a tree of NumPy arrays are finite."""
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact))


def _diverged(quantity: str, stage: stages.Stage, epoch: int) -> Diverged:
    field = f"config.stages.{stage.key}.learning_rate"
    return Diverged(f"{quantity} is not a number in {stage.name}, epoch {epoch}", field)


def _better(monitor: str, value: float, best: dict[str, Any] | None) -> bool:
    """Whether an epoch's value beats the best so far: the higher one, of "loss" the lower one.

    A value that cannot be computed (one class only) never beats one that can; the first epoch is always kept.
    """
    if best is None:
        return True
    return bool(np.isfinite(value) and (value < best["value"] if monitor == "loss" else value > best["value"]))


@contextlib.contextmanager
def _sigterm() -> Iterator[list[bool]]:
    """A list that gets an item on SIGTERM; the previous handler is restored at the end.

    Of several processes JAX's own handler stays: all stop at the same step, whichever got the signal.
    """
    stop_signals: list[bool] = []
    if processes.several():
        yield stop_signals
        return
    try:
        previous = signal.signal(signal.SIGTERM, lambda *_: stop_signals.append(True))
    except ValueError:  # only the main thread may set handlers; a notebook's worker has none
        yield stop_signals
        return
    try:
        yield stop_signals
    finally:
        signal.signal(signal.SIGTERM, previous)


class _Silence:
    """The log of a process that is not the first."""

    def write(self, row: dict[str, Any]) -> None: ...

    def text(self, name: str, words: str) -> None: ...

    def examples(self, images: Any) -> None: ...

    def position(self) -> int:
        return 0

    def close(self) -> None: ...


class _Log:
    """metrics.jsonl, TensorBoard events and config.tracker's server.

    On resuming, lines written after the checkpoint are cut off.
    """

    def __init__(self, workdir: Path, kept_bytes: int, step: int, tracker: Tracker) -> None:
        path = workdir / "metrics.jsonl"
        path.touch()
        with path.open("r+b") as file:
            file.truncate(kept_bytes)
        # It imports PyTorch, where that is installed: two seconds that a prediction need not wait.
        from tensorboardX import SummaryWriter

        self._file, self._tracker = path.open("a"), tracker
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step or None)

    def write(self, row: dict[str, Any]) -> None:
        """Write one line; a number that could not be computed is null, as JSON has no NaN."""
        row = {name: None if isinstance(x, float) and not np.isfinite(x) else x for name, x in row.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        numbers = {f"{row['kind']}/{name}": value for name, value in row.items() if isinstance(value, float)}
        for name, value in numbers.items():
            self._events.add_scalar(name, value, row["step"])
        self._tracker.log(numbers, row["step"])

    def text(self, name: str, words: str) -> None:
        """A text for TensorBoard, as it is."""
        self._events.add_text(name, f"```\n{words}\n```")

    def examples(self, images: Any) -> None:
        """The first images of a batch [B, H, W, C], or of its first view, for TensorBoard; not augmented."""
        first = jax.tree.leaves(images)[0]
        own = first.addressable_shards[0].data if isinstance(first, jax.Array) else first
        image = np.asarray(own)[:4, ..., :1].astype(np.float32)
        darkest, brightest = image.min(), image.max()
        gray = (image - darkest) * (255 / max(brightest - darkest, 1e-6))
        self._events.add_images("examples", gray.astype(np.uint8), 0, dataformats="NHWC")

    def position(self) -> int:
        """The length of metrics.jsonl in bytes."""
        return self._file.tell()

    def close(self) -> None:
        """Close all of them."""
        self._file.close()
        self._events.close()
        self._tracker.close()
