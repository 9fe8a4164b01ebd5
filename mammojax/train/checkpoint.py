"""Checkpoints on disk: the latest state, to resume from, and the best weights, to use.

Layout of a run: `checkpoints/latest/<step>`, the last two of them (state and the host's part: stage, iterator,
best so far), and `checkpoints/best` (params and batch_stats alone). Everything is restored as NumPy arrays, so a run
goes on with any number of devices or processes. Several processes write a checkpoint together, each its part of the
arrays. Each checkpoint holds the SHA-256 of its own files and gets its name by a rename, so it is
there whole or not at all. A checkpoint that a disk or a copy has changed is refused; orbax keeps no checksum of arrays.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from orbax.checkpoint import v1 as ocp

from mammojax import processes
from mammojax.errors import BadCheckpoint, near_file

Tree = Any
PATH_FIELDS = ("init_from", "patch_run", "pretrained", "source", "data_dir")
"""Fields of a config that name a file or folder."""
TRAIN_PATIENTS = "train_patients.txt"
"""A file of a run folder, see `train_patients`."""
_DIGESTS = "sha256.json"
logging.getLogger("absl").addFilter(lambda record: "OCDBT" not in record.getMessage())  # a notice at every save


class _Damaged(ValueError):
    """A checkpoint whose arrays cannot be read or are not those saved."""


def _stored(tree: Tree) -> Tree:
    """The leaves as orbax gets them: NumPy arrays, or of several processes the arrays that these share."""
    return jax.tree.map(lambda x: x if isinstance(x, jax.Array) and not x.is_fully_addressable else np.asarray(x), tree)


def _named(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by their "/"-joined paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _write(folder: Path, tree: Tree, metadata: dict[str, Any]) -> None:
    """Write a tree of arrays as a checkpoint, with the digests of its files; `folder` is overwritten."""
    ocp.save(folder, _stored(tree), overwrite=True, custom_metadata=metadata)
    if not processes.first():
        return
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    with (folder / _DIGESTS).open("w") as file:
        json.dump(digests, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Inside, orbax reads without waiting for the other processes: each reads when it needs to."""
    context, own = ocp.Context(), jax.process_index()
    if processes.several():
        context.multiprocessing.primary_host, context.multiprocessing.active_processes = own, {own}
        context.multiprocessing.barrier_sync_key_prefix = f"process_{own}"
    with context:
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(folder: Path) -> tuple[Tree, dict[str, Any]]:
    """The arrays of one checkpoint and its metadata.

    Raises:
        _Damaged: its files have changed, it cannot be read, or it holds a number that is not finite. A checkpoint of an
            older run has no digests; only its numbers are checked.
    """
    try:
        if (folder / _DIGESTS).is_file():  # before orbax reads: it prints its errors on a damaged file
            for name, digest in json.loads((folder / _DIGESTS).read_text()).items():
                if _sha256(folder / name) != digest:
                    raise _Damaged(f"{name} is not what was written")
        with _alone():
            saved = ocp.metadata(folder)
            tree = ocp.load(folder, jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved.metadata))
    except _Damaged:
        raise
    except Exception as error:  # a damaged file makes json, orbax or tensorstore raise errors of any kind
        raise _Damaged(f"it cannot be read ({type(error).__name__})") from error
    for name, array in _named(tree).items():
        if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
            raise _Damaged(f"{name} holds a number that is not finite")
    return tree, saved.custom_metadata or {}


def differences(saved: Tree, expected: Tree) -> list[str]:
    """The differences of two trees: a line for each leaf missing, surplus or of another shape."""

    def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
        return {name: tuple(leaf.shape) for name, leaf in _named(tree).items()}

    ours, theirs = shapes(expected), shapes(saved)
    lines = [f"missing {name}" for name in ours if name not in theirs]
    lines += [f"surplus {name}" for name in theirs if name not in ours]
    lines += [
        f"{name} is {theirs[name]}, not {ours[name]}" for name in ours if name in theirs and ours[name] != theirs[name]
    ]
    return lines


class Latest:
    """The last two states of a run; a save that was cut off leaves those before it.

    A damaged newest state is moved to `checkpoints/damaged_<step>`, and the run goes on from the one before it; a
    printed line says so.

    Args:
        workdir: the run folder.

    Raises:
        BadCheckpoint: there are states, but none can be used.
    """

    def __init__(self, workdir: Path) -> None:
        self._folder = (workdir / "checkpoints" / "latest").absolute()
        for cut_off in self._folder.glob("*.orbax-checkpoint-tmp*"):  # a save that was killed
            shutil.rmtree(cut_off)
        self._host, self._leaves = _newest(self._folder)

    def save(self, step: int, state: Tree, host: dict[str, Any]) -> None:
        """Save the state (any pytree of arrays) and the host's part (JSON) as one checkpoint; the last two are kept.

        All processes call it; the host's part is the first one's.
        """
        leaves = {f"{i:04d}": x for i, x in enumerate(jax.tree.leaves(state))}
        fresh, target = self._folder / "new", self._folder / str(step)
        _write(fresh, leaves, {"host": json.dumps(host)})
        if not processes.first():
            return
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
        for old in _steps(self._folder)[2:]:
            shutil.rmtree(old)

    def host(self) -> dict[str, Any] | None:
        """The host's part of the newest checkpoint when this object was made, None where there was none."""
        return self._host

    def state(self, like: Tree) -> Tree:
        """The state that belongs to `host`, in the shape of `like`; it can be taken once.

        Raises:
            BadCheckpoint: it was written by a network or a stage of another shape.
        """
        leaves, structure = jax.tree.flatten(like)
        expected = {f"{i:04d}": leaf for i, leaf in enumerate(leaves)}
        if wrong := differences(self._leaves, expected):
            raise BadCheckpoint(
                f"the checkpoint of this run does not fit its config ({len(wrong)} arrays differ: {wrong[0]}); "
                "use another --workdir or the config the run was started with."
            )
        saved, self._leaves = self._leaves, {}  # so that no second copy stays in memory
        return jax.tree.unflatten(structure, [saved[name] for name in sorted(saved)])


def _steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the newest first."""
    return sorted((p for p in folder.glob("*") if p.name.isdigit()), key=lambda p: int(p.name), reverse=True)


def _newest(folder: Path) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """Host's part and arrays of the newest usable checkpoint of `folder`; damaged newer ones are moved aside.

    Raises:
        BadCheckpoint: see `Latest`.
    """
    damaged: dict[Path, str] = {}
    for step in _steps(folder):
        try:
            leaves, metadata = _read(step)
            host = json.loads(metadata["host"])
        except (_Damaged, KeyError, ValueError) as error:
            damaged[step] = str(error) if isinstance(error, _Damaged) else "it does not say where the run stood"
            continue
        for bad, why in damaged.items():
            aside = folder.parent / f"damaged_{bad.name}"
            shutil.rmtree(aside, ignore_errors=True)
            bad.rename(aside)
            print(f"checkpoints/latest/{bad.name} is damaged: {why}; going on from step {step.name}", flush=True)
        return host, leaves
    if damaged:
        reasons = "; ".join(f"step {step.name}: {why}" for step, why in damaged.items())
        raise BadCheckpoint(
            f'no state in "{folder}" can be used ({reasons}). Copy the folder back from where it is whole and start'
            " again, or train anew in another --workdir; this run's best weights are not touched."
        )
    return None, {}


def save_best(workdir: Path, variables: Tree) -> None:
    """Write the best weights, whole or not at all: a folder beside them is filled, then replaces them.

    All processes call it.
    """
    folder = (workdir / "checkpoints").absolute()
    fresh, old, best = folder / "best.new", folder / "best.old", folder / "best"
    _write(fresh, variables, {})
    if not processes.first():
        return
    shutil.rmtree(old, ignore_errors=True)
    if best.exists():
        best.rename(old)
    fresh.rename(best)
    shutil.rmtree(old, ignore_errors=True)


def load_best(run: Path) -> Tree:
    """{"params", "batch_stats"} of a run's best epoch, NumPy.

    Raises:
        BadCheckpoint: the run has none, or they are damaged.
    """
    folder = (Path(run) / "checkpoints").absolute()
    for name in ("best", "best.old"):  # best.old: the run was killed between the two renames
        if (folder / name).is_dir():
            try:
                variables, _ = _read(folder / name)
                if "params" not in variables:
                    raise _Damaged("it holds no params")
            except _Damaged as error:
                raise BadCheckpoint(
                    f'the weights in "{folder / name}" are damaged: {error}; copy the run folder again from where it '
                    "is whole, or train it again in another --workdir."
                ) from None
            return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    raise BadCheckpoint(f'"{run}" holds no trained weights (checkpoints/best); name the folder of a finished run.')


def read_config(run: str | Path) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
    """A run's config, and the facts of the data it was trained on (mean, framing, classes).

    Raises:
        BadCheckpoint: the folder is not a run, or its config.json is damaged.
    """
    file = Path(run) / "config.json"
    if not file.is_file():
        did = near_file(run, "name the --workdir of a run.")
        raise BadCheckpoint(f'"{run}" is not a run folder: it has no config.json; {did}')
    try:
        saved = json.loads(file.read_text())
        return ml_collections.ConfigDict(saved["config"]), saved["facts"]
    except (ValueError, KeyError, TypeError):
        raise BadCheckpoint(
            f'"{file}" is damaged or no run\'s; copy the run folder again from where it is whole.'
        ) from None


def restore_best(run: str | Path) -> tuple[ml_collections.ConfigDict, dict[str, Any], Tree]:
    """A run's config, the facts of its data, and its best variables.

    Raises:
        BadCheckpoint: the folder is not a run, or has no weights yet.
    """
    return (*read_config(run), load_best(Path(run)))


def started_from(run: Path, init_from: str, inside: str = "patch") -> Path | None:
    """The run whose weights a run started from: the one trained `inside` it, else the one that its config.init_from
    names, which may be gone; None where init_from is empty."""
    if (run / inside / "config.json").is_file():
        return run / inside
    return Path(init_from) if init_from else None


def train_patients(run: Path) -> set[tuple[str, str]] | None:
    """(data set, patient id) of whom a run and those before it have learned from, as its train_patients.txt says.

    Files of old runs name no data set, "", and only the run's own patients. None without such a file.
    """
    file = run / TRAIN_PATIENTS
    if not file.is_file():
        return None
    cells = [line.rpartition("\t") for line in file.read_text().splitlines() if line]
    return {(name, patient) for name, _, patient in cells}


def patch_run(run: Path, init_from: str) -> Path | None:
    """The patch run that a run on mammograms started from, perhaps by way of another; None where it does not exist.

    A whole-image run started from one, or from a run that did; a two-view run from a run on single views that did.

    Args:
        run: the run folder.
        init_from: of the run's config; may be empty.
    """
    seen: set[Path] = set()
    inside = "single_view" if (run / "single_view" / "config.json").is_file() else "patch"
    start = started_from(run, init_from, inside)
    while start and start not in seen and (start / "config.json").is_file():
        seen.add(start)
        config, _ = read_config(start)
        if config.model.task == "patch":
            return start
        start = started_from(start, config.get("init_from", ""))
    return None
