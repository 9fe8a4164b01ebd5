"""Images split by height among devices: the same gradients, a less memory, and what is refused."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from mammojax import run
from mammojax.configs import exam, whole_resnet
from mammojax.errors import BadConfig
from mammojax.models import classifiers
from mammojax.train import mesh
from tests.tiny import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet50", "vgg16", "efficientnet_lite0", "exam"])
def test_bands_of_an_image_give_its_gradients(network: str) -> None:
    script = ROOT / "tests" / "train" / "banded_gradients.py"
    environment = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, str(script), network],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert [(row[0], row[1]) for row in rows] == [(1, 1), (1, 2), (2, 2), (2, 4), (1, 8)]
    assert max(row[2] for row in rows) < 1e-9
    one, two, *_ = (row[3] for row in rows)
    # XLA gathers maps for the gradient of a max pool, of which VGG16 has five, and for shifted slices on a CPU (Lite 0)
    assert two < (0.6 if network == "resnet50" else 1.0) * one


def test_two_bands_give_the_gradients_of_one_device() -> None:
    """Height 256: eight rows of the trunk's last map, four for a device; the head gets all of them."""
    model = whole_resnet.get_config("heatmap2,8-8-16x1").model
    model.update(width=2, blocks=(1, 1, 1, 1), channels=1)
    network = classifiers.build(model)
    images = np.random.default_rng(0).normal(size=(2, 256, 64, 1)).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), images)

    def gradients(bands: int) -> list[np.ndarray]:
        devices = mesh.data_mesh(1, bands)

        def loss(params: dict, images: jax.Array) -> jax.Array:
            apply = mesh.banded(lambda x: network.apply(variables | {"params": params}, x)[0], devices)
            return jax.nn.log_softmax(apply(images))[:, 1].sum()

        whole = mesh.replicated(devices)
        result = jax.jit(jax.grad(loss))(*(jax.device_put(x, whole) for x in (variables["params"], images)))
        return [np.asarray(x) for x in jax.tree.leaves(result)]

    one, two = gradients(1), gradients(2)
    largest = max(np.abs(x).max() for x in one)
    assert largest > 0
    for ours, theirs in zip(two, one, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * largest)


def test_a_mesh_splits_the_batch_then_the_images() -> None:
    assert mesh.data_mesh(4).shape == {"data": 2}
    assert mesh.data_mesh(4, 2).shape == {"data": 1, "height": 2}
    with pytest.raises(BadConfig, match=r"config\.bands is 3, but there are 2 devices"):
        mesh.data_mesh(4, 3)


@pytest.mark.parametrize(
    ("height", "bands", "message"),
    [
        (1152, 5, "does not divide images of 1152 pixels into bands .* take a height of 1120 or 1280"),
        (192, 2, "leaves a device 3 of the 6 rows"),
    ],
)
def test_bands_with_wrong_gradients_are_refused(height: int, bands: int, message: str) -> None:
    config = whole_resnet.get_config()
    config.data.update(source="x", size=(height, 896))
    config.bands = bands
    with pytest.raises(BadConfig, match=message):
        run.check(config)


def test_windows_of_exams_are_refused_likewise() -> None:
    config = exam.get_config("view-wise-scratch")
    config.data.source, config.bands = "x", 2
    with pytest.raises(BadConfig, match="does not divide images of 2677 pixels"):
        run.check(config)
