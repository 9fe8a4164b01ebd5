"""What an epoch keeps and logs, what chooses the best one, and a stage that grows."""

import json
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammojax.configs import quickstart
from mammojax.errors import Diverged
from mammojax.tasks import images
from mammojax.train.checkpoint import Latest, load_best
from mammojax.train.loop import _better, train
from mammojax.train.losses import balanced_weights, cross_entropy


def test_the_best_epoch_is_the_highest_and_of_losses_the_lowest() -> None:
    best = {"value": 0.5}
    assert [_better("auc", value, best) for value in (0.4, 0.5, 0.6, float("nan"))] == [False, False, True, False]
    assert [_better("loss", value, best) for value in (0.4, 0.5, 0.6, float("inf"))] == [True, False, False, False]
    assert _better("loss", float("nan"), None)


class _Dots(nn.Module):
    """One Dense layer on what an image is on average, in the shape of our networks."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, frozen: object = None) -> tuple[jax.Array, dict]:
        return nn.Dense(5, name="dense")(x.mean((1, 2)) / 100), {}


class _Ten:
    """Ten random images, an epoch, for ever."""

    def __init__(self, steps: int = 2) -> None:
        rng, self.steps_per_epoch = np.random.default_rng(0), steps
        self.image, self.label = rng.integers(0, 65536, (10, 4, 4, 1), np.uint16), np.arange(10, dtype=np.int32) % 4
        self.position = 0

    def __next__(self) -> dict[str, np.ndarray]:
        chosen = slice(self.position % self.steps_per_epoch, None, self.steps_per_epoch)
        self.position += 1
        return {"image": self.image[chosen], "label": self.label[chosen]}

    def get_state(self) -> str:
        return str(self.position)

    def set_state(self, state: str) -> None:
        self.position = int(state)


def _train(workdir: Path, measured: list[dict[str, float]], rate: float = 1e-3, steps: int = 2) -> dict:
    """Three epochs of `_Dots` on `_Ten`, whose validations are given."""
    config = quickstart.get_config().patch
    config.batch, config.augment.enabled, config.monitor = 5, False, "auc"
    config.stages.stage1.update(epochs=3, learning_rate=rate, schedule="constant")
    model = _Dots()
    variables = {"params": model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))["params"], "batch_stats": {}}
    (workdir / "start").mkdir(parents=True)
    values = iter(measured)
    return train(
        config, model, variables, _Ten(steps), lambda _: next(values), workdir, images.loss(config, {"mean": 100.0})
    )


def _log(workdir: Path, kind: str) -> list[dict]:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [row for row in (json.loads(line, parse_constant=refuse) for line in lines) if row["kind"] == kind]


def test_where_the_monitor_cannot_be_computed_the_loss_chooses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A validation split of one class has no AUC; that once stopped a run at its second epoch."""
    best = _train(tmp_path, [{"loss": loss, "auc": float("nan")} for loss in (0.5, 0.3, 0.4)])
    assert best == {"value": 0.3, "epoch": 2, "stage": "patches", "monitor": "loss"}
    rows = _log(tmp_path, "val")
    assert [row["best"] for row in rows] == [True, True, False]
    assert rows[0]["auc"] is None
    printed = capsys.readouterr().out
    assert printed.count("val auc cannot be computed") == 1
    assert "val loss 0.300 *" in printed


def test_the_logged_loss_is_unweighted_as_in_validation_with_the_weighted_loss_beside_it(tmp_path: Path) -> None:
    """At a rate of 0 the weights stay, so the mean of all ten images is known."""
    _train(tmp_path, [{"loss": 1.0, "auc": 0.5}] * 3, rate=0.0)
    ten, variables = _Ten(), load_best(tmp_path)
    gray = ten.image.astype(np.float32) * (255 / 65535) - 100
    logits, _ = _Dots().apply({"params": variables["params"]}, gray)
    each = np.asarray(cross_entropy(logits, jnp.asarray(ten.label)))
    weights = np.zeros(10)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        weights[half] = balanced_weights(jnp.asarray(ten.label[half]), 5)
    for row in _log(tmp_path, "train"):
        assert row["loss"] == pytest.approx(each.mean(), rel=1e-5)
        assert row["weighted_loss"] == pytest.approx((each * weights).mean(), rel=1e-5)
    assert (each * weights).mean() > 1.5 * each.mean()


def test_weights_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    """The loss of the epoch's last step is a number still: it is taken before the update that spoils the weights."""
    with pytest.raises(Diverged, match=r"a weight is not a number in patches, epoch 1; lower config\.stages\.stage1"):
        _train(tmp_path / "weight", [], rate=float("inf"), steps=1)
    assert not (tmp_path / "weight" / "checkpoints").exists()
    with pytest.raises(Diverged, match="the validation loss is not a number in patches, epoch 2"):
        _train(tmp_path / "loss", [{"loss": 1.0, "auc": 0.5}, {"loss": float("nan"), "auc": 0.9}])
    assert _log(tmp_path / "loss", "val")[-1]["epoch"] == 1
    assert load_best(tmp_path / "loss")


@pytest.mark.parametrize(("schedule", "renew"), [("constant", False), ("constant", True), ("cosine", False)])
def test_a_constant_stage_grows_into_the_one_that_was_as_long_at_once(
    tmp_path: Path, schedule: str, renew: bool
) -> None:
    """Why run_folder lets constant stages grow, and cosine ones not; Adam may begin anew in each epoch."""
    config = quickstart.get_config().patch
    config.batch, config.monitor, config.stages.stage1.schedule = 5, "loss", schedule
    config.stages.stage1.renew = renew
    model, loss = _Dots(), images.loss(config, {"mean": 100.0})
    params = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))["params"]
    variables = {"params": jax.device_get(params), "batch_stats": {}}  # of the host: a step gives its own away

    def trained(name: str, epochs: int) -> list[np.ndarray]:
        config.stages.stage1.epochs = epochs
        train(config, model, variables, _Ten(), lambda _: {"loss": 1.0}, tmp_path / name, loss)
        latest = Latest(tmp_path / name)
        assert latest.host()["step"] == 2 * epochs
        return [latest._leaves[leaf] for leaf in sorted(latest._leaves)]

    for name in ("grown", "long"):
        (tmp_path / name).mkdir()
    trained("grown", 1)
    same = [np.array_equal(a, b) for a, b in zip(trained("grown", 3), trained("long", 3), strict=True)]
    assert all(same) == (schedule == "constant")
    counts = [int(leaf) for leaf in Latest(tmp_path / "long")._leaves.values() if leaf.shape == ()]
    assert (2 in counts) == renew  # steps since Adam began: of the last epoch, or of all three


@pytest.mark.parametrize("renew", [False, True])
def test_nothing_is_compiled_after_the_first_epoch(tmp_path: Path, renew: bool) -> None:
    """One step for each shape: rates, validation and checkpoints of later epochs use what the first one compiled."""
    config = quickstart.get_config().patch
    config.batch, config.monitor = 5, "loss"
    config.stages.stage1.update(epochs=4, schedule="cosine", renew=renew)
    model, compiled, after = _Dots(), [], []
    variables = {"params": model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))["params"], "batch_stats": {}}
    logits = jax.jit(model.apply)

    def validate(variables: dict) -> dict[str, float]:
        logits({"params": variables["params"]}, jnp.zeros((5, 4, 4, 1)))
        after.append(len(compiled))
        return {"loss": 1.0}

    def count(event: str, seconds: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        train(config, model, variables, _Ten(), validate, tmp_path, images.loss(config, {"mean": 100.0}))
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert after[0] > 0
    assert after[1:] == [after[1]] * 3
    assert after[1] - after[0] <= renew  # Adam's new moments have a program of their own
    first, *later = _log(tmp_path, "train")
    assert 0 < first["first_step_s"] < 600
    assert not any("first_step_s" in row for row in later)


def test_the_plan_the_time_left_and_what_tensorboard_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _train(tmp_path, [{"loss": 1.0, "auc": auc} for auc in (0.5, 0.6, 0.4)], rate=3e-4)
    printed = capsys.readouterr().out
    for words in ("device: ", "patches: 3 epochs of 2 steps, rate 0.0003", "* marks an epoch", "by val auc"):
        assert words in printed
    assert [row["learning_rate"] for row in _log(tmp_path, "train")] == [3e-4] * 3
    epochs = [line for line in printed.splitlines() if " epoch " in line and "images/s" in line]
    assert ["1 min left in this stage" in line for line in epochs] == [True, True, False]
    (events,) = (tmp_path / "tensorboard").iterdir()
    for name in (b"train/learning_rate", b"config", b"examples", b"bootstrap_runs", b"PNG"):
        assert name in events.read_bytes()


def test_the_expected_time_of_a_stage_is_said_after_its_first_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(tmp_path, [{"loss": 0.5, "auc": 0.5}] * 3, steps=10)
    before, _, _ = capsys.readouterr().out.partition("epoch   1/3")
    assert re.search(r"patches +[\d.]+ s a step, about 1 min left in this stage, validation not counted\n", before)
