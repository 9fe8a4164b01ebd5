"""EfficientNet-B0 and B3: sizes, paddings, stochastic depth, the published names of their layers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from mammojax.models import convnext, weights
from mammojax.models.convnext import ConvNeXt
from mammojax.models.efficientnet import EfficientNet, InvertedBottleneck
from mammojax.models.layers import depthwise, paddings, stochastic_depth, swish
from mammojax.models.trunk_names import name_of
from mammojax.models.weights import PretrainedMismatch
from tests.random_variables import random_variables


def trunk_of(name: str, width: int = 0) -> Any:
    family, _, variant = name.partition("_")
    if family == "convnext":
        return ConvNeXt(convnext.DEPTHS[variant], width or convnext.WIDTHS[variant])
    return EfficientNet(variant, width or {"b0": 32, "b3": 40}[variant])


def shapes(trunk: Any) -> dict[str, Any]:
    return jax.eval_shape(trunk.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))


def as_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim)))


def file_of(trunk: str, dialect: str, path: Path, width: int = 8) -> dict[str, Any]:
    """Write a narrow network's random weights by the names of a code base; returns the variables."""
    variables = random_variables(trunk_of(trunk, width), jnp.zeros((1, 64, 64, 3)))
    arrays = {}
    for (_, *leaf), array in flatten_dict(variables).items():
        value = as_torch(np.asarray(array))
        if leaf[-1] == "gamma" and dialect == "torch":
            value = value[:, None, None]
        arrays[name_of(dialect, trunk, tuple(leaf))] = np.ascontiguousarray(value)
    arrays["classifier.1.weight"] = np.zeros((7, 5), np.float32)  # is passed over
    save_file(arrays, path)
    return variables


@pytest.mark.parametrize(("name", "count"), [("efficientnet_b0", 4_007_548), ("efficientnet_b3", 10_696_232)])
def test_parameter_counts(name: str, count: int) -> None:
    assert sum(x.size for x in jax.tree.leaves(shapes(trunk_of(name))["params"])) == count


# Of the names and shapes that torchvision 0.28.0, timm 1.0.31 and efficientnet-pytorch 0.7.1 give these networks'
# tensors, without their classifiers and counters.
DIGESTS = [
    ("torch", "efficientnet_b0", "9dcd1dee603e1ac3"),
    ("torch", "efficientnet_b3", "1b548011394dca66"),
    ("timm", "efficientnet_b0", "cca51a532daeff2b"),
    ("timm", "efficientnet_b3", "6bdcb2545be5c394"),
    ("lukemelas", "efficientnet_b0", "de76d5c0fa9d476b"),
    ("lukemelas", "efficientnet_b3", "b854c1efdf792626"),
    ("torch", "convnext_tiny", "8425579f31b83350"),
    ("torch", "convnext_base", "a1be9d6a3b99d21e"),
    ("timm", "convnext_tiny", "949eb6e61120b9a2"),
    ("timm", "convnext_base", "1fa99cde1c6831d2"),
]


@pytest.mark.parametrize(("dialect", "trunk", "digest"), DIGESTS)
def test_names_and_shapes_are_those_of_the_code_base(dialect: str, trunk: str, digest: str) -> None:
    rows = []
    for (_, *leaf), x in flatten_dict(shapes(trunk_of(trunk))).items():
        shape = [x.shape[k] for k in {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(x.shape), range(len(x.shape)))]
        gamma = leaf[-1] == "gamma" and dialect == "torch"
        rows.append([name_of(dialect, trunk, tuple(leaf)), [*shape, 1, 1] if gamma else shape])
    assert hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest().startswith(digest)


@pytest.mark.parametrize(
    ("trunk", "dialect", "padding"),
    [
        ("efficientnet_b0", "torch", "symmetric"),
        ("efficientnet_b3", "timm", "symmetric"),
        ("efficientnet_b0", "lukemelas", "same"),
        ("convnext_tiny", "torch", None),
        ("convnext_tiny", "timm", None),
    ],
)
def test_a_file_tells_what_it_holds_and_is_read(trunk: str, dialect: str, padding: str, tmp_path: Path) -> None:
    path = tmp_path / "efficientnet.safetensors"
    variables = file_of(trunk, dialect, path)
    fields = weights.settings(path)
    assert (fields["trunk"], fields["width"], fields.get("padding")) == (trunk, 8, padding)
    assert fields["pretrained_std"] == weights.TORCH_STD
    if padding:
        assert fields["bn_epsilon"] == {"same": 1e-3, "symmetric": 1e-5}[padding]
    empty = jax.tree.map(np.zeros_like, variables)
    loaded = weights.load(path, trunk, {kind: {"trunk": tree} for kind, tree in empty.items()})
    jax.tree.map(np.testing.assert_array_equal, {kind: tree["trunk"] for kind, tree in loaded.items()}, variables)


def test_files_that_do_not_tell_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    file_of("efficientnet_b0", "timm", tmp_path / "model.safetensors")
    with pytest.raises(PretrainedMismatch, match=r"efficientnet_… and tf_efficientnet_… networks alike"):
        weights.settings(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").rename(tmp_path / "tf_efficientnet_b0.safetensors")
    assert weights.settings(tmp_path / "tf_efficientnet_b0.safetensors")["padding"] == "same"
    b3 = {kind: {"trunk": tree} for kind, tree in shapes(trunk_of("efficientnet_b3", 8)).items()}
    with pytest.raises(PretrainedMismatch, match=r"missing: blocks\.0\.1\.bn1\.bias, .*weights of this|of another"):
        weights.load(tmp_path / "tf_efficientnet_b0.safetensors", "efficientnet_b3", b3)


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (5, 2), (7, 1)])
def test_symmetric_padding_by_slices_is_xlas_own(side: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 14, 9, 5)), rng.normal(size=(side, side, 1, 5))

    def loss(x: jax.Array, kernel: jax.Array, by_slices: bool) -> jax.Array:
        y = depthwise(x, kernel, stride, by_slices, "symmetric")
        assert y.shape == (2, -(-14 // stride), -(-9 // stride), 5)
        return (y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)).sum()

    ours, xla = (jax.value_and_grad(loss, (0, 1))(jnp.float32(x), jnp.float32(kernel), how) for how in (True, False))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, xla)


def test_paddings_differ_only_where_a_stride_leaves_a_side_over() -> None:
    assert paddings((1152, 896), 3, 2, "same") == [(0, 1), (0, 1)]
    assert paddings((36, 28), 5, 2, "same") == [(1, 2), (1, 2)]
    assert paddings((36, 28), 5, 1, "same") == paddings((36, 28), 5, 1, "symmetric") == [(2, 2), (2, 2)]
    assert paddings((36, 28), 3, 2, "symmetric") == [(1, 1), (1, 1)]


def test_stochastic_depth_keeps_the_mean_and_drops_whole_examples() -> None:
    x = jnp.ones((4000, 1, 1, 3))
    dropped = np.asarray(stochastic_depth(x, 0.25, True, lambda: jax.random.key(0)))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)}
    assert (dropped == dropped[..., :1]).all()
    assert abs(dropped.mean() - 1) < 0.03
    assert stochastic_depth(x, 0.25, False, lambda: jax.random.key(0)) is x


def test_a_block_drops_its_branch_in_training_only() -> None:
    block = InvertedBottleneck(3, 1, 2, 4, 0.9, 1e-3, jnp.float32, swish, 1, "same", drop=0.5)
    x = jax.random.normal(jax.random.key(1), (64, 5, 5, 4))
    variables = random_variables(block, x)
    kept = lambda path: True  # noqa: E731  running statistics, so that only the drop differs
    plain = block.apply(variables, x)
    trained = block.apply(variables, x, train=True, frozen=kept, rngs={"dropout": jax.random.key(2)})
    alone = np.asarray((trained == x).all(axis=(1, 2, 3)))
    assert 15 < alone.sum() < 49
    np.testing.assert_allclose(trained[~alone] - x[~alone], 2 * (plain - x)[~alone], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny"])
def test_bfloat16_and_the_interface_of_a_trunk(name: str) -> None:
    trunk = trunk_of(name, 8).clone(dtype=jnp.bfloat16)
    x = jnp.zeros((1, 64, 64, 3))
    variables = shapes(trunk)
    features, intermediates = jax.eval_shape(trunk.apply, variables, x)
    assert features.dtype == intermediates["stem"].dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert features.shape[1:3] == (2, 2)


def test_frozen_statistics_stay() -> None:
    block = InvertedBottleneck(3, 1, 2, 4, 0.9, 1e-3, jnp.float32, swish, 1)
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 4))
    variables = random_variables(block, x)
    _, moved = block.apply(variables, x, True, lambda path: path == "expand_bn", mutable=["batch_stats"])
    before, after = (flatten_dict(tree) for tree in (variables["batch_stats"], moved["batch_stats"]))
    assert {leaf[0] for leaf in before if np.array_equal(before[leaf], after[leaf])} == {"expand_bn"}
