"""Ensembles, two views and operating points, on predictions small enough to count by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mammojax import cli, metrics
from mammojax.evaluate import compare, other_breast, table
from tests.evaluate.test_table import image_runs, rewrite, write_predictions


def test_flips_are_paired_by_image_whatever_their_order(tmp_path: Path) -> None:
    (run,) = image_runs(tmp_path, 1)
    before = compare.compare([run])
    rewrite(run / "predictions" / "test_flips.csv", lambda lines: lines[::-1])
    after = compare.compare([run])
    assert after["rows"][0]["gain_flips"] == pytest.approx(before["rows"][0]["gain_flips"])


def test_folders_of_one_name_get_different_names(tmp_path: Path) -> None:
    runs = [image_runs(tmp_path / seed, 1)[0] for seed in ("s0", "s1")]
    result = compare.compare(runs)
    assert [row["name"] for row in result["rows"]] == ["s0/run0", "s1/run0", "ensemble"]


def test_two_views_are_averaged_by_breast(tmp_path: Path) -> None:
    label = np.array([1, 1, 0, 0, 0, 0, 1, 1])
    score = np.array([0.9, 0.1, 0.4, 0.2, 0.3, 0.5, 0.2, 0.8])  # patient 0: L, R; patient 1: L, R; CC and MLO each
    run = write_predictions(tmp_path / "run", {"test": score}, {"test": label})
    pairs = table.by_breast(table.read_images(run, "test"))
    np.testing.assert_array_equal(pairs["malignant"], [1, 0, 0, 1])
    np.testing.assert_allclose(pairs["both"], [0.5, 0.3, 0.4, 0.5])
    result = compare.two_views(pairs, runs=50)
    assert result["both"].value == 1.0
    # CC: 0.9 and 0.2 against 0.4 and 0.3; MLO: 0.1 and 0.8 against 0.2 and 0.5
    assert (result["CC"].value, result["MLO"].value) == (0.5, 0.5)
    assert result["gain"].value == pytest.approx(0.5)
    lines = (run / "predictions" / "test.csv").read_text().splitlines()
    (run / "predictions" / "test.csv").write_text("\n".join(lines[:-1]) + "\n")  # the last breast loses its MLO
    assert len(table.by_breast(table.read_images(run, "test"))) == 3


def test_the_chosen_threshold_does_not_see_the_test_labels(tmp_path: Path) -> None:
    runs = image_runs(tmp_path, 1)
    before = compare.compare(runs)["operating"][0]
    for name in ("test", "test_flips"):
        path = runs[0] / "predictions" / f"{name}.csv"
        header, *lines = path.read_text().splitlines()
        rows = [line.split(",") for line in lines]
        flipped = [",".join([*row[:5], str(1 - int(row[5])), row[6]]) for row in rows]
        path.write_text("\n".join([header, *flipped]) + "\n")
    after = compare.compare(runs)["operating"][0]
    assert before["chosen_on_val"]["threshold"] == after["chosen_on_val"]["threshold"]
    assert before["read_on_test"]["threshold"] != after["read_on_test"]["threshold"]
    assert before["read_on_test"]["sensitivity"]["value"] >= 0.86
    val = table.read_images(runs[0], "val_flips")
    called = val.score() >= before["chosen_on_val"]["threshold"]
    assert called[val.label() == 1].mean() >= 0.86


def test_a_threshold_that_nothing_gives_is_left_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No malignant image to choose it by; and the validation split has no threshold from elsewhere."""
    (run,) = image_runs(tmp_path, 1)
    assert set(compare.compare([run], "val")["operating"][0]) == {"name", "read_on_val"}
    for name in ("val", "val_flips"):
        path = run / "predictions" / f"{name}.csv"
        rewrite(path, lambda lines: [re.sub(",[01],", ",0,", line) for line in lines])
    assert cli.main(["compare", str(run), "--output", str(tmp_path / "out")]) == 0
    assert re.search(r"^run0 +chosen on val +– +– +–$", capsys.readouterr().out, re.MULTILINE)
    point = json.loads((tmp_path / "out" / "compare.json").read_text())["operating"][0]
    assert point["chosen_on_val"] is None
    assert compare.threshold(table.read_images(run, "test"), 0.0) < np.inf


def test_intervals_agree_with_a_plain_loop(tmp_path: Path) -> None:
    predictions = table.read_images(image_runs(tmp_path, 1)[0], "test")
    point = compare.operating_point(predictions, 0.5, runs=200, seed=1)["sensitivity"]
    values = []
    for weights in metrics.draws(predictions.patient, 200, 1):
        drawn = np.repeat(np.arange(len(predictions.label())), weights.astype(int))
        drawn = drawn[predictions.label()[drawn] == 1]
        values.append((predictions.score()[drawn] >= 0.5).mean())
    np.testing.assert_allclose((point.low, point.high), np.percentile(values, [2.5, 97.5]))
    pairs, values = table.by_breast(predictions), []
    for weights in metrics.draws(pairs["patient_id"].to_numpy(), 200, 1):
        drawn = pairs.iloc[np.repeat(np.arange(len(pairs)), weights.astype(int))]
        cc, mlo, both = (metrics.roc_auc(drawn["malignant"], drawn[view]) for view in ("CC", "MLO", "both"))
        values.append(both - (cc + mlo) / 2)
    gain = compare.two_views(pairs, runs=200, seed=1)["gain"]
    np.testing.assert_allclose((gain.low, gain.high), np.percentile(values, [2.5, 97.5]))


def test_repeats_on_the_same_patients_are_not_independent() -> None:
    """Two seeds that score alike say no more than one; two halves of the patients do."""
    rng = np.random.default_rng(0)
    label = np.tile([0, 1], 60)
    frame = pd.DataFrame(
        {"image": [str(k) for k in range(120)], "patient_id": [str(k // 2) for k in range(120)],
         "malignant": label, "p_malignant": rng.random(120) + 0.4 * label}
    )  # fmt: skip
    one = table.Predictions("a", frame)
    single, twice = compare.over_repeats([(one, None)]), compare.over_repeats([(one, None)] * 2)
    assert twice == single == metrics.bootstrap(metrics.roc_auc, label, one.score(), one.patient)
    halves = compare.over_repeats([(one[:60], None), (one[60:], None)])
    assert 0.8 < (halves.high - halves.low) / (single.high - single.low) < 1.3
    assert compare.over_repeats([(one, one)]).high == 0


def test_the_command_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = image_runs(tmp_path, 3)
    assert cli.main(["compare", *map(str, runs), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "ensemble" in printed
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["run0", "run1", "run2", "ensemble"]
    assert result["ensemble_gain"]["value"] > 0  # independent noise averages out
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.index("AUC, run0</span>") < page.index("AUC, run1 − run0</span>") < page.index("<table")
    assert "<td>chosen on val</td>" in page
    assert "<td>read on test</td>" in page
    assert "data:image/png;base64," in page
    assert not re.search(r">[^<]*\bp\d+\b", page)  # no patient's id
    assert cli.main(["compare", str(tmp_path / "nowhere")]) == 2
    assert "name the folder of a finished whole-image run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["compare", *map(str, runs), "--output", str(tmp_path / "out" / "compare.json")])
    assert "is a file; name a folder" in capsys.readouterr().err


def test_few_malignant_images_have_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = image_runs(tmp_path, 1)
    for split in ("test", "test_flips", "val", "val_flips"):  # four malignant images, of two breasts
        kept = iter(range(4))
        rewrite(
            run / "predictions" / f"{split}.csv",
            lambda lines, kept=kept: [
                line if ",0," in line or next(kept, None) is not None else line.replace(",1,", ",0,") for line in lines
            ],
        )
    compare.write([run], tmp_path / "out")
    printed = capsys.readouterr().out
    assert "4 malignant and 76 other images" in printed
    assert printed.count("[too few to estimate]") >= 5
    text = (tmp_path / "out" / "compare.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["rows"][0]["auc"] | {"value": 0} == {"value": 0, "low": None, "high": None, "n": [76, 4]}


def test_each_image_is_measured_against_the_other_breast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = image_runs(tmp_path, 1)[0]
    images = table.read_images(run, "test_flips")
    against = other_breast.by_asymmetry(images)
    assert cli.main(["compare", str(run), "--asymmetry", "--output", str(tmp_path / "out")]) == 0
    assert "minus the other breast" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "out" / "compare.json").read_text())["asymmetry"]
    assert row["images"] == len(against)
    assert row["auc"]["value"] == pytest.approx(metrics.roc_auc(against.label(), against.score()))
    assert row["gain"]["value"] == pytest.approx(row["auc"]["value"] - row["auc_flips"]["value"])
    for split in ("test", "test_flips", "val_flips"):
        rewrite(run / "predictions" / f"{split}.csv", lambda lines: [re.sub(",[LR],", ",L,", line) for line in lines])
    assert cli.main(["compare", str(run), "--asymmetry"]) == 2
    assert "has no patient with an image of both breasts" in capsys.readouterr().err
