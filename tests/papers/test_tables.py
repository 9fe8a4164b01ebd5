"""Published numbers are lines of a CSV: a line more is a row more."""

import re
import shutil
from pathlib import Path

import pytest

from mammojax import cli
from mammojax.papers import tables
from mammojax.papers.runs import TRANSFERRED, starts_from
from mammojax.papers.tables import members, rows_of


def test_a_line_is_a_row_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for paper in ("shen2019", "wu2019"):
        shutil.copy(tables.FOLDER / f"{paper}.csv", tmp_path)
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    with (tmp_path / "shen2019.csv").open("a") as file:
        file.write('arXiv v9: Table 7: ours,"a new row",whole_vgg:9x1,0.99,1.00,7,,auc,cbis_ddsm,,page 3\n')
    with (tmp_path / "wu2019.csv").open("a") as file:
        file.write("Table III,another join,exam:triple,biopsied,benign,0.5±0.1,0.6,,page 4\n")
    (tmp_path / "runs").mkdir()
    assert cli.main(["reproduce", "shen2019", "--runs", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert "## arXiv v9: Table 7: ours\nTest AUC by image, cbis_ddsm.\n" in printed
    assert "a new row  0.99; flips 1.00; epoch 7 (a)  –     –            –           –            not run" in printed
    assert "--config configs/whole_vgg.py:9x1 " in printed
    assert cli.main(["reproduce", "wu2019", "--runs", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\nanother join ") == 1
    assert printed.count("configs/exam.py:triple ") == 5


def test_every_line_has_a_label() -> None:
    for paper in ("shen2019", "wu2019"):
        rows = [row for table in rows_of(paper).values() for row in table]
        names = {row.row for row in rows}
        for row in rows:
            assert row.label
            assert row.label.strip() == row.label
            assert row.minus in names | {"", "two views", "flips"}
            assert set(members(row.row)) <= names


def test_inbreast_starts_from_the_four_best() -> None:
    rows = rows_of("shen2019")
    (best,) = [row for row in rows["Scientific Reports 2019: Table 2: whole images, Resnet50 patch classifiers"]
               if row.row.startswith("ensemble:")]  # fmt: skip
    assert members(best.row) == list(TRANSFERRED.values())
    (four,) = [row for row in rows["Scientific Reports 2019: Table 4: INbreast, by labelled patients"]
               if row.row.startswith("ensemble:")]  # fmt: skip
    assert [starts_from(row) for row in members(four.row)] == members(best.row)


def test_the_page_says_the_coverage_first_and_folds_what_no_run_fills(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    page = tmp_path / "page.html"
    assert cli.main(["reproduce", "shen2019", "--runs", str(tmp_path / "runs"), "--output", str(page)]) == 0
    text = page.read_text()
    assert text.index("<h2>Coverage</h2>") < text.index("Table 1: patch classifiers</h2>")
    assert re.search(r"<p class=\"soft\">0 of \d+ rows have a run", text)
    assert "<details><summary>6 rows, none run</summary><table" in text
    (row,) = re.findall(r"<tr><td[^>]*>VGG16, S10, ImageNet</td>.*?</tr>", text)
    assert "configs/patch_vgg.py:s10 " in row  # the command stands beside its row
