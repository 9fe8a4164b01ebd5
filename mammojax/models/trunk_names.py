"""The names that published files give the layers of our trunks.

A *dialect* is a code base and its release: "torch" is torchvision, "lukemelas" his port of EfficientNet and the Lite
ports made of it, "timm" its library, "keras" Keras since 2019, "keras 2.0" before.
"""

import re

from mammojax.models.efficientnet import BLOCKS, group_of
from mammojax.models.vgg16 import CONVS

LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
EFFICIENTNETS = ("efficientnet_b0", "efficientnet_b3")
CONVNEXTS = ("convnext_tiny", "convnext_base")
DIALECTS: dict[str, tuple[str, ...]] = {
    "resnet50": ("torch", "keras", "keras 2.0"),
    "vgg16": ("torch", "keras", "keras 2.0"),
    "densenet121": ("torch",),
    **dict.fromkeys(LITES, ("lukemelas",)),
    **dict.fromkeys(EFFICIENTNETS, ("torch", "lukemelas", "timm")),
    **dict.fromkeys(CONVNEXTS, ("torch", "timm")),
}
"""The dialects in which files of each trunk are published."""

TORCH_LEAVES = {"scale": "weight", "kernel": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
KERAS_LEAVES = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}


def name_of(dialect: str, trunk: str, leaf: tuple[str, ...]) -> str:
    """The file's name of one of our leaves, e.g. ("stage1_unit2", "conv1", "kernel") → "conv2_block2_1_conv/kernel"."""
    *module, variable = leaf
    layer = "/".join(module)
    if not dialect.startswith("keras"):
        if variable == "gamma":
            return _convnext(dialect, f"{layer}/gamma")
        return f"{_torch(dialect, trunk, layer)}.{TORCH_LEAVES[variable]}"
    if trunk == "resnet50":
        layer = _keras2_resnet50(layer) if dialect == "keras 2.0" else _keras_resnet50(layer)
    is_norm = "bn" in module[-1]
    return f"{layer}/{KERAS_LEAVES[variable] if is_norm else variable}"


def _torch(dialect: str, trunk: str, layer: str) -> str:
    """The name of a layer in a torch file."""
    if trunk in CONVNEXTS:
        return _convnext(dialect, layer)
    if trunk in EFFICIENTNETS and dialect != "lukemelas":
        return _efficientnet(dialect, trunk, layer)
    others = {"vgg16": _torch_vgg16, "resnet50": _torch_resnet50, "densenet121": torch_densenet121}
    return others.get(trunk, _lukemelas)(layer)


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


def dense_name(name: str) -> str:
    """torchvision's present name of a DenseNet array; its published files still write `norm.1` for `norm1`."""
    return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", name)


def _lukemelas(layer: str) -> str:
    """lukemelas's name of a layer: "block3/expand_bn" → "_blocks.3._bn0"; block 0 has no expansion."""
    if "/" not in layer:
        return {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1"}[layer]
    place, part = layer.split("/")
    return f"_blocks.{place.removeprefix('block')}.{lukemelas_part(part)}"


def lukemelas_part(part: str) -> str:
    """lukemelas's name of a layer inside a block: "expand_bn" → "_bn0", "se_reduce" → "_se_reduce"."""
    return {"expand_bn": "_bn0", "depthwise_bn": "_bn1", "project_bn": "_bn2"}.get(part, f"_{part}")


def _efficientnet(dialect: str, trunk: str, layer: str) -> str:
    """torchvision's or timm's name of a layer of an EfficientNet.

    Their first group's blocks, which have no expansion, number the others' layers from one less on.
    """
    timm = dialect == "timm"
    if "/" not in layer:
        last = f"features.{len(BLOCKS) + 1}"
        names = {
            "stem_conv": ("features.0.0", "conv_stem"), "stem_bn": ("features.0.1", "bn1"),
            "head_conv": (f"{last}.0", "conv_head"), "head_bn": (f"{last}.1", "bn2"),
        }  # fmt: skip
        return names[layer][timm]
    place, part = layer.split("/")
    group, unit = group_of(trunk.removeprefix("efficientnet_"), int(place.removeprefix("block")))
    step, _, kind = part.partition("_")  # expand, depthwise, se or project; conv, bn, reduce or expand
    expanded = BLOCKS[group][3] > 1
    number = ("expand", "depthwise", "se", "project").index(step) - (not expanded)
    if timm:
        if step == "se":
            return f"blocks.{group}.{unit}.se.conv_{kind}"
        convs = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl" if expanded else "conv_pw"}
        norm = f"bn{1 + ('expand', 'depthwise', 'project').index(step) - (not expanded)}"
        return f"blocks.{group}.{unit}.{convs[step] if kind == 'conv' else norm}"
    inner = f"fc{1 + (kind == 'expand')}" if step == "se" else str(int(kind == "bn"))
    return f"features.{group + 1}.{unit}.block.{number}.{inner}"


def _convnext(dialect: str, layer: str) -> str:
    """torchvision's or timm's name of a layer of a ConvNeXt, e.g. "stage2_norm" → "stages.1.downsample.0"."""
    timm = dialect == "timm"
    place, _, part = layer.partition("/")
    stage, *unit = (int(number) - 1 for number in re.findall(r"\d+", place)) if "stage" in place else (0,)
    if not part:
        conv = int(place.endswith("conv"))
        if place.startswith("stem"):
            return f"stem.{1 - conv}" if timm else f"features.0.{1 - conv}"
        return f"stages.{stage}.downsample.{conv}" if timm else f"features.{2 * stage}.{conv}"
    if timm:
        names = {"depthwise_conv": "conv_dw", "expand": "mlp.fc1", "project": "mlp.fc2"}
        return f"stages.{stage}.blocks.{unit[0]}.{names.get(part, part)}"
    names = {"depthwise_conv": "block.0", "norm": "block.2", "expand": "block.3", "project": "block.5"}
    return f"features.{2 * stage + 1}.{unit[0]}.{names.get(part, 'layer_scale')}"
