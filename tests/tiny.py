"""The quickstart shrunk until it runs in seconds: the same path, too small to learn anything."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TINY = [
    "--config=configs/quickstart.py",
    "--config.phantom.patients=24",
    "--config.data.workers=1",
    "--config.data.size=(96,64)",
    "--config.data.patch_size=32",
    "--config.model.width=4",
    "--config.patch.model.width=4",
    "--config.model.blocks=(1,1,1,1)",
    "--config.patch.model.blocks=(1,1,1,1)",
    "--config.model.head=8-8-16x1",
    "--config.batch=4",
    "--config.bootstrap_runs=100",
    "--config.checkpoint_steps=3",
    "--config.gallery=1",
    "--config.patch.stages.stage1.epochs=1",
    "--config.patch.checkpoint_steps=5",
    "--config.stages.stage1.epochs=2",
    "--config.stages.stage2.epochs=2",
]


def command(workdir: Path, *extra: str) -> list[str]:
    return [
        sys.executable,
        "launch.py",
        *TINY,
        f"--workdir={workdir}",
        f"--config.data.data_dir={workdir.parent}/data",
        *extra,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}


def launch(workdir: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(workdir, *extra), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
