"""What the fields of a config may hold where only a run's later steps would notice: refused before anything is made."""

import importlib.util
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mammojax import extension
from mammojax.data.breast import CROPS
from mammojax.errors import BadConfig
from mammojax.train.augment import BORDERS, ORDERS
from mammojax.train.tracker import SERVERS

LEAST: Mapping[str, float] = {
    "batch": 1, "eval_batch": 1, "checkpoint_steps": 1, "bootstrap_runs": 1, "gallery": 0, "seed": 0, "calibration": 0,
    "data.workers": 0, "data.patients": 0, "phantom.patients": 1, "phantom.exams": 1, "augment.rotation": 0,
    "augment.shear": 0, "augment.translation": 0, "augment.intensity": 0,
}  # fmt: skip
"""Fields that are numbers, and the least of each."""
WORDS: Mapping[str, tuple[str, ...]] = {
    "data.crop": CROPS,
    "augment.order": ORDERS,
    "augment.border": BORDERS,
    "tracker": ("", *SERVERS),
}
"""Fields that are one of some words."""
MONITORS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("patch", "exam_patch"), ("accuracy", "loss", "last")),
    **dict.fromkeys(("whole", "two_view"), ("auc", "accuracy", "loss", "last")),
    "exam": ("auc", "loss", "last"),
}
"""What config.monitor may be, by task; a task of your own may measure other things."""
RANGES = ("augment.zoom", "augment.contrast")
PATTERNS = ("learn", "freeze", "fix_statistics", "slow", "decay")
"""Fields of a stage that are regular expressions."""


def refuse(config: ConfigDict) -> None:
    """Refuse the value of a field that no run can work with; fields that a config lacks are skipped.

    Raises:
        BadConfig: names the field and what it may hold.
    """
    for field, least in LEAST.items():
        value = _get(config, field)
        if value is not None and value < least:
            raise BadConfig(f"config.{field} is {value}; {least} is the least.")
    if _get(config, "calibration") and config.calibration >= 1:
        raise BadConfig(f"config.calibration is {config.calibration:g}; write a share from 0 to below 1.")
    task = config.model.task
    for field, words in {**WORDS, **({"monitor": MONITORS[task]} if task in MONITORS else {})}.items():
        value = _get(config, field)
        if value is not None and value not in words:
            named = [word or "nothing" for word in words]
            raise BadConfig(f'config.{field} is "{value}"; write {", ".join(named[:-1])} or {named[-1]}.')
    for field in RANGES:
        value = _get(config, field)
        if value is not None and (len(value) != 2 or not 0 < value[0] <= value[1]):
            raise BadConfig(f"config.{field} is {value}; write the least and the greatest factor, such as (0.8, 1.2).")
    size = _get(config, "data.size")
    if size is not None and len(size) != 2:
        raise BadConfig(f"config.data.size is {tuple(size)}; write HEIGHTxWIDTH, such as 288x224.")
    if (tracker := config.get("tracker", "")) and importlib.util.find_spec(tracker) is None:
        raise BadConfig(f"config.tracker={tracker} needs its package: pip install 'mammojax[{tracker}]'.")
    if name := config.get("loss", ""):
        extension.load(name, "config.loss")
    for key, stage in config.stages.items():
        for field in PATTERNS:
            for pattern in stage.get(field, ()):
                _refuse_pattern(f"config.stages.{key}.{field}", pattern)


def _refuse_pattern(field: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadConfig(f'{field}: "{pattern}" is no regular expression ({error}); correct it.') from None


def _get(config: ConfigDict, field: str) -> Any:
    """The value of a field such as "data.size", None where a config has no such field."""
    value: Any = config
    for name in field.split("."):
        if not isinstance(value, ConfigDict) or name not in value:
            return None
        value = value[name]
    return value
