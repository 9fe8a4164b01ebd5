"""What a run learns. A task is a module of these functions; run.py calls them and never asks which task it has.

    network(model)                         config.model → the network
    sizes(config, data)                    (height, width) of its input, of exams by view
    facts(config, data, starts)            what config.json says of the data, and of what was made of them for this run
    batches(config, workdir, data, facts)  the endless stream that it is trained on
    loss(config, facts)                    what it is trained by, see train/step.py
    score(config, data, facts, variables)  a function: (variables, split, tta) → predictions of a split
    ttas(config)                           the test-time augmentations that are scored beside "none", and "none"
    summary(config, predictions)           what chooses the best epoch: {"loss", "auc", …}
    measure(config, workdir, name, predictions, data, split)   writes predictions/NAME.csv; what metrics.json says of it
    report(config, workdir, data, predictions)                 writes report.html of the test predictions

`config.model.task` names it.
"""

import importlib
from types import ModuleType

from mammojax.errors import BadConfig

_MODULES = {"patch": "images", "whole": "images", "exam_patch": "images", "exam": "exams"}


def of(name: str) -> ModuleType:
    """The task of `config.model.task`: "patch", "whole", "exam_patch", "exam", or "package.module" of one outside.

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
