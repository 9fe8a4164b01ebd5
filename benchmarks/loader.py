"""Images per second from disk: our pipeline, and a plain Python loop over the same data source.

python -m benchmarks loader [--json FILE]
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from mammojax.data import dataset, phantom, pipeline
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe


class _Long:
    """A data set as long as a real one: grain's shuffle is slow on a few dozen examples, 0.4 ms each on 44."""

    def __init__(self, source: object, times: int) -> None:
        self._source, self._times = source, times

    def __len__(self) -> int:
        return len(self._source) * self._times  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict:
        return self._source[index % len(self._source)]  # type: ignore[arg-type,index]


def _rate(batches: object, seconds: float) -> float:
    """Images per second after one warm-up batch."""
    iterator = iter(batches)  # type: ignore[call-overload]
    next(iterator)
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        images += len(next(iterator)["label"])
    return images / (time.perf_counter() - started)


def _plain(source: object, batch: int) -> object:
    """The obvious loop: shuffle indices, decode, stack."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(len(source))  # type: ignore[arg-type]
        for start in range(0, len(order) - batch + 1, batch):
            examples = [source[int(i)] for i in order[start : start + batch]]  # type: ignore[index]
            yield {key: np.stack([e[key] for e in examples]) for key in ("image", "label")}


def main(arguments: list[str]) -> list[dict]:
    """A row for each size: ours, the plain loop, their ratio."""
    del arguments
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        phantom.write_phantom(Path(folder) / "source", patients=24, image_size=(1152, 896), workers=2)
        for size, batch in (((288, 224), 8), ((1152, 896), 2)):
            recipe = Recipe(
                "phantom", "whole", Path(folder) / "data", source=Path(folder) / "source", size=size, split="all"
            )
            (path,) = prepare(recipe)
            data = dataset.Prepared(path)
            source = _Long(data.source("train"), 50)
            batches = pipeline.train_batches(source, batch=batch, seed=0)
            ours = _rate(batches, 5)
            batches.close()
            plain = _rate(_plain(source, batch), 5)
            rows.append({"height": size[0], "width": size[1], "ours": ours, "plain": plain, "ratio": ours / plain})
    return rows
