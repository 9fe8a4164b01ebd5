"""Bytes of a training step by the compiler's own analysis: python -m benchmarks memory [--json FILE]

Stage 2 of configs/whole_resnet.py (all layers learn), no weight is allocated and nothing runs. "bytes" are those of
`mammojax.plan.needed_bytes`; "fits" compares them with --memory, by default what this device has. "kept_bytes" are
those that the forward pass leaves for the backward pass, weights included, by JAX's own account: what remat is meant to
save. A step with remat needs these, and what its largest block keeps while it is computed again. On a GPU PyTorch's
peak of one step stands beside them.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks import _timing
from benchmarks.training import FACTS, HEAD, batch_of, configured, peer
from mammojax import plan, tasks
from mammojax.configs import whole_resnet
from mammojax.train import stages
from mammojax.train.remat import rematerialised
from mammojax.train.state import abstract_variables, in_training

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
    parser.add_argument("--kept-only", action="store_true", help="compile nothing")
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
                row["kept_bytes"] = kept_bytes(config, stage)
                if args.kept_only:
                    yield row
                    continue
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


def kept_bytes(config: ConfigDict, stage: stages.Stage) -> int:
    """What the forward pass of a training step leaves for the backward pass; nothing is computed."""
    task = tasks.of(config.model.task)
    network, size = task.network(config.model), task.sizes(config, config.data)
    variables, loss = abstract_variables(network, size, config.model.channels), task.loss(config, FACTS)
    frozen = stages.frozen_statistics(stage)

    def forward(variables: Any, batch: Any) -> Any:
        key = jax.random.key(0)

        def of_params(params: Any) -> Any:
            own = {"params": params, "batch_stats": variables["batch_stats"]}
            return loss(batch, key)(in_training(network, own, frozen, key))

        with rematerialised() if config.remat else contextlib.nullcontext():
            return jax.vjp(of_params, variables["params"], has_aux=True)[1]

    kept = jax.tree.leaves(jax.eval_shape(forward, variables, plan.blank(config)))
    return sum(
        leaf.size * leaf.dtype.itemsize for leaf in kept if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )


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
