"""Which parameters learn, at what rate, for how long: a stage is data (Shen et al. 2019, "Network training")."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from mammojax.errors import BadConfig

Tree = Any


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        key: its name in the config ("stage1", …); stages run in the order of these names.
        name: its name in the log and the report.
        learn: regular expressions on parameter paths such as "trunk/stage4_unit3/conv1/kernel" (re.fullmatch).
        freeze: likewise for the parameters that stay; `learn` wins where both match.
        fix_statistics: paths of BatchNorm layers that keep their running statistics although they may learn.
        move_frozen_statistics: the published code's behaviour: frozen BatchNorm layers normalise with the batch and
            keep averaging. The default is False, the meaning of the paper's "frozen".
        learning_rate, schedule: "constant"; "cosine" down to zero over the stage; or "waves", the published code of
            Petrini & Kim 2025: epoch by epoch a cosine between 1.1 and 0.9 of the rate, with a tenth of the epochs from
            crest to trough.
        warmup: the first epochs, whose rate grows up to `learning_rate`: of "waves" epoch by epoch, of "cosine" step by
            step, so that Adam's first steps, which are as long as the rate whatever the gradient, leave features alive.
        renew: Adam's moments begin anew in each epoch, as in that code.
        slow, slow_factor: regular expressions of learning parameters whose rate is `learning_rate` times the factor.
        weight_decay: factor of L2 on kernels in the gradient, before Adam (or decoupled: `decoupled_decay`, AdamW).
        decay: regular expressions of the kernels it acts on. The published code of Shen et al. 2019 decays the new top
            layers alone, the paper does not mention it; the default is all.
        epochs: length.
        cache: the epochs whose outputs of the frozen first layers are kept and used again (`train.cache`); 0: none.
        patience: the stage ends earlier after so many epochs in a row without a better `monitor`; 0: never.
    """

    key: str
    name: str
    learn: tuple[str, ...]
    freeze: tuple[str, ...]
    fix_statistics: tuple[str, ...]
    move_frozen_statistics: bool
    learning_rate: float
    schedule: str
    weight_decay: float
    decoupled_decay: bool
    epochs: int
    patience: int = 0
    slow: tuple[str, ...] = ()
    slow_factor: float = 1.0
    decay: tuple[str, ...] = (".*",)
    cache: int = 0
    warmup: int = 0
    renew: bool = False

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` of the stage's `steps`."""
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "waves":
            epoch = step * self.epochs // steps
            if epoch < self.warmup:
                return self.learning_rate * (epoch + 1) / self.warmup
            phase = np.pi * (epoch - self.warmup) / max(1, self.epochs // 10)
            return float(self.learning_rate * (1 + 0.1 * np.cos(phase)))
        rising = self.warmup * steps // max(1, self.epochs)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return float(self.learning_rate * 0.5 * (1 + np.cos(np.pi * (step - rising) / (steps - rising))))


def from_config(stages: ml_collections.ConfigDict) -> list[Stage]:
    """The stages of a config, in the order of their keys.

    Raises:
        BadConfig: a schedule or a number is invalid.
    """
    result = []
    for key in sorted(stages):
        fields: dict[str, Any] = stages[key].to_dict()
        fields |= {k: tuple(v) for k, v in fields.items() if isinstance(v, (list, tuple))}
        stage = Stage(key=key, **fields)
        if stage.schedule not in ("constant", "cosine", "waves"):
            raise BadConfig(
                f'config.stages.{key}.schedule is "{stage.schedule}"; write "constant", "cosine" or "waves".'
            )
        if stage.warmup and stage.schedule == "constant":
            raise BadConfig(f'config.stages.{key}.warmup is for the schedules "cosine" and "waves"; write 0.')
        numbers = ("epochs", "patience", "cache", "warmup", "learning_rate", "slow_factor", "weight_decay")
        if min(getattr(stage, name) for name in numbers) < 0:
            raise BadConfig(f"config.stages.{key}: {', '.join(numbers)} must not be negative.")
        result.append(stage)
    if not result:
        raise BadConfig("config.stages is empty; give it at least one stage, stage1.")
    return result


def paths(params: Tree) -> list[str]:
    """The path of each parameter, "/"-joined, in the order of the tree's leaves."""
    return ["/".join(str(k.key) for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _matches(patterns: tuple[str, ...], path: str) -> bool:
    return any(re.fullmatch(pattern, path) for pattern in patterns)


def labels(stage: Stage, params: Tree) -> Tree:
    """ "learn", "slow" (learns at the lower rate) or "freeze" for each parameter, in the tree's shape.

    Raises:
        BadConfig: a pattern matches no parameter, no pattern covers a parameter, or the stage learns none.
    """
    names = paths(params)
    for field in ("learn", "freeze", "slow", "decay"):
        for pattern in getattr(stage, field):
            if not any(re.fullmatch(pattern, name) for name in names):
                raise BadConfig(
                    f'config.stages.{stage.key}.{field}: the pattern "{pattern}" matches no parameter; '
                    f"parameters are named like {names[0]} and {names[-1]}."
                )
    uncovered = [n for n in names if not _matches(stage.learn, n) and not _matches(stage.freeze, n)]
    if uncovered:
        raise BadConfig(
            f"config.stages.{stage.key}: {len(uncovered)} parameters stand in neither learn nor freeze, "
            f"the first is {uncovered[0]}; add a pattern that covers them."
        )
    if not any(_matches(stage.learn, n) for n in names):
        raise BadConfig(f"config.stages.{stage.key}.learn names no parameter; nothing would be trained.")
    flat = [("slow" if _matches(stage.slow, n) else "learn") if _matches(stage.learn, n) else "freeze" for n in names]
    return jax.tree.unflatten(jax.tree.structure(params), flat)


def frozen_statistics(stage: Stage) -> Callable[[str], bool]:
    """Which BatchNorm layers keep their running statistics in this stage: a predicate on the layer's path.

    Zero updates do not stop a BatchNorm's statistics, so a frozen one also runs in inference mode.
    """

    def frozen(path: str) -> bool:
        if _matches(stage.fix_statistics, path):
            return True
        return not stage.move_frozen_statistics and not _matches(stage.learn, f"{path}/scale")

    return frozen


def optimizer(stage: Stage, params: Tree) -> optax.GradientTransformation:
    """Adam for the learning parameters, exact zeros and no moments for the others.

    The learning rate is not included: the step multiplies by it, so that one compiled step serves every rate. Adam's
    β 0.9/0.999, ε 1e-8 are the paper's library defaults. Weight decay acts on kernels only.
    """

    def kernels(tree: Tree) -> Tree:
        decayed = [name.endswith("kernel") and _matches(stage.decay, name) for name in paths(tree)]
        return jax.tree.unflatten(jax.tree.structure(tree), decayed)

    decay = [optax.add_decayed_weights(stage.weight_decay, mask=kernels)] if stage.weight_decay else []
    adam = [optax.scale_by_adam()]
    chain = adam + decay if stage.decoupled_decay else decay + adam
    groups = {"learn": optax.chain(*chain), "freeze": optax.set_to_zero()}
    if stage.slow:
        groups["slow"] = optax.chain(*chain, optax.scale(stage.slow_factor))
    return optax.multi_transform(groups, labels(stage, params))
