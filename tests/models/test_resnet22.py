"""The ResNet-22 column: the paper's map sizes and the code's, its padding, its BatchNorms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mammojax.models.resnet22 import ResNet22
from tests.random_variables import random_variables

STAGES = ("stem_conv", "stem", "stage1", "stage2", "stage3", "stage4", "stage5", "final")
TINY = {"width": 2, "blocks": (1, 1, 1, 1, 1)}

# Wu et al. 2019, Table II, and the published code's sizes (docs/reproduce.md), after each of STAGES.
SIZES = {
    ("paper", 2677, 1942): "1339×971 670×486 670×486 335×243 168×122 84×61 42×31 42×31",
    ("paper", 2974, 1748): "1487×874 744×437 744×437 372×219 186×110 93×55 47×28 47×28",
    ("code", 2677, 1942): "1336×968 667×483 667×483 334×242 167×121 84×61 42×31 42×31",
    ("code", 2974, 1748): "1484×871 741×435 741×435 371×218 186×109 93×55 47×28 47×28",
}


@pytest.mark.parametrize("case", SIZES)
def test_map_sizes(case):
    padding, height, width = case
    column = ResNet22(padding=padding)
    x = jax.ShapeDtypeStruct((1, height, width, 1), jnp.float32)
    (features, intermediates), _ = jax.eval_shape(lambda x: column.init_with_output(jax.random.key(0), x), x)
    assert features.shape == (1, 256)
    assert " ".join("{}×{}".format(*intermediates[name].shape[1:3]) for name in STAGES) == SIZES[case]
    assert [intermediates[name].shape[3] for name in STAGES] == [16, 16, 16, 32, 64, 128, 256, 256]


def test_the_papers_padding_is_zeros_for_the_convolution_and_nothing_for_the_pool():
    x = np.random.default_rng(0).normal(size=(1, 62, 53, 1)).astype(np.float32)
    paper, code = (ResNet22(**TINY | {"width": 8}, padding=padding) for padding in ("paper", "code"))
    variables = random_variables(paper, x)
    intermediates = {}
    for column, image in ((paper, x), (code, np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0))))):
        apply = jax.jit(lambda x, column=column: [column.apply(variables, x)[1][name] for name in STAGES[:2]])
        intermediates[column.padding] = [np.asarray(value) for value in apply(image)]
    conv, pooled = intermediates["paper"]
    np.testing.assert_allclose(conv, intermediates["code"][0], atol=1e-5)
    # The pool's first row is the maximum of the convolution's first two, even where that is negative.
    first = np.maximum(conv[0, 0], conv[0, 1])
    expected = np.stack([first[max(2 * i - 1, 0) : 2 * i + 2].max(axis=0) for i in range(pooled.shape[2])])
    assert (expected < 0).any()
    np.testing.assert_array_equal(pooled[0, 0], expected)
    assert pooled.shape[1] == intermediates["code"][1].shape[1] + 1


def test_only_unfrozen_running_statistics_move():
    column = ResNet22(**TINY)
    x = np.random.default_rng(0).normal(size=(2, 64, 48, 1)).astype(np.float32)
    variables = random_variables(column, x)
    paths = []

    def frozen(path):
        paths.append(path)
        return path.startswith(("stage1_", "stage2_"))

    _, moved = column.apply(variables, x, train=True, frozen=frozen, mutable=["batch_stats"])
    assert len(set(paths)) == 11
    same = jax.tree.map(lambda a, b: bool((a == b).all()), variables["batch_stats"], moved["batch_stats"])
    assert all(jax.tree.leaves([same["stage1_unit1"], same["stage2_unit1"]]))
    assert not any(jax.tree.leaves([same["stage3_unit1"], same["final_bn"]]))


def test_bfloat16_keeps_float32_parameters_and_features():
    column = ResNet22(**TINY, dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    (features, intermediates), variables = jax.eval_shape(lambda x: column.init_with_output(jax.random.key(0), x), x)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert {x.dtype for x in intermediates.values()} == {jnp.dtype("bfloat16")}
    assert features.dtype == jnp.float32
