"""The features of examples, and the TFDS builder that data sets of others inherit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mammojax.data.recipe import WITHOUT_PATCHES, Recipe


def features_of(recipe: Recipe, facts: bool = True) -> tfds.features.FeaturesDict:
    """The features of a recipe's examples, see `MammogramBuilder`; `facts` of whole images may be left out."""
    size: tuple[int | None, ...] = recipe.size if recipe.kind == "whole" else (recipe.patch_side,) * 2
    size = (None, None) if recipe.kind == "exams" else size
    features: dict[str, Any] = {
        "image": tfds.features.Image(shape=(*size, 1), dtype=np.uint16, encoding_format="png"),
        "label": tfds.features.Scalar(np.int64),
    }
    features |= {n: tfds.features.Text() for n in ("image_id", "patient_id", "exam_id", "laterality", "view")}
    if recipe.kind in WITHOUT_PATCHES:
        features["masks"] = tfds.features.Image(shape=(*size, 1), dtype=np.uint8, encoding_format="png")
    if recipe.kind == "exams" or (recipe.kind == "whole" and facts):
        features["facts"] = tfds.features.Text()
    if recipe.kind == "exam_patches":
        features |= {"mean": tfds.features.Scalar(np.float32), "std": tfds.features.Scalar(np.float32)}
    return tfds.features.FeaturesDict(features)


@dataclass(kw_only=True)
class MammogramConfig(tfds.core.BuilderConfig):
    """A builder's config: the recipe of the examples and the number of processes. Its `name` is the folder's."""

    recipe: Recipe
    workers: int = 1


class MammogramBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The features of examples; a subclass outside of this package yields the examples (docs/extend.md).

    Features: image uint16 [H, W, 1]; image_id (a patch's ends in #k), patient_id, exam_id, laterality, view; label
    int64: 1 malignant, 0 not, -1 unknown, or the patch's index in its recipe's `classes`. "whole" and "exams" have
    masks too, uint8 [H, W, 1]: 0 nothing, 1 benign, 2 malignant lesion, and `facts` (JSON), which hold the table's
    further columns; whole images of a subclass have none. Images of "exams" are cropped, face right and differ in size;
    their facts hold labels and window too. "exam_patches" have the mean and std of the image they were cut from.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        features = features_of(self.builder_config.recipe, facts=False)
        return self.dataset_info_from_configs(features=features, disable_shuffling=True, description="Mammograms.")
