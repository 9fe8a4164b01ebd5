"""DICOM → data set, images a second: python -m benchmarks prepare [--json FILE]

Ours is `mammojax prepare` on phantom mammograms (decode, frame, TFDS' array_record). The peer is what a PyTorch user
writes: pydicom and OpenCV in a pool of as many processes, a PNG for each image.
"""

import argparse
import multiprocessing
import re
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import _timing
from mammojax.data import phantom
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe


def plain(path: Path, folder: Path, size: tuple[int, int]) -> None:
    """Write one image of the peer's data set, a PNG of `size` (height, width) named after its place in the tree."""
    import cv2
    import pydicom

    pixels = pydicom.dcmread(path).pixel_array
    framed = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / ("_".join(path.parts[-4:]) + ".png")), framed)


def main(arguments: Sequence[str]) -> list[dict]:
    """A row: milliseconds of an image, ours and the peer's, their ratio (below 1: ours is faster)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks prepare")
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--source-size", type=int, nargs=2, default=(2048, 1536), help="of the DICOMs")
    parser.add_argument("--size", type=int, nargs=2, default=(1152, 896))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=_timing.REPEATS)
    args = parser.parse_args(arguments)
    times: dict[str, list[float]] = {"ours": [], "torch": []}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        phantom.write_phantom(source, patients=args.patients, image_size=tuple(args.source_size), workers=args.workers)
        whole = [path for path in sorted(source.rglob("*.dcm")) if re.search("_(CC|MLO)/", str(path))]
        pool = multiprocessing.get_context("spawn").Pool(args.workers)
        pool.map(time.sleep, [1.0] * args.workers)  # the peer's processes have started and are not measured
        for repeat in range(args.repeats):
            recipe = Recipe(
                "phantom", "whole", Path(folder) / f"data{repeat}", source=source, size=tuple(args.size), split="all"
            )
            started = time.perf_counter()
            prepare(recipe, workers=args.workers)
            times["ours"].append((time.perf_counter() - started) / len(whole))
            target = Path(folder) / f"plain{repeat}"
            target.mkdir()
            started = time.perf_counter()
            pool.map(partial(plain, folder=target, size=tuple(args.size)), whole)
            times["torch"].append((time.perf_counter() - started) / len(whole))
        pool.terminate()
    row = {"images": len(whole), "from": "×".join(map(str, args.source_size)), "to": "×".join(map(str, args.size))}
    seconds = {name: float(np.median(values)) for name, values in times.items()}
    return [row | {"workers": args.workers} | _timing.columns(seconds, 1)]
