"""The devices a run uses, as a one-axis mesh called `data`."""

import jax
from jax.sharding import AxisType


def data_mesh(batch: int) -> jax.sharding.Mesh:
    """A mesh over as many of the devices as divide the batch, axis `data`.

    A batch of 2 on eight devices uses two of them: the paper's whole-image batch is small (Shen et al. 2019).
    """
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if batch % n == 0)
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:count])


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """The sharding of parameters: a full copy on each device."""
    return jax.NamedSharding(mesh, jax.P())
