"""Images of screening exams, cropped and facing right, and the patches of Wu et al. 2019's patch classifier.

An example of kind "exams" is one image; its index row says to which exam, breast and view it belongs and what is known
of it, so that an exam may have any number of images a view (the paper's footnote 2). The patch sampler is in no source:
the classes are the published network's, which patches stand for them is ours (`patches_of`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np

from mammojax.data.builders.png import png
from mammojax.data.crop import Crop, NoTissue, crop, faces_right, warn_if_whole
from mammojax.data.manifest import Image, Lesion
from mammojax.data.projection import why_unused
from mammojax.data.reading import Rejected, digest, read_image, read_lesion
from mammojax.vocabulary import EXAM_PATCH_CLASSES

PER_LESION = 10  # patches that show a lesion; as many of its image show none
PER_NEGATIVE = 2  # patches of an image of a breast without finding


def examples_of(
    image: Image, kind: str, threshold: int | None, iterations: int, patch_size: int, seed: int
) -> tuple[list[dict[str, Any]], Rejected]:
    """The examples of one image, and what of it was left out as (file, reason); a broken file is no exception.

    Args:
        image: of a manifest, with laterality and view (or a header that has them).
        kind: "exams" or "exam_patches".
        threshold, iterations: of the crop, see `crop.crop`.
        patch_size: side of a patch, pixels of the image.
        seed: of the patches; they depend on it and the image's name alone.
    """
    rejected: Rejected = []
    mammogram = read_image(image, rejected)
    if mammogram is None:
        return [], rejected
    side, view = image.laterality or mammogram.laterality, image.view or mammogram.view
    if reason := why_unused(side, view, mammogram.modifier):
        return [], [(image.image, reason)]
    right = faces_right(mammogram.pixels, side, image.horizontal_flip)
    try:
        found = crop(mammogram.pixels, right, threshold, iterations)
    except NoTissue as error:
        return [], [(image.image, str(error))]

    def cut(pixels: np.ndarray) -> np.ndarray:
        inside = found.image(pixels)
        return np.ascontiguousarray(inside if right else inside[:, ::-1])

    known: dict[str, Any] = {"patient_id": image.patient_id, "exam_id": image.exam_id, "laterality": side, "view": view}
    known["digest"] = digest(mammogram.pixels)
    pixels = cut(mammogram.pixels)
    warn_if_whole(image.image, pixels.shape, mammogram.pixels.shape, found.threshold)
    lesions, somewhere = _masks(image, mammogram.pixels.shape, found, cut, rejected)
    if kind == "exams":
        marked = np.zeros(pixels.shape, np.uint8)
        for mask, malignant in sorted(lesions, key=lambda lesion: lesion[1]):  # malignant over benign
            marked[mask] = 1 + malignant
        facts = {**_labels(image), "reach": found.rightmost[1], "lowest": found.bottommost[0]}
        facts["threshold"] = found.threshold
        facts["columns"] = {k: v for k, v in {"density": image.density, **image.columns}.items() if v}
        whole = {"image": png(pixels), "masks": png(marked), "image_id": image.image, "label": image.label}
        return [whole | known | {"facts": json.dumps(facts)}], rejected
    if not lesions and (somewhere or image.findings or image.pathology != "NORMAL"):
        return [], rejected  # neither where its findings are nor that it has none is known
    own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{image.image}".encode()).digest()[:8], "little")
    patches = patches_of(pixels, lesions, patch_size, np.random.default_rng(own_seed), not somewhere, found.threshold)
    x = pixels.astype(np.float64)
    scale = {"mean": np.float32(x.mean()), "std": np.float32(max(float(x.std()), 1e-5))}
    return [
        {"image": png(patch), "image_id": f"{image.image}#{k}", "label": label, **scale} | known
        for k, (patch, label) in enumerate(patches)
    ], rejected


def patches_of(
    pixels: np.ndarray, lesions: list[tuple[np.ndarray, bool]], size: int, rng: np.random.Generator,
    outside: bool = True, threshold: int = 0,
) -> list[tuple[np.ndarray, int]]:  # fmt: skip
    """Patches of one cropped image with their class, an index in EXAM_PATCH_CLASSES; which are chosen is ours.

    An image with lesions gives PER_LESION patches around each, centred on a random pixel of it, malignant where any of
    a malignant lesion is in sight, else benign; and as many "outside" patches, centred on random tissue, that show none
    of any lesion (where 100 draws find none: fewer). An image without gives PER_NEGATIVE "negative" ones. Patches are
    shifted into the image, as the sliding window lies; too small an image is padded with zeros at its right and below.

    Args:
        pixels: uint16 [H, W].
        lesions: (mask bool [H, W], malignant) of each.
        size: side of a patch in pixels.
        rng: of the draws.
        outside: False where a lesion may lie unseen: then patches of lesions only.
        threshold: tissue is above it.

    Returns:
        (uint16 [size, size], class) of each patch.
    """
    lack = [max(0, size - side) for side in pixels.shape]
    padded = np.pad(pixels, ((0, lack[0]), (0, lack[1])))
    masks = [np.pad(mask, ((0, lack[0]), (0, lack[1]))) for mask, _ in lesions]
    tissue = np.argwhere(padded > threshold)
    made: list[tuple[np.ndarray, int]] = []

    def at(centre: np.ndarray) -> tuple[slice, slice]:
        top, left = (int(np.clip(c - size // 2, 0, n - size)) for c, n in zip(centre, padded.shape, strict=True))
        return slice(top, top + size), slice(left, left + size)

    for mask in masks:
        inside = np.argwhere(mask)
        for k in rng.integers(len(inside), size=PER_LESION):
            window = at(inside[k])
            shown = [malignant for m, (_, malignant) in zip(masks, lesions, strict=True) if m[window].any()]
            made.append((padded[window], EXAM_PATCH_CLASSES.index("malignant" if any(shown) else "benign")))
    if not outside or not len(tissue):
        return made
    label = EXAM_PATCH_CLASSES.index("outside" if masks else "negative")
    for _ in range(PER_LESION * len(masks) if masks else PER_NEGATIVE):
        for _ in range(100):
            window = at(tissue[rng.integers(len(tissue))])
            if not any(mask[window].any() for mask in masks):
                made.append((padded[window], label))
                break
    return made


def findings(rows: Iterable[dict[str, str]], splits: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Breasts with findings in each split, {split: {"malignant": {"visible": n, "occult": n}, "benign": …}}.

    Wu et al. 2019, Table I. A breast's finding is visible where one of its findings of that kind is in any image.
    """
    breasts: dict[tuple[str, ...], dict[str, list[bool]]] = {}
    for row in rows:
        facts = json.loads(row["facts"])
        key = (row["split"], row["patient_id"], row["exam_id"], row["laterality"])
        for name in ("malignant", "benign"):
            if facts[name] == 1:
                breasts.setdefault(key, {}).setdefault(name, []).append(facts[f"{name}_visible"])
    counts = {s: {n: {"visible": 0, "occult": 0} for n in ("malignant", "benign")} for s in splits}
    for (split, *_), found in breasts.items():
        for name, seen in found.items():
            counts[split][name]["visible" if any(seen) else "occult"] += 1
    return counts


def _masks(
    image: Image, shape: tuple[int, ...], found: Crop, cut: Any, rejected: Rejected
) -> tuple[list[tuple[np.ndarray, bool]], bool]:
    """The visible lesions' masks in the crop, and whether another lesion is somewhere in sight."""
    lesions, somewhere = [], any(visible for _, visible in image.findings) and not image.lesions
    for lesion in image.lesions:
        if not lesion.visible:  # occult: no patch shows it
            continue
        mask = _mask(lesion, shape, image.image, rejected)
        somewhere |= mask is None
        if mask is not None and (mask := cut(mask)).any():
            lesions.append((mask, lesion.pathology == "MALIGNANT"))
    return lesions, somewhere


def _mask(lesion: Lesion, shape: tuple[int, ...], name: str, rejected: Rejected) -> np.ndarray | None:
    """One lesion's mask, bool of the image's shape; None where it is not known."""
    if lesion.mask is None and not lesion.outline:
        rejected.append((name, "a lesion without mask gives no patches and no outline"))
        return None
    drawn = read_lesion(lesion, shape, name, rejected)
    if drawn is not None and drawn.shape != tuple(shape):
        drawn = cv2.resize(drawn, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return None if drawn is None else drawn > 0


def _labels(image: Image) -> dict[str, Any]:
    """benign and malignant of the image's rows: 1, 0, or -1 unknown, and whether a visible finding says so."""
    findings = image.findings or tuple((lesion.pathology, lesion.visible) for lesion in image.lesions)
    if not findings and image.pathology in ("BENIGN", "MALIGNANT"):
        findings = ((image.pathology, True),)
    labels: dict[str, Any] = {}
    for name in ("benign", "malignant"):
        seen = [visible for pathology, visible in findings if pathology == name.upper()]
        labels[name] = 1 if seen else (0 if image.pathology else -1)
        labels[f"{name}_visible"] = any(seen)
    return labels
