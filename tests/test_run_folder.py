"""A run folder belongs to one config: what differs is said, what grows goes on, what changes nothing stops nothing."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from mammojax import run_folder
from mammojax.configs import exam_quickstart, quickstart
from mammojax.train.checkpoint import Latest

FACTS = {"name": "phantom", "mean": 40.0, "folder": "whole_all_288x224_s0_n340p0"}


def started(folder: Path, config: ConfigDict, *, stage: int = 0, step: int = 5) -> bytes:
    """A run folder as its first checkpoint leaves it; config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write(folder, config, FACTS)
    latest = Latest(folder)
    latest.save(step, {"a": np.zeros(1)}, {"stage": stage, "stage_step": step, "step": step})
    return (folder / "config.json").read_bytes()


def _set(config: ConfigDict, **fields: Any) -> ConfigDict:
    changed = ConfigDict(config.copy_and_resolve_references())
    changed.update_from_flattened_dict({field.replace("__", "."): value for field, value in fields.items()})
    return changed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 1}, "seed 0 → 1"),
        ({"batch": 4}, "batch 8 → 4"),
        ({"data__seed": 1, "phantom__patients": 50}, "data.seed 0 → 1, phantom.patients 340 → 50"),
        ({"stages__stage1__learning_rate": 1e-2}, "stages.stage1.learning_rate 0.001 → 0.01"),
        ({"stages__stage2__epochs": 2}, "stages.stage2.epochs 3 → 2 (a stage can only grow)"),
        ({"model__head": "8-8-16x1"}, "model.head 32-32-128x1,32-32-128x1 → 8-8-16x1"),
        ({"init_from": "elsewhere"}, 'init_from "" → elsewhere'),
        ({"patch__batch": 16}, "patch.batch 32 → 16"),
        ({"patch__stages__stage1__epochs": 9}, "patch.stages.stage1.epochs 4 → 9 (this run has started from that one)"),
    ],
)
@pytest.mark.parametrize("extend", [False, True])
def test_another_config_is_refused_field_by_field(
    tmp_path: Path, fields: dict[str, Any], message: str, extend: bool
) -> None:
    config = quickstart.get_config()
    before = started(tmp_path, config, stage=1)
    other = _set(config, **fields, extend=extend)
    with pytest.raises(run_folder.BadConfig, match=re.escape(message)) as error:
        run_folder.check(tmp_path, other)
    assert str(error.value).count("→") == len(fields)  # nothing that is the same is listed
    assert str(error.value).endswith("; give another --workdir.")
    with pytest.raises(run_folder.BadConfig):
        run_folder.write(tmp_path, other, FACTS)
    assert (tmp_path / "config.json").read_bytes() == before


def test_free_fields_and_fields_that_an_older_config_lacks_are_accepted(tmp_path: Path) -> None:
    config = quickstart.get_config()
    before = started(tmp_path / "new", config)
    moved = _set(
        config, data__workers=0, data__data_dir="/elsewhere", checkpoint_steps=7, gallery=0, data__prepare=False
    )
    for again in (config, moved):
        run_folder.write(tmp_path / "new", again, FACTS)
        assert (tmp_path / "new" / "config.json").read_bytes() == before
    assert json.loads(before)["config"]["extend"] is False
    started(tmp_path / "old", config)
    saved = json.loads(before)
    del saved["config"]["extend"], saved["config"]["auxiliary"], saved["config"]["stages"]["stage1"]["slow"]
    del saved["facts"]["folder"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(saved))
    assert run_folder.check(tmp_path / "old", config, FACTS) == []
    del saved["config"]["stages"]["stage2"], saved["config"]["patch"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(saved))
    with pytest.raises(run_folder.BadConfig, match=r"patch absent → there, stages.stage2 absent → there;"):
        run_folder.check(tmp_path / "old", config, FACTS)


def test_other_data_behind_the_same_config_are_refused(tmp_path: Path) -> None:
    config = quickstart.get_config()
    started(tmp_path, config)
    other = FACTS | {"folder": "whole_all_288x224_s0_n340p1"}
    with pytest.raises(run_folder.BadConfig, match="the data set's folder whole_all_288x224_s0_n340p0 → "):
        run_folder.write(tmp_path, config, other)


def test_checkpoints_that_no_config_tells_of_are_not_gone_on_with(tmp_path: Path) -> None:
    config = quickstart.get_config()
    started(tmp_path, config)
    (tmp_path / "config.json").unlink()
    with pytest.raises(run_folder.BadConfig, match=r"no config\.json that says of which; give another --workdir"):
        run_folder.check(tmp_path, config)


def test_a_folder_in_which_nothing_was_trained_takes_another_config(tmp_path: Path) -> None:
    config = quickstart.get_config()
    run_folder.write(tmp_path, config, FACTS)
    run_folder.write(tmp_path, _set(config, seed=4), FACTS)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == 4


@pytest.mark.parametrize(
    ("fields", "stage", "step", "why"),
    [
        ({"stages__stage2__epochs": 9}, 1, 5, ""),
        ({"stages__stage2__epochs": 9}, 0, 5, ""),
        ({"bootstrap_runs": 9000}, 1, 5, ""),
        ({"bootstrap_runs": 10}, 1, 5, "it can only grow"),
        ({"stages__stage1__epochs": 9}, 0, 5, ""),
        ({"stages__stage1__epochs": 9}, 1, 5, "the run is past that stage"),
    ],
)
def test_extend_lets_epochs_and_bootstrap_runs_grow(
    tmp_path: Path, fields: dict[str, Any], stage: int, step: int, why: str
) -> None:
    config = quickstart.get_config()
    before = started(tmp_path, config, stage=stage, step=step)
    for name in ("metrics.json", "report.html"):
        (tmp_path / name).write_text("{}")
    grown = _set(config, **fields, data__workers=0)
    with pytest.raises(run_folder.BadConfig, match=re.escape(why or "or --config.extend=True to go on with this run")):
        run_folder.write(tmp_path, grown, FACTS)
    grown.extend = True
    if why:
        with pytest.raises(run_folder.BadConfig, match=re.escape(why)):
            run_folder.write(tmp_path, grown, FACTS)
        assert (tmp_path / "config.json").read_bytes() == before
        return
    run_folder.write(tmp_path, grown, FACTS)
    expected = json.loads(before)
    (field,) = fields
    *path, last = field.split("__")
    inner = expected["config"]
    for key in path:
        inner = inner[key]
    inner[last] = fields[field]
    assert json.loads((tmp_path / "config.json").read_text()) == expected  # the workers too stay what they were
    assert not (tmp_path / "metrics.json").exists()  # of the shorter run
    assert not (tmp_path / "report.html").exists()
    grown.extend = False
    assert run_folder.check(tmp_path, grown, FACTS) == []


def test_a_cosine_stage_that_has_begun_does_not_grow(tmp_path: Path) -> None:
    config = exam_quickstart.get_config()
    started(tmp_path, config)
    grown = _set(config, stages__stage1__epochs=20, extend=True)
    with pytest.raises(run_folder.BadConfig, match="a cosine stage of that length would have had other rates"):
        run_folder.check(tmp_path, grown)


def test_one_path_in_two_spellings_is_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = _set(quickstart.get_config(), init_from="patch")
    started(tmp_path / "run", config)
    assert run_folder.check(tmp_path / "run", _set(config, init_from=f"{tmp_path}/patch/", patch__batch=1)) == []


def test_the_default_folder_is_named_after_the_set_fields_without_names() -> None:
    def name(*arguments: Any, **overrides: Any) -> str:
        default = run_folder.default(
            *(arguments or ("quickstart", "")), {k.replace("__", "."): v for k, v in overrides.items()}
        )
        assert default.parent == Path("runs")
        return default.name

    assert name() == "quickstart"
    assert name("whole_resnet", "256x1,128x1/s1+20") == "whole_resnet_256x1_128x1_s1+20"
    assert name(seed=1) == "quickstart,seed=1"
    assert name(seed=1, data__seed=2) == "quickstart,data.seed=2,seed=1"
    assert name(data__workers=4, checkpoint_steps=3, data__data_dir="/x", extend=True) == "quickstart"
    assert name(data__size=(96, 64), stages__stage1__learning_rate=1e-5).startswith(
        "quickstart,data.size=96_64,stages."
    )
    paths = [
        name(init_from="runs/Jane Smith"),
        name(init_from="runs/x"),
        name(source="smith.csv"),
        name(data__source="s"),
    ]
    assert len(set(paths)) == 4
    for path in paths:
        assert re.fullmatch(r"quickstart,[a-z_.]+=[0-9a-f]{8}", path)
    assert re.fullmatch(r"quickstart,stages.stage1.learn=[0-9a-f]{8}", name(stages__stage1__learn=("head/.*",)))
    long = [name(model__head=value * 90) for value in "ab"]
    assert re.fullmatch(r"quickstart,[0-9a-f]{8}", long[0])
    assert long[0] != long[1]
