"""The settings that weights bring along: with other settings they compute something else than in their training.

Weights come from a finished run (init_from, patch_run), a run inside the config (patch, birads) or a published file
(model.pretrained). Such a setting is *adopted* from the start if the config leaves it at its family's default,
DEFAULTS, and *refused* if the config has another value than the start.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from mammojax.data.recipe import data_dir
from mammojax.data.sliding import PATCH
from mammojax.data.window import SIZES
from mammojax.errors import BadConfig, near_file
from mammojax.models import published, weights
from mammojax.models.trunk_names import EFFICIENTNETS
from mammojax.train.checkpoint import read_config, restore_best
from mammojax.train.state import Size, init_variables, transfer

FRAMING = {"data.size": (1152, 896), "data.crop": "none", "data.keep_aspect": False}
RESNET = {
    "model.blocks": (3, 4, 6, 3), "model.stride_on": "1x1", "model.conv_bias": True, "model.bn_epsilon": 1e-3,
    "model.bn_momentum": 0.99,
}  # fmt: skip
MAMMOGRAM = {
    "model.width": 64, "model.channels": 3, "model.pretrained_std": (), **RESNET, **FRAMING,
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "patch": MAMMOGRAM,
    "whole": MAMMOGRAM,
    "two_view": MAMMOGRAM,
    "exam_patch": {
        "model.width": 64, "model.blocks": (6, 12, 24, 16), "model.padding": "same", "model.channels": 3,
        "model.pretrained_std": (),
    },
    "exam": {
        "model.width": 16, "model.blocks": (2, 2, 2, 2, 2), "model.padding": "paper", "model.tie": "sides",
        "exam.sizes": SIZES, "exam.heatmaps": ("malignant", "benign"), "exam.patch": PATCH, "data.patch_size": PATCH,
    },
}  # fmt: skip
"""By task, the settings that follow a start; values of configs/patch_resnet.py, exam_patch.py and exam.py."""

FITS = {
    "patch": ("patch", "whole"), "whole": ("patch", "whole"), "two_view": ("patch", "whole", "two_view"),
    "exam_patch": ("exam_patch",), "exam": ("exam",),
}  # fmt: skip
"""The tasks whose runs a run of each task may start from."""
PATCH_SIZE = ("exam.patch", "data.patch_size")
LATER = {"model.padding": "same", "model.normalise": "mean"}
"""Further settings of networks of mammograms; a config without them has these values."""
CHOSEN = "never adopted: what the config is a config of"


def parts(config: ConfigDict) -> list[str]:
    """The runs inside a config that are trained before it: those without a field that names a finished run."""
    return [name for field, name in starts(config).items() if name in config and not config[field]]


def starts(config: ConfigDict) -> dict[str, str]:
    """The runs that a run needs first: {the field that names a finished one: the name of the run inside the config}.

    "init_from" names the run whose weights are the start. Whole-image networks start from a patch classifier, exam
    networks from a BI-RADS network; exam networks with heatmaps take those of a patch classifier; two-view networks
    start from a network of single views. The order is that of their training.
    """
    if config.model.task == "two_view":
        return {"init_from": "single_view"}
    if config.model.task != "exam":
        return {"init_from": "patch"}
    return ({"patch_run": "patch"} if config.model.channels == 3 else {}) | {"init_from": "birads"}


def part(config: ConfigDict, name: str, workdir: Path) -> ConfigDict:
    """The config of a run inside another, which uses the other's data."""
    inner = config[name].copy_and_resolve_references()
    kind = inner.data.kind
    with inner.unlocked():
        inner.data.update(config.data.copy_and_resolve_references())
        inner.data.kind, inner.data.prepare, inner.seed = kind, False, config.seed
        inner.extend, inner.tracker = config.get("extend", False), config.get("tracker", "")
        if "phantom" in config:
            inner.phantom = config.phantom
        if name == "birads" and "patch_run" in config:
            inner.patch_run = config.patch_run
    inner.data.data_dir = data_dir(inner, workdir)
    return inner


def variables(config: ConfigDict, model: nn.Module, size: Size, init_from: Path | None) -> dict[str, Any]:
    """The weights that a network starts from: a finished run's best, else a published file's, else random ones.

    Raises:
        BadCheckpoint: the run's weights do not fit. BadConfig: the file's do not.
    """
    fresh = init_variables(model, size, config.model.channels, config.seed)
    if init_from:
        _, _, trained = restore_best(init_from)
        return transfer(trained, fresh)
    if not config.model.get("pretrained", ""):
        return fresh
    file, std = published.find(config.model.pretrained, config.model.trunk), tuple(config.model.pretrained_std) or None
    try:
        return weights.load(file, config.model.trunk, fresh, input_std=std)
    except (ValueError, ModuleNotFoundError) as error:
        raise BadConfig(f"config.model.pretrained: {error}") from None


def settle(config: ConfigDict, prefix: str = "config.", data: ConfigDict | None = None) -> ConfigDict:
    """A copy of a run's config with the settings that it and its inner runs adopt from their starts, each printed.

    A file in model.pretrained moves to the patch run inside the config, if there is one: the whole-image network starts
    from that run. Settling a settled config changes nothing.

    Args:
        config: of one run; fields that an older config lacks are skipped.
        prefix: of its fields in messages.
        data: for a run inside another, the outer config.data, which it uses and whose fields it settles.

    Raises:
        BadConfig: two starts, a missing start or one of another kind, or a setting that contradicts the start.
    """
    config = config.copy_and_resolve_references()
    task = config.model.task
    if task not in DEFAULTS:  # building the network raises the error
        return config
    with config.unlocked():
        ours = {"model": config.model, "exam": config.get("exam", {}), "data": config.data if data is None else data}
        _refuse_two_starts(config, prefix)
        inner = parts(config)
        if task in ("whole", "two_view") and inner:
            _hand_file_down(config, inner[0], prefix)
        for name in inner:
            config[name] = settle(config[name], f"{prefix}{name}.", ours["data"])
            if config[name].model.task in FITS[task]:
                theirs = {group: values for group, values in config[name].to_dict().items() if group != "data"}
                _adopt(ours, theirs, f"{prefix}{name}", prefix)
        if config.init_from:
            _adopt(ours, _run(config, "init_from", FITS[task], prefix), f'"{config.init_from}"', prefix)
        if config.get("patch_run", ""):
            saved = _run(config, "patch_run", ("exam_patch",), prefix)
            side = _get(saved, "data.patch_size") or _get(saved, "exam.patch")
            if config.model.channels == 3:
                theirs = {"exam": {"patch": side}, "data": {"patch_size": side}}
                _adopt(ours, theirs, f'"{config.patch_run}"', prefix)
        if file := config.model.get("pretrained", ""):
            path = published.find(file, config.model.trunk)
            _adopt(
                ours,
                {"model": _file(path, task, config.model.get("normalise", "mean"), prefix)},
                f'"{path.name}"',
                prefix,
            )
    return config


def with_start_mean(facts: dict[str, Any], folder: str | Path | None) -> dict[str, Any]:
    """A run's facts; with "start_mean", the mean (0 … 255) that the starting run subtracted, if it differs.

    The mean is not adopted: Shen et al. 2019 subtract that of their current images, for INbreast 44.33, though the
    weights come from CBIS-DDSM, with 52.18. facts["mean"] is the mean that this run subtracts.
    """
    theirs = read_config(folder)[1].get("mean") if folder else None
    if theirs is None or theirs == facts["mean"]:
        return facts
    print(f"mean subtracted: {facts['mean']:.2f}, of this data; the start's was {theirs:.2f}", flush=True)
    return facts | {"start_mean": theirs}


def _refuse_two_starts(config: ConfigDict, prefix: str) -> None:
    """Refuse a pretrained file beside a finished run that replaces it."""
    files = {"model.pretrained": (config.model.get("pretrained", ""), "init_from")}
    if "single_view" in config:
        files["single_view.model.pretrained"] = (config.single_view.model.get("pretrained", ""), "init_from")
    if "patch" in config:
        instead = "patch_run" if config.model.task == "exam" else "init_from"
        files["patch.model.pretrained"] = (config.patch.model.get("pretrained", ""), instead)
    for field, (file, run) in files.items():
        if file and config[run]:
            raise BadConfig(
                f'{prefix}{run} is "{config[run]}" and {prefix}{field} "{file}": two starts, one of which would not be '
                "read; leave one of them out."
            )


def _hand_file_down(config: ConfigDict, name: str, prefix: str) -> None:
    """Move the file and its settings from a network of mammograms to the run inside its config that it starts from."""
    for field in ("pretrained", "pretrained_std"):
        ours, theirs = config.model[field], config[name].model[field]
        if ours and theirs and ours != theirs:
            raise BadConfig(
                f"{prefix}model.{field} is {ours} and {prefix}{name}.model.{field} {theirs}: two starts; the "
                f"{name.replace('_', ' ')} run inside this config is what starts from a file, so leave "
                f"{prefix}model.{field} out."
            )
        config[name].model[field], config.model[field] = theirs or ours, type(ours)()


def _run(config: ConfigDict, field: str, tasks: tuple[str, ...], prefix: str) -> dict[str, Any]:
    """The config of the finished run that a field names, a plain dictionary."""
    folder = Path(config[field])
    if not (folder / "config.json").is_file():
        did = near_file(folder, "name a finished run's --workdir.")
        raise BadConfig(f'{prefix}{field}: "{folder}" is not a run folder; {did}')
    saved = read_config(folder)[0].to_dict()
    task = _get(saved, "model.task")
    if task and task not in tasks:
        raise BadConfig(
            f'{prefix}{field}: "{folder}" is a run of task "{task}", with {_normalisation(task)}, and this run of task '
            f'"{config.model.task}", with {_normalisation(config.model.task)}; name a run of task {" or ".join(tasks)}.'
        )
    return saved


def _normalisation(task: str) -> str:
    return "every image standardised" if task.startswith("exam") else "the training images' mean subtracted"


def _file(file: Path, task: str, normalise: str, prefix: str) -> dict[str, Any]:
    """The settings of config.model that a file of weights needs."""
    if not file.is_file():
        raise BadConfig(
            f'{prefix}model.pretrained: there is no file "{file}"; give a Keras, torch or safetensors file.'
        )
    try:
        wants = weights.settings(file)
    except (ValueError, ModuleNotFoundError) as error:
        raise BadConfig(f"{prefix}model.pretrained: {error}") from None
    # Standardised images have the standard deviation of torchvision's inputs; there is nothing to divide by. Those of
    # 0 … 1 are not divided either: so Petrini et al. 2022 train, whose scale it is.
    return wants | {"pretrained_std": ()} if task == "exam_patch" or normalise != "mean" else wants


def _adopt(config: Mapping[str, Any], theirs: Mapping[str, Any], start: str, prefix: str) -> None:
    """Adopt a start's settings where the config, given by group, has the default; refuse contradictions."""
    taken = []
    for field, default in _fields(config["model"], theirs).items():
        ours, needed = _get(config, field), _get(theirs, field)
        if field in LATER:
            ours = default if ours is None else ours
            needed = default if needed is None and _get(theirs, "model.task") else needed
        if ours is None or needed is None or _plain(ours) == _plain(needed):
            continue
        if _plain(ours) == _plain(default):
            group, name = field.split(".")
            config[group][name] = _typed(needed)
            taken.append(f"{field}={_typed(needed)}")
        elif field != "model.bn_momentum":  # how fast statistics move is a choice, not part of the weights' function
            if start.startswith("config."):
                raise BadConfig(
                    f"{start}.{field} is {_typed(needed)} and {prefix}{field} {_typed(ours)}; set both, as weights "
                    "pass from one network to the other."
                )
            raise BadConfig(
                f"{prefix}{field} is {_typed(ours)}, but the weights of {start} are made for {_typed(needed)}; set "
                f"{prefix}{field} to that, or name another start."
            )
    if taken:
        print(f"{prefix.removesuffix('.')} adopts from {start}: {', '.join(taken)}", flush=True)


def _fields(model: ConfigDict, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that must equal a start's (a run's config, or settings read from a file), with their defaults."""
    start = _get(theirs, "model.task")
    later = LATER if DEFAULTS[model.task] is MAMMOGRAM else {}
    fields = {"model.trunk": CHOSEN, **DEFAULTS[model.task], **later}
    unused = {"model.pretrained_std"} if start else set()  # a run's weights include it already
    if DEFAULTS[model.task] is MAMMOGRAM and model.trunk not in EFFICIENTNETS:
        unused.add("model.padding")
    if DEFAULTS[model.task] is MAMMOGRAM and model.trunk.startswith("efficientnet"):
        unused |= {"model.blocks", "model.stride_on", "model.conv_bias"}
    elif DEFAULTS[model.task] is MAMMOGRAM and model.trunk != "resnet50":
        unused |= RESNET.keys() - ({"model.bn_epsilon"} if start == model.task != "patch" else set())  # for the heads
    if start == "exam":
        unused |= set(PATCH_SIZE)
        if _get(theirs, "model.channels") == 3:
            fields["model.channels"] = CHOSEN  # a network without heatmaps has no place for their weights
        if not _get(theirs, "model.channels") == model.channels == 3:
            unused.add("exam.heatmaps")
    return {field: default for field, default in fields.items() if field not in unused}


def _get(tree: Mapping[str, Any], field: str) -> Any:
    """A field such as "model.width" of a config or of a part of one, None where it has none."""
    group, name = field.split(".")
    return (tree.get(group) or {}).get(name)


def _plain(value: Any) -> Any:
    """A value after a round trip through JSON."""
    return json.loads(json.dumps(_typed(value)))


def _typed(value: Any) -> Any:
    """A value as configs hold it, and as it is typed after --config.field=: JSON's lists become tuples."""
    if isinstance(value, (ConfigDict, Mapping)):
        return {key: tuple(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
