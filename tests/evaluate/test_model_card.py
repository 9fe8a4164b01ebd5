"""The model card says where a run's weights come from."""

from pathlib import Path

import pytest

from mammojax import configs
from mammojax.evaluate import model_card


@pytest.mark.parametrize(
    ("name", "argument", "words"),
    [
        ("two_view", "film", "its own single-view run, that from its own patch run, that from published weights"),
        ("film", "", "its own patch run, that from published weights"),
        ("patch_resnet", "", "random"),
        ("exam", "", "its own BI-RADS run"),
    ],
)
def test_the_first_weights_are_those_of_the_runs_before(tmp_path: Path, name: str, argument: str, words: str) -> None:
    config = configs.get(name, argument) if argument else configs.get(name)
    facts = {"name": "manifest", "split": "shen", "rejected": 0, "counts": {}, "classes": []}

    def first_weights() -> str:
        items = model_card.rows(tmp_path, config.to_dict(), facts, {}, {})
        return {item: text for item, _, text in items}["First weights"]

    (tmp_path / "predictions").mkdir(exist_ok=True)
    (tmp_path / "predictions" / "test.csv").write_text("patient_id\n")
    assert first_weights() == words
    config.init_from = "runs/before"
    assert first_weights().startswith("an earlier run")
