"""A scored split of exams: written by breast, measured as scikit-learn does, missing labels left out."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mammojax.data.exams import Exam
from mammojax.evaluate import measure, table
from mammojax.vocabulary import LABELS, VIEWS


def _scored(count: int = 60) -> table.Exams:
    rng = np.random.default_rng(0)
    scored = []
    for k in range(count):
        label = (rng.random(4) < 0.4).astype(int)
        present = np.clip(0.3 * label + 0.7 * rng.random(4), 0.01, 0.99)
        columns = {side: {"density": str(k % 4), "birads": str(k % 3)} for side in "LR"}
        exam = Exam(f"e{k}", f"p{k // 2}", {view: [k] for view in VIEWS}, label, columns)
        scored.append((exam, np.stack([1 - present, present], axis=1)))
    return scored


def test_a_split_is_written_by_breast_and_measured(tmp_path: Path) -> None:
    scored = _scored()
    scored[3][0].label[:] = -1  # a breast of unknown pathology is no negative
    scored[4][0].images.pop("R-CC")
    table.write_exams(tmp_path / "predictions" / "test.csv", scored, "cancer")
    breasts = table.read_breasts(tmp_path, "test")
    assert len(breasts) == 2 * 59
    assert breasts.frame["density"].iloc[-1] == "3"
    assert set(breasts.frame["views"]) == {"CC+MLO", "MLO"}
    results = measure.measure_exams(tmp_path, "test", scored, "cancer", 50, 0)
    labelled = [pair for pair in scored if pair[0].label[0] >= 0]
    for finding in ("benign", "malignant"):
        at = [k for k, name in enumerate(LABELS) if name.endswith(finding)]
        label = np.concatenate([exam.label[at] for exam, _ in labelled])
        score = np.concatenate([p[at, 1] for _, p in labelled])
        assert results[f"auc_{finding}"]["value"] == pytest.approx(roc_auc_score(label, score))
        assert results[f"pr_auc_{finding}"]["value"] == pytest.approx(average_precision_score(label, score))
    four = [roc_auc_score([e.label[k] for e, _ in labelled], [p[k, 1] for _, p in labelled]) for k in range(4)]
    assert results["auc"]["value"] == pytest.approx(np.mean(four))
    assert results["auc"]["low"] < np.mean(four) < results["auc"]["high"]
    assert measure.exam_summary(scored, "cancer")["auc"] == pytest.approx(np.mean(four))
    loss = -sum(np.log(p[k, exam.label[k]]) for exam, p in labelled for k in range(4)) / len(scored)
    assert measure.exam_summary(scored, "cancer")["loss"] == pytest.approx(loss)


def test_ids_that_look_like_formulas_are_written_as_text_and_read_back(tmp_path: Path) -> None:
    scored = _scored(8)
    for k, (exam, _) in enumerate(scored):
        exam.exam_id, exam.patient_id = f"=cmd|'/C calc'!A{k}", f"@p{k // 2}"
        exam.columns["L"] |= {"offset": "-1.5", "remark": "+x"}
    table.write_exams(tmp_path / "predictions" / "test.csv", scored, "cancer")
    lines = (tmp_path / "predictions" / "test.csv").read_text().splitlines()
    assert lines[1].startswith("'=cmd|'/C calc'!A0,'@p0,L,CC+MLO,0.")
    assert lines[1].endswith(",0,0,-1.5,'+x")
    breasts = table.read_breasts(tmp_path, "test")
    assert list(breasts.frame["exam_id"][::2]) == [exam.exam_id for exam, _ in scored]
    assert breasts.patient[0] == "@p0"
    assert tuple(breasts.frame[["offset", "remark"]].iloc[0]) == ("-1.5", "+x")
    for exam, _ in scored:
        exam.columns["L"]["birads"] = exam.columns["R"]["birads"] = "2"
    table.write_exams(
        tmp_path / "predictions" / "test.csv", [(exam, np.full((1, 3), 1 / 3)) for exam, _ in scored], "birads"
    )
    assert "\n'=cmd|'/C calc'!A1,'@p0,2," in (tmp_path / "predictions" / "test.csv").read_text()


def test_a_breast_that_no_view_tells_of_is_not_measured(tmp_path: Path) -> None:
    """Its labels are known, but a network of CC views has said nothing of a breast without one."""
    scored = _scored()
    scored[4][0].images.clear()
    scored[4][0].images["L-CC"] = [0]
    scored[4][1][[1, 3]] = np.nan
    table.write_exams(tmp_path / "predictions" / "test.csv", scored, "cancer")
    assert len(table.read_breasts(tmp_path, "test")) == 2 * 60 - 1
    four = []
    for k, name in enumerate(LABELS):
        pairs = [(e.label[k], p[k, 1]) for j, (e, p) in enumerate(scored) if j != 4 or name.startswith("left")]
        four.append(roc_auc_score(*zip(*pairs, strict=True)))
    results = measure.measure_exams(tmp_path, "test", scored, "cancer", 50, 0)
    assert results["auc"]["value"] == pytest.approx(np.mean(four))
    assert np.isfinite(results["auc"]["low"])
    summary = measure.exam_summary(scored, "cancer")
    assert summary["auc"] == pytest.approx(np.mean(four))
    assert np.isfinite(summary["loss"])


def test_a_label_of_one_kind_only_is_left_out_of_the_mean() -> None:
    scored = _scored()
    for exam, _ in scored:
        exam.label[2] = 0  # no malignant left breast
    kept = [k for k in range(4) if k != 2]
    four = [roc_auc_score([e.label[k] for e, _ in scored], [p[k, 1] for _, p in scored]) for k in kept]
    assert measure.exam_summary(scored, "cancer")["auc"] == pytest.approx(np.mean(four))


def test_birads_is_measured_one_against_the_rest(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    scored = [(exam, rng.dirichlet(np.ones(3))[None]) for exam, _ in _scored()]
    scored[0][0].columns["L"]["birads"] = "4"  # another category: not an exam of this task
    table.write_exams(tmp_path / "predictions" / "test.csv", scored, "birads")
    results = measure.measure_exams(tmp_path, "test", scored, "birads", 50, 0)
    labelled = [pair for pair in scored if pair[0].birads >= 0]
    assert len(labelled) == 59
    three = [roc_auc_score([e.birads == k for e, _ in labelled], [p[0, k] for _, p in labelled]) for k in range(3)]
    assert [results[f"auc_{k}"]["value"] for k in range(3)] == pytest.approx(three)
    assert results["auc"]["value"] == pytest.approx(np.mean(three))
    right = np.mean([e.birads == p[0].argmax() for e, p in labelled])
    assert results["accuracy"]["value"] == pytest.approx(right)


def test_abilities_tell_benign_lesions_from_other_images() -> None:
    score = np.array([0.9, 0.6, 0.8, 0.7, 0.1, 0.2, 0.5])
    label = np.array([1, 1, 0, 0, 0, 0, -1])
    benign = np.array([False, False, True, True, False, False, False])
    result = measure.abilities(score, label, benign, list("abcdefg"), runs=10)
    assert result["images without an outlined lesion"]["value"] == 1
    assert result["images without an outlined lesion"]["n"] == [2, 2]
    assert result["images with a benign lesion"]["value"] == 0.5
    assert set(measure.abilities(score, label, benign & False, list("abcdefg"), runs=10)) == {
        "images without an outlined lesion"
    }
