"""Guided gradients against ones written out by hand."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mammojax.data import prepared
from mammojax.evaluate import saliency
from mammojax.models.relu import guided, relu
from mammojax.train.checkpoint import restore_best


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


def test_a_map_is_scaled_and_cut(finished: Path) -> None:
    config, facts, variables = restore_best(finished)
    source = prepared.of_run(finished).source("test")
    images = np.stack([source[k]["image"] for k in range(3)])
    maps = saliency.saliency(config, facts, variables, images)
    assert maps.shape == images.shape[:3]
    assert maps.dtype == np.float32
    assert set(np.unique(maps.max(axis=(1, 2)))) <= {0.0, 1.0}
    assert ((maps == 0) | (maps >= saliency.CUTOFF)).all()
    assert 0 < (maps > 0).mean() < 1
    one = saliency.saliency(config, facts, variables, images[1:2])
    np.testing.assert_allclose(one[0], maps[1], atol=1e-3)  # an image's map does not depend on its neighbours
