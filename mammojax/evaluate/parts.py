"""The work of `mammojax predict` in parts: by this process alone, by all processes of a run, or by Beam's workers.

All of them score with the same function, and the first process alone writes the tables. A part is some of the batches
that one process would score, so that each batch holds the same images whoever scores it: on devices of one kind the
scores are equal to the last bit. What a part gives lies in OUTPUT/.parts, on a disk that all share, until the tables
are written.
"""

import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from mammojax import processes
from mammojax.data import beam
from mammojax.errors import BadConfig

FOLDER = ".parts"
MOST = 512
"""Parts for Beam at most, as a data set has shards at most."""
Numbered = Sequence[tuple[int, Any]]
"""Items with their positions among all."""


class Work(NamedTuple):
    """What is done with items. The functions are of modules; the arguments are pickled for Beam.

    Attributes:
        open: gives the networks.
        opening: its arguments, which can be hashed.
        score: of the networks, `Numbered` items, their number in a batch and `settings`: gives a result for each
            item, in their order, of values that JSON keeps.
        settings: further arguments.
    """

    open: Callable[..., Any]
    opening: tuple[Any, ...]
    score: Callable[..., Iterator[Any]]
    settings: tuple[Any, ...]


def run(
    work: Work, networks: Any, items: Sequence[Any], size: int, output: Path, unit: str,
    write: Callable[[Iterator[Any]], int], runner: beam.Runner | None = None,
) -> int:  # fmt: skip
    """Score all items, each once, and write the tables.

    Args:
        work: what is done.
        networks: from `work.open`.
        items: are pickled for Beam.
        size: items in a batch; the same for any number of parts.
        output: the folder of results.
        unit: an item in a word.
        write: takes the results of all items in their order; called once, in the first process.
        runner: of Beam, in place of this process.

    Returns:
        What `write` returns, in all processes.

    Raises:
        BadConfig: Beam is asked for in a run of several processes.
    """
    if runner and processes.several():
        raise BadConfig("--beam-runner starts machines of its own; start one process, or leave it out.")
    numbered, folder = list(enumerate(items)), output / FOLDER
    try:
        if runner is None and not processes.several():
            return write(_watched(work.score(networks, numbered, size, *work.settings), len(items), unit))
        batches = -(-len(items) // size)
        folder.mkdir(parents=True, exist_ok=True)
        if runner is None:
            own = processes.share(batches)
            part = numbered[own.start * size : own.stop * size]
            results = work.score(networks, part, size, *work.settings) if part else ()
            _keep(folder / f"{jax.process_index()}.jsonl", _watched(results, len(part), unit))
        else:
            each = max(1, -(-batches // MOST)) * size
            starts = range(0, len(items), each)
            parts = [numbered[start : start + each] for start in starts]
            _opened.cache_clear()  # a run folder may have changed since
            runner.each(_score, [(work, part, size, folder / f"{k}.jsonl") for k, part in enumerate(parts)])
        with processes.in_turn() as first:  # waits for all parts
            code = write(_kept(folder)) if first else 0
        return int(processes.of_first({"code": code})["code"])
    finally:
        _opened.cache_clear()
        if processes.first():
            shutil.rmtree(folder, ignore_errors=True)


def place(output: Path, name: str, position: int, row: int) -> None:
    """Move a picture of the item at `position` from OUTPUT/.parts to OUTPUT, if there is one.

    Args:
        output: the folder of results.
        name: of the file, with {} for its number, such as "overlays/{}.png".
        position: of the item, by which its scorer names the picture.
        row: of the table, which only the writer of the table knows.
    """
    picture, final = output / FOLDER / name.format(position), output / name.format(row)
    if picture.is_file():
        final.parent.mkdir(exist_ok=True)
        picture.replace(final)


def _watched(results: Iterable[Any], total: int, unit: str) -> Iterator[Any]:
    """The results, with a bar of the time that is left; where nobody watches, a line of it every half a minute."""
    watched = sys.stderr.isatty()
    every = 0.1 if watched else 30.0
    yield from tqdm(
        results, desc="predict", total=total, unit=unit, mininterval=every, delay=0 if watched else every,
        disable=not processes.first(),
    )  # fmt: skip


@functools.lru_cache(1)
def _opened(open_: Callable[..., Any], opening: tuple[Any, ...]) -> Any:
    """The networks of a worker of Beam, which gets many parts."""
    return open_(*opening)


def _score(task: tuple[Work, Numbered, int, Path]) -> None:
    """Score a part on a worker of Beam."""
    work, part, size, path = task
    _keep(path, work.score(_opened(work.open, work.opening), part, size, *work.settings))


def _keep(path: Path, results: Iterable[Any]) -> None:
    """Write results, a line each; Beam may do a part twice at the same time."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.writelines(json.dumps(result) + "\n" for result in results)
    os.replace(file.name, path)


def _kept(folder: Path) -> Iterator[Any]:
    """The results of all parts, in their order."""
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: int(path.stem)):
        with path.open() as file:
            yield from map(json.loads, file)
