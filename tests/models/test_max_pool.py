"""Maximum pooling: by slices it is XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mammojax.models import layers, max_pool


@pytest.mark.parametrize(
    ("side", "stride", "pads"),
    [
        (2, 2, "VALID"),
        (3, 2, ((1, 1), (1, 1))),
        (3, 2, "SAME"),
        (3, 2, ((0, 0), (0, 0))),
        (3, 1, "SAME"),
        (2, 3, "VALID"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [(8, 7), (5, 12)])
def test_it_is_xlas_own(
    side: int, stride: int, pads: max_pool.Pads | str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(max_pool, "LEAST", 0)
    rng = np.random.default_rng(0)
    for x in (rng.normal(size=(2, *size, 3)), rng.integers(-1, 1, (2, *size, 3))):  # and with equal values

        def own(x: jax.Array) -> jax.Array:
            return nn.max_pool(x, (side, side), (stride, stride), pads)

        def ours(x: jax.Array) -> jax.Array:
            return max_pool.max_pool(x, side, stride, pads)

        x_ = jnp.asarray(x, jnp.float32)
        expected, of_expected = jax.vjp(own, x_)
        result, of_result = jax.vjp(ours, x_)
        np.testing.assert_array_equal(result, expected)
        g = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
        np.testing.assert_allclose(of_result(g)[0], of_expected(g)[0], rtol=1e-5, atol=1e-6)


def test_what_is_not_a_number_stays_and_several_devices_take_xlas_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "alone_on_a_cpu", lambda _: True)
    assert "reduce_window" in str(jax.make_jaxpr(lambda x: max_pool.max_pool(x, 2, 2))(jnp.ones((1, 13, 13, 1))))
    monkeypatch.setattr(max_pool, "LEAST", 0)
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan)
    y = max_pool.max_pool(x, 2, 2)
    assert np.isnan(y[0, 0, 0, 0])
    assert not np.isnan(y[0, 1:]).any()
    wide = jnp.ones((1, 13, 13, 1))
    texts = [str(jax.make_jaxpr(lambda x, side=side: max_pool.max_pool(x, side, 1))(wide)) for side in (2, 12)]
    assert ["reduce_window" in text for text in texts] == [False, True]
    monkeypatch.setattr(layers, "alone_on_a_cpu", lambda _: False)
    assert "reduce_window" in str(jax.make_jaxpr(lambda x: max_pool.max_pool(x, 2, 2))(x))
