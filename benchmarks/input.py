"""Images a second from a prepared data set to the device: python -m benchmarks input [--json FILE]

Ours is the pipeline of a run (array_record, grain, the next batch on its way while one is used); the peer is PyTorch's
DataLoader with as many processes on a folder of the same images as PNGs. No training step runs beside it.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from benchmarks import _timing
from mammojax.data import dataset, phantom, pipeline
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.train import mesh

BATCHES = 24
"""Batches of one turn: many more than either keeps ahead."""


class Long:
    """A data set as long as a real one: grain's shuffle is slow on a few dozen examples, 0.4 ms each on 44."""

    def __init__(self, source: Any, times: int) -> None:
        self._source, self._times = source, times

    def __len__(self) -> int:
        return len(self._source) * self._times

    def __getitem__(self, index: int) -> dict:
        return self._source[index % len(self._source)]


class _Files:
    """The peer's data set: PNGs and labels."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int]) -> None:
        self._paths, self._labels = [str(path) for path in paths], list(labels)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        image = cv2.imread(self._paths[index], cv2.IMREAD_UNCHANGED)
        return image[None], self._labels[index]


def _peer(source: Any, folder: Path, batch: int, workers: int) -> Callable[[int], object]:
    import torch

    from benchmarks import _torch

    folder.mkdir()
    examples = [source[k] for k in range(len(source))]
    paths = [folder / f"{k}.png" for k in range(len(examples))]
    for path, example in zip(paths, examples, strict=True):
        cv2.imwrite(str(path), example["image"][..., 0])
    files = _Files(paths * 50, [int(example["label"]) for example in examples] * 50)
    place = _torch.device()
    loader = torch.utils.data.DataLoader(
        files, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0,
        pin_memory=place.type == "cuda", multiprocessing_context="spawn" if workers else None,
    )  # fmt: skip
    stream = itertools.chain.from_iterable(itertools.repeat(loader))

    def turns(count: int) -> None:
        for _ in range(count * BATCHES):
            images, _ = next(stream)
            value = images.to(place, non_blocking=True)
        _torch.wait(value)

    return turns


def main(arguments: Sequence[str]) -> Iterator[dict]:
    """A row for each size: milliseconds of a batch, ours and PyTorch's, their ratio (below 1: ours is faster)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks input")
    parser.add_argument("--workers", type=int, default=2, help="processes that read, where they pay")
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--size", nargs="+", default=["288x224:8", "1152x896:2"], help="HEIGHTxWIDTH:BATCH …")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        phantom.write_phantom(source, patients=args.patients, image_size=(1152, 896), workers=2)
        for text in args.size:
            shape, _, count = text.partition(":")
            size, batch = tuple(int(side) for side in shape.split("x")), int(count)
            recipe = Recipe("phantom", "whole", Path(folder) / "data", source=source, size=size, split="all")
            (path,) = prepare(recipe)
            train = dataset.Prepared(path).source("train", masks=False)
            long = Long(train, 50)
            processes = pipeline.reading_processes(args.workers, len(long), size[0] * size[1])
            devices = mesh.data_mesh(batch)
            stream = pipeline.train_batches(long, batch=batch, seed=0, workers=processes, mesh=devices)

            def ours(turns: int, stream: pipeline.Batches = stream) -> None:
                for _ in range(turns * BATCHES):
                    images = next(stream)["image"]
                jax.block_until_ready(images)

            peer = _peer(train, Path(folder) / f"png{shape}", batch, args.workers)
            seconds = _timing.medians({"ours": ours, "torch": peer})
            stream.close()
            row = {"size": shape.replace("x", "×"), "batch": batch, "workers": args.workers}
            each = {name: value if isinstance(value, str) else value / BATCHES for name, value in seconds.items()}
            yield row | _timing.columns(each, batch)
