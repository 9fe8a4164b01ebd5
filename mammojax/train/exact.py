"""A training step with the same numbers, to the last bit, on any number of devices (`config.exact_devices`).

Devices that share a batch add its gradients in an order that depends on their number, so that runs drift apart by
rounding. Here a batch is cut into a fixed number of parts. Every part goes through one and the same program for one
device, and all devices add the parts' gradients in the order of the parts. Programs between these only move data.
On a CPU a convolution's sums depend on the number of threads too, even on one device: the larger one of cores and
devices, or what PJRT_NPROC says.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mammojax.train.mesh import replicated
from mammojax.train.state import step_keys

Tree = Any
DATA = jax.P("data")
OPTIONS = {"gpu": {"xla_gpu_deterministic_ops": True}}
"""Of the compiler, by backend."""


def in_parts(
    gradients_of: Callable[..., tuple[Tree, Any]],
    updated: Callable[..., tuple[Tree, jax.Array]],
    parts: int,
    options: dict[str, str],
) -> Callable[..., tuple[Tree, jax.Array]]:
    """A step in so many parts, each with augmentation, dropout and BatchNorm of its own.

    The running statistics of a learning BatchNorm become the mean of those after each part. Each device holds the
    gradients of all parts for a moment.

    Args:
        gradients_of: parameters, statistics, batch, keys of augmentation and dropout → gradients, `step.Terms`.
        updated: state, gradients, terms, labels, rate → new state, float32 [3]. The state's memory is given away.
        parts: equal ones of a batch; the number of devices divides it.
        options: of the compiler, for `gradients_of`.
    """
    deterministic = OPTIONS.get(jax.default_backend(), {})

    @functools.cache
    def programs(mesh: jax.sharding.Mesh) -> tuple[Any, Any, Any, Any]:
        each = parts // mesh.size  # on one device, one after the other
        order = np.arange(parts, dtype=np.int32).reshape(mesh.size, each)
        place = jax.NamedSharding(mesh, DATA)
        numbers = [jax.make_array_from_callback((mesh.size,), place, of.__getitem__) for of in order.T]
        shard = functools.partial(jax.shard_map, mesh=mesh, out_specs=DATA, check_vma=False)

        @jax.jit
        @functools.partial(shard, in_specs=DATA)
        def cut(batch: Tree) -> list[Tree]:
            split = jax.tree.map(lambda x: x.reshape(each, -1, *x.shape[1:]), batch)
            return [jax.tree.map(operator.itemgetter(k), split) for k in range(each)]

        @functools.partial(jax.jit, compiler_options=deterministic | options)
        @functools.partial(shard, in_specs=(jax.P(), jax.P(), jax.P(), DATA, DATA))
        def of_part(params: Tree, batch_stats: Tree, keys: Tree, batch: Tree, number: jax.Array) -> Tree:
            own = [jax.random.key_data(jax.random.fold_in(key, number[0])) for key in step_keys(*keys)]
            gradients, terms = gradients_of(params, batch_stats, batch, *map(jax.random.wrap_key_data, own))
            return jax.tree.map(lambda x: x[None], (gradients, terms, batch["label"]))

        @functools.partial(jax.jit, out_shardings=replicated(mesh))
        def in_order(results: list[Tree]) -> Tree:
            return jax.tree.map(lambda *x: jnp.stack(x, 1).reshape(parts, *x[0].shape[1:]), *results)

        return cut, of_part, in_order, numbers

    def added(x: jax.Array) -> jax.Array:
        return functools.reduce(jnp.add, [x[k] for k in range(parts)]) / parts

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=deterministic)
    def update(state: Tree, results: Tree, rate: jax.Array) -> tuple[Tree, jax.Array]:
        gradients, terms, label = results
        whole = functools.partial(jax.tree.map, lambda x: x.reshape(-1, *x.shape[2:]))
        terms = terms._replace(
            plain=whole(terms.plain), weighted=added(terms.weighted), classes=whole(terms.classes),
            batch_stats=jax.tree.map(added, terms.batch_stats),
        )  # fmt: skip
        return updated(state, jax.tree.map(added, gradients), terms, whole(label), rate)

    def step(state: Tree, batch: dict[str, Any], rate: jax.Array) -> tuple[Tree, jax.Array]:
        cut, of_part, in_order, numbers = programs(batch["label"].sharding.mesh)
        keys = (state.key, state.step)
        results = [
            of_part(state.params, state.batch_stats, keys, part, number)
            for part, number in zip(cut(batch), numbers, strict=True)
        ]
        return update(state, in_order(results), rate)

    return step
