"""The NYU path on tiny phantom exams: patches, heatmaps, BI-RADS, exams; killed, leaks refused, averaged."""

import csv
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mammojax import cli, run, start
from mammojax.configs import exam_quickstart
from mammojax.data import dataset
from mammojax.errors import BadConfig
from mammojax.evaluate import heatmap, table
from mammojax.evaluate.measure import measure_breasts
from mammojax.tasks import exams
from mammojax.train.checkpoint import load_best, restore_best
from tests.tiny import EXAMS, ROOT, command, compiled_by_epoch, environment, launch, recorded


@pytest.fixture(scope="module")
def exam_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("exams") / "run", EXAMS)


def test_nothing_is_compiled_after_the_first_epoch(exam_run: Path) -> None:
    *_, first, second = compiled_by_epoch(exam_run)["all layers"]  # of the exams; the runs inside have one epoch
    assert first
    assert not second


def test_the_whole_path_writes_the_documented_files(exam_run: Path) -> None:
    results = json.loads((exam_run / "metrics.json").read_text())
    assert set(results) == {"val", "test", "val_random10", "test_random10"}
    assert {"auc", "auc_malignant", "pr_auc_malignant", "auc_benign", "exams"} <= set(results["test"])
    breasts = table.read_breasts(exam_run, "test_random10")
    assert len(breasts) == 2 * results["test"]["exams"]
    assert {"biopsied", "density", "vendor", "age_band"} <= set(breasts.frame)
    for folder in (exam_run, exam_run / "patch", exam_run / "birads"):
        assert (folder / "report.html").is_file()
        assert str(exam_run.parent) not in (folder / "report.html").read_text()
    facts = json.loads((exam_run / "config.json").read_text())["facts"]
    (folder,) = (exam_run.parent / "data").rglob("heatmaps/*")
    assert folder.name == f"{facts['heatmaps']}_p48s48"
    assert len(list(folder.rglob("*.png"))) == sum(sum(c.values()) for c in facts["counts"].values())


def test_heatmaps_are_written_once_and_gone_ones_again(exam_run: Path) -> None:
    config, _, _ = run.restore_best(exam_run)
    data, net = dataset.of_run(exam_run), heatmap.PatchNet(exam_run / "patch")
    folder = heatmap.write_channels(data, net, config.exam)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    gone = {folder / name: (folder / name).read_bytes() for name in ("val/1.png", "train/0.png", "test/2.png")}
    for path in gone:
        path.unlink()
    heatmap.write_channels(data, net, config.exam, threads=3)
    assert {path for path in before if path.stat().st_mtime_ns != before[path]} == set(gone)
    assert all(path.read_bytes() == content for path, content in gone.items())
    assert not list(folder.rglob("*.part"))


def test_dense_heatmaps_are_those_of_the_patch_network(exam_run: Path) -> None:
    """On one patch both ways give the same; on an image the windows see their neighbours."""
    config, _, _ = restore_best(exam_run)
    net = heatmap.PatchNet(exam_run / "patch")
    patch = np.random.default_rng(0).normal(size=(1, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(net._classify_all(patch, 2)[0, 0], net._classify(patch)[0], rtol=1e-5)
    config.exam.dense = True
    with pytest.raises(ValueError, match="needs a multiple of 32"):
        exams.sizes(config, config.data)
    config.exam.update(patch=64, stride=32)
    data = dataset.of_run(exam_run)
    assert heatmap.folder(data, net.digest, config.exam).name == f"{net.digest}_p64dense"
    pixels = np.random.default_rng(0).integers(0, 65536, (150, 100)).astype(np.uint16)
    dense = net.heatmaps(pixels, config.exam)
    config.exam.dense = False
    windows = net.heatmaps(pixels, config.exam)
    assert dense.shape == windows.shape == (150, 100, 2)
    assert (dense != windows).any()
    assert ((dense >= 0) & (dense <= 1)).all()


def test_columns_come_from_birads_and_the_stem_is_repeated(exam_run: Path) -> None:
    """Section IV-C, read from a run of zero epochs' worth: its start is what transfer made."""
    config, _, _ = restore_best(exam_run)
    network, sizes = exams.network(config.model), exams.sizes(config, config.data)
    started = start.variables(config, network, sizes, exam_run / "birads")["params"]
    theirs = load_best(exam_run / "birads")["params"]
    stem = started["column_CC"]["stem_conv"]["kernel"]
    assert stem.shape[2] == 3
    for channel in range(3):
        np.testing.assert_array_equal(stem[:, :, channel], theirs["column_CC"]["stem_conv"]["kernel"][:, :, 0])
    unit = "stage5_unit1"
    np.testing.assert_array_equal(
        started["column_MLO"][unit]["conv1"]["kernel"], theirs["column_MLO"][unit]["conv1"]["kernel"]
    )
    assert not np.array_equal(started["CC_hidden"]["kernel"], theirs["CC_hidden"]["kernel"])  # fresh Dense layers


@pytest.mark.slow
def test_a_killed_run_equals_an_uninterrupted_one(exam_run: Path) -> None:
    again = exam_run.parent / "again"
    for part in ("patch", "birads"):
        shutil.copytree(exam_run / part, again / part)
    process = subprocess.Popen(
        command(again, tiny=EXAMS), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    latest, deadline = again / "checkpoints" / "latest", time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if any(path.name.isdigit() and int(path.name) in (2, 4, 5) for path in latest.glob("*")):
            break  # inside an epoch of three steps
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (again / "metrics.json").exists()
    done = launch(again, tiny=EXAMS)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("metrics.json", "predictions/test.csv", "predictions/val_random10.csv"):
        assert (again / name).read_bytes() == (exam_run / name).read_bytes(), name


@pytest.mark.slow
def test_a_start_that_has_seen_the_test_patients_is_refused(exam_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "birads"
    shutil.copytree(exam_run / "birads", other)
    with (exam_run / "predictions" / "test.csv").open() as file:
        patient = next(csv.DictReader(file))["patient_id"]
    (other / "train_patients.txt").write_text(f"somebody\n{patient}")
    done = launch(
        exam_run.parent / "leak", f"--config.init_from={other}", f"--config.patch_run={exam_run / 'patch'}", tiny=EXAMS
    )
    assert done.returncode == 2
    assert "has learned from 1 patients who stand in the validation or test split" in done.stderr
    assert patient not in done.stderr
    (other / "train_patients.txt").unlink()
    done = launch(
        exam_run.parent / "leak", f"--config.init_from={other}", f"--config.patch_run={exam_run / 'patch'}", tiny=EXAMS
    )
    assert "does not say whom it has learned from" in done.stderr


def test_predict_equals_the_run_s_own_predictions(exam_run: Path, tmp_path: Path) -> None:
    """From DICOMs again, heatmaps included, as from the data set; its PNGs round heatmaps to 1/65535."""
    (manifest,) = (exam_run.parent / "data").rglob("manifest.csv")
    assert cli.main(["predict", "--run", str(exam_run), "--input", str(manifest), "--output", str(tmp_path)]) == 0
    with (tmp_path / "breasts.csv").open() as file:
        ours = {(row["exam_id"], row["laterality"]): row for row in csv.DictReader(file)}
    own = table.read_breasts(exam_run, "test").frame.to_dict("records")
    assert own
    for row in own:
        for name in ("p_malignant", "p_benign"):
            probability = float(ours[row["exam_id"], row["laterality"]][name])
            assert probability == pytest.approx(float(row[name]), abs=1e-3)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.tie", "all", "config.birads.model.tie is sides and config.model.tie all; set both"),
        ("exam.noise", 90, "config.exam.noise=90: give a number of pixels below half"),
        ("exam.stride", 200, "config.exam.stride=200: steps longer than exam.patch=48 leave gaps"),
        ("exam.patch", 64, "config.exam.patch=64: heatmaps slide what was learned"),
        ("exam.heatmaps", ("malignant", "outside"), "name malignant and benign"),
        ("patch_run", "nowhere", 'config.patch_run: "nowhere" is not a run folder'),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_made(
    tmp_path: Path, field: str, value: Any, message: str
) -> None:
    config = exam_quickstart.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(BadConfig, match=re.escape(message)):
        run.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_birads_network_does_not_predict_cancer(
    exam_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--run", str(exam_run / "birads"), "--input", str(tmp_path), "--output", str(tmp_path / "out")]
    assert cli.main(["predict", *arguments]) == 2
    assert "says nothing of cancer" in capsys.readouterr().err


def test_a_finished_run_is_tabulated_and_drawn(
    exam_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(exam_run)
    assert cli.main(["populations", "--run", run, "--by", "vendor", "--output", str(tmp_path / "p.json")]) == 0
    assert "by vendor" in capsys.readouterr().out
    assert json.loads((tmp_path / "p.json").read_text())
    assert cli.main(["reproduce", "wu2019", "--runs", run, "--output", str(tmp_path / "wu.html")]) == 0
    printed = capsys.readouterr().out
    assert "run on phantom_exams" in printed
    assert "0.886±0.003" in printed
    for name in ("lesions", "exam-heatmaps"):
        assert cli.main(["figure", name, "--run", run, "--output", str(tmp_path / f"{name}.png")]) == 0
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    readers = tmp_path / "readers.csv"
    rows = table.read_breasts(exam_run, "test_random10").frame.to_dict("records")[:-2]  # the last exam was not read
    lines = [
        f"{who},{row['exam_id']},{row['laterality']},{(k * 7 + who) % 100}"
        for who in (1, 2)
        for k, row in enumerate(rows)
    ]
    readers.write_text("\n".join(["reader,exam_id,laterality,p_malignant", *lines]) + "\n")
    assert cli.main(["readers", "--run", run, "--readers", str(readers), "--output", str(tmp_path / "readers")]) == 0
    assert (tmp_path / "readers" / "fig9.png").is_file()
    numbers = tmp_path / "p.json"
    assert cli.main(["populations", "--run", run, "--readers", str(readers), "--output", str(numbers)]) == 0
    populations = json.loads(numbers.read_text())
    (everyone,), (were_read,) = populations["runs"].values(), populations["readers"].values()
    assert were_read["screening"]["counts"]["breasts"] == len(rows) == everyone["screening"]["counts"]["breasts"] - 2


@pytest.mark.slow
def test_members_share_their_pretraining(exam_run: Path) -> None:
    workdir = exam_run.parent / "members"
    members = ["--config=configs/exam_ensemble.py:quickstart", *EXAMS[1:], "--config.members.seeds=(0,1)"]
    starts = [f"--config.patch_run={exam_run / 'patch'}", f"--config.init_from={exam_run / 'birads'}"]
    done = launch(workdir, *starts, tiny=members)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((workdir / "ensemble.json").read_text())
    assert result["members"] == 2
    first, second = (table.read_breasts(workdir / f"view-wise_{seed}", "test_random10") for seed in (0, 1))
    assert not np.array_equal(first.score(), second.score())
    mean = measure_breasts(table.ensemble([first, second]), 50, 0)
    assert result["test_random10"]["screening"]["benign"] == mean["screening"]["benign"]
