"""Marks and readings survive a restart; a spreadsheet runs none of them; a reading feeds `mammojax readers`."""

from pathlib import Path

import pytest

from mammojax.errors import BadManifest
from mammojax.evaluate import reader_file
from mammojax.reading.marks import FILE, READS, Marks

FACTS = {
    "image": "a.dcm", "patient_id": "=1+1", "exam_id": "E", "laterality": "L", "view": "CC", "label": "1",
    "p_malignant": "0.25",
}  # fmt: skip


def test_marks_are_kept_replaced_and_removed(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.mark(FACTS, ["dense tissue", "missed lesion"], "=cmd\n  two lines")
    text = (tmp_path / FILE).read_text()
    assert "'=1+1" in text
    assert "'=cmd two lines" in text
    again = Marks(tmp_path)
    assert again.images["a.dcm"]["tags"] == "missed lesion; dense tissue"
    assert again.images["a.dcm"]["patient_id"] == "=1+1"
    again.mark(FACTS, [], "")
    assert Marks(tmp_path).images == {}
    assert again.csv(FILE).decode().startswith("image,patient_id")


@pytest.mark.parametrize(("tags", "comment"), [(["ugly"], ""), ([], "x" * 2001)])
def test_what_is_no_mark_is_refused(tags: list[str], comment: str, tmp_path: Path) -> None:
    with pytest.raises(BadManifest):
        Marks(tmp_path).mark(FACTS, tags, comment)


def test_another_table_of_that_name_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("a,b\n1,2\n")
    with pytest.raises(BadManifest, match="name another folder"):
        Marks(tmp_path)


def test_readings_are_a_reader_file(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    for reader, scores in (("ann", (0.0, 0.01)), ("bob", (0.4, 1.0))):  # ann's are hardly percentages, and need not be
        for exam, p in zip(("E1", "E2"), scores, strict=True):
            marks.read(reader, exam, "R", p)
    marks.read("bob", "E1", "R", 0.5)
    readers = reader_file.read(tmp_path / READS)
    assert readers.scores.to_numpy().tolist() == [[0.0, 0.5], [0.01, 1.0]]
    assert Marks(tmp_path).of_reader("bob") == {("E1", "R"): 0.5, ("E2", "R"): 1.0}
    with pytest.raises(BadManifest, match="left or a right breast"):
        marks.read("ann", "E1", "", 0.5)
