"""The layers that the networks share: convolutions that a CPU computes otherwise than XLA does."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mammojax.models import layers
from mammojax.models.layers import by_blocks, conv7x7, convolution, in_parts
from mammojax.models.max_pool import max_pool

NAMES = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize(("side", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (3, 1, 0), (7, 2, 3), (7, 2, 0), (7, 1, 3)])
@pytest.mark.parametrize("height", [7, 12, 23])
def test_a_convolution_in_parts_is_xlas_own(
    side: int, stride: int, pad: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of 24 places: a whole image, several rows, and several with rows that are missing below."""
    monkeypatch.setattr(layers, "PLACES", 24)
    rng = np.random.default_rng(0)
    shapes = ((2, height, 10, 5), (side, side, 5, 4))
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)

    def loss(how: object, x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = how(x, kernel)  # type: ignore[operator]
        return (y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)).sum()

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return in_parts(x, kernel, stride, pad)

    def xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pads = ((pad, pad), (pad, pad))
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=NAMES)

    np.testing.assert_array_equal(ours(x, kernel), xla(x, kernel))
    for mine, own in zip(*(jax.grad(loss, (1, 2))(how, x, kernel) for how in (ours, xla)), strict=True):
        np.testing.assert_allclose(mine, own, rtol=1e-5, atol=1e-5 * np.abs(own).max())


@pytest.mark.parametrize("height", [8, 7, 1])
def test_a_1x1_convolution_in_parts_has_the_gradients_of_one_product(
    height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of 16 places: 96, 84 and 12 places are six parts, five and a rest, and one smaller part."""
    monkeypatch.setattr(layers, "PLACES", 16)
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, height, 6, 5), (5, 4)))

    def loss(how: object, x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = how(x, kernel)  # type: ignore[operator]
        return (y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)).sum()

    def whole(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum("bhwc,cd->bhwd", x, kernel)

    for ours, own in zip(*(jax.grad(loss, (1, 2))(how, x, kernel) for how in (layers.conv1x1, whole)), strict=True):
        np.testing.assert_allclose(ours, own, rtol=1e-5, atol=1e-5 * np.abs(own).max())


@pytest.mark.parametrize(
    ("dtype", "size", "channels", "taken"),
    [("float32", 16, (8, 4), True), ("float32", 16, (2, 8), True), ("float32", 8, (8, 4), False),
     ("bfloat16", 16, (8, 4), False)],
)  # fmt: skip
def test_only_large_inputs_or_outputs_on_a_cpu_have_their_1x1_gradient_in_parts(
    dtype: str, size: int, channels: tuple[int, int], taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "LARGE", 4 * 16 * 16 * 8)
    layer, x = layers.Conv1x1(channels[1], dtype=dtype), jnp.zeros((1, size, size, channels[0]), dtype)
    variables = layer.init(jax.random.key(0), x)

    def text() -> str:
        return str(jax.make_jaxpr(jax.grad(lambda v: layer.apply(v, x).sum().astype(jnp.float32)))(variables))

    assert "scan[" not in text()  # several devices
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert ("scan[" in text()) == taken


@pytest.mark.parametrize("size", [(7, 8), (17, 12), (20, 33)])
@pytest.mark.parametrize("pad", [0, 3])
def test_a_first_convolution_by_blocks_is_xlas_own(
    size: tuple[int, int], pad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, *size, 3), (7, 7, 3, 5)))
    pads = ((pad, pad), (pad, pad))

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv7x7(x, kernel, pad)

    def xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), pads, dimension_numbers=NAMES)

    def loss(how: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = how(x, kernel)
        return (y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)).sum()

    own = xla(x, kernel)
    np.testing.assert_array_equal(ours(x, kernel), own)
    np.testing.assert_allclose(by_blocks(x, kernel, pad), own, rtol=1e-5, atol=1e-5 * np.abs(own).max())
    for mine, theirs in zip(*(jax.grad(loss, (1, 2))(how, x, kernel) for how in (ours, xla)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(layers, "HIGH", 7)
    taken: list[tuple[int, ...]] = []
    monkeypatch.setattr(layers, "conv7x7", lambda x, k, pad: taken.append(k.shape) or own)
    for features in (5, 17):  # by the layer, which changes how it says its padding
        nn.Conv(features, (7, 7), 2, pads, conv_general_dilated=convolution).init(jax.random.key(0), x)
    assert taken == [(7, 7, 3, 5)]


@pytest.mark.parametrize(
    ("dtype", "stride", "side", "channels", "taken"),
    [
        ("float32", 1, 3, 8, True), ("float32", 2, 3, 8, True), ("float32", 2, 7, 3, True), ("float32", 1, 3, 3, True),
        ("bfloat16", 1, 3, 8, False), ("float32", 3, 3, 8, False), ("float32", 1, 5, 8, False),
        ("float32", 1, 3, 4, False),
    ],
)  # fmt: skip
def test_only_large_images_on_a_cpu_leave_xlas_own(
    dtype: str, stride: int, side: int, channels: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The larger of input and output has 16 × 16 places of 8 channels or more; half of that is too small."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    size = 16 * stride if channels == 3 else 16
    for name, value in (("LARGE", 4 * 16 * 16 * 8), ("WIDE", 8), ("PLACES", 32)):
        monkeypatch.setattr(layers, name, value)
    x, kernel = jnp.zeros((1, size, size, channels), dtype), jnp.zeros((side, side, channels, 8), dtype)
    half = ((side // 2, side // 2),) * 2

    def gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.grad(lambda k: convolution(x, k, (stride, stride), half, dimension_numbers=NAMES).sum())(kernel)

    assert ("scan[" in str(jax.make_jaxpr(gradient)(x, kernel))) == taken
    assert "scan[" not in str(jax.make_jaxpr(gradient)(x[:, : size // 2], kernel))
    layer = nn.Conv(8, (side, side), stride, half, dtype=dtype, conv_general_dilated=convolution)
    variables = layer.init(jax.random.key(0), x)
    for devices in (1, 2):
        monkeypatch.setattr(jax, "device_count", lambda devices=devices: devices)
        text = str(jax.make_jaxpr(jax.grad(lambda v: layer.apply(v, x).sum()))(variables))
        assert ("scan[" in text) == (taken and devices == 1)


def test_padding_by_name_is_torchs_with_stride_1_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding "SAME" puts the odd zero below and to the right with stride 2."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for name, value in (("LARGE", 1), ("WIDE", 8), ("PLACES", 32)):
        monkeypatch.setattr(layers, name, value)
    x, kernel = jnp.zeros((1, 16, 16, 8)), jnp.zeros((3, 3, 8, 8))
    for padding, stride, taken in (
        ("SAME", 1, True),
        ("SAME", 2, False),
        ("VALID", 1, False),
        (((0, 1),) * 2, 2, False),
    ):
        gradient = jax.grad(
            lambda k: convolution(x, k, (stride, stride), padding, dimension_numbers=NAMES).sum()  # noqa: B023
        )
        assert ("scan[" in str(jax.make_jaxpr(gradient)(kernel))) == taken


def test_a_batch_without_a_number_takes_xlas_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is exported for any batch, on one device too."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    (batch,) = export.symbolic_shape("batch")
    x, kernel = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((batch, 64, 64, 64), (3, 3, 64, 64)))

    def network(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return max_pool(convolution(x, kernel, (1, 1), "SAME", dimension_numbers=NAMES), 2, 2)

    text = export.export(jax.jit(network))(x, kernel).mlir_module()
    assert text.count("stablehlo.convolution") == text.count("stablehlo.reduce_window") == 1
