"""Several processes as one run, on one machine or many: `jax.distributed` with what a run needs of it.

Process 0, the first, writes tables, reports and the config, and prints; all compute, read their share of the data and
write their part of checkpoints. Every function here but `start` does nothing special where there is one process, and
must be called by all processes in the same order where there are several.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from mammojax.errors import BadConfig, ProcessLost

FLAGS = ("coordinator", "num_processes", "process_id")
HEARTBEAT = 60
"""Seconds without a sign of life after which a process counts as dead, and the others end."""
SHUTDOWN = 20
"""Seconds that a process which ends waits for the others to end too."""
CONNECT = 300
"""Seconds that a process waits at the start until all are there."""
_WEEK_MS = 7 * 24 * 3600 * 1000  # a barrier ends at once where a process dies; the first may prepare data for a day
_PIECE = 4096  # bytes; messages are padded to multiples of it, so that few shapes are compiled
_barriers, _steps = itertools.count(), itertools.count()


def start(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join the processes of a run; nothing happens where this process is the only one.

    Without arguments JAX asks SLURM, Open MPI or Kubernetes, if one of them has started several processes;
    `num_processes=1` alone keeps this process apart from them. From then on only process 0 prints.

    Args:
        coordinator: HOST:PORT of process 0, which all can reach.
        num_processes: of the run.
        process_id: of this one, 0 to `num_processes` - 1.

    Raises:
        BadConfig: the arguments do not fit each other, or the processes did not find each other.
    """
    given = dict(zip(FLAGS, (coordinator, num_processes, process_id), strict=True))
    missing = [f"--{name}" for name in FLAGS if given[name] is None]
    if num_processes == 1 and len(missing) >= 2:
        return
    if len(missing) == len(FLAGS):
        if not _on_cluster():
            return
    elif missing:
        lacking = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        raise BadConfig(
            f"{lacking}; give --{', --'.join(FLAGS)} together, or none of them where SLURM, "
            "Open MPI or Kubernetes has started the processes."
        )
    else:
        _refuse(str(coordinator), int(num_processes or 0), int(process_id or 0))
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, initialization_timeout=CONNECT, heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=SHUTDOWN,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise BadConfig(
            f"the processes of this run did not find each other ({_line(error)}); check that all {num_processes or ''} "
            "are started and can reach the coordinator, and that its port is free."
        ) from None
    if jax.process_index():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that can run over several processes, for `start`."""
    group = parser.add_argument_group(
        "several processes",
        "the same command N times, K from 0; not needed where SLURM, Open MPI or Kubernetes starts them; "
        "--num_processes=1 alone: a call of its own there too",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 can be reached")
    group.add_argument("--num_processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process_id", type=int, metavar="K", help="the number of this one")


def _refuse(coordinator: str, count: int, index: int) -> None:
    """Refuse an address or a number that cannot be."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadConfig(f'--coordinator="{coordinator}" is no HOST:PORT; write for example node001:9876.')
    if not 0 <= index < count:
        raise BadConfig(f"--process_id={index} is not one of the {count} of --num_processes, 0 to {count - 1}.")


def _on_cluster() -> bool:
    """Whether SLURM, Open MPI or Kubernetes has started several processes of which this is one.

    Raises:
        BadConfig: Open MPI has, but tells its processes no address.
    """
    here = os.environ
    if "SLURM_STEP_NODELIST" in here:  # of srun; the script of a job has none and is one process
        return int(here.get("SLURM_NTASKS", 1)) > 1
    if int(here.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        if "OMPI_MCA_orte_hnp_uri" in here:
            return True
        raise BadConfig(
            "this version of Open MPI tells its processes no address of the first one; give --coordinator=HOST:PORT "
            "--num_processes=$OMPI_COMM_WORLD_SIZE --process_id=$OMPI_COMM_WORLD_RANK, or --num_processes=1 for runs "
            "of their own."
        )
    return "JOB_COMPLETION_INDEX" in here and importlib.util.find_spec("kubernetes") is not None


def several() -> bool:
    """Whether this run has more than one process."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


@contextlib.contextmanager
def in_turn() -> Iterator[bool]:
    """Once all processes are here, process 0 runs the block, then the others do; the value says which this is.

    Raises:
        ProcessLost: in the others, if the first fails.
    """
    if not several():
        yield True
        return
    _wait()
    if first():
        failed = True
        try:
            yield True
            failed = False
        finally:
            _wait()
            exchange(b"1" if failed else b"")
        return
    _wait()
    if exchange(b"")[0]:
        raise ProcessLost("process 0 cannot go on; its message says why.")
    yield False


def _wait() -> None:
    """Wait until all processes are here, be it for hours: a barrier of the coordination service, not of the devices."""
    multihost.get_barrier_sync_fn()(key=f"mammojax {next(_barriers)}", timeout_ms=_WEEK_MS)


def exchange(message: bytes) -> list[bytes]:
    """The messages of all processes, in the order of the processes."""
    if not several():
        return [message]
    lengths = multihost_utils.process_allgather(np.int32(len(message)))
    padded = np.zeros(max(1, math.ceil(lengths.max() / _PIECE)) * _PIECE, np.uint8)
    padded[: len(message)] = np.frombuffer(message, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def gather(rows: np.ndarray) -> np.ndarray:
    """The rows of all processes, [N, …] of each, one after the other; equal to the last bit."""
    parts = exchange(np.ascontiguousarray(rows).tobytes())
    return np.concatenate([np.frombuffer(part, rows.dtype).reshape(-1, *rows.shape[1:]) for part in parts])


def gather_texts(texts: list[str]) -> list[str]:
    """The texts of all processes, one after the other."""
    return [text for part in exchange(json.dumps(texts).encode()) for text in json.loads(part)]


def of_first(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers of process 0: processors of two kinds may differ in a last digit, by which a choice could differ."""
    if not several():
        return dict(numbers)
    result: dict[str, float] = json.loads(exchange(json.dumps(dict(numbers)).encode())[0])
    return result


def share(count: int) -> range:
    """The part of `count` examples that is this process's: equal parts in order, but for the last ones."""
    size, k = -(-count // jax.process_count()), jax.process_index()
    return range(min(k * size, count), min((k + 1) * size, count))


def local(tree: Any) -> Any:
    """A tree of arrays that every device holds, as this process's own."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree) if several() else tree


def told_to_stop() -> bool:
    """Whether a process got SIGTERM; True at the same call in all processes. Called once before each step's end."""
    return bool(multihost_utils.reached_preemption_sync_point(next(_steps)))


def refuse_different(command: str) -> None:
    """Refuse processes that were started with different commands.

    Args:
        command: what must be equal.

    Raises:
        BadConfig: it differs.
    """
    if len(set(exchange(command.encode()))) > 1:
        raise BadConfig(
            "the processes were started with different configs, folders or options; start all with the same command, "
            "but for --process_id."
        )


@contextlib.contextmanager
def losses_as_sentences() -> Iterator[None]:
    """A lost connection to another process becomes ProcessLost; every other error passes."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        words = ("gloo", "nccl", "coordination", "barrier", "heartbeat", "connection", "remote task")
        if not several() or not any(word in str(error).lower() for word in words):
            raise
        raise ProcessLost(
            f"another process of this run has ended or cannot be reached ({_line(error)}); start all again: a training "
            "goes on from its last checkpoint."
        ) from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
