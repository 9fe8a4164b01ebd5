"""The benchmarks' peers are the same networks, and docs/speed.md is what was measured."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import _timing, film
from benchmarks.training import HEAD, configured
from mammojax import tasks
from mammojax.configs import exam, patch_resnet, whole_resnet
from mammojax.evaluate import table
from mammojax.train.state import abstract_variables

ROOT = Path(__file__).resolve().parents[1]


def _parameters(config) -> int:
    task = tasks.of(config.model.task)
    shapes = abstract_variables(task.network(config.model), task.sizes(config, config.data), config.model.channels)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def _of_peer(name: str, *arguments: object) -> int:
    """Parameters of one of the peer's networks, whose arrays are not filled."""
    torch = pytest.importorskip("torch")
    peers = importlib.import_module("benchmarks._torch")
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in getattr(peers, name)(*arguments).parameters())


@pytest.mark.parametrize("trunk", ["vgg16", "densenet121", "efficientnet_lite0"])
def test_the_peers_patch_networks_have_our_parameters(trunk: str) -> None:
    config = configured(patch_resnet.get_config("s10-random"), trunk, "float32", 2)
    assert _of_peer("Classifier", trunk, 5) == _parameters(config)


def test_the_peers_whole_image_and_exam_networks_have_our_parameters() -> None:
    config = configured(whole_resnet.get_config(HEAD), "resnet50", "float32", 2)
    biases = 2 * (2 * (512 + 512 + 1024) + 1024)  # of the head's convolutions; torchvision's units have none
    assert _of_peer("Classifier", "resnet50", 2, HEAD) == _parameters(config) - biases
    assert _of_peer("ViewWise") == _parameters(exam.get_config("view-wise-scratch"))


def test_a_fresh_process_finds_the_networks_whose_start_is_timed() -> None:
    code = "from benchmarks import startup; print(*(startup.config_of(name).batch for name in startup.NETWORKS))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split() == ["8", "8"]


def test_what_does_not_fit_is_a_cell_and_other_errors_are_raised() -> None:
    def full(turns: int) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    seconds = _timing.medians({"ours": lambda turns: sum(range(1000 * turns)), "torch": full}, 3)
    row = _timing.columns(seconds, 2)
    assert row["torch_ms"] == "does not fit"
    assert row["ours_ms"] > 0
    assert "ratio" not in row
    with pytest.raises(RuntimeError, match="another"):
        _timing.medians({"ours": lambda turns: (_ for _ in ()).throw(RuntimeError("another"))})


def test_the_compiler_counts_the_operations_of_a_product() -> None:
    lowered = jax.jit(lambda a: a @ a).lower(jax.ShapeDtypeStruct((64, 64), np.float32))
    row = _timing.roofline(lowered, lowered.compile(), 1e-3, (2 * 64**3 / 1e-3, 1e30))
    assert row["gflop"] == pytest.approx(2 * 64**3 / 1e9)
    assert row["roofline"] == pytest.approx(1)


def test_averaged_scores_stand_beside_those_of_every_seed() -> None:
    """They are not compared with the first seed alone, which may be the better or the worse one."""
    rng = np.random.default_rng(0)
    patients = np.repeat([f"P{k}" for k in range(20)], 2)
    frame = pd.DataFrame({"image": [f"{p}_{k % 2}.png" for k, p in enumerate(patients)], "patient_id": patients,
                          "exam_id": "", "view": "MLO", "laterality": ["L", "R"] * 20,
                          "malignant": np.arange(40) % 4 == 0})  # fmt: skip
    scores = [noise * rng.random(40) + 0.2 * frame["malignant"] for noise in (0.3, 0.8)]
    seeds = [table.Predictions("net", frame.assign(p_malignant=score)) for score in scores]
    scored = {
        "end to end": {(0, seed, 0): images for seed, images in enumerate(seeds)},
        "end to end, seeds averaged": {(0, 0, 0): table.ensemble(seeds)},
    }
    words = dict(zip(frame["image"], ["MALIGNANT", "NORMAL", "BENIGN", "NORMAL"] * 10, strict=True))
    rows = {row["arm"]: row for row in film._rows(scored, words) if row["measured"] == "by image"}
    single, averaged = rows["end to end"], rows["end to end, seeds averaged"]
    first, second = (roc_auc_score(images.frame["malignant"], images.frame["p_malignant"]) for images in seeds)
    assert first - second > 0.1
    assert single["auc"] == pytest.approx((first + second) / 2)
    assert averaged["pairs"] == 2
    assert averaged["difference"] == pytest.approx(averaged["auc"] - single["auc"])


def test_the_page_of_speed_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_speed", ROOT / "docs/make_speed.py")
    make_speed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_speed)
    assert make_speed.FILE.read_text() == make_speed.render(), "run: python docs/make_speed.py"
