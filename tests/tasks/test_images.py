"""Classifiers of one image."""

import pytest

from mammojax.configs import film, whole_resnet
from mammojax.tasks import images


def test_a_patch_with_context_is_larger_and_the_whole_image_is_not() -> None:
    config = film.get_config()
    assert images.sizes(config.patch, config.data) == (224, 224)
    assert images.sizes(config, config.data) == (512, 288)


@pytest.mark.parametrize(("context", "window"), [(0, 3), (56, 0)])
def test_a_context_without_its_window_is_refused(context: int, window: int) -> None:
    config = film.get_config()
    config.data.context, config.patch.model.window = context, window
    with pytest.raises(ValueError, match=f"data.context={context} and model.window={window}: .* set both or neither"):
        images.sizes(config.patch, config.data)


def test_patches_beside_whole_images_have_no_context() -> None:
    config = whole_resnet.get_config()
    config.model.auxiliary_classes, config.data.context = 5, 24
    with pytest.raises(ValueError, match=r"data\.context=24: patches that are learned beside whole images"):
        images.sizes(config, config.data)
