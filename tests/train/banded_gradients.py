"""Gradients of images split by height, in float64 on eight fake devices: python tests/train/banded_gradients.py NAME.

Prints a line for each split of the devices: images, bands, the largest difference from one device relative to the
largest gradient, and the bytes that a device needs beside its arguments.
"""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_ENABLE_X64"] = "1"

import jax
import jax.numpy as jnp

dtype_of = jnp.dtype
jnp.float32 = jnp.float64  # before the networks are defined, which name it: everything is computed in double
jnp.dtype = lambda name: dtype_of("float64" if name == "float32" else name)

import numpy as np  # noqa: E402

from mammojax.configs import exam, whole_resnet  # noqa: E402
from mammojax.models import classifiers, multi_view  # noqa: E402
from mammojax.train import mesh  # noqa: E402

HEIGHT, WIDTH = 1024, 64  # 32 rows of a trunk's last map
HEADS = {"resnet50": "8-8-16x1,8-8-16x1", "vgg16": "8x1", "efficientnet_lite0": "heatmap1,8-8-16x1"}


def main(name: str) -> None:
    """Measure a network of HEADS, or "exam", the view-wise network."""
    rng = np.random.default_rng(0)
    if name == "exam":
        model = exam.get_config("view-wise").model
        model.update(width=2, blocks=(1, 1, 1, 1, 1), noise=0.0)
        network = multi_view.build(model)
        sizes = dict.fromkeys(("L-CC", "R-CC", "L-MLO", "R-MLO"), (2048, 64))
        images = {view: rng.normal(size=(2, *size, 1)) for view, size in sizes.items()}
    else:
        model = whole_resnet.get_config(HEADS[name]).model
        model.update(trunk=name, width=4, blocks=(1, 1, 1, 1), channels=1)
        network, images = classifiers.build(model), rng.normal(size=(2, HEIGHT, WIDTH, 1))
    variables = jax.tree.map(np.asarray, jax.jit(network.init)(jax.random.key(0), images))

    def gradients(batch: int, bands: int) -> tuple[list[np.ndarray], int]:
        devices = jax.make_mesh(
            (batch, bands), ("data", "height"), axis_types=(jax.sharding.AxisType.Auto,) * 2,
            devices=jax.devices()[: batch * bands],
        )  # fmt: skip

        def loss(params: dict, images: jax.Array) -> jax.Array:
            def apply(images: jax.Array) -> tuple:
                of_network = {"params": params, "batch_stats": variables["batch_stats"]}
                return network.apply(of_network, images, train=True, mutable=["batch_stats"])[0]

            logits = jax.tree.leaves(mesh.banded(apply, devices)(images)[0])
            return sum(jnp.sum(jax.nn.log_softmax(x)[..., 1] * jnp.arange(1.0, 3.0).reshape(2, *[1] * (x.ndim - 2)))
                       for x in logits)  # fmt: skip

        whole, split = mesh.replicated(devices), jax.NamedSharding(devices, jax.P("data"))
        compiled = jax.jit(jax.grad(loss), out_shardings=whole).lower(
            *(jax.tree.map(lambda x, place=place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)
              for tree, place in ((variables["params"], whole), (images, split)))
        ).compile()  # fmt: skip
        result = compiled(jax.device_put(variables["params"], whole), jax.device_put(images, split))
        return [np.asarray(x) for x in jax.tree.leaves(result)], compiled.memory_analysis().temp_size_in_bytes

    single, _ = gradients(1, 1)
    largest = max(np.abs(x).max() for x in single)
    for batch, bands in ((1, 1), (1, 2), (2, 2), (2, 4), (1, 8)):
        banded, size = gradients(batch, bands)
        error = max(np.abs(a - b).max() for a, b in zip(banded, single, strict=True)) / largest
        print(batch, bands, error, size, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
