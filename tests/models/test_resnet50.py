"""The ResNet50 trunk: it slides, its 1×1 convolution is a convolution, and its frozen BatchNorms hold still."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammojax.models.classifiers import PatchClassifier
from mammojax.models.resnet50 import Conv1x1, ResNet50


@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
def test_features_on_a_large_image_equal_those_on_the_patch(stride_on):
    # One unit a stage: a feature then sees 131 pixels (stride on the 3×3: 116 or less), so the middle of a 7×7 map
    # of a 224² patch sees no padding.
    trunk = ResNet50(width=8, blocks=(1, 1, 1, 1), stride_on=stride_on)
    image = np.random.default_rng(0).normal(0, 40, (1, 352, 416, 3)).astype(np.float32)
    variables = trunk.init(jax.random.key(0), image[:, :224, :224])
    apply = jax.jit(lambda x: trunk.apply(variables, x)[0])
    whole = np.asarray(apply(image))
    assert whole.shape == (1, 11, 13, 256)
    for row, column in ((0, 0), (2, 3), (4, 6)):
        patch = apply(image[:, 32 * row :, 32 * column :][:, :224, :224])
        inner = np.s_[:, 3:5, 3:5]
        np.testing.assert_allclose(patch[inner], whole[:, row:, column:][inner], rtol=1e-4, atol=1e-4 * whole.max())
    assert whole.std() > 0


@pytest.mark.parametrize("stride", [1, 2])
def test_conv1x1_is_a_convolution_with_the_same_parameters(stride):
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 5)).astype(np.float32)
    ours, plain = Conv1x1(7, stride), nn.Conv(7, (1, 1), strides=stride)
    variables = plain.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)
    np.testing.assert_allclose(ours.apply(variables, x), plain.apply(variables, x), atol=1e-5)


def test_only_unfrozen_running_statistics_move():
    model = PatchClassifier(ResNet50(width=4, blocks=(1, 1, 1, 1)))
    x = np.random.default_rng(0).normal(10, 3, (2, 64, 64, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    paths = []

    def frozen(path):
        paths.append(path)
        return path.startswith(("trunk/stem", "trunk/stage1_"))

    _, moved = model.apply(variables, x, train=True, frozen=frozen, mutable=["batch_stats"])
    before, after = variables["batch_stats"]["trunk"], moved["batch_stats"]["trunk"]
    assert {"trunk/stem_bn", "trunk/stage4_unit1/bn3", "trunk/stage4_unit1/shortcut_bn"} < set(paths)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
    assert all(jax.tree.leaves([same["stem_bn"], same["stage1_unit1"]]))
    assert not any(jax.tree.leaves([same["stage2_unit1"], same["stage4_unit1"]]))


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters_and_logits():
    model = PatchClassifier(ResNet50(width=4, blocks=(1, 1, 1, 1), dtype=jnp.bfloat16))
    variables, (logits, intermediates) = jax.eval_shape(
        lambda x: (model.init(jax.random.key(0), x), model.init_with_output(jax.random.key(0), x)[0]),
        jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32),
    )
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert logits.dtype == jnp.float32
    assert {intermediates[name].dtype for name in ("stem", "stage1", "stage4", "features")} == {jnp.dtype("bfloat16")}
