"""The figures of exams show what is true of the data set and of the run's predictions, and name nobody."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import cv2
import jax
import numpy as np
import pytest
from matplotlib.contour import ContourSet

from mammojax.data import dataset
from mammojax.data.exams import exams_of, read_ahead
from mammojax.errors import BadCheckpoint, NotComparable
from mammojax.evaluate import embedding, figures
from mammojax.evaluate.predictor import ExamPredictor
from mammojax.train.checkpoint import restore_best
from tests.evaluate.conftest import HEATMAPS, SIZES, exam_run


def _examples(data: dataset.Prepared) -> list[dict]:
    return list(data.source("test"))


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "predictions" / "test.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_lesions_are_filled_where_they_are_and_both_kinds_come_first(data: dataset.Prepared, tmp_path: Path) -> None:
    pictures = figures.outlined_exams(exam_run(tmp_path, data))
    assert [picture.caption for picture in pictures] == [
        "Visible findings: malignant and benign", "Visible findings: malignant", "Visible findings: benign"
    ]  # fmt: skip
    masks = {example["image"][..., 0].tobytes(): example["masks"][..., 0] for example in _examples(data)}
    colours = []
    for axes in figures.exam_figure(pictures).axes:
        mirrored = axes.texts[0].get_text().startswith("R")
        pixels, *tints = (np.asarray(image.get_array()) for image in axes.images)
        mask = masks[(pixels[:, ::-1] if mirrored else pixels).tobytes()]
        for tint in tints:
            red = tint[0, 0, 0] > tint[0, 0, 1]
            tint = tint[:, ::-1] if mirrored else tint
            np.testing.assert_array_equal(tint[..., 3], 0.5 * (mask == (2 if red else 1)))
            colours.append("red" if red else "green")
    assert (colours.count("red"), colours.count("green")) == (4, 4)  # two breasts of each kind, two views


def test_a_lesion_of_a_large_image_is_drawn_small(
    data: dataset.Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = exam_run(tmp_path, data)
    (large, *_), side = figures.outlined_exams(run), 100
    monkeypatch.setattr(figures, "LARGEST", side)
    (small, *_) = figures.outlined_exams(run)
    for view, image in small.images.items():
        assert max(image.shape) == side
        assert image.shape == small.lesions[view].shape
        assert small.lesions[view].mean() == pytest.approx(large.lesions[view].mean(), rel=0.2, abs=1e-6)


def test_heatmaps_are_those_of_the_chosen_breasts(data: dataset.Prepared, tmp_path: Path) -> None:
    run = exam_run(tmp_path, data, heatmaps=True)
    rows = [{**row, "p": float(row["p_malignant"])} for row in _rows(run)]
    malignant = sorted((row for row in rows if row["malignant"] == "1"), key=lambda row: row["p"])
    benign = [row for row in rows if (row["benign"], row["malignant"]) == ("1", "0")]
    chosen = [malignant[-1], malignant[0], max(benign, key=lambda row: row["p"])]
    pictures = figures.surest_exams(run)
    assert len(pictures) == 3
    examples = {example["image"][..., 0].tobytes(): example["masks"][..., 0] for example in _examples(data)}
    indices = {exam.exam_id: exam.images for exam in exams_of(data, "test")}
    for picture, row in zip(pictures, chosen, strict=True):
        side = "left" if row["laterality"] == "L" else "right"
        assert f"({side})\n" in picture.caption
        assert f"{side}: p(malignant) = {row['p']:.2f}, p(benign) = {float(row['p_benign']):.2f}" in picture.caption
        assert row["exam_id"] not in picture.caption
        assert row["patient_id"] not in picture.caption
        assert set(picture.images) == set(indices[row["exam_id"]])
        for view, image in picture.images.items():
            mask = examples[image.tobytes()]
            blurred = [cv2.GaussianBlur((mask == value).astype(np.float32), (0, 0), 7) for value in (2, 1)]
            np.testing.assert_allclose(picture.heatmaps[view], np.stack(blurred, axis=-1), atol=1e-4)
    figure = figures.exam_figure(pictures)
    assert len(figure.axes) == 3 * 3 * 4
    outlines = sum(isinstance(collection, ContourSet) for axes in figure.axes for collection in axes.collections)
    assert outlines == 3 * sum(v in marks for picture in pictures for marks in picture.lesions.values() for v in (1, 2))
    for part, name in ((1, "malignant"), (2, "benign")):  # panels of the first exam
        axes = figure.axes[4 * part]
        tint = np.asarray(axes.images[1].get_array())
        heatmap = pictures[0].heatmaps["R-CC"][:, ::-1, ("malignant", "benign").index(name)]
        np.testing.assert_allclose(tint[..., 3], 0.75 * heatmap)


def test_figures_that_cannot_be_drawn_are_refused(
    data: dataset.Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = exam_run(tmp_path / "run", data), tmp_path / "x.png"
    with pytest.raises(BadCheckpoint, match="takes no heatmaps"):
        figures.write("exam-heatmaps", [run], out)
    with monkeypatch.context() as of_no_exams:
        of_no_exams.setattr(figures.exams, "exams_of", lambda *_: [])
        with pytest.raises(BadCheckpoint, match="val split has no outlined lesion"):
            figures.write("lesions", [run], out, "val")
    readers = tmp_path / "readers.csv"
    exam_id = exams_of(data, "test")[0].exam_id
    readers.write_text(f"reader,exam_id,laterality,p_malignant\na,{exam_id},L,0.1\na,{exam_id},R,0.2\n")
    with pytest.raises(NotComparable, match="shows no readers"):
        figures.write("lesions", [run], out, readers=readers)
    with pytest.raises(BadCheckpoint, match="of its test split 1 exams"):
        figures.write("umap", [run], out, readers=readers)
    with pytest.raises(BadCheckpoint, match="BI-RADS run"):
        figures.write("umap", [exam_run(tmp_path / "birads", data, target="birads")], out)
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(BadCheckpoint, match=r"pip install 'mammojax\[umap\]'"):
        figures.write("umap", [run], out)
    assert not out.exists()


def test_activations_are_those_that_the_predictions_come_from(data: dataset.Prepared, tmp_path: Path) -> None:
    run = exam_run(tmp_path, data, heatmaps=True)
    chosen = {exam.exam_id for exam in exams_of(data, "test")[:3]}
    exams_drawn, columns, hidden = embedding.activations(run, "test", chosen)
    assert {exam.exam_id for exam in exams_drawn} == chosen
    config, facts, variables = restore_best(run)
    folder = data.path / "heatmaps" / f"{HEATMAPS}_p48s13"
    predictor = ExamPredictor(config, facts, variables)
    layers = variables["params"]
    channels = (folder, [1, 0])  # the config's order: benign, malignant
    predicted = {
        exam.exam_id: predictor.probabilities(views, exam.exam_id)[:, 1]
        for exam, views in read_ahead(data, "test", SIZES, channels)
    }
    half = columns.shape[1] // 2
    for k, exam in enumerate(exams_drawn):
        probabilities = []
        for branch, part in (("CC", slice(half)), ("MLO", slice(half, None))):
            first, last = layers[f"{branch}_hidden"], layers[f"{branch}_logits"]
            activated = np.maximum(columns[k, part] @ first["kernel"] + first["bias"], 0)
            np.testing.assert_allclose(hidden[k, part], activated, rtol=1e-4, atol=1e-4)
            logits = (hidden[k, part] @ last["kernel"] + last["bias"]).reshape(4, 2)
            probabilities.append(np.asarray(jax.nn.softmax(logits))[:, 1])
        np.testing.assert_allclose(np.mean(probabilities, axis=0), predicted[exam.exam_id], atol=1e-5)


def test_points_are_coloured_by_the_readers_and_malignant_exams_are_crossed(
    data: dataset.Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "embed", lambda vectors: vectors[:, :2])
    monkeypatch.setitem(sys.modules, "umap", ModuleType("umap"))
    run, rng = exam_run(tmp_path / "run", data), np.random.default_rng(1)
    exams = exams_of(data, "test")
    opinions = {(reader, e.exam_id, side): rng.random() for reader in "ab" for e in exams for side in "LR"}
    lines = ["reader,exam_id,laterality,p_malignant", *(",".join(map(str, (*k, v))) for k, v in opinions.items())]
    (tmp_path / "readers.csv").write_text("\n".join(lines))
    own = {(row["exam_id"], row["laterality"]): float(row["p_malignant"]) for row in _rows(run)}
    own_means = [np.mean([own[e.exam_id, side] for side in "LR"]) for e in exams]
    reader_means = [np.mean([opinions[r, e.exam_id, side] for r in "ab" for side in "LR"]) for e in exams]
    layers = rng.normal(size=(2, len(exams), 4))
    monkeypatch.setattr(embedding, "activations", lambda *_: (exams, *layers))
    crossed = np.array([(e.label[2:] == 1).any() for e in exams])
    for file, means, words in (
        (None, own_means, "this run's predictions"),
        (tmp_path / "readers.csv", reader_means, "mean of 2 readers"),
    ):
        figure = figures.umap(run, "test", file)
        assert words in figure.get_suptitle()
        for axes, vectors in zip(figure.axes, layers, strict=False):
            dots, crosses = axes.collections
            order = np.argsort(means)
            np.testing.assert_allclose(dots.get_array(), np.sort(means), rtol=1e-12)
            np.testing.assert_allclose(dots.get_offsets(), vectors[order, :2])
            assert (np.diff(dots.get_sizes()) > 0).all()
            np.testing.assert_allclose(crosses.get_offsets(), vectors[crossed, :2])


@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="needs the extra umap")
@pytest.mark.slow  # umap-learn compiles itself when it is imported
def test_the_embedding_keeps_groups_apart_and_is_the_same_twice() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 32)).astype(np.float32)
    vectors[20:] += 20
    points = embedding.embed(vectors)
    np.testing.assert_array_equal(embedding.embed(vectors), points)
    middle = points[:20].mean(0), points[20:].mean(0)
    spread = max(points[:20].std(), points[20:].std())
    assert np.linalg.norm(middle[0] - middle[1]) > 3 * spread
