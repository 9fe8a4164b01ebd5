"""The report of a made-up exam run: it stands alone, its numbers are the run's, it names nobody."""

import csv
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mammojax.data import dataset
from mammojax.evaluate import report, table
from mammojax.evaluate.measure import measure_breasts
from mammojax.evaluate.run_report import write_exam_report
from mammojax.vocabulary import FINDINGS
from tests.evaluate.conftest import exam_run

NOTES = ["Synthetic <exams> & nothing else"]


def _finish(run: Path, results: dict[str, Any]) -> Path:
    """What is missing of a finished run: its numbers, its log, its versions."""
    (run / "metrics.json").write_text(json.dumps(results))
    (run / "versions.json").write_text(json.dumps({"python": "3.11", "packages": {"jax": "0.10.2"}}, indent=2))
    log = []
    for k, stage in enumerate(["new layers"] * 3 + ["all layers"] * 4):
        common = {"stage": stage, "epoch": k % 3 + 1, "step": 10 * k, "loss": 3 / (k + 1)}
        log.append({"kind": "train", **common, "accuracy": 0.5, "images_per_s": 9.0, "seconds": 1.0})
        log.append({"kind": "val", **common, "auc": 0.5 + k / 20, "best": k < 5})
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    return run


def _cell(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def _private(data: dataset.Prepared, run: Path) -> list[str]:
    rows = [row for split in ("train", "val", "test") for row in data.table(split)]
    return [*{row[c] for row in rows for c in ("patient_id", "exam_id", "image")}, str(data.path), str(run), "/secret"]


@pytest.mark.parametrize("heatmaps", [False, True])
def test_a_report_stands_alone(data: dataset.Prepared, tmp_path: Path, heatmaps: bool) -> None:
    run = exam_run(tmp_path / "run", data, heatmaps)
    split = {"auc": _cell(0.7), "auc_malignant": _cell(0.812), "pr_auc_benign_biopsied": _cell(0.3), "exams": 15}
    nothing = {"auc": {"value": float("nan"), "low": float("nan"), "high": float("nan")}, "exams": 9}
    results = {"val": nothing, "val_random10": nothing, "test": split, "test_random10": split}
    path = write_exam_report(_finish(run, results), "Exams <script>", NOTES, data)
    page = path.read_text(encoding="utf-8")
    assert path == run / "report.html"
    assert (
        page.count('src="data:image/png;base64,') == 4 + 1 + 3 * (3 if heatmaps else 2) == len(re.findall("<img", page))
    )
    assert "Synthetic &lt;exams&gt; &amp; nothing else" in page
    assert "<script>" not in page
    assert "<td>AUC malignant</td><td>–</td><td>0.812 [0.712, 0.912]</td>" in page
    assert "<tr><td>AUC</td><td>–</td><td>0.700 [0.600, 0.800]</td><td>–</td>" in page
    assert "all layers, epoch 2" in page  # the last that was better
    measured = measure_breasts(table.read_breasts(run, "test_random10"), 100, 0)
    for population in table.POPULATIONS:
        for finding in FINDINGS:
            for metric in ("auc", "pr_auc"):
                assert report.interval_text(measured[population][finding][metric]) in page
    findings = data.facts["findings"]["test"]
    counts = [findings[name][how] for name in ("malignant", "benign") for how in ("visible", "occult")]
    assert "<tr><td>test</td>" + "".join(f"<td>{n}</td>" for n in (15, len(data.table("test")), *counts)) in page
    assert page.count("p(malignant) = ") == 3 * 2  # three exams of two breasts
    text = html.unescape(re.sub('base64,[^"]*', "", page))
    assert [hidden for hidden in _private(data, run) if hidden in text] == []
    assert "://" not in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    people = len({row["patient_id"] for row in data.table("test")})
    breasts = table.read_csv(run / "predictions" / "test.csv")
    assert f"<span>{len(breasts)} breasts of {people} patients</span>" in page
    vendors = {json.loads(row["facts"])["columns"]["vendor"] for row in data.table("test")}
    assert all(f">vendor {vendor}</td>" in page for vendor in vendors)
    write_exam_report(run, "Exams <script>", NOTES, data)
    assert path.read_text(encoding="utf-8") == page  # the same run gives the same bytes


def test_without_its_data_set_a_report_has_no_exams(data: dataset.Prepared, tmp_path: Path) -> None:
    run = exam_run(tmp_path / "run", data)
    saved = json.loads((run / "config.json").read_text())
    saved["config"]["data"]["data_dir"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(saved))
    rows = (run / "predictions" / "test_random10.csv").read_text().splitlines()
    kept = [rows[0], *(row for row in rows[1:] if row.split(",")[7] == "0")]
    (run / "predictions" / "test_random10.csv").write_text("\n".join(kept) + "\n")
    page = write_exam_report(_finish(run, {"test": {"auc": _cell(0.5), "exams": 15}}), "t", []).read_text()
    assert page.count("<img") == 2 + 1
    assert "ROC curve of benign with its band" in page
    assert "ROC curve of malignant" not in page
    assert "there is no curve" in page


def test_a_birads_run_has_its_categories(data: dataset.Prepared, tmp_path: Path) -> None:
    run = exam_run(tmp_path / "run", data, target="birads")
    shutil.rmtree(run / "predictions")
    (run / "predictions").mkdir()
    rng = np.random.default_rng(0)
    scores = rng.dirichlet([1, 1, 1], 41)
    with (run / "predictions" / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["exam_id", "patient_id", "birads", "p_0", "p_1", "p_2"])
        writer.writerows([f"exam_{k}", f"patient_{k // 2}", k % 3, *scores[k]] for k in range(40))
        writer.writerow(["exam_40", "patient_40", "", *scores[40]])  # no screening category
    split = {
        "auc": _cell(0.6),
        "auc_0": _cell(0.61),
        "auc_1": _cell(0.62),
        "auc_2": _cell(0.63),
        "accuracy": _cell(0.4),
    }
    page = write_exam_report(_finish(run, {"val": split, "test": split}), "BI-RADS", NOTES).read_text()
    assert page.count("<img") == 3 + 1 + 1
    assert "ROC curve of BI-RADS 0, incomplete, or not" in page
    assert "<td>AUC 0</td><td>0.610 [0.510, 0.710]</td><td>0.610 [0.510, 0.710]</td>" in page
    assert "40 test exams of 20 patients" in page
    assert "p(malignant)" not in page
    for hidden in ("exam_1", "patient_1", str(data.path)):
        assert hidden not in page
