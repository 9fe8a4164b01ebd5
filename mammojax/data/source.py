"""A data set's source: its rows, its splits, and a digest that tells one source from another."""

import hashlib
from collections.abc import Iterable
from typing import Any

import tensorflow_datasets as tfds

from mammojax import extension
from mammojax.data import cbis_ddsm, inbreast, manifest
from mammojax.data.recipe import Recipe
from mammojax.errors import BadDataset, BadManifest

Read = tuple[manifest.Table, dict[str, str]]
"""The images, and patient → "train", "val" or "test"; images of patients without a split are not used."""


def read(recipe: Recipe) -> Read:
    """The rows of a recipe's source.

    Raises:
        BadManifest, BadDataset: the source does not exist or cannot be used.
    """
    origin = recipe.origin
    if recipe.is_outside:
        return _read_outside(recipe)
    if recipe.name in ("cbis_ddsm", "phantom"):
        rows = cbis_ddsm.read_rows(origin)
        table = cbis_ddsm.read_tree(origin, rows)
        return table, cbis_ddsm.splits(rows, table.images, recipe.split, recipe.seed)
    if recipe.name == "inbreast":
        table = inbreast.read_table(origin)
        return table, inbreast.splits(table.images, recipe.split, recipe.seed)
    table = manifest.read_manifest(origin, manifest.read_map(recipe.label_map), recipe.data_dir)
    manifest.leave_out_copies(table)
    return table, manifest.splits(table.images, recipe.seed)


def digest(recipe: Recipe) -> str:
    """Eight hex digits that tell one download from another by its tables; "" where the recipe's folder already does,
    or where the source does not exist."""
    if recipe.is_outside and recipe.source is not None and recipe.source.exists() and outside_builder(recipe) is None:
        rows = sorted(repr((i.image, i.patient_id, i.split, i.pathology)) for i in _images(recipe))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:8]
    digests = {"cbis_ddsm": cbis_ddsm.digest, "inbreast": inbreast.digest}
    if recipe.name not in digests or recipe.source is None or not recipe.source.is_dir():
        return ""
    return digests[recipe.name](recipe.source)


def outside_builder(recipe: Recipe) -> type[tfds.core.DatasetBuilder] | None:
    """The TFDS builder that a recipe names; None where it names none.

    Raises:
        BadConfig: the name cannot be imported.
        BadDataset: it names neither a builder nor a function.
    """
    if not recipe.is_outside:
        return None
    named = extension.load(recipe.name, "config.data.name")
    if isinstance(named, type) and issubclass(named, tfds.core.DatasetBuilder):
        return named
    if isinstance(named, type) or not callable(named):
        raise BadDataset(_neither(recipe))
    return None


def _neither(recipe: Recipe) -> str:
    return (
        f'config.data.name: "{recipe.name}" is neither a function that gives rows (mammojax.data.manifest.Image) nor a '
        "TFDS builder; docs/extend.md has an example of each."
    )


def _images(recipe: Recipe) -> list[manifest.Image]:
    """The rows of a function outside of this package."""
    rows: Any = extension.load(recipe.name, "config.data.name")(recipe.origin)
    images = list(rows) if isinstance(rows, Iterable) else []
    if not isinstance(rows, Iterable) or not all(isinstance(image, manifest.Image) for image in images):
        raise BadDataset(_neither(recipe))
    return images


def _read_outside(recipe: Recipe) -> Read:
    images = _images(recipe)
    if not images:
        raise BadManifest(f"{recipe.name}: it gives no rows; see that it reads config.data.source.")
    names = set()
    for image in images:
        if reason := manifest.unusable(image):
            raise BadManifest(f"{recipe.name}: of the image {image.image!r} {reason}.")
        if image.image in names:
            raise BadManifest(f"{recipe.name}: two images are called {image.image!r}; call each otherwise.")
        names.add(image.image)
    table = manifest.Table(images)
    manifest.leave_out_copies(table)
    return table, manifest.splits(table.images, recipe.seed, f"{recipe.name}: the split of its rows")
