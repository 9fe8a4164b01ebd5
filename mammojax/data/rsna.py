"""RSNA Screening Mammography Breast Cancer Detection (2022), train.csv and train_images/.

From the data's own page (github.com/RSNA/AI-Challenge-Data, wiki "RSNA Screening Mammography Breast Cancer Detection"):
images are [train/test]_images/<patient_id>/<image_id>.dcm, usually four a patient; train.csv has a row per image with
site_id, patient_id, image_id, laterality, view, age, cancer, biopsy, invasive, BIRADS, implant, density, machine_id,
difficult_negative_case. `cancer`, `biopsy` and `invasive` are of the breast, so both its views have them. BIRADS is 0
(follow-up needed), 1 (negative) or 2 (normal), and one site gives none. The labels of the test images are not public,
so there is no official split to measure on. Non-commercial use only.
"""

from pathlib import Path

from mammojax.data import download
from mammojax.data.manifest import Image, Table
from mammojax.errors import BadManifest

LICENCE = "non-commercial use, no attempt to identify anybody (page of the RSNA challenge)"
_REQUIRED = ("patient_id", "image_id", "laterality", "view", "cancer")
_OPTIONAL = ("biopsy", "invasive", "birads", "density", "age", "implant", "site_id", "machine_id",
             "difficult_negative_case")  # fmt: skip


def read_table(source: Path) -> Table:
    """All images of train.csv that have a file, as DICOM or converted to another format under the same name.

    A cancer is MALIGNANT, a breast without cancer BENIGN where it was biopsied, else NORMAL; the label of the last is
    the screening's reading, not a biopsy's. No place of a lesion is given.

    Raises:
        BadManifest: train.csv is absent or lacks a column, or no image is there.
    """
    csv = download.find(source, "train.csv")
    files, table = download.images(csv.parent), Table([])
    for row in download.rows(csv, _REQUIRED, _OPTIONAL):
        name, patient = row["image_id"], row["patient_id"]
        path = files.get(name) or files.get(f"{patient}_{name}")
        pathology = _pathology(row["cancer"], row["biopsy"])
        if path is None:
            table.rejected.append((name, "train.csv lists it, but there is no file of that name"))
            continue
        columns = {
            "label_source": "biopsy" if "1" in (row["cancer"], row["biopsy"]) else "reading",
            "biopsied": row["biopsy"], "birads": row["birads"],
            **{column: row[column] for column in ("invasive", "age", "implant", "difficult_negative_case")},
            "site": row["site_id"], "machine": row["machine_id"],
        }  # fmt: skip
        table.images.append(
            Image(
                image=name, path=path, patient_id=patient, exam_id=patient, laterality=row["laterality"][:1].upper(),
                view=row["view"].upper(), pathology=pathology, density=row["density"], columns=columns,
            )
        )  # fmt: skip
    if not table.images:
        raise BadManifest("no image of train.csv is below its folder; put train.csv beside train_images.")
    return table


def _pathology(cancer: str, biopsy: str) -> str:
    if cancer == "1":
        return "MALIGNANT"
    return {"0": "BENIGN" if biopsy == "1" else "NORMAL"}.get(cancer, "")
