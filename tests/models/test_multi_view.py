"""The multi-view networks: which view moves which prediction, what is tied, and the paper's parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mammojax.models.multi_view import MultiView, build, probabilities
from mammojax.vocabulary import LABELS, VIEWS
from tests.random_variables import random_variables

JOINS = ("view-wise", "image-wise", "breast-wise", "joint")
TINY = {"width": 2, "blocks": (1, 1, 1, 1, 1)}


def exam(seed, batch=2):
    rng = np.random.default_rng(seed)
    sizes = {"CC": (72, 50), "MLO": (80, 46)}
    return {view: rng.normal(size=(batch, *sizes[view[2:]], 1)).astype(np.float32) for view in VIEWS}


def shapes(network, channels=1):
    x = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    init = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), dict.fromkeys(VIEWS, x))
    return *init[0], init[1]["params"]


@pytest.mark.parametrize(
    ("join", "channels", "count"),
    [
        ("view-wise", 1, 6_132_592),  # the paper's two figures
        ("view-wise", 3, 6_135_728),
        ("image-wise", 1, 5_870_464),  # those of the published files
        ("image-wise", 3, 5_873_600),
    ],
)
def test_parameter_counts(join, channels, count):
    assert sum(x.size for x in jax.tree.leaves(shapes(MultiView(join), channels)[2])) == count


@pytest.mark.parametrize("join", JOINS)
def test_there_are_1024_hidden_activations(join):
    intermediates = shapes(MultiView(join))[1]
    assert sum(x.shape[-1] for name, x in intermediates.items() if name.endswith("/hidden")) == 1024
    assert sum(x.shape[-1] for name, x in intermediates.items() if name.endswith("/features")) == 1024


@pytest.fixture(scope="module", params=JOINS)
def network(request):
    """A tiny network's join, and its predictions of exam 0 with chosen views taken from exam 1."""
    model = MultiView(request.param, **TINY)
    images, other = exam(0), exam(1)
    variables = random_variables(model, images)
    apply = jax.jit(lambda images: model.apply(variables, images)[0])
    return request.param, lambda *views: apply(images | {view: other[view] for view in views})


def test_a_view_moves_the_predictions_of_its_branch_alone(network):
    join, predict = network
    before = predict()
    for view in VIEWS:
        after = predict(view)
        moved = {
            (half, label)
            for half in before
            for row, label in enumerate(LABELS)
            if not np.array_equal(before[half][:, row], after[half][:, row])
        }
        side, angle = ("left", "right")[view[0] == "R"], view[2:]
        expected = {
            "view-wise": {(angle, label) for label in LABELS},
            "image-wise": {(angle, label) for label in LABELS if label.startswith(side)},
            "breast-wise": {("CC+MLO", label) for label in LABELS if label.startswith(side)},
            "joint": {("CC+MLO", label) for label in LABELS},
        }
        assert moved == expected[join]


@pytest.mark.parametrize(("tie", "columns"), [("sides", {"column_CC", "column_MLO"}), ("all", {"column"})])
def test_tied_columns_are_one(tie, columns):
    model, image = MultiView(tie=tie, **TINY), exam(0)["L-CC"]
    images = dict.fromkeys(VIEWS, image)
    variables = random_variables(model, images)
    assert {name for name in variables["params"] if name.startswith("column")} == columns
    intermediates = jax.jit(model.apply)(variables, images)[1]
    np.testing.assert_array_equal(intermediates["L-CC/features"], intermediates["R-CC/features"])
    np.testing.assert_array_equal(intermediates["L-MLO/features"], intermediates["R-MLO/features"])
    assert np.array_equal(intermediates["L-CC/features"], intermediates["L-MLO/features"]) == (tie == "all")


def test_one_angle_alone_and_an_absent_half():
    images = exam(0)
    mlo = {view: images[view] for view in VIEWS if view.endswith("MLO")}
    alone = MultiView(angles=("MLO",), **TINY)
    alone_predictions, _ = jax.jit(alone.apply)(random_variables(alone, images), mlo)
    assert set(alone_predictions) == {"MLO"}

    whole = MultiView(**TINY)
    variables = random_variables(whole, images)
    apply = jax.jit(whole.apply)
    predictions, partial = apply(variables, images)[0], apply(variables, mlo)[0]
    assert set(partial) == {"MLO"}
    np.testing.assert_allclose(partial["MLO"], predictions["MLO"], atol=1e-5)
    for views, network in [({"L-CC"}, whole), (set(mlo), MultiView("joint", **TINY)), ({"R-CC", *mlo}, whole)]:
        absent = "L-CC, R-CC" if network is not whole else "R-CC" if "L-CC" in views else "L-CC"
        with pytest.raises(ValueError, match=f"needs the views? {absent};"):
            network.apply(variables, {view: images[view] for view in views})


def test_birads_has_three_classes_and_the_cancer_networks_columns():
    predictions, _, params = shapes(MultiView(target="birads"))
    assert {half: x.shape for half, x in predictions.items()} == {"CC": (1, 1, 3), "MLO": (1, 1, 3)}
    cancer = shapes(MultiView())[2]
    for column in ("column_CC", "column_MLO"):
        assert jax.tree.map(jnp.shape, params[column]) == jax.tree.map(jnp.shape, cancer[column])


def test_probabilities_not_logits_are_averaged():
    logits = {"CC": jnp.array([[[0.0, 3.0]]]), "MLO": jnp.array([[[1.0, 0.0]]])}
    p = 0.5 / (1 + np.exp(-3)) + 0.5 / (1 + np.exp(1))
    np.testing.assert_allclose(probabilities(logits), [[[1 - p, p]]], rtol=1e-6)


def test_noise_is_added_in_training_alone():
    model, images = MultiView(**TINY), exam(0)
    variables = random_variables(model, images)

    @jax.jit
    def train(key):
        (predictions, _), _ = model.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
        return predictions["CC"]

    assert not np.array_equal(train(jax.random.key(0)), train(jax.random.key(1)))
    apply = jax.jit(lambda: model.apply(variables, images)[0]["CC"])  # without noise it needs no key
    assert np.isfinite(apply()).all()


def config(**changes):
    fields = {"join": "view-wise", "angles": ("CC", "MLO"), "tie": "sides", "target": "cancer", "padding": "paper"}
    return ConfigDict({**fields, **TINY, "noise": 0.01, "dtype": "float32", **changes})


def test_build():
    assert build(config(join="joint", padding="code")) == MultiView("joint", padding="code", **TINY)


@pytest.mark.parametrize(
    "changes",
    [
        {"join": "side-wise"},
        {"angles": ("MLO", "CC")},
        {"tie": "none"},
        {"padding": "same"},
        {"blocks": (1, 1)},
        {"join": "joint", "angles": ("CC",)},
        {"join": "image-wise", "target": "birads"},
    ],
)
def test_a_bad_field_is_named(changes):
    with pytest.raises(ValueError, match=rf"^model\.({'|'.join(changes)})="):
        build(config(**changes))
