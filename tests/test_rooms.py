"""The import rules of docs/architecture.md, and no TensorFlow at run time."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mammojax"
SMALL = {"arguments", "compilation", "errors", "extension", "heap", "processes", "vocabulary"}
ALLOWED = {
    "data": {"data", "metrics", *SMALL},
    "models": {"models", *SMALL},
    "train": {"train", "data", "models", "metrics", *SMALL},
    "evaluate": {"evaluate", "data", "models", "metrics", "train.checkpoint", *SMALL},
    "papers": {"papers", "evaluate", "configs", "metrics", "train.checkpoint", *SMALL},
    "reading": {"reading", "evaluate", "data", "metrics", "train.checkpoint", *SMALL},
    "tasks": {"evaluate", "data", "models", "train", "start", "tasks.images", *SMALL},
    "run.py": {
        "tasks",
        "plan",
        "start",
        "run_folder",
        "train_patients",
        "config_values",
        "data",
        "train",
        "evaluate.report",
        *SMALL,
    },
    "config_values.py": {"data", "train", *SMALL},
    "metrics.py": set(),
    "arguments.py": set(),
    "compilation.py": set(),
    "errors.py": set(),
    "extension.py": {"errors"},
    "heap.py": set(),
    "processes.py": {"errors"},
    "vocabulary.py": set(),
}


def _imports(file: Path) -> set[str]:
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mammojax"):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names if alias.name.startswith("mammojax")}
    return {name.removeprefix("mammojax.") for name in imported}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_its_neighbours(room: str) -> None:
    files = [PACKAGE / room] if room.endswith(".py") else sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for file in files:
        for name in _imports(file):
            assert any(name == ok or name.startswith(ok + ".") for ok in ALLOWED[room]), f"{file.name} imports {name}"


def test_only_the_pipeline_touches_grain() -> None:
    users = [f.name for f in PACKAGE.rglob("*.py") if "grain" in {n.split(".")[0] for n in _all_imports(f)}]
    assert users == ["pipeline.py"]


def test_only_what_writes_and_reads_data_sets_touches_tfds() -> None:
    users = [f.name for f in PACKAGE.rglob("*.py") if "tensorflow_datasets" in _all_imports(f)]
    assert sorted(users) == ["builder.py", "dataset.py", "prepare.py", "shards.py", "source.py"]


def _all_imports(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    imported = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return imported | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}


def test_files_stay_small() -> None:
    assert all(len(f.read_text().splitlines()) <= 450 for f in PACKAGE.rglob("*.py"))


def test_tensorflow_is_not_imported() -> None:
    code = "import mammojax.run, mammojax.cli, sys; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_only_the_table_reads_with_pandas() -> None:
    users = {f.name for f in PACKAGE.rglob("*.py") if "pd.read_" in f.read_text()}
    assert users == {"table.py"}


def test_no_public_class_name_occurs_twice() -> None:
    files: dict[str, list[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files.setdefault(node.name, []).append(str(file.relative_to(PACKAGE)))
    assert {name: where for name, where in files.items() if len(where) > 1} == {}


def test_every_file_that_a_docstring_cites_is_in_the_repository() -> None:
    root, missing = PACKAGE.parent, []
    for file in [*PACKAGE.rglob("*.py"), *(root / "configs").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                continue
            for cited in re.findall(
                r"(?<![\w/.])[\w/-]+\.(?:py|md)\b", (ast.get_docstring(node) or "").replace("NAME.py", "")
            ):
                if not any((folder / cited).is_file() for folder in (root, PACKAGE, file.parent)):
                    missing.append(f"{file.name} cites {cited}")
    assert missing == []


def test_every_room_is_packaged() -> None:
    packages = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {f"mammojax.{folder.name}" for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
    assert set(packages) == rooms | {"mammojax", "mammojax.config_files"}
