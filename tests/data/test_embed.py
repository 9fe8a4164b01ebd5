"""EMBED's reader on a tree of its shape: the two tables are joined by patient, exam and side."""

from pathlib import Path

import pytest

from mammojax.data import embed, outline
from tests.data import small

CLINICAL = (
    "empi_anon,acc_anon,study_date_anon,desc,side,asses,tissueden,massshape,calcfind,bside,path_severity,RACE_DESC"
)
METADATA = (
    "empi_anon,acc_anon,anon_dicom_path,FinalImageType,ImageLateralityFinal,ViewPosition,spot_mag,num_roi,ROI_coords,"
    "Manufacturer"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Exam 1: a cancer on the left, BI-RADS 1 right. Exam 2 of both sides. Exam 3: six breasts' worth of rules."""
    small.table(
        tmp_path / "tables/EMBED_OpenData_clinical.csv",
        f""",{CLINICAL}
        0,P1,11,2013-01-01,MG Screening,L,A,3.0,I,,L,4.0,White
        1,P1,11,2013-01-01,MG Screening,L,A,3.0,,,L,1.0,White
        2,P1,11,2013-01-01,MG Screening,R,N,3.0,,,,,White
        3,P2,22,2013-01-01,MG Screening,,B,1.0,,,,,Asian
        4,P3,33,2013-01-01,MG Diagnostic,L,S,2.0,,,,,Asian
        5,P3,33,2013-01-01,MG Diagnostic,R,K,2.0,,K,,,Asian
        6,P4,44,2013-01-01,MG Screening,B,P,2.0,,,R,6.0,Asian""",
    )
    files = [
        ("P1", "11", "1.1", "2D", "L", "MLO", "", '"((20, 10, 40, 30), (1, 2, 3, 4))"'),
        ("P1", "11", "1.2", "2D", "R", "CC", "", "()"), ("P2", "22", "2.1", "2D", "R", "CC", "", "()"),
        ("P3", "33", "3.1", "2D", "L", "CC", "0", "()"), ("P3", "33", "3.2", "2D", "R", "CC", "0", '"[[5, 6, 7, 8]]"'),
        ("P4", "44", "4.1", "2D", "L", "CC", "", "()"), ("P4", "44", "4.2", "2D", "R", "CC", "", "()"),
        ("P1", "11", "1.3", "C-view", "L", "CC", "", "()"), ("P1", "11", "1.4", "2D", "L", "CC", "1", "()"),
        ("P1", "11", "1.5", "2D", "L", "CC", "", "()"), ("P9", "99", "9.1", "2D", "L", "CC", "", "()"),
    ]  # fmt: skip
    lines = [f",{METADATA}"]
    for k, (patient, exam, name, kind, side, view, spot, boxes) in enumerate(files):
        path = f"cohort_1/{patient}/{exam}/{name}.dcm"
        lines.append(f"{k},{patient},{exam},/mnt/store/{path},{kind},{side},{view},{spot},0,{boxes},HOLOGIC")
        if name != "1.5":
            small.dicom(tmp_path / "images" / path)
    small.table(tmp_path / "tables/EMBED_OpenData_metadata.csv", "\n".join(lines))
    return tmp_path


def test_a_breast_has_its_own_findings(tree: Path) -> None:
    table = embed.read_table(tree)
    told = {i.image: (i.pathology, i.columns["label_source"], i.columns["birads"], i.density) for i in table.images}
    assert told == {
        "1.1": ("MALIGNANT", "biopsy", "0", "C"),  # the worst tissue of two
        "1.2": ("NORMAL", "BI-RADS", "1", "C"),
        "2.1": ("BENIGN", "BI-RADS", "2", "A"),  # no side: both breasts
        "3.1": ("", "", "4", "B"),  # suspicious, and nobody looked at the tissue
        "3.2": ("MALIGNANT", "BI-RADS", "6", "B"),
        "4.1": ("", "BI-RADS", "3", "B"),
        "4.2": ("", "biopsy", "3", "B"),  # a cancer of another organ
    }
    first, *_, last = table.images
    assert (first.patient_id, first.exam_id, first.laterality, first.view) == ("P1", "11", "L", "MLO")
    assert first.columns.items() >= {"vendor": "HOLOGIC", "race": "White", "biopsied": "1", "finding": "mass"}.items()
    assert [(x.pathology, x.abnormality, outline.text(x.outline)) for x in first.lesions] == [
        ("MALIGNANT", "mass", "box 10 20 30 40"), ("MALIGNANT", "mass", "box 2 1 4 3"),
    ]  # fmt: skip
    assert not last.lesions
    reasons = dict(table.rejected)
    for name, words in {"1.3": "C-view", "1.4": "spot", "1.5": "no file of it", "9.1": "no row of its exam"}.items():
        assert words in reasons[name]


def test_category_three_is_what_the_user_says(tree: Path) -> None:
    benign = {image.image: image.pathology for image in embed.read_table(tree, "benign").images}
    assert (benign["4.1"], benign["4.2"], benign["3.1"]) == ("BENIGN", "", "")
