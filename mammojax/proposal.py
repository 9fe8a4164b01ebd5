"""`mammojax plan`: a config for a data set, from what it holds and what the device can take, with its reasons.

The method is that of configs/film.py for few images and of configs/whole_lite.py for more: patches of outlined lesions,
then whole images. Only what depends on the data is chosen here, from their fingerprint, as nnU-Net does (Isensee et al.
2021); the rest stays as those configs have it.
"""

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mammojax import arguments, configs, plan, start, tasks
from mammojax.data import manifest
from mammojax.data.fingerprint import MOST, Fingerprint, fingerprint
from mammojax.errors import BadConfig, BadManifest
from mammojax.train import stages
from mammojax.train.state import init_variables

FEW = 500  # images, below which docs/recipes.md trains late blocks only
POSITION = 32  # pixels from one position of a trunk's last layers to the next
AROUND = 2  # positions that a patch's context adds on every side, as configs/film.py has it
LEAST = 32  # pixels of the smallest lesions: 4 at a resolution of 1/8, where the first blocks end, 1 at the last
SMALLEST = 10  # per cent of the lesions are smaller still
PATCHES = 20  # of a lesion: ten of it, ten of the background
PATCH_SIDES = (64, 224)
FACTS = {"mean": 50.0}  # of a network's memory and time the mean decides nothing


@dataclass(frozen=True)
class Choice:
    """One field of the config: its name, its value, and why."""

    field: str
    value: Any
    reason: str


def base_of(found: Fingerprint) -> str:
    """The name of the config to begin with."""
    return "film" if found.images < FEW else "whole_lite"


def choices(found: Fingerprint, source: Path, words: str = "") -> list[Choice]:
    """What the data alone decide.

    Args:
        found: of the data.
        source: the manifest.
        words: the meaning of its words for pathologies, see `manifest.read_map`.

    Raises:
        BadManifest: no image can be read, or no lesion is outlined.
    """
    if not found.read:
        raise BadManifest("no labelled image of the manifest can be read; `mammojax check` says why.")
    if not len(found.diameters):
        raise BadManifest(
            "no lesion of the manifest is outlined, and a patch classifier learns from outlines; without them "
            "`mammojax finetune RUN --data manifest.csv` teaches a finished run by image labels alone."
        )
    name = base_of(found)
    few = name == "film"
    result = [
        Choice("data.name", "manifest", f"{found.images} labelled images of {found.patients} patients, "
               f"{found.malignant} of them with a malignant image"),
        Choice("source" if few else "data.source", str(source.resolve()), "the manifest"),
    ]  # fmt: skip
    if words:
        result.append(Choice("data.map", words, "the manifest's words for pathologies"))
    if not few:
        result.append(Choice("data.split", "all", "85:15 and 90:10 by patient, or the manifest's split column"))
        result.append(Choice("data.prepare", True, "the data set is prepared when the run starts"))
    if found.untyped:
        reason = f"{found.untyped} of {found.lesions} outlines name no type; otherwise they would give no patches"
        result.append(Choice("data.one_type", True, reason))
    size, patch = _sizes(found)
    result += [size, patch]
    if few:
        window = max(1, patch.value // POSITION)
        context = ((window + 2 * AROUND) * POSITION - patch.value) // 2
        result.append(Choice("data.context", context, f"{AROUND} positions of the trunk around those in the middle"))
        result.append(
            Choice("patch.model.window", window, f"so many whole positions of the trunk fit a patch of {patch.value}")
        )
        result.append(Choice("model.head", f"heatmap{window},max", "the window of the patch classifier"))
    return result


def _sizes(found: Fingerprint) -> tuple[Choice, Choice]:
    """The sizes of images and patches by which the smallest lesions keep LEAST pixels."""
    aspect = float(np.median(found.boxes[:, 1] / found.boxes[:, 0]))
    per_height = found.diameters * np.minimum(1 / found.around[:, 0], aspect / found.around[:, 1])
    small, large = np.percentile(per_height, [SMALLEST, 100 - SMALLEST])
    stored = float(np.median(found.boxes[:, 0]))
    wanted = LEAST / small
    height = int(np.ceil(min(wanted, stored) / POSITION)) * POSITION
    width = max(POSITION, int(np.ceil(height * aspect / POSITION)) * POSITION)
    mm = ""
    if len(found.spacings):
        spacing = float(np.median(found.spacings))
        mm = f" ({np.percentile(found.diameters, SMALLEST) * spacing:.1f} mm)"
    reason = f"{SMALLEST} % of the {len(found.diameters)} lesions that were read are smaller than "
    reason += (
        f"{np.percentile(found.diameters, SMALLEST):.0f} pixels{mm} in breasts about {stored:.0f} pixels high; here "
    )
    reason += f"they keep {small * height:.0f}, which is {small * height / 8:.1f} at a resolution of 1/8 and "
    reason += f"{small * height / POSITION:.1f} positions of the last layers"
    if wanted > stored:
        reason += f"; {LEAST} would need more than the stored images have"
    reason += f". Breasts are {aspect:.2f} times as wide as high"
    side = int(np.clip(np.ceil(1.25 * large * height / 16) * 16, *PATCH_SIDES))
    of_patch = f"holds {100 - SMALLEST} % of the lesions, {large * height:.0f} pixels at this size, with a rim"
    if side < large * height:
        of_patch = f"the largest patch; {100 - SMALLEST} % of the lesions are smaller than {large * height:.0f} pixels"
    return Choice("data.size", (height, width), reason), Choice("data.patch_size", side, of_patch)


def build(name: str, chosen: Sequence[Choice]) -> ConfigDict:
    """A config of configs/ with these fields."""
    config = configs.get(name)
    with config.unlocked():
        for choice in chosen:
            *path, last = choice.field.split(".")
            part = config
            for step in path:
                part = part[step]
            part[last] = choice.value
    return config


def fit(name: str, chosen: list[Choice], memory: int, few: bool) -> tuple[list[Choice], plan.Cost]:
    """The choices whose training step fits, and what a step costs: at need blocks are computed twice (`config.remat`),
    then the batch is halved, then the size is reduced.

    Args:
        name: of the config to begin with.
        chosen: by the data.
        memory: bytes of one device.
        few: whether there are few images: a batch is then as small as that of configs/film.py, for more steps.

    Raises:
        BadConfig: nothing fits.
    """
    most, size = (4 if few else 16), next(choice for choice in chosen if choice.field == "data.size")
    batch, shrunk, remat, first = most, size, False, 0
    while True:
        reason = "few images need many steps" if few else "a step of sixteen is well used"
        if batch < most:
            reason = f"more does not fit into {plan.gigabytes(memory)}: the first try needed {plan.gigabytes(first)}"
        now = [shrunk if choice.field == "data.size" else choice for choice in chosen]
        now += [Choice("batch", batch, reason)]
        if remat:
            why = f"blocks are computed twice, in more time: the first try, without, needed {plan.gigabytes(first)}"
            now += [Choice("remat", True, why)]
        config = build(name, now)
        used = plan.needed_bytes(plan.program(config, FACTS).compile())
        if used is None or used <= memory:
            break
        first = first or used
        if not remat:
            remat = True
            continue
        if batch > 1:
            batch //= 2
            continue
        height, width = (max(POSITION, side * 3 // 4 // POSITION * POSITION) for side in shrunk.value)
        if (height, width) == shrunk.value:
            raise BadConfig(
                f"no training step fits into {plan.gigabytes(memory)}: the smallest needs {plan.gigabytes(used)}."
            )
        why = f"{size.value[0]} × {size.value[1]} would keep the smallest lesions, but does not fit into the memory"
        shrunk = Choice("data.size", (height, width), why)
    return now, _measure(config)


def _measure(config: ConfigDict) -> plan.Cost:
    """What a training step of a config costs from random weights."""
    task = tasks.of(config.model.task)
    variables = init_variables(task.network(config.model), task.sizes(config, config.data), config.model.channels, 0)
    return plan.measure(config, variables, FACTS)


def hours(name: str, chosen: Sequence[Choice], cost: plan.Cost, found: Fingerprint) -> str:
    """How long both networks train on this machine, by a measured step of each."""
    config = build(name, chosen)
    part = start.part(config, "patch", Path())
    seconds = [
        plan.training_seconds(of, step, {"train": round(0.765 * n), "val": round(0.085 * n), "test": round(0.15 * n)})
        for of, step, n in ((part, _measure(part), PATCHES * found.lesions), (config, cost, found.images))
    ]
    device = jax.devices()[0].device_kind
    return (
        f"about {plan.duration(seconds[0])} for patches and {plan.duration(seconds[1])} for whole images on this "
        f"machine ({jax.device_count()} × {device}); a step of {config.batch} images takes {cost.seconds:.2f} s"
        + (f" and {plan.gigabytes(cost.bytes)}" if cost.bytes else "")
    )


def text(name: str, chosen: Sequence[Choice], time: str) -> str:
    """The config as a file for launch.py."""
    lines = [
        '"""Written by `mammojax plan` from what the data hold; configs/' + f"{name}.py explains what is not set here.",
        "", "    python launch.py --config=THIS_FILE", "",
        *textwrap.wrap(f"Training takes {time}.", 116), '"""', "",
        f"from mammojax.configs import {name}", "", "", "def get_config():", '    """The planned config."""',
        f"    config = {name}.get_config()",
    ]  # fmt: skip
    epochs = [f"{stage.name}: {stage.epochs}" for stage in stages.from_config(build(name, chosen).stages)]
    for choice in chosen:
        lines += [f"    # {line}" for line in textwrap.wrap(choice.reason, 112)]
        lines.append(f"    config.{choice.field} = {choice.value!r}")
    lines += [f"    # {line}" for line in textwrap.wrap(f"Epochs as in {name}: {', '.join(epochs)}", 112)]
    return "\n".join([*lines, "    return config", ""])


def propose(source: Path, memory: int, words: str = "", most: int = MOST) -> str:
    """The text of a config for a manifest.

    Args:
        source: the manifest, its CSV or its folder.
        memory: bytes of one device.
        words: the meaning of its words for pathologies, see `manifest.read_map`.
        most: images to read.

    Raises:
        UserError: with a sentence for the user.
    """
    table = manifest.read_manifest(source, manifest.read_map(words))
    found = fingerprint(table.images, most=most)
    name = base_of(found)
    chosen, cost = fit(name, choices(found, source, words), memory, few=name == "film")
    return text(name, chosen, hours(name, chosen, cost, found))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax plan`."""
    parser.add_argument("--data", type=Path, required=True, help="the manifest")
    parser.add_argument("--device-memory", type=arguments.memory, required=True, help="of one device, such as 24GB")
    parser.add_argument("--output", type=arguments.file(".py"), help="the config's file; default: print it")
    parser.add_argument("--map", default="", help="the manifest's words for pathologies, such as 0=BENIGN,1=MALIGNANT")
    parser.add_argument("--images", type=arguments.count, default=MOST, help="images to read")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax plan`."""
    planned = propose(args.data, args.device_memory, args.map, args.images)
    if args.output:
        args.output.write_text(planned)
        print(f"→ {args.output}")
    else:
        print(planned, end="")
    return 0
