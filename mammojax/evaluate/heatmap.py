"""A patch classifier slid over whole images, as a heatmap of its classes.

Shen et al. 2019, Fig. 4d: the trunk runs once over the image. Wu et al. 2019, section IV-B: the network runs patch by
patch, and the heatmaps become further channels of the image.
"""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from tqdm import tqdm

from mammojax import extension
from mammojax.data import exams, sliding
from mammojax.data.breast import crop
from mammojax.data.dataset import Prepared
from mammojax.data.recipe import patch_side
from mammojax.errors import BadCheckpoint, BadConfig
from mammojax.models import classifiers
from mammojax.models.head import parse_head
from mammojax.train.checkpoint import restore_best
from mammojax.vocabulary import FINDINGS, MALIGNANT_PATCHES

Tree = Any
BATCH = 32  # patches at a time
STRIDE = sliding.CELL
_apply = cache(classifiers.make_apply)


@cache
def _slide(model: nn.Module, mean: float, channels: int, window: int, normalise: str) -> Any:
    @jax.jit
    def slide(variables: Tree, images: jax.Array) -> jax.Array:
        def apply(module: nn.Module, x: jax.Array) -> jax.Array:
            features, _ = module.trunk(x)
            height, width = features.shape[1:3]
            shape = (min(window, height), min(window, width))
            padding = [(side // 2, side // 2) for side in shape]
            pooled = nn.avg_pool(
                features.astype(jnp.float32), shape, strides=(1, 1), padding=padding, count_include_pad=False
            )
            dense = variables["params"]["classifier"]
            probability = jax.nn.softmax(pooled @ dense["kernel"] + dense["bias"][None, None, None, :], axis=-1)
            # Windows of an even side lie between positions: a position takes the mean of those on both sides of it.
            return nn.avg_pool(probability, (2 - shape[0] % 2, 2 - shape[1] % 2), strides=(1, 1))

        return nn.apply(apply, model)(variables, classifiers.as_input(images, mean, channels, normalise))

    return slide


def heatmap(
    config: ml_collections.ConfigDict, facts: dict[str, Any], variables: Tree, images: jax.Array | np.ndarray
) -> jax.Array:
    """Softmax of the patch classes at every position of the trunk's grid.

    The trunk runs once over the image; its features are averaged over a window of a patch's own feature map (7 × 7 for
    224 pixels; s1g patches are twice as wide), stride 1, and passed to the patch network's Dense layer. A trunk of
    `classifiers.SQUEEZED` runs over each patch of the image on its own, which takes tens of times as long: over the
    whole image its squeezes would take another mean than the one that they learned with.

    Args:
        config, facts, variables: of a patch run (`restore_best`).
        images: uint16 [B, H, W, 1].

    Returns:
        float32 [B, h, w, 5], h = H / 32 for the paper's trunks; the classes of vocabulary.PATCH_CLASSES.
    """
    model = config.model
    side = patch_side(facts["kind"], facts["patch_size"])
    window = model.get("window", 0) or max(1, side // 32)
    network, normalise = classifiers.build(model), model.get("normalise", "mean")
    if model.trunk in classifiers.SQUEEZED:
        classify = _apply(network, facts["mean"], model.channels, normalise)
        return jnp.stack([_patch_by_patch(partial(classify, variables), np.asarray(x), side) for x in images])
    return _slide(network, facts["mean"], model.channels, window, normalise)(variables, images)


def _patch_by_patch(classify: Callable[[np.ndarray], jax.Array], image: np.ndarray, side: int) -> jax.Array:
    """The classes of the patches around the centres of the squares of STRIDE pixels, a row of the grid at a time.

    Args:
        classify: uint16 [B, side, side, 1] → [B, classes].
        image: uint16 [H, W, 1].
        side: of a patch; one at the border is moved inside, and an image that is smaller is a patch.

    Returns:
        float32 [H / STRIDE, W / STRIDE, classes], rounded up.
    """
    starts = [np.clip(np.arange(STRIDE // 2, n + STRIDE // 2, STRIDE) - side // 2, 0, max(0, n - side))
              for n in image.shape[:2]]  # fmt: skip
    return jnp.stack([
        classify(np.stack([image[y : y + side, x : x + side] for x in starts[1]])) for y in starts[0]
    ])  # fmt: skip


def is_map(head: str) -> bool:
    """Whether a head such as "heatmap4,max" is itself a heatmap of the image."""
    return not extension.named(head) and parse_head(head).maximum


def of_head(
    config: ml_collections.ConfigDict, facts: dict[str, Any], variables: Tree, images: jax.Array | np.ndarray
) -> np.ndarray:
    """The probability that a whole-image network with a head such as "heatmap4,max" gives each place of its images.

    The image's own probability is the highest of them.

    Args:
        config, facts, variables: of a whole-image run (`restore_best`) whose head `is_map`.
        images: uint16 [B, H, W, 1].

    Returns:
        float32 [B, H, W], bilinear between the windows' centres.
    """
    model, size = classifiers.build(config.model), images.shape[1:3]
    normalise = config.model.get("normalise", "mean")
    places = _places(model, facts["mean"], config.model.channels, normalise)
    maps = []
    for grid in np.asarray(places(variables, images)):
        inner = enlarge(grid, (grid.shape[0] * STRIDE, grid.shape[1] * STRIDE))
        # The windows' centres begin half a window inside the image; beyond the outermost ones their values continue.
        above, left = (max(0, n - side) // 2 for n, side in zip(size, inner.shape, strict=True))
        below, right = (max(0, n - side) for n, side in zip(size, inner.shape, strict=True))
        maps.append(cv2.copyMakeBorder(inner, above, below, left, right, cv2.BORDER_REPLICATE)[: size[0], : size[1]])
    return np.stack(maps)


@cache
def _places(model: nn.Module, mean: float, channels: int, normalise: str) -> Any:
    @jax.jit
    def places(variables: Tree, images: jax.Array) -> jax.Array:
        _, intermediates = model.apply(variables, classifiers.as_input(images, mean, channels, normalise))
        head = variables["params"]["head"]
        return jax.nn.sigmoid(intermediates["head/heatmap"] * head["scale"][0] + head["bias"][0])

    return places


def enlarge(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A heatmap [h, w] as float32 [height, width] of `size`, bilinear.

    A value of the grid belongs to the patch whose centre is the centre of the value's square of 32 × 32 pixels.
    """
    return cv2.resize(np.asarray(grid, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def malignant(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The probability of a malignant lesion of either kind, float32 `size`, of a heatmap [h, w, 5]."""
    return enlarge(grid[..., list(MALIGNANT_PATCHES)].sum(-1), size)


class PatchNet:
    """A patch classifier of exams, slid over an image.

    Attributes:
        config: of its run.
        digest: of its weights, 16 letters; a network trained on its heatmaps needs the same patch network.

    Args:
        run: its run folder.

    Raises:
        BadCheckpoint: the run is not a patch classifier of exams.
    """

    def __init__(self, run: Path) -> None:
        self.config, _, variables = restore_best(run)
        if self.config.model.task != "exam_patch":
            raise BadCheckpoint(f'"{run}" is no patch network for heatmaps; train one, or `mammojax convert nyu` one.')
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(variables)]
        self.digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()[:16]
        network, channels = classifiers.build(self.config.model), self.config.model.channels

        @jax.jit
        def classify(patches: jax.Array) -> jax.Array:
            logits, _ = network.apply(variables, jnp.repeat(patches[..., None], channels, axis=-1))
            return jax.nn.softmax(logits)[:, : len(FINDINGS)]

        @partial(jax.jit, static_argnums=1)
        def classify_all(image: jax.Array, side: int) -> jax.Array:
            def apply(module: nn.Module, x: jax.Array) -> jax.Array:
                pooled = nn.avg_pool(module.trunk(x)[0].astype(jnp.float32), (side, side), strides=(1, 1))
                last = variables["params"]["classifier"]
                return jax.nn.softmax(pooled @ last["kernel"] + last["bias"][None, None, None])[0, ..., : len(FINDINGS)]

            y: jax.Array = nn.apply(apply, network)(variables, jnp.repeat(image[..., None], channels, axis=-1))
            return y

        self._classify, self._classify_all = classify, classify_all

    def heatmaps(self, pixels: np.ndarray, exam: ml_collections.ConfigDict, rng: Any = None) -> np.ndarray:
        """Probabilities of FINDINGS at each pixel, float32 [H, W, 2].

        Args:
            pixels: uint16 [H, W], cropped and facing right.
            exam: `config.exam`: patch and stride in pixels; with `dense` the trunk runs once over the image.
            rng: chooses the shorter steps as the published code does, see `sliding.starts`.

        Raises:
            BadConfig: `dense`, with a trunk whose squeezes see the whole image.
        """
        if exam.get("dense", False):
            if self.config.model.trunk in classifiers.SQUEEZED:
                raise BadConfig(f"exam.dense is not for the trunk {self.config.model.trunk}; write exam.dense=False.")
            side = exam.patch // sliding.CELL
            return sliding.dense(pixels, lambda x: self._classify_all(x, side), patch=exam.patch)
        return sliding.heatmaps(pixels, self._classify, patch=exam.patch, stride=exam.stride, batch=BATCH, rng=rng)


def of_view(
    view: exams.View, exam: ml_collections.ConfigDict, pixels: np.ndarray, faces_right: bool,
    settings: Mapping[str, Any],
) -> np.ndarray:  # fmt: skip
    """The heatmap of malignant that a view carries, on its image's own pixels: float32 [H, W], 0 outside the crop.

    Args:
        view: of `ExamPredictor.view`, with heatmaps.
        exam: `config.exam` of the network that it was made for.
        pixels, faces_right: the image, uint16 [H, W], as that function got them.
        settings: of the crop, `facts["crop"]`.
    """
    inner = view.channels[1 + list(exam.heatmaps).index("malignant")]
    top, bottom, left, right = crop(pixels, faces_right, **settings).box
    whole = np.zeros(pixels.shape, np.float32)
    whole[top:bottom, left:right] = inner if faces_right else inner[:, ::-1]
    return whole


def order(exam: ml_collections.ConfigDict) -> list[int]:
    """The index in FINDINGS of each heatmap channel: the paper lists malignant first, the published code benign."""
    return [FINDINGS.index(name) for name in exam.heatmaps]


def folder(data: Prepared, digest: str, exam: ml_collections.ConfigDict) -> Path:
    """The folder of a data set's heatmaps from the patch network of this digest, with config.exam's patches."""
    steps = "dense" if exam.get("dense", False) else f"s{exam.stride}"
    return data.path / "heatmaps" / f"{digest}_p{exam.patch}{steps}"


def channels_of(data: Prepared, config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> exams.Heatmaps | None:
    """The folder of the heatmap channels of a run's images, and their order; None for images alone.

    Args:
        data: of kind "exams".
        config, facts: of a multi-view run; "heatmaps" in `facts` is its patch network's digest.
    """
    if not facts.get("heatmaps"):
        return None
    return folder(data, facts["heatmaps"], config.exam), order(config.exam)


def write_channels(data: Prepared, net: PatchNet, exam: ml_collections.ConfigDict, threads: int = 2) -> Path:
    """Write the heatmaps of every image of a data set of exams, once; existing ones are kept.

    Args:
        data: of kind "exams".
        net: the patch network.
        exam: `config.exam`.
        threads: images at a time: the device classifies patches of one, the host reads, cuts and writes the others.

    Returns:
        Their folder, inside the data set's, for `data.exams.Images`. It is named after the patch network's weights.
    """
    target = folder(data, net.digest, exam)
    missing = []
    for split in ("train", "val", "test"):
        (target / split).mkdir(parents=True, exist_ok=True)
        paths = [target / split / f"{index}.png" for index in range(len(data.table(split)))]
        missing += [(split, index, path) for index, path in enumerate(paths) if not path.is_file()]
    images = {split: exams.Images(data, split, {}) for split in ("train", "val", "test")}

    def write(image: tuple[str, int, Path]) -> None:
        split, index, path = image
        exams.write_heatmaps(path, net.heatmaps(images[split].pixels(index), exam))

    pool = ThreadPoolExecutor(threads)
    try:
        for done in tqdm(
            as_completed([pool.submit(write, image) for image in missing]),
            total=len(missing), desc="heatmaps", unit="image", disable=None,
        ):  # fmt: skip
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return target
