"""Published weights load strictly, and the loaded trunk computes what Keras 3 and torch compute."""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is first imported

from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mammojax.models.classifiers import PatchClassifier
from mammojax.models.resnet50 import ResNet50
from mammojax.models.vgg16 import VGG16
from mammojax.models.weights import PretrainedMismatch, load, settings

# Keras's own variables do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

KERAS3 = {"bn_epsilon": 1.001e-5}
TORCH = {"stride_on": "3x3", "conv_bias": False, "bn_momentum": 0.9, "bn_epsilon": 1e-5}


def shapes(trunk, channels=3):
    """Shapes are all that `load` needs of the variables it replaces."""
    x = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    return jax.eval_shape(PatchClassifier(trunk).init, jax.random.key(0), x)


def features(trunk, variables, x):
    inner = {collection: tree["trunk"] for collection, tree in variables.items()}
    return np.asarray(jax.jit(lambda x: trunk.apply(inner, x)[0])(x))


def assert_equal_to(theirs, ours):
    assert ours.shape == theirs.shape
    assert np.std(theirs) > 0
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).uniform(-52, 203, (2, 96, 64, 3)).astype(np.float32)


def random_like(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values that keep a deep net's activations in range, with BN statistics far from (0, 1)."""
    if len(shape) == 4:
        height, width, *channels = sorted(shape)
        fan_in = height * width * channels[0]
        return rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
    if "var" in name:
        return rng.uniform(0.5, 2, shape).astype(np.float32)
    if "gamma" in name or ("bn" in name and name.endswith("weight")) or "downsample.1.weight" in name:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.normal(0, 0.3, shape).astype(np.float32)


def keras_net(name: str):
    keras = pytest.importorskip("keras")
    net = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(None, None, 3))
    rng = np.random.default_rng(0)
    for layer in net.layers:
        layer.set_weights([random_like(w.path, w.shape, rng) for w in layer.weights])
    return net


@pytest.fixture(scope="module")
def keras_resnet50():
    return keras_net("ResNet50")


def write_legacy(path: Path, layers: dict[str, list[tuple[str, np.ndarray]]]) -> None:
    """Write the layout of the files that Keras 2 downloaded: a group a layer, its arrays in the order listed."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in weights]
            for name, value in weights:
                group[name] = value


def as_layers(net) -> dict[str, list[tuple[str, np.ndarray]]]:
    return {
        layer.name: [(f"{w.path}:0", value) for w, value in zip(layer.weights, layer.get_weights(), strict=True)]
        for layer in net.layers
    }


def keras2_name(layer: str) -> str:
    """conv3_block2_1_conv → res3b_branch2a, the name of the same layer in Keras 2.0."""
    if layer in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}[layer]
    stage, block, number, kind = layer.split("_")
    branch = {"0": "branch1", "1": "branch2a", "2": "branch2b", "3": "branch2c"}[number]
    return f"{'res' if kind == 'conv' else 'bn'}{stage[-1]}{'abcdef'[int(block[5:]) - 1]}_{branch}"


@pytest.mark.parametrize("layout", ["keras 3", "legacy", "legacy, Keras 2.0 names"])
def test_keras_resnet50(layout, keras_resnet50, image, tmp_path):
    path = tmp_path / ("resnet50.weights.h5" if layout == "keras 3" else "resnet50.h5")
    layers = as_layers(keras_resnet50)
    if layout == "keras 3":
        keras_resnet50.save_weights(path)
    elif layout == "legacy":
        write_legacy(path, layers)
    else:
        write_legacy(
            path,
            {
                keras2_name(name): [(w.split("/")[-1] + "_1:0", value) for w, value in weights]
                for name, weights in layers.items()
                if weights
            },
        )
    assert settings(path) == {
        "trunk": "resnet50", "width": 64, "channels": 3, "pretrained_std": (), "blocks": (3, 4, 6, 3),
        "stride_on": "1x1", "conv_bias": True, "bn_epsilon": 1e-3 if "2.0" in layout else 1.001e-5,
    }  # fmt: skip
    trunk = ResNet50(**KERAS3)
    variables = load(path, "resnet50", shapes(trunk))
    assert_equal_to(np.asarray(keras_resnet50(image)), features(trunk, variables, image))


@pytest.mark.parametrize("layout", ["legacy", pytest.param("keras 3", marks=pytest.mark.slow)])
def test_keras_vgg16(layout, image, tmp_path):
    net = keras_net("VGG16")
    path = tmp_path / ("vgg16.weights.h5" if layout == "keras 3" else "vgg16.h5")
    if layout == "keras 3":
        net.save_weights(path)
    else:
        top = {"fc1": [("fc1_W_1:0", np.zeros((4, 2), np.float32)), ("fc1_b_1:0", np.zeros(2, np.float32))]}
        write_legacy(path, as_layers(net) | top)
    assert settings(path) == {"trunk": "vgg16", "width": 64, "channels": 3, "pretrained_std": ()}
    trunk = VGG16()
    variables = load(path, "vgg16", shapes(trunk))
    assert_equal_to(np.asarray(net(image)), features(trunk, variables, image))


def torch_resnet50(torch, width=16, blocks=(3, 4, 6, 3)):
    """A plain ResNet50 v1.5 with torchvision's names, narrow enough to be quick."""
    nn = torch.nn

    class Unit(nn.Module):
        def __init__(self, inside, width, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
            if inside != 4 * width:
                short = nn.Conv2d(inside, 4 * width, 1, stride, bias=False)
                self.downsample = nn.Sequential(short, nn.BatchNorm2d(4 * width))

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
            return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
            inside = width
            for s, units in enumerate(blocks):
                narrow = width * 2**s
                stage = []
                for u in range(units):
                    stage.append(Unit(inside, narrow, 2 if u == 0 and s > 0 else 1))
                    inside = 4 * narrow
                setattr(self, f"layer{s + 1}", nn.Sequential(*stage))
            self.fc = nn.Linear(inside, 10)

        def forward(self, x):
            x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    return Net()


def torch_vgg16(torch):
    nn = torch.nn
    layers, inside = [], 3
    for b, convs in enumerate((2, 2, 3, 3, 3)):
        for _ in range(convs):
            channels = 8 * min(2**b, 8)
            layers += [nn.Conv2d(inside, channels, 3, padding=1), nn.ReLU()]
            inside = channels
        layers.append(nn.MaxPool2d(2))
    return nn.ModuleDict({"features": nn.Sequential(*layers), "classifier": nn.Sequential(nn.Linear(inside, 10))})


def fill(net, torch):
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.ndim:
                tensor.copy_(torch.from_numpy(random_like(name, tuple(tensor.shape), rng)))
    return net.eval()


def run_torch(net, x, torch):
    with torch.no_grad():
        return net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_torchvision(name, suffix, image, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: `pip install mammojax[convert]`")
    net = fill(torch_resnet50(torch) if name == "resnet50" else torch_vgg16(torch), torch)
    trunk = ResNet50(width=16, **TORCH) if name == "resnet50" else VGG16(width=8)
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save(net.state_dict(), path)
    else:
        save_file({key: np.ascontiguousarray(value.numpy()) for key, value in net.state_dict().items()}, path)
    expected = {"trunk": name, "width": trunk.width, "channels": 3, "pretrained_std": (58.395, 57.12, 57.375)}
    if name == "resnet50":
        expected |= {"blocks": (3, 4, 6, 3), "stride_on": "3x3", "conv_bias": False, "bn_epsilon": 1e-5}
    assert settings(path) == expected
    inference = net if name == "resnet50" else net["features"]
    variables = load(path, name, shapes(trunk))
    assert_equal_to(run_torch(inference, image, torch), features(trunk, variables, image))

    std = np.array((58.395, 57.12, 57.375), np.float32)
    variables = load(path, name, shapes(trunk), input_std=std)
    assert_equal_to(run_torch(inference, image / std[None, None, None], torch), features(trunk, variables, image))


@pytest.fixture
def state():
    """A narrow torchvision-named ResNet50 with one unit a stage, as arrays."""
    trunk = ResNet50(width=4, blocks=(1, 1, 1, 1), **TORCH)
    arrays = {"conv1.weight": (4, 3, 7, 7)} | {f"bn1.{leaf}": (4,) for leaf in BN}
    inside = 4
    for s in range(1, 5):
        narrow = 4 * 2 ** (s - 1)
        unit = f"layer{s}.0."
        arrays |= {
            f"{unit}conv1.weight": (narrow, inside, 1, 1),
            f"{unit}conv2.weight": (narrow, narrow, 3, 3),
            f"{unit}conv3.weight": (4 * narrow, narrow, 1, 1),
            f"{unit}downsample.0.weight": (4 * narrow, inside, 1, 1),
        }
        for norm, channels in (("bn1", narrow), ("bn2", narrow), ("bn3", 4 * narrow), ("downsample.1", 4 * narrow)):
            arrays |= {f"{unit}{norm}.{leaf}": (channels,) for leaf in BN}
        inside = 4 * narrow
    return trunk, {name: np.ones(shape, np.float32) for name, shape in arrays.items()}


BN = ("weight", "bias", "running_mean", "running_var")


def test_only_the_trunk_is_replaced(state, tmp_path):
    trunk, arrays = state
    save_file(arrays, tmp_path / "net.safetensors")
    before = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7.0), shapes(trunk))
    after = load(tmp_path / "net.safetensors", "resnet50", before)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert all(bool((x == 1).all()) for x in jax.tree.leaves([after["params"]["trunk"], after["batch_stats"]]))
    assert all(bool((x == 7).all()) for x in jax.tree.leaves([after["params"]["classifier"], before]))


def test_mismatches_are_listed_by_name(state, tmp_path):
    trunk, arrays = state
    del arrays["layer1.0.conv2.weight"]
    arrays["layer2.0.bn1.running_mean"] = np.ones(9, np.float32)
    arrays["layer5.0.conv1.weight"] = arrays["extra"] = np.ones(3, np.float32)
    save_file(arrays, tmp_path / "net.safetensors")
    with pytest.raises(PretrainedMismatch) as caught:
        load(tmp_path / "net.safetensors", "resnet50", shapes(trunk))
    message = str(caught.value)
    assert message.startswith("net.safetensors does not hold the weights of this resnet50; ")
    assert "missing: layer1.0.conv2.weight;" in message
    assert "surplus: extra, layer5.0.conv1.weight;" in message
    assert "of another shape: layer2.0.bn1.running_mean (9,) for (8,)." in message


def test_a_gray_model_refuses_colour_weights(state, tmp_path):
    trunk, arrays = state
    save_file(arrays, tmp_path / "net.safetensors")
    with pytest.raises(PretrainedMismatch, match=r"conv1.weight takes 3 input channels .* set model.channels=3"):
        load(tmp_path / "net.safetensors", "resnet50", shapes(trunk, channels=1))


def test_convolution_biases_that_only_one_side_has_name_their_option(state, keras_resnet50, tmp_path):
    _, arrays = state
    save_file(arrays, tmp_path / "net.safetensors")
    biased = ResNet50(width=4, blocks=(1, 1, 1, 1))
    with pytest.raises(PretrainedMismatch, match=r"missing: conv1.bias, .*set model.conv_bias=False"):
        load(tmp_path / "net.safetensors", "resnet50", shapes(biased))
    write_legacy(tmp_path / "keras.h5", as_layers(keras_resnet50))
    with pytest.raises(PretrainedMismatch, match=r"surplus: conv1_conv/bias, .*set model.conv_bias=True"):
        load(tmp_path / "keras.h5", "resnet50", shapes(ResNet50(**TORCH)))


def test_a_file_of_another_trunk_is_refused_with_its_names(state, tmp_path):
    _, arrays = state
    arrays["first.weight"] = arrays.pop("conv1.weight")
    save_file(arrays, tmp_path / "net.safetensors")
    with pytest.raises(
        PretrainedMismatch, match=r"no first convolution of our trunks \(resnet50, vgg16, .*which is one of"
    ):
        settings(tmp_path / "net.safetensors")
    gray = {"features.0.weight": np.ones((8, 1, 3, 3), np.float32)}
    save_file(gray, tmp_path / "gray.safetensors")  # not torchvision's: what its input was divided by is not known
    assert settings(tmp_path / "gray.safetensors") == {"trunk": "vgg16", "width": 8, "channels": 1}


def test_files_that_are_no_weights_are_refused(tmp_path):
    trunk = VGG16(width=2)
    cases = {
        "absent.h5": (None, "there is no such file"),
        "net.npz": (b"PK", ".npz is unknown; use .h5"),
        "torn.h5": (b"\x89HDF", "torn.h5 cannot be read"),
        "torn.safetensors": (b"{", "torn.safetensors cannot be read"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load(tmp_path / name, "vgg16", shapes(trunk))
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(ValueError, match=r"empty.h5 holds no Keras layers"):
        load(tmp_path / "empty.h5", "vgg16", shapes(trunk))


def test_a_pickled_object_is_not_unpickled(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: `pip install mammojax[convert]`")
    torch.save({"weight": Path("x")}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="is not a torch file of plain tensors by name"):
        load(tmp_path / "net.pth", "vgg16", shapes(VGG16(width=2)))


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "net.pth").write_bytes(b"")
    with pytest.raises(ModuleNotFoundError, match=r"mammojax\[convert\]"):
        load(tmp_path / "net.pth", "vgg16", shapes(VGG16(width=2)))
