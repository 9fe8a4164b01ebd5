"""The command line itself: version, near names, help of launch.py, sizes, completion in a shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mammojax
from mammojax import cli, configs, launch

ROOT = Path(__file__).resolve().parents[1]


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"mammojax {mammojax.__version__}\n"


@pytest.mark.parametrize(("word", "words"), [("predcit", "did you mean predict?"), ("zzz", "mammojax --help")])
def test_a_mistyped_command_is_answered_with_the_nearest(
    word: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_help_lists_the_experiments_and_how_to_set_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.launch(["launch.py", "--help"]) == 0
    printed = capsys.readouterr().out
    for name in configs.names():
        (line,) = (line for line in printed.splitlines() if line.startswith(f"  configs/{name}.py "))
        assert configs.line(name) in line
    assert "--config.data.size=288x224" in printed


def test_a_config_file_that_is_not_there_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in (["--config=configs/quickstrat.py"], ["--config", "configs/quickstrat.py:row"]):
        assert launch.launch(["launch.py", *argument]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert 'no config file "configs/quickstrat.py"; did you mean configs/quickstart.py?' in line


def test_a_size_may_be_written_with_a_cross() -> None:
    code = "from mammojax import launch; import sys; from unittest import mock; from mammojax import families\n"
    code += "shown = lambda config, workdir: print(config.data.size, config.model.head)\n"
    code += (
        "with mock.patch.object(families, 'launch', shown):\n    sys.exit(launch.launch(['launch.py', *sys.argv[1:]]))"
    )
    fields = ["--config.data.size=288x224", "--config.model.head=256x1", "--workdir=x"]
    done = subprocess.run(
        [sys.executable, "-c", code, "--config=configs/whole_resnet.py", *fields],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "(288, 224) 256x1" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("typed", "expected"), [("mammojax pred", "predict"), ("mammojax predict --keep", "--keep-id")]
)
def test_a_shell_completes_commands_and_options(typed: str, expected: str) -> None:
    pytest.importorskip("argcomplete", reason="argcomplete is not installed: `pip install 'mammojax[completion]'`")
    environment = {**os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": typed, "COMP_POINT": str(len(typed)),
                   "_ARGCOMPLETE_IFS": "\n"}  # fmt: skip
    command = f"{sys.executable} -m mammojax.cli 8>&1 9>/dev/null"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert expected in done.stdout, done.stderr
