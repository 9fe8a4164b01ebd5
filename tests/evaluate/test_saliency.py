"""Guided gradients against ones written out by hand."""

from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammojax.configs import quickstart
from mammojax.data import dataset
from mammojax.evaluate import saliency
from mammojax.models import classifiers
from mammojax.models.layers import guided, relu
from mammojax.train.checkpoint import restore_best
from tests.random_variables import random_variables


def test_guided_gradients_of_a_small_net_by_hand() -> None:
    """Two hidden layers; a gradient goes back where the activation was positive and the gradient is."""
    rng = np.random.default_rng(0)
    x, first, second, last = (rng.normal(size=s).astype(np.float32) for s in ((6,), (6, 8), (8, 8), (8,)))

    def net(x: jax.Array) -> jax.Array:
        return relu(relu(x @ first) @ second) @ last

    a = x @ first
    b = np.maximum(a, 0) @ second
    to_b = (b > 0) * np.maximum(last, 0)
    to_a = (a > 0) * np.maximum(second @ to_b, 0)
    plain = first @ ((a > 0) * (second @ ((b > 0) * last)))

    def guided_net(x: jax.Array) -> jax.Array:
        with guided():
            return net(x)

    np.testing.assert_allclose(jax.jit(jax.grad(guided_net))(x), first @ to_a, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(net))(x), plain, rtol=1e-5)  # outside nothing has changed
    assert np.abs(first @ to_a - plain).max() > 0.1
    np.testing.assert_array_equal(guided_net(jnp.asarray(x)), net(jnp.asarray(x)))


@jax.custom_gradient
def _written_otherwise(x: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    return jnp.maximum(x, 0), lambda gradient: gradient * (gradient > 0) * (x > 0)


@pytest.mark.parametrize(
    ("trunk", "head"), [("resnet50", "8-8-16x1"), ("vgg16", "8x1"), ("resnet50", "heatmap2,fc8-4")]
)
def test_no_relu_of_our_networks_misses_the_rule(trunk: str, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against flax's own ReLU with the rule in it, which a layer that calls it directly would have here alone."""
    config = quickstart.get_config().model
    config.update(trunk=trunk, head=head, width=4, blocks=(1, 1, 1, 1))
    model = classifiers.build(config)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 65536, (2, 64, 64, 1)).astype(np.float32)
    variables = random_variables(model, np.zeros((1, 64, 64, 1), np.float32))

    def score(pixels: jax.Array) -> jax.Array:
        return model.apply(variables, classifiers.as_input(pixels, 100.0, 1))[0][:, 1].sum()

    ours = np.asarray(saliency._gradient(model, 100.0, 1)(variables, images))
    plain = np.asarray(jax.jit(jax.grad(score))(images))
    monkeypatch.setattr(nn, "relu", _written_otherwise)
    expected = np.asarray(jax.jit(jax.grad(lambda pixels: score(pixels)))(images))
    size = np.abs(expected).max()
    assert size > 0
    np.testing.assert_allclose(ours / size, expected / size, atol=1e-4)
    assert np.abs(ours - plain).max() > 0.1 * size


def test_a_map_is_scaled_and_cut(finished: Path) -> None:
    config, facts, variables = restore_best(finished)
    source = dataset.of_run(finished).source("test")
    images = np.stack([source[k]["image"] for k in range(3)])
    maps = saliency.saliency(config, facts, variables, images)
    assert maps.shape == images.shape[:3]
    assert maps.dtype == np.float32
    assert set(np.unique(maps.max(axis=(1, 2)))) <= {0.0, 1.0}
    assert ((maps == 0) | (maps >= saliency.CUTOFF)).all()
    assert 0 < (maps > 0).mean() < 1
    alone = saliency.saliency(config, facts, variables, images[1:2])
    np.testing.assert_allclose(alone[0], maps[1], atol=1e-3)  # an image's map does not depend on its neighbours
