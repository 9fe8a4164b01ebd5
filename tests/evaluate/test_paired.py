"""Scores of the same images beside each other: DeLong's test, draws of patients, subgroups, CSVs of anybody."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from mammojax import cli, metrics
from mammojax.data.cells import Writer
from mammojax.evaluate import paired
from tests.evaluate.test_table import image_runs


def _write(path: Path, score: np.ndarray, label: np.ndarray, **columns: list[str]) -> Path:
    rows = [{"image": f"i{k}.dcm", "patient_id": f"p{k // 4}"} for k in range(len(label))]
    with path.open("w", newline="") as file:
        writer = Writer(file, ("image", "patient_id", *columns, "label", "p_malignant"))
        for k, row in enumerate(rows):
            further = {name: values[k] for name, values in columns.items()}
            writer.row(row | further | {"label": str(label[k]), "p_malignant": repr(float(score[k]))})
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[np.ndarray, list[Path]]:
    """Labels of 200 images, and CSVs of a good and of a worse score."""
    rng = np.random.default_rng(0)
    label = np.repeat(rng.random(50) < 0.4, 4).astype(int)  # a patient's four images are alike
    good, worse = (np.clip(0.3 + 0.2 * label + noise * rng.standard_normal(200), 0, 1) for noise in (0.15, 0.4))
    vendor = ["one", "two"] * 100
    paths = [_write(tmp_path / f"{n}.csv", s, label, vendor=vendor) for n, s in (("good", good), ("worse", worse))]
    return label, paths


def test_delong_is_the_definition() -> None:
    rng = np.random.default_rng(1)
    label = np.array([1] * 13 + [0] * 17)
    scores = np.round(rng.random((2, 30)) + 0.3 * label, 1)  # with ties
    aucs, covariance = metrics.delong(label, scores)
    x, y = scores[:, :13, None], scores[:, None, 13:]
    wins = (x > y) + 0.5 * (x == y)  # [2, 13, 17]
    np.testing.assert_allclose(aucs, wins.mean(axis=(1, 2)))
    np.testing.assert_allclose(aucs, [metrics.roc_auc(label, score) for score in scores])
    by_positive, by_negative = wins.mean(axis=2), wins.mean(axis=1)
    np.testing.assert_allclose(covariance, np.cov(by_positive) / 13 + np.cov(by_negative) / 17)


def test_delong_s_interval_covers_the_truth() -> None:
    """Of independent images, in 19 of 20 data sets."""
    rng, covered = np.random.default_rng(2), 0
    truth = norm.cdf(1 / np.sqrt(2))
    for _ in range(400):
        label = np.repeat([0, 1], 60)
        (value,), covariance = metrics.delong(label, rng.standard_normal(120)[None] + label)
        covered += abs(value - truth) < 1.96 * np.sqrt(covariance[0, 0])
    assert 0.92 < covered / 400 < 0.98


def test_differences_by_patient_are_wider_than_delong_s_where_images_repeat(two: tuple[np.ndarray, list[Path]]) -> None:
    label, paths = two
    result, predictions = paired.compare_plain(paths, "test", ["vendor"])
    (row,) = result["differences"]
    assert (row["name"], row["minus"]) == ("worse", "good")
    good, worse = (metrics.roc_auc(label, own.score()) for own in predictions)
    assert row["bootstrap"]["value"] == pytest.approx(worse - good)
    assert row["delong"]["value"] == pytest.approx(worse - good)
    assert row["p"] < 0.05
    assert set(result["by"]["vendor"]) == {"one", "two"}
    part = result["by"]["vendor"]["two"][1]
    assert part["auc"]["value"] == pytest.approx(metrics.roc_auc(label[1::2], predictions[1].score()[1::2]))
    for path in paths:  # four copies of one image a patient: DeLong believes in four times as many
        header, *rows = path.read_text().splitlines()
        copies = [rows[k - k % 4].replace(f"i{k - k % 4}.dcm", f"i{k}.dcm", 1) for k in range(200)]
        path.write_text("\n".join([header, *copies]) + "\n")
    (row,) = paired.compare_plain(paths, "test", [])[0]["differences"]
    width = {key: row[key]["high"] - row[key]["low"] for key in ("bootstrap", "delong")}
    assert 1.6 < width["bootstrap"] / width["delong"] < 2.4


def test_the_order_of_rows_does_not_matter_and_equal_scores_have_no_difference(
    two: tuple[np.ndarray, list[Path]], tmp_path: Path
) -> None:
    _, (good, _) = two
    header, *rows = good.read_text().splitlines()
    (tmp_path / "again.csv").write_text("\n".join([header, *rows[::-1]]) + "\n")
    (row,) = paired.compare_plain([good, tmp_path / "again.csv"], "test", [])[0]["differences"]
    assert (row["bootstrap"]["value"], row["bootstrap"]["low"], row["delong"]["value"], row["p"]) == (0, 0, 0, 1)


def test_a_run_and_a_csv_are_compared_with_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = image_runs(tmp_path, 2)
    csv = tmp_path / "theirs.csv"
    csv.write_bytes((second / "predictions" / "test.csv").read_bytes())
    command = ["compare", str(first), str(csv), "--json", str(tmp_path / "c.json"), "--output", str(tmp_path / "out")]
    assert cli.main([*command, "--by", "view"]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "c.json").read_text())
    assert result == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["run0", "theirs"]
    assert set(result["by"]["view"]) == {"CC", "MLO"}
    assert (tmp_path / "out" / "roc.png").stat().st_size > 5000
    assert "p, DeLong" in printed
    assert "By view" in printed
    assert cli.main(["compare", str(first), str(second), "--by", "laterality", "--json", str(tmp_path / "d.json")]) == 0
    runs = json.loads((tmp_path / "d.json").read_text())
    assert [row["name"] for row in runs["differences"]] == ["run1"]
    assert set(runs["by"]["laterality"]) == {"L", "R"}
    assert [row["name"] for row in runs["by"]["laterality"]["L"]] == ["run0", "run1", "ensemble"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\na,1\n", "has no column p_malignant"),
        ("image,p_malignant\na,1\n", "has no column label"),
        ("image,label,p_malignant\na,2,0.5\n", 'a label is "2"; write 0 or 1'),
        ("image,label,p_malignant\na,,0.5\n", "no row has a label"),
        ("image,label,p_malignant\na,1,high\n", "a score that is no number"),
        ("image,label,p_malignant\na,1,0.5\na,1,0.6\n", "name an image or breast again"),
        ("image,label,p_malignant\nother,1,0.5\n", "were measured on different images"),
        ("image,label,p_malignant,p_malignant\na,1,0.5,1\n", "two columns are called p_malignant"),
        ("", "has no column"),
    ],
)
def test_a_csv_that_is_none_is_one_sentence(
    two: tuple[np.ndarray, list[Path]], tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (good, _) = two
    (tmp_path / "bad.csv").write_text(text)
    assert cli.main(["compare", str(good), str(tmp_path / "bad.csv")]) == 2
    assert words in capsys.readouterr().err
