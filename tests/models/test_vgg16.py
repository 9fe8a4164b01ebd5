"""The VGG16 trunk: it slides, and a net on it works without BatchNorm statistics."""

import jax
import numpy as np

from mammojax.models.classifiers import PatchClassifier
from mammojax.models.vgg16 import VGG16


def test_features_on_a_large_image_equal_those_on_the_patch():
    # A feature sees 212 pixels, so the middle one of a 288² patch's 9×9 map sees no padding.
    trunk = VGG16(width=4)
    image = np.random.default_rng(0).normal(0, 40, (1, 352, 384, 3)).astype(np.float32)
    variables = trunk.init(jax.random.key(0), image[:, :288, :288])
    apply = jax.jit(lambda x: trunk.apply(variables, x)[0])
    whole = np.asarray(apply(image))
    assert whole.shape == (1, 11, 12, 32)
    patch = apply(image[:, 64:, 96:][:, :288, :288])
    np.testing.assert_allclose(patch[:, 3:6, 3:6], whole[:, 5:8, 6:9], rtol=1e-4, atol=1e-4 * whole.max())
    assert whole.std() > 0


def test_it_trains_without_batch_stats():
    model = PatchClassifier(VGG16(width=4), dropout=0.5)
    x = np.ones((2, 32, 32, 3), np.float32)
    variables = model.init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    (logits, _), updates = model.apply(
        variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)}
    )
    assert logits.shape == (2, 5)
    assert not updates
