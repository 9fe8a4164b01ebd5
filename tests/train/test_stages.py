"""Freezing by pattern: who learns, what is exactly still, what is refused."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from mammojax.configs import base, patch_resnet, patch_vgg, quickstart, whole_resnet, whole_vgg
from mammojax.errors import BadConfig
from mammojax.models import classifiers
from mammojax.tasks import images
from mammojax.train import losses, stages
from mammojax.train.loop import _stale
from mammojax.train.state import TrainState, init_variables
from mammojax.train.step import make_step


def _params(config: ConfigDict) -> dict:
    model = classifiers.build(config.model)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 288, 224, config.model.channels))))[
        "params"
    ]


@pytest.mark.parametrize("module", [patch_resnet, patch_vgg, whole_resnet, whole_vgg, quickstart])
def test_every_stage_of_every_config_covers_its_network(module) -> None:
    config = module.get_config()
    for part in (config, config.patch) if "patch" in config else (config,):
        params = _params(part)
        for stage in stages.from_config(part.stages):
            stages.labels(stage, params)


def test_top_layers_46_are_the_last_bottleneck_and_the_dense_layer() -> None:
    config = patch_resnet.get_config()
    params = _params(config)
    labels = stages.labels(stages.from_config(config.stages)[1], params)
    learning = {p for p, v in zip(stages.paths(params), jax.tree.leaves(labels), strict=True) if v == "learn"}
    kernels = {p for p in learning if p.endswith("kernel")}
    assert kernels == {f"trunk/stage4_unit3/conv{i}/kernel" for i in (1, 2, 3)} | {"classifier/kernel"}


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("learn", ("clasifier/.*",), "matches no parameter"),
        ("freeze", (), "neither learn nor freeze"),
        ("schedule", "linear", "cosine"),
    ],
)
def test_bad_stages_are_refused(field: str, value: object, word: str) -> None:
    config = patch_resnet.get_config()
    config.stages.stage1[field] = value
    with pytest.raises(BadConfig, match=word):
        stages.labels(stages.from_config(config.stages)[0], _params(config))


def _tiny() -> ConfigDict:
    config = quickstart.get_config().patch
    config.model.update(width=4, blocks=(1, 1, 1, 1))
    config.augment.enabled = False
    return config


def _run(config: ConfigDict, stage: stages.Stage, steps: int) -> tuple[dict, TrainState]:
    model = classifiers.build(config.model)
    variables = init_variables(model, (32, 32), 1, 0)
    tx = stages.optimizer(stage, variables["params"])
    before = jax.device_get(variables)
    key = jax.random.key_data(jax.random.key(0))
    state = TrainState(jnp.int32(0), variables["params"], variables["batch_stats"], tx.init(variables["params"]), key)
    step = make_step(model, tx, stage, images.loss(config, {"mean": 100.0}))
    rng = np.random.default_rng(0)
    for _ in range(steps):
        image = rng.integers(0, 65536, (4, 32, 32, 1), np.uint16)
        state, _ = step(state, {"image": image, "label": np.arange(4, dtype=np.int32)}, np.float32(1e-2))
    return before, state


@pytest.mark.parametrize("move", [False, True])
def test_frozen_parameters_and_statistics_do_not_move(move: bool) -> None:
    config = _tiny()
    config.stages.stage1 = base.stage("last", ("classifier/.*",), ("trunk/.*",), 1e-2, 1)
    config.stages.stage1.update(move_frozen_statistics=move, weight_decay=0.1)
    before, state = _run(config, stages.from_config(config.stages)[0], 3)
    jax.tree.map(np.testing.assert_array_equal, before["params"]["trunk"], jax.device_get(state.params["trunk"]))
    assert np.abs(before["params"]["classifier"]["kernel"] - state.params["classifier"]["kernel"]).max() > 0
    still = jax.tree.map(lambda a, b: bool((a == b).all()), before["batch_stats"], jax.device_get(state.batch_stats))
    assert all(jax.tree.leaves(still)) is not move


def test_fixed_statistics_stay_while_their_parameters_learn() -> None:
    config = _tiny()
    config.stages.stage1 = base.stage("all", (".*",), (), 1e-2, 1)
    config.stages.stage1.fix_statistics = ("trunk/.*",)
    before, state = _run(config, stages.from_config(config.stages)[0], 2)
    jax.tree.map(np.testing.assert_array_equal, before["batch_stats"], jax.device_get(state.batch_stats))
    kernel = "stem_conv"
    assert np.abs(before["params"]["trunk"][kernel]["kernel"] - state.params["trunk"][kernel]["kernel"]).max() > 0


def test_weight_decay_is_l2_in_the_gradient_of_kernels_only() -> None:
    config = _tiny()
    config.stages.stage1 = base.stage("all", (".*",), (), 1e-2, 1)
    config.stages.stage1.weight_decay = 0.5
    stage = stages.from_config(config.stages)[0]
    params = {"layer": {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.ones(2)}}
    grads = jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), params)
    tx = stages.optimizer(stage, params)
    updates, _ = tx.update(grads, tx.init(params), params)
    adam = optax.scale_by_adam()
    decayed = {"layer": {"kernel": grads["layer"]["kernel"] + 1.5, "bias": grads["layer"]["bias"]}}
    expected, _ = adam.update(decayed, adam.init(params))
    jax.tree.map(np.testing.assert_array_equal, updates, expected)


def test_slow_parameters_take_a_share_of_the_rate_and_decay_can_be_the_heads_alone() -> None:
    config = _tiny()
    config.stages.stage1 = base.stage("all", (".*",), (), 1e-2, 1)
    config.stages.stage1.update(weight_decay=0.5, slow=("trunk/.*",), slow_factor=0.1, decay=("classifier/.*",))
    stage = stages.from_config(config.stages)[0]
    params = {name: {"kernel": jnp.full((2, 2), 3.0)} for name in ("trunk", "classifier")}
    grads = jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), params)
    tx = stages.optimizer(stage, params)
    updates, _ = tx.update(grads, tx.init(params), params)
    adam = optax.scale_by_adam()

    def by_adam(gradient: jax.Array) -> jax.Array:
        return adam.update(gradient, adam.init(gradient))[0]

    np.testing.assert_allclose(updates["trunk"]["kernel"], 0.1 * by_adam(grads["trunk"]["kernel"]), rtol=1e-6)
    np.testing.assert_array_equal(updates["classifier"]["kernel"], by_adam(grads["classifier"]["kernel"] + 1.5))


def test_balanced_weights_equal_the_worked_example() -> None:
    weights = losses.balanced_weights(jnp.array([0, 0, 0, 1]), 5)
    np.testing.assert_allclose(weights, [4 / 3, 4 / 3, 4 / 3, 4], rtol=1e-6)


def test_cross_entropy_equals_its_definition() -> None:
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    label = np.array([0, 1, 2, 0, 1, 2])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(losses.cross_entropy(logits, label), -np.log(p[np.arange(6), label]), rtol=1e-5)


def test_adam_leaves_no_moments_for_frozen_parameters() -> None:
    config = _tiny()
    config.stages.stage1 = base.stage("last", ("classifier/.*",), ("trunk/.*",), 1e-2, 1)
    params = init_variables(classifiers.build(config.model), (32, 32), 1, 0)["params"]
    moments = stages.optimizer(stages.from_config(config.stages)[0], params).init(params)
    size = sum(x.size for x in jax.tree.leaves(moments))
    assert size == 2 * sum(x.size for x in jax.tree.leaves(params["classifier"])) + 1


def test_a_stage_ends_when_its_patience_does() -> None:
    stage = replace(stages.from_config(quickstart.get_config().stages)[0], patience=3)

    def stale(epochs: int, best: int, where: str = "") -> bool:
        return _stale(stage, epochs, {"epoch": best, "stage": where or stage.name})

    assert [stale(epochs, 2) for epochs in (2, 3, 4, 5, 6)] == [False, False, False, True, True]
    assert [stale(epochs, 7, "another stage") for epochs in (0, 2, 3)] == [False, False, True]
    assert not _stale(replace(stage, patience=0), 1000, {"epoch": 1, "stage": stage.name})
    assert not _stale(stage, 5, None)


def test_waves_warm_up_and_then_swing_by_a_tenth() -> None:
    config = base.stage("all", (".*",), (), 1e-4, 50)
    config.update(schedule="waves", warmup=4)
    (stage,) = stages.from_config(ConfigDict({"stage1": config}))
    rates = [stage.rate(epoch * 7 + 3, 50 * 7) for epoch in range(50)]  # the same through an epoch of seven steps
    np.testing.assert_allclose(rates[:5], [0.25e-4, 0.5e-4, 0.75e-4, 1e-4, 1.1e-4])
    np.testing.assert_allclose([rates[9], rates[14]], [0.9e-4, 1.1e-4])  # half a wave is a tenth of the epochs
    assert stage.rate(9 * 7, 350) == stage.rate(10 * 7 - 1, 350) != stage.rate(10 * 7, 350)


def test_a_constant_rate_has_no_warm_up() -> None:
    config = base.stage("all", (".*",), (), 1e-4, 50)
    config.warmup = 4
    with pytest.raises(BadConfig, match='warmup is for the schedules "cosine" and "waves"'):
        stages.from_config(ConfigDict({"stage1": config}))


def test_a_cosine_warms_up_step_by_step_and_still_ends_at_zero() -> None:
    config = base.stage("all", (".*",), (), 1e-4, 4)
    config.update(schedule="cosine", warmup=1)
    (stage,) = stages.from_config(ConfigDict({"stage1": config}))
    rates = [stage.rate(step, 40) for step in range(40)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) * 1e-5)
    np.testing.assert_allclose([rates[10], rates[25]], [1e-4, 0.5e-4])
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 1e-6
    config.warmup = 0
    (plain,) = stages.from_config(ConfigDict({"stage1": config}))
    assert plain.rate(0, 40) == 1e-4
