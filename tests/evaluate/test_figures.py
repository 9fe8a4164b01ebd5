"""Each figure is drawn from a finished run and shows what it is for."""

from pathlib import Path

import cv2
import matplotlib.colors
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.contour import ContourSet

from mammojax import cli
from mammojax.data import dataset
from mammojax.evaluate import figures, plots, saliency, table
from mammojax.train.checkpoint import restore_best


def _count(path: Path, colour: str) -> int:
    """Pixels of about this colour."""
    image = cv2.imread(str(path))[..., ::-1].astype(int)
    expected = np.array([round(255 * c) for c in matplotlib.colors.to_rgb(colour)])
    return int((np.abs(image - expected).max(axis=-1) < 40).sum())


@pytest.mark.parametrize(
    ("name", "runs", "colour"),
    [
        ("saliency", ("",), "red"),
        ("heatmap", ("",), plots.OF_SHEN["malignant"]),
        ("confusion", ("patch", "patch"), "#6baed6"),  # a cell that holds half of its row
        ("intensity", ("", ""), plots.RED),
        ("loss", ("", "patch"), plots.RED),
    ],
)
def test_a_figure_shows_its_subject(
    finished: Path, tmp_path: Path, name: str, runs: tuple[str, ...], colour: str
) -> None:
    out = tmp_path / "figure.png"
    arguments = [argument for run in runs for argument in ("--run", str(finished / run))]
    assert cli.main(["figure", name, *arguments, "--output", str(out)]) == 0
    pixels = _count(out, colour)
    assert pixels > 100, pixels  # more than a legend has
    assert min(cv2.imread(str(out)).shape[:2]) > 300


def test_saliency_shows_the_pixels_of_the_map_and_the_lesions_of_the_image(finished: Path) -> None:
    figure = figures.saliency(finished)
    data, (config, facts, variables) = dataset.of_run(finished), restore_best(finished)
    examples = list(data.source("test"))
    for axes in figure.axes:
        pixels = np.asarray(axes.images[0].get_array())
        example = next(e for e in examples if np.array_equal(e["image"][..., 0], pixels))
        y, x = np.nonzero(saliency.saliency(config, facts, variables, example["image"][None])[0])
        outlines = [collection for collection in axes.collections if isinstance(collection, ContourSet)]
        (dots,) = (collection for collection in axes.collections if isinstance(collection, PathCollection))
        np.testing.assert_array_equal(dots.get_offsets(), np.stack([x, y], axis=1))
        assert len(outlines) == len(set(np.unique(example["masks"])) & {1, 2})
        kind, score = axes.get_title().split(", p(malignant) = ")
        assert example["label"] == (kind != "false positive")
        frame = table.read_images(finished, "test").frame.set_index("image")
        row = frame.loc[example["image_id"].decode()]
        assert float(score) == pytest.approx(float(row["p_malignant"]), abs=0.005)


@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_a_figure_for_print_is_the_same_twice(finished: Path, tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        figures.write("loss", [finished], tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_nested_patch_runs_have_different_titles(finished: Path, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).symlink_to(finished)
    figure = figures.confusion([tmp_path / "a" / "patch", tmp_path / "b" / "patch"])
    assert [axes.get_title() for axes in figure.axes] == ["a/patch", "b/patch"]


def test_a_patch_run_has_no_saliency(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.png")
    assert cli.main(["figure", "saliency", "--run", str(finished / "patch"), "--output", out]) == 2
    assert "is a patch run" in capsys.readouterr().err
