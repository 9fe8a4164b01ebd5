"""An outline's cell reads as it was written, and a manifest's outlines are drawn where they say."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mammojax.data import manifest, outline
from mammojax.data.examples import examples_of, read_lesion
from mammojax.data.recipe import Recipe
from tests.data import small


@pytest.mark.parametrize(
    "cell", ["", "box 10 20 110.5 220.25", "polygon 1 2 30 4 5 60.13", "polygon 7 8", "polygon -1 2 12345.67 4"]
)
def test_a_cell_reads_as_written(cell: str) -> None:
    assert outline.text(outline.parse(cell)) == cell


def test_boxes_circles_and_commas() -> None:
    corners = ((1.0, 2.0), (5.0, 2.0), (5.0, 9.0), (1.0, 9.0))
    assert outline.parse("Box 5,9, 1,2") == corners
    points = np.array(outline.parse("circle 50 40 10"))
    np.testing.assert_allclose(np.hypot(*(points - (50, 40)).T), 10)
    assert outline.parse(outline.text(outline.parse("circle 50 40 10")))[0] == (60.0, 40.0)


@pytest.mark.parametrize(
    "cell", ["10 20 30 40", "box 1 2 3", "polygon 1 2 3", "polygon", "circle 1 2 0", "circle 1 2 -3", "box a b c d",
             "box nan 1 2 3", "[[1, 2], [3, 4]]"]
)  # fmt: skip
def test_other_cells_say_what_to_write(cell: str) -> None:
    with pytest.raises(ValueError, match="box xmin ymin xmax ymax"):
        outline.parse(cell)


def test_a_manifest_s_outlines_are_masks(tmp_path: Path) -> None:
    small.dicom(tmp_path / "a.dcm")
    cv2.imwrite(str(tmp_path / "m.png"), np.ones(small.SHAPE, np.uint8))
    small.table(
        tmp_path / "m.csv",
        """image,pathology,abnormality,mask,outline
        a.dcm,MALIGNANT,mass,,box 10 20 29 59
        a.dcm,BENIGN,calcification,,circle 60 70 8
        a.dcm,BENIGN,mass,,polygon 40 5 70 5 70 25
        a.dcm,BENIGN,mass,m.png,box 1 1 2 2
        a.dcm,BENIGN,mass,,somewhere""",
    )
    table = manifest.read_manifest(tmp_path / "m.csv")
    reasons = [reason for _, reason in table.rejected]
    assert "a lesion has a mask and an outline" in reasons[0]
    assert 'outline is "somewhere"; write "box' in reasons[1]
    (image,) = table.images
    box, circle, polygon = (read_lesion(lesion, small.SHAPE, "a", []) for lesion in image.lesions)
    expected = np.zeros(small.SHAPE, np.uint8)
    expected[20:60, 10:30] = 1
    np.testing.assert_array_equal(box, expected)
    assert circle.sum() == pytest.approx(np.pi * 8**2, rel=0.15)
    assert (circle[70, 60], circle[70, 69]) == (1, 0)
    assert polygon.sum() == pytest.approx(30 * 20 / 2, rel=0.15)
    recipe = Recipe("manifest", "whole", tmp_path, tmp_path / "m.csv", size=small.SHAPE)
    ((example,), rejected) = examples_of(image, recipe)
    assert not rejected
    masks = cv2.imdecode(np.frombuffer(example["masks"].getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(masks == 2, expected == 1)
    np.testing.assert_array_equal(masks == 1, (circle > 0) | (polygon > 0))
