"""The Colab notebook runs, on a run made here."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore:.*event loop.*:RuntimeWarning"
)
def test_restore_notebook_predicts(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    images = sorted((finished.parent / "data").rglob("*.dcm"), key=lambda path: path.stat().st_size)[-2:]  # no crops
    monkeypatch.setenv("MAMMOJAX_RUN", str(finished))
    monkeypatch.setenv("MAMMOJAX_IMAGES", ":".join(map(str, images)))
    notebook = nbformat.read(ROOT / "notebooks" / "restore.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [out["data"]["text/plain"] for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert len(outputs) == 2
    assert all(text.startswith("array([0.") for text in outputs)
