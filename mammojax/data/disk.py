"""The disk that a data set needs, said before it is prepared."""

import shutil
from collections.abc import Sequence

from mammojax.data.examples import examples_of
from mammojax.data.manifest import Image
from mammojax.data.recipe import Recipe
from mammojax.errors import BadDataset

TRIED = 4
"""Images with lesions, and as many without, from which a data set's size is estimated; of a small one fewer."""
MARGIN = 0.7
"""A data set is refused if this share of its estimated size does not fit."""


def bytes_needed(recipe: Recipe, images: Sequence[Image]) -> int:
    """The estimated size of the examples of some images, from a few of them that are prepared for it.

    Images with and without lesions count apart, as they give different numbers of patches.
    """
    total = 0.0
    for has_lesions in (False, True):
        alike = [image for image in images if bool(image.lesions) == has_lesions]
        count = min(TRIED, 1 + len(alike) // 32)
        tried = alike[:: max(1, len(alike) // count)][:count]
        sizes = [sum(map(_size, examples_of(image, recipe)[0])) for image in tried]
        total += len(alike) * sum(sizes) / max(len(sizes), 1)
    return round(total)


def _size(example: dict) -> int:
    return sum(example[name].getbuffer().nbytes for name in ("image", "masks") if name in example)


def refuse_full(recipe: Recipe, images: Sequence[Image]) -> None:
    """Print what the examples of some images need on the disk and what it has.

    Raises:
        BadDataset: they clearly do not fit.
    """
    if not images:
        return
    needed, free = bytes_needed(recipe, images), shutil.disk_usage(recipe.data_dir).free
    amounts = f"{words(needed)} for {len(images)} images, {words(free)} of the disk are free"
    if needed * MARGIN > free:
        raise BadDataset(f"{recipe.kind} needs about {amounts}; make room, or give a --data-dir on another disk.")
    print(f"{recipe.kind}: about {amounts}", flush=True)


def words(count: int) -> str:
    """A number of bytes for people, such as "1.5 GB"."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
