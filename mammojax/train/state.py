"""The state that a training step carries from one batch to the next, and its start."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mammojax.errors import BadCheckpoint
from mammojax.models.convnext import LAYER_SCALE
from mammojax.models.layers import Frozen
from mammojax.train.checkpoint import differences

Tree = Any


@flax.struct.dataclass
class TrainState:
    """Parameters, statistics, optimizer moments and the random key.

    Attributes:
        step: int32 scalar, steps done in the whole run.
        params: float32 tree.
        batch_stats: float32 tree, {} for a network without BatchNorm.
        opt_state: the optimizer's, of the current stage (its shape changes at a stage boundary).
        key: uint32 [2], raw threefry key; step k of the run uses fold_in(key, k), so a resumed run draws the same.
    """

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree
    key: jax.Array


def step_keys(key: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The random keys of augmentation and of dropout in one step; `key` is a state's, uint32 [2]."""
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key), step))
    return augment_key, dropout_key


def in_training(
    model: nn.Module, variables: dict[str, Tree], frozen: Frozen, dropout_key: jax.Array
) -> Callable[..., Any]:
    """A network in training with its variables bound: images → ((logits, intermediates), updated variables)."""
    return partial(
        model.apply, variables, train=True, frozen=frozen, mutable=["batch_stats"], rngs={"dropout": dropout_key}
    )


Size = tuple[int, int] | dict[str, tuple[int, int]]
"""(height, width) of a network's images, or of each view by its name."""


def abstract_variables(model: nn.Module, size: Size, channels: int) -> dict[str, Tree]:
    """Shapes and dtypes of a network's variables for images [1, H, W, channels]; nothing is computed."""

    def image(height_width: tuple[int, int]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *height_width, channels), jnp.float32)

    inputs = (
        {view: image(height_width) for view, height_width in size.items()} if isinstance(size, dict) else image(size)
    )
    return jax.eval_shape(model.init, jax.random.key(0), inputs)


def init_variables(model: nn.Module, size: Size, channels: int, seed: int) -> dict[str, Tree]:
    """Random variables {"params", "batch_stats"} of a network for images [1, H, W, channels], NumPy float32.

    Convolutions are he_normal and dense layers glorot_uniform (the published code's Keras), biases and means 0, scales
    and variances 1, ConvNeXt's layer scales 1e-6. They are drawn on the host:
    compiling `model.init` takes longer than compiling a training step.
    Each array has its own generator, seeded by the run's seed and the array's path.
    """
    shapes = abstract_variables(model, size, channels)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name, shape = str(path[-1].key), leaf.shape
        if name == "gamma":  # ConvNeXt's factors
            return np.full(shape, LAYER_SCALE, np.float32)
        if name != "kernel":
            return np.full(shape, float(name in ("scale", "var")), np.float32)
        rng = np.random.default_rng([seed, zlib.crc32(jax.tree_util.keystr(path).encode())])
        fan_in = int(np.prod(shape[:-1]))
        if len(shape) == 2:
            limit = np.sqrt(6 / (fan_in + shape[-1]))
            return rng.uniform(-limit, limit, shape).astype(np.float32)
        values = rng.standard_normal(shape, np.float32)
        while (far := np.abs(values) > 2).any():  # truncated at two sd; the truncated normal's sd is 0.8796
            values[far] = rng.standard_normal(int(far.sum()), np.float32)
        return values * np.float32(np.sqrt(2 / fan_in) / 0.87962566)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def transfer(trained: dict[str, Tree], variables: dict[str, Tree]) -> dict[str, Tree]:
    """Put trained weights into a network's variables.

    The same network takes all weights. A whole-image network takes the trunk of a patch classifier, its Dense layer as
    the head's heatmap if the head has one, and keeps the rest of its own random head (Shen et al. 2019, "Converting
    patch to whole image classifiers"). From another whole-image network it takes only the trunk. A multi-view network
    takes the columns of another and keeps its own random Dense layers; if it has heatmap channels and the other has
    none, the first convolution's kernel is repeated for them (Wu et al. 2019, section IV-C).

    Args:
        trained: {"params", "batch_stats"} of a run.
        variables: likewise, freshly initialised.

    Raises:
        BadCheckpoint: the weights fit in none of these ways; the message names the first arrays that differ.
    """
    wrong = differences(trained, variables)
    if not wrong:
        return trained
    if any(name.startswith("column") for name in variables["params"]):
        return _columns(trained, variables)
    trunk = {kind: variables[kind].get("trunk", {}) for kind in variables}
    ours = {kind: trained.get(kind, {}).get("trunk", {}) for kind in variables}
    if wrong_trunk := differences(ours, trunk):
        raise BadCheckpoint(
            f"the weights of init_from do not fit this network: {len(wrong_trunk)} arrays of the trunk differ, "
            f"the first: {wrong_trunk[0]}; train with the same config.model as that run."
        )
    started = {kind: {**tree, "trunk": ours[kind]} if "trunk" in tree else tree for kind, tree in variables.items()}
    head, dense = started["params"].get("head", {}), trained["params"].get("classifier")
    if "heatmap" in head and dense is not None and not differences(dense, head["heatmap"]):
        started["params"]["head"] = {**head, "heatmap": dense}
    return started


def _columns(trained: dict[str, Tree], variables: dict[str, Tree]) -> dict[str, Tree]:
    """The columns of one multi-view network in another's variables."""
    names = [name for name in variables["params"] if name.startswith("column")]
    taken = {kind: {name: trained[kind].get(name, {}) for name in names} for kind in variables}
    for name in names:
        stem = taken["params"][name].get("stem_conv", {}).get("kernel")
        channels = variables["params"][name]["stem_conv"]["kernel"].shape[2]
        if stem is not None and stem.shape[2] == 1 < channels:
            repeated = {"kernel": np.repeat(np.asarray(stem), channels, axis=2)}
            taken["params"][name] = {**taken["params"][name], "stem_conv": repeated}
    ours = {kind: {name: variables[kind][name] for name in names} for kind in variables}
    if wrong := differences(taken, ours):
        raise BadCheckpoint(
            f"the weights of init_from do not fit this network: {len(wrong)} arrays of its columns differ, the first: "
            f"{wrong[0]}; pretrain with the same config.model width, blocks and tie."
        )
    return {kind: {**variables[kind], **taken[kind]} for kind in variables}
