"""Run folders of random weights, to test what finished runs are put to: made in a second, and they score images."""

import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mammojax.configs import quickstart, two_view
from mammojax.models import classifiers, multi_view
from mammojax.train.checkpoint import save_best
from mammojax.vocabulary import VIEWS
from tests.random_variables import random_variables

SIZE = (96, 64)
WINDOWS = {"CC": (96, 64), "MLO": (112, 64)}
CLASSES = ["not malignant", "malignant"]
FRAMING = {"size": SIZE, "crop": "none", "keep_aspect": False}


def save(folder: Path, config: ConfigDict, network: nn.Module, inputs: Any, facts: dict[str, Any]) -> Path:
    """Write config.json and weights, and the patients that the run pretends to have learned from."""
    save_best(folder, random_variables(network, inputs))
    contents = {"config": json.loads(config.to_json_best_effort()), "facts": facts}
    (folder / "config.json").write_text(json.dumps(contents))
    (folder / "train_patients.txt").write_text(f"{facts['name']}\tP_secret\n")
    return folder


def image(channels: int, size: tuple[int, int] = SIZE) -> jax.ShapeDtypeStruct:
    """The shape of a network's input."""
    return jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)


def whole(folder: Path) -> Path:
    """A whole-image run that started from `patch`, which lies inside it."""
    config = quickstart.get_config()
    config.model.update(width=4, blocks=(1, 1, 1, 1), head="8x1")
    config.data.size = SIZE
    facts = {"name": "phantom", "mean": 50.0, "framing": FRAMING, "classes": CLASSES,
             "counts": {"train": {"not malignant": 7, "malignant": 5}}}  # fmt: skip
    save(folder, config, classifiers.build(config.model), image(1), facts)
    config.patch.model.update(width=4, blocks=(1, 1, 1, 1))
    part = ConfigDict(config.patch.to_dict() | {"init_from": "", "eval_batch": 8, "seed": 0})
    part.data = {"name": "phantom", "kind": "patches_s10", "patch_size": 32}
    of_patches = facts | {"classes": ["background", "a", "b", "c", "d"], "kind": "patches_s10", "patch_size": 32}
    save(folder / "patch", part, classifiers.build(part.model), image(1, (32, 32)), of_patches)
    return folder


def pairs(folder: Path) -> Path:
    """A two-view run."""
    config = two_view.get_config()
    config.model.update(trunk="resnet50", width=4, blocks=(1, 1, 1, 1), head="8x1", channels=1)
    config.data.size = SIZE
    facts = {"name": "cbis_ddsm", "mean": 50.0, "framing": FRAMING, "classes": CLASSES}
    return save(folder, config, classifiers.build(config.model), {"CC": image(1), "MLO": image(1)}, facts)


def exams(folder: Path) -> Path:
    """A view-wise exam run without heatmaps."""
    config = ConfigDict(
        {"seed": 0, "exam": {"sizes": WINDOWS, "noise": 5, "random": "exam", "heatmaps": ("benign", "malignant")},
         "model": {"task": "exam", "join": "view-wise", "angles": ("CC", "MLO"), "tie": "sides", "target": "cancer",
                   "width": 2, "blocks": (1, 1, 1, 1, 1), "padding": "paper", "noise": 0.01, "channels": 1,
                   "dtype": "float32"}}
    )  # fmt: skip
    facts = {"name": "phantom_exams", "mean": None, "classes": CLASSES, "crop": {"threshold": 0, "iterations": 10}}
    inputs = {view: image(1, WINDOWS[view[2:]]) for view in VIEWS}
    return save(folder, config, multi_view.build(config.model), inputs, facts)
