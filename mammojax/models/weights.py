"""Published trunk weights → our variables: Keras HDF5 files, torchvision `.pth` and `.safetensors`.

`settings` reads from their names the settings that the network needs: Keras weights need `stride_on="1x1"`,
`conv_bias=True` and the BN epsilon of their release, torchvision ones `stride_on="3x3"`, `conv_bias=False` and 1e-5.
Keras ImageNet weights expect pixels on the 0..255 scale with a mean subtracted, as ours are; torchvision ones
expect them also divided by a standard deviation: see `input_std`.
"""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mammojax.models.efficientnet_lite import plan
from mammojax.models.vgg16 import CONVS

LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
STEMS = {
    "resnet50": "stem_conv",
    "vgg16": "block1_conv1",
    "densenet121": "stem_conv",
    **dict.fromkeys(LITES, "stem_conv"),
}
TORCH_ONLY = ("densenet121", *LITES)
TORCH_STD = (58.395, 57.12, 57.375)
"""The divisors of red, green and blue in torchvision's ImageNet networks, on the 0..255 scale."""
LITE_STD = (128.0, 128.0, 128.0)
"""The divisors of EfficientNet-Lite, whose input is (x - 127) / 128."""
EPSILONS = {"torch": 1e-5, "keras": 1.001e-5, "keras 2.0": 1e-3}
"""Epsilon of a ResNet50's BatchNorms, by dialect: Keras changed it together with the layers' names, in 2019."""

# The further arrays of a complete file, by dialect; nothing else may be left over.
NOT_TRUNK = {
    "keras": r"(predictions|fc1|fc2|fc1000)/.*",  # the ImageNet classifier
    "torch": r"(_?fc|classifier)\..*|.*\.num_batches_tracked",  # the same, and counters that inference never reads
}

KERAS_LEAVES = {
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}
TORCH_LEAVES = {"scale": "weight", "kernel": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


class PretrainedMismatch(ValueError):
    """The file's weights do not fit this trunk; the message lists names missing, surplus and of another shape."""


def load(
    path: str | Path, trunk: str, variables: dict[str, Any], input_std: Sequence[float] | None = None
) -> dict[str, Any]:
    """Put the weights of a file into a network's trunk.

    Args:
        path: Keras legacy `.h5` (groups by layer), Keras 3 `.weights.h5`, or torchvision's, see `read_tensors`.
        trunk: one of STEMS; those of TORCH_ONLY only from torch files.
        variables: of a `PatchClassifier` or `WholeImageClassifier`: {"params": …, "batch_stats": …}; not changed.
        input_std: the standard deviation by which the file's network expects each input channel divided, on the
            0..255 scale: TORCH_STD for torchvision's ImageNet weights. It is folded into the first convolution, so
            that the network still takes pixels on the 0..255 scale.

    Returns:
        `variables` with every leaf of params["trunk"] and batch_stats["trunk"] replaced, float32.

    Raises:
        PretrainedMismatch: a name is missing or surplus, or a shape differs. Of a complete file's weights, its own
            classifier and torch's num_batches_tracked are passed over.
        ValueError: no such file, or not in one of these formats.
        ModuleNotFoundError: a `.pth` file, and torch is not installed.
    """
    path = Path(path)
    if trunk not in STEMS:
        raise ValueError(f"There are no weights for a trunk {trunk!r}; use {' or '.join(STEMS)}.")
    dialect, arrays = _read(path)
    if dialect != "torch" and trunk in TORCH_ONLY:
        whose = "torchvision's" if trunk == "densenet121" else "its port's"
        raise ValueError(f"{path.name}: weights of a {trunk} are read from {whose} .pth or .safetensors only.")
    ours = {
        (collection, *leaf): tuple(x.shape)
        for collection in ("params", "batch_stats")
        for leaf, x in flatten_dict(variables.get(collection, {}).get("trunk", {})).items()
    }
    theirs = {leaf: _name(dialect, trunk, leaf[1:]) for leaf in ours}
    _compare(path, dialect, trunk, ours, theirs, arrays)

    result = {collection: flatten_dict(tree) for collection, tree in variables.items()}
    for leaf, name in theirs.items():
        value = _as_ours(dialect, arrays[name])
        if input_std is not None and leaf[1:] == (STEMS[trunk], "kernel"):
            value = value / np.asarray(input_std, np.float32)[None, None, :, None]
        result[leaf[0]]["trunk", *leaf[1:]] = jnp.asarray(value, jnp.float32)
    return {collection: unflatten_dict(flat) for collection, flat in result.items()}


def settings(path: str | Path) -> dict[str, Any]:
    """The settings that a file's weights need: fields of `config.model` and their values.

    Always trunk, width and channels; for a ResNet50 also blocks, stride_on, conv_bias and bn_epsilon, for a
    DenseNet-121 blocks and padding; for colour networks pretrained_std. Names and shapes give the trunk and its size,
    the dialect (Keras before 2019, Keras since, torchvision) gives the rest.

    Raises:
        PretrainedMismatch: the names fit none of the trunks.
        ValueError, ModuleNotFoundError: as `load`.
    """
    path = Path(path)
    dialect, arrays = _read(path)
    stems = {trunk: _name(dialect, trunk, (stem, "kernel")) for trunk, stem in STEMS.items()}
    trunk = next((trunk for trunk, stem in stems.items() if stem in arrays and arrays[stem].ndim == 4), None)
    if trunk is None:
        raise PretrainedMismatch(
            f"{path.name} holds no first convolution of a {', a '.join(t for t in STEMS if t not in LITES)} or an"
            f" efficientnet_lite ({', '.join(dict.fromkeys(stems.values()))}); give a"
            " file that Keras or torchvision published for one of these trunks."
        )
    *_, channels, width = _as_ours(dialect, arrays[stems[trunk]]).shape
    fields: dict[str, Any] = {"trunk": trunk, "width": width, "channels": channels}
    if trunk in LITES:
        fields |= {"trunk": _lite(arrays, width), "bn_epsilon": 1e-3, "bn_momentum": 0.99}
    if channels == len(TORCH_STD):
        std = LITE_STD if trunk in LITES else TORCH_STD
        fields["pretrained_std"] = std if dialect == "torch" else ()

    def has(*leaf: str) -> bool:
        return _name(dialect, trunk, leaf) in arrays

    if unit := {"resnet50": "stage{}_unit{}", "densenet121": "block{}_layer{}"}.get(trunk):
        fields["blocks"] = tuple(
            next(k for k in itertools.count() if not has(unit.format(b, k + 1), "conv1", "kernel")) for b in range(1, 5)
        )
    if trunk == "densenet121":
        fields["padding"] = "torch"
    if trunk == "resnet50":
        fields["stride_on"] = "3x3" if dialect == "torch" else "1x1"
        fields["conv_bias"], fields["bn_epsilon"] = has("stem_conv", "bias"), EPSILONS[dialect]
    return fields


def _lite(arrays: dict[str, np.ndarray], width: int) -> str:
    """Which EfficientNet-Lite a file holds, by its number of blocks and the channels of the last one."""
    blocks = len({name.split(".")[1] for name in arrays if name.startswith("_blocks.")})
    last = arrays["_conv_head.weight"].shape[1] if "_conv_head.weight" in arrays else 0
    for variant, name in enumerate(LITES):
        layers = plan(variant, width)
        if (len(layers), layers[-1][3]) == (blocks, last):
            return name
    raise PretrainedMismatch(f"the file holds {blocks} blocks of an EfficientNet that is no Lite 0, 1 or 2; give one.")


def _as_ours(dialect: str, array: np.ndarray) -> np.ndarray:
    """Torch stores kernels as [out, in, height, width], Keras and we as [height, width, in, out]."""
    return array.transpose(2, 3, 1, 0) if dialect == "torch" and array.ndim == 4 else array


def _compare(
    path: Path,
    dialect: str,
    trunk: str,
    ours: dict[tuple[str, ...], tuple[int, ...]],
    theirs: dict[tuple[str, ...], str],
    arrays: dict[str, np.ndarray],
) -> None:
    """Raise PretrainedMismatch unless the file holds exactly our leaves."""
    expected = {name: ours[leaf] for leaf, name in theirs.items()}
    shapes = {name: _as_ours(dialect, array).shape for name, array in arrays.items()}
    stem = theirs.get(("params", STEMS[trunk], "kernel"), "")
    if stem in shapes and len(shapes[stem]) == 4 and shapes[stem][2] == 3 and expected[stem][2] == 1:
        raise PretrainedMismatch(
            f"{path.name}: {stem} takes 3 input channels and the model 1; set model.channels=3, which repeats the gray"
            " image three times."
        )
    missing = sorted(set(expected) - set(shapes))
    surplus = sorted(n for n in set(shapes) - set(expected) if not re.fullmatch(NOT_TRUNK[dialect.split()[0]], n))
    misshapen = sorted(
        f"{name} {shapes[name]} for {shape}" for name, shape in expected.items() if shapes.get(name, shape) != shape
    )
    if not (missing or surplus or misshapen):
        return
    lists = [("missing", missing), ("surplus", surplus), ("of another shape", misshapen)]
    wrong = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in lists if names)
    remedy = "check that model.trunk, model.width and model.blocks are those of the file"
    conv_biases = {theirs[leaf] for leaf in theirs if leaf[-1] == "bias" and (*leaf[:-1], "kernel") in theirs}
    if not surplus and not misshapen and missing and set(missing) <= conv_biases:
        remedy = "the file has no convolution biases: set model.conv_bias=False"
    elif not missing and not misshapen and all(name.endswith("/bias") for name in surplus):
        remedy = "the file has convolution biases: set model.conv_bias=True"
    raise PretrainedMismatch(f"{path.name} does not hold the weights of this {trunk}; {wrong}. Remedy: {remedy}.")


def _name(dialect: str, trunk: str, leaf: tuple[str, ...]) -> str:
    """The file's name of one of our leaves, e.g. ("stage1_unit2", "conv1", "kernel") → "conv2_block2_1_conv/kernel"."""
    *module, variable = leaf
    layer = "/".join(module)
    if dialect == "torch":
        rename = {"vgg16": _torch_vgg16, "resnet50": _torch_resnet50, "densenet121": torch_densenet121}
        rename |= dict.fromkeys(LITES, _torch_lite)
        return f"{rename[trunk](layer)}.{TORCH_LEAVES[variable]}"
    if trunk == "resnet50":
        layer = _keras2_resnet50(layer) if dialect == "keras 2.0" else _keras_resnet50(layer)
    is_norm = "bn" in module[-1]
    return f"{layer}/{KERAS_LEAVES[variable] if is_norm else variable}"


def _unit(layer: str) -> tuple[int, int, str, str]:
    """Split "stage1_unit2/conv3" into (1, 2, "conv", "3"); the shortcut is number "0"."""
    place, part = layer.split("/")
    stage, unit = re.findall(r"\d+", place)
    kind, number = (part.split("_")[1], "0") if part.startswith("shortcut") else (part[:-1], part[-1])
    return int(stage), int(unit), kind, number


def _keras_resnet50(layer: str) -> str:
    if layer.startswith("stem_"):
        return layer.replace("stem", "conv1")
    stage, unit, kind, number = _unit(layer)
    return f"conv{stage + 1}_block{unit}_{number}_{kind}"


def _keras2_resnet50(layer: str) -> str:
    """The names of the files that Keras 2.0 downloaded, the ones the paper started from."""
    if layer.startswith("stem_"):
        return {"stem_conv": "conv1", "stem_bn": "bn_conv1"}[layer]
    stage, unit, kind, number = _unit(layer)
    branch = "1" if number == "0" else "2" + "_abc"[int(number)]
    return f"{'res' if kind == 'conv' else 'bn'}{stage + 1}{chr(ord('a') + unit - 1)}_branch{branch}"


def _torch_resnet50(layer: str) -> str:
    if layer.startswith("stem_"):
        return layer.removeprefix("stem_") + "1"
    stage, unit, kind, number = _unit(layer)
    part = f"downsample.{int(kind == 'bn')}" if number == "0" else kind + number
    return f"layer{stage}.{unit - 1}.{part}"


def _torch_vgg16(layer: str) -> str:
    """torchvision numbers convolutions, ReLUs and pools in one sequence: features.0, .2, (pool .4) .5, .7, …"""
    block, conv = (int(number) for number in re.findall(r"\d+", layer))
    before = sum(2 * convs + 1 for convs in CONVS[: block - 1])
    return f"features.{before + 2 * (conv - 1)}"


def torch_densenet121(layer: str) -> str:
    """torchvision's name of a layer: "block2_layer3/bn1" → "features.denseblock2.denselayer3.norm1"."""
    if "/" not in layer:
        return "features." + {"stem_conv": "conv0", "stem_bn": "norm0", "final_bn": "norm5"}[layer]
    place, part = layer.split("/")
    place = place.replace("block", "denseblock").replace("_layer", ".denselayer")
    return f"features.{place}.{part.replace('bn', 'norm')}"


def _torch_lite(layer: str) -> str:
    """The published port's name of a layer: "block3/expand_bn" → "_blocks.3._bn0"; block 0 has no expansion."""
    if "/" not in layer:
        return {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1"}[layer]
    place, part = layer.split("/")
    number = {"expand_bn": "_bn0", "depthwise_bn": "_bn1", "project_bn": "_bn2"}
    return f"_blocks.{place.removeprefix('block')}.{number.get(part, f'_{part}')}"


def dense_name(name: str) -> str:
    """torchvision's present name of a DenseNet array; its published files still write `norm.1` for `norm1`."""
    return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", name)


def _read(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """The file's dialect (of EPSILONS) and its arrays by name, Keras ones as "layer/variable"."""
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return "torch", {dense_name(name): array for name, array in read_tensors(path, ".h5, .weights.h5, ").items()}
    try:
        arrays = _read_keras(path)
        return "keras 2.0" if "conv1/kernel" in arrays else "keras", arrays
    except KeyError as error:
        raise ValueError(f"{path.name} does not name its layers; save it again with a newer Keras.") from error
    except (OSError, TypeError) as error:
        raise ValueError(f"{path.name} cannot be read ({error}); give a whole file of weights.") from error


def read_tensors(path: Path, others: str = "") -> dict[str, np.ndarray]:
    """The arrays of a torch or safetensors file by name; torch's as float32.

    Args:
        path: `.p`, `.pt` or `.pth` of tensors by name, or with those one level down under "model"; or `.safetensors`.
        others: further suffixes that the caller takes, for the sentence on an unknown suffix.

    Raises:
        ValueError: no such file, of another suffix, torn, or one that holds anything but tensors by name; nothing else
            is read from a pickle.
        ModuleNotFoundError: a torch file, and torch is not installed.
    """
    if not path.is_file():
        raise ValueError(f"{path.name}: there is no such file; give the path of a file of weights.")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError, TypeError) as error:
            raise ValueError(
                f"{path.name} cannot be read ({error}); give a whole file of float16 or float32 weights."
            ) from error
    if suffix not in (".p", ".pt", ".pth"):
        raise ValueError(f"{path.name}: {suffix or 'no suffix'} is unknown; use {others}.p, .pt, .pth or .safetensors.")
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path.name}: reading it needs torch; `pip install 'mammojax[convert]'`, or save it as .safetensors."
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("model", state)  # Wu et al.'s multi-view files hold their state dict one level down
        return {name: tensor.detach().float().numpy() for name, tensor in state.items()}
    except Exception as error:  # torch raises pickle, zip, runtime and attribute errors alike
        raise ValueError(
            f"{path.name} is not a torch file of plain tensors by name; give one as it was published, or save its"
            " state_dict()."
        ) from error


def _read_keras(path: Path) -> dict[str, np.ndarray]:
    layers: dict[str, list[np.ndarray]] = {}
    with h5py.File(path) as file:
        # A legacy file of a whole model keeps its weights one group down.
        root = file.get("model_weights", file)
        if "layer_names" in root.attrs:
            for layer in _texts(root.attrs["layer_names"]):
                layers[layer] = [root[layer][name][()] for name in _texts(root[layer].attrs["weight_names"])]
        else:

            def visit(name: str, group: Any) -> None:
                # Groups are numbered by class (conv2d_7); the layer's own name is an attribute of its variables.
                if name.endswith("/vars") and len(group):
                    layers[group.attrs["name"]] = [group[str(i)][()] for i in range(len(group))]

            file.visititems(visit)
    if not layers:
        raise ValueError(f"{path.name} holds no Keras layers; give a file that save_weights() wrote.")
    arrays = {}
    for layer, values in layers.items():
        # The order is Keras's own contract; the variables' names changed between releases.
        leaf_names = {1: ("kernel",), 2: ("kernel", "bias"), 4: tuple(KERAS_LEAVES.values())}
        names = leaf_names.get(len(values), tuple(map(str, range(len(values)))))
        arrays.update({f"{layer}/{name}": value for name, value in zip(names, values, strict=True)})
    return arrays


def _texts(attribute: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in attribute]
