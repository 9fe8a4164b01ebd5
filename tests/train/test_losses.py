"""The loss of exams: the paper's eight binary cross-entropies, whatever the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from mammojax.configs import exam
from mammojax.models import multi_view
from mammojax.tasks import exams
from mammojax.train import losses, mesh, stages
from mammojax.train.state import TrainState, init_variables
from mammojax.train.step import make_step
from mammojax.vocabulary import VIEWS


def test_the_loss_of_an_exam_is_the_sum_of_its_binary_cross_entropies() -> None:
    """Wu et al. 2019, the equation of section IV-A.1, written out: ℓ(y, ŷ) over labels and over CC and MLO."""
    rng = np.random.default_rng(0)
    halves = {half: rng.normal(size=(3, 4, 2)).astype(np.float32) for half in ("CC", "MLO")}
    label = rng.integers(0, 2, (3, 4)).astype(np.int32)
    expected, mean = np.zeros(3), np.zeros((3, 4))
    for logits in halves.values():
        present = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
        expected += -(label * np.log(present) + (1 - label) * np.log(1 - present)).sum(axis=1)
        mean += present / 2
    logits = {half: jnp.asarray(x) for half, x in halves.items()}
    loss, answer = losses.exam_loss(logits, jnp.asarray(label)), losses.exam_classes(logits)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(answer, mean > 0.5)


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
def test_two_devices_train_on_exams_as_one_does() -> None:
    config = exam.get_config("joint+heatmaps")
    config.model.update(width=2, blocks=(1, 1, 1, 1, 1), noise=0.0)
    model = multi_view.build(config.model)
    size = {view: (72, 64) if view.endswith("CC") else (80, 64) for view in VIEWS}
    variables = init_variables(model, size, 3, 0)
    stage = stages.from_config(config.stages)[0]
    rng = np.random.default_rng(0)
    image = {view: rng.normal(size=(4, *first_losses, 3)).astype(np.float32) for view, first_losses in size.items()}
    batch = {"image": image, "label": rng.integers(0, 2, (4, 4)).astype(np.int32)}

    def after(devices: int) -> tuple[np.ndarray, TrainState]:
        grid = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
        params, statistics = (jax.tree.map(jnp.array, variables[kind]) for kind in ("params", "batch_stats"))
        tx = stages.optimizer(stage, params)
        key = jax.random.key_data(jax.random.key(0))
        state = TrainState(jnp.int32(0), params, statistics, tx.init(params), key)
        state = jax.device_put(state, mesh.replicated(grid))
        shared = jax.device_put(batch, jax.NamedSharding(grid, jax.P("data")))
        state, now = make_step(model, tx, stage, exams.loss(config, {}))(state, shared, np.float32(1e-5))
        return np.asarray(now), state

    (first_losses, first), (second_losses, second) = after(1), after(2)
    np.testing.assert_allclose(first_losses, second_losses, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), first.batch_stats, second.batch_stats
    )
    assert 2.0 < first_losses[0] < 6.0  # four labels at about ln 2 each
