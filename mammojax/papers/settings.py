"""The config that configs/ has for a row of a paper's table, and how a run's config differs from it.

Where the files of configs/ are not at hand, nothing is compared, and that is said.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

from mammojax import configs
from mammojax.errors import BadConfig

NOT_COMPARED = "settings not compared"
MISSING = (
    "configs/ is not beside the package, so no run's settings are compared with the paper's; "
    "run this from a checkout, or install one with `pip install -e .`."
)
IGNORED = (
    # which run it is, not how it learns: a seed, a row, where it lies, what it started from (told by that run itself)
    "row", "seed", "data.seed", "init_from", "patch_run", "model.pretrained", "patch", "birads", "extend",
    # the data set and its framing, told by the facts of the data that were read; a label-efficiency row's patients and
    # controls with other labels, which have no place in the tables
    "data.name", "data.split", "data.size", "data.crop", "data.keep_aspect", "data.patients", "data.shuffle_labels",
    "phantom",
    # how data come here and how fast
    "source", "data.source", "data.data_dir", "data.prepare", "data.workers", "data.map",
    # what is saved, drawn and shown, and how many draws an interval has
    "checkpoint_steps", "eval_batch", "gallery", "bootstrap_runs",
)  # fmt: skip
"""Fields that do not change the result, or of which the tables say more elsewhere."""


ROWS = ("patch_resnet", "patch_vgg", "whole_resnet", "whole_vgg", "inbreast", "birads", "exam_patch", "exam")
"""The files of configs/ whose settings are the papers'; the others are ours."""


def at_hand() -> bool:
    """Whether configs/ is there to compare with."""
    return set(ROWS) <= set(configs.names())


@functools.cache
def of_row(row: str) -> dict[str, Any] | None:
    """A row's config as config.json would hold it; None for a row that is not of a paper, or without configs/."""
    kind, _, argument = row.partition(":")
    if kind not in ROWS or not at_hand():
        return None
    try:
        config = configs.get(kind, argument)
    except BadConfig:  # a row of the user's own, such as birads:half
        config = configs.get(kind)
    return json.loads(config.to_json_best_effort())


def differences(config: Mapping[str, Any], row: str) -> list[str]:
    """What is not the row's own setting in a run's config, in words; a field that only one of them has is none.

    Args:
        config: of a config.json.
        row: which row's config it is compared with; where there is none, that is the one difference.
    """
    wanted = of_row(row)
    if wanted is None:
        return [NOT_COMPARED]
    ours, theirs = (_flat({k: v for k, v in one.items() if k != "stages"}) for one in (config, wanted))
    if not ours.get("model.auxiliary_classes", 0):
        ours = {field: value for field, value in ours.items() if not field.startswith("auxiliary.")}
    found = [
        f"{field.removeprefix('model.').removeprefix('data.').removeprefix('exam.sizes.')} {_shown(field, value)}"
        for field, value in ours.items()
        if field in theirs and value != theirs[field] and not _ignored(field)
    ]
    return found + _of_stages(config.get("stages", {}), wanted["stages"])


def _of_stages(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Differences of the stages: their epochs all together where those differ, everything else stage by stage."""
    found = [f"without {key}" for key in theirs if key not in ours] + [
        f"with {key}" for key in ours if key not in theirs
    ]
    total, wanted = (sum(stage.get("epochs", 0) for stage in stages.values()) for stages in (ours, theirs))
    known = all("epochs" in stage for stage in ours.values())
    if known and total != wanted:
        found.append(f"{total} epochs")
    for key, stage in ours.items():
        which = f"{key} " * (len(theirs) > 1)
        for field, value in stage.items():
            if field == "name" or value == theirs.get(key, {}).get(field, value):
                continue
            if field == "epochs":
                found += [f"{which}{value} epochs"] * (total == wanted)
            else:
                found.append(f"{which}{field.replace('_', ' ')} {_shown(field, value)}")
    return found


def _ignored(field: str) -> bool:
    return any(field == name or field.startswith(f"{name}.") for name in IGNORED)


def _shown(field: str, value: Any) -> str:
    if field.startswith("exam.sizes."):
        return "x".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found
