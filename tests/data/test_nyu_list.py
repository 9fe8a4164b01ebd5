"""NYU exam lists: converted where they are plain, refused where they could run code."""

import csv
import os
import pickle
from pathlib import Path

import pytest

from mammojax import cli
from mammojax.data.nyu_list import read_exam_list
from mammojax.errors import BadManifest

EXAM = {"horizontal_flip": "NO", "L-CC": ["0_L_CC"], "R-CC": ["0_R_CC"], "L-MLO": ["0_L_MLO", "0_L_MLO2"], "R-MLO": []}


def test_a_list_becomes_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "exams.pkl", tmp_path / "manifest.csv"
    for protocol in (0, 2, 4):
        source.write_bytes(pickle.dumps([EXAM, {**EXAM, "horizontal_flip": "YES"}], protocol))
        assert cli.main(["convert", "nyu-exam-list", str(source), "--out", str(out)]) == 0
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["image"] for row in rows[:4]] == [
            f"images/{name}.png" for name in ("0_L_CC", "0_R_CC", "0_L_MLO", "0_L_MLO2")
        ]
        assert [(row["exam_id"], row["laterality"], row["view"]) for row in rows[2:5]] == [
            ("exam0", "L", "MLO"), ("exam0", "L", "MLO"), ("exam1", "L", "CC")
        ]  # fmt: skip
        assert {row["horizontal_flip"] for row in rows[4:]} == {"YES"}
    assert "8 images" in capsys.readouterr().out


class _Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def test_a_pickle_that_runs_code_is_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, trace = tmp_path / "evil.pkl", tmp_path / "trace"
    source.write_bytes(pickle.dumps([{**EXAM, "L-CC": _Evil(f"touch {trace}")}]))
    assert cli.main(["convert", "nyu-exam-list", str(source), "--out", str(tmp_path / "m.csv")]) == 2
    assert "it is not opened" in capsys.readouterr().err
    assert not trace.exists()
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is no pickle"), (b"not a pickle", "is no pickle"), (pickle.dumps({}), "is not a list"),
     (pickle.dumps([1]), "exam 0 is not a dictionary"), (pickle.dumps([{**EXAM, "L-CC": [1]}]), 'has a "L-CC"'),
     (pickle.dumps([{**EXAM, "horizontal_flip": ""}]), "neither YES nor NO")],
)  # fmt: skip
def test_files_that_are_no_list_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(BadManifest, match=message):
        read_exam_list(tmp_path / "x.pkl")
