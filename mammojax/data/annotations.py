"""Lesions drawn with an annotation tool: a COCO file, or LabelMe's file beside each image.

COCO (cocodataset.org, "Data format"): {"images": [{"id", "file_name"}], "categories": [{"id", "name"}], "annotations":
[{"image_id", "category_id", "bbox": [x, y, width, height], "segmentation": [[x1, y1, …], …]}]}. LabelMe
(github.com/wkentaro/labelme): {"imagePath", "shapes": [{"label", "shape_type": "polygon" | "rectangle" | "circle",
"points": [[x, y], …]}]}; a rectangle has two opposite corners, a circle its centre and a point of it.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mammojax.data import outline
from mammojax.data.manifest import ABNORMALITIES
from mammojax.errors import BadManifest

_WORDS = {"malignant": "MALIGNANT", "cancer": "MALIGNANT", "benign": "BENIGN"}
_KINDS = {word: kind for word, kind in ABNORMALITIES.items() if word} | {
    "calc": "calcification", "calcifications": "calcification", "masses": "mass", "distortion": "mass"
}  # fmt: skip


class Drawn(NamedTuple):
    """A lesion that somebody drew: the label it was given, and its outline in pixels of the image."""

    label: str
    points: outline.Points

    @property
    def pathology(self) -> str:
        """ "BENIGN" or "MALIGNANT" where the label says so, such as "malignant_mass", else ""."""
        return next((_WORDS[word] for word in _words(self.label) if word in _WORDS), "")

    @property
    def abnormality(self) -> str:
        """ "mass" or "calcification" where the label says so, else ""."""
        return next((_KINDS[word] for word in _words(self.label) if word in _KINDS), "")


def _words(label: str) -> list[str]:
    return re.split(r"[^a-z]+", label.lower())


def read(source: Path) -> dict[str, list[Drawn]]:
    """Image file name (without its folder) → the lesions drawn in it.

    Args:
        source: a COCO file, or a folder with LabelMe's files at any depth.

    Raises:
        BadManifest: there is no such file or folder, or a file is neither.
    """
    if not source.exists():
        raise BadManifest(
            f'there is no file or folder "{source}"; give a COCO file, or the folder of LabelMe\'s files.'
        )
    drawn: dict[str, list[Drawn]] = defaultdict(list)
    paths = sorted(source.rglob("*.json")) if source.is_dir() else [source]
    if not paths:
        raise BadManifest(f'"{source}" holds no .json; give a COCO file, or the folder of LabelMe\'s files.')
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = _coco(content) if "annotations" in content else _labelme(content)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise BadManifest(
                f"{path.name} is neither a COCO file nor one of LabelMe ({type(error).__name__}); export it again."
            ) from None
        for name, lesion in found:
            drawn[name].append(lesion)
    return dict(drawn)


def _coco(content: Mapping[str, Any]) -> list[tuple[str, Drawn]]:
    names = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
    categories = {category["id"]: str(category["name"]) for category in content.get("categories", ())}
    found = []
    for annotation in content["annotations"]:
        polygons = annotation.get("segmentation")
        if isinstance(polygons, list) and len(polygons) == 1 and len(polygons[0]) >= 6:
            points = tuple(zip(map(float, polygons[0][::2]), map(float, polygons[0][1::2]), strict=True))
        else:  # without a segmentation, of several parts, or run-length encoded: the box
            x, y, width, height = map(float, annotation["bbox"])
            points = outline.box(x, y, x + width, y + height)
        label = categories.get(annotation.get("category_id"), "")
        found.append((names[annotation["image_id"]], Drawn(label, points)))
    return found


def _labelme(content: Mapping[str, Any]) -> list[tuple[str, Drawn]]:
    name = re.split(r"[/\\]", content["imagePath"])[-1]  # LabelMe on Windows writes backslashes
    found = []
    for shape in content["shapes"]:
        points = tuple((float(x), float(y)) for x, y in shape["points"])
        kind = shape.get("shape_type", "polygon")
        if kind == "rectangle":
            points = outline.box(*points[0], *points[1])
        elif kind == "circle":
            points = outline.circle(*points[0], math.dist(points[0], points[1]))
        found.append((name, Drawn(str(shape["label"]), points)))
    return found
