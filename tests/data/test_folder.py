"""Labels by image, breast, exam and patient find their images; headers' ids are hashed."""

import json
from pathlib import Path

import cv2
import pytest

from mammojax.data import folder, manifest
from mammojax.errors import BadManifest
from tests.data import small


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two patients with two exams, files of equal names, a PNG, and a file that is no mammogram."""
    root = tmp_path / "in"
    for name, patient, study, accession, side, view in (
        ("1/IM1", "Doe", "1.2.1", "A1", "L", "CC"), ("1/IM2", "Doe", "1.2.1", "A1", "R", "CC"),
        ("2/IM1", "Doe", "1.2.2", "A2", "L", "CC"), ("3/IM1", "Roe", "1.2.3", "A3", "L", "MLO"),
        ("3/unique.dcm", "Roe", "1.2.3", "A3", "R", "MLO"),
    ):  # fmt: skip
        small.dicom(
            root / name, PatientID=patient, StudyInstanceUID=study, AccessionNumber=accession, ImageLaterality=side,
            ViewPosition=view,
        )  # fmt: skip
    cv2.imwrite(str(root / "film_L_CC.png"), small.pixels("film"))
    (root / "report.txt").write_text("Doe")
    return root


def _labels(source: Path, text: str, words: dict[str, str] | None = None) -> tuple[manifest.Table, dict[str, str]]:
    labels = small.table(source.parent / "labels.csv", text)
    table = folder.read_table(source, source.parent, labels, words=words)
    return table, {image.image: image.pathology for image in table.images}


def test_by_patient_exam_and_breast(source: Path) -> None:
    _, by_patient = _labels(source, "patient_id,pathology\nDoe,BENIGN\nRoe,MALIGNANT")
    assert by_patient == {
        "1/IM1": "BENIGN", "1/IM2": "BENIGN", "2/IM1": "BENIGN", "3/IM1": "MALIGNANT", "3/unique.dcm": "MALIGNANT",
        "film_L_CC.png": "",
    }  # fmt: skip
    _, by_exam = _labels(source, "exam_id;pathology\nA2;1\n1.2.3;0", {"0": "NORMAL", "1": "MALIGNANT"})
    assert {name for name, p in by_exam.items() if p == "MALIGNANT"} == {"2/IM1"}
    assert {name for name, p in by_exam.items() if p == "NORMAL"} == {"3/IM1", "3/unique.dcm"}
    table, by_breast = _labels(
        source,
        """exam_id,laterality,pathology,abnormality,density,split,vendor
        A1,left,MALIGNANT,mass,C,train,Acme
        A1,L,BENIGN,calcification,,train,
        A1,R,NORMAL,,B,train,
        A9,L,NORMAL,,,,
        ,L,NORMAL,,,,
        A3,L,CANCER,,,,""",
    )
    assert (by_breast["1/IM1"], by_breast["1/IM2"], by_breast["2/IM1"]) == ("MALIGNANT", "NORMAL", "")
    first = next(image for image in table.images if image.image == "1/IM1")
    assert (first.density, first.split, first.lesions) == ("C", "train", ())
    assert first.columns.items() >= {"vendor": "Acme", "finding": "calcification; mass"}.items()
    reasons = dict(table.rejected)
    assert "no mammogram in the folder" in reasons["labels.csv line 5"]
    assert "names no image, exam or patient" in reasons["labels.csv line 6"]
    assert 'pathology is "CANCER"' in reasons["labels.csv line 7"]
    assert "neither DICOM nor PNG" in reasons["report.txt"]


def test_by_image_with_what_the_header_lacks(source: Path) -> None:
    table, by_image = _labels(
        source,
        """image,patient_id,laterality,view,pathology
        film_L_CC.png,P7,,MLO,BENIGN
        unique.png,,,,MALIGNANT
        3/IM1,,,,NORMAL
        IM1,,,,MALIGNANT""",
    )
    told = {i.image: (i.patient_id, i.laterality, i.view, i.pathology) for i in table.images}
    assert told["film_L_CC.png"] == ("P7", "L", "MLO", "BENIGN")
    assert (by_image["3/unique.dcm"], by_image["3/IM1"], by_image["1/IM1"]) == ("MALIGNANT", "NORMAL", "")
    assert ("labels.csv line 5", folder._SEVERAL) in table.rejected


def test_headers_ids_are_hashed(source: Path) -> None:
    table, _ = _labels(source, "patient_id,pathology\nDoe,BENIGN")
    ids = [(image.patient_id, image.exam_id) for image in table.images if image.image[0].isdigit()]
    assert len({patient for patient, _ in ids}) == 2
    assert len({exam for _, exam in ids}) == 3
    assert all(len(value) == 16 for pair in ids for value in pair)
    assert "Doe" not in repr(table)
    assert "1.2.1" not in repr(table)


def test_drawn_lesions_are_what_they_say_or_what_their_image_is(source: Path) -> None:
    shapes = [
        {"label": "mass", "shape_type": "rectangle", "points": [[1, 2], [30, 40]]},
        {"label": "benign calcification", "shape_type": "polygon", "points": [[1, 2], [30, 40], [5, 50]]},
    ]
    drawn = source.parent / "drawn"
    drawn.mkdir()
    for name in ("unique.png", "IM1.png", "film_L_CC.png", "gone.png"):
        (drawn / f"{name}.json").write_text(json.dumps({"imagePath": name, "shapes": shapes}))
    labels = small.table(source.parent / "labels.csv", "image,pathology\nunique,MALIGNANT\nfilm_L_CC,NORMAL")
    table = folder.read_table(source, source.parent, labels, drawn)
    lesions = {i.image: [(x.pathology, x.abnormality) for x in i.lesions] for i in table.images}
    assert lesions["3/unique.dcm"] == [("MALIGNANT", "mass"), ("BENIGN", "calcification")]
    assert lesions["film_L_CC.png"] == [("BENIGN", "calcification")]
    reasons = dict(table.rejected)
    assert (reasons["IM1.png"], "not in the folder" in reasons["gone.png"]) == (folder._SEVERAL, True)
    assert "neither benign nor malignant" in reasons["film_L_CC.png"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("laterality,pathology\nL,BENIGN", "no column says what a row is of"),
     ("image,pathology,outline\na,BENIGN,", "it is a manifest already"), ("image\na", "column pathology is missing")],
)  # fmt: skip
def test_a_table_that_cannot_be_joined_is_one_sentence(source: Path, text: str, words: str) -> None:
    with pytest.raises(BadManifest, match=words):
        _labels(source, text)


def test_no_table_and_no_mammogram(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match="--labels"):
        folder.read_table(source, tmp_path, tmp_path / "none.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadManifest, match="no mammogram is below the source folder"):
        folder.read_table(tmp_path / "empty", tmp_path)
