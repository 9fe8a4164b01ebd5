"""Checkpoints on disk: the latest state to go on from, and the best weights to use.

Layout of a run: `checkpoints/latest/<step>` (state and the host's side of it: stage, iterator, best so far) and
`checkpoints/best` (params and batch_stats alone). Everything is saved as NumPy, so a run restores on any devices.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from orbax.checkpoint import v1 as ocp

Tree = Any
logging.getLogger("absl").addFilter(lambda record: "OCDBT" not in record.getMessage())  # says so at every save


class BadCheckpoint(ValueError):
    """A checkpoint that is absent or does not fit the network."""


def _numpy(tree: Tree) -> Tree:
    return jax.tree.map(np.asarray, jax.device_get(tree))


def differences(saved: Tree, wanted: Tree) -> list[str]:
    """What keeps two trees from being the same: a line for each leaf missing, surplus or of another shape."""

    def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}

    ours, theirs = shapes(wanted), shapes(saved)
    lines = [f"missing {name}" for name in ours if name not in theirs]
    lines += [f"surplus {name}" for name in theirs if name not in ours]
    lines += [
        f"{name} is {theirs[name]}, not {ours[name]}" for name in ours if name in theirs and ours[name] != theirs[name]
    ]
    return lines


class Latest:
    """The newest state of a run, replaced at each save; a save that was cut off leaves the one before it."""

    def __init__(self, workdir: Path) -> None:
        self._checkpointer = ocp.training.Checkpointer(
            (workdir / "checkpoints" / "latest").absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(1),
            cleanup_tmp_directories=True,
        )

    def save(self, step: int, state: Tree, host: dict[str, Any]) -> None:
        """Save the state (any pytree of arrays) and the host's side (JSON) as one checkpoint."""
        leaves = {f"{i:04d}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(jax.device_get(state)))}
        self._checkpointer.save_checkpointables(
            step, {"state": leaves}, custom_metadata={"host": json.dumps(host)}, overwrite=True
        )

    def host(self) -> dict[str, Any] | None:
        """The host's side of the newest checkpoint, None where there is none."""
        latest = self._checkpointer.latest
        if latest is None:
            return None
        metadata = self._checkpointer.metadata(latest.step)
        return json.loads(metadata.custom_metadata["host"])

    def state(self, like: Tree) -> Tree:
        """The newest state in the shape of `like`.

        Raises:
            BadCheckpoint: it was written by a network or a stage of another shape.
        """
        latest = self._checkpointer.latest
        if latest is None:
            raise BadCheckpoint("this run has no checkpoint yet.")
        leaves, structure = jax.tree.flatten(like)
        saved = self._checkpointer.load_checkpointables(latest.step)["state"]
        wanted = {f"{i:04d}": leaf for i, leaf in enumerate(leaves)}
        if wrong := differences(saved, wanted):
            raise BadCheckpoint(
                f"the checkpoint of this run does not fit its config ({len(wrong)} arrays differ: {wrong[0]}); "
                "use another --workdir or the config the run was started with."
            )
        return jax.tree.unflatten(structure, [saved[name] for name in sorted(saved)])

    def close(self) -> None:
        """Wait for what is still being written."""
        self._checkpointer.close()


def save_best(workdir: Path, variables: Tree) -> None:
    """Write the best weights, whole or not at all: a folder beside them is filled, then takes their place."""
    folder = (workdir / "checkpoints").absolute()
    fresh, old, best = folder / "best.new", folder / "best.old", folder / "best"
    ocp.save(fresh, _numpy(variables), overwrite=True)
    shutil.rmtree(old, ignore_errors=True)
    if best.exists():
        best.rename(old)
    fresh.rename(best)
    shutil.rmtree(old, ignore_errors=True)


def load_best(run: Path) -> Tree:
    """{"params", "batch_stats"} of a run's best epoch, NumPy.

    Raises:
        BadCheckpoint: the run has none.
    """
    folder = (Path(run) / "checkpoints").absolute()
    for name in ("best", "best.old"):  # best.old: the run was killed between the two renames
        if (folder / name).is_dir():
            variables = ocp.load(folder / name)
            return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    raise BadCheckpoint(f'"{run}" holds no trained weights (checkpoints/best); name the folder of a finished run.')


def read_config(run: str | Path) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
    """A run's config, and the facts of the data it was trained on (mean, framing, classes).

    Raises:
        BadCheckpoint: the folder is not a run.
    """
    file = Path(run) / "config.json"
    if not file.is_file():
        raise BadCheckpoint(f'"{run}" is not a run folder: it has no config.json; name the --workdir of a run.')
    saved = json.loads(file.read_text())
    return ml_collections.ConfigDict(saved["config"]), saved["facts"]


def restore_best(run: str | Path) -> tuple[ml_collections.ConfigDict, dict[str, Any], Tree]:
    """A run's config, the facts of its data, and its best variables.

    Raises:
        BadCheckpoint: the folder is not a run, or has no weights yet.
    """
    return (*read_config(run), load_best(Path(run)))
