"""Readers beside and with the model: against scikit-learn, on curves drawn by hand, and from files to a page."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as theirs

from mammojax import metrics
from mammojax.errors import BadManifest, NotComparable
from mammojax.evaluate import reader_file, readers, table
from mammojax.evaluate.measure import METRICS

N, READ = 240, 200  # breasts predicted; those of the first exams are read


def _run(folder: Path, seed: int, malignant: np.ndarray) -> Path:
    """An exam run: two breasts an exam, two exams a patient."""
    (folder / "predictions").mkdir(parents=True)
    score = 1 / (1 + np.exp(2 - 2 * malignant - np.random.default_rng(seed).normal(size=len(malignant))))
    with (folder / "predictions" / "test_random10.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.BREAST_COLUMNS)
        for k, p in enumerate(score):
            breast = f"exam{k // 2}", f"patient{k // 4}", "LR"[k % 2]
            writer.writerow([*breast, "CC+MLO", 0.2, repr(float(p)), 0, malignant[k]])
    return folder


def _labels() -> np.ndarray:
    return (np.random.default_rng(0).random(N) < 0.2).astype(int)


def _opinions(count: int) -> np.ndarray:
    """What readers say, in steps of 5 %, so with ties: noisy versions of the labels, [count, READ]."""
    noise = np.random.default_rng(1).normal(size=(count, READ))
    return np.round(20 / (1 + np.exp(1.5 - 1.5 * _labels()[:READ] - noise))) * 5


def _csv(path: Path, opinions: np.ndarray) -> Path:
    """The readers' file; the first reads from the last breast to the first, each other began 7 breasts earlier."""
    lines = []
    for step in range(opinions.shape[1]):
        for r, reader in enumerate(opinions):
            k = (-1 - step + 7 * r) % len(reader)
            lines.append(f"Dr. {chr(ord('A') + r)},exam{k // 2},{'LR'[k % 2]},{reader[k]:g}")
    path.write_text("\n".join(["reader,exam_id,laterality,p_malignant", *lines]) + "\n")
    return path


def _example(root: Path, count: int = 3) -> tuple[table.Predictions, reader_file.Readers]:
    run = _run(root / "run", 2, _labels())
    return table.read_breasts(run, "test_random10"), reader_file.read(_csv(root / "readers.csv", _opinions(count)))


def test_readers_are_matched_by_ids_that_are_formulas(tmp_path: Path) -> None:
    """A reader's file may take its ids from the manifest or from our tables, where they stand behind an apostrophe."""
    for written in ("=exam", "'=exam"):
        path = _csv(tmp_path / "readers.csv", _opinions(1))
        path.write_text(path.read_text().replace("exam", written).replace(f"{written}_id", "exam_id"))
        group = reader_file.read(path)
        assert ("=exam0", "L") in group.scores.index
        assert group.scores.shape == (READ, 1)


def _mean_sd(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5


def test_areas_are_those_of_scikit_learn(tmp_path: Path) -> None:
    breasts, group = _example(tmp_path)
    label, model, opinions = _labels()[:READ], breasts.score()[:READ], _opinions(3) / 100
    summary = readers.hybrid_summary(breasts, group, weight=0.3)
    result = readers.study(breasts, group, runs=20)
    for key, area in (("auc", theirs.roc_auc_score), ("pr_auc", theirs.average_precision_score)):
        alone, together, half = (
            [float(area(label, w * reader + (1 - w) * model)) for reader in opinions] for w in (1.0, 0.3, 0.5)
        )
        for name, values in (("readers", alone), ("hybrids", together)):
            estimate = summary[name][f"{key}_mean"], summary[name][f"{key}_sd"]
            assert estimate == pytest.approx(_mean_sd(values))
        assert summary["model"] == pytest.approx(summary["model"] | {f"{key}_mean": area(label, model)})
        measured = result["measures"][key]
        assert [reader["value"] for reader in measured["readers"]] == pytest.approx(alone)
        assert [reader["value"] for reader in measured["hybrids"]] == pytest.approx(half)
        assert measured["mean hybrid"]["value"] == pytest.approx(np.mean(half))
    assert (result["breasts"], result["patients"], result["malignant"]) == (READ, READ // 4, label.sum())


@pytest.mark.parametrize("count", [1, 2, 14])
def test_the_spread_is_of_the_readers_there_are(tmp_path: Path, count: int) -> None:
    """Divided by their number: of 14 the n − 1 of a sample would give 4 % more than the paper prints."""
    breasts, group = _example(tmp_path, count)
    for key, area in (("auc", theirs.roc_auc_score), ("pr_auc", theirs.average_precision_score)):
        values = [float(area(_labels()[:READ], opinions)) for opinions in _opinions(count)]
        sd = readers.hybrid_summary(breasts, group)["readers"][f"{key}_sd"]
        assert sd == (None if count == 1 else pytest.approx(_mean_sd(values)[1]))


def test_lambda_goes_from_the_model_to_the_reader(tmp_path: Path) -> None:
    breasts, group = _example(tmp_path)
    label, model = _labels()[:READ], breasts.score()[:READ]
    result = readers.study(breasts, group, runs=20)
    assert result["sweep_weights"][::50] == [0, 0.5, 1]
    for key, metric in METRICS.items():
        measured = result["measures"][key]
        for r, sweep in enumerate(measured["sweep"]):
            assert sweep[0] == pytest.approx(metric(label, model))
            assert sweep[50] == pytest.approx(measured["hybrids"][r]["value"])
            assert sweep[100] == pytest.approx(measured["readers"][r]["value"])
            best = measured["best_weight"][r]
            assert measured["best_value"][r] == max(sweep) == sweep[round(100 * best)]
            assert metric(label, best * _opinions(3)[r] / 100 + (1 - best) * model) == pytest.approx(max(sweep))
        assert measured["best_weight_mean"] == pytest.approx(sum(measured["best_weight"]) / 3)


def test_differences_are_paired_by_patient(tmp_path: Path) -> None:
    """Against a plain loop over draws of patients, each measured by scikit-learn."""
    breasts, group = _example(tmp_path)
    result = readers.study(breasts, group, runs=60, seed=3)["measures"]
    label, model, opinions = _labels()[:READ], breasts.score()[:READ], _opinions(3) / 100
    for key, area in (("auc", theirs.roc_auc_score), ("pr_auc", theirs.average_precision_score)):
        values: dict[str, list[float]] = {"mean hybrid − model": [], "mean hybrid − mean reader": []}
        for weights in metrics.draws(breasts.patient[:READ], 60, 3):
            at = np.repeat(np.arange(READ), weights.astype(int))
            hybrid = np.mean([area(label[at], (reader[at] + model[at]) / 2) for reader in opinions])
            values["mean hybrid − model"].append(hybrid - area(label[at], model[at]))
            values["mean hybrid − mean reader"].append(
                hybrid - np.mean([area(label[at], reader[at]) for reader in opinions])
            )
        for name, drawn in values.items():
            estimate = result[key]["differences"][name]
            np.testing.assert_allclose([estimate["low"], estimate["high"]], np.percentile(drawn, [2.5, 97.5]))


def test_mean_curves_by_hand() -> None:
    label = np.array([1, 1, 0, 0])
    scores = np.array([[0.9, 0.3, 0.5, 0.1], [0.8, 0.6, 0.6, 0.6]])
    # the first finds a lesion, a false mark, the other lesion; the second one lesion, then calls all the rest alike
    at = np.array([0, 0.25, 0.5, 1])
    np.testing.assert_allclose(readers.mean_roc(label, scores[:1], at), [0.5, 0.5, 1, 1])
    np.testing.assert_allclose(readers.mean_roc(label, scores[1:], at), [0.5, 0.625, 0.75, 1])
    np.testing.assert_allclose(readers.mean_roc(label, scores, at), [0.5, 0.5625, 0.875, 1])
    # precision 1 up to a recall of a half; then 2 of 3, and 2 of 4
    np.testing.assert_allclose(readers.mean_pr(label, scores, np.array([0.01, 0.5, 0.51, 1])), [1, 1, 7 / 12, 7 / 12])
    middle = (np.arange(1000) + 0.5) / 1000
    for curve, area in ((readers.mean_roc, metrics.roc_auc), (readers.mean_pr, metrics.pr_auc)):
        mean = np.mean([area(label, score) for score in scores])
        assert curve(label, scores, middle).mean() == pytest.approx(mean, abs=1e-3)


def test_percent_or_share(tmp_path: Path) -> None:
    opinions = _opinions(2)
    opinions[0, 0] = 100
    percent = reader_file.read(_csv(tmp_path / "percent.csv", opinions))
    share = reader_file.read(_csv(tmp_path / "share.csv", opinions / 100))
    assert list(percent.scores) == ["reader 1", "reader 2"]
    assert (percent.scores.index == share.scores.index).all()
    np.testing.assert_allclose(percent.scores, share.scores)
    assert percent.scores["reader 2"]["exam7", "R"] == opinions[1, 15] / 100
    opinions[1] /= 100
    with pytest.raises(BadManifest, match=r"mixed\.csv, p_malignant: reader 2 gave no breast more than 1, where"):
        reader_file.read(_csv(tmp_path / "mixed.csv", opinions))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["A,e1,L,101"], r'r\.csv, line 2, p_malignant: "101" is no probability; write a number from 0 to 1'),
        (["A,e1,L,0.1", "A,e1,R,nan"], 'line 3, p_malignant: "nan" is no probability'),
        (["A,e1,L,12,5"], "line 2: more cells than columns; write decimals with a point"),
        (["A,e1,left,0.5"], 'line 2, laterality: "left" is no side; write L or R'),
        (["A,,L,0.5"], "line 2, exam_id: it is empty"),
        (["A,e1,L,0.5", "B,e1,L,0.5", "A,e1,L,0.6"], "line 4, exam_id and laterality: reader 1 gave .* in line 2"),
        (
            ["A,e1,L,0.5", "B,e1,L,0.5", "B,e1,R,0.2"],
            r"reader 1 \(from line 2 on\) lacks 1 of the breasts that others read \(the first: that of line 4\)",
        ),
        ([], "it has no row below its header"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[str], sentence: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text("\n".join(["reader,exam_id,laterality,p_malignant", *rows]) + "\n")
    with pytest.raises(BadManifest, match=sentence):
        reader_file.read(path)


def test_files_and_predictions_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match="there is no such file; give a CSV with the columns reader, exam_id"):
        reader_file.read(tmp_path / "none.csv")
    (tmp_path / "short.csv").write_text("reader,exam_id,p_malignant\n")
    with pytest.raises(BadManifest, match=r"short\.csv: the column laterality is missing"):
        reader_file.read(tmp_path / "short.csv")
    breasts, group = _example(tmp_path)
    # line 2 is of breast 199
    with pytest.raises(NotComparable, match=r'"run" has no labelled prediction of 50 of the 200 .* of line 2 of'):
        readers.study(breasts[np.arange(150)], group)
    breasts.frame.loc[: READ - 1, "malignant"] = 0
    with pytest.raises(NotComparable, match="all breasts read have one label"):
        readers.hybrid_summary(breasts, group)


def test_from_files_to_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [_run(tmp_path / f"run{k}", k, _labels()) for k in range(2)]
    path = _csv(tmp_path / "readers.csv", _opinions(3))
    readers.write(runs, path, tmp_path / "out")
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "readers.json").read_text())
    both = [table.read_breasts(run, "test_random10").score()[:READ] for run in runs]
    auc = theirs.roc_auc_score(_labels()[:READ], np.mean(both, axis=0))
    assert result["measures"]["auc"]["model"]["value"] == pytest.approx(auc)
    assert re.search(rf"^model +{auc:.3f} \[", printed, re.MULTILINE)
    assert f"3 readers; 200 breasts of 50 patients, {_labels()[:READ].sum()} malignant" in printed
    page = (tmp_path / "out" / "readers.html").read_text()
    assert page.count("data:image/png;base64,") == 8
    assert "<td>reader 3</td>" in page
    assert "chosen on these very breasts" in page
    for text in (printed, page, json.dumps(result)):
        assert not re.search(r"Dr\. |exam\d|patient\d", text)  # nobody's name, no id
    for name in ("fig8.png", "fig9.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(NotComparable, match='"run0" is given twice'):
        readers.write([runs[0], tmp_path / "out" / ".." / "run0"], path, tmp_path / "out")


def test_one_reader_has_no_deviation(tmp_path: Path) -> None:
    breasts, group = _example(tmp_path, 1)
    summary = readers.hybrid_summary(breasts, group)
    assert summary["readers"]["auc_sd"] is None
    assert readers.study(breasts, group, runs=20)["measures"]["auc"]["mean reader"]["value"] == pytest.approx(
        summary["readers"]["auc_mean"]
    )
