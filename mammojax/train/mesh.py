"""The devices a run uses: a mesh whose axis `data` splits a batch, and whose axis `height` splits each image."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AxisType
from ml_collections import ConfigDict

from mammojax.errors import BadConfig

LEAST_ROWS = 4
"""Rows of a trunk's last map that a device must have. XLA (jaxlib 0.10.2) computes wrong gradients where both axes are
split and a 5 × 5 convolution reaches beyond the neighbour's band, and of kernels where bands are of unequal height."""


def data_mesh(batch: int, bands: int = 1) -> jax.sharding.Mesh:
    """A mesh over as many of the devices as divide the batch, axis `data`.

    A batch of 2 on eight devices uses two of them: the paper's whole-image batch is small (Shen et al. 2019). With
    `bands` above 1 that many devices share each image, axis `height`: such a batch uses 2 × `bands` devices. Of several
    processes each has equally many of these devices, and rows of a batch that follow each other; an image's bands
    stay within a process.

    Raises:
        BadConfig: a process has fewer devices than bands, or there are processes that would get no part of a batch.
    """
    processes = jax.process_count()
    if batch % processes:
        raise BadConfig(
            f"a batch of {batch} cannot be shared by {processes} processes; take a multiple of {processes}, or start "
            "fewer processes."
        )
    own = [[device for device in jax.devices() if device.process_index == k] for k in range(processes)]
    least = min(len(devices) for devices in own)
    if bands < 1 or bands > least:
        raise BadConfig(f"config.bands is {bands}, but there are {least} devices to share an image; lower it.")
    each = max(n for n in range(1, least // bands + 1) if batch % (n * processes) == 0)
    devices, count = [device for of_one in own for device in of_one[: each * bands]], each * processes
    if bands == 1:
        return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    shape, axes = (count, bands), ("data", "height")
    return jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * 2, devices=devices)


def of_config(config: ConfigDict) -> jax.sharding.Mesh:
    """The mesh of a run: `data_mesh` of `config.batch` and `config.bands` (1 where a config has none); with
    `config.exact_devices` of as many devices as divide that."""
    return data_mesh(config.get("exact_devices", 0) or config.batch, config.get("bands", 1))


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """The sharding of parameters: a full copy on each device."""
    return jax.NamedSharding(mesh, jax.P())


def refuse(config: ConfigDict, sizes: Mapping[str, tuple[int, int]] | tuple[int, int], stride: int) -> None:
    """Refuse bands for which XLA's gradients are wrong, see LEAST_ROWS.

    Args:
        config: of a run.
        sizes: (height, width) of its images, or of each view.
        stride: pixels from one row of the trunk's last map to the next.

    Raises:
        BadConfig: bands are not of the same height on every map, or have fewer than LEAST_ROWS rows of the last one.
    """
    bands = config.get("bands", 1)
    if bands == 1:
        return
    for height, _ in sizes.values() if isinstance(sizes, Mapping) else [sizes]:
        if height % (stride * bands):
            lower = height // (stride * bands) * stride * bands
            raise BadConfig(
                f"config.bands={bands} does not divide images of {height} pixels into bands that are equal on every "
                f"map; take a height of {lower} or {lower + stride * bands}."
            )
        if height // stride < bands * LEAST_ROWS:
            raise BadConfig(
                f"config.bands={bands} leaves a device {height // stride // bands} of the {height // stride} rows of "
                f"the trunk's last map, and {LEAST_ROWS} are the least; take fewer bands or a greater height."
            )


def banded(network: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """A network whose images, [B, H, W, C] or such an array for each view, are split among the devices by height.

    XLA exchanges the rows that convolutions need of a neighbour's band; for the gradient of a max pool it gathers the
    map, so that the memory of VGG16 falls less. A head gets the whole feature map: its maps are too small to be split.
    Where the mesh has no axis `height` it is the network itself.

    Args:
        network: `state.in_training`'s, called inside `jax.jit`.
        mesh: of the run.
    """
    if "height" not in mesh.axis_names:
        return network
    split, whole = jax.NamedSharding(mesh, jax.P("data", "height")), jax.NamedSharding(mesh, jax.P("data"))

    def gather(module: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.module.path == ("head",) and context.method_name == "__call__":
            args = (jax.lax.with_sharding_constraint(args[0], whole), *args[1:])
        return module(*args, **kwargs)

    def of_images(images: Any, *args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(gather):
            bands = jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, split), images)
            return network(bands, *args, **kwargs)

    return of_images
