"""COCO's and LabelMe's files give the outlines that were drawn."""

import json
from pathlib import Path
from typing import Any

import pytest

from mammojax.data import annotations, outline
from mammojax.errors import BadManifest


def _write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_coco_polygons_and_boxes(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "films/a.png"}, {"id": 8, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "Malignant mass"}, {"id": 2, "name": "calcification"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [1, 2, 9, 9], "segmentation": [[1, 2, 10, 2, 10, 11]]},
            {"image_id": 8, "category_id": 2, "bbox": [10, 20, 30, 40.5], "segmentation": []},
            {"image_id": 8, "category_id": 2, "bbox": [1, 2, 3, 4], "segmentation": {"counts": "x", "size": [9, 9]}},
            {"image_id": 8, "category_id": 2, "bbox": [5, 6, 1, 1], "segmentation": [[1, 2, 3, 4, 5, 6]] * 2},
        ],
    }
    drawn = annotations.read(_write(tmp_path / "coco.json", content))
    (mass,), calcifications = drawn["a.png"], drawn["b.png"]
    assert (mass.pathology, mass.abnormality) == ("MALIGNANT", "mass")
    assert outline.text(mass.points) == "polygon 1 2 10 2 10 11"
    assert {(c.pathology, c.abnormality) for c in calcifications} == {("", "calcification")}
    assert [outline.text(c.points) for c in calcifications] == ["box 10 20 40 60.5", "box 1 2 4 6", "box 5 6 6 7"]


def test_labelme_shapes(tmp_path: Path) -> None:
    shapes = [
        {"label": "benign_calc", "shape_type": "polygon", "points": [[1, 2], [10, 2], [10, 11]]},
        {"label": "cancer", "shape_type": "rectangle", "points": [[30, 40], [10, 20]]},
        {"label": "lump", "shape_type": "circle", "points": [[50, 50], [53, 54]]},
    ]
    (tmp_path / "deep").mkdir()
    _write(tmp_path / "deep" / "a.json", {"imagePath": "..\\films\\a.jpg", "shapes": shapes})
    ((name, drawn),) = annotations.read(tmp_path).items()
    assert name == "a.jpg"
    assert [(d.pathology, d.abnormality) for d in drawn] == [("BENIGN", "calcification"), ("MALIGNANT", ""), ("", "")]
    assert [outline.text(d.points) for d in drawn[:2]] == ["polygon 1 2 10 2 10 11", "box 10 20 30 40"]
    assert drawn[2].points[0] == (55.0, 50.0)


@pytest.mark.parametrize("content", [[1], {"shapes": [1]}, {"annotations": [{"image_id": 3}], "images": []}, "x"])
def test_other_files_are_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(BadManifest, match=r"a.json is neither a COCO file nor one of LabelMe"):
        annotations.read(_write(tmp_path / "a.json", content))


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match=r"holds no \.json"):
        annotations.read(tmp_path)
    with pytest.raises(BadManifest, match="there is no file or folder"):
        annotations.read(tmp_path / "none.json")
