"""What the reading room lists: exams of four views, scores of images and breasts, measures at every threshold."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mammojax import metrics
from mammojax.data import dataset
from mammojax.data.manifest import Image
from mammojax.errors import BadMammogram, NotComparable
from mammojax.evaluate import table
from mammojax.reading import worklist
from mammojax.reading.worklist import Worklist
from tests.evaluate.conftest import data, exam_run, films  # noqa: F401


def _image(name: str, exam: str, side: str, view: str, pathology: str = "") -> Image:
    return Image(name, Path(name), "P" + exam, exam, side, view, pathology)


def test_an_exam_hangs_in_the_order_of_its_views() -> None:
    places = [("d", "1", "R-MLO"), ("x", "1", "R-XCCL"), ("a", "1", "L-CC"), ("e", "2", "L-CC"), ("b", "1", "R-CC")]
    images = [_image(name, exam, *view.split("-")) for name, exam, view in places]
    listed = Worklist("test", images)
    assert [[images[k].image for k in case] for case in listed.cases] == [["a", "b", "d", "x"], ["e"]]
    assert listed.operating() is None


def test_measures_are_those_of_the_metrics() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], [60, 20])
    score = np.round(rng.normal(label, 1), 1)
    patient = np.arange(80) // 2
    found = worklist.at_thresholds(label, score, patient)
    assert found["n"] == [60, 20]
    for k, at in enumerate(found["threshold"]):
        called = score >= at
        assert found["sensitivity"][k][0] == pytest.approx(called[label == 1].mean())
        assert found["specificity"][k][0] == pytest.approx(1 - called[label == 0].mean())
        assert found["recall"][k][0] == pytest.approx(called.mean())
    assert found["recall"][-1][0] == 0  # the last one recalls nobody
    k = len(found["threshold"]) // 2
    at = found["threshold"][k]
    called = score >= at

    def sensitivity(weights: np.ndarray | None) -> np.ndarray | float:
        return metrics.accuracy(called[label == 1], np.ones(20), None if weights is None else weights[:, label == 1])

    expected = metrics.interval_of(sensitivity, patient, worklist.RUNS)
    assert found["sensitivity"][k] == pytest.approx(list(expected))


def test_too_few_malignant_images_have_no_interval() -> None:
    found = worklist.at_thresholds(np.repeat([0, 1], [30, 5]), np.linspace(0, 1, 35), np.arange(35))
    assert found["sensitivity"][3][1:] == [None, None]
    assert None not in found["specificity"][3]


def test_many_scores_are_thinned_out() -> None:
    found = worklist.at_thresholds(np.arange(1000) % 2, np.random.default_rng(0).random(1000), np.arange(1000))
    assert len(found["threshold"]) == worklist.MOST_THRESHOLDS
    assert found["recall"][0][0] == 1
    assert found["recall"][-1][0] == 0


def test_a_run_shows_its_test_images_with_its_scores(finished: Path) -> None:
    listed = worklist.of_run(finished, "test")
    frame = table.read_csv(finished / "predictions" / "test.csv")
    assert sorted(image.image for image in listed.images) == sorted(frame["image"])
    by_name = dict(zip(frame["image"], frame["p_malignant"].map(float), strict=True))
    assert all(s.score == by_name[image.image] for image, s in zip(listed.images, listed.scored, strict=True))
    assert all(image.path.is_file() for image in listed.images)
    assert any(image.lesions for image in listed.images)
    assert listed.operating()["unit"] == "images"


def test_an_exam_run_gives_each_image_its_breasts_score(data: dataset.Prepared, tmp_path: Path) -> None:  # noqa: F811
    run = exam_run(tmp_path / "run", data)
    listed = worklist.of_run(run, "test")
    frame = table.read_csv(run / "predictions" / "test.csv")
    assert listed.by_breast
    assert len({worklist.breast_of(image) for image in listed.images}) == len(frame)
    assert sum(listed.operating()["n"]) == len(frame)


def test_what_cannot_be_shown_is_listed_or_refused(finished: Path, films: list[Path], tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "films"
    folder.mkdir()
    with pytest.raises(BadMammogram, match="no mammogram"):
        worklist.of_input(folder, {}, None)
    for k, path in enumerate(films[:2]):
        shutil.copy(path, folder / f"{k}.dcm")
    (folder / "notes.txt").write_text("no image")
    listed = worklist.of_input(folder, {}, None)
    assert [image.image for image in listed.images] == ["0.dcm", "1.dcm"]
    assert [name for name, _ in listed.rejected] == ["notes.txt"]
    assert all(re.fullmatch("([0-9a-f]{16})?", image.patient_id) for image in listed.images)  # never the header's own
    with pytest.raises(NotComparable, match="name none of the images"):
        worklist.joined(listed, pd.DataFrame({"image": ["z"], "p_malignant": ["0.5"]}))
    with pytest.raises(NotComparable, match="no predictions"):
        worklist.of_run(finished, "train")
