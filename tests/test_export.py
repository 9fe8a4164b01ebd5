"""`mammojax export`: what a file computes without this package is what the run computes."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file

import mammojax
from mammojax import cli
from mammojax.configs import patch_resnet
from mammojax.evaluate import calibration
from mammojax.models import classifiers
from mammojax.models.weights import load, settings
from mammojax.train.checkpoint import restore_best
from mammojax.vocabulary import VIEWS
from tests import untrained
from tests.models.test_weights import torch_resnet50

pytest.importorskip("flatbuffers", reason="flatbuffers is not installed: `pip install 'mammojax[export]'`")

ALONE = """
import sys, jax, numpy as np
from jax import export
network = export.deserialize(open(sys.argv[1], "rb").read())
with np.load(sys.argv[2]) as arrays:
    arrays = dict(arrays)
np.save(sys.argv[3], network.call(arrays.pop("image") if "image" in arrays else arrays))
assert "mammojax" not in sys.modules and "flax" not in sys.modules
"""


def _export(run: Path, file: Path, kind: str) -> dict[str, Any]:
    assert cli.main(["export", "--run", str(run), "--output", str(file), "--format", kind]) == 0
    facts = json.loads(file.with_name(f"{file.name}.json").read_text())
    assert facts["use"].startswith("Research use only")
    (origin,) = facts["runs"]
    assert len(origin["config_sha256"]) == 64
    return facts


def _alone(file: Path, **arrays: np.ndarray) -> np.ndarray:
    """The file's outputs in a process of its own, which has jax and numpy only."""
    np.savez(file.with_suffix(".npz"), **arrays)
    answer = file.with_suffix(".npy")
    subprocess.run([sys.executable, "-I", "-c", ALONE, file, file.with_suffix(".npz"), answer], check=True)
    return np.load(answer)


def test_whole_images_and_patches_score_alike_with_jax_alone(tmp_path: Path) -> None:
    run = untrained.whole(tmp_path / "run")
    model = mammojax.restore(run)
    films = list(np.random.default_rng(0).integers(0, 65536, (3, 120, 80), np.uint16))
    framed = np.stack([model.frame(film) for film in films])[..., None]
    points = [("sensitivity", 0.9, 0.3), ("specificity", 0.8, 0.6)]
    first, second = (calibration.Point(*point) for point in points)
    of_run = calibration.Calibration("flips", 0.4, 0.1, 1.5, *points[0], "val", chose_nothing=False, further=(second,))
    of_run.save(run, {})
    facts = _export(run, tmp_path / "whole.stablehlo", "stablehlo")
    assert facts["operating_points"] == [asdict(first), asdict(second)]
    assert (facts["temperature"], "flips" in facts["operating_points_hold_for"]) == (1.5, True)
    assert facts["input"]["shape"] == ["batch", 96, 64, 1]
    assert (facts["input"]["dtype"], facts["output"]["classes"]) == ("uint16", untrained.CLASSES)
    assert facts["framing"] == model.facts["framing"]
    (origin,) = facts["runs"]
    assert origin["trained_on"] == ["phantom"]
    assert origin["train_examples"] == {"not malignant": 7, "malignant": 5}
    assert "secret" not in json.dumps(facts)
    answers = _alone(tmp_path / "whole.stablehlo", image=framed)
    np.testing.assert_allclose(answers[:, 1], model.predict(films), atol=1e-6)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
    assert answers.std() > 1e-3

    patches = np.random.default_rng(0).integers(0, 65536, (2, 32, 32), np.uint16)
    _export(run / "patch", tmp_path / "patch.stablehlo", "stablehlo")
    network = export.deserialize(bytearray((tmp_path / "patch.stablehlo").read_bytes()))
    expected = mammojax.restore(run / "patch").predict(list(patches))
    np.testing.assert_allclose(network.call(patches[..., None]), expected, atol=1e-6)
    assert network.platforms == ("cpu", "cuda", "tpu")


def test_breasts_and_exams_score_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = untrained.pairs(tmp_path / "pairs")
    pair = {view: rng.integers(0, 65536, (120, 80), np.uint16) for view in ("CC", "MLO")}
    _export(run, tmp_path / "pairs.stablehlo", "stablehlo")
    model = mammojax.restore(run)
    network = export.deserialize(bytearray((tmp_path / "pairs.stablehlo").read_bytes()))
    framed = {view: x[None, ..., None] for view, x in model.frame(pair).items()}
    np.testing.assert_allclose(network.call(framed)[:, 1], model.predict([pair]), atol=1e-6)

    run = untrained.exams(tmp_path / "exams")
    pixels = {}
    for name in VIEWS:  # a bright half disc on black
        y, x = np.mgrid[:160, :100]
        breast = (y - 80) ** 2 / 60**2 + (x if name[0] == "L" else 99 - x) ** 2 / 70**2 < 1
        pixels[name] = np.where(breast, rng.integers(20000, 60000, breast.shape), 0).astype(np.uint16)
    predictor = mammojax.restore(run)
    views = {name: [predictor.view(image, name, name[0] == "L")] for name, image in pixels.items()}
    windows = {name: x[None] for name, x in predictor.windows(views, np.random.RandomState(0)).items()}
    exported = _export(run, tmp_path / "exam.stablehlo", "stablehlo")
    assert exported["input"]["shape"]["L-CC"] == ["batch", 96, 64, 1]
    network = export.deserialize(bytearray((tmp_path / "exam.stablehlo").read_bytes()))
    answers = np.asarray(network.call(windows))
    assert answers.shape == (1, 4, 2)
    np.testing.assert_allclose(answers[0], predictor.probabilities(views, ""), atol=1e-6)
    assert exported["output"]["rows"] == ["left_benign", "right_benign", "left_malignant", "right_malignant"]


@pytest.mark.parametrize("channels", [1, 3])
def test_torch_computes_the_same_with_published_names(channels: int, tmp_path: Path) -> None:
    """The paper's network: strides on 1×1, biases, Keras's epsilon; what torchvision lacks is inside the arrays."""
    torch = pytest.importorskip("torch", reason="torch is not installed: `pip install mammojax[convert]`")
    config = patch_resnet.get_config()
    config.model.update(width=8, channels=channels, blocks=(1, 1, 2, 1))
    config.data = {"name": "cbis_ddsm", "kind": "patches_s10", "patch_size": 64}
    config.eval_batch = 4
    facts = {"name": "cbis_ddsm", "mean": 50.0, "classes": ["background", "a", "b", "c", "d"]}
    network = classifiers.build(config.model)
    run = untrained.save(tmp_path / "run", config, network, untrained.image(channels, (64, 64)), facts)
    written = _export(run, tmp_path / "trunk.safetensors", "safetensors")
    assert (tmp_path / "trunk.safetensors").stat().st_mode == (tmp_path / "trunk.safetensors.json").stat().st_mode
    assert "conv1.stride=(2, 2)" in written["remarks"][0]
    assert written["loads_in"].startswith("none")

    theirs = torch_resnet50(torch, 8, (1, 1, 2, 1))
    theirs.fc = torch.nn.Linear(256, 5)
    arrays = load_file(tmp_path / "trunk.safetensors")
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=True)
    for layer in (theirs.layer2, theirs.layer3, theirs.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    images = np.random.default_rng(0).integers(0, 65536, (2, 64, 64), np.uint16)
    gray = (images * (255 / 65535) - facts["mean"]).astype(np.float32)
    rgb = np.stack([gray / std for std in written["input"]["std"]], axis=1)
    with torch.no_grad():
        logits = theirs.eval().fc(theirs(torch.from_numpy(rgb)).mean(dim=(2, 3)))
    expected = mammojax.restore(run).predict(list(images))
    np.testing.assert_allclose(torch.softmax(logits, dim=1).numpy(), expected, atol=2e-5)
    assert expected.std() > 1e-3

    # our own reader takes the file as it takes torchvision's
    file = tmp_path / "trunk.safetensors"
    config.model.update(settings(file))
    fresh = jax.eval_shape(classifiers.build(config.model).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    again = load(file, "resnet50", fresh, config.model.pretrained_std)
    assert again["params"]["trunk"]["stem_conv"]["kernel"].shape == (7, 7, 3, 8)
    kernel = restore_best(run)[2]["params"]["trunk"]["stem_conv"]["kernel"]
    np.testing.assert_allclose(again["params"]["trunk"]["stem_conv"]["kernel"].sum(2), kernel.sum(2), atol=1e-6)


def test_what_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = untrained.exams(tmp_path / "run")
    for folder, kind, words in (
        (run, "onnx", "no exporter to ONNX fits"),
        (tmp_path, "stablehlo", "is not a run folder"),
        (run, "safetensors", "is an exam network"),
    ):
        command = ["export", "--run", str(folder), "--output", str(tmp_path / "x"), "--format", kind]
        assert cli.main(command) == 2
        assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
