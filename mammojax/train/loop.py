"""The one training loop: patch, whole-image and exam networks go through it alike."""

import json
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from mammojax.data.pipeline import Batches, Paired
from mammojax.errors import Diverged, Stopped
from mammojax.models.classifiers import centre
from mammojax.train import losses, mesh, stages
from mammojax.train.augment import augment
from mammojax.train.checkpoint import Latest, save_best
from mammojax.train.state import TrainState

Tree = Any
_ARRAYS = ("image", "label", "patch_image", "patch_label")  # what a step takes of a batch


def make_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    stage: stages.Stage,
    config: ml_collections.ConfigDict,
    mean: float | None,
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """One jitted step of a stage.

    The step takes the state, a batch and the learning rate (data, not code: every rate shares one compiled program).
    The batch holds "image" uint16 [B, H, W, 1] and "label" int32 [B]; with an auxiliary loss also "patch_image" and
    "patch_label", and the patches' mean cross-entropy, balanced, times `config.auxiliary.weight` is added. Augmentation
    runs inside. Of exams "image" is {view: float32 [B, h, w, C]} and "label" [B, R]; their windows come augmented.
    It returns the new state and float32 [3]: the mean loss of the images (neither weighted nor with the auxiliary part:
    the quantity that validation measures), the share of correct labels, and the mean loss with the weights that
    balance the classes where `config.balance_loss` says so, which is what is learned from. The statistics of learning
    BatchNorms are those of the whole batch, whatever the number of devices: under jit the mean over the sharded axis
    is global.
    """
    frozen = stages.frozen_statistics(stage)

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, batch: dict[str, jax.Array], rate: jax.Array) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        augment_key, dropout_key = jax.random.split(key)
        label = batch["label"]

        def seen(image: Any, key: jax.Array) -> Any:
            if config.model.task == "exam":
                return image
            gray = image.astype(jnp.float32) * (1 if mean is None else 255 / 65535)
            if config.augment.enabled:
                gray = augment(key, gray, config.augment)
            return centre(gray, mean or 0.0, config.model.channels)

        x = seen(batch["image"], augment_key)
        patches = None
        if "patch_image" in batch:
            patches = seen(batch["patch_image"], jax.random.fold_in(augment_key, 1))

        def loss_of(params: Tree) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array, Tree]]:
            run = partial(
                model.apply,
                {"params": params, "batch_stats": state.batch_stats},
                train=True,
                frozen=frozen,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
            (logits, _), moved = run(x)
            if config.model.task == "exam":
                plain, answer = losses.exam_loss(logits, label)
                loss = plain
            else:
                plain, answer = losses.cross_entropy(logits, label), jnp.argmax(logits, -1)
                loss = plain
                if config.balance_loss:
                    loss = loss * losses.balanced_weights(label, config.model.classes)
            loss = total = loss.mean()
            if patches is not None:  # by themselves: the running statistics stay those of whole images
                ((beside, _), _), truth = run(patches, auxiliary=True), batch["patch_label"]
                weights = losses.balanced_weights(truth, beside.shape[-1])
                total += config.auxiliary.weight * (losses.cross_entropy(beside, truth) * weights).mean()
            return total, (plain, loss, answer, moved.get("batch_stats", {}))

        (_, (plain, loss, answer, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        correct = jnp.mean(answer == label, dtype=jnp.float32)
        state = TrainState(state.step + 1, params, batch_stats or state.batch_stats, opt_state, state.key)
        return state, jnp.stack([plain.mean(), correct, loss])

    return step


class _Log:
    """metrics.jsonl and TensorBoard events; on resuming, what was written after the checkpoint is cut off."""

    def __init__(self, workdir: Path, kept_bytes: int, step: int) -> None:
        path = workdir / "metrics.jsonl"
        path.touch()
        with path.open("r+b") as file:
            file.truncate(kept_bytes)
        self._file = path.open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step or None)

    def write(self, row: dict[str, Any]) -> None:
        """One line; a number that could not be computed is null, as JSON has no NaN."""
        row = {name: None if isinstance(x, float) and not np.isfinite(x) else x for name, x in row.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in row.items():
            if isinstance(value, float):
                self._events.add_scalar(f"{row['kind']}/{name}", value, row["step"])

    def position(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        self._events.close()


def train(
    config: ml_collections.ConfigDict,
    model: nn.Module,
    variables: dict[str, Tree],
    batches: Batches | Paired,
    validate: Callable[[dict[str, Tree]], dict[str, float]],
    workdir: Path,
    mean: float | None,
) -> dict[str, Any]:
    """Train through the config's stages; leave the best weights in `workdir/checkpoints/best`.

    Args:
        config: fields seed, stages, monitor, checkpoint_steps, augment, balance_loss, model.
        model: a network of mammojax.models.
        variables: where to start, unless the workdir holds a checkpoint of this run.
        batches: an endless stream; `batches.steps_per_epoch` steps are one epoch.
        validate: variables → {"loss", "accuracy", …}; `config.monitor` names the one that chooses the best epoch, the
            highest, of "loss" the lowest (patches: accuracy; whole images: AUC; Shen et al. keep the best, across
            stages). Where it cannot be computed, as an AUC of one class, the loss chooses instead; the console says so.
        workdir: the run folder.
        mean: gray value subtracted, 0 … 255; None for images that come standardised.

    Returns:
        {"value", "epoch", "stage", "monitor"} of the best epoch; "monitor" is what chose it.

    Raises:
        Stopped: on SIGTERM, after saving.
        Diverged: the loss or a weight is not finite.
    """
    plan = stages.from_config(config.stages)
    epoch_steps = batches.steps_per_epoch
    for stage in plan:
        stages.labels(stage, variables["params"])  # a bad pattern is said before hours of training, not after
    # Start order: own checkpoint → init_from → pretrained file → random. The last three are run.py's `variables`.
    latest = Latest(workdir)
    host = latest.host()
    resumed = host is not None
    if host is None:
        host = {
            "stage": 0,
            "stage_step": 0,
            "step": 0,
            "best": None,
            "sums": [0.0, 0.0, 0.0],
            "log_bytes": 0,
            "batches": None,
        }
    else:
        batches.set_state(host["batches"])
    log = _Log(workdir, host["log_bytes"], host["step"])

    whole = mesh.replicated(mesh.data_mesh(config.batch))
    params, batch_stats = jax.device_put((variables["params"], variables["batch_stats"]), whole)
    key, done = jax.random.key_data(jax.random.key(config.seed)), jnp.int32(host["step"])
    stop = []
    previous = _on_sigterm(lambda: stop.append(True))
    try:
        for index in range(host["stage"], len(plan)):
            stage = plan[index]
            tx = stages.optimizer(stage, params)
            state = jax.device_put(TrainState(done, params, batch_stats, jax.jit(tx.init)(params), key), whole)
            first, sums = 0, [0.0, 0.0, 0.0]
            if resumed:
                state = jax.device_put(latest.state(state), whole)
                first, sums, resumed = host["stage_step"], host["sums"], False
                sums += sums[:1] * (3 - len(sums))  # of an older run, which kept the weighted loss alone
            step = make_step(model, tx, stage, config, mean)
            total = stage.epochs * epoch_steps
            bar = tqdm(total=total, initial=first, desc=stage.name, unit="step", disable=None, leave=False)
            started, images, waiting = time.perf_counter(), 0, None
            for k in range(first, total):
                if k % epoch_steps == 0 and _stale(stage, k // epoch_steps, host["best"]):
                    break  # asked before an epoch, not after one: a run resumed here stops here too
                batch = next(batches)
                arrays = {name: batch[name] for name in _ARRAYS if name in batch}
                state, now = step(state, arrays, np.float32(stage.rate(k, total)))
                images += sum(len(view) for view in jax.tree.leaves(batch["image"]))
                if waiting is not None:  # fetched only after the next step was dispatched: the device never waits
                    sums = [a + float(b) for a, b in zip(sums, np.asarray(waiting), strict=True)]
                waiting = now
                bar.update()
                last = (k + 1) % epoch_steps == 0
                saving = last or bool(stop) or (k + 1) % config.checkpoint_steps == 0
                if not saving:
                    if (k + 1) % 20 == 0:
                        seconds = time.perf_counter() - started
                        bar.set_postfix_str(f"loss {float(now[0]):.3f}, {images / seconds:.0f} images/s")
                    continue
                sums, waiting = [a + float(b) for a, b in zip(sums, np.asarray(now), strict=True)], None
                # The last update may spoil weights whose loss, taken before it, was still a number.
                if wrong := "the loss" if not np.isfinite(sums).all() else "" if _finite(state) else "a weight":
                    raise _diverged(wrong, stage, k // epoch_steps + 1)
                host |= {"stage": index, "stage_step": k + 1, "step": host["step"] + k + 1 - first, "sums": sums}
                first = k + 1
                if last:
                    seconds = time.perf_counter() - started
                    host["best"] = _end_epoch(
                        stage, k // epoch_steps + 1, host, sums, epoch_steps, images / seconds, seconds,
                        validate, state, config, workdir, log,
                    )  # fmt: skip
                    sums = host["sums"] = [0.0, 0.0, 0.0]
                    started, images = time.perf_counter(), 0
                host |= {"log_bytes": log.position(), "batches": batches.get_state()}
                latest.save(host["step"], state, host)
                if stop:
                    raise Stopped(f"stopped at step {host['step']}; the same command goes on from there.")
            bar.close()
            params, batch_stats, done, key = state.params, state.batch_stats, state.step, state.key
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
        log.close()
    return host["best"]


def _stale(stage: stages.Stage, epochs: int, best: dict[str, Any] | None) -> bool:
    """Whether the last `stage.patience` epochs of this stage brought nothing better (Wu et al. 2019: 20)."""
    if not stage.patience or best is None:
        return False
    return epochs - (best["epoch"] if best["stage"] == stage.name else 0) >= stage.patience


def _finite(tree: Tree) -> bool:
    """Whether every number of a tree is finite."""
    leaves = jax.tree.leaves(jax.device_get(tree))
    return all(np.isfinite(leaf).all() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact))


def _diverged(what: str, stage: stages.Stage, epoch: int) -> Diverged:
    field = f"config.stages.{stage.key}.learning_rate"
    return Diverged(f"{what} is not a number in {stage.name}, epoch {epoch}", field)


def _better(monitor: str, value: float, best: dict[str, Any] | None) -> bool:
    """Whether an epoch's value beats the best so far: the higher one, of "loss" the lower one.

    A value that cannot be computed (one class only) never beats one that can; the first epoch is always kept.
    """
    if best is None:
        return True
    return bool(np.isfinite(value) and (value < best["value"] if monitor == "loss" else value > best["value"]))


def _on_sigterm(act: Callable[[], None]) -> Any:
    """Call `act` on SIGTERM; the handler that was there before, None outside the main thread."""
    try:
        return signal.signal(signal.SIGTERM, lambda *_: act())
    except ValueError:  # only the main thread may set handlers: a notebook's worker goes without
        return None


def _end_epoch(
    stage: stages.Stage,
    epoch: int,
    host: dict[str, Any],
    sums: list[float],
    steps: int,
    rate: float,
    seconds: float,
    validate: Callable[[dict[str, Tree]], dict[str, float]],
    state: TrainState,
    config: ml_collections.ConfigDict,
    workdir: Path,
    log: _Log,
) -> dict[str, Any]:
    """Validate, keep the weights if they are the best so far, write the log; the best so far."""
    common = {"stage": stage.name, "epoch": epoch, "step": host["step"]}
    loss, correct, weighted = (total / steps for total in sums)
    learned = {"loss": loss, "accuracy": correct}
    if config.get("balance_loss", False):
        learned["weighted_loss"] = weighted
    log.write({"kind": "train", **common, **learned, "images_per_s": rate, "seconds": seconds})
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    measured, best = validate(variables), host["best"]
    if not np.isfinite(measured["loss"]):
        raise _diverged("the validation loss", stage, epoch)
    monitor = best.get("monitor", config.monitor) if best else config.monitor
    if best is None and not np.isfinite(measured[monitor]):
        print(f"val {monitor} cannot be computed (is the split of one class?): epochs are chosen by loss", flush=True)
        monitor = "loss"
    value = measured[monitor]
    better = _better(monitor, value, best)
    log.write({"kind": "val", **common, **measured, "best": better})
    if better:
        best = {"value": value, "epoch": epoch, "stage": stage.name, "monitor": monitor}
        save_best(workdir, variables)
    print(
        f"{stage.name:<16} epoch {epoch:>3}/{stage.epochs}  loss {loss:.3f}  val {monitor} {value:.3f}"
        f"{' *' if better else '  '}  {rate:.0f} images/s",
        flush=True,
    )
    return best
