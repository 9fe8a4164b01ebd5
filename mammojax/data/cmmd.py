"""CMMD, The Chinese Mammography Database (Cui et al. 2021, TCIA, doi.org/10.7937/tcia.eqde-4b16), CC BY 4.0.

CMMD_clinicaldata_revision.xlsx has a row per breast: ID1 (the patient, "D1-0001"), LeftRight, Age, number, abnormality
("calcification", "mass", "both"), classification ("Benign", "Malignant", by biopsy), subtype (molecular, of part D2).
Images lie in CMMD/<ID1>/…/1-1.dcm; side and view stand in the DICOM headers alone (ImageLaterality; ViewCodeSequence
399162004 for CC, 399368009 for MLO). No place of a lesion is given, and no split.
"""

import re
from pathlib import Path

from mammojax.data import download, projection
from mammojax.data.dicom import peek
from mammojax.data.identity import patient_in
from mammojax.data.manifest import Image, Table, worst
from mammojax.errors import BadManifest

LICENCE = "CC BY 4.0 (TCIA)"
_PATIENT = re.compile(r"D[12]-\d+")
_PATHOLOGIES = {"benign": "BENIGN", "malignant": "MALIGNANT"}


def read_table(source: Path) -> Table:
    """All DICOMs of patients in the clinical table; the pathology of a breast without a row is unknown.

    Raises:
        BadManifest: the clinical table is absent or lacks a column, or no image of its patients is there.
    """
    clinical = download.find(source, "CMMD_clinicaldata_revision.csv", "CMMD_clinicaldata_revision.xlsx")
    breasts: dict[tuple[str, str], list[dict[str, str]]] = {}
    required, optional = ("id1", "leftright", "classification"), ("age", "abnormality", "subtype")
    for row in download.rows(clinical, required, optional):
        breasts.setdefault((row["id1"], row["leftright"].upper()[:1]), []).append(row)
    patients, table = {patient for patient, _ in breasts}, Table([])
    for path in download.walk(source):
        if path.suffix.lower() not in (".dcm", ".dicom"):
            continue
        name = path.relative_to(source).as_posix()
        patient = next((part for part in path.parts[::-1] if _PATIENT.fullmatch(part)), "") or patient_in(path)
        if patient not in patients:
            table.rejected.append((name, f"{clinical.name} has no row of its patient"))
            continue
        header = peek(path, *projection.KEYWORDS)
        side, (view, _) = projection.laterality(header, path), projection.view(header, path)
        if not side:
            table.rejected.append((name, "its header does not say which breast it shows"))
            continue
        rows = breasts.get((patient, side), [])
        columns = {column: next((r[column] for r in rows if r[column]), "") for column in optional}
        columns["finding"] = columns.pop("abnormality")  # of the breast: no view is known to show it
        columns["label_source"] = "biopsy" if rows else ""
        pathology = worst(_PATHOLOGIES.get(row["classification"].lower(), "") for row in rows)
        table.images.append(
            Image(
                image=name, path=path, patient_id=patient, exam_id=patient, laterality=side, view=view,
                pathology=pathology, columns=columns,
            )
        )  # fmt: skip
    if not table.images:
        raise BadManifest(f"no DICOM of a patient of {clinical.name} is below the source folder; give the whole CMMD.")
    return table
