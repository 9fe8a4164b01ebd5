"""Breasts of exam runs: averaged, cut into populations and parts, measured as scikit-learn measures them."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mammojax.errors import NotComparable
from mammojax.evaluate import populations
from mammojax.vocabulary import FINDINGS

COLUMNS = (*populations.KNOWN, "biopsied", "density", "vendor")


def table(patients: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Both breasts of one exam a patient: a quarter biopsied, which have a finding or two, or now and then none."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(patients):
        for side in "LR":
            biopsied = rng.random() < 0.25
            malignant = biopsied and rng.random() < 0.5
            benign = biopsied and (not malignant or rng.random() < 0.3) and rng.random() < 0.9
            rows.append(
                {
                    "exam_id": f"e{k}", "patient_id": f"p{k // 2}", "laterality": side, "views": "CC+MLO",
                    "benign": int(benign), "malignant": int(malignant), "biopsied": int(biopsied),
                    "density": "abcd"[k % 4], "vendor": ("", "one")[k % 2],
                }
            )  # fmt: skip
    return rows


def write_breasts(
    run: Path, rows: list[dict[str, Any]], noise: int, split: str = "test_random10", columns: tuple[str, ...] = COLUMNS
) -> Path:
    """Predictions of these breasts that know a little of their labels, in an order of their own."""
    rng = np.random.default_rng(noise)
    rows = [row | {f"p_{f}": repr(0.2 * row[f] + 0.8 * float(rng.random())) for f in FINDINGS} for row in rows]
    (run / "predictions").mkdir(parents=True, exist_ok=True)
    with (run / "predictions" / f"{split}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[k] for k in rng.permutation(len(rows)))
    return run


def test_measures_are_those_of_scikit_learn_on_the_right_breasts(tmp_path: Path) -> None:
    breasts = populations.read(write_breasts(tmp_path / "run", table(120), 1), "test_random10")
    found = populations.measure(breasts, runs=50)
    rows = breasts.rows
    for name, chosen in (("screening", rows), ("biopsied", [row for row in rows if row["biopsied"] == "1"])):
        labels = {f: [int(row[f]) for row in chosen] for f in FINDINGS}
        assert found[name]["counts"] == {
            "breasts": len(chosen), "malignant": sum(labels["malignant"]), "benign": sum(labels["benign"]),
            "both": sum(a * b for a, b in zip(*labels.values(), strict=True)),
            "patients": len({row["patient_id"] for row in chosen}),
        }  # fmt: skip
        for finding, label in labels.items():
            score = [float(row[f"p_{finding}"]) for row in chosen]
            auc, area = found[name][finding]["auc"], found[name][finding]["pr_auc"]
            assert auc["value"] == pytest.approx(roc_auc_score(label, score))
            assert area["value"] == pytest.approx(average_precision_score(label, score))
            assert auc["low"] < auc["value"] < auc["high"]
    assert any(row["benign"] == row["malignant"] == "0" and row["biopsied"] == "1" for row in rows)
    counts = [found[name]["counts"] for name in populations.POPULATIONS]
    assert counts[0]["breasts"] == 240 > counts[1]["breasts"] > 10


def test_without_the_column_biopsied_labels_say_it_and_the_table_says_so(tmp_path: Path) -> None:
    columns = tuple(name for name in COLUMNS if name != "biopsied")
    bare = populations.read(write_breasts(tmp_path / "bare", table(), 1, columns=columns), "test_random10")
    empty = [row | {"biopsied": ""} for row in table()]
    blank = populations.read(write_breasts(tmp_path / "blank", empty, 1), "test_random10")
    wanted = sum(row["benign"] or row["malignant"] for row in table())
    for breasts in (bare, blank):
        assert populations.biopsied(breasts).sum() == wanted
        assert "120 have no cell biopsied" in populations.described(breasts, "biopsied")
    full = populations.read(write_breasts(tmp_path / "full", table(), 1), "test_random10")
    assert populations.biopsied(full).sum() == sum(row["biopsied"] for row in table()) > wanted
    assert populations.described(full, "biopsied") == "Breasts that the column biopsied calls so."


def test_an_ensemble_is_of_the_same_breasts_whatever_their_order(tmp_path: Path) -> None:
    runs = [write_breasts(tmp_path / f"run{k}", table(), k) for k in range(3)]
    breasts = populations.read_all(runs, "test_random10")
    together = populations.ensemble(breasts)
    own = [populations.read(run, "test_random10") for run in runs]
    assert own[0].rows[0]["exam_id"] != own[1].rows[0]["exam_id"]  # the files are in other orders
    for finding in FINDINGS:
        by_breast = [
            {(row["exam_id"], row["laterality"]): s for row, s in zip(one.rows, one.score[finding], strict=True)}
            for one in own
        ]
        for row, score in zip(together.rows, together.score[finding], strict=True):
            assert score == pytest.approx(np.mean([scores[row["exam_id"], row["laterality"]] for scores in by_breast]))
    with pytest.raises(NotComparable, match='"run0" is given twice'):
        populations.read_all([runs[0], runs[1] / ".." / "run0"], "test_random10")
    write_breasts(runs[1], table()[:-1], 1)
    with pytest.raises(NotComparable, match=r'"run0" and "run1" were measured on different breasts \(1 stand in one'):
        populations.read_all(runs, "test_random10")
    write_breasts(runs[1], [row | {"benign": 1 - row["benign"]} for row in table()], 1)
    with pytest.raises(NotComparable, match="other labels for the same breasts"):
        populations.read_all(runs, "test_random10")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [*lines, lines[1]], "names 1 breasts twice; predict the split again"),
        (lambda lines: [lines[0], *(re.sub(r",[\d.e-]+,[\d.e-]+,", ",,,", line, count=1) for line in lines[1:])],
         "has a score that is no number; predict the split again"),
        (lambda lines: lines[:1], "has no labelled breast"),
    ],
)  # fmt: skip
def test_predictions_that_cannot_be_measured_are_refused(tmp_path: Path, change: Any, said: str) -> None:
    path = write_breasts(tmp_path / "run", table(), 0) / "predictions" / "test_random10.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(NotComparable, match=said):
        populations.read(tmp_path / "run", "test_random10")


def test_parts_of_one_class_have_no_auc_and_do_not_crash(tmp_path: Path) -> None:
    rows = [row | ({"malignant": 0, "benign": 0, "biopsied": 0} if row["density"] == "a" else {}) for row in table()]
    breasts = populations.read(write_breasts(tmp_path / "run", rows, 1), "test_random10")
    found = populations.subgroups(breasts, "density", runs=20)
    assert list(found) == ["a", "b", "c", "d"]
    assert found["a"]["screening"]["malignant"] == {"auc": None, "pr_auc": None}
    assert found["a"]["biopsied"]["counts"]["breasts"] == 0
    label, score = zip(
        *((int(r["benign"]), float(r["p_benign"])) for r in breasts.rows if r["density"] == "b"), strict=True
    )
    assert found["b"]["screening"]["benign"]["auc"]["value"] == pytest.approx(roc_auc_score(label, score))
    assert list(populations.subgroups(breasts, "vendor", runs=20)) == ["one", "unknown"]
    wanted = r'no groups by "age"; --by takes laterality, views, benign, malignant, biopsied, density, vendor\.'
    with pytest.raises(NotComparable, match=wanted):
        populations.parts(breasts, "age")
    with pytest.raises(NotComparable, match='no groups by "patient_id"'):
        populations.parts(breasts, "patient_id")
    dated = [row | {"density": f"2019-01-{k}"} for k, row in enumerate(rows)]
    breasts = populations.read(write_breasts(tmp_path / "dated", dated, 1), "test_random10")
    with pytest.raises(NotComparable, match=r'"density" has 120 values, more than 20') as refused:
        populations.parts(breasts, "density")
    assert "2019" not in str(refused.value)


def test_what_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_breasts(tmp_path / part / "run", table(), k) for k, part in enumerate(("a", "b"))]
    output = tmp_path / "out.json"
    populations.write(runs, "test_random10", ["density"], output)
    printed = capsys.readouterr().out
    result = json.loads(output.read_text())
    assert list(result["runs"]) == ["a/run", "b/run", "ensemble of 2"]
    together = populations.ensemble(populations.read_all(runs, "test_random10"))
    assert result["runs"]["ensemble of 2"] == populations.measure(together)
    assert result["populations"]["biopsied"] == "Breasts that the column biopsied calls so."
    assert result["by"]["density"]["c"] == populations.measure(populations.parts(together, "density")["c"])
    for name in populations.POPULATIONS:
        assert f"## {name.capitalize()} population, test_random10\n" in printed
        value = result["runs"]["ensemble of 2"][name]["malignant"]["auc"]["value"]
        assert f"{value:.3f}" in printed
    assert "## Biopsied population, test_random10, ensemble of 2 by density\n" in printed
    assert printed.count("Not to be compared with AUCs of another case mix.") == 4
    with pytest.raises(NotComparable, match='no groups by "age"'):
        populations.write(runs, "test_random10", ["age"], None)
    assert capsys.readouterr().out == ""
