"""The device's affine sampling against scipy, and what random augmentation may and may not do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import ndimage

from mammojax.configs import patch_resnet
from mammojax.train import augment


def _config(**changes: object) -> ConfigDict:
    config = patch_resnet.get_config().augment
    config.update(rotation=0.0, zoom=(1.0, 1.0), flip_horizontal=False, flip_vertical=False, intensity=0.0)
    config.update(changes)
    return config


@pytest.mark.parametrize("order", ["nearest", "linear"])
def test_affine_sampling_equals_scipy(order: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (5, 23, 17, 1)).astype(np.float32)
    matrices = rng.normal(np.eye(2, 3), [[0.2, 0.2, 3.0]] * 2, (5, 2, 3)).astype(np.float32)
    ours = augment.affine_sample(images, matrices, order)
    for image, m, got in zip(images, matrices, ours, strict=True):
        expected = ndimage.affine_transform(
            image[..., 0], m[:, :2], m[:, 2], order=0 if order == "nearest" else 1, mode="nearest"
        )
        off = np.abs(np.asarray(got[..., 0]) - expected) > 1e-2
        assert off.mean() <= (0.005 if order == "nearest" else 0)  # float32 against float64 at a pixel's very border


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match='"cubic"; write "nearest" or "linear"'):
        augment.augment(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), _config(order="cubic"))


def test_flips_are_exact_and_both_occur() -> None:
    image = np.random.default_rng(0).uniform(0, 255, (6, 4)).astype(np.float32)
    images = np.repeat(image[None, :, :, None], 64, 0)
    out = np.asarray(augment.augment(jax.random.key(0), images, _config(flip_horizontal=True, flip_vertical=True)))
    variants = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    which = [[np.array_equal(o[..., 0], v) for v in variants].index(True) for o in out]
    assert set(which) == {0, 1, 2, 3}


def test_intensity_shifts_each_image_by_one_value() -> None:
    images = jnp.zeros((200, 2, 2, 1))
    out = np.asarray(augment.augment(jax.random.key(1), images, _config(intensity=20.0)))
    shifts = out[:, 0, 0, 0]
    assert (out == shifts[:, None, None, None]).all()
    assert -20 <= shifts.min() < -15
    assert 15 < shifts.max() <= 20


def test_zoom_and_rotation_stay_in_their_ranges() -> None:
    matrices = np.asarray(
        augment.random_matrices(jax.random.key(0), 500, (9, 9), _config(zoom=(0.8, 1.2), rotation=25.0))
    )
    scale = np.linalg.norm(matrices[:, :, :2], axis=1)
    assert 0.799 < scale.min() < 0.82
    assert 1.18 < scale.max() < 1.201
    angle = np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert 23 < np.abs(angle).max() <= 25.01
    np.testing.assert_allclose(matrices[:, :, :2] @ [4, 4] + matrices[:, :, 2], 4, atol=1e-4)  # the centre stays
    assert len(np.unique(scale[:, 0])) > 490  # each image draws its own
    assert (np.abs(scale[:, 0] - scale[:, 1]) > 1e-3).mean() > 0.9  # and each axis


def test_shear_zero_by_default_changes_nothing() -> None:
    images = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(augment.augment(jax.random.key(0), images, _config()), images)
    assert not np.array_equal(augment.augment(jax.random.key(0), images, _config(shear=0.2)), images)


def test_translation_moves_each_image_by_at_most_its_share() -> None:
    matrices = np.asarray(augment.random_matrices(jax.random.key(0), 500, (40, 20), _config(translation=0.25)))
    offset = matrices[..., 2]
    assert np.abs(offset[:, 0]).max() <= 10
    assert np.abs(offset[:, 1]).max() <= 5
    assert np.abs(offset).max(0) == pytest.approx([10, 5], rel=0.05)
    assert (np.asarray(augment.random_matrices(jax.random.key(0), 9, (40, 20), _config()))[..., 2] == 0).all()


def test_contrast_spreads_about_the_mean_of_each_image() -> None:
    images = jnp.arange(32.0).reshape(2, 4, 4, 1)
    still = {"rotation": 0.0, "zoom": (1.0, 1.0), "intensity": 0.0, "flip_vertical": False, "flip_horizontal": False}
    plain = augment.augment(jax.random.key(0), images, _config(**still))
    np.testing.assert_allclose(plain, images, atol=1e-4)
    changed = augment.augment(jax.random.key(0), images, _config(**still, contrast=(0.5, 2.0)))
    factors = (changed - changed.mean((1, 2, 3), keepdims=True)) / (images - images.mean((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(changed.mean((1, 2, 3)), images.mean((1, 2, 3)), rtol=1e-5)
    assert 0.5 <= float(factors.min()) <= float(factors.max()) <= 2
    assert float(np.ptp(factors[0])) < 1e-3
    assert abs(float(factors[0].mean() - factors[1].mean())) > 1e-3


def test_beyond_a_reflecting_border_the_image_is_mirrored() -> None:
    image = jnp.arange(20.0).reshape(1, 4, 5, 1)
    shifted = jnp.array([[[1.0, 0, -2], [0, 1, 3]]])  # output (r, c) shows input (r - 2, c + 3)
    expected = np.pad(np.asarray(image)[0, ..., 0], 3, mode="symmetric")[1:5, 6:11]
    for order in ("nearest", "linear"):
        np.testing.assert_allclose(augment.affine_sample(image, shifted, order, "reflect")[0, ..., 0], expected)
    with pytest.raises(ValueError, match=r"config\.augment\.border"):
        augment.affine_sample(image, shifted, "linear", "wrap")


def test_saturated_intensities_stay_on_the_scale() -> None:
    config = _config(intensity=51.0, saturate=True)
    images = jnp.stack([jnp.zeros((6, 6, 1)), jnp.full((6, 6, 1), 255.0)] * 8)
    inside = augment.augment(jax.random.key(0), images, config)
    assert (float(inside.min()), float(inside.max())) == (0.0, 255.0)
    assert float(inside[1::2].min()) < 255 - 10
    config.saturate = False
    assert float(augment.augment(jax.random.key(0), images, config).max()) > 255
