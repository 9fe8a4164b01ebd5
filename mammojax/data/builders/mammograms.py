"""What the builders share: framing, patches, and examples encoded so that TFDS needs no TensorFlow.

TFDS encodes uint16 arrays through TensorFlow, but takes PNG bytes as they are; so the generators yield those.
"""

import hashlib
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from mammojax.data.breast import Framing
from mammojax.data.builders import exams
from mammojax.data.builders.png import png
from mammojax.data.manifest import Image, Table
from mammojax.data.patches import patch_class, sample_patches
from mammojax.data.reading import digest, read_image, read_lesion
from mammojax.data.recipe import VERSION, Recipe

SPLITS = ("train", "val", "test")


@dataclass(kw_only=True)
class MammogramConfig(tfds.core.BuilderConfig):
    """A builder's config: the recipe of what is made, and by how many processes. Its `name` is the folder's."""

    recipe: Recipe
    workers: int = 1


class MammogramBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Examples of mammograms or patches from a `Table`, which a subclass reads in `_table`.

    Features: image uint16 [H, W, 1]; image_id (a patch's ends in #k), patient_id, exam_id, laterality, view; label
    int64: 1 malignant, 0 not, -1 unknown, or the patch's index in its CLASSES. "whole" and "exams" have masks too,
    uint8 [H, W, 1]: 0 nothing, 1 benign, 2 malignant lesion. Images of "exams" are cropped, face right, differ in size;
    `facts` (JSON) says what is known of them. "exam_patches" have mean and std of the image they were cut from.
    """

    VERSION = tfds.core.Version(VERSION)
    rejected: list[tuple[str, str]]

    def _table(self) -> tuple[Table, dict[str, str]]:
        """The images, and patient → split."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        recipe: Recipe = self.builder_config.recipe
        size: tuple[int | None, ...] = recipe.size if recipe.kind == "whole" else (recipe.patch_side,) * 2
        size = (None, None) if recipe.kind == "exams" else size
        features: dict[str, Any] = {
            "image": tfds.features.Image(shape=(*size, 1), dtype=np.uint16, encoding_format="png"),
            "label": tfds.features.Scalar(np.int64),
        }
        features |= {n: tfds.features.Text() for n in ("image_id", "patient_id", "exam_id", "laterality", "view")}
        if recipe.kind in ("whole", "exams"):
            features["masks"] = tfds.features.Image(shape=(*size, 1), dtype=np.uint8, encoding_format="png")
        if recipe.kind == "exams":
            features["facts"] = tfds.features.Text()
        if recipe.kind == "exam_patches":
            features |= {"mean": tfds.features.Scalar(np.float32), "std": tfds.features.Scalar(np.float32)}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), disable_shuffling=True, description="Mammograms."
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        table, splits = self._table()
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

    def _generate_examples(self, images: list[Image], split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        recipe: Recipe = self.builder_config.recipe
        how: dict[str, Any] = {"kind": recipe.kind, "patch_size": recipe.patch_size, "seed": recipe.seed}
        if recipe.of_exams:
            work = partial(exams.examples_of, threshold=recipe.threshold, iterations=recipe.iterations, **how)
        else:
            work = partial(examples_of, framing=recipe.framing, **how)
        key = 0
        results = _map(work, images, self.builder_config.workers)
        results = tqdm(results, total=len(images), desc=recipe.kind, disable=None)
        for image, (made, rejected) in zip(images, results, strict=True):
            self.rejected += rejected
            for example in made:
                other, where = self._pictures.setdefault(example.pop("digest"), (image.image, split))
                if where == split:
                    yield key, example
                    key += 1
                else:  # TFDS makes the splits one after the other
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


def examples_of(
    image: Image, kind: str, framing: Framing, patch_size: int, seed: int
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The examples of one image, and what of it was left out as (file, reason); a broken file is no exception."""
    rejected: list[tuple[str, str]] = []
    mammogram = read_image(image, rejected)
    if mammogram is None:
        return [], rejected
    placement = framing.place(mammogram.pixels)
    lesions, avoid = [], []
    somewhere = False  # a visible lesion stands nobody knows where
    for lesion in image.lesions:
        if lesion.mask is None and not lesion.outline:  # nothing to sample from
            somewhere |= lesion.visible
            effect = "is not drawn; the image is used" if kind == "whole" else "gives no patches"
            rejected.append((image.image, f"a lesion without mask {effect}"))
            continue
        drawn = read_lesion(lesion, mammogram.pixels.shape, image.image, rejected)
        if drawn is None:
            somewhere = True
            continue
        mask = placement.mask(drawn)
        if not mask.any():
            rejected.append((image.image, "a lesion's mask is empty at this size; it gives no patches"))
        elif not lesion.visible:  # occult: no patch shows it, and no background hides it
            avoid.append(mask)
        elif not lesion.abnormality and kind != "whole":
            rejected.append((image.image, "a lesion without abnormality (mass or calcification) gives no patches"))
            avoid.append(mask)
        else:
            lesions.append((mask, lesion))
    facts: dict[str, Any] = {
        "patient_id": image.patient_id,
        "exam_id": image.exam_id,
        "laterality": image.laterality or mammogram.laterality,
        "view": image.view or mammogram.view,
        "digest": digest(mammogram.pixels),
    }
    pixels = placement.image(mammogram.pixels)
    if kind == "whole":
        marked = np.zeros(framing.size, np.uint8)
        for mask, lesion in sorted(lesions, key=lambda pair: pair[1].pathology):  # malignant over benign
            marked[mask] = 2 if lesion.pathology == "MALIGNANT" else 1
        whole = {"image": png(pixels), "masks": png(marked), "image_id": image.image, "label": image.label}
        return [whole | facts], rejected
    if not lesions:
        return [], rejected
    # Python's hash() changes from process to process: the patches must not.
    own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{image.image}".encode()).digest()[:8], "little")
    labelled = [(mask, patch_class(lesion.pathology, lesion.abnormality)) for mask, lesion in lesions]
    patches = sample_patches(pixels, labelled, kind.removeprefix("patches_"), patch_size, own_seed, avoid=avoid)
    if somewhere:
        rejected.append(
            (image.image, "one of its lesions has no mask; its background may show it and gives no patches")
        )
        patches = [patch for patch in patches if patch.label]
    return [
        {"image": png(p.pixels), "image_id": f"{image.image}#{k}", "label": p.label} | facts
        for k, p in enumerate(patches)
    ], rejected
