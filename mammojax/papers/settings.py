"""The config in configs/ for a row of a paper's table, and a run's differences from it."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from mammojax import configs
from mammojax.errors import BadConfig

NOT_COMPARED = "settings not compared"
IGNORED = (
    # the run's identity: its seed, row and folders, and its start, which has deviations of its own
    "row", "seed", "data.seed", "init_from", "patch_run", "model.pretrained", "patch", "birads", "single_view",
    "extend",
    # the data set and its framing, which are compared by the facts of the data; a label-efficiency row's patients and
    # controls with other labels, which are not in the tables
    "data.name", "data.split", "data.size", "data.crop", "data.keep_aspect", "data.patients", "data.shuffle_labels",
    "phantom",
    # how data are read, and how fast
    "source", "data.source", "data.data_dir", "data.prepare", "data.workers", "data.map",
    # what is saved and drawn, and how many draws an interval has
    "checkpoint_steps", "eval_batch", "gallery", "bootstrap_runs", "memory", "remat", "tracker",
)  # fmt: skip
"""Fields that do not change the result, or that the tables show elsewhere."""


ROWS = ("patch_resnet", "patch_vgg", "whole_resnet", "whole_vgg", "inbreast", "birads", "exam_patch", "exam",
        "single_view", "two_view")  # fmt: skip
"""The files of configs/ with the papers' settings; the others are ours."""


@functools.cache
def of_row(row: str) -> dict[str, Any] | None:
    """A row's config as config.json would hold it; None for a row of no paper."""
    kind, _, argument = row.partition(":")
    if kind not in ROWS or kind not in configs.names():
        return None
    try:
        config = configs.get(kind, argument)
    except BadConfig:  # a row of the user's own, such as birads:half
        config = configs.get(kind)
    return json.loads(config.to_json_best_effort())


def differences(config: Mapping[str, Any], row: str) -> list[str]:
    """The settings of a run's config that differ from its row's, in words; only fields that both have count.

    Args:
        config: of a config.json.
        row: the row to compare with; if it has no config, that is the only difference.
    """
    expected = of_row(row)
    if expected is None:
        return [NOT_COMPARED]
    ours, theirs = (
        flatten_dict({k: v for k, v in tree.items() if k != "stages"}, sep=".") for tree in (config, expected)
    )
    if not ours.get("model.auxiliary_classes", 0):
        ours = {field: value for field, value in ours.items() if not field.startswith("auxiliary.")}
    differing = [
        f"{field.removeprefix('model.').removeprefix('data.').removeprefix('exam.sizes.')} {_text(field, value)}"
        for field, value in ours.items()
        if field in theirs and value != theirs[field] and not _ignored(field)
    ]
    return differing + _of_stages(config.get("stages", {}), expected["stages"])


def _of_stages(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Differences of the stages: total epochs if they differ, everything else stage by stage."""
    differing = [f"without {key}" for key in theirs if key not in ours] + [
        f"with {key}" for key in ours if key not in theirs
    ]
    total, expected = (sum(stage.get("epochs", 0) for stage in stages.values()) for stages in (ours, theirs))
    comparable = all("epochs" in stage for stage in ours.values())
    if comparable and total != expected:
        differing.append(f"{total} epochs")
    for key, stage in ours.items():
        which = f"{key} " * (len(theirs) > 1)
        for field, value in stage.items():
            if field == "name" or value == theirs.get(key, {}).get(field, value):
                continue
            if field == "epochs":
                differing += [f"{which}{value} epochs"] * (total == expected)
            else:
                differing.append(f"{which}{field.replace('_', ' ')} {_text(field, value)}")
    return differing


def _ignored(field: str) -> bool:
    return any(field == name or field.startswith(f"{name}.") for name in IGNORED)


def _text(field: str, value: Any) -> str:
    if field.startswith("exam.sizes."):
        return "x".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
