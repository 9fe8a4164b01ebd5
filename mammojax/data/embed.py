"""EMBED open data (Jeong et al. 2023, Radiology: Artificial Intelligence 5(1)): two tables and a tree of DICOMs.

From the README of github.com/Emory-HITI/EMBED_Open_Data: images are <cohort>/<patient>/<study>/<SOP instance>.dcm.
EMBED_OpenData_metadata.csv has a row per file: empi_anon (patient), acc_anon (exam), anon_dicom_path, FinalImageType
("2D", "C-view"), ImageLateralityFinal, ViewPosition, spot_mag (1: spot or magnification), ROI_coords (a list of
"ymin, xmin, ymax, xmax"). EMBED_OpenData_clinical.csv has a row per finding: the same ids, side (L, R, B or empty:
both), asses (A N B P S M K for BI-RADS 0 to 6), tissueden (1 to 4: A to D), massshape, calcfind, bside (side of the
tissue), path_severity (0 invasive cancer, 1 non-invasive cancer, 2 high-risk lesion, 3 borderline lesion, 4 benign,
5 normal tissue, 6 cancer other than of the breast). Both are joined by patient, exam and side. There is no official
split. Use is personal, non-commercial research; models trained on it may not be released without permission.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mammojax.data import birads, download, outline
from mammojax.data.manifest import BIRADS_ORDER, Image, Lesion, Table
from mammojax.errors import BadManifest

LICENCE = "EMBED Research Use Agreement: non-commercial research; no models trained on it may be released"
_FILE = ("empi_anon", "acc_anon", "anon_dicom_path", "finalimagetype", "imagelateralityfinal", "viewposition")
_FILE_MORE = ("spot_mag", "roi_coords", "manufacturer")
_FINDING = ("empi_anon", "acc_anon", "side", "asses", "path_severity")
_FINDING_MORE = ("bside", "tissueden", "massshape", "calcfind", "race_desc")
_CATEGORIES = dict(zip("ANBPSMK", "0123456", strict=True))
_SEVERITIES = {"0": "MALIGNANT", "1": "MALIGNANT", **dict.fromkeys("2345", "BENIGN")}
Finding = dict[str, str]


def read_table(source: Path, three: str = "unknown") -> Table:
    """All 2-D images that are no spot or magnification views and have a file.

    A breast's label is its worst pathology in that exam: cancer MALIGNANT, any other tissue BENIGN. Without pathology
    it is the category's: 1 NORMAL, 2 BENIGN, 6 MALIGNANT, 3 as `three` says; 0, 4 and 5 are unknown, as nobody looked
    at the tissue. A box has the label of its breast, and its abnormality if all findings of the breast are of one kind.

    Args:
        source: the download.
        three: what is made of BI-RADS 3, see `birads.THREE`.

    Raises:
        BadManifest: a table is absent or lacks a column, or no image is there.
    """
    clinical = download.find(source, "EMBED_OpenData_clinical.csv", "EMBED_OpenData_clinical_reduced.csv")
    metadata = download.find(source, "EMBED_OpenData_metadata.csv", "EMBED_OpenData_metadata_reduced.csv")
    findings: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for row in download.rows(clinical, _FINDING, _FINDING_MORE):
        findings[row["empi_anon"], row["acc_anon"]].append(row)
    files, table = download.images(source), Table([])
    for row in download.rows(metadata, _FILE, _FILE_MORE):
        name = Path(row["anon_dicom_path"]).stem
        side = row["imagelateralityfinal"].upper()[:1]
        breast = [f for f in findings[row["empi_anon"], row["acc_anon"]] if f["side"].upper()[:1] in (side, "B", "")]
        if reason := _unused(row, files, breast):
            table.rejected.append((name, reason))
            continue
        pathology, label_source = _label(breast, side, three)
        categories = [_CATEGORIES.get(f["asses"].upper()[:1], "") for f in breast]
        columns = {
            "label_source": label_source, "finding": _kind(breast), "vendor": row["manufacturer"],
            "birads": max((c for c in categories if c), key=BIRADS_ORDER.index, default=""),
            "race": breast[0]["race_desc"], "biopsied": str(int(label_source == "biopsy")),
        }  # fmt: skip
        table.images.append(
            Image(
                image=name, path=files[name], patient_id=row["empi_anon"], exam_id=row["acc_anon"], laterality=side,
                view=row["viewposition"].upper(), pathology=pathology, columns=columns,
                density={"1": "A", "2": "B", "3": "C", "4": "D"}.get(breast[0]["tissueden"], ""),
                lesions=_lesions(row["roi_coords"], pathology, _kind(breast)),
            )
        )  # fmt: skip
    if not table.images:
        raise BadManifest(f"no 2-D image of {metadata.name} is below the source folder; give the whole download.")
    return table


def _unused(row: dict[str, str], files: dict[str, Path], breast: Sequence[Finding]) -> str:
    """Why a file is left out, or ""."""
    if row["finalimagetype"].upper() != "2D":
        return f"FinalImageType is {row['finalimagetype']}, no digital mammogram"
    if row["spot_mag"] == "1":
        return "it is a spot or magnification view"
    if not breast:
        return "the clinical table has no row of its exam and side"
    return "" if Path(row["anon_dicom_path"]).stem in files else "the metadata list it, but there is no file of it"


def _label(breast: Sequence[Finding], side: str, three: str) -> tuple[str, str]:
    """(pathology, label_source) of a breast."""
    severities = {f["path_severity"] for f in breast if f["bside"].upper()[:1] in (side, "")} - {""}
    if known := [_SEVERITIES[severity] for severity in sorted(severities) if severity in _SEVERITIES]:
        return known[0], "biopsy"  # sorted: the worst first
    if severities:  # a cancer that did not begin in the breast is neither
        return "", "biopsy"
    numbers = {_CATEGORIES.get(f["asses"].upper()[:1], "") for f in breast}
    if "6" in numbers:
        return "MALIGNANT", birads.SOURCE
    if numbers & {"0", "4", "5", ""}:
        return "", ""
    return birads.pathology(max(numbers), three), birads.SOURCE


def _kind(breast: Sequence[Finding]) -> str:
    """ "mass" or "calcification" where all findings of a breast are of that kind, else ""."""
    kinds = {"mass" for f in breast if f["massshape"]} | {"calcification" for f in breast if f["calcfind"]}
    return kinds.pop() if len(kinds) == 1 else ""


def _lesions(cell: str, pathology: str, kind: str) -> tuple[Lesion, ...]:
    """The boxes of ROI_coords, "[[ymin, xmin, ymax, xmax], …]", as lesions of a breast with a finding."""
    if pathology not in ("BENIGN", "MALIGNANT"):
        return ()
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", cell)]
    corners = [numbers[k : k + 4] for k in range(0, len(numbers) - 3, 4)]
    return tuple(
        Lesion(None, pathology, kind, outline=outline.box(left, top, right, bottom))
        for top, left, bottom, right in corners
    )
