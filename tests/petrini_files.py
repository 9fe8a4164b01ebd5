"""Files as Petrini et al. published them, of narrow networks with random weights."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from mammojax.models import classifiers, petrini_weights
from mammojax.models.trunk_names import TORCH_LEAVES, lukemelas_part, name_of
from tests.random_variables import random_variables

DIALECTS = {"efficientnet_b0": "lukemelas", "efficientnet_b3": "torch", "convnext_base": "timm"}


def model_of(trunk: str, task: str, width: int = 8) -> ConfigDict:
    fields = petrini_weights.TRUNKS[trunk, DIALECTS[trunk]]
    own = {"task": task, "trunk": trunk, "width": width, "head": petrini_weights.HEAD, "classes": 2, "channels": 3}
    return ConfigDict({**petrini_weights.OTHERS, "dropout": 0.0, **own, **fields})


def variables_of(model: ConfigDict) -> dict[str, Any]:
    image = jnp.zeros((1, 64, 64, 3))
    inputs: Any = {"CC": image, "MLO": image} if model.task == "two_view" else image
    return random_variables(classifiers.build(model), inputs)


def tensors(trunk: str, task: str, width: int = 8) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A file's tensors by their published names, each as often as it is published, and the variables they hold."""
    model = model_of(trunk, task, width)
    variables = variables_of(model)
    two = task == "two_view"
    arrays: dict[str, np.ndarray] = {}

    def head(prefix: str, layer: str, leaf: str) -> str:
        if layer == "logits":
            return f"{prefix}fc.{TORCH_LEAVES[leaf]}"
        block, _, part = layer.partition("/")
        number = int(block[5])
        place = f"block{number}" if not prefix else f"{prefix}_blocks.{number - 1}"
        return f"{place}.{lukemelas_part(part)}.{TORCH_LEAVES[leaf]}"

    for (_, part, *layer, leaf), x in flatten_dict(variables).items():
        array = np.asarray(x)
        array = np.ascontiguousarray(array.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim))))
        if part == "head":
            arrays[head("" if two else "top_layer.", "/".join(layer), leaf)] = array
            continue
        name = name_of(DIALECTS[trunk], trunk, (*layer, leaf))
        if trunk == "efficientnet_b3":  # Sequential(features, pool)
            name = name.replace("features.", "0.", 1)
        if trunk == "convnext_base":
            name = name.replace("stem.", "0.", 1).replace("stages.", "1.", 1)
        places = ("feature_extractor.",)
        if two:
            places = ("two_views_clf.single_clf_full.feature_extractor.", "two_views_clf.single_clf_core.")
        for place in places:
            arrays[place + name] = array.copy()
    if two:
        arrays["two_views_clf.single_clf_full.top_layer.fc.bias"] = np.zeros(2, np.float32)
    arrays["block1._bn0.num_batches_tracked" if two else "top_layer._blocks.0._bn0.num_batches_tracked"] = np.zeros(1)
    return arrays, variables


def write(path: Path, trunk: str = "efficientnet_b0", task: str = "two_view", width: int = 8) -> dict[str, Any]:
    """Write a file; returns the variables it holds."""
    arrays, variables = tensors(trunk, task, width)
    save_file(arrays, path)
    return jax.tree.map(np.asarray, variables)
