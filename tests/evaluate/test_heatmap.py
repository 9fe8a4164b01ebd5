"""The patch classifier slid over an image."""

from pathlib import Path

import numpy as np

from mammojax.evaluate import heatmap
from mammojax.evaluate.predictor import ImagePredictor
from mammojax.train.checkpoint import restore_best


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
