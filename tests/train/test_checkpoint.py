"""Checkpoints come back bit for bit, and a misfit is said in words."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

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
    latest.close()
    again = checkpoint.Latest(tmp_path)
    assert again.host() == host
    restored = again.state(state)
    assert int(restored["step"]) == 7
    assert restored["half"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        restored["params"]["trunk"]["conv"]["kernel"], state["params"]["trunk"]["conv"]["kernel"]
    )
    with pytest.raises(checkpoint.BadCheckpoint, match="does not fit its config"):
        again.state({**state, "params": _tree(5)})
    again.close()


def test_best_is_replaced_whole(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        checkpoint.save_best(tmp_path, {"params": {"w": jnp.full(2, value)}, "batch_stats": {}})
    assert checkpoint.load_best(tmp_path)["params"]["w"].tolist() == [2.0, 2.0]
    (tmp_path / "checkpoints" / "best").rename(tmp_path / "checkpoints" / "best.old")  # killed between two renames
    assert checkpoint.load_best(tmp_path)["params"]["w"].tolist() == [2.0, 2.0]


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(checkpoint.BadCheckpoint, match="not a run folder"):
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
    with pytest.raises(checkpoint.BadCheckpoint, match="conv/kernel is"):
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
    with pytest.raises(checkpoint.BadCheckpoint, match="of its columns differ"):
        transfer({"params": {"column": birads["params"]["column_CC"]}, "batch_stats": {}}, cancer)  # tied otherwise
