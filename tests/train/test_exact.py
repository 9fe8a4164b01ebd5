"""Training in a fixed number of parts: the same to the last bit on any number of devices."""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from mammojax import run
from mammojax.configs import quickstart
from mammojax.errors import BadConfig
from mammojax.tasks import images
from mammojax.train import mesh, stages
from mammojax.train.checkpoint import restore_best
from mammojax.train.state import TrainState, init_variables
from mammojax.train.step import make_step
from tests.tiny import together

PARTS = 4


class _Network(nn.Module):
    """As small as a network with BatchNorm can be."""

    learning: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, frozen: Any = None) -> tuple[jax.Array, dict]:
        for k in range(2):
            x = nn.Conv(8, (3, 3), name=f"conv{k}")(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not self.learning, name=f"bn{k}")(x))
        return nn.Dense(5, name="classifier")(x.mean((1, 2))), {}


@cache
def _after(devices: int, learning: bool, parts: int = PARTS, steps: int = 3, plain: bool = False) -> Any:
    """The network's state, and the terms, after some steps: Adam and augmentation, or `plain` descent."""
    config = quickstart.get_config().patch
    config.balance_loss = False  # the classes of each part alone would be balanced
    grid = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    model, (stage, *_) = _Network(learning), stages.from_config(config.stages)
    variables = init_variables(model, (32, 32), 1, 0)
    tx, config.augment.enabled = optax.identity() if plain else stages.optimizer(stage, variables["params"]), not plain
    key = jax.random.key_data(jax.random.key(0))
    state = TrainState(np.int32(0), variables["params"], variables["batch_stats"], tx.init(variables["params"]), key)
    state = jax.device_put(state, mesh.replicated(grid))
    step = make_step(model, tx, stage, images.loss(config, {"mean": 100.0}), exact_devices=parts)
    rng, terms, split = np.random.default_rng(0), [], jax.NamedSharding(grid, jax.P("data"))
    for _ in range(steps):
        image, label = rng.integers(0, 65536, (8, 32, 32, 1), np.uint16), rng.integers(0, 5, 8, np.int32)
        state, now = step(state, jax.device_put({"image": image, "label": label}, split), np.float32(1e-3))
        terms.append(now)
    return jax.tree.map(np.asarray, (state, terms))


def _equal(ours: Any, theirs: Any) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), ours, theirs))


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
@pytest.mark.parametrize("learning", [True, False])
def test_two_devices_are_one_to_the_last_bit(learning: bool) -> None:
    assert _equal(_after(1, learning), _after(2, learning))
    if not learning:  # what it guards against; with few steps the difference is small
        ours, theirs = _after(1, learning, 0), _after(2, learning, 0)
        assert not _equal(ours, theirs)


def test_the_parts_have_the_gradient_of_their_batch() -> None:
    """One step of plain gradient descent with fixed statistics, without augmentation."""
    parts, whole = _after(1, False, steps=1, plain=True), _after(1, False, 0, steps=1, plain=True)
    for ours, theirs in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(np.abs(theirs).max()))


def test_a_learning_batchnorm_moves_to_the_mean_of_the_parts() -> None:
    """The mean over parts of equal size is that over the batch."""
    parts, whole = (_after(1, True, parts, steps=1, plain=True)[0].batch_stats["bn0"] for parts in (PARTS, 0))
    np.testing.assert_allclose(parts["mean"], whole["mean"], rtol=1e-4, atol=1e-4)
    assert (parts["var"] < whole["var"]).all()  # what lies between the parts is missing


def test_what_is_not_exact_is_refused() -> None:
    config = quickstart.get_config()
    config.exact_devices = 3
    with pytest.raises(BadConfig, match=r"config\.exact_devices is 3, which does not divide the batch of 8"):
        run.check(config)
    for field, value in (("accumulate", 2), ("memory", "24GB")):
        config = quickstart.get_config()
        config.exact_devices, config[field] = 4, value
        with pytest.raises(BadConfig, match=rf"config\.exact_devices and config\.{field} exclude each other"):
            run.check(config)


def _train(folder: Path, devices: int, count: int = 1) -> None:
    """A whole run of the tiny config on so many devices of each of `count` processes."""
    line = [sys.executable, "launch.py", "--config=tests/tiny_patches.py", f"--workdir={folder}"]
    line += [f"--config.exact_devices={PARTS}", f"--config.data.data_dir={folder.parent}/data"]
    flags = f"--xla_force_host_platform_device_count={devices}"
    together(line, count, {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PJRT_NPROC": str(PARTS)}, 1800)


def _results(folder: Path) -> dict[str, bytes]:
    files = [folder / "metrics.json", *sorted((folder / "predictions").iterdir())]
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.slow
def test_whole_runs_are_equal_on_one_two_and_four_devices_and_on_two_processes(tmp_path: Path) -> None:
    for name, devices, count in (("one", 1, 1), ("two", 2, 1), ("four", 4, 1), ("processes", 2, 2)):
        _train(tmp_path / name, devices, count)
        assert _results(tmp_path / name) == _results(tmp_path / "one"), name
        ours, theirs = (restore_best(tmp_path / n)[2] for n in (name, "one"))
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), ours, theirs)), name
    assert len(json.loads((tmp_path / "one" / "metrics.json").read_text())) == 2
