"""The Colab notebooks run from top to bottom, on runs made here, and install the package from a git address."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mammojax.data import phantom, phantom_exams
from tests import untrained

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore:.*event loop.*:RuntimeWarning"
)


def _run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **variables: str | Path) -> list[Any]:
    """Run a notebook in a folder, with its MAMMOJAX_ variables; the outputs of its cells."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    for variable, value in variables.items():
        monkeypatch.setenv(f"MAMMOJAX_{variable.upper()}", str(value))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # of `mammojax`
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]


def test_restore_notebook_predicts(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = sorted((finished.parent / "data").rglob("*.dcm"), key=lambda path: path.stat().st_size)[-2:]  # no crops
    outputs = _run("restore", tmp_path, monkeypatch, run=finished, images=":".join(map(str, images)))
    texts = [out["data"]["text/plain"] for out in outputs]
    assert len(texts) == 2
    assert all(text.startswith("array([0.") for text in texts)


def test_four_views_notebook_scores_and_shows_an_exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phantom_exams.write_exams(tmp_path / "exams", exams=3, image_size=(144, 96))
    run = untrained.exams(tmp_path / "RUN")
    outputs = _run("four_views", tmp_path, monkeypatch, run=run, exams=tmp_path / "exams" / "manifest.csv")
    assert any("image/png" in out.get("data", {}) for out in outputs)
    with (tmp_path / "scores" / "breasts.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


@pytest.mark.slow
def test_fine_tune_notebook_trains_folds_and_predicts(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantom.write_phantom(tmp_path / "hospital", patients=12, seed=7, image_size=(192, 128), both_breasts=True)
    manifest = tmp_path / "hospital" / "manifest.csv"
    outputs = _run("fine_tune", tmp_path, monkeypatch, run=finished, manifest=manifest, results=tmp_path / "ours")
    assert any("<html" in out.get("data", {}).get("text/html", "") for out in outputs)
    with (tmp_path / "scores" / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 48


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_variable_at_the_top_is_the_project_s_address(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first, install = [cell.source for cell in notebook.cells if cell.cell_type == "code"][:2]
    assert 'PROJECT = os.environ.get("MAMMOJAX_PROJECT", "")' in first
    assert "%pip install -q git+{PROJECT}" in install
    assert not any(cell.get("outputs") for cell in notebook.cells)  # no result of another machine


@pytest.mark.slow
def test_the_package_installs_from_a_git_address(tmp_path: Path) -> None:
    """What `%pip install git+{PROJECT}` does, without the dependencies: the package finds its configs."""
    pytest.importorskip("setuptools", reason="setuptools is not installed, which builds the package")
    address = f"git+file://{ROOT}"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    done = subprocess.run([*pip, str(tmp_path / "site"), address], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    code = "import mammojax; from mammojax import configs; print(mammojax.__file__, 'quickstart' in configs.names())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.stdout.split() == [str(tmp_path / "site" / "mammojax" / "__init__.py"), "True"], done.stderr
