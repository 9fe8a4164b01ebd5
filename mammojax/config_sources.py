"""Where the values of an experiment's fields come from: a paper, its published code, or ours.

A paper states few of the fields that a run needs. A field is a paper's where the paper states it and the experiment has
the paper's value: an experiment of our own, such as the quickstart, is compared with the row that it shrinks.
"""

import re
from typing import Any

from flax.traverse_util import flatten_dict

from mammojax import configs
from mammojax.papers.settings import ROWS

OURS = "ours"
USERS = "yours to set; no paper's"
SHEN, WU = "Shen et al. 2019", "Wu et al. 2019"
SHEN_CODE, WU_CODE = "published code of Shen et al. 2019", "published code of Wu et al. 2019"
PETRINI = {"2022": "Petrini et al. 2022", "2025": "Petrini & Kim 2025", "vindr": "Petrini & Kim 2025"}
RESNET, DENSENET = "He et al. 2016", "Huang et al. 2017"
STAGES = r"stages\.\w+\."
_OF_SHEN = {
    r"data\.(kind|size|patch_size|crop|keep_aspect|split)": SHEN,
    r"model\.(task|trunk|head|classes)": SHEN,
    r"model\.(width|blocks)": RESNET,
    r"model\.(channels|stride_on|conv_bias|bn_momentum|bn_epsilon)": SHEN_CODE,
    r"augment\.(enabled|flip_\w+|rotation|zoom|intensity)": SHEN,
    r"augment\.(border|order)": SHEN_CODE,
    r"batch|balance_loss|bootstrap_runs": SHEN,
    rf"{STAGES}(learn|freeze|learning_rate|schedule|epochs|weight_decay)": SHEN,
}
_OF_WU = {
    r"data\.(kind|patch_size)|exam\.(sizes\.\w+|patch|heatmaps)": WU,
    r"data\.iterations|exam\.(noise|stride)": WU_CODE,
    r"model\.(task|join|angles|tie|target|width|blocks|padding|noise|channels)": WU,
    r"batch|monitor": WU,
    rf"{STAGES}(learn|freeze|learning_rate|weight_decay|patience)": WU,
}
_OF_WU_PATCHES = {
    r"data\.(kind|patch_size)|model\.(task|trunk|classes|channels)": WU,
    r"model\.(width|blocks)": DENSENET,
    r"model\.padding": WU_CODE,
}
_OF_PETRINI = {
    r"data\.split|model\.(task|trunk|pair)": "{}",
    r"data\.(size|patch_size)|model\.(head|dropout|normalise|drop_path)": "the later code of {}'s authors",
    r"augment\.(rotation|zoom|shear|intensity|saturate|border)|balance_loss": "the later code of {}'s authors",
    rf"{STAGES}(learning_rate|schedule|epochs|warmup|renew|patience)": "the later code of {}'s authors",
    r"model\.(width|padding|bn_epsilon|bn_momentum|head_bn_momentum)": "the release of the ImageNet weights",
}
_USERS = (
    r"row|seed|source|init_from|patch_run|extend|tracker|loss|eval_batch|memory|remat|accumulate|exact_devices|bands|calibration"
    r"|checkpoint_steps|gallery|patients_labelled|data\.(name|data_dir|source|map|prepare|seed|workers|patients"
    r"|shuffle_labels)|model\.(pretrained|dtype)|phantom\.\w+"
)
_SHRUNK = {"quickstart": "whole_resnet", "film": "whole_resnet:heatmap3,max", "whole_lite": "whole_resnet",
           "exam_quickstart": "exam:view-wise+heatmaps"}  # fmt: skip
"""Experiments of ours, and the paper's row that each is made from."""
_INNER = ("patch", "birads", "single_view")


def sources(name: str, argument: str = "") -> dict[str, str]:
    """The source of each field of an experiment and of the runs inside it, by the field's path without "config.".

    Raises:
        BadConfig: there is no such experiment or row.
    """
    own = configs.get(name, argument)
    values = flatten_dict(own.to_dict(), sep=".")
    row, _, of_row = _row(name, argument, str(own.row)).partition(":")
    paper = flatten_dict(configs.get(row, of_row).to_dict(), sep=".")
    return {path: _source(path, value, paper, row, of_row) for path, value in values.items()}


def _row(name: str, argument: str, row: str) -> str:
    """The paper's row that an experiment is, or is made from."""
    if argument in ("quickstart", "film"):
        return {"exam_ensemble": _SHRUNK["exam_quickstart"], "label_efficiency": "inbreast"}.get(name, name)
    if name in _SHRUNK:
        return f"{_SHRUNK[name]}:{argument}" if name == "exam_quickstart" and argument else _SHRUNK[name]
    return row if row.partition(":")[0] in configs.names() else name


def _source(path: str, value: Any, paper: dict[str, Any], row: str, argument: str) -> str:
    *inner, field = re.split(rf"(?<![^.])({'|'.join(_INNER)})\.", path)
    if re.fullmatch(_USERS, field):
        return USERS
    for pattern, source in _stated(row, argument, "patch" in inner).items():
        if re.fullmatch(pattern, field):
            return source if path in paper and paper[path] == value else OURS
    return OURS


def _stated(row: str, argument: str, of_patches: bool) -> dict[str, str]:
    """What the paper of a row, or of the patch run inside it, states: patterns of fields, and the source."""
    if row in ("exam", "birads", "exam_patch"):
        return _OF_WU_PATCHES if row == "exam_patch" or of_patches else _OF_WU
    if row in ("single_view", "two_view", "view_patch"):
        paper = PETRINI.get(argument.partition("-")[0], PETRINI["2022"])
        return {pattern: source.format(paper) for pattern, source in _OF_PETRINI.items()}
    return _OF_SHEN if row in ROWS else {}
