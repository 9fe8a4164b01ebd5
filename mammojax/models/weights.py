"""Published trunk weights → our variables: Keras HDF5 files; torchvision's, timm's and lukemelas's torch files.

`settings` reads from their names the settings that the network needs: Keras weights need `stride_on="1x1"`,
`conv_bias=True` and the BN epsilon of their release, torchvision ones `stride_on="3x3"`, `conv_bias=False` and 1e-5.
The names of a file's arrays, as `trunk_names` has them, tell the trunk and the code base.
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

from mammojax.errors import near_file
from mammojax.models import convnext, efficientnet, efficientnet_lite
from mammojax.models.trunk_names import (
    DIALECTS,
    EFFICIENTNETS,
    KERAS_LEAVES,
    LITES,
    dense_name,
    name_of,
)

STEMS = dict.fromkeys(DIALECTS, "stem_conv") | {"vgg16": "block1_conv1"}
"""The first layer of each trunk."""
TORCH_STD = (58.395, 57.12, 57.375)
"""The divisors of red, green and blue in torchvision's ImageNet networks, on the 0..255 scale."""
LITE_STD = (128.0, 128.0, 128.0)
"""The divisors of EfficientNet-Lite, whose input is (x - 127) / 128."""
EPSILONS = {"torch": 1e-5, "keras": 1.001e-5, "keras 2.0": 1e-3}
"""Epsilon of a ResNet50's BatchNorms, by dialect: Keras changed it together with the layers' names, in 2019."""

# The further arrays of a complete file, by dialect; nothing else may be left over.
NOT_TRUNK = {
    "keras": r"(predictions|fc1|fc2|fc1000)/.*",  # the ImageNet classifier
    # the same with the LayerNorm before it, and counters that inference never reads
    "torch": r"(_?fc|classifier|head\.norm|head\.fc)\..*|.*\.num_batches_tracked",
}


class PretrainedMismatch(ValueError):
    """The file's weights do not fit this trunk; the message lists names missing, surplus and of another shape."""


def load(
    path: str | Path, trunk: str, variables: dict[str, Any], input_std: Sequence[float] | None = None
) -> dict[str, Any]:
    """Put the weights of a file into a network's trunk.

    Args:
        path: Keras legacy `.h5` (groups by layer), Keras 3 `.weights.h5`, or a torch file, see `read_tensors`.
        trunk: one of STEMS; from Keras files resnet50 and vgg16 only.
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
    if dialect not in ("torch", *DIALECTS[trunk]):
        whose = "its port's" if trunk in LITES else "torchvision's"
        raise ValueError(f"{path.name}: weights of a {trunk} are read from {whose} .pth or .safetensors only.")
    dialect = _spoken(dialect, trunk, arrays)
    ours = {
        (collection, *leaf): tuple(x.shape)
        for collection in ("params", "batch_stats")
        for leaf, x in flatten_dict(variables.get(collection, {}).get("trunk", {})).items()
    }
    theirs = {leaf: name_of(dialect, trunk, leaf[1:]) for leaf in ours}
    _compare(path, dialect, trunk, ours, theirs, arrays)

    result = {collection: flatten_dict(tree) for collection, tree in variables.items()}
    for leaf, name in theirs.items():
        value = as_ours(dialect, arrays[name])
        if input_std is not None and leaf[1:] == (STEMS[trunk], "kernel"):
            value = value / np.asarray(input_std, np.float32)[None, None, :, None]
        result[leaf[0]]["trunk", *leaf[1:]] = jnp.asarray(value, jnp.float32)
    return {collection: unflatten_dict(flat) for collection, flat in result.items()}


def settings(path: str | Path) -> dict[str, Any]:
    """The settings that a file's weights need: fields of `config.model` and their values.

    Always trunk, width and channels; for a ResNet50 also blocks, stride_on, conv_bias and bn_epsilon, for a
    DenseNet-121 blocks and padding, for EfficientNets padding (not Lite), bn_epsilon and bn_momentum; for colour
    networks pretrained_std. Names and shapes give the trunk and its size, the dialect (`trunk_names.DIALECTS`) gives
    the rest.

    Raises:
        PretrainedMismatch: the names fit none of the trunks, or two releases of one.
        ValueError, ModuleNotFoundError: as `load`.
    """
    path = Path(path)
    kind, arrays = _read(path)
    trunk, dialect = recognise(kind, arrays)
    if not trunk:
        stems = {
            name_of(dialect, trunk, (STEMS[trunk], "kernel"))
            for trunk in STEMS
            for dialect in DIALECTS[trunk]
            if dialect.startswith("keras") == kind.startswith("keras")
        }
        raise PretrainedMismatch(
            f"{path.name} holds no first convolution of our trunks ({', '.join(STEMS)}), which is one of"
            f" {', '.join(sorted(stems))}, or not the blocks that belong to it; give a file that Keras, torchvision,"
            " timm or lukemelas published for one of these trunks."
        )
    *_, channels, width = as_ours(dialect, arrays[name_of(dialect, trunk, (STEMS[trunk], "kernel"))]).shape
    fields: dict[str, Any] = {"trunk": trunk, "width": width, "channels": channels}
    if channels == len(TORCH_STD):
        std = LITE_STD if trunk in LITES else TORCH_STD
        fields["pretrained_std"] = () if dialect.startswith("keras") else std

    def has(*leaf: str) -> bool:
        return name_of(dialect, trunk, leaf) in arrays

    if unit := {"resnet50": "stage{}_unit{}", "densenet121": "block{}_layer{}"}.get(trunk):
        fields["blocks"] = tuple(
            next(k for k in itertools.count() if not has(unit.format(b, k + 1), "conv1", "kernel")) for b in range(1, 5)
        )
    if trunk == "densenet121":
        fields["padding"] = "torch"
    if trunk == "resnet50":
        fields["stride_on"] = "3x3" if dialect == "torch" else "1x1"
        fields["conv_bias"], fields["bn_epsilon"] = has("stem_conv", "bias"), EPSILONS[dialect]
    if trunk in LITES:
        fields |= {"bn_epsilon": 1e-3, "bn_momentum": 0.99}
    if trunk in EFFICIENTNETS:
        fields |= _release(path, dialect)
    return fields


def _release(path: Path, dialect: str) -> dict[str, Any]:
    """The settings of an EfficientNet's release. timm names the layers of both alike; only the file's name tells.

    Raises:
        PretrainedMismatch: timm's names in a file of another name than timm's.
    """
    original = dialect == "lukemelas" or path.name.startswith("tf_efficientnet")
    if dialect == "timm" and not (original or path.name.startswith("efficientnet")):
        raise PretrainedMismatch(
            f"{path.name}: timm names the layers of its efficientnet_… and tf_efficientnet_… networks alike, and they"
            " differ in padding and epsilon; give the file the name that timm has for its network."
        )
    if original:
        return {"padding": "same", "bn_epsilon": 1e-3, "bn_momentum": 0.99}
    return {"padding": "symmetric", "bn_epsilon": 1e-5, "bn_momentum": 0.9}


def recognise(kind: str, arrays: dict[str, np.ndarray]) -> tuple[str, str]:
    """The trunk, one of STEMS, and the dialect of a file's arrays; ("", "") where they are of none.

    Args:
        kind: "torch", or a Keras dialect.
        arrays: by the file's names; those of a classifier are passed over.
    """
    trunk = next((trunk for trunk in STEMS if _holds(kind, trunk, arrays)), "")
    return (trunk, _spoken(kind, trunk, arrays)) if trunk else ("", "")


def _spoken(kind: str, trunk: str, arrays: dict[str, np.ndarray]) -> str:
    """The dialect of a file's arrays: of the trunk's torch dialects the one that names its first kernel."""
    if kind != "torch":
        return kind
    spoken = [d for d in DIALECTS[trunk] if not d.startswith("keras")]
    return next((d for d in spoken if name_of(d, trunk, (STEMS[trunk], "kernel")) in arrays), spoken[0])


def _holds(kind: str, trunk: str, arrays: dict[str, np.ndarray]) -> bool:
    """Whether the arrays are of this trunk, by its first kernel and, of a family, by what tells it from the others."""
    if kind not in ("torch", *DIALECTS[trunk]):
        return False
    dialect = _spoken(kind, trunk, arrays)
    stem = arrays.get(name_of(dialect, trunk, (STEMS[trunk], "kernel")))
    if stem is None or stem.ndim != 4:
        return False
    depthwise = sum(a.ndim == 4 and a.shape[1] == 1 < a.shape[2] and a.shape[0] > 1 for a in arrays.values())
    family, _, variant = trunk.partition("_")
    if family == "convnext":
        return stem.shape[2] == 4 and depthwise == sum(convnext.DEPTHS[variant])
    if trunk in (*LITES, *EFFICIENTNETS):
        squeezes = name_of(dialect, "efficientnet_b0", ("block0", "se_reduce", "bias")) in arrays
        last = arrays.get(name_of(dialect, trunk, ("head_conv", "kernel")))
        width = stem.shape[0]
        lite = trunk in LITES
        layers = efficientnet_lite.plan(int(variant[-1]), width) if lite else efficientnet.plan(variant, width)
        return depthwise == len(layers) and squeezes != lite and last is not None and last.shape[1] == layers[-1][3]
    return True


def as_ours(dialect: str, array: np.ndarray) -> np.ndarray:
    """Torch stores kernels as [out, in, height, width] and [out, in], Keras and we the other way round; torchvision's
    layer scales are [C, 1, 1]."""
    if dialect.startswith("keras"):
        return array
    return array.reshape(-1) if array.ndim == 3 else array.transpose({4: (2, 3, 1, 0)}.get(array.ndim))


def refuse_others(path: Path, shapes: dict[str, tuple[int, ...]], values: dict[str, np.ndarray], remedy: str) -> None:
    """Raise PretrainedMismatch unless the values are exactly those of a published network; `remedy` ends the message.

    Args:
        path: of the file, for the message.
        shapes: name → shape of each array of the network.
        values: name → array in our layout.
        remedy: which files to give.
    """
    lists = {
        "missing": sorted(set(shapes) - set(values)),
        "surplus": sorted(set(values) - set(shapes)),
        "of another shape": sorted(
            f"{name} {values[name].shape} for {shape}"
            for name, shape in shapes.items()
            if name in values and values[name].shape != shape
        ),
    }
    if wrong := "; ".join(f"{kind}: {', '.join(entries)}" for kind, entries in lists.items() if entries):
        raise PretrainedMismatch(
            f"{path.name} does not hold the weights of this published network; {wrong}. Remedy: {remedy}"
        )


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
    shapes = {name: as_ours(dialect, array).shape for name, array in arrays.items()}
    stem = theirs.get(("params", STEMS[trunk], "kernel"), "")
    if stem in shapes and len(shapes[stem]) == 4 and shapes[stem][2] == 3 and expected[stem][2] == 1:
        raise PretrainedMismatch(
            f"{path.name}: {stem} takes 3 input channels and the model 1; set model.channels=3, which repeats the gray"
            " image three times."
        )
    missing = sorted(set(expected) - set(shapes))
    surplus = sorted(
        n
        for n in set(shapes) - set(expected)
        if not re.fullmatch(NOT_TRUNK["keras" if dialect.startswith("keras") else "torch"], n)
    )
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
        did = near_file(path, "give the path of a file of weights.")
        raise ValueError(f"{path.name}: there is no such file; {did}")
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
