"""ConvNeXt: sizes, the start of its layer scales, and the guided gradient of smooth activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammojax.models.convnext import DEPTHS, WIDTHS, ConvNeXt
from mammojax.models.layers import gelu, guided, relu, swish
from mammojax.train.state import init_variables


@pytest.mark.parametrize(("variant", "count"), [("tiny", 27_818_592), ("base", 87_564_416)])
def test_parameter_counts_and_stages(variant: str, count: int) -> None:
    trunk = ConvNeXt(DEPTHS[variant], WIDTHS[variant])
    image = jax.ShapeDtypeStruct((1, 1152, 896, 3), jnp.float32)
    (features, intermediates), variables = jax.eval_shape(lambda x: trunk.init_with_output(jax.random.key(0), x), image)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == count
    assert features.shape == (1, 36, 28, 8 * WIDTHS[variant])
    assert intermediates["stem"].shape[1:3] == intermediates["stage1"].shape[1:3] == (288, 224)


def test_an_untrained_unit_is_almost_its_input() -> None:
    variables = init_variables(ConvNeXt((1, 1, 1, 1), 8), (32, 32), 1, 0)
    assert set(variables["params"]["stage1_unit1"]["gamma"].tolist()) == {np.float32(1e-6)}


@pytest.mark.parametrize("activation", [relu, swish, gelu])
def test_guided_gradients_pass_where_activation_and_gradient_are_positive(activation) -> None:
    x, weight = jnp.array([-1.0, 2.0, -1.0, 2.0]), jnp.array([1.0, 1.0, -1.0, -1.0])

    def gradient(by: bool) -> np.ndarray:
        def total(x: jax.Array) -> jax.Array:
            if not by:
                return (activation(x) * weight).sum()
            with guided():
                return (activation(x) * weight).sum()

        return np.asarray(jax.grad(total)(x))

    plain, by_guide = gradient(False), gradient(True)
    np.testing.assert_allclose(by_guide, [0, plain[1], 0, 0], rtol=1e-6)
    assert plain[3] < 0
