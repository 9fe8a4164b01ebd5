"""Pairs of images: both views of a breast, or both breasts; breasts without a second image are counted."""

import pytest

from mammojax.data.pairs import Pair, Pairs, pairs_of, refuse
from mammojax.errors import BadDataset


def row(patient: str, side: str, view: str, label: int, exam: str = "") -> dict[str, str]:
    return {"patient_id": patient, "exam_id": exam, "laterality": side, "view": view, "label": str(label)}


TABLE = [
    row("a", "L", "MLO", 0), row("a", "L", "CC", 1), row("a", "R", "CC", 0),  # the right breast has one view
    row("b", "L", "CC", 0, "b1"), row("b", "L", "MLO", 0, "b2"),  # of two exams
    row("c", "R", "CC", 0), row("c", "R", "CC", 0), row("c", "R", "MLO", -1), row("c", "", "MLO", 0),
]  # fmt: skip


def test_two_views_of_a_breast_are_one_example() -> None:
    pairs, left_out = pairs_of(TABLE, "views")
    assert pairs == [Pair("a", "a", "L", "CC+MLO", (1, 0), 1), Pair("c", "c", "R", "CC+MLO", (5, 7), 0)]
    assert left_out == 3


def test_two_breasts_are_an_example_each_with_its_own_label() -> None:
    table = [row("a", "L", "MLO", 1), row("a", "R", "MLO", 0), row("b", "L", "MLO", 1), row("c", "L", "", 0),
             row("c", "R", "", 1), row("d", "L", "CC", 0), row("d", "R", "MLO", 0)]  # fmt: skip
    pairs, left_out = pairs_of(table, "breasts")
    assert [(p.patient_id, p.laterality, p.views, p.images, p.label) for p in pairs] == [
        ("a", "L", "MLO", (0, 1), 1), ("a", "R", "MLO", (1, 0), 0),
        ("c", "L", "", (3, 4), 0), ("c", "R", "", (4, 3), 1),
    ]  # fmt: skip
    assert left_out == 3


def test_data_that_teach_nothing_are_refused() -> None:
    def of(*labels: int) -> Pairs:
        pairs = object.__new__(Pairs)
        pairs.pairs = [Pair("e", str(k), "L", "CC+MLO", (0, 1), label) for k, label in enumerate(labels)]
        return pairs

    refuse({"train": of(0, 1), "val": of(0), "test": of(1)}, "views")
    with pytest.raises(BadDataset, match="train split are of fewer than two classes"):
        refuse({"train": of(0, 0), "val": of(0), "test": of(1)}, "views")
    with pytest.raises(BadDataset, match="the test split has no labelled breasts with a CC and an MLO view"):
        refuse({"train": of(0, 1), "val": of(0), "test": of(-1)}, "views")
