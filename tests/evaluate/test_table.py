"""Tables of predictions: read as they were written, matched whatever their order, averaged, cut into populations."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mammojax.data.cells import read_table
from mammojax.errors import NotComparable
from mammojax.evaluate import other_breast, table
from mammojax.evaluate.table import BREAST_COLUMNS, IMAGE_COLUMNS
from mammojax.vocabulary import FINDINGS
from tests.data.test_cells import FORMULAS, ORDINARY

COLUMNS = (*BREAST_COLUMNS, "biopsied", "density", "vendor")


def breast_rows(patients: int = 60, seed: int = 0) -> list[dict[str, Any]]:
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


def write_predictions(
    folder: Path, scores: dict[str, np.ndarray], labels: dict[str, np.ndarray], shuffle: int = 0
) -> Path:
    """A run folder with predictions of two views of both breasts of N/4 patients."""
    (folder / "predictions").mkdir(parents=True)
    for split, score in scores.items():
        rows = []
        for k, p in enumerate(score):
            side, view = "LR"[k % 4 // 2], ("CC", "MLO")[k % 2]
            label = labels[split.split("_")[0]][k]
            rows.append([f"{k // 4}_{side}_{view}", f"p{k // 4}", "", side, view, label, repr(float(p))])
        if shuffle:
            np.random.default_rng(shuffle).shuffle(rows)
        with (folder / "predictions" / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([IMAGE_COLUMNS, *rows])
    return folder


def image_runs(root: Path, count: int, n: int = 80) -> list[Path]:
    rng = np.random.default_rng(0)
    labels = {split: np.repeat(rng.integers(0, 2, n // 2), 2) for split in ("val", "test")}
    result = []
    for k in range(count):
        scores = {}
        for split in ("val", "test"):
            scores[split] = (0.6 * labels[split] + rng.random(n)) / 1.6
            scores[f"{split}_flips"] = (0.4 * labels[split] + rng.random(n)) / 1.4
        result.append(write_predictions(root / f"run{k}", scores, labels, shuffle=k))
    return result


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines below a CSV's header."""
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *change(lines)]) + "\n")


def test_images_are_matched_by_names_that_are_formulas(tmp_path: Path) -> None:
    """An older run has them as they are, a newer one behind an apostrophe."""
    runs = image_runs(tmp_path, 2)
    for run, prefix in zip(runs, ("=", "'="), strict=True):
        path = run / "predictions" / "test.csv"
        head, *lines = path.read_text().splitlines()
        path.write_text(
            "\n".join([head, *(f"{prefix}{line}".replace(",p", f",{prefix}p", 1) for line in lines)]) + "\n"
        )
    first, second = table.aligned([table.read_images(run, "test") for run in runs])
    assert first.index[0].startswith("=")
    assert (first.patient == second.patient).all()


def test_an_ensemble_is_the_mean_of_the_same_images(tmp_path: Path) -> None:
    runs = image_runs(tmp_path, 3)
    scored = [table.read_images(run, "test") for run in runs]
    together = table.ensemble(scored)
    by_name = [dict(zip(first.index, first.score(), strict=True)) for first in scored]
    for name, score in zip(together.index, together.score(), strict=True):
        assert score == pytest.approx(np.mean([scores[name] for scores in by_name]))
    lines = (runs[2] / "predictions" / "test.csv").read_text().splitlines()
    (runs[2] / "predictions" / "test.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(NotComparable, match=r"measured on different images \(1 stand in one alone"):
        table.aligned([table.read_images(run, "test") for run in runs])


def test_runs_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    first, second = image_runs(tmp_path, 2)
    with pytest.raises(NotComparable, match='"run0" is given twice'):
        table.read_all_images([first, second / ".." / "run0"], "test")
    rewrite(second / "predictions" / "test.csv", lambda lines: [*lines, lines[0]])
    with pytest.raises(NotComparable, match=r'names "\d+_._\w+" twice'):
        table.read_images(second, "test")
    image, *_ = (first / "predictions" / "val_flips.csv").read_text().splitlines()[1].split(",")
    rewrite(
        first / "predictions" / "val_flips.csv",
        lambda lines: [re.sub(r",([01]),", lambda m: f",{1 - int(m[1])},", lines[0]), *lines[1:]],
    )
    with pytest.raises(NotComparable, match=f'other labels for 1 of the same images .the first: "{image}"'):
        table.aligned([table.read_images(run, "val_flips") for run in (first, second)])


def test_without_the_column_biopsied_labels_say_it_and_the_table_says_so(tmp_path: Path) -> None:
    columns = tuple(name for name in COLUMNS if name != "biopsied")
    bare = table.read_breasts(write_breasts(tmp_path / "bare", breast_rows(), 1, columns=columns), "test_random10")
    empty = [row | {"biopsied": ""} for row in breast_rows()]
    blank = table.read_breasts(write_breasts(tmp_path / "blank", empty, 1), "test_random10")
    expected = sum(row["benign"] or row["malignant"] for row in breast_rows())
    for breasts in (bare, blank):
        assert table.biopsied(breasts).sum() == expected
        assert "120 have no cell biopsied" in table.description(breasts, "biopsied")
    full = table.read_breasts(write_breasts(tmp_path / "full", breast_rows(), 1), "test_random10")
    assert table.biopsied(full).sum() == sum(row["biopsied"] for row in breast_rows()) > expected
    assert table.description(full, "biopsied") == "Breasts that the column biopsied calls so."


def test_an_ensemble_is_of_the_same_breasts_whatever_their_order(tmp_path: Path) -> None:
    runs = [write_breasts(tmp_path / f"run{k}", breast_rows(), k) for k in range(3)]
    breasts = table.read_all_breasts(runs, "test_random10")
    together = table.ensemble(breasts)
    own = [table.read_breasts(run, "test_random10") for run in runs]
    assert own[0].index[0] != own[1].index[0]  # the files are in other orders
    for finding in FINDINGS:
        by_breast = [dict(zip(first.index, first.score(finding), strict=True)) for first in own]
        for breast, score in zip(together.index, together.score(finding), strict=True):
            assert score == pytest.approx(np.mean([scores[breast] for scores in by_breast]))
    with pytest.raises(NotComparable, match='"run0" is given twice'):
        table.read_all_breasts([runs[0], runs[1] / ".." / "run0"], "test_random10")
    write_breasts(runs[1], breast_rows()[:-1], 1)
    with pytest.raises(NotComparable, match=r'"run0" and "run1" were measured on different breasts \(1 stand in one'):
        table.read_all_breasts(runs, "test_random10")
    write_breasts(runs[1], [row | {"benign": 1 - row["benign"]} for row in breast_rows()], 1)
    with pytest.raises(NotComparable, match="other labels for the same breasts"):
        table.read_all_breasts(runs, "test_random10")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines, lines[1]], "names 1 breasts twice; predict the split again"),
        (lambda lines: [lines[0], *(re.sub(r",[\d.e-]+,[\d.e-]+,", ",,,", line, count=1) for line in lines[1:])],
         "has a score that is no number; predict it again"),
        (lambda lines: lines[:1], "has no labelled breast"),
    ],
)  # fmt: skip
def test_predictions_that_cannot_be_measured_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = write_breasts(tmp_path / "run", breast_rows(), 0) / "predictions" / "test_random10.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(NotComparable, match=message):
        table.read_breasts(tmp_path / "run", "test_random10")


def test_a_csv_is_read_as_the_csv_module_reads_it(tmp_path: Path) -> None:
    """Texts stay texts, whatever they look like; short rows are filled, cells beyond the header dropped."""
    texts = [*FORMULAS, *ORDINARY, "NA", "nan", "None", "1.50", "001", "a,b", 'x"y', "line\nbreak", "cr\rhere", "TRUE"]
    rows = [(text, text, repr(0.1 + 0.2)) for text in texts if text]
    table.write(tmp_path / "a.csv", pd.DataFrame(rows, columns=["image", "", "p_malignant"]))
    with (tmp_path / "a.csv").open("a", newline="") as file:
        file.write("short\r\n\r\nlong,1,2,3,4\r\n")
    frame = table.read_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        columns, theirs = read_table(file)
    assert list(frame) == columns
    assert frame.to_dict("records") == theirs
    (tmp_path / "empty.csv").write_bytes(b"")
    assert table.read_csv(tmp_path / "empty.csv").empty


def test_scores_keep_every_digit(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((1000, 2)).astype(np.float32)
    scores[0] = 1e-9, 0.1
    labels = np.arange(1000) % 3 - 1
    keys = IMAGE_COLUMNS[:5]
    rows = [dict.fromkeys(keys, "") | {"image": f"i{k}", "patient_id": "=p", "other": "x"} for k in range(1000)]
    path = tmp_path / "predictions" / "test.csv"
    table.write_images(path, {"scores": scores, "label": labels}, rows, ("benign", "malignant"))
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == list(IMAGE_COLUMNS)
    assert [line[-1] for line in lines[1:]] == [repr(float(p)) for p in scores[:, 1]]
    assert [line[-2] for line in lines[1:4]] == ["", "0", "1"]
    images = table.read_images(tmp_path, "test")
    np.testing.assert_array_equal(images.score(), scores[labels >= 0, 1].astype(np.float64))
    assert set(images.patient) == {"=p"}
    classes = ("background", "mass", "calcification")
    table.write_images(path, {"scores": np.eye(3), "label": np.arange(3)}, rows[:3], classes)
    assert list(table.read_csv(path))[5:] == ["label", "p_background", "p_mass", "p_calcification"]
    with pytest.raises(NotComparable, match="is a patch run; compare whole-image runs"):
        table.read_images(tmp_path, "test")


def test_an_exam_run_is_no_whole_image_run(tmp_path: Path) -> None:
    run = write_breasts(tmp_path / "run", breast_rows(), 0, "test")
    with pytest.raises(NotComparable, match="is an exam run; compare whole-image runs"):
        table.read_images(run, "test")


def test_several_images_of_a_view_count_as_one(tmp_path: Path) -> None:
    run = image_runs(tmp_path, 1, 40)[0]
    images = table.read_images(run, "test")
    images.frame.loc[images.frame["view"] == "MLO", "view"] = "CC"
    assert table.by_breast(images).empty
    images = table.read_images(run, "test")
    frame = pd.concat([images.frame, images.frame.assign(p_malignant=1.0)[images.frame["view"] == "CC"]])
    once, twice = (table.by_breast(table.Predictions("run", each)) for each in (images.frame, frame))
    assert list(once) == ["patient_id", "exam_id", "laterality", "CC", "MLO", "both", "malignant"]
    np.testing.assert_allclose(twice["CC"], (once["CC"] + 1) / 2)
    np.testing.assert_array_equal(twice["MLO"], once["MLO"])


def test_asymmetry_is_against_the_other_breast_of_the_same_exam() -> None:
    """Worked by hand: log odds of 0.8, 0.5, 0.2 are ln 4, 0, -ln 4."""
    rows = [
        ("a", "1", "L", "CC", 0.8), ("a", "1", "R", "CC", 0.5), ("a", "1", "R", "MLO", 0.2),
        ("a", "1", "L", "ML", 0.5),  # no such view of the other breast: against all of its images
        ("b", "1", "L", "CC", 0.8), ("b", "2", "R", "CC", 0.2),  # another exam
        ("", "", "L", "CC", 0.8), ("", "", "R", "CC", 0.2),  # of nobody knows whom
        ("c", "", "L", "CC", 0.8), ("c", "", "R", "CC", 0.2), ("c", "", "", "CC", 0.2),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["patient_id", "exam_id", "laterality", "view", "p_malignant"])
    four = np.log(4)
    expected = [four, -four, -four * 3 / 2, four / 2, *[np.nan] * 4, 2 * four, -2 * four, np.nan]
    np.testing.assert_allclose(other_breast.asymmetry(frame), expected)
    images = other_breast.by_asymmetry(table.Predictions("run", frame.assign(image=range(len(frame)), malignant=0)))
    assert images.frame["image"].tolist() == [0, 1, 2, 3, 8, 9]
    np.testing.assert_allclose(images.score()[0], 0.8)
    breasts = frame.drop(columns="view").iloc[[0, 1]]
    np.testing.assert_allclose(other_breast.asymmetry(breasts), [four, -four])
