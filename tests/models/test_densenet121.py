"""DenseNet-121: torchvision's arithmetic and names, the published padding, the paper's parameter count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mammojax.models.classifiers import PatchClassifier
from mammojax.models.densenet121 import DenseNet121
from mammojax.models.weights import load, settings
from tests.random_variables import random_variables

TINY = {"width": 8, "blocks": (2, 1, 1, 2)}


def test_parameter_count_and_map_sizes_of_the_patch_model():
    model = PatchClassifier(DenseNet121(padding="same"), classes=4)
    x = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    (logits, intermediates), variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), x)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 6_957_956
    assert logits.shape == (2, 4)
    assert intermediates["stem"].shape == (2, 64, 64, 64)
    assert intermediates["features"].shape == (2, 8, 8, 1024)


def test_same_padding_begins_a_pixel_later():
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    same, torch = (DenseNet121(**TINY, padding=padding) for padding in ("same", "torch"))
    variables = random_variables(same, x)
    moved = np.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
    ours, theirs = (
        jax.jit(lambda x, model=model: model.apply(variables, x)[1]["stem_conv"])(image)
        for model, image in ((same, x), (torch, moved))
    )
    np.testing.assert_allclose(ours[:, 2:, 2:], theirs[:, 2:, 2:], atol=1e-5)
    assert np.abs(ours[:, 0] - theirs[:, 0]).max() > 0.1


def torch_features(state, x, blocks):
    """torchvision's DenseNet as its documentation and Huang et al. 2017 define it, from a state dict."""
    torch = pytest.importorskip("torch")
    import torch.nn.functional as F

    tensors = {name: torch.from_numpy(array) for name, array in state.items()}

    def norm(x, name):
        mean, var, scale, bias = (
            tensors[f"features.{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, scale, bias, eps=1e-5)

    def conv(x, name, **options):
        return F.conv2d(x, tensors[f"features.{name}.weight"], **options)

    x = F.relu(norm(conv(torch.from_numpy(x), "conv0", stride=2, padding=3), "norm0"))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for b, layers in enumerate(blocks, start=1):
        for k in range(1, layers + 1):
            layer = f"denseblock{b}.denselayer{k}"
            y = conv(F.relu(norm(x, f"{layer}.norm.1")), f"{layer}.conv.1")
            y = conv(F.relu(norm(y, f"{layer}.norm.2")), f"{layer}.conv.2", padding=1)
            x = torch.cat([x, y], dim=1)
        if b < len(blocks):
            x = F.avg_pool2d(conv(F.relu(norm(x, f"transition{b}.norm")), f"transition{b}.conv"), 2, stride=2)
    return F.relu(norm(x, "norm5")).numpy()


def random_state(blocks, width, rng):
    """Arrays of a torchvision DenseNet by its file's names, `norm.1` and `conv.1` in the layers included."""
    state = {}

    def norm(name, channels):
        for leaf, low, high in (("weight", 0.5, 1.5), ("bias", -0.3, 0.3), ("running_mean", -0.3, 0.3)):
            state[f"features.{name}.{leaf}"] = rng.uniform(low, high, channels).astype(np.float32)
        state[f"features.{name}.running_var"] = rng.uniform(0.5, 2, channels).astype(np.float32)
        state[f"features.{name}.num_batches_tracked"] = np.zeros((), np.int64)

    def conv(name, channels, inputs, side):
        kernel = rng.normal(0, (inputs * side**2) ** -0.5, (channels, inputs, side, side))
        state[f"features.{name}.weight"] = kernel.astype(np.float32)

    conv("conv0", width, 3, 7)
    norm("norm0", width)
    channels, growth = width, width // 2
    for b, layers in enumerate(blocks, start=1):
        for k in range(1, layers + 1):
            layer = f"denseblock{b}.denselayer{k}"
            norm(f"{layer}.norm.1", channels)
            conv(f"{layer}.conv.1", 4 * growth, channels, 1)
            norm(f"{layer}.norm.2", 4 * growth)
            conv(f"{layer}.conv.2", growth, 4 * growth, 3)
            channels += growth
        if b < len(blocks):
            norm(f"transition{b}.norm", channels)
            conv(f"transition{b}.conv", channels // 2, channels, 1)
            channels //= 2
    norm("norm5", channels)
    return state


def test_torchvision_weights_load_and_compute_the_same(tmp_path):
    rng = np.random.default_rng(0)
    state = random_state(TINY["blocks"], TINY["width"], rng)
    x = rng.normal(size=(2, 70, 64, 3)).astype(np.float32)
    theirs = np.moveaxis(torch_features(state, np.ascontiguousarray(np.moveaxis(x, -1, 1)), TINY["blocks"]), 1, -1)

    save_file(state, tmp_path / "densenet121.safetensors")
    model = PatchClassifier(DenseNet121(**TINY), classes=4)
    config = settings(tmp_path / "densenet121.safetensors")
    assert (config["trunk"], config["width"], config["blocks"], config["padding"]) == (
        "densenet121",
        *TINY.values(),
        "torch",
    )
    variables = load(tmp_path / "densenet121.safetensors", "densenet121", random_variables(model, x))
    ours = jax.jit(model.apply)(variables, x)[1]["features"]
    assert np.std(theirs) > 0
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_keras_files_of_it_are_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "densenet121.h5", "w") as file:
        file.attrs["layer_names"] = ["conv1_conv"]
        file.create_group("conv1_conv").attrs["weight_names"] = ["kernel"]
        file["conv1_conv/kernel"] = np.zeros((7, 7, 3, 8), np.float32)
    with pytest.raises(ValueError, match=r"densenet121\.h5: weights of a densenet121 are read from torchvision's"):
        load(tmp_path / "densenet121.h5", "densenet121", {})
