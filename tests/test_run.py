"""The whole path on a tiny phantom: twice the same, killed and resumed the same, refused where it must be."""

import csv
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mammojax import run, start
from mammojax.configs import patch_resnet, quickstart, whole_resnet
from mammojax.errors import BadCheckpoint, BadConfig, Diverged
from mammojax.models import classifiers
from mammojax.tasks import images
from mammojax.train.checkpoint import Latest, load_best, restore_best, save_best
from mammojax.train.state import init_variables
from tests.tiny import ROOT, command, compiled_by_epoch, environment, launch


def _best(run: Path) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(load_best(run))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _assert_equal_runs(a: Path, b: Path) -> None:
    for name in ("metrics.json", "predictions/test.csv", "predictions/val.csv", "patch/metrics.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    ours, theirs = _best(a), _best(b)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)


def test_a_run_writes_the_documented_files(finished: Path) -> None:
    for name in (
        "config.json",
        "versions.json",
        "metrics.jsonl",
        "report.html",
        "checkpoints/best",
        "patch/report.html",
        "train_patients.txt",
        "patch/train_patients.txt",
    ):
        assert (finished / name).exists(), name
    results = json.loads((finished / "metrics.json").read_text())
    assert {"low", "value", "high", "n"} == set(results["test"]["auc"])
    assert sum(results["test"]["auc"]["n"]) == results["test"]["images"]
    with (finished / "predictions/test.csv").open() as file:
        rows = list(csv.DictReader(file))
    named = ["image", "patient_id", "exam_id", "laterality", "view", "label", "p_malignant"]
    assert list(rows[0]) == [*named, "density", "label_source"]  # last the table's own columns
    assert len(rows) == results["test"]["images"]
    kinds = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in kinds if r["kind"] == "val"] == [1, 2, 1, 2]
    page = (finished / "report.html").read_text()
    assert "surest not malignant" in page
    assert "surest benign" not in page  # a normal breast would be called benign
    assert str(finished.parent) not in page
    pictures = re.findall(r"p\(malignant\) = ([\d.]+), line (\d+) of predictions/test.csv</figcaption>", page)
    assert len({line for _, line in pictures}) == len(pictures) == 4  # no image stands in two groups
    assert all(float(p) == round(float(rows[int(line) - 2]["p_malignant"]), 2) for p, line in pictures)


def test_nothing_is_compiled_after_the_first_epoch_of_a_stage(finished: Path) -> None:
    """Neither for a step nor for validation: one program for each shape."""
    stages = compiled_by_epoch(finished)
    for first, second in (stages[name] for name in ("new layers", "all layers")):
        assert first
        assert not second


@pytest.mark.slow
def test_a_finished_run_started_again_trains_nothing(finished: Path) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    done = launch(finished)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_refuses_another_config_and_keeps_its_own(finished: Path) -> None:
    kept = {name: (finished / name).read_bytes() for name in ("config.json", "metrics.json", "patch/config.json")}
    config, _, _ = restore_best(finished)
    config.seed, config.extend = 1, True
    config.stages.stage2.epochs += 1
    message = (
        f'"{finished}" holds a run of another config: seed 0 → 1, stages.stage2.epochs 2 → 3; give another --workdir'
    )
    with pytest.raises(BadConfig, match=re.escape(message)):
        run.run(config, finished)
    config, _, _ = restore_best(finished)
    config.init_from, config.patch.batch, config.patch.balance_loss = "", 16, False
    shutil.copytree(finished / "patch", finished.parent / "inner" / "patch")  # the outer run has not begun
    message = r'inner/patch" holds a run of another config: batch 32 → 16, balance_loss true → false; give another'
    with pytest.raises(BadConfig, match=message):
        run.run(config, finished.parent / "inner")
    for name, content in kept.items():
        assert (finished / name).read_bytes() == content


def test_a_start_that_has_seen_the_test_patients_is_refused_and_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "patch", tmp_path / "patch")
    learned = (finished / "train_patients.txt").read_text()
    with (finished / "predictions" / "test.csv").open() as file:
        patient = next(csv.DictReader(file))["patient_id"]
    assert learned == (finished / "patch" / "train_patients.txt").read_text()
    assert f"phantom 0\t{patient}\n" not in learned
    (tmp_path / "patch" / "train_patients.txt").write_text(f"{learned}phantom 0\t{patient}\n")
    config, _, _ = restore_best(finished)
    config.init_from = str(tmp_path / "patch")
    message = (
        "has learned from 1 patients who stand in the validation or test split of this data set; pretrain on the same"
    )
    with pytest.raises(BadCheckpoint, match=message) as error:
        run.run(config, tmp_path / "run")
    assert patient not in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_an_extended_run_equals_one_that_was_as_long_at_once(finished: Path, tmp_path: Path) -> None:
    config, _, _ = restore_best(finished / "patch")
    config.stages.stage1.schedule, config.bootstrap_runs, config.checkpoint_steps = "constant", 20, 1000
    config.data.patients = 4
    run.run(config, tmp_path / "grown")
    config.stages.stage1.epochs += 1
    with pytest.raises(BadConfig, match=r"--config\.extend=True"):
        run.run(config, tmp_path / "grown")
    run.run(config, tmp_path / "long")
    config.extend = True
    run.run(config, tmp_path / "grown")
    for name in ("metrics.json", "predictions/test.csv", "predictions/val.csv", "config.json", "train_patients.txt"):
        assert (tmp_path / "grown" / name).read_bytes() == (tmp_path / "long" / name).read_bytes(), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "grown" / "metrics.jsonl").read_text().splitlines()]
    assert len(set(steps)) == 2
    ours, theirs = (Latest(tmp_path / name) for name in ("grown", "long"))
    assert ours.host()["step"] == theirs.host()["step"] == steps[-1]
    for a, b in zip(ours._leaves.values(), theirs._leaves.values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_launch_extends_only_a_run_that_is_there(tmp_path: Path) -> None:
    done = launch(tmp_path / "mistyped", "--config.extend=True")
    assert done.returncode == 2
    assert "config.extend goes on with a run; name its folder: --workdir DIR" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_equals_an_uninterrupted_one(finished: Path, how: signal.Signals) -> None:
    workdir = finished.parent / f"killed{int(how)}"
    process = subprocess.Popen(
        command(workdir), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    latest = workdir / "checkpoints" / "latest"
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if any(p.name.isdigit() and int(p.name) % 10 == 3 for p in latest.glob("*")):
            break  # inside an epoch of the whole-image net
        time.sleep(0.02)
    process.send_signal(how)
    process.wait()
    assert process.returncode == (-9 if how == signal.SIGKILL else 143)
    assert not (workdir / "metrics.json").exists()
    done = launch(workdir)
    assert done.returncode == 0, done.stderr[-3000:]
    _assert_equal_runs(finished, workdir)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.stages.stage1.epochz=3"], 'no field "epochz"; did you mean "epochs"?'),
        (["--config.batch=many"], "batch"),
        (["--config.stages.stage1.learn=('hed/.*',)"], "matches no parameter"),
        (["--config.model.head=512-512"], "head"),
        (["--config.init_from=nowhere"], "init_from"),
        (["--config.data.name=cbis_ddsm", "--config.data.prepare=False"], "mammojax prepare cbis_ddsm"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = launch(tmp_path / "run", *arguments)
    assert done.returncode == 2, done.stderr[-2000:]
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.array_record*"))


def test_init_from_takes_a_patch_run_and_trains_none(finished: Path, tmp_path: Path) -> None:
    done = launch(
        tmp_path / "from", f"--config.init_from={finished / 'patch'}", "--config.stages.stage1.epochs=0",
        "--config.stages.stage2.epochs=1", "--config.stages.stage2.learning_rate=0.0",
        f"--config.data.data_dir={finished.parent}/data",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "from" / "patch").exists()
    ours, patch = _best(tmp_path / "from"), _best(finished / "patch")
    trunk = [name for name in patch if "['params']['trunk']" in name]
    assert trunk
    for name in trunk:
        np.testing.assert_array_equal(ours[name], patch[name])


def test_start_order_is_init_from_then_pretrained_then_random(tmp_path: Path) -> None:
    """The first of the order, a run's own checkpoint, is what the killed runs above show."""
    config = patch_resnet.get_config()
    config.model.update(width=4, blocks=(1, 1, 1, 3))
    model = classifiers.build(config.model)
    first, second = (init_variables(model, (224, 224), 3, seed) for seed in (1, 2))
    save_best(tmp_path / "run", first)
    saved = {"config": {}, "facts": {}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    file = tmp_path / "torch.safetensors"
    config.model.pretrained = str(file)
    calls = []

    def load(path: Path, trunk: str, variables: dict, input_std: object) -> dict:
        calls.append((path, trunk, input_std))
        return second

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start.weights, "load", load)
        assert start.variables(config, model, (224, 224), None) is second
        started = start.variables(config, model, (224, 224), tmp_path / "run")
        jax.tree.map(np.testing.assert_array_equal, started["params"], first["params"])
    assert calls == [(file, "resnet50", None)]
    config.model.pretrained = ""
    fresh = start.variables(config, model, (224, 224), None)
    jax.tree.map(np.testing.assert_array_equal, fresh, init_variables(model, (224, 224), 3, 0))


def test_a_finished_inner_run_of_before_the_map_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quickstart.get_config()
    configs_run = []

    def dataset(part: ConfigDict, _: Path) -> None:
        configs_run.append(json.loads(part.to_json_best_effort()))
        raise InterruptedError

    monkeypatch.setattr(run, "dataset", dataset)
    with pytest.raises(InterruptedError):
        run._start(config, "init_from", tmp_path, set())
    (tmp_path / "patch" / "report.html").touch()
    saved = {**configs_run[0], "data": {k: v for k, v in configs_run[0]["data"].items() if k != "map"}}
    (tmp_path / "patch" / "config.json").write_text(json.dumps({"config": saved}))
    assert run._start(config, "init_from", tmp_path, set()) == tmp_path / "patch"
    saved["data"]["seed"] = config.data.seed + 1
    (tmp_path / "patch" / "config.json").write_text(json.dumps({"config": saved}))
    with pytest.raises(BadConfig, match=r"data\.seed 1 → 0"):
        run._start(config, "init_from", tmp_path, set())
    assert len(configs_run) == 1


class _Images:
    """As many examples as it is told, and what a run asks of a prepared data set of them."""

    def __init__(self, count: int) -> None:
        self.facts, self.count = {"kind": "whole", "classes": ("benign", "malignant")}, count

    def __len__(self) -> int:
        return self.count

    def source(self, split: str, masks: bool = True) -> "_Images":
        return self

    def labels(self, split: str) -> np.ndarray:
        return np.arange(self.count) % 2


@pytest.mark.parametrize(("count", "expected"), [(2_000, 3), (200, 0)])
def test_the_workers_of_a_config_read_the_batches(
    count: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, configs_run = whole_resnet.get_config(), []
    config.data.workers = 3
    monkeypatch.setattr(images.pipeline, "train_batches", lambda source, **how: configs_run.append(how["workers"]))
    images.batches(config, tmp_path, _Images(count), {})
    assert configs_run == [expected]


def test_a_nested_run_that_diverges_names_the_field_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: object) -> None:
        raise Diverged("the loss is not a number in patches, epoch 1", "config.stages.stage1.learning_rate")

    monkeypatch.setattr(run, "experiment", diverge)
    monkeypatch.setattr(run, "dataset", lambda *_: None)
    with pytest.raises(Diverged, match=r"epoch 1; lower config\.patch\.stages\.stage1\.learning_rate\."):
        run._start(quickstart.get_config(), "init_from", tmp_path, set())
