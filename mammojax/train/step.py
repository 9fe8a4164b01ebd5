"""One training step, jitted: a network's loss on a batch, its gradients, the optimizer's update."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mammojax.train import exact, stages
from mammojax.train.cache import Cache
from mammojax.train.remat import OPTIONS, rematerialised
from mammojax.train.state import TrainState, in_training, step_keys

Tree = Any
ARRAYS = ("image", "label", "patch_image", "patch_label")
"""The arrays of a batch that a step takes."""


class Terms(NamedTuple):
    """A loss's values beside the scalar that is minimised.

    Attributes:
        plain: float32 [B], the loss of each example, neither weighted nor with an auxiliary part: the loss that
            validation reports.
        weighted: float32 scalar, their mean, weighted to balance the classes if the config asks for that.
        classes: int, the predicted classes, in the labels' shape.
        batch_stats: the BatchNorm statistics after the pass, {} without BatchNorm.
    """

    plain: jax.Array
    weighted: jax.Array
    classes: jax.Array
    batch_stats: Tree


Network = Callable[..., tuple[tuple[Any, dict[str, jax.Array]], Tree]]
"""A network in training with its variables bound: images → ((logits, intermediates), updated variables)."""

Loss = Callable[[dict[str, jax.Array], jax.Array], Callable[[Network], tuple[jax.Array, Terms]]]
"""A task's loss: (batch, key of augmentation) → (network → (scalar to minimise, Terms))."""


def make_step(
    model: nn.Module, tx: optax.GradientTransformation, stage: stages.Stage, loss: Loss, cache: Cache | None = None,
    *, remat: bool = False, accumulate: int = 1, exact_devices: int = 0,
) -> Callable[..., tuple[TrainState, jax.Array]]:  # fmt: skip
    """One jitted step of a stage.

    The step takes the state, a batch (ARRAYS, as the task's loss takes them; with a cache "kept" in place of "image")
    and the learning rate (data, not code: all rates share one compiled program). It returns the new state and
    float32 [3]: the mean plain loss, the share of correct labels, and the weighted loss; see `Terms`. The statistics of
    learning BatchNorms are those of the whole batch, whatever the number of devices: under jit the mean over the
    sharded axis is global. The new state takes the memory of the old one.

    With `remat` blocks are computed once more in the backward pass (`remat.rematerialised`). With `accumulate` the
    batch goes through the network in so many parts, one after the other, and the update is that of the mean of their
    gradients. Where all BatchNorms keep their running statistics and the loss is a plain mean of its examples, this
    is the gradient of the whole batch; else it is not: a learning BatchNorm normalises each part by its own
    statistics and its running ones move once a part, and classes are balanced within a part. Each part draws its own
    augmentation and dropout. With `exact_devices` above 0 the batch has so many parts too, which devices share, and
    the step is the same to the last bit on any number of devices that divides it, see `exact.in_parts`; without a
    cache and `accumulate`.
    """
    frozen = stages.frozen_statistics(stage)
    options = OPTIONS.get(jax.default_backend(), {}) if remat else {}

    def gradients_of(
        params: Tree, batch_stats: Tree, batch: dict[str, Any], augment_key: jax.Array, dropout_key: jax.Array
    ) -> tuple[Tree, Terms]:
        kept = cache.replay(batch["kept"]) if cache else contextlib.nullcontext()
        loss_of_network = loss(batch | {"image": cache.images()} if cache else batch, augment_key)

        def loss_of_params(params: Tree) -> tuple[jax.Array, Terms]:
            variables = {"params": params, "batch_stats": batch_stats}
            return loss_of_network(in_training(model, variables, frozen, dropout_key))

        with rematerialised() if remat else contextlib.nullcontext(), kept:
            (_, terms), gradients = jax.value_and_grad(loss_of_params, has_aux=True)(params)
        return gradients, terms

    def accumulated(
        params: Tree, batch_stats: Tree, batch: dict[str, Any], augment_key: jax.Array, dropout_key: jax.Array
    ) -> tuple[Tree, Terms]:
        def parts(x: jax.Array) -> jax.Array:  # every device keeps its own examples
            return jnp.swapaxes(x.reshape(len(x) // accumulate, accumulate, *x.shape[1:]), 0, 1)

        def whole(x: jax.Array) -> jax.Array:
            return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])

        def add(carried: tuple[Tree, Tree], part: tuple[jax.Array, Tree]) -> tuple[tuple[Tree, Tree], Terms]:
            (total, statistics), (k, own) = carried, part
            keys = (jax.random.fold_in(key, k) for key in (augment_key, dropout_key))
            gradients, terms = gradients_of(params, statistics, own, *keys)
            moved = terms.batch_stats or statistics
            return (jax.tree.map(jnp.add, total, gradients), moved), terms._replace(batch_stats={})

        start = (jax.tree.map(jnp.zeros_like, params), batch_stats)
        (total, moved), terms = jax.lax.scan(add, start, (jnp.arange(accumulate), jax.tree.map(parts, batch)))
        gradients = jax.tree.map(lambda x: x / accumulate, total)
        return gradients, Terms(whole(terms.plain), terms.weighted.mean(), whole(terms.classes), moved)

    def updated(
        state: TrainState, gradients: Tree, terms: Terms, label: jax.Array, rate: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        correct = jnp.mean(terms.classes == label, dtype=jnp.float32)
        state = TrainState(state.step + 1, params, terms.batch_stats or state.batch_stats, opt_state, state.key)
        return state, jnp.stack([terms.plain.mean(), correct, terms.weighted])

    @partial(jax.jit, donate_argnums=0, compiler_options=options)
    def step(state: TrainState, batch: dict[str, Any], rate: jax.Array) -> tuple[TrainState, jax.Array]:
        augment_key, dropout_key = step_keys(state.key, state.step)
        take = accumulated if accumulate > 1 else gradients_of
        gradients, terms = take(state.params, state.batch_stats, batch, augment_key, dropout_key)
        return updated(state, gradients, terms, batch["label"], rate)

    return exact.in_parts(gradients_of, updated, exact_devices, options) if exact_devices else step
