"""README and docs: links lead somewhere, command lines are those of the program, the site builds; some commands run."""

import argparse
import csv
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from absl import flags
from ml_collections import config_flags

from benchmarks.__main__ import PARTS
from mammojax import cli, configs
from mammojax.data import phantom
from tests.tiny import ROOT

# ml_collections loads a config's file by a method that Python 3.12 removes.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MADE = {"commands.md", "configs.md", "changelog.md"}  # by docs/make_pages.py


def _prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if not link.startswith("http"):
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), link
            assert not anchor or anchor in _anchors(target), link


def test_every_page_stands_in_the_navigation_of_the_site() -> None:
    listed = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")} | MADE


def test_the_citation_file_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert all(work["doi"] in (ROOT / "README.md").read_text() for work in citation["references"])


def _blocks(page: Path) -> list[str]:
    """The command lines of a page's bash blocks."""
    return _lines(page.read_text())


def _lines(text: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in re.split(r"\n|&&", re.sub(r"\\\n\s*", "", block))]
    return [line for line in lines if line]


def _mentions(page: Path) -> list[str]:
    """The commands that stand in a page's text: of alternatives the first, with all that is optional.

    Those whose subject is a placeholder (NAME, HEAD, …) are left out.
    """
    prose = _prose(page).replace(r"\|", "|")
    lines = re.findall(r"(?<!`)`((?:mammojax|python launch\.py|python -m benchmarks) [^`\n]+)`", prose)
    lines = [re.sub(r" \| [^\]]*|\[/[^ ]*\]", "", line) for line in lines]
    lines = [re.sub(r"(\w[\w.-]*)\|[\w|.-]+", r"\1", line) for line in lines]
    lines = [re.sub(r"[\[\]…]", "", line).replace("--json FILE", "--json FILE.json") for line in lines]
    return [line for line in lines if not re.search(r"\b(NAME|HEAD|COMMAND|FIELD|JOIN)\b", line)]


def _parse(line: str, mention: bool = False) -> None:
    """Parse a command line as its program would, without running it; an exception or SystemExit if it does not parse.

    A mention in the text need not be complete.
    """
    words = shlex.split(line, comments=True)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    match words:
        case ["mammojax", "train", name, *rest]:
            file, _, argument = name.partition(":")
            _launch([f"--config={configs.module(file).__file__}{':' * bool(argument)}{argument}", *rest])
        case ["mammojax", name, *rest]:
            parser = argparse.ArgumentParser(name)
            importlib.import_module(f"mammojax.{cli.COMMANDS[name][0]}").add_arguments(parser)
            for action in parser._actions if mention else []:
                action.required = False
                action.nargs = "?" if action.nargs is None else "*" if action.nargs == "+" else action.nargs
            parser.parse_args(rest)
        case ["python", "launch.py", *rest]:
            _launch([word.replace("configs/", f"{ROOT}/configs/", 1) for word in rest])
        case ["python", "-m", "benchmarks", name, *rest]:
            source = (ROOT / "benchmarks" / f"{PARTS.get(name, name)}.py").read_text() + '"--json"'
            assert all(f'"{word}"' in source for word in rest if word.startswith("--"))
        case ["bash", file]:
            assert (ROOT / file).is_file()
        case ["pip", "install", *rest]:
            wanted = {extra for word in rest for group in re.findall(r"\[(.+)\]", word) for extra in group.split(",")}
            assert wanted <= set(PROJECT["optional-dependencies"])
        case ["pytest", *rest] | ["python", "-m", "pytest", *rest]:
            assert all((ROOT / word).is_file() for word in rest if word.endswith(".py"))
        case ["python", file]:
            assert (ROOT / file).is_file()
        case _:
            assert line in ("python -m venv .venv", ". .venv/bin/activate", "mkdocs build --strict")


def _launch(arguments: list[str]) -> None:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, lock_config=True)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_string("coordinator", None, "", flag_values=values)
    for name in ("num_processes", "process_id"):
        flags.DEFINE_integer(name, None, "", flag_values=values)
    sys.argv = ["launch.py", *arguments]  # where config_flags finds the fields that are set
    assert values(sys.argv) == ["launch.py"]
    assert values.config is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_command_lines_parse(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # a file to write gets its folder
    monkeypatch.setattr(sys, "argv", sys.argv)
    wrong = []
    for line, mention in [(line, False) for line in _blocks(page)] + [(line, True) for line in _mentions(page)]:
        try:
            _parse(line, mention)
        except (SystemExit, Exception) as error:
            wrong.append(f"{line}: {error!r} {capsys.readouterr().err}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line", ["mammojax predict --run RUN --inputs X --output Y", "mammojax predict --run RUN", "pip install '.[none]'",
             "python launch.py --config configs/film.py --config.no=1", "mammojaxx",
             "python -m benchmarks film --fold 1"],
)  # fmt: skip
def test_a_wrong_line_would_be_noticed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises((SystemExit, AssertionError, AttributeError)):
        _parse(line)


@pytest.mark.slow
def test_a_hospital_s_folder_goes_as_its_page_says(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of docs/your-data.md, one after the other, on a small folder.

    Those of its first section, which needs no outlines; tests/test_proposal.py tests what the second says.
    """
    phantom.write_phantom(tmp_path / "FOLDER", patients=16, seed=7, image_size=(192, 128), both_breasts=True)
    with (tmp_path / "FOLDER" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (tmp_path / "labels.csv").write_text(
        "image,pathology\n" + "".join(f"{row['image']},{row['pathology']}\n" for row in rows)
    )
    (tmp_path / "RUN").symlink_to(finished)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = []
    first_section, _, second = (ROOT / "docs" / "your-data.md").read_text().partition("\n## ")
    assert "outlined.csv" not in first_section
    assert "mammojax plan --data outlined.csv" in second
    for line in _lines(first_section):
        if "--workdir" not in line and "NEW_FOLDER" not in line:  # hours, and what needs its result
            code = cli.main(shlex.split(line)[1:])
            assert code in ((0, 1) if "check" in line else (0,)), line
            done.append(line.split()[1])
    assert done == ["manifest", "check", "finetune"]
    assert (tmp_path / "check.html").is_file()
    assert "fold 5" in capsys.readouterr().out


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install '.[docs]'")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "--sensitivity" in (tmp_path / "commands.html").read_text()
    assert "config.stages.stage1.epochs" in re.sub("<[^>]+>", "", (tmp_path / "configs.html").read_text())
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*", page.read_text())
        assert not [tag for tag in loaded if 'rel="canonical"' not in tag], page.name
    assert not re.search(r"@import|url\(\W?(?:https?:)?//", "".join(p.read_text() for p in tmp_path.rglob("*.css")))
