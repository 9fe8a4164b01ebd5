"""What stands at the top level: configs open with their row and command; launch.py is small."""

from pathlib import Path

import pytest

from mammojax import configs

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = configs.names()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_its_command_and_where_it_comes_from(name: str) -> None:
    module = configs.module(name)
    assert f"python launch.py --config configs/{name}.py" in module.__doc__
    if name.startswith(("patch", "whole")):
        assert "Shen et al. 2019" in module.__doc__
        assert "Published" in module.__doc__
        assert tuple(module.get_config().data.size) == (1152, 896)
    assert module.get_config().to_json_best_effort()
    assert module.get_config().data.map == ""  # a manifest's words may be set from the command line
    assert module.get_config().extend is False


def test_the_papers_schedule() -> None:
    patch = configs.get("patch_resnet")
    stages = [patch.stages[k] for k in sorted(patch.stages)]
    assert [(s.epochs, s.learning_rate) for s in stages] == [(3, 1e-3), (10, 1e-4), (37, 1e-5)]
    assert patch.batch == 32
    whole = configs.get("whole_resnet")
    stages = [whole.stages[k] for k in sorted(whole.stages)]
    assert [(s.epochs, s.learning_rate, s.weight_decay) for s in stages] == [(30, 1e-4, 1e-3), (20, 1e-5, 1e-2)]
    assert whole.batch == 2


def test_launch_is_under_60_lines() -> None:
    assert len((ROOT / "launch.py").read_text().splitlines()) < 60
