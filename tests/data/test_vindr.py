"""VinDr-Mammo's reader on a tree of its shape."""

from pathlib import Path

import pytest

from mammojax.data import outline, vindr
from tests.data import small

BREASTS = "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,split\n"
FINDINGS = (
    "image_id,study_id,series_id,laterality,view_position,height,width,breast_birads,breast_density,"
    "finding_categories,finding_birads,xmin,ymin,xmax,ymax,split\n"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two exams; one image of the table is not there."""
    images = [
        ("s1", "a", "L", "CC", "BI-RADS 4", "training"), ("s1", "b", "R", "CC", "BI-RADS 1", "training"),
        ("s2", "c", "L", "MLO", "BI-RADS 3", "test"), ("s2", "d", "R", "MLO", "BI-RADS 2", "test"),
        ("s2", "e", "R", "CC", "BI-RADS 2", "test"),
    ]  # fmt: skip
    rows = [f"{s},x,{i},{side},{view},96,80,{b},DENSITY C,{part}" for s, i, side, view, b, part in images]
    (tmp_path / "breast-level_annotations.csv").write_text(BREASTS + "\n".join(rows))
    head = "x,L,CC,96,80,BI-RADS 4,DENSITY C"
    findings = [
        f"""a,s1,{head},"['Suspicious Calcification', 'Mass']",BI-RADS 4,10.5,20.0,30.0,40.0,training""",
        f"""a,s1,{head},['Skin Thickening'],BI-RADS 5,1,2,3,4,training""",
        f"""a,s1,{head},['Mass'],BI-RADS 3,5,6,7,8,training""",
        f"""b,s1,{head},['No Finding'],None,,,,,training""",
        f"""c,s2,{head},['Focal Asymmetry'],BI-RADS 3,1,2,3,4,test""",
    ]
    (tmp_path / "finding_annotations.csv").write_text(FINDINGS + "\n".join(findings))
    for study, name, *_ in images[:-1]:
        small.dicom(tmp_path / "images" / study / f"{name}.dicom")
    return tmp_path


def test_categories_are_labels_and_said_to_be(tree: Path) -> None:
    table = vindr.read_table(tree)
    told = {i.image: (i.pathology, i.columns["birads"], i.split, i.density) for i in table.images}
    assert told == {
        "a": ("MALIGNANT", "4", "train", "C"), "b": ("NORMAL", "1", "train", "C"),
        "c": ("", "3", "test", "C"), "d": ("BENIGN", "2", "test", "C"),
    }  # fmt: skip
    assert {i.columns["label_source"] for i in table.images} == {"BI-RADS"}
    first = table.images[0]
    assert (first.patient_id, first.exam_id, first.laterality, first.view) == ("s1", "s1", "L", "CC")
    assert first.columns["finding"] == "Mass; Skin Thickening; Suspicious Calcification"
    assert [(x.pathology, x.abnormality, outline.text(x.outline)) for x in first.lesions] == [
        ("MALIGNANT", "calcification", "box 10.5 20 30 40"), ("MALIGNANT", "", "box 1 2 3 4"),
    ]  # fmt: skip
    reasons = dict(table.rejected)
    assert "a finding of BI-RADS 3 is left out" in reasons["a"]
    assert "no file of that name" in reasons["e"]


@pytest.mark.parametrize(("three", "pathology"), [("benign", "BENIGN"), ("malignant", "MALIGNANT")])
def test_category_three_is_what_the_user_says(tree: Path, three: str, pathology: str) -> None:
    image = vindr.read_table(tree, three).images[2]
    assert (image.pathology, [(x.pathology, x.abnormality) for x in image.lesions]) == (
        pathology,
        [(pathology, "mass")],
    )
