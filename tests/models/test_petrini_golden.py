"""Every recorded stage of the published one-view and two-view networks, with stand-in weights on real mammograms.

The numbers come from the authors' code with the weights of formula_weights.py; that proves the arithmetic, not any
performance.
"""

import json
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from mammojax.evaluate.predictor import ImagePredictor
from mammojax.evaluate.variations import variations
from mammojax.models import classifiers, petrini_weights
from mammojax.models.efficientnet import group_of, plan

MEAN = 13369 / 257  # the published 13369 of 65535, on the scale of 0..255
NETWORKS = {
    "cbis_two_view_2021": ("efficientnet_b0", "two_view"),
    "cbis_single_view_2021": ("efficientnet_b0", "whole"),
    "cbis_two_view_2024": ("efficientnet_b3", "two_view"),
    "cbis_two_view_2024_DC": ("efficientnet_b3", "two_view"),
    "cbis_single_view_2024": ("efficientnet_b3", "whole"),
    "vindr_two_view_2024": ("convnext_base", "two_view"),
    "vindr_single_view_2024": ("convnext_base", "whole"),
}


@cache
def golden(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "golden.json").read_text())


@cache
def state(folder: Path, name: str) -> dict[str, np.ndarray]:
    """A published file's tensors by name, with the values of the formula."""
    formula = runpy.run_path(str(folder / "formula_weights.py"))
    keys = json.loads((folder / "state_dict_keys.json").read_text())[name]
    values: dict[str, np.ndarray] = {}
    arrays = {}
    for key, shape in keys:
        canonical = formula["canon"](key)
        if canonical not in values:
            values[canonical] = np.ascontiguousarray(formula["formula"](key, shape))
        arrays[key] = values[canonical]
    return arrays


def published(folder: Path, name: str, tmp_path: Path) -> petrini_weights.PetriniNetwork:
    save_file({key: array.copy() for key, array in state(folder, name).items()}, tmp_path / "net.safetensors")
    network = petrini_weights.load(tmp_path / "net.safetensors")
    (tmp_path / "net.safetensors").unlink()
    return network


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "golden" / "petrini"


def image(folder: Path, name: str) -> np.ndarray:
    """A mammogram, uint16 [1, 1152, 896, 1]."""
    return cv2.imread(str(folder / "images" / f"Calc-Test_{name}.png"), cv2.IMREAD_UNCHANGED)[None, ..., None]


def ours(recorded: str, trunk: str) -> str:
    """Our name of a recorded stage: "stage3.cc" → "CC/block4" of a B0."""
    stage, _, view = recorded.partition(".")
    prefix = f"{view.upper()}/" if view else ""
    if stage.startswith("stage") and trunk.startswith("efficientnet"):
        variant = trunk.removeprefix("efficientnet_")
        blocks = [k for k in range(len(plan(variant, 32))) if group_of(variant, k)[0] == int(stage[5:]) - 1]
        return f"{prefix}block{blocks[-1]}"
    others = {"fusion_concat": "joined", "avgpool": "head/pooled"}
    top = {f"{name}block{k}": f"head/block{k}" for name in ("", "top_") for k in (1, 2)}
    return prefix + (others | top).get(stage, stage)


def assert_equal(value: Any, expected: dict[str, Any], name: str) -> None:
    """The recorded elements, mean and standard deviation within 1e-4 of the stage's largest value."""
    array = np.asarray(value, np.float64)
    array = array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
    assert array.size == np.prod(expected["shape"]), name
    scale = max(float(np.abs(expected["values"]).max()), expected["std"])
    np.testing.assert_allclose(array.reshape(-1)[expected["indices"]], expected["values"], atol=1e-4 * scale, rtol=0,
                               err_msg=name)  # fmt: skip
    np.testing.assert_allclose([array.mean(), array.std()], [expected["mean"], expected["std"]], atol=1e-4 * scale,
                               err_msg=name)  # fmt: skip


def run(folder: Path, name: str, example: str, tmp_path: Path) -> None:
    """Compare a network's input, stages and logits on one example with the recorded ones."""
    trunk, task = NETWORKS[name]
    net = published(folder, name, tmp_path)
    assert (net.model["trunk"], net.model["task"]) == (trunk, task)
    expected = golden(folder)["networks"][name][example]
    if task == "two_view":
        images = {view: image(folder, f"{example}_{view}") for view in ("CC", "MLO")}
    else:
        images = image(folder, example)
    x = classifiers.as_input(images, MEAN, 3, net.model["normalise"])
    if "input" in expected:
        stored = np.concatenate([np.asarray(view).transpose(0, 3, 1, 2) for view in jax.tree.leaves(x)], axis=1)
        recorded = expected["input"]
        np.testing.assert_allclose(stored.reshape(-1)[recorded["indices"]], recorded["values"], atol=1e-5)
    model = classifiers.build(ConfigDict({**petrini_weights.OTHERS, **net.model}))
    wanted = {stage: ours(stage, trunk) for stage in expected.get("stages", {})}

    def apply(variables: Any, x: Any) -> Any:
        (logits, intermediates), inner = model.apply(
            variables, x, capture_intermediates=lambda module, _: module.name == "stem_bn", mutable=["intermediates"]
        )
        maps = {name: intermediates[name] for name in wanted.values() if name in intermediates}
        return logits, maps, inner.get("intermediates", {})

    logits, maps, inner = jax.jit(apply)(net.variables, x)
    for stage, place in wanted.items():
        if stage.startswith("stem_bn"):
            value = inner["trunk"]["stem_bn"]["__call__"][("cc", "mlo").index(stage.partition(".")[2])]
        else:
            value = maps[place]
        assert_equal(value, expected["stages"][stage], f"{name} {stage}")
    np.testing.assert_allclose(logits[0], expected["output"]["logits"], atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameter_counts_are_those_of_the_published_files(name: str, folder: Path) -> None:
    """Each tensor counts once; counters, statistics, and heads that the network does not use do not count."""
    trunk, task = NETWORKS[name]
    canon = runpy.run_path(str(folder / "formula_weights.py"))["canon"]
    keys = {canon(key): shape for key, shape in json.loads((folder / "state_dict_keys.json").read_text())[name]}
    unused = ("backbone._fc.", "backbone.classifier.") + (("single.",) if task == "two_view" else ())
    used = {k: s for k, s in keys.items() if not k.startswith(unused) and k.endswith(("weight", "bias", "gamma"))}
    fields = petrini_weights.TRUNKS[trunk, {"b0": "lukemelas", "b3": "torch"}.get(trunk[-2:], "timm")]
    width = {"efficientnet_b0": 32, "efficientnet_b3": 40, "convnext_base": 128}[trunk]
    model = {"task": task, "trunk": trunk, "width": width, "head": petrini_weights.HEAD, "classes": 2, "channels": 3}
    network = classifiers.build(ConfigDict({**petrini_weights.OTHERS, "dropout": 0.0, **model, **fields}))
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    inputs = {"CC": image, "MLO": image} if task == "two_view" else image
    params = jax.eval_shape(network.init, jax.random.key(0), inputs)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == sum(int(np.prod(shape)) for shape in used.values())


FAST = ("cbis_single_view_2021", "P_00127_RIGHT_CC")
EVERY = [
    (name, f"{pair}{view}")
    for name, (_, task) in NETWORKS.items()
    for pair in ("P_00041_LEFT", "P_00127_RIGHT")
    for view in ([""] if task == "two_view" else ["_CC", "_MLO"])
    if not (pair == "P_00041_LEFT" and name in ("cbis_two_view_2024_DC", "vindr_single_view_2024"))
]


@pytest.mark.parametrize(
    ("name", "example"),
    [pytest.param(*case, marks=[] if case == FAST else pytest.mark.slow, id="-".join(case)) for case in EVERY],
)
def test_every_recorded_stage(name: str, example: str, folder: Path, tmp_path: Path) -> None:
    run(folder, name, example, tmp_path)


def test_every_recorded_example_is_compared(folder: Path) -> None:
    recorded = golden(folder)["networks"]
    assert {(name, example) for name, examples in recorded.items() for example in examples} == set(EVERY)


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["P_00041_LEFT", "P_00127_RIGHT"])
def test_nine_shifts(pair: str, folder: Path, tmp_path: Path) -> None:
    net = published(folder, "cbis_two_view_2021", tmp_path)
    config = ConfigDict({"model": {**petrini_weights.OTHERS, **net.model, "pair": "views"}, "eval_batch": 1})
    predictor = ImagePredictor(config, {"mean": MEAN}, net.variables)
    images = {view: image(folder, f"{pair}_{view}") for view in ("CC", "MLO")}
    recorded = golden(folder)["networks"]["cbis_two_view_2021"][pair]["tta"]
    shifted = {view: variations(x, "shifts9") for view, x in images.items()}
    for k, expected in enumerate(recorded["malignant_probabilities"]):
        batch = [
            {"image": {view: x[k] for view, x in shifted.items()}, "label": [1], "weight": [1], "image_id": [pair]}
        ]
        np.testing.assert_allclose(predictor.score_split(batch)["scores"][0, 1], expected, atol=1e-4)
    averaged = predictor.score([{view: x[0, ..., 0] for view, x in images.items()}], "shifts9")
    np.testing.assert_allclose(averaged, [recorded["mean"]], atol=1e-4)
