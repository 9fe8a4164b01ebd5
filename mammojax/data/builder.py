"""The TFDS builder of all data sets: rows → examples."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from mammojax.data import source
from mammojax.data.examples import Example, examples_of
from mammojax.data.manifest import SPLITS, Image
from mammojax.data.recipe import WITHOUT_PATCHES, Recipe


@dataclass(kw_only=True)
class MammogramConfig(tfds.core.BuilderConfig):
    """A builder's config: the recipe of the examples and the number of processes. Its `name` is the folder's."""

    recipe: Recipe
    workers: int = 1


class MammogramBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Examples of mammograms or patches, made from the rows of a data set's source.

    Features: image uint16 [H, W, 1]; image_id (a patch's ends in #k), patient_id, exam_id, laterality, view; label
    int64: 1 malignant, 0 not, -1 unknown, or the patch's index in its recipe's `classes`. "whole" and "exams" have
    masks too, uint8 [H, W, 1]: 0 nothing, 1 benign, 2 malignant lesion, and `facts` (JSON), which hold the table's
    further columns. Images of "exams" are cropped, face right and differ in size; their facts hold labels and window
    too. "exam_patches" have the mean and std of the image they were cut from.
    """

    rejected: list[tuple[str, str]]

    def _info(self) -> tfds.core.DatasetInfo:
        recipe: Recipe = self.builder_config.recipe
        size: tuple[int | None, ...] = recipe.size if recipe.kind == "whole" else (recipe.patch_side,) * 2
        size = (None, None) if recipe.kind == "exams" else size
        features: dict[str, Any] = {
            "image": tfds.features.Image(shape=(*size, 1), dtype=np.uint16, encoding_format="png"),
            "label": tfds.features.Scalar(np.int64),
        }
        features |= {n: tfds.features.Text() for n in ("image_id", "patient_id", "exam_id", "laterality", "view")}
        if recipe.kind in WITHOUT_PATCHES:
            features["masks"] = tfds.features.Image(shape=(*size, 1), dtype=np.uint8, encoding_format="png")
        ours = type(self)._generate_examples is MammogramBuilder._generate_examples  # others' images may have no facts
        if recipe.kind == "exams" or (recipe.kind == "whole" and ours):
            features["facts"] = tfds.features.Text()
        if recipe.kind == "exam_patches":
            features |= {"mean": tfds.features.Scalar(np.float32), "std": tfds.features.Scalar(np.float32)}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), disable_shuffling=True, description="Mammograms."
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Example]]]:
        table, splits = source.read(self.builder_config.recipe)
        self.rejected = list(table.rejected)
        self._pictures: dict[bytes, tuple[str, str]] = {}  # digest of the pixels → image and split that have them
        images: dict[str, list[Image]] = {split: [] for split in SPLITS}
        for image in sorted(table.images, key=lambda image: image.image):
            split = splits.get(image.patient_id, "")  # "": an official test patient under "shen"
            if self.builder_config.recipe.kind == "whole" and image.label < 0 and split in ("train", "val"):
                self.rejected.append((image.image, f"its pathology is empty: {split} has nothing to learn from it"))
            elif split:
                images[split].append(image)
        return {split: self._generate_examples(chosen, split) for split, chosen in images.items() if chosen}

    def _generate_examples(self, images: list[Image], split: str) -> Iterator[tuple[int, Example]]:
        recipe: Recipe = self.builder_config.recipe
        key = 0
        results = _map(partial(examples_of, recipe=recipe), images, self.builder_config.workers)
        results = tqdm(results, total=len(images), desc=recipe.kind, disable=None)
        for image, (examples, rejected) in zip(images, results, strict=True):
            self.rejected += rejected
            for example in examples:
                other, where = self._pictures.setdefault(example.pop("digest"), (image.image, split))
                if where == split:
                    yield key, example
                    key += 1
                else:  # TFDS generates the splits one after the other
                    self.rejected.append(
                        (image.image, f"its pixels are those of {other}, another patient's in {where}")
                    )


def _map(work: Any, images: list[Image], workers: int) -> Iterator[Any]:
    """Results in the order of the images, whatever the number of processes."""
    if workers <= 1 or len(images) < 8:
        yield from map(work, images)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(work, images, chunksize=4)
