"""Milliseconds per batch of augmentation: ours under jit, and scipy.ndimage image by image with the same maps.

python -m benchmarks augment [--json FILE]
"""

import time
from collections.abc import Callable

import jax
import numpy as np
from scipy import ndimage

from mammojax.configs import patch_resnet
from mammojax.train.augment import augment, random_matrices

SIZES = ((32, 64, 64), (32, 224, 224), (8, 288, 224), (2, 1152, 896))


def _milliseconds(call: Callable[[], object], repeats: int) -> float:
    """The median, after a call that compiles."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times) * 1e3)


def main(arguments: list[str]) -> list[dict]:
    """A row for each batch and order: ours, scipy (the affine map alone), the ratio of speeds."""
    del arguments
    rows = []
    for count, height, width in SIZES:
        images = np.random.default_rng(0).uniform(0, 255, (count, height, width, 1)).astype(np.float32)
        for order in ("nearest", "linear"):
            config = patch_resnet.get_config().augment
            config.order = order
            key = jax.random.key(0)
            step = jax.jit(lambda x, key=key, config=config: augment(key, x, config))
            on_device = jax.device_put(images)
            ours = _milliseconds(lambda step=step, x=on_device: step(x).block_until_ready(), 20)
            maps = np.asarray(random_matrices(key, count, (height, width), config))

            def scipy(images: np.ndarray = images, maps: np.ndarray = maps, order: str = order) -> None:
                for image, m in zip(images[..., 0], maps, strict=True):
                    ndimage.affine_transform(image, m[:, :2], m[:, 2], order=int(order == "linear"), mode="nearest")

            peer = _milliseconds(scipy, 3)
            row = {"batch": count, "height": height, "width": width, "order": order}
            rows.append(row | {"ours_ms": ours, "scipy_ms": peer, "ratio": peer / ours})
    return rows
