"""The report of a made-up run: it stands alone, escapes what it is given and says what cannot be computed."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from mammojax import run
from mammojax.evaluate.run_report import GalleryItem, write_image_report

PATCH = ["background", "malignant_mass", "benign_mass", "malignant_calcification", "benign_calcification"]


def _workdir(folder: Path, classes: list[str], label: np.ndarray, auc: float = 0.81) -> Path:
    """What run.py leaves before the report is written."""
    rng, whole = np.random.default_rng(0), len(classes) == 2
    framing = {"size": [288, 224], "crop": "breast", "keep_aspect": True}
    facts = {
        "name": "manifest", "kind": "whole", "split": "shen", "framing": framing, "mean": 39.7, "rejected": 3,
        "classes": classes, "counts": {s: dict.fromkeys(classes, 7) for s in ("train", "val", "test")},
    }  # fmt: skip
    config = {"data": {"source": "/secret/folder", "data_dir": "", "name": "manifest"}, "init_from": "/secret/run"}
    (folder / "config.json").write_text(json.dumps({"config": config, "facts": facts}))
    (folder / "versions.json").write_text(json.dumps({"python": "3.11", "packages": {"jax": "0.10.2"}}))
    cell = {"value": auc, "low": auc, "high": auc}
    measured = {"auc": cell} if whole else {"accuracy": cell}
    matrix = np.full((len(classes),) * 2, 4).tolist()
    results = {split: {**measured, "confusion_matrix": matrix, "images": 7} for split in ("val", "test")}
    (folder / "metrics.json").write_text(json.dumps(results))
    log = []
    for k, stage in enumerate(["new layers"] * 3 + ["all layers"] * 2):
        common = {"stage": stage, "epoch": k + 1, "step": 10 * k, "loss": 1 / (k + 1), "accuracy": 0.5}
        log.append({"kind": "train", **common, "images_per_s": 9.0, "seconds": 1.0})
        log.append({"kind": "val", **common, **({"auc": 0.5 + k / 10} if whole else {}), "best": k < 4})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    (folder / "predictions").mkdir()
    with (folder / "predictions" / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        columns = ["p_malignant"] if whole else [f"p_{name}" for name in classes]
        writer.writerow(["image", "patient_id", "exam_id", "laterality", "view", "label", *columns])
        for k, value in enumerate(label):
            writer.writerow([f"image_{k}", f"patient_{k // 2}", "", "L", "CC", value, *rng.random(len(columns))])
        writer.writerow(["unlabelled", "patient_x", "", "L", "CC", "", *rng.random(len(columns))])
    return folder


def test_a_whole_image_report_stands_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((72, 56), np.uint8)
    mask[20:40, 20:40], mask[50:60, 10:20] = 2, 1
    image = rng.integers(0, 256, mask.shape, dtype=np.uint8)
    items = [
        GalleryItem(image, rng.random(mask.shape, np.float32), mask, "surest malignant <b>"),
        GalleryItem(image, None, None, "no heatmap"),
    ]
    workdir = _workdir(tmp_path, ["not malignant", "malignant"], np.arange(40) % 2)
    path = write_image_report(workdir, title="A <script> run", notes=["phantom & software check"], gallery=items)
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "report.html"
    assert page.count('src="data:image/png;base64,') == 4 + len(items) == len(re.findall("<img", page))
    assert "0.810 [0.810, 0.810]" in page
    assert "phantom &amp; software check" in page
    assert "<script>" not in page
    assert "surest malignant &lt;b&gt;" in page
    assert page.count('type="checkbox"') == len(re.findall("<img", page))  # each picture can be enlarged
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert "# A &lt;script> run" in card
    assert "| Patients of the test split | 20a | 21 |" in card
    assert "3 files or rows left out; used, train: 7 not malignant, 7 malignant" in card
    assert "| Ethical approval | 17 | not reported |" in card
    assert "| AUC on the test split, 95 % interval by patient | 23a | 0.810 [0.810, 0.810] |" in card
    assert "secret" not in card + page
    assert "What is reported, and what is not" in page
    assert "new layers, epoch 4" not in page
    assert "all layers, epoch 4" in page
    for hidden in ("patient_", "image_3", "/secret", str(tmp_path), "://"):
        assert hidden not in page
    assert (
        write_image_report(workdir, title="A <script> run", notes=["phantom & software check"], gallery=items) == path
    )
    assert path.read_text(encoding="utf-8") == page  # the same run gives the same bytes


def test_a_test_split_of_one_class_shows_dashes(tmp_path: Path) -> None:
    workdir = _workdir(tmp_path, ["not malignant", "malignant"], np.zeros(6, int), auc=float("nan"))
    page = write_image_report(workdir, title="one class").read_text(encoding="utf-8")
    assert "<td>AUC</td><td>–</td><td>–</td>" in page
    assert not re.search(r"\bnan\b", re.sub('base64,[^"]*', "", page))  # "malignant" is no NaN
    assert "ROC curve" not in page


def test_a_report_of_few_positives_shows_no_interval_and_how_many_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = _workdir(tmp_path, ["not malignant", "malignant"], np.repeat([0, 1], (28, 3)))
    few = {"auc": {"value": 0.9104, "low": None, "high": None, "n": [28, 3]}, "confusion_matrix": [[20, 8], [1, 2]]}
    (workdir / "metrics.json").write_text(json.dumps({"val": few, "test": few}))
    page = write_image_report(workdir, title="Few").read_text()
    assert page.count("0.910 [too few to estimate], n 28 + 3") == 3  # val, test, and the items reported
    assert "<b>0.910</b><span>too few to estimate, n 28 + 3</span>" in page
    run._print_table({"val": few, "test": few}, workdir / "report.html")
    printed = capsys.readouterr().out
    assert printed.count("0.910 [too few to estimate], n 28 + 3") == 2


@pytest.mark.parametrize("count", [5, 40])
def test_a_patch_report_has_its_confusion_matrix(tmp_path: Path, count: int) -> None:
    page = write_image_report(_workdir(tmp_path, PATCH, np.arange(count) % 5), title="patches").read_text(
        encoding="utf-8"
    )
    assert page.count("<img") == 2
    assert "malignant calcification" in page
    assert "ROC curve" not in page


def test_a_report_says_that_all_images_have_one_score(tmp_path: Path) -> None:
    workdir = _workdir(tmp_path, ["not malignant", "malignant"], np.arange(40) % 2)
    assert "nearly one score" not in write_image_report(workdir, title="A run").read_text()
    path = workdir / "predictions" / "test.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"p_malignant": 0.16 + 0.01 * k / len(rows)} for k, row in enumerate(rows))
    page = re.sub(r"\s+", " ", write_image_report(workdir, title="A run").read_text())
    assert "It gives the test images nearly one score (0.160 to 0.169, the 5th to the 95th percentile)" in page
    assert "nearly one score" in (workdir / "model_card.md").read_text()


def test_a_report_says_what_the_network_can_do_and_where_it_looks(tmp_path: Path) -> None:
    workdir = _workdir(tmp_path, ["not malignant", "malignant"], np.arange(40) % 2)
    some = {"value": 0.5, "low": 0.4, "high": 0.6, "n": [9, 9]}
    abilities = {"images with a benign lesion": some}
    cells = {"share": some, "pointing": some, "froc": {"0.25": some, "1.0": some}}
    places = {
        "images": 12,
        "others": 30,
        "lesions": 14,
        "tolerance": 16,
        "maps": {"own heatmap": cells, "area": {"share": some}},
    }
    path = write_image_report(workdir, title="A run", abilities=abilities, places=places)
    page = re.sub(r"\s+", " ", path.read_text())
    assert "ranks malignant ones above all other images (AUC 0.810" in page
    assert "not shown to tell malignant images from images with a benign lesion (AUC 0.500" in page
    assert "it is no diagnosis" in page
    assert "this network&#39;s own heatmap" in page
    assert "12 malignant test images with 14 outlined lesions, 30 others" in page
    assert "The validation split chose" in page
    saved = json.loads((workdir / "config.json").read_text())
    saved["config"]["monitor"] = "last"
    (workdir / "config.json").write_text(json.dumps(saved))
    page = write_image_report(workdir, title="A run").read_text()
    assert "The validation split chose" not in page
    assert "The last epoch was kept: " in page
