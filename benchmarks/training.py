"""A training step beside PyTorch's: python -m benchmarks patch_train|whole_train|exam_train [--json FILE]

Random weights, one resident batch, augmentation and update included; both take turns in one process (`_timing`). The
step is the one that a run takes (`mammojax.plan.program`). On a CPU the default sizes are small; benchmarks/gpu.sh has
those of a GPU.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import _timing
from mammojax import plan, tasks
from mammojax.configs import exam, patch_resnet, whole_resnet
from mammojax.train import stages
from mammojax.train.state import init_variables

FACTS = {"mean": 52.0}
HEAD = whole_resnet.DEFAULT
EXAM_SIZES = {"CC": (2677, 1942), "MLO": (2974, 1748)}


def configured(config: ConfigDict, trunk: str, precision: str, batch: int) -> ConfigDict:
    """A config with a trunk as torchvision has it, so that the peer does the same arithmetic."""
    config.model.update(trunk=trunk, dtype=precision, stride_on="3x3", conv_bias=False, bn_epsilon=1e-5)
    if trunk == "densenet121":
        config.model.update(padding="torch", blocks=(6, 12, 24, 16))
    if trunk.startswith("efficientnet"):
        config.model.width = 32
    config.batch = batch
    return config


def batch_of(config: ConfigDict) -> dict[str, Any]:
    """A batch of random images and labels."""
    rng = np.random.default_rng(0)

    def noise(x: np.ndarray) -> np.ndarray:
        return rng.integers(0, 65535, x.shape, np.uint16) if x.dtype == np.uint16 else rng.normal(size=x.shape)

    batch = plan.blank(config)
    images = jax.tree.map(lambda x: noise(x).astype(x.dtype), batch["image"])
    classes = config.model.get("classes", 2)
    return {"image": images, "label": rng.integers(0, classes, batch["label"].shape).astype(np.int32)}


def ours(config: ConfigDict, stage: stages.Stage, batch: dict[str, Any]) -> tuple[Any, Any, Callable[[int], object]]:
    """The traced step of a stage, its compiled program, and a function that takes `turns` steps."""
    task = tasks.of(config.model.task)
    size, network = task.sizes(config, config.data), task.network(config.model)
    variables = init_variables(network, size, config.model.channels, 0)
    lowered = plan.program(config, FACTS, stage)
    compiled = lowered.compile()
    state = [plan.first_state(config, variables, stage)]
    resident = jax.device_put(batch)

    def steps(turns: int) -> None:
        for _ in range(turns):
            state[0], terms = compiled(state[0], resident, np.float32(1e-5))
        jax.block_until_ready(terms)

    return lowered, compiled, steps


def peer(config: ConfigDict, stage: stages.Stage, batch: dict[str, Any], precision: str) -> Callable[[int], object]:
    """A function that takes `turns` steps in PyTorch."""
    import torch
    from torch.nn import functional as F

    from benchmarks import _torch

    place, of = _torch.device(), config.model.task
    label = torch.tensor(batch["label"].astype(np.int64), device=place)
    if of == "exam":
        views = {
            name: torch.tensor(np.moveaxis(x, -1, 1), device=place).contiguous(memory_format=torch.channels_last)
            for name, x in batch["image"].items()
        }
        network: torch.nn.Module = _torch.ViewWise(config.model.width)

        def loss(network: torch.nn.Module) -> torch.Tensor:  # summed over halves and labels
            logits = network(views).float()
            truth = label.expand(len(logits), -1, -1)
            return F.cross_entropy(logits.flatten(0, 2), truth.flatten(), reduction="sum") / len(label)
    else:
        gray = batch["image"].astype(np.float32) * (255 / 65535)
        image = torch.tensor(np.moveaxis(gray, -1, 1), device=place)
        network = _torch.Classifier(config.model.trunk, config.model.classes, config.model.head)
        balanced = config.balance_loss

        def loss(network: torch.nn.Module) -> torch.Tensor:
            logits = network(_torch.as_input(image, augmented=config.augment.enabled))
            return _torch.weighted(logits, label) if balanced else F.cross_entropy(logits.float(), label)

    frozen = "trunk" if stage.freeze else ""
    step = _torch.trainer(network, loss, precision, frozen)

    def steps(turns: int) -> None:
        for _ in range(turns):
            value = step()
        _torch.wait(value)

    return steps


def configs_of(name: str, args: argparse.Namespace) -> list[tuple[dict[str, Any], ConfigDict, stages.Stage]]:
    """(columns, config, stage) of each row."""
    rows = []
    for batch in args.batch:
        if name == "exam_train":
            config = exam.get_config("view-wise-scratch")
            config.model.dtype, config.batch = args.precision, batch
            config.exam.noise //= args.shrink
            config.exam.sizes = {k: (h // args.shrink, w // args.shrink) for k, (h, w) in EXAM_SIZES.items()}
            (stage,) = stages.from_config(config.stages)
            sizes = " ".join(f"{h}×{w}" for h, w in config.exam.sizes.values())
            rows.append(({"network": "view-wise ResNet-22", "size": sizes, "batch": batch}, config, stage))
            continue
        for trunk in args.trunk:
            if name == "whole_train":
                config = configured(whole_resnet.get_config(HEAD), trunk, args.precision, batch)
                config.data.size = tuple(args.size)
                plans = [stages.from_config(config.stages)[k - 1] for k in args.stage]
            else:
                config = configured(patch_resnet.get_config("s10-random"), trunk, args.precision, batch)
                plans = stages.from_config(config.stages)
            config.augment.enabled, config.remat = not args.plain, args.remat
            height, width = tasks.of(config.model.task).sizes(config, config.data)
            for stage in plans:
                row = {"network": trunk, "size": f"{height}×{width}", "batch": batch}
                if name == "whole_train":
                    row |= {"stage": stage.key, "remat": config.remat}
                rows.append((row | {"augmented": config.augment.enabled}, config, stage))
    return rows


def main(arguments: Sequence[str]) -> Iterator[dict]:
    """A row for each network, batch and stage: milliseconds of a step, ours and PyTorch's, their ratio (below 1: ours
    is faster), operations and bytes by the compiler, shares of what the device can do."""
    name, *rest = arguments
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}")
    precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    batches = {"patch_train": [16], "whole_train": [2], "exam_train": [4]}
    trunks = ["resnet50"] if name == "whole_train" else ["resnet50", "efficientnet_lite0"]
    parser.add_argument("--precision", default=precision, choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, nargs="+", default=batches[name])
    parser.add_argument("--trunk", nargs="+", default=trunks, help="networks, such as resnet50 vgg16")
    parser.add_argument("--size", type=int, nargs=2, default=(1152, 896), help="of whole images")
    parser.add_argument("--stage", type=int, nargs="+", default=[1, 2], help="of whole images: 1 freezes the trunk")
    parser.add_argument("--shrink", type=int, default=8, help="divides the windows of exams, 2677×1942 and 2974×1748")
    parser.add_argument("--plain", action="store_true", help="without augmentation")
    parser.add_argument("--remat", action="store_true", help="ours computes blocks twice; the peer keeps all")
    args = parser.parse_args(rest)
    peak = _timing.peaks(args.precision)
    for row, config, stage in configs_of(name, args):
        batch = batch_of(config)
        try:
            lowered, compiled, steps = ours(config, stage, batch)
        except RuntimeError as error:  # the weights or the program itself exceed the device
            if not _timing.out_of_memory(error):
                raise
            yield row | {"ours_ms": _timing.TOO_LARGE}
            continue
        seconds = _timing.medians({"ours": steps, "torch": peer(config, stage, batch, args.precision)})
        row |= {"precision": args.precision} | _timing.columns(seconds, config.batch)
        yield row | _timing.roofline(lowered, compiled, seconds["ours"], peak)
