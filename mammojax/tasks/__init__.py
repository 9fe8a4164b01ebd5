"""The tasks of a run. A task is a module of these functions; run.py calls them and never asks which task it has.

    network(model)                         config.model → the network
    sizes(config, data)                    (height, width) of its input; for exams by view
    facts(config, data, starts)            facts of the data, and of files derived from them for this run
    batches(config, workdir, data, facts)  the endless stream of training batches
    loss(config, facts)                    the training loss, see train/step.py
    score(config, data, facts, variables)  a function: (variables, split, tta) → predictions of a split
    ttas(config)                           the test-time augmentations to score, "none" among them
    summary(config, predictions)           the values that choose the best epoch: {"loss", "auc", …}
    measure(config, workdir, name, predictions, data, split)
                                           writes predictions/NAME.csv; its entry of metrics.json
    only(predictions, data, split, patients)
                                           the predictions of these patients alone; needed with config.calibration
    report(config, workdir, data, predictions, notes)
                                           writes report.html of the test predictions

`config.model.task` names it.
"""

import importlib
from types import ModuleType

from mammojax.errors import BadConfig

_MODULES = {"patch": "images", "whole": "images", "exam_patch": "images", "exam": "exams", "two_view": "pairs"}


def of(name: str) -> ModuleType:
    """The task of `config.model.task`: one of ours, or the "package.module" of your own.

    Raises:
        BadConfig: there is no such task.
    """
    module = f"{__name__}.{_MODULES[name]}" if name in _MODULES else name
    try:
        if name not in _MODULES and "." not in name:
            raise ModuleNotFoundError
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise BadConfig(
            f'config.model.task="{name}" is unknown; use {", ".join(_MODULES)}, or "package.module" of your own.'
        ) from None
