"""Kept outputs of frozen layers: the same training, each epoch's copies used again, a resumed stage, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mammojax.configs import quickstart
from mammojax.data import pipeline
from mammojax.errors import BadConfig, Stopped
from mammojax.models.layers import Frozen, never, norms, relu
from mammojax.tasks import images
from mammojax.train import cache, loop, mesh
from mammojax.train.checkpoint import load_best
from mammojax.train.state import init_variables


class _Trunk(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool, frozen: Frozen) -> jax.Array:
        x = nn.Conv(4, (3, 3), name="conv1")(x / 100)
        x = relu(norms(self, train, frozen, 0.9, 1e-3, jnp.float32)(x, "bn1"))
        return relu(nn.Conv(4, (3, 3), name="conv2")(x))


class _Mean(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x.mean((1, 2))


class _Network(nn.Module):
    """Two convolutions and a Dense layer; with `again` the last one sees the image's mean, with `beside` a module's."""

    again: bool = False
    beside: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, frozen: Frozen = never) -> tuple[jax.Array, dict]:
        mean = _Mean(name="mean")(x) / 100 if self.beside else 0
        pooled = _Trunk(name="trunk")(x, train, frozen).mean((1, 2)) + (x.mean((1, 2)) if self.again else mean)
        return nn.Dense(5, name="classifier")(nn.Dropout(0.2)(pooled, deterministic=not train)), {}


def _config(kept: int, augment: bool = False, epochs: int = 3) -> ConfigDict:
    config = quickstart.get_config().patch
    config.batch, config.monitor, config.augment.enabled = 4, "last", augment
    config.stages.stage1.update(epochs=epochs, cache=kept, learning_rate=1e-2)
    config.stages.stage1.update(learn=("trunk/conv2/.*", "classifier/.*"), freeze=("trunk/conv1/.*", "trunk/bn1/.*"))
    return config


def _source(count: int = 10) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (count, 32, 32, 1), np.uint16)
    return [{"image": image, "label": k % 5, "image_id": f"image{k}"} for k, image in enumerate(pixels)]


def _train(
    config: ConfigDict,
    workdir: Path,
    validate: Callable[[Any], dict[str, float]] = lambda _: {"loss": 1.0},
    model: nn.Module = _Network(),  # noqa: B008
) -> Any:
    workdir.mkdir(exist_ok=True)
    variables = init_variables(model, (32, 32), config.model.channels, 0)
    batches = pipeline.train_batches(_source(), batch=4, seed=0, mesh=mesh.data_mesh(4))
    loop.train(config, model, variables, batches, validate, workdir, images.loss(config, {"mean": 100.0}))
    batches.close()
    return load_best(workdir)["params"]


def _same(ours: Any, theirs: Any, atol: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), ours, theirs)


def test_training_on_kept_outputs_is_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without augmentation every epoch's outputs are those of the first; with as many copies as epochs, too."""
    _same(_train(_config(1), tmp_path / "a"), _train(_config(0), tmp_path / "b"), 1e-5)
    assert "the outputs of trunk/bn1, the last frozen layer, are kept for 1 epochs" in capsys.readouterr().out
    _same(_train(_config(2, True, 2), tmp_path / "c"), _train(_config(0, True, 2), tmp_path / "d"), 1e-5)


def test_what_a_part_without_parameters_reads_of_the_images_is_kept_too(tmp_path: Path) -> None:
    ours, theirs = (_train(_config(k), tmp_path / str(k), model=_Network(beside=True)) for k in (1, 0))
    _same(ours, theirs, 1e-5)


def test_later_epochs_use_the_copies_of_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cache.Cache(nn.Dense(1), ConfigDict({"cache": 2, "key": "stage1", "name": "x"}), lambda *_: None)
    monkeypatch.setattr(kept, "_check", lambda *_: None)
    kept._cut = ("trunk", "x")
    calls: list[int] = []
    kept._early = lambda *_: (calls.append(1), [jnp.arange(2.0)[:, None] + 10 * len(calls)])[1]
    state = ConfigDict({"params": {}, "batch_stats": {}, "key": 0})
    arrays = {"label": jnp.zeros(2)}

    def at(epoch: int, *names: str) -> list[float]:
        return np.asarray(kept.outputs(state, 0, {"image_id": list(names)}, arrays, epoch, 1)[0])[:, 0].tolist()

    assert at(0, "a", "b") == [10, 11]
    assert at(1, "a", "b") == [20, 21]
    assert at(2, "b", "a") == [11, 10]
    assert at(3, "b", "a") == [21, 20]
    assert at(4, "a", "c") == [30, 31]  # c was left out of the first epoch's last batch
    assert at(6, "c", "b") == [31, 11]


def test_a_resumed_stage_is_the_uninterrupted_one(tmp_path: Path) -> None:
    epochs: list[int] = []

    def stop(_: Any) -> dict[str, float]:
        epochs.append(1)
        if len(epochs) == 3:
            raise Stopped("here")
        return {"loss": 1.0}

    config = _config(1, augment=True, epochs=4)
    with pytest.raises(Stopped):
        _train(config, tmp_path / "a", stop)
    _same(_train(config, tmp_path / "a"), _train(config, tmp_path / "b"), 0)


def test_what_cannot_be_kept_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(1)
    config.stages.stage1.update(learn=(".*",), freeze=())
    with pytest.raises(BadConfig, match=r"stage1\.cache keeps .* but trunk/conv1 learns or moves its statistics"):
        _train(config, tmp_path / "a")
    config = _config(1, epochs=1)
    config.stages.stage1.move_frozen_statistics = True  # then all is kept that stands before the BatchNorm
    _train(config, tmp_path / "b")
    assert "the outputs of trunk/conv1, the last frozen layer" in capsys.readouterr().out
    with pytest.raises(BadConfig, match="a layer after trunk/bn1 needs more than its output"):
        _train(_config(1), tmp_path / "c", model=_Network(again=True))
    monkeypatch.setattr(cache, "MEMORY", 1e-9)
    with pytest.raises(BadConfig, match=r"would keep 0\.0 GB of outputs of trunk/bn1, more than half"):
        _train(_config(1), tmp_path / "d")
    config = _config(1)
    config.stages.stage1.patience = 3
    with pytest.raises(BadConfig, match=r'monitor="last" keeps the last epoch, so config\.stages\.stage1\.patience'):
        _train(config, tmp_path / "e")
