"""From a row of a data set to its examples: a framed or cropped image with its lesions' masks, or patches of it.

Images and masks are encoded as PNG here: TFDS takes such bytes as they are, and needs TensorFlow for uint16 arrays.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from mammojax.data.breast import Crop, NoTissue, breast_mask, crop, faces_right, warn_if_whole
from mammojax.data.dicom import Mammogram, read_mammogram, read_mask
from mammojax.data.manifest import Image, Lesion
from mammojax.data.patches import Patch, patch_class, sample_exam_patches, sample_jittered, sample_patches
from mammojax.data.projection import why_unused
from mammojax.data.recipe import Recipe
from mammojax.errors import BadMammogram

Example = dict[str, Any]
Rejected = list[tuple[str, str]]
"""(image, reason) of everything left out."""


def examples_of(image: Image, recipe: Recipe) -> tuple[list[Example], Rejected]:
    """The examples of one image, and its parts that are left out; a broken file raises nothing.

    An example holds what `builder.MammogramBuilder` describes, and "digest", see `digest`. Patches depend on the
    recipe and the image's name alone.
    """
    rejected: Rejected = []
    mammogram = read_image(image, rejected)
    if mammogram is None:
        return [], rejected
    image = replace(image, laterality=image.laterality or mammogram.laterality, view=image.view or mammogram.view)
    make = _cropped if recipe.of_exams else _framed
    facts = {name: getattr(image, name) for name in ("patient_id", "exam_id", "laterality", "view")}
    facts["digest"] = digest(mammogram.pixels)
    return [example | facts for example in make(image, mammogram, recipe, rejected)], rejected


def _framed(image: Image, mammogram: Mammogram, recipe: Recipe, rejected: Rejected) -> list[Example]:
    """A whole image of the framing's size, or its patches (Shen et al. 2019)."""
    placement = recipe.framing.place(mammogram.pixels)
    lesions, avoid = [], []
    unlocated = False  # there is a visible lesion whose place is unknown
    for lesion in image.lesions:
        if lesion.mask is None and not lesion.outline:  # nothing to sample from
            unlocated |= lesion.visible
            effect = "is not drawn; the image is used" if recipe.kind == "whole" else "gives no patches"
            rejected.append((image.image, f"a lesion without mask {effect}"))
            continue
        stored = read_lesion(lesion, mammogram.pixels.shape, image.image, rejected)
        if stored is None:
            unlocated = True
            continue
        mask = placement.mask(stored)
        if not mask.any():
            rejected.append((image.image, "a lesion's mask is empty at this size; it gives no patches"))
        elif not lesion.visible:  # occult: no patch shows it, and no background hides it
            avoid.append(mask)
        elif not (lesion.abnormality or recipe.one_type) and recipe.kind != "whole":
            reason = "a lesion without abnormality (mass or calcification) gives no patches unless data.one_type is set"
            rejected.append((image.image, reason))
            avoid.append(mask)
        else:
            lesions.append((mask, replace(lesion, abnormality="mass") if recipe.one_type else lesion))
    pixels = placement.image(mammogram.pixels)
    if recipe.kind == "whole":
        whole = _whole(image, pixels, [(mask, lesion.pathology == "MALIGNANT") for mask, lesion in lesions])
        return [whole | {"facts": json.dumps({"columns": _further(image)})}]
    jittered = recipe.kind == "patches_jittered"
    if not lesions and not (jittered and image.pathology):  # only jittered ones show the background of normal images
        return []
    labelled = [(mask, patch_class(lesion.pathology, lesion.abnormality)) for mask, lesion in lesions]
    kind, seed = recipe.kind.removeprefix("patches_"), _patch_seed(image, recipe)
    if jittered:
        tissue = placement.mask(breast_mask(mammogram.pixels).astype(np.uint8))
        patches = sample_jittered(pixels, labelled, tissue, recipe.patch_size, seed, avoid, recipe.context)
    else:
        patches = sample_patches(pixels, labelled, kind, recipe.patch_size, seed, avoid=avoid)
    if unlocated:
        rejected.append(
            (image.image, "one of its lesions has no mask; its background may show it and gives no patches")
        )
        patches = [patch for patch in patches if patch.label]
    return _of_patches(image, patches)


def _cropped(image: Image, mammogram: Mammogram, recipe: Recipe, rejected: Rejected) -> list[Example]:
    """An image of a screening exam, cropped and facing right, or its patches (Wu et al. 2019).

    An image's example holds its exam, breast, view and labels, so that an exam may have any number of images of a view
    (the paper's footnote 2).
    """
    if reason := why_unused(image.laterality, image.view, mammogram.modifier):
        rejected.append((image.image, reason))
        return []
    right = faces_right(mammogram.pixels, image.laterality, image.horizontal_flip)
    try:
        breast = crop(mammogram.pixels, right, recipe.threshold, recipe.iterations)
    except NoTissue as error:
        rejected.append((image.image, str(error)))
        return []

    def cut(array: np.ndarray) -> np.ndarray:
        inside = breast.image(array)
        return np.ascontiguousarray(inside if right else inside[:, ::-1])

    pixels = cut(mammogram.pixels)
    warn_if_whole(image.image, pixels.shape, mammogram.pixels.shape, breast.threshold)
    masks, unlocated = _exam_masks(image, mammogram.pixels.shape, rejected)
    lesions = [(mask, malignant) for mask, malignant in ((cut(m), malignant) for m, malignant in masks) if mask.any()]
    if recipe.kind == "exams":
        return [_whole(image, pixels, lesions) | {"facts": json.dumps(_exam_facts(image, breast))}]
    if not lesions and (unlocated or image.findings or image.pathology != "NORMAL"):
        return []  # findings may lie anywhere in it, or it is unknown whether it has any
    patches = sample_exam_patches(
        pixels,
        lesions,
        recipe.patch_size,
        _patch_seed(image, recipe),
        outside=not unlocated,
        threshold=breast.threshold,
    )
    x = pixels.astype(np.float64)
    return _of_patches(image, patches, mean=np.float32(x.mean()), std=np.float32(max(float(x.std()), 1e-5)))


def _whole(image: Image, pixels: np.ndarray, lesions: Sequence[tuple[np.ndarray, bool]]) -> Example:
    """An image uint16 [H, W] with its lesions, (mask bool [H, W], malignant): malignant masks cover benign ones."""
    masks = np.zeros(pixels.shape, np.uint8)
    for mask, malignant in sorted(lesions, key=lambda lesion: lesion[1]):
        masks[mask] = 1 + malignant
    return {"image": png(pixels), "masks": png(masks), "image_id": image.image, "label": image.label}


def _of_patches(image: Image, patches: Sequence[Patch], **scale: np.float32) -> list[Example]:
    return [
        {"image": png(patch.pixels), "image_id": f"{image.image}#{k}", "label": patch.label, **scale}
        for k, patch in enumerate(patches)
    ]


def _patch_seed(image: Image, recipe: Recipe) -> int:
    """An image's own seed. Python's hash() changes from process to process; the patches must not."""
    return int.from_bytes(hashlib.sha256(f"{recipe.seed}/{image.image}".encode()).digest()[:8], "little")


def _exam_masks(image: Image, shape: tuple[int, ...], rejected: Rejected) -> tuple[list[tuple[np.ndarray, bool]], bool]:
    """(mask bool of the image's shape, malignant) of the visible lesions, and whether another one has no mask."""
    masks, unlocated = [], any(visible for _, visible in image.findings) and not image.lesions
    for lesion in image.lesions:
        if not lesion.visible:  # occult: no patch shows it
            continue
        stored = None
        if lesion.mask is None and not lesion.outline:
            rejected.append((image.image, "a lesion without mask gives no patches and no outline"))
        else:
            stored = read_lesion(lesion, shape, image.image, rejected)
        if stored is None:
            unlocated = True
            continue
        if stored.shape != tuple(shape):
            stored = np.asarray(cv2.resize(stored, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST))
        masks.append((stored > 0, lesion.pathology == "MALIGNANT"))
    return masks, unlocated


def _exam_facts(image: Image, breast: Crop) -> dict[str, Any]:
    """The facts of an image: benign and malignant of its breast, 1, 0, or -1 unknown, and whether such a finding is
    visible; the points that place its window; the table's further columns."""
    findings = image.findings or tuple((lesion.pathology, lesion.visible) for lesion in image.lesions)
    if not findings and image.pathology in ("BENIGN", "MALIGNANT"):
        findings = ((image.pathology, True),)
    facts: dict[str, Any] = {}
    for name in ("benign", "malignant"):
        visible_flags = [visible for pathology, visible in findings if pathology == name.upper()]
        facts[name] = 1 if visible_flags else (0 if image.pathology else -1)
        facts[f"{name}_visible"] = any(visible_flags)
    facts |= {"reach": breast.rightmost[1], "lowest": breast.bottommost[0], "threshold": breast.threshold}
    return facts | {"columns": _further(image)}


def _further(image: Image) -> dict[str, str]:
    """The filled cells of the table's further columns."""
    return {column: cell for column, cell in {"density": image.density, **image.columns}.items() if cell}


def read_image(image: Image, rejected: Rejected) -> Mammogram | None:
    """The mammogram of a row; None where it cannot be used, and then `rejected` gets (name, reason)."""
    try:
        return read_mammogram(image.path)
    except BadMammogram as error:
        # The row names the image; a file's own name may hold the patient (INbreast).
        rejected.append((image.image, str(error).removeprefix(f"{image.path.name}: ")))
    except Exception as error:  # a broken header raises errors of any kind
        rejected.append((image.image, f"it cannot be read ({type(error).__name__}); get the file again"))
    return None


def read_lesion(lesion: Lesion, shape: tuple[int, ...], name: str, rejected: Rejected) -> np.ndarray | None:
    """The stored mask, uint8 or uint16, lesion where > 0, or the inside of the outline.

    Args:
        lesion: with a mask or an outline.
        shape: of its image; a mask's file may have another.
        name: the image's.
        rejected: gets (name, reason) where the mask cannot be read.

    Returns:
        None where it cannot be read.
    """
    try:
        return read_mask(lesion.mask) if lesion.mask else _filled(lesion.outline, shape)
    except BadMammogram as error:
        rejected.append((name, f"mask: {error}"))
    except Exception as error:  # a broken header raises errors of any kind
        rejected.append((name, f"a mask cannot be read ({type(error).__name__}); get the file again"))
    return None


def _filled(outline: tuple[tuple[float, float], ...], shape: tuple[int, ...]) -> np.ndarray:
    """The inside of an outline, uint8 [H, W]; one of fewer than three different points is drawn 15 pixels wide."""
    mask = np.zeros(shape, np.uint8)
    points = np.round(np.array(outline)).astype(np.int32)
    cv2.fillPoly(mask, [points], 1)
    if len(spots := np.unique(points, axis=0)) < 3:  # INbreast marks single calcifications so; 15 pixels are 1 mm there
        start, end = spots[0].tolist(), spots[-1].tolist()
        cv2.line(mask, start, end, 1, thickness=13)  # OpenCV draws 13 as 15; polylines would draw one point as 1 pixel
    return mask


def digest(pixels: np.ndarray) -> bytes:
    """16 bytes that tell one image, uint16 [H, W], from another, however its file is written."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16, salt=b"%dx%d" % pixels.shape).digest()


def png(array: np.ndarray) -> io.BytesIO:
    """An array uint8 or uint16 [H, W] as lossless PNG; level 1 is four times as fast as the default, a tenth larger."""
    _, data = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return io.BytesIO(data.tobytes())
