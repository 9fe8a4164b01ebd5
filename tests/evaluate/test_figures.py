"""Each figure is drawn from a finished run and shows what it is for."""

from pathlib import Path

import cv2
import matplotlib.colors
import numpy as np
import pytest

from mammojax import cli
from mammojax.evaluate import figures


def _count(path: Path, colour: str) -> int:
    """Pixels of about this colour."""
    image = cv2.imread(str(path))[..., ::-1].astype(int)
    wanted = np.array([round(255 * c) for c in matplotlib.colors.to_rgb(colour)])
    return int((np.abs(image - wanted).max(axis=-1) < 40).sum())


@pytest.mark.parametrize(
    ("name", "runs", "colour"),
    [
        ("saliency", ("",), "red"),
        ("heatmap", ("",), figures.MALIGNANT),
        ("confusion", ("patch", "patch"), "#6baed6"),  # a cell that holds half of its row
        ("intensity", ("", ""), figures.report.RED),
        ("loss", ("", "patch"), figures.report.RED),
    ],
)
def test_a_figure_shows_what_it_is_for(
    finished: Path, tmp_path: Path, name: str, runs: tuple[str, ...], colour: str
) -> None:
    out = tmp_path / "figure.png"
    arguments = [argument for run in runs for argument in ("--run", str(finished / run))]
    assert cli.main(["figure", name, *arguments, "--output", str(out)]) == 0
    assert _count(out, colour) > 20
    assert min(cv2.imread(str(out)).shape[:2]) > 300


def test_a_patch_run_has_no_saliency(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.png")
    assert cli.main(["figure", "saliency", "--run", str(finished / "patch"), "--output", out]) == 2
    assert "is a patch run" in capsys.readouterr().err
