"""The rectifier of all networks here, with the backward rule of guided back-propagation on request."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import flax.linen as nn
import jax
import jax.numpy as jnp

_GUIDED = ContextVar("guided", default=False)


@jax.custom_vjp
def _guided_relu(x: jax.Array) -> jax.Array:
    return nn.relu(x)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return nn.relu(x), x > 0


def _backward(positive: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(positive, nn.relu(gradient), 0),)


_guided_relu.defvjp(_forward, _backward)


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0). Inside `guided()` its gradient passes only where activation and gradient are both positive."""
    return _guided_relu(x) if _GUIDED.get() else nn.relu(x)


@contextlib.contextmanager
def guided() -> Iterator[None]:
    """Networks traced inside differentiate by guided back-propagation (Springenberg et al. 2015).

    It matters while a function is traced, not while it runs: enter it inside the function that is jitted.
    """
    token = _GUIDED.set(True)
    try:
        yield
    finally:
        _GUIDED.reset(token)
