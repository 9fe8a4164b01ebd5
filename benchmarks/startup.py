"""Seconds from the start of a process to the end of its first training step: python -m benchmarks startup [--json FILE]

The network of the quickstart and the paper's patch network: ours with an empty compilation cache, ours with the cache
that this left, and PyTorch (on a GPU with torch.compile, whose own cache is emptied likewise).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _timing

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = ("quickstart", "patch_resnet")
BATCH = 8


def first_step(side: str, name: str) -> None:
    """Take one step of a config's last stage, on random images."""
    from benchmarks.training import batch_of, ours, peer
    from mammojax.train import stages

    config = config_of(name)
    stage = stages.from_config(config.stages)[-1]
    if side == "ours":
        ours(config, stage, batch_of(config))[2](1)
    else:
        peer(config, stage, batch_of(config), "float32")(1)


def config_of(name: str) -> Any:
    """The config of a network: the paper's as torchvision has it."""
    from benchmarks.training import configured
    from mammojax import configs

    config = configs.get(name)
    config.batch = BATCH
    return configured(config, "resnet50", "float32", BATCH) if name == "patch_resnet" else config


def main(arguments: Sequence[str]) -> Iterator[dict]:
    """A row for each network: milliseconds until the first step is done, ours and PyTorch's, their ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup")
    parser.add_argument("--repeats", type=int, default=_timing.REPEATS)
    parser.add_argument("--network", nargs="+", default=NETWORKS, choices=NETWORKS)
    args = parser.parse_args(arguments)
    for name in args.network:
        times: dict[str, list[float]] = {"cold": [], "warm": [], "torch": []}
        for _ in range(args.repeats):
            with tempfile.TemporaryDirectory() as cache:
                for side in times:
                    times[side].append(_seconds("torch" if side == "torch" else "ours", name, cache))
        seconds = {side: float(np.median(values)) for side, values in times.items()}
        for side in ("cold", "warm"):
            row = {"network": name, "cache": "empty" if side == "cold" else "filled"}
            row |= _timing.columns({"ours": seconds[side], "torch": seconds["torch"]}, 1)
            yield {column: value for column, value in row.items() if column != "images_per_s"}


def _seconds(side: str, name: str, cache: str) -> float:
    """Seconds of a fresh process that takes one step."""
    environment = {
        **os.environ, "JAX_COMPILATION_CACHE_DIR": f"{cache}/jax", "TORCHINDUCTOR_CACHE_DIR": f"{cache}/torch",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    code = f"from benchmarks import startup; startup.first_step({side!r}, {name!r})"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    return time.perf_counter() - started
