"""Breasts of exam runs: averaged, cut into populations and parts, measured as scikit-learn measures them."""

import json
from pathlib import Path

import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mammojax.errors import NotComparable
from mammojax.evaluate import populations, table
from mammojax.evaluate.measure import measure_breasts
from mammojax.vocabulary import FINDINGS
from tests.evaluate.test_table import breast_rows, write_breasts


def test_measures_are_those_of_scikit_learn_on_the_right_breasts(tmp_path: Path) -> None:
    breasts = table.read_breasts(write_breasts(tmp_path / "run", breast_rows(120), 1), "test_random10")
    measured = measure_breasts(breasts, runs=50)
    rows = breasts.frame.to_dict("records")
    for name, chosen in (("screening", rows), ("biopsied", [row for row in rows if row["biopsied"] == "1"])):
        labels = {f: [int(row[f]) for row in chosen] for f in FINDINGS}
        assert measured[name]["counts"] == {
            "breasts": len(chosen), "malignant": sum(labels["malignant"]), "benign": sum(labels["benign"]),
            "both": sum(a * b for a, b in zip(*labels.values(), strict=True)),
            "patients": len({row["patient_id"] for row in chosen}),
        }  # fmt: skip
        for finding, label in labels.items():
            score = [float(row[f"p_{finding}"]) for row in chosen]
            auc, area = measured[name][finding]["auc"], measured[name][finding]["pr_auc"]
            assert auc["value"] == pytest.approx(roc_auc_score(label, score))
            assert area["value"] == pytest.approx(average_precision_score(label, score))
            assert auc["low"] < auc["value"] < auc["high"]
    assert any(row["benign"] == row["malignant"] == 0 and row["biopsied"] == "1" for row in rows)
    counts = [measured[name]["counts"] for name in table.POPULATIONS]
    assert counts[0]["breasts"] == 240 > counts[1]["breasts"] > 10


def test_parts_of_one_class_have_no_auc_and_do_not_crash(tmp_path: Path) -> None:
    rows = [
        row | ({"malignant": 0, "benign": 0, "biopsied": 0} if row["density"] == "a" else {}) for row in breast_rows()
    ]
    breasts = table.read_breasts(write_breasts(tmp_path / "run", rows, 1), "test_random10")
    measured = populations.subgroups(breasts, "density", runs=20)
    assert list(measured) == ["a", "b", "c", "d"]
    assert measured["a"]["screening"]["malignant"] == {"auc": None, "pr_auc": None}
    assert measured["a"]["biopsied"]["counts"]["breasts"] == 0
    label, score = zip(
        *((int(r["benign"]), float(r["p_benign"])) for r in breasts.frame.to_dict("records") if r["density"] == "b"),
        strict=True,
    )
    assert measured["b"]["screening"]["benign"]["auc"]["value"] == pytest.approx(roc_auc_score(label, score))
    assert list(populations.subgroups(breasts, "vendor", runs=20)) == ["one", "unknown"]
    message = r'no groups by "age"; --by takes laterality, views, benign, malignant, biopsied, density, vendor\.'
    with pytest.raises(NotComparable, match=message):
        table.parts(breasts, "age")
    with pytest.raises(NotComparable, match='no groups by "patient_id"'):
        table.parts(breasts, "patient_id")
    dated = [row | {"density": f"2019-01-{k}"} for k, row in enumerate(rows)]
    breasts = table.read_breasts(write_breasts(tmp_path / "dated", dated, 1), "test_random10")
    with pytest.raises(NotComparable, match=r'"density" has 120 values, more than 20') as refused:
        table.parts(breasts, "density")
    assert "2019" not in str(refused.value)


def test_the_printed_and_the_written_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_breasts(tmp_path / part / "run", breast_rows(), k) for k, part in enumerate(("a", "b"))]
    output = tmp_path / "out.json"
    populations.write(runs, "test_random10", ["density"], output)
    printed = capsys.readouterr().out
    result = json.loads(output.read_text())
    assert list(result["runs"]) == ["a/run", "b/run", "ensemble of 2"]
    together = table.ensemble(table.read_all_breasts(runs, "test_random10"))
    assert result["runs"]["ensemble of 2"] == measure_breasts(together)
    assert result["populations"]["biopsied"] == "Breasts that the column biopsied calls so."
    assert result["by"]["density"]["c"] == measure_breasts(table.parts(together, "density")["c"])
    for name in table.POPULATIONS:
        assert f"## {name.capitalize()} population, test_random10\n" in printed
        value = result["runs"]["ensemble of 2"][name]["malignant"]["auc"]["value"]
        assert f"{value:.3f}" in printed
    assert "## Biopsied population, test_random10, ensemble of 2 by density\n" in printed
    assert printed.count("Not to be compared with AUCs of another case mix.") == 4
    with pytest.raises(NotComparable, match='no groups by "age"'):
        populations.write(runs, "test_random10", ["age"], None)
    assert capsys.readouterr().out == ""
