"""Both quickstarts shrunk until they run in seconds: the same path, too small to learn anything."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLAGS = "--xla_force_host_platform_device_count=2"
IMAGES = [
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

EXAMS = [
    "--config=configs/exam_quickstart.py",
    "--config.phantom.exams=40",
    "--config.data.workers=1",
    "--config.exam.sizes={'CC': (96, 64), 'MLO': (104, 64)}",
    "--config.birads.exam.sizes={'CC': (96, 64), 'MLO': (104, 64)}",
    "--config.model.width=2",
    "--config.birads.model.width=2",
    "--config.patch.model.width=4",
    "--config.patch.model.blocks=(1,1,1,1)",
    "--config.patch.stages.stage1.epochs=1",
    "--config.birads.stages.stage1.epochs=1",
    "--config.stages.stage1.epochs=2",
    "--config.exam.stride=48",
    "--config.bootstrap_runs=50",
    "--config.checkpoint_steps=1",
]


def command(workdir: Path, *extra: str, tiny: list[str] = IMAGES) -> list[str]:
    """The command line of a tiny run; data sets are shared by the runs of one folder."""
    data = f"--config.data.data_dir={workdir.parent}/data"
    return [sys.executable, "launch.py", *tiny, f"--workdir={workdir}", data, *extra]


def environment() -> dict[str, str]:
    """What the tests' own process runs with: two fake devices."""
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS}


def launch(workdir: Path, *extra: str, tiny: list[str] = IMAGES) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end."""
    line = command(workdir, *extra, tiny=tiny)
    return subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def joined(count: int) -> list[list[str]]:
    """The flags of each of `count` processes of one run on loopback; none for a process of its own."""
    if count == 1:
        return [[]]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    return [[address, f"--num_processes={count}", f"--process_id={k}"] for k in range(count)]


def together(line: list[str], count: int, settings: dict[str, str], seconds: float) -> list[str]:
    """Run `count` processes of a command on loopback to their ends, within so many seconds; what each printed."""
    started = [
        subprocess.Popen([*line, *own], cwd=ROOT, env={**os.environ, **settings}, stdout=-1, stderr=-2, text=True)
        for own in joined(count)
    ]
    try:
        printed = [process.communicate(timeout=seconds)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * count, printed
    return printed


def recorded(workdir: Path, tiny: list[str] = IMAGES) -> Path:
    """Run `command` to its end, with what JAX compiles between the lines of its output, beside it in log.txt."""
    with (workdir.parent / "log.txt").open("w") as log:
        code = subprocess.call(
            command(workdir, tiny=tiny), cwd=ROOT, env=environment() | {"JAX_LOG_COMPILES": "1"},
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    assert code == 0, (workdir.parent / "log.txt").read_text()[-3000:]
    return workdir


def compiled_by_epoch(workdir: Path) -> dict[str, list[list[str]]]:
    """By the name of a stage, the programs compiled in each of its epochs of a `recorded` run, validation included."""
    stages: dict[str, list[list[str]]] = {}
    programs: list[str] = []
    for line in (workdir.parent / "log.txt").read_text().splitlines():
        if compiling := re.search(r"Compiling (\S+) with global shapes", line):
            programs.append(compiling[1])
        elif epoch := re.match(r"(.+?) +epoch +\d+/\d+ ", line):
            stages.setdefault(epoch[1], []).append(programs)
            programs = []
    return stages
