"""One device's losses on two, BatchNorm included; mixed precision keeps float32 parameters; patches beside images."""

import contextlib
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from ml_collections import ConfigDict

from mammojax.configs import quickstart
from mammojax.models import classifiers
from mammojax.tasks import images
from mammojax.train import mesh, stages
from mammojax.train.remat import rematerialised
from mammojax.train.state import TrainState, init_variables
from mammojax.train.step import make_step


def _losses(config: ConfigDict, devices: int, steps: int = 4) -> tuple[list[float], TrainState]:
    grid = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    model = classifiers.build(config.model)
    variables = init_variables(model, (32, 32), 1, 0)
    stage = stages.from_config(config.stages)[0]
    tx = stages.optimizer(stage, variables["params"])
    key = jax.random.key_data(jax.random.key(0))
    state = TrainState(jnp.int32(0), variables["params"], variables["batch_stats"], tx.init(variables["params"]), key)
    state = jax.device_put(state, mesh.replicated(grid))
    step = make_step(model, tx, stage, images.loss(config, {"mean": 100.0}))
    rng, result = np.random.default_rng(0), []
    for _ in range(steps):
        image = jax.device_put(
            rng.integers(0, 65536, (8, 32, 32, 1), np.uint16), jax.NamedSharding(grid, jax.P("data"))
        )
        label = jax.device_put(rng.integers(0, 5, 8, np.int32), jax.NamedSharding(grid, jax.P("data")))
        state, now = step(state, {"image": image, "label": label}, np.float32(1e-3))
        result.append(float(now[0]))
    return result, state


def _config() -> ConfigDict:
    config = quickstart.get_config().patch
    config.model.update(width=4, blocks=(1, 1, 1, 1))
    return config


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
def test_two_devices_give_the_losses_of_one() -> None:
    on_one, _ = _losses(_config(), 1)
    on_two, _ = _losses(_config(), 2)
    np.testing.assert_allclose(on_one, on_two, rtol=1e-5)
    # Statistics are compared after one step: Adam divides by the gradient's size, so where a gradient is rounding
    # noise (biases before a BatchNorm) later steps walk apart without the losses seeing it.
    (_, first), (_, second) = (_losses(_config(), n, steps=1) for n in (1, 2))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), first.batch_stats, second.batch_stats
    )


def test_bfloat16_computes_in_half_and_keeps_float32_parameters() -> None:
    config = _config()
    full, _ = _losses(config, 1)
    config.model.dtype = "bfloat16"
    half, state = _losses(config, 1)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.params))
    assert half != full
    np.testing.assert_allclose(half, full, rtol=0.1)


def test_a_batch_uses_as_many_devices_as_divide_it() -> None:
    assert mesh.data_mesh(2).size == 2
    assert mesh.data_mesh(3).size == 1


def _state(variables: dict, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step, of arrays of its own: a step gives its state's away."""
    params, batch_stats = (jax.tree.map(jnp.array, variables[kind]) for kind in ("params", "batch_stats"))
    key = jax.random.key_data(jax.random.key(0))
    return TrainState(jnp.int32(0), params, batch_stats, tx.init(variables["params"]), key)


def test_the_auxiliary_loss_teaches_the_trunk_from_patches_alone() -> None:
    """With images that teach nothing (a learning head of frozen logits) the trunk still learns from the patches."""
    config = quickstart.get_config()
    config.model.update(width=4, blocks=(1, 1, 1, 1), head="8x1", auxiliary_classes=5)
    config.augment.enabled = False
    model = classifiers.build(config.model)
    variables = init_variables(model, (64, 64), 1, 0)
    variables["params"]["head"]["logits"]["kernel"] *= 0  # no gradient of the images reaches the trunk
    stage = stages.from_config(config.stages)[1]
    tx = stages.optimizer(stage, variables["params"])
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 65536, (2, 64, 64, 1), np.uint16),
        "label": np.array([0, 1], np.int32),
        "patch_image": rng.integers(0, 65536, (10, 32, 32, 1), np.uint16),
        "patch_label": np.arange(10, dtype=np.int32) % 5,
    }

    def trunk_after(weight: float) -> np.ndarray:
        config.auxiliary.weight = weight
        state, now = make_step(model, tx, stage, images.loss(config, {"mean": 100.0}))(
            _state(variables, tx), batch, np.float32(1e-2)
        )
        assert np.isfinite(now).all()
        return np.asarray(state.params["trunk"]["stem_conv"]["kernel"])

    before = variables["params"]["trunk"]["stem_conv"]["kernel"]
    np.testing.assert_array_equal(trunk_after(0.0), before)
    assert np.abs(trunk_after(1.0) - before).max() > 1e-3


def test_the_auxiliary_patches_leave_the_running_statistics_to_the_images() -> None:
    """The trunk runs twice a step; patches of another gray value once moved the statistics of the images."""
    config = quickstart.get_config()
    config.model.update(width=4, blocks=(1, 1, 1, 1), head="8x1", auxiliary_classes=5)
    config.augment.enabled = False
    model = classifiers.build(config.model)
    variables = init_variables(model, (64, 64), 1, 0)
    stage = stages.from_config(config.stages)[0]
    stage = replace(stage, learn=(".*",), freeze=())
    tx = stages.optimizer(stage, variables["params"])
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 20_000, (2, 64, 64, 1), np.uint16), "label": np.array([0, 1], np.int32)}
    patches = {
        "patch_image": rng.integers(40_000, 65536, (10, 32, 32, 1), np.uint16),
        "patch_label": np.arange(10, dtype=np.int32) % 5,
    }

    def statistics(batch: dict) -> dict:
        return make_step(model, tx, stage, images.loss(config, {"mean": 100.0}))(
            _state(variables, tx), batch, np.float32(1e-2)
        )[0].batch_stats

    alone, beside = statistics(batch), statistics(batch | patches)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), alone, beside)


def _whole(**model: object) -> ConfigDict:
    """A tiny whole-image config without augmentation, whose network learns all."""
    config = quickstart.get_config()
    config.model.update(width=4, blocks=(1, 1, 1, 1), head="8-8-16x1", **model)
    config.augment.enabled, config.batch = False, 8
    return config


@cache
def _gradients(fixed: tuple[str, ...], remat: bool = False, accumulate: int = 1) -> tuple:
    """The update of one step of plain gradient descent, the state after it, and its values; with dropout where
    statistics learn."""
    config = _whole(bn_momentum=0.9, dropout=0.0 if fixed else 0.2)
    model = classifiers.build(config.model)
    variables = init_variables(model, (64, 64), 1, 0)
    stage = replace(stages.from_config(config.stages)[-1], fix_statistics=fixed)
    tx, key = optax.identity(), jax.random.key_data(jax.random.key(0))
    state = TrainState(jnp.int32(0), variables["params"], variables["batch_stats"], tx.init({}), key)
    step = make_step(model, tx, stage, images.loss(config, {"mean": 100.0}), remat=remat, accumulate=accumulate)
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 65535, (8, 64, 64, 1), np.uint16), "label": np.arange(8, dtype=np.int32) % 2}
    before = jax.tree.map(np.array, variables["params"])
    after, terms = step(jax.tree.map(jnp.array, state), batch, np.float32(1))
    return jax.tree.map(lambda a, b: np.asarray(a - b), before, after.params), after, np.asarray(terms)


def _largest_difference(a: object, b: object) -> float:
    """Of two trees, relative to each array's largest value."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(x - y).max() / max(1e-6, float(np.abs(x).max()))) for x, y in pairs)


def test_a_batch_in_parts_has_the_gradient_of_the_whole_where_statistics_are_frozen() -> None:
    whole, _, terms = _gradients((".*",))
    parts, state, of_parts = _gradients((".*",), accumulate=4)
    assert _largest_difference(whole, parts) < 1e-4
    np.testing.assert_allclose(of_parts, terms, rtol=1e-5)
    assert all((leaf == 0).all() or (leaf == 1).all() for leaf in jax.tree.leaves(state.batch_stats))


def test_a_learning_batchnorm_sees_the_parts_one_by_one() -> None:
    """The gradient is another one, and the statistics move once a part: momentum 0.9 keeps 0.9^4 of their start. The
    parts' means differ a little and the last one counts most."""
    whole, once, _ = _gradients(())
    parts, often, _ = _gradients((), accumulate=4)
    assert _largest_difference(whole, parts) > 1e-2
    first, later = (state.batch_stats["trunk"]["stem_bn"]["mean"] for state in (once, often))
    np.testing.assert_allclose(later / first, np.full(4, (1 - 0.9**4) / (1 - 0.9)), rtol=0.05)


def test_rematerialised_blocks_have_the_same_gradients() -> None:
    plain, before, terms = _gradients((), accumulate=4)
    again, after, of_again = _gradients((), remat=True, accumulate=4)
    assert _largest_difference(plain, again) < 1e-4
    assert _largest_difference(before.batch_stats, after.batch_stats) < 1e-5
    np.testing.assert_allclose(of_again, terms, rtol=1e-5)


@pytest.mark.slow
def test_a_rematerialised_network_keeps_less_than_half_for_its_backward_pass() -> None:
    model, on = classifiers.build(_whole().model), (contextlib.nullcontext, rematerialised)
    variables, images = init_variables(model, (64, 64), 1, 0), jnp.ones((2, 64, 64, 1))
    kept = []
    for context in on:

        def loss(params: object, context: object = context) -> jax.Array:
            with context():
                (logits, _), _ = model.apply({**variables, "params": params}, images, True, mutable=["batch_stats"])
            return logits.sum()

        _, pull = jax.vjp(loss, variables["params"])
        kept.append(sum(leaf.nbytes for leaf in jax.tree.leaves(pull)))
    assert kept[1] < 0.5 * kept[0]
