"""Bytes of a training step by the compiler's own analysis: python -m benchmarks memory [--json FILE]

Stage 2 of configs/whole_resnet.py (all layers learn), no weight is allocated and nothing runs. "bytes" are those of
`mammojax.plan.needed_bytes`; "fits" compares them with --memory, by default what this device has. On a GPU PyTorch's
peak of one step stands beside them.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from benchmarks import _timing
from benchmarks.training import FACTS, HEAD, batch_of, configured, peer
from mammojax import plan
from mammojax.configs import whole_resnet
from mammojax.train import stages

SIZES = ("1152x896", "2304x1792", "3328x2560", "4096x3328")


def device_bytes() -> int:
    """The memory of the first device; of a CPU that of the machine."""
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    return int(limit) if limit else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def main(arguments: Sequence[str]) -> Iterator[dict]:
    """A row for each size and batch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory")
    precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    parser.add_argument("--precision", default=precision, choices=("float32", "bfloat16"))
    parser.add_argument("--size", nargs="+", default=list(SIZES), help="HEIGHTxWIDTH …")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--trunk", default="resnet50")
    parser.add_argument("--memory", type=float, help="of the device, GiB")
    args = parser.parse_args(arguments)
    limit = args.memory * 2**30 if args.memory else device_bytes()
    for size in args.size:
        height, width = (int(side) for side in size.split("x"))
        for batch in args.batch:
            config = configured(whole_resnet.get_config(HEAD), args.trunk, args.precision, batch)
            config.data.size = (height, width)
            stage = stages.from_config(config.stages)[-1]
            for config.remat in (False, True):
                row: dict[str, Any] = {"network": args.trunk, "height": height, "width": width, "batch": batch}
                row |= {"precision": args.precision, "remat": config.remat}
                try:
                    used = plan.needed_bytes(plan.program(config, FACTS, stage).compile())
                    row |= {"bytes": used, "fits": used is not None and used <= limit}
                except RuntimeError as error:  # a GPU's compiler refuses what is larger than the device
                    if not _timing.out_of_memory(error):
                        raise
                    row |= {"bytes": _timing.TOO_LARGE, "fits": False}
                if jax.default_backend() != "cpu" and not config.remat:
                    row["torch_bytes"] = _torch_bytes(config, stage, args.precision)
                yield row


def _torch_bytes(config: Any, stage: stages.Stage, precision: str) -> int | str:
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        peer(config, stage, batch_of(config), precision)(2)
    except RuntimeError as error:
        if not _timing.out_of_memory(error):
            raise
        return _timing.TOO_LARGE
    return int(torch.cuda.max_memory_allocated())
