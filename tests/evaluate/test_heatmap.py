"""The patch classifier slid over an image."""

from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mammojax.configs import quickstart
from mammojax.data.breast import crop
from mammojax.data.exams import View
from mammojax.evaluate import heatmap
from mammojax.evaluate.predictor import ImagePredictor
from mammojax.models import classifiers
from mammojax.train.checkpoint import restore_best
from mammojax.train.state import init_variables


def test_heatmap_equals_the_patch_net_on_a_patch(finished: Path) -> None:
    """With one patch as the image and a window as large as its features, the middle is the patch net's own output."""
    config, facts, variables = restore_best(finished / "patch")
    patch = np.random.default_rng(0).integers(0, 65536, (1, 32, 32, 1), np.uint16)
    grid = np.asarray(heatmap.heatmap(config, facts, variables, patch))
    own = ImagePredictor(config, facts, variables).predict([patch[0, ..., 0]])
    assert grid.shape == (1, 1, 1, 5)
    np.testing.assert_allclose(grid[0, 0, 0], own[0], rtol=1e-4)
    wide = {**facts, "kind": "patches_s1g", "patch_size": 16}  # s1g patches are twice as wide as they say
    tiled = np.tile(patch, (1, 2, 2, 1))
    np.testing.assert_array_equal(
        heatmap.heatmap(config, wide, variables, tiled), heatmap.heatmap(config, facts, variables, tiled)
    )
    large = np.asarray(heatmap.heatmap(config, facts, variables, np.tile(patch, (2, 3, 2, 1))))
    assert large.shape == (2, 3, 2, 5)
    np.testing.assert_allclose(large.sum(-1), 1, rtol=1e-5)


def test_with_context_a_slid_window_is_its_patch() -> None:
    """Zeros beyond a patch's border reach its features; a context as wide as VGG16 sees (212 pixels) keeps them off."""

    def distance(context: int) -> float:
        config = quickstart.get_config().patch.copy_and_resolve_references()
        config.model.update(trunk="vgg16", width=4, window=3 if context else 0)
        variables = init_variables(classifiers.build(config.model), (96, 96), config.model.channels, 0)
        facts = {"mean": 100.0, "kind": "patches_jittered", "patch_size": 96, "classes": ["a", "b", "c", "d", "e"]}
        image = np.random.default_rng(1).integers(25000, 27000, (1, 352, 352, 1), np.uint16)
        slid = np.asarray(heatmap.heatmap(config, facts, variables, image))[0, 5, 5]
        window = slice(4 * 32 - context, 7 * 32 + context)  # position 5 is in the middle
        alone = ImagePredictor(config, facts, variables).predict([image[0, window, window, 0]])[0]
        return float(np.abs(np.log(slid) - np.log(alone)).max())

    assert distance(96) < 1e-4 < 0.5 < distance(0)


def test_a_trunk_with_squeezes_sees_each_patch_alone() -> None:
    config = quickstart.get_config().patch.copy_and_resolve_references()
    config.model.update(trunk="efficientnet_b0", width=4)
    variables = init_variables(classifiers.build(config.model), (64, 64), 1, 0)
    variables["batch_stats"] = jax.tree.map(lambda x: 0.1 * x, variables["batch_stats"])  # so that the squeezes matter
    facts = {"mean": 100.0, "kind": "patches_s10", "patch_size": 64, "classes": ["a", "b", "c", "d", "e"]}
    image = np.random.default_rng(0).integers(0, 65536, (1, 160, 100, 1), np.uint16)
    image[:, 80:] //= 8
    grid = np.asarray(heatmap.heatmap(config, facts, variables, image))
    assert grid.shape == (1, 5, 4, 5)
    corners = {(0, 0): (0, 0), (2, 1): (48, 16), (4, 3): (96, 36), (1, 3): (16, 36)}  # the last ones are moved inside
    patches = [image[0, y : y + 64, x : x + 64, 0] for y, x in corners.values()]
    own = ImagePredictor(config, facts, variables).predict(patches)
    np.testing.assert_allclose([grid[0, y, x] for y, x in corners], own, rtol=1e-4, atol=1e-6)


def test_the_highest_place_of_a_heads_own_map_is_the_images_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    config = quickstart.get_config()
    config.model.update(head="heatmap2,max", width=4, blocks=(1, 1, 1, 1))
    variables = init_variables(classifiers.build(config.model), (160, 128), config.model.channels, 0)
    variables["params"]["head"]["bias"] -= 1.0
    images = np.random.default_rng(0).integers(0, 65536, (2, 160, 128, 1), np.uint16)
    facts = {"mean": 100.0}
    maps = heatmap.of_head(config, facts, variables, images)
    assert maps.shape == (2, 160, 128)
    p = ImagePredictor(config, facts, variables).score(list(images[..., 0]), "none")
    np.testing.assert_allclose(maps.max((1, 2)), p, rtol=1e-5)
    # A window of 2 x 2 positions is centred where its four squares of 32 x 32 pixels meet.
    grid = np.zeros((1, 4, 3), np.float32)
    grid[0, 2, 1] = 1
    monkeypatch.setattr(heatmap, "_places", lambda *_: lambda *_: jax.numpy.asarray(grid))
    (only,) = heatmap.of_head(config, facts, variables, images[:1])
    y, x = np.argwhere(only == only.max()).mean(0)
    assert (y + 0.5, x + 0.5) == (3 * 32, 2 * 32)
    assert [heatmap.is_map(head) for head in ("heatmap2,max", "32-32-128x1", "mine:Head")] == [True, False, False]


@pytest.mark.parametrize("faces_right", [False, True])
def test_the_heatmap_of_a_view_lies_where_it_was_seen(faces_right: bool) -> None:
    y, x = np.mgrid[:140, :100]
    pixels = np.where(np.hypot((y - 70) / 50, x / 80) < 1, 20000, 0).astype(np.uint16)
    bright = (slice(60, 70), slice(30, 40))
    pixels[bright] = 60000
    if not faces_right:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    settings = {"threshold": 0, "iterations": 3}
    inner = crop(pixels, faces_right, **settings).image(pixels)
    inner = inner if faces_right else inner[:, ::-1]
    sees = (inner > 50000).astype(np.float32)
    exam = ConfigDict({"heatmaps": ("benign", "malignant")})
    view = View((inner, np.zeros_like(sees), sees), (0, 0))
    whole = heatmap.of_view(view, exam, pixels, faces_right, settings)
    np.testing.assert_array_equal(whole, pixels > 50000)
