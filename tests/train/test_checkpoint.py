"""Checkpoints come back bit for bit, and a misfit is said in words."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from mammojax.errors import BadCheckpoint
from mammojax.train import checkpoint
from mammojax.train.state import transfer


def _tree(width: int) -> dict:
    rng = np.random.default_rng(0)
    return {"trunk": {"conv": {"kernel": jnp.asarray(rng.normal(size=(3, width)), jnp.float32)}}}


def test_latest_returns_state_and_host_exactly(tmp_path: Path) -> None:
    state = {"params": _tree(4), "step": jnp.int32(7), "half": jnp.ones(3, jnp.bfloat16)}
    latest = checkpoint.Latest(tmp_path)
    assert latest.host() is None
    host = {"stage": 1, "best": {"value": 0.1234567890123456}, "batches": {"next": [1, 2]}}
    latest.save(3, {**state, "step": jnp.int32(6)}, {"stage": 0})
    latest.save(7, state, host)
    again = checkpoint.Latest(tmp_path)
    assert again.host() == host
    with pytest.raises(BadCheckpoint, match="does not fit its config"):
        again.state({**state, "params": _tree(5)})
    restored = again.state(state)
    assert int(restored["step"]) == 7
    assert restored["half"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        restored["params"]["trunk"]["conv"]["kernel"], state["params"]["trunk"]["conv"]["kernel"]
    )


def test_best_is_replaced_whole(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        checkpoint.save_best(tmp_path, {"params": {"w": jnp.full(2, value)}, "batch_stats": {}})
    assert checkpoint.load_best(tmp_path)["params"]["w"].tolist() == [2.0, 2.0]
    (tmp_path / "checkpoints" / "best").rename(tmp_path / "checkpoints" / "best.old")  # killed between two renames
    assert checkpoint.load_best(tmp_path)["params"]["w"].tolist() == [2.0, 2.0]


def _flipped(file: Path, places: int) -> Iterator[str]:
    """Flip single bits of a file, spread over it, one after the other; the file is whole again afterwards."""
    whole = file.read_bytes()
    for at in np.unique(np.linspace(0, len(whole) - 1, places).astype(int)) if whole else ():
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        yield f"{file.name}, byte {at}"
    file.write_bytes(whole)


def _same(a: Any, b: Any) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_no_flipped_bit_changes_the_best_weights_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint.save_best(tmp_path, {"params": _tree(16), "batch_stats": {"bn": {"var": jnp.ones(16)}}})
    whole, refused = checkpoint.load_best(tmp_path), []
    files = [path for path in (tmp_path / "checkpoints" / "best").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    for file in files:
        for flip in _flipped(file, 25):
            try:
                assert _same(checkpoint.load_best(tmp_path), whole), flip
                assert file is not largest, flip
            except BadCheckpoint as error:
                refused.append(str(error))
    assert len(refused) > len(files)
    assert all("are damaged" in text and "train it again in another --workdir" in text for text in refused)
    assert _same(checkpoint.load_best(tmp_path), whole)
    assert capfd.readouterr().err == ""  # one sentence, not also what libraries say of the file


def test_a_damaged_latest_goes_on_from_the_step_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    latest = checkpoint.Latest(run)
    states = {step: {"params": _tree(16), "step": jnp.int32(step)} for step in (1, 2, 3)}
    for step, state in states.items():
        latest.save(step, state, {"step": step})
    folder = run / "checkpoints" / "latest"
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    fell_back = 0
    for file in [path for path in (folder / "3").rglob("*") if path.is_file()]:
        for flip in _flipped(file, 4):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run, copy)
            again = checkpoint.Latest(copy)
            host, printed = again.host(), capsys.readouterr().out
            assert host in ({"step": 2}, {"step": 3}), flip
            assert _same(again.state(states[3]), jax.tree.map(np.asarray, states[host["step"]])), flip
            if host["step"] == 2:
                assert "latest/3 is damaged" in printed, flip
                assert "going on from step 2" in printed, flip
                assert (copy / "checkpoints" / "damaged_3").is_dir(), flip
                fell_back += 1
    assert fell_back > 4
    again.save(3, states[3], {"step": 3})
    assert checkpoint.Latest(copy).host() == {"step": 3}


def test_two_damaged_states_say_what_to_do(tmp_path: Path) -> None:
    latest = checkpoint.Latest(tmp_path)
    for step in (1, 2):
        latest.save(step, {"params": _tree(4)}, {"step": step})
        (tmp_path / "checkpoints" / "latest" / str(step) / "state" / "_METADATA").write_text("")
    with pytest.raises(BadCheckpoint, match=r"no state .* can be used .* another --workdir"):
        checkpoint.Latest(tmp_path)
    assert (tmp_path / "checkpoints" / "latest" / "2").is_dir()  # nothing is put aside where nothing is left


def test_checkpoints_of_older_runs_have_no_digests_and_restore(tmp_path: Path) -> None:
    """As they were written before: orbax alone, the host's side in its metadata."""
    variables = {"params": jax.tree.map(np.array, _tree(4)), "batch_stats": {}}
    best = tmp_path / "checkpoints" / "best"
    ocp.save(best, variables)
    assert _same(checkpoint.load_best(tmp_path), variables)
    variables["params"]["trunk"]["conv"]["kernel"][0, 0] = np.nan
    ocp.save(best, variables, overwrite=True)
    with pytest.raises(BadCheckpoint, match="params/trunk/conv/kernel holds a number that is not finite"):
        checkpoint.load_best(tmp_path)
    with ocp.training.Checkpointer((tmp_path / "checkpoints" / "latest").absolute()) as checkpointer:
        checkpointer.save_checkpointables(
            5, {"state": {"0000": np.ones(3, np.float32)}}, custom_metadata={"host": '{"step": 5}'}
        )
    latest = checkpoint.Latest(tmp_path)
    assert latest.host() == {"step": 5}
    assert latest.state({"w": np.zeros(3, np.float32)})["w"].tolist() == [1, 1, 1]


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="not a run folder"):
        checkpoint.restore_best(tmp_path)


def test_transfer_takes_the_trunk_and_keeps_the_head() -> None:
    head = {"head": {"logits": {"bias": jnp.zeros(2)}}}
    ours = {"params": {**_tree(4), **head}, "batch_stats": {}}
    theirs = {
        "params": {"trunk": {"conv": {"kernel": jnp.ones((3, 4))}}, "classifier": {"bias": jnp.ones(5)}},
        "batch_stats": {},
    }
    moved = transfer(theirs, ours)
    assert moved["params"]["trunk"]["conv"]["kernel"].min() == 1
    assert moved["params"]["head"] is ours["params"]["head"]
    with pytest.raises(BadCheckpoint, match="conv/kernel is"):
        transfer({"params": _tree(8), "batch_stats": {}}, ours)


def test_transfer_takes_the_columns_and_repeats_their_stem() -> None:
    """Wu et al. 2019, section IV-C: columns of the BI-RADS network, the first kernel duplicated, fresh Dense layers."""

    def net(channels: int, logits: int, value: float) -> dict[str, Any]:
        column = {"stem_conv": {"kernel": jnp.full((7, 7, channels, 4), value)}, "bn": {"scale": jnp.full(4, value)}}
        dense = {
            "CC_hidden": {"kernel": jnp.full((8, 8), value)},
            "CC_logits": {"kernel": jnp.full((8, logits), value)},
        }
        return {
            "params": {"column_CC": column, **dense},
            "batch_stats": {"column_CC": {"bn": {"mean": jnp.full(4, value)}}},
        }

    birads, cancer = net(1, 3, 2.0), net(3, 8, 0.0)
    moved = transfer(birads, cancer)
    column = moved["params"]["column_CC"]
    assert column["stem_conv"]["kernel"].shape == (7, 7, 3, 4)
    assert np.unique(column["stem_conv"]["kernel"]).tolist() == [2.0]
    assert moved["batch_stats"]["column_CC"]["bn"]["mean"].tolist() == [2.0] * 4
    for name in ("CC_hidden", "CC_logits"):
        assert moved["params"][name] is cancer["params"][name]
    whole = net(3, 8, 2.0)
    assert transfer(whole, cancer) is whole  # the same network goes on with its Dense layers
    with pytest.raises(BadCheckpoint, match="of its columns differ"):
        transfer({"params": {"column": birads["params"]["column_CC"]}, "batch_stats": {}}, cancer)  # tied otherwise


def test_the_patch_run_is_inside_a_run_or_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, task: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"config": {"model": {"task": task}}, "facts": {}}))
        return folder

    patch, other = write(tmp_path / "patches", "patch"), write(tmp_path / "other", "whole")
    run = write(tmp_path / "run", "whole")
    assert checkpoint.patch_run(run, str(patch)) == patch
    assert checkpoint.patch_run(run, str(other)) is None
    inner = write(other / "patch", "patch")
    assert checkpoint.patch_run(run, str(other)) == inner
    monkeypatch.chdir(patch)
    assert checkpoint.patch_run(run, "") is None  # not the folder one stands in
    own = write(run / "patch", "patch")
    assert checkpoint.patch_run(run, str(patch)) == checkpoint.patch_run(run, "") == own
