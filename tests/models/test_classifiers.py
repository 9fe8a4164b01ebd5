"""The two classifiers: the sizes of the published networks, the head specs, the intermediates and the input scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mammojax.models.classifiers import as_input, build
from mammojax.models.head import Head, parse_head
from mammojax.train.state import transfer


def config(**fields) -> ConfigDict:
    model = ConfigDict()
    model.update(
        task="whole",
        trunk="resnet50",
        head="512-512-1024x2,512-512-1024x2",
        classes=2,
        auxiliary_classes=0,
        width=64,
        blocks=(3, 4, 6, 3),
        channels=3,
        stride_on="1x1",
        conv_bias=True,
        bn_momentum=0.99,
        bn_epsilon=1e-3,
        dropout=0.0,
        dtype="float32",
    )
    model.update(fields)
    return model


def initial(model, *shape):
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


PATCH = {"task": "patch", "classes": 5}
PUBLISHED = [  # every row of the reference's table
    ("resnet50", PATCH, 23_597_957),
    ("vgg16", PATCH, 14_717_253),
    ("resnet50", {"head": "512-512-2048x1,512-512-2048x1"}, 40_944_514),
    ("resnet50", {"head": "512-512-1024x2,512-512-1024x2"}, 40_942_466),
    ("resnet50", {"head": "256-256-256x1,128-128-128x1"}, 25_528_962),
    ("resnet50", {"head": "256x1,128x1"}, 28_603_394),
    ("vgg16", {"head": "512x3,512x3"}, 28_886_850),
    ("vgg16", {"head": "512x1,512x1"}, 19_439_426),
    ("vgg16", {"head": "256x1,128x1"}, 16_191_426),
    ("vgg16", {"head": "128x1,64x1"}, 15_379_330),
    ("vgg16", {"head": "512-512-1024x2,512-512-1024x2"}, 29_710_146),
    ("resnet50", {"head": "256-256-512x3,128-128-256x3"}, 28_415_618),
    ("resnet50", {"head": "heatmap7,pool1,fc64-32"}, 23_818_353),
    ("resnet50", {"head": "heatmap7,pool2,fc64-32"}, 23_655_003),
    ("resnet50", {"head": "heatmap7,pool5,fc64-32"}, 23_608_473),
    ("vgg16", {"head": "heatmap7,pool1,fc64-32"}, 14_937_649),
    ("vgg16", {"head": "heatmap7,pool2,fc64-32"}, 14_774_299),
    ("vgg16", {"head": "heatmap7,pool5,fc64-32"}, 14_727_769),
    ("resnet50", {"head": "heatmap7,512-512-1024x2,512-512-1024x2"}, 37_814_663),
]


@pytest.mark.parametrize(("trunk", "fields", "count"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(trunk, fields, count):
    size = (224, 224) if fields is PATCH else (1152, 896)  # the fully connected heads fit one size
    variables = initial(build(config(trunk=trunk, **fields)), 1, *size, 3)
    assert sum(x.size for x in jax.tree.leaves(variables)) == count


@pytest.mark.parametrize(("trunk", "channels"), [("resnet50", 2048), ("vgg16", 512)])
def test_stages_at_the_papers_size(trunk, channels):
    model = build(config(trunk=trunk))
    x = jax.ShapeDtypeStruct((2, 1152, 896, 3), jnp.float32)
    (logits, intermediates), variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), x)
    assert (logits.shape, logits.dtype) == ((2, 2), jnp.float32)
    assert intermediates["features"].shape == (2, 36, 28, channels)
    assert intermediates["head/block1"].shape == (2, 18, 14, 1024)
    assert intermediates["head/block2"].shape == (2, 9, 7, 1024)
    assert intermediates["head/pooled"].shape == (2, 1024)
    assert set(variables["params"]) == {"trunk", "head"}
    assert {"block1_unit1", "block2_unit2", "logits"} < set(variables["params"]["head"])


def test_the_patch_nets_trunk_fits_into_the_whole_image_net():
    narrow = {"width": 8, "blocks": (1, 1, 2, 1), "channels": 1}
    patch = initial(build(config(**PATCH, **narrow)), 1, 64, 64, 1)
    whole = initial(build(config(head="8-8-16x1", **narrow)), 1, 96, 64, 1)
    for collection in ("params", "batch_stats"):
        assert patch[collection]["trunk"] == whole[collection]["trunk"]


def test_frozen_reaches_the_head_and_a_step_differentiates():
    model = build(config(head="8-8-16x1,8x1", width=4, blocks=(1, 1, 1, 1), channels=1, dropout=0.5))
    x = np.random.default_rng(0).normal(size=(2, 128, 96, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)

    @jax.jit
    def step(params, batch_stats):
        def loss(params):
            (logits, _), moved = model.apply(
                {"params": params, "batch_stats": batch_stats},
                x,
                train=True,
                frozen=lambda path: path.startswith("head/block1"),
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )
            return jnp.square(logits).sum(), moved["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    gradient, moved = step(variables["params"], variables["batch_stats"])
    same = jax.tree.map(lambda a, b: bool((a == b).all()), variables["batch_stats"], moved)
    assert all(jax.tree.leaves(same["head"]["block1_unit1"]))
    assert not any(jax.tree.leaves([same["head"]["block2_unit1"], same["trunk"]]))
    assert float(jnp.abs(gradient["trunk"]["stem_conv"]["kernel"]).max()) > 0


def test_head_specs():
    blocks = (((512, 512, 1024), 2), ((256,), 1))
    assert parse_head("512-512-1024x2, 256x1") == (0, False, 1, blocks, (), False)
    assert parse_head("heatmap7,512-512-1024x2,256x1") == (7, False, 1, blocks, (), False)
    assert parse_head("heatmap2softmax,pool5,fc64-32") == (2, True, 5, (), (64, 32), False)
    assert parse_head("heatmap4,max") == (4, False, 1, (), (), True)
    for spec in ("", "512", "512-512x2", "512x0", "512x1,,256x1", "[64-64-256]x2", "0x1", "heatmap7", "heatmap,8x1",
                 "pool5,8x1", "heatmap7,fc64", "heatmap7,pool0,8x1", "8x1,fc64-32", "8x1,heatmap7"):  # fmt: skip
        with pytest.raises(ValueError, match=r"model.head: .* is no block; write"):
            parse_head(spec)
    with pytest.raises(ValueError, match="on no heatmap"):
        parse_head("fc64-32")


def test_the_heatmap_is_the_patch_classifier_at_every_position():
    """On an image of a patch's size the heatmap has one position, and there it is the patch net's own answer."""
    narrow = {"width": 4, "blocks": (1, 1, 1, 1), "channels": 1}
    x = np.random.default_rng(0).normal(0, 50, size=(2, 64, 64, 1)).astype(np.float32)
    patch = build(config(**PATCH, **narrow))
    trained = patch.init(jax.random.key(0), x)
    logits, _ = patch.apply(trained, x)
    for activation, expected in (("", jax.nn.relu(logits)), ("softmax", jax.nn.softmax(logits))):
        whole = build(config(head=f"heatmap2{activation},fc8-4", **narrow))
        variables = transfer(trained, whole.init(jax.random.key(1), x))
        _, intermediates = whole.apply(variables, x)
        assert intermediates["head/heatmap"].shape == (2, 1, 1, 5)
        np.testing.assert_allclose(intermediates["head/heatmap"][:, 0, 0], expected, rtol=1e-4, atol=1e-4)


def test_the_maximum_head_starts_as_the_patch_classifier_slid_over_the_image():
    narrow = {"width": 4, "blocks": (1, 1, 1, 1), "channels": 1}
    x = np.random.default_rng(0).normal(0, 1, size=(2, 128, 96, 1)).astype(np.float32)
    patch, whole = build(config(**PATCH, **narrow)), build(config(head="heatmap2,max", **narrow))
    trained = patch.init(jax.random.key(0), x[:, :64, :64])
    fresh = whole.init(jax.random.key(1), x)
    assert {**fresh["params"]["head"]}.keys() == {"heatmap", "scale", "bias"}
    logits, intermediates = whole.apply(transfer(trained, fresh), x)
    p = jax.nn.softmax(_every_position(patch, trained, x))
    malignant = p[..., 1] + p[..., 3]
    odds = np.log(malignant / (1 - malignant))
    np.testing.assert_allclose(intermediates["head/heatmap"], odds, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(logits, np.stack([np.zeros(2), odds.max((1, 2))], axis=1), rtol=1e-3, atol=1e-4)


def test_the_maximum_head_learns_from_one_place_and_is_never_divided_by_none():
    """jnp.max shares its gradient among the places that equal it, of which a compiler may find none."""
    features = np.ones((1, 4, 5, 3), np.float32)
    head = Head("heatmap2,max")
    variables = head.init(jax.random.key(0), features)
    gradient = jax.grad(lambda x: head.apply(variables, x)[0][0, 1])(features)
    assert np.abs(gradient[0, :2, :2]).min() > 0
    assert np.count_nonzero(gradient) == 2 * 2 * 3


def test_the_maximum_head_does_not_ask_places_without_tissue():
    """Black answers the same on every image: a breast that is less suspicious would have black's score."""
    features = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    head = Head("heatmap2,max")
    variables = head.init(jax.random.key(0), features)
    tissue = np.zeros((2, 128, 160), bool)
    tissue[0, :, :96] = True  # the last two places of a row have a quarter and nothing of tissue
    logits, intermediates = head.apply(variables, features, tissue=tissue)
    free = head.apply(variables, features)[1]["heatmap"]
    np.testing.assert_array_equal(intermediates["heatmap"][0, :, :2], free[0, :, :2])
    np.testing.assert_array_equal(intermediates["heatmap"][0, :, 3], np.full(3, intermediates["heatmap"][0].min()))
    np.testing.assert_allclose(logits[0, 1], intermediates["heatmap"][0, :, :3].max(), rtol=1e-6)
    np.testing.assert_array_equal(intermediates["heatmap"][1], free[1])  # an image without tissue is asked everywhere

    narrow = {"width": 4, "blocks": (1, 1, 1, 1), "channels": 1}
    whole = build(config(head="heatmap2,max", **narrow))
    image = np.random.default_rng(1).uniform(0, 99, size=(1, 128, 128, 1)).astype(np.float32) - 50
    image[:, :, 32:] = -50  # black is the darkest value, whatever is subtracted
    result = whole.apply(whole.init(jax.random.key(0), image), image)[1]["head/heatmap"][0]
    assert np.ptp(result[:, 1:]) == 0 < np.ptp(result[:, 0])


def _every_position(patch, variables, x):
    """The patch net's logits where its pool of 2 x 2 positions lies at each place of the trunk's map."""
    features = patch.bind(variables).trunk(x)[0]
    dense = variables["params"]["classifier"]
    pooled = (features[:, :-1, :-1] + features[:, 1:, :-1] + features[:, :-1, 1:] + features[:, 1:, 1:]) / 4
    return pooled @ dense["kernel"] + dense["bias"][None, None, None]


def test_the_fully_connected_head_adds_its_shortcut():
    head = Head("heatmap1,pool2,fc8-4")
    features = np.random.default_rng(0).normal(size=(3, 4, 6, 2)).astype(np.float32)
    variables = head.init(jax.random.key(0), features)
    logits, intermediates = head.apply(variables, features)
    assert intermediates["pooled"].shape == (3, 2 * 3 * 5)
    cut = jax.tree.map(jnp.zeros_like, variables["params"]["shortcut"])
    without, _ = head.apply({**variables, "params": {**variables["params"], "shortcut": cut}}, features)
    direct = intermediates["pooled"] @ variables["params"]["shortcut"]["kernel"]
    np.testing.assert_allclose(logits, without + direct, rtol=1e-4, atol=1e-5)


def test_a_head_that_halves_the_map_to_nothing_says_so():
    with pytest.raises(ValueError, match="block 2 of '8x1,8x1' would pool a 1x1 map to nothing"):
        initial(Head("8x1,8x1"), 1, 3, 2, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trunk": "resnet51"}, "model.trunk='resnet51' is unknown; use resnet50 or vgg16"),
        ({"task": "heatmap"}, "model.task='heatmap' is unknown"),
        ({"stride_on": "2x2"}, "model.stride_on='2x2' is unknown"),
        ({"channels": 2}, "model.channels=2 is unknown"),
        ({"dtype": "float16"}, "model.dtype='float16' is unknown"),
        ({"blocks": (3, 4, 6)}, "model.blocks="),
        ({"head": "512"}, "model.head: '512'"),
    ],
)
def test_a_bad_config_is_refused_before_anything_is_built(fields, message):
    with pytest.raises(ValueError, match=message):
        build(config(**fields))


def test_as_input_scales_centres_and_repeats():
    image = np.array([0, 257, 65535], np.uint16).reshape(1, 1, 3, 1)
    x = as_input(image, mean=52.18, channels=3)
    assert (x.shape, x.dtype) == ((1, 1, 3, 3), jnp.float32)
    for channel in range(3):
        np.testing.assert_allclose(x[0, 0, :, channel], np.array([0, 1, 255]) - 52.18, rtol=1e-6)
    np.testing.assert_array_equal(as_input(image.astype(np.float32), 52.18, 1), x[..., :1])


def test_a_patch_with_context_is_averaged_in_its_middle():
    narrow = {"width": 4, "blocks": (1, 1, 1, 1), "channels": 1}
    x = np.random.default_rng(0).normal(size=(2, 160, 160, 1)).astype(np.float32)
    model = build(config(**PATCH, **narrow, window=3))
    (_, intermediates), _ = model.init_with_output(jax.random.key(0), x)
    middle = np.asarray(intermediates["features"])[:, 1:4, 1:4]
    np.testing.assert_allclose(intermediates["pooled"], middle.mean((1, 2)), rtol=1e-5)
    with pytest.raises(ValueError, match="no middle of so many positions in the 5x5"):
        build(config(**PATCH, **narrow, window=2)).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="squeezes of efficientnet_b0"):
        build(config(**PATCH, trunk="efficientnet_b0", window=3))
