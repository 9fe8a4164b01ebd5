"""The torch files that Wu et al. published → our networks and their variables, by the names of their state dicts.

Four files hold a multi-view network, view-wise or image-wise, for one or three channels; a fifth the patch classifier.
The published code trained them, so the networks pad as that code does (`docs/reproduce.md`).
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mammojax.models.classifiers import PatchClassifier
from mammojax.models.densenet121 import DenseNet121
from mammojax.models.multi_view import MultiView
from mammojax.models.trunk_names import TORCH_LEAVES, dense_name, torch_densenet121
from mammojax.models.weights import PretrainedMismatch, read_tensors, refuse_others
from mammojax.vocabulary import EXAM_PATCH_CLASSES, VIEWS

Arrays = dict[str, np.ndarray]


class Published(NamedTuple):
    """The contents of a published file.

    Attributes:
        network: a `MultiView`, or a `PatchClassifier` on a `DenseNet121`, with the settings that the weights need.
        channels: of its input; 1, or 3 (image, benign heatmap, malignant heatmap; the patch classifier: gray thrice).
        variables: {"params": …, "batch_stats": …}, float32.
    """

    network: nn.Module
    channels: int
    variables: dict[str, Any]


def load(path: str | Path) -> Published:
    """Read a published file: torch's `.p`, `.pt` or `.pth`, or the same tensors as `.safetensors`.

    Raises:
        PretrainedMismatch: the tensors are of none of the published networks; or names are missing or surplus, a shape
            differs, or a left and a right column, which share their weights, do not.
        ValueError: no such file, or one that holds anything but tensors by name.
        ModuleNotFoundError: a torch file, and torch is not installed.
    """
    path = Path(path)
    arrays = _canonical(path, read_tensors(path))
    network, stem, inputs = _network(path, arrays)
    channels = arrays[stem].shape[1] if arrays[stem].ndim == 4 else 0
    allowed = (3,) if isinstance(network, PatchClassifier) else (1, 3)
    if channels not in allowed:
        raise PretrainedMismatch(
            f"{path.name}: {stem} is of shape {arrays[stem].shape}, and this network takes"
            f" {' or '.join(map(str, allowed))} channels; give one of the authors' files, as it is."
        )
    shapes = jax.eval_shape(network.init, jax.random.key(0), inputs(channels))
    return Published(network, channels, _variables(path, shapes, arrays))


def _network(path: Path, arrays: Arrays) -> tuple[nn.Module, str, Any]:
    """The network of these tensors, the name of its first kernel, and its input's shapes by channels."""

    def image(channels: int) -> Any:
        return jax.ShapeDtypeStruct((1, 128, 128, channels), jnp.float32)

    def exam(channels: int) -> Any:
        return dict.fromkeys(VIEWS, image(channels))

    if (stem := "features.conv0.weight") in arrays:
        return PatchClassifier(DenseNet121(padding="same"), len(EXAM_PATCH_CLASSES)), stem, image
    for join, head in (("view-wise", "fc1_cc.weight"), ("image-wise", "fc1_lcc.weight")):
        if (stem := "four_view_resnet.cc.first_conv.weight") in arrays and head in arrays:
            return MultiView(join, padding="code"), stem, exam
    raise PretrainedMismatch(
        f"{path.name} holds none of the published networks (view-wise, image-wise or patch); give one of the files of"
        " the authors' `models` folder, as it is."
    )


def _canonical(path: Path, arrays: Arrays) -> Arrays:
    """Arrays by the names that `_name` gives, without counters; several names of one tensor become one.

    A column is listed under up to three names, cc, l_cc and r_cc.
    """
    result: Arrays = {}
    for name, array in arrays.items():
        if name.endswith("num_batches_tracked"):  # counts that inference never reads
            continue
        canonical = dense_name(re.sub(r"^four_view_resnet\.[lr]_(cc|mlo)\.", r"four_view_resnet.\1.", name))
        if canonical in result and not np.array_equal(result[canonical], array):
            raise PretrainedMismatch(
                f"{path.name}: {name} differs from its other name {canonical}; left and right columns of these networks"
                " share their weights, so give a file in which they do."
            )
        result[canonical] = array
    return result


def _variables(path: Path, shapes: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """`shapes` filled with the arrays of their names; PretrainedMismatch unless they are exactly those."""
    leaves = flatten_dict(shapes)
    names = {leaf: _name(leaf[1:]) for leaf in leaves}
    ours = {names[leaf]: tuple(shape.shape) for leaf, shape in leaves.items()}
    values = {name: _as_ours(array) for name, array in arrays.items()}
    refuse_others(path, ours, values, "give one of the files of the authors' `models` folder, as it is.")
    return unflatten_dict({leaf: jnp.asarray(values[name], jnp.float32) for leaf, name in names.items()})


def _as_ours(array: np.ndarray) -> np.ndarray:
    """Torch stores [out, in, height, width] and [out, in], we [height, width, in, out] and [in, out]."""
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim, range(array.ndim)))


def _name(leaf: tuple[str, ...]) -> str:
    """The published name of one of our leaves.

    ("column_CC", "stage1_unit2", "bn1", "scale") → "four_view_resnet.cc.layer_list.0.1.bn1.weight",
    ("trunk", "block2_layer3", "conv1", "kernel") → "features.denseblock2.denselayer3.conv1.weight".
    """
    *module, variable = leaf
    if module[0] == "trunk":
        layer = torch_densenet121("/".join(module[1:]))
    elif module[0].startswith("column_"):
        layer = f"four_view_resnet.{module[0].removeprefix('column_').lower()}." + _column(module[1:])
    elif module[0] == "classifier":
        layer = "classifier"
    else:
        branch, dense = module[0].split("_")
        branch = branch.replace("-", "").lower()
        layer = f"fc1_{branch}" if dense == "hidden" else f"output_layer_{branch}.fc_layer"
    return f"{layer}.{TORCH_LEAVES[variable]}"


def _column(module: list[str]) -> str:
    """Name of a layer of a ResNet-22, e.g. ["stage1_unit2", "bn1"] → "layer_list.0.1.bn1"."""
    if len(module) == 1:
        return {"stem_conv": "first_conv", "final_bn": "final_bn"}[module[0]]
    stage, unit = (int(number) - 1 for number in re.findall(r"\d+", module[0]))
    part = "downsample.0" if module[1] == "shortcut_conv" else module[1]
    return f"layer_list.{stage}.{unit}.{part}"
