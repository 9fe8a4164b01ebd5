"""Several seeds and joins of one exam config; the slow test of their training is in test_exam_run.py."""

from pathlib import Path

import pytest

from mammojax import members
from mammojax.configs import exam_ensemble
from mammojax.errors import BadConfig
from tests.test_run_folder import started


def test_a_member_of_another_config_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    config = exam_ensemble.get_config("quickstart")
    for name in ("birads", "patch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"config": {}, "facts": {}}')
    config.init_from, config.patch_run = str(tmp_path / "birads"), str(tmp_path / "patch")
    second = config.copy_and_resolve_references()
    with second.unlocked():
        del second.members
    second.seed, second.stages.stage1.learning_rate = 1, 0.5
    started(tmp_path / "ensemble" / "view-wise_1", second)
    said = r'view-wise_1" holds a run of another config: stages.stage1.learning_rate 0.5 → 0.001; give another'
    with pytest.raises(BadConfig, match=said):
        members.members(config, tmp_path / "ensemble")
    assert [path.name for path in (tmp_path / "ensemble").iterdir()] == ["view-wise_1"]
