"""The outputs of a stage's frozen first layers, kept and used again (`config.stages.STAGE.cache`).

While the first layers of a network stay as they are, an image that they have seen gives the same outputs again. With
`cache = K`, a stage's first K epochs run as always and keep these outputs; every later epoch takes those of the epoch K
before it in place of its images. An example then has K augmented copies instead of a new one each epoch.

Nothing in the networks knows of it: flax's interceptors take the outputs of the last frozen module out of a pass and
put them into another one, in which what came before is dead code that the compiler removes.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mammojax.errors import BadConfig
from mammojax.train import stages
from mammojax.train.state import TrainState, in_training, step_keys

Tree = Any
Batch = dict[str, Any]
Path = tuple[str, ...]
TOLERANCE = 1e-3
"""The largest relative difference of the logits with kept outputs from those without, in the first batch."""
MEMORY = 0.5
"""The largest share of the machine's memory that kept outputs may take."""


class Cache:
    """What the frozen first layers of a stage gave for each example, on the host."""

    def __init__(self, model: nn.Module, stage: stages.Stage, loss: Callable[..., Any]) -> None:
        self._shapes: Tree = None  # of the images of a batch
        self._model, self._stage, self._loss = model, stage, loss
        self._cut: Path = ()  # the last frozen module
        self._beside: set[Path] = set()  # modules without parameters that read the images themselves
        self._outputs: list[dict[str, list[np.ndarray]]] = [{} for _ in range(stage.cache)]
        self._early = jax.jit(self._take)

    def outputs(self, state: TrainState, step: int, batch: Batch, arrays: Batch, epoch: int, steps: int) -> list[Tree]:
        """The outputs of the frozen layers for a batch: those of `stage.cache` epochs ago, else computed and kept.

        Args:
            state: the training state; its frozen parameters are used.
            step: the number of the training step, from which the augmentation is drawn.
            batch: with "image_id", the names of its examples.
            arrays: its arrays, as a step takes them.
            epoch: of the stage, counted from 0.
            steps: of an epoch.

        Returns:
            An array [B, …] for each call of the last frozen module, and of those beside it that have no parameters.

        Raises:
            BadConfig: the first layer learns, a later layer needs what came before the last frozen one, or the outputs
                would not fit into memory.
        """
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        if not self._cut:
            self._cut, self._beside = self._last_frozen(variables, arrays)
            self._shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays["image"])
        kept, names = self._outputs[epoch % self._stage.cache], batch["image_id"]
        place = arrays["label"].sharding
        if epoch >= self._stage.cache and all(name in kept for name in names):
            rows = [kept[name] for name in names]
            return [jax.device_put(np.stack(calls), place) for calls in zip(*rows, strict=True)]
        values = self._early(variables, state.key, jnp.int32(step), arrays)
        if not any(self._outputs):
            self._check(variables, state.key, jnp.int32(step), arrays, values, steps)
        on_host = [np.asarray(value) for value in values]
        for k, name in enumerate(names):
            kept[name] = [value[k].copy() for value in on_host]
        return values

    @contextlib.contextmanager
    def replay(self, outputs: Sequence[Tree]) -> Iterator[None]:
        """Networks applied inside take `outputs` for those of the last frozen module, call by call."""
        calls = iter(outputs)

        def put(module: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            return next(calls) if self._here(context) else module(*args, **kwargs)

        with nn.intercept_methods(put):
            yield

    def images(self) -> Tree:
        """Images in a batch's shape, for a pass in which they are dead code."""
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self._shapes)

    def _here(self, context: nn.module.InterceptorContext) -> bool:
        return context.module.path in (self._cut, *self._beside) and context.method_name == "__call__"

    def _take(self, variables: Tree, key: jax.Array, step: jax.Array, arrays: Batch) -> list[Tree]:
        """The outputs of the last frozen module, for each of its calls."""
        values: list[Tree] = []

        def take(module: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            result = module(*args, **kwargs)
            if self._here(context):
                values.append(result)
            return result

        with nn.intercept_methods(take):
            self._logits(variables, key, step, arrays)
        return values

    def _logits(self, variables: Tree, key: jax.Array, step: jax.Array, arrays: Batch) -> Tree:
        """What the network gives in a training step on the loss's own, augmented input."""
        augment_key, dropout_key = step_keys(key, step)
        apply = in_training(self._model, variables, stages.frozen_statistics(self._stage), dropout_key)
        logits: list[Tree] = []

        def network(*args: Any, **kwargs: Any) -> Any:
            result = apply(*args, **kwargs)
            logits.append(result[0][0])
            return result

        self._loss(arrays, augment_key)(network)
        return logits

    def _last_frozen(self, variables: Tree, arrays: Batch) -> tuple[Path, set[Path]]:
        """The last of the modules, in the order of their calls, before the first that learns or moves statistics.

        Modules are a network's parts of the second level, such as trunk/block4. With it come the parts of the first
        level that have no parameters and read the images before the first of them.
        """
        order: dict[Path, None] = {}
        beside: set[Path] = set()

        def note(module: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            path = context.module.path
            if len(path) == 2 and context.method_name == "__call__":
                order.setdefault(path)
            elif len(path) == 1 and path[0] not in variables["params"] and not order:
                beside.add(path)
            return module(*args, **kwargs)

        with nn.intercept_methods(note):
            jax.eval_shape(
                self._logits, variables, jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct((), jnp.int32),
                arrays,
            )  # fmt: skip
        rates = dict(
            zip(stages.paths(variables["params"]), jax.tree.leaves(stages.labels(self._stage, variables["params"])),
                strict=True)
        )  # fmt: skip
        fixed = stages.frozen_statistics(self._stage)
        last: Path = ()
        for path in order:
            below = "/".join(path) + "/"
            moving = [name for name in stages.paths(variables["batch_stats"]) if name.startswith(below)]
            if any(rate != "freeze" for name, rate in rates.items() if name.startswith(below)):
                break
            if not all(fixed(name.rpartition("/")[0]) for name in moving):
                break
            last = path
        if not last:
            raise BadConfig(
                f"config.stages.{self._stage.key}.cache keeps the outputs of the first layers while they are frozen, "
                f"but {'/'.join(next(iter(order)))} learns or moves its statistics; freeze it, or write cache=0."
            )
        return last, beside

    def _check(
        self, variables: Tree, key: jax.Array, step: jax.Array, arrays: Batch, values: list[Tree], steps: int
    ) -> None:
        """Refuse a network that is another one with kept outputs, and outputs that do not fit into memory."""
        where = f"config.stages.{self._stage.key}.cache"

        def late(values: list[Tree]) -> Tree:
            with self.replay(values):
                return self._logits(variables, key, step, arrays | {"image": self.images()})

        with_images = jax.jit(partial(self._logits, variables))(key, step, arrays)
        for ours, theirs in zip(jax.jit(late)(values), with_images, strict=True):
            for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
                if np.abs(a - b).max() > TOLERANCE * max(1.0, float(np.abs(b).max())):
                    raise BadConfig(
                        f"{where}: a layer after {'/'.join(self._cut)} needs more than its output, which is all that is"
                        " kept; write cache=0."
                    )
        size = sum(value.nbytes for value in values) * steps * self._stage.cache
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size > MEMORY * memory:
            raise BadConfig(
                f"{where}={self._stage.cache} would keep {size / 1e9:.1f} GB of outputs of {'/'.join(self._cut)}, more "
                f"than half of this machine's {memory / 1e9:.0f} GB; lower it, or write cache=0."
            )
        print(
            f"{self._stage.name}: the outputs of {'/'.join(self._cut)}, the last frozen layer, are kept for "
            f"{self._stage.cache} epochs, {size / 1e9:.2f} GB",
            flush=True,
        )
