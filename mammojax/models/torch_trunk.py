"""A trunk's variables → the arrays that torchvision's networks load, by torchvision's names: `weights.load` backwards.

Where torchvision's network lacks what ours has, the arrays are changed so that both compute the same: a convolution's
bias goes into the mean of the BatchNorm behind it, a larger epsilon into its variance, and one input channel is spread
over three. The first kernel is multiplied by the standard deviations by which a torchvision network's input is divided.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from mammojax.models.trunk_names import CONVNEXTS, DIALECTS, EFFICIENTNETS, LITES, name_of
from mammojax.models.weights import LITE_STD, STEMS, TORCH_STD

WIDTHS = {
    "resnet50": 64, "vgg16": 64, "densenet121": 64, **dict.fromkeys(LITES, 32), "efficientnet_b0": 32,
    "efficientnet_b3": 40, "convnext_tiny": 96, "convnext_base": 128,
}  # fmt: skip
"""Channels of the published networks' first layer."""
BLOCKS = {"resnet50": (3, 4, 6, 3), "densenet121": (6, 12, 24, 16)}
CLASSIFIERS = {
    ("resnet50", "torch"): "fc", ("densenet121", "torch"): "classifier",
    **{(trunk, "lukemelas"): "_fc" for trunk in (*LITES, *EFFICIENTNETS)},
    **{(trunk, "torch"): "classifier.1" for trunk in EFFICIENTNETS},
}  # fmt: skip
"""The layer that is our patch classifier's Dense: it reads the mean of the last map. VGG16's and ConvNeXt's do not."""


class TorchTrunk(NamedTuple):
    """A trunk as a torch file holds it.

    Attributes:
        arrays: float32 by name.
        loads_in: the network in words, "torchvision.models.resnet50"; "" where none of the published ones has its size.
        std: by which each of the three input channels, gray values of 0 … 255 minus the mean, is divided; 1 where our
            network's input is not on that scale.
        classifier: the name of the patch classifier's Dense among the arrays; "" where they have none.
        remarks: sentences on what to change in that network, so that it computes what ours does.
    """

    arrays: dict[str, np.ndarray]
    loads_in: str
    std: tuple[float, float, float]
    classifier: str
    remarks: list[str]


def of(model: ConfigDict, variables: Mapping[str, Any]) -> TorchTrunk:
    """The trunk of a network, and its classifier if that is a patch classifier with a counterpart.

    Args:
        model: `config.model` of its run.
        variables: {"params", "batch_stats"} of a `PatchClassifier`, `WholeImageClassifier` or `TwoView`.

    Raises:
        ValueError: there are no published names for the trunk.
    """
    trunk = model.trunk
    if trunk not in DIALECTS:
        raise ValueError(f"there are no published names for a trunk {trunk}; use {', '.join(DIALECTS)}")
    dialect = _dialect(model)
    leaves = {
        (collection, *leaf): np.asarray(value, np.float32)
        for collection in ("params", "batch_stats")
        for leaf, value in flatten_dict(dict(variables.get(collection, {}).get("trunk", {}))).items()
    }
    if trunk == "resnet50":
        _fold_biases(leaves)
    remarks = _fold_epsilon(leaves, model, dialect)
    std = (1.0, 1.0, 1.0)
    if model.get("normalise", "mean") == "mean" and model.task != "exam_patch":
        std = LITE_STD if trunk in LITES else TORCH_STD
    stem = ("params", STEMS[trunk], "kernel")
    if leaves[stem].shape[2] == 1:
        leaves[stem] = np.repeat(leaves[stem] / 3, 3, axis=2)
    leaves[stem] = leaves[stem] * np.asarray(std, np.float32)[None, None, :, None]
    arrays = {name_of(dialect, trunk, leaf[1:]): _as_torch(dialect, leaf, value) for leaf, value in leaves.items()}
    classifier = CLASSIFIERS.get((trunk, dialect), "") if model.task in ("patch", "exam_patch") else ""
    if classifier:
        dense = variables["params"]["classifier"]
        arrays[f"{classifier}.weight"] = np.ascontiguousarray(np.asarray(dense["kernel"], np.float32).T)
        arrays[f"{classifier}.bias"] = np.asarray(dense["bias"], np.float32)
    return TorchTrunk(arrays, _network(model, dialect), std, classifier, [*remarks, *_remarks(model)])


def _dialect(model: ConfigDict) -> str:
    """torchvision's names; lukemelas's for Lite, and for EfficientNets that pad as TensorFlow does."""
    if model.trunk in LITES or (model.trunk in EFFICIENTNETS and model.get("padding", "same") == "same"):
        return "lukemelas"
    return "torch"


def _as_torch(dialect: str, leaf: tuple[str, ...], value: np.ndarray) -> np.ndarray:
    """Our [height, width, in, out] as torch's [out, in, height, width], [in, out] as [out, in]."""
    if leaf[-1] == "gamma":
        return value.reshape(-1, 1, 1)
    return np.ascontiguousarray(value.transpose({4: (3, 2, 0, 1)}.get(value.ndim)))


def _fold_biases(leaves: dict[tuple[str, ...], np.ndarray]) -> None:
    """Take a ResNet50's convolution biases into the means of the BatchNorms behind them; torchvision's has none."""
    for leaf in [leaf for leaf in leaves if leaf[-1] == "bias" and "conv" in leaf[-2]]:
        norm = leaf[-2].replace("shortcut_conv", "shortcut_bn").replace("stem_conv", "stem_bn").replace("conv", "bn")
        mean = ("batch_stats", *leaf[1:-2], norm, "mean")
        leaves[mean] = leaves[mean] - leaves.pop(leaf)


def _fold_epsilon(leaves: dict[tuple[str, ...], np.ndarray], model: ConfigDict, dialect: str) -> list[str]:
    """Take the difference of the epsilons into the variances, if it is not negative."""
    if model.trunk not in ("resnet50", *LITES, *EFFICIENTNETS):
        return []
    more = model.bn_epsilon - (1e-3 if dialect == "lukemelas" else 1e-5)
    if more < 0:
        return [f"set eps={model.bn_epsilon:g} in its BatchNorms"]
    for leaf in leaves:
        if leaf[-1] == "var":
            leaves[leaf] = leaves[leaf] + np.float32(more)
    return []


def _network(model: ConfigDict, dialect: str) -> str:
    """The published network that takes the arrays, "" if none has this size."""
    trunk = model.trunk
    same_blocks = tuple(model.get("blocks", ())) == BLOCKS[trunk] if trunk in BLOCKS else True
    if model.get("width", WIDTHS[trunk]) != WIDTHS[trunk] or not same_blocks:
        return ""
    if dialect == "lukemelas":
        return f'efficientnet_pytorch\'s "{trunk.replace("_", "-", 1) if trunk not in LITES else trunk}"'
    return f"torchvision.models.{trunk}"


def _remarks(model: ConfigDict) -> list[str]:
    """What has to be changed in torchvision's network beside its weights."""
    remarks = []
    if model.trunk == "resnet50" and model.stride_on == "1x1":
        remarks.append(
            "strides are on the 1x1 convolutions: in the first block of layer2, layer3 and layer4 set"
            " conv1.stride=(2, 2) and conv2.stride=(1, 1)"
        )
    if model.trunk == "densenet121" and model.get("padding", "torch") != "torch":
        remarks.append("the stem and its pool pad as TensorFlow does, not as torch does")
    if model.trunk in CONVNEXTS:
        remarks.append("its features are those before the LayerNorm of the classifier")
    return remarks
