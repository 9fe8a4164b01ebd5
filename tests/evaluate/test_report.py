"""Numbers as their readers see them."""

from mammojax.evaluate.report import interval_text, with_counts


def test_an_interval_as_text() -> None:
    estimate = {"value": 0.9104, "low": 0.87, "high": float("nan"), "over": "what a caller keeps beside it"}
    assert interval_text(estimate | {"high": 0.94}) == "0.910 [0.870, 0.940]"
    assert interval_text(estimate | {"high": 0.94}, "+.2f") == "+0.91 [+0.87, +0.94]"
    assert interval_text(estimate) == "0.910 [0.870, –]"
    assert interval_text(estimate | {"value": float("nan")}) == interval_text(estimate | {"value": None}) == "–"
    assert interval_text(None) == with_counts(None) == "–"
    few = {"value": 0.9104, "low": None, "high": None, "n": [28, 3]}
    assert interval_text(few) == "0.910 [too few to estimate]"
    assert with_counts(few) == "0.910 [too few to estimate], n 28 + 3"
