"""The torch files that Petrini et al. 2022 and Petrini & Kim 2025 published → our networks, by their tensors' names.

A file holds a single-view or a two-view network on EfficientNet-B0 (2022), EfficientNet-B3 or ConvNeXt-Base (2025). A
two-view file lists its trunk up to three times, and has the single-view network's head and perhaps the patch
classifier's, which its own network does not use.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from mammojax.models import classifiers, weights
from mammojax.models.trunk_names import TORCH_LEAVES, lukemelas_part, name_of
from mammojax.models.weights import PretrainedMismatch, as_ours, read_tensors, refuse_others

Arrays = dict[str, np.ndarray]
HEAD = "mbconv,mbconv"
_ALIASES = (  # the first prefix that fits
    ("two_views_clf.single_clf_core.", "trunk."),
    ("two_views_clf.feature_extractor.", "trunk."),
    ("two_views_clf.single_clf_full.feature_extractor.features.", "trunk.0."),
    ("two_views_clf.single_clf_full.feature_extractor.", "trunk."),
    ("two_views_clf.single_clf_full.", ""),
    ("feature_extractor.features.", "trunk.0."),
    ("feature_extractor.", "trunk."),
)
_UNUSED = {"top_layer.": "single-view head", "_fc.": "patch classifier", "classifier.": "classifier of ImageNet's size"}


class PetriniNetwork(NamedTuple):
    """The contents of a published file.

    Attributes:
        model: fields of `config.model` that its weights need, task "whole" (single view) or "two_view" among them.
        variables: {"params": …, "batch_stats": …}, float32.
        remarks: sentences on what the file holds more than once, or for nothing.
    """

    model: dict[str, Any]
    variables: dict[str, Any]
    remarks: list[str]


def load(path: str | Path) -> PetriniNetwork:
    """Read a published file: torch's `.pt` or `.pth`, or the same tensors as `.safetensors`.

    Raises:
        PretrainedMismatch: the tensors are of none of these networks; or names are missing or surplus, a shape differs,
            or two names of one tensor hold different values.
        ValueError: no such file, or one that holds anything but tensors by name.
        ModuleNotFoundError: a torch file, and torch is not installed.
    """
    path = Path(path)
    arrays, aliases = _canonical(path, read_tensors(path))
    model, dialect = _model(path, arrays)
    task, trunk = model["task"], model["trunk"]
    config = ConfigDict({**OTHERS, **model})
    image = jax.ShapeDtypeStruct((1, 128, 128, model["channels"]), jnp.float32)
    inputs = {"CC": image, "MLO": image} if task == "two_view" else image
    leaves = flatten_dict(jax.eval_shape(classifiers.build(config).init, jax.random.key(0), inputs))
    names = {leaf: _name(dialect, trunk, task, leaf[1:]) for leaf in leaves}
    shapes = {names[leaf]: tuple(shape.shape) for leaf, shape in leaves.items()}
    values = {name: as_ours("torch", array) for name, array in arrays.items()}
    unused = {name for name in values if name not in shapes and _unused(name, task)}
    used = {name: array for name, array in values.items() if name not in unused}
    refuse_others(path, shapes, used, "give one of the authors' files, as it is.")
    variables = unflatten_dict({leaf: jnp.asarray(values[name], jnp.float32) for leaf, name in names.items()})
    return PetriniNetwork(model, variables, _remarks(aliases, unused))


OTHERS = {"blocks": (3, 4, 6, 3), "dtype": "float32", "auxiliary_classes": 0}  # of any network


def _model(path: Path, arrays: Arrays) -> tuple[dict[str, Any], str]:
    """The fields of `config.model` that the arrays need, and the dialect of their trunk."""
    of_trunk = {name.removeprefix("trunk."): array for name, array in arrays.items() if name.startswith("trunk.")}
    trunk, dialect = weights.recognise("torch", of_trunk)
    task = "two_view" if "block1._expand_conv.weight" in arrays else "whole"
    head = "fc.weight" if task == "two_view" else "top_layer.fc.weight"
    if (trunk, dialect) not in TRUNKS or head not in arrays:
        raise PretrainedMismatch(
            f"{path.name} holds none of the published networks (one or two views on EfficientNet-B0, EfficientNet-B3 or"
            " ConvNeXt-Base); give one of the authors' files, as it is."
        )
    stem = of_trunk[name_of(dialect, trunk, ("stem_conv", "kernel"))]
    return {
        "task": task, "trunk": trunk, "width": stem.shape[0], "channels": stem.shape[1], "head": HEAD, "classes": 2,
        "dropout": 0.0 if task == "two_view" else 0.1, "head_bn_momentum": 0.99, **TRUNKS[trunk, dialect],
    }, dialect  # fmt: skip


TRUNKS: dict[tuple[str, str], dict[str, Any]] = {
    ("efficientnet_b0", "lukemelas"): {
        "padding": "same", "bn_epsilon": 1e-3, "bn_momentum": 0.99, "drop_path": 0.2, "normalise": "unit",
    },
    ("efficientnet_b3", "torch"): {
        "padding": "symmetric", "bn_epsilon": 1e-5, "bn_momentum": 0.9, "drop_path": 0.2, "normalise": "unit",
    },
    ("convnext_base", "timm"): {"bn_epsilon": 1e-3, "bn_momentum": 0.99, "drop_path": 0.0, "normalise": "image"},
}  # fmt: skip
"""The trunks of the published networks and their settings: those on EfficientNets learned CBIS-DDSM, ConvNeXt VinDr."""


def _canonical(path: Path, arrays: Arrays) -> tuple[Arrays, int]:
    """Arrays by the names that `_name` gives, without counters, and how many stood under further names too."""
    result: Arrays = {}
    aliases = 0
    for name, array in arrays.items():
        if name.endswith("num_batches_tracked"):  # counts that inference never reads
            continue
        canonical = next((new + name.removeprefix(old) for old, new in _ALIASES if name.startswith(old)), name)
        if canonical.startswith("trunk.") and any(".conv_dw." in other for other in arrays):
            canonical = canonical.replace("trunk.0.", "trunk.stem.", 1).replace("trunk.1.", "trunk.stages.", 1)
        else:
            canonical = canonical.replace("trunk.0.", "trunk.features.", 1)
        if canonical in result:
            aliases += 1
            if not np.array_equal(result[canonical], array):
                raise PretrainedMismatch(
                    f"{path.name}: {name} differs from the same tensor under another name ({canonical}); both views of"
                    " these networks share one trunk, so give a file in which they do."
                )
        result[canonical] = array
    return result, aliases


def _name(dialect: str, trunk: str, task: str, leaf: tuple[str, ...]) -> str:
    """The canonical name of one of our leaves: ("head", "block1_unit1", "expand_bn", "bias") → "block1._bn0.bias"."""
    part, *module, variable = leaf
    if part == "trunk":
        return f"trunk.{name_of(dialect, trunk, leaf[1:])}"
    single = task == "whole"
    if module[0] == "logits":
        return f"{'top_layer.' if single else ''}fc.{TORCH_LEAVES[variable]}"
    number = int(module[0].removeprefix("block").partition("_")[0])
    block = f"top_layer._blocks.{number - 1}" if single else f"block{number}"
    return f"{block}.{lukemelas_part(module[1])}.{TORCH_LEAVES[variable]}"


def _unused(name: str, task: str) -> bool:
    """Whether a published network of this task has this array without using it."""
    if task == "two_view" and name.startswith("top_layer."):
        return True
    return name.startswith(("trunk._fc.", "trunk.classifier."))


def _remarks(aliases: int, unused: set[str]) -> list[str]:
    remarks = [f"{aliases} tensors of the trunk stand under several names, with equal values"] if aliases else []
    for prefix, words in _UNUSED.items():
        if count := sum(name.removeprefix("trunk.").startswith(prefix) for name in unused):
            remarks.append(f"not used: {count} tensors of the {words}")
    return remarks
