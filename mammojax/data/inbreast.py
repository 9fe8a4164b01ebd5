"""INbreast as distributed: AllDICOMs/, AllXML/ and INbreast.csv (Moreira et al. 2012, Acad Radiol 19(2)).

Labels as in Shen et al. 2019: BI-RADS 1 and 2 negative, 4, 5 and 6 positive, 3 left out ("typically not given at
screening"). The set has no pathology, so a lesion is as malignant as its image is taken to be. Where
files and CSV differ: the patient is the hash in the DICOM's name (the column reads "removed"), "ML" in the name means
MLO, images without findings have no XML, and names of findings are misspelt.
"""

import csv
import hashlib
import plistlib
import re
from pathlib import Path
from typing import Any

from mammojax.data import birads, download, manifest
from mammojax.errors import BadManifest

LICENCE = "research use (Moreira et al. 2012)"
CSV = "INbreast.csv"
COLUMNS = ("File Name", "Laterality", "View", "Acquisition date", "ACR", "Bi-Rads")
FILE = re.compile(r"(\d+)_([0-9a-zA-Z]+)_MG_([LR])_([A-Z]+)_ANON\.dcm")
_AS_VIEW = {"ML": "MLO"}


def digest(source: Path) -> str:
    """Eight hex digits that tell one INbreast.csv from another."""
    return hashlib.sha256(download.find(source, CSV).read_bytes()).hexdigest()[:8]


def pathology(category: str) -> str | None:
    """NORMAL (BI-RADS 1), BENIGN (2) or MALIGNANT (4, 4a … 6); None for 3, 0 and any other text."""
    return birads.pathology(category) or None


def abnormality(name: str) -> str:
    """ "mass" or "calcification" for a region's name, however it is spelt; "" for other names.

    Spiculated regions, distortions and asymmetries are masses to a classifier with two kinds of lesion.
    """
    word = name.strip().lower()
    if word.startswith(("calc", "cluster")):
        return "calcification"
    return "mass" if word.startswith(("mass", "spic", "espic", "dist", "asym", "assym", "arch")) else ""


def read_regions(path: Path) -> list[tuple[str, tuple[tuple[float, float], ...]]]:
    """(name, outline) of each region in an XML file; an outline is (x, y) in pixels of the image, maybe of one point.

    Raises:
        ValueError: the file is no such list.
    """
    try:
        regions = plistlib.loads(path.read_bytes())["Images"][0]["ROIs"]
        return [(str(region.get("Name", "")), tuple(_point(p) for p in region["Point_px"])) for region in regions]
    except Exception as error:  # plistlib raises the many errors of its XML parser
        raise ValueError(f"it is no list of regions ({type(error).__name__}); get the file again") from None


def _point(text: str) -> tuple[float, float]:
    x, y = re.findall(r"-?\d+(?:\.\d+)?", text)
    return float(x), float(y)


def splits(images: list[manifest.Image], split: str, seed: int) -> dict[str, str]:
    """Patient → train, val or test.

    "shen": 70:30 by patient, stratified (Shen et al. 2019), and a tenth of the training patients for validation: the
    paper names none, we choose the best epoch by it. "all": 85:15, then 90:10.
    """
    if split == "all":
        return manifest.three_way(images, seed)
    rest, test = manifest.split_patients(images, (0.7, 0.3), seed)
    train, val = manifest.split_patients([image for image in images if image.patient_id in rest], (0.9, 0.1), seed + 1)
    return {p: name for name, group in (("train", train), ("val", val), ("test", test)) for p in group}


def read_table(source: Path) -> manifest.Table:
    """All images of the CSV that have a file and a label; `rejected` lists the others.

    Raises:
        BadManifest: the CSV or the folder of DICOMs is absent, or the CSV lacks a column.
    """
    file = download.find(source, CSV)
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as text:
        reader = csv.DictReader(text, delimiter=";")
        names = [(name or "").strip() for name in reader.fieldnames or ()]
        if missing := [column for column in COLUMNS if column not in names]:
            raise BadManifest(f'{CSV} lacks the column "{missing[0]}"; its cells are separated by semicolons.')
        reader.fieldnames = names
        rows = [{k: (v or "").strip() for k, v in row.items() if isinstance(k, str)} for row in reader]
    folder = download.find(source, "AllDICOMs")
    files: dict[str, Any] = {}
    table = manifest.Table([])
    for path in sorted(p for p in folder.rglob("*.dcm") if p.name[0] != "."):  # macOS copies each file as ._NAME
        match = FILE.fullmatch(path.name)
        if match is None:  # named by its number alone: the rest may be the patient
            number = re.match(r"\d*", path.name)[0] or "AllDICOMs"  # type: ignore[index]
            table.rejected.append((number, "a file's name is not <File Name>_<patient>_MG_<side>_<view>_ANON.dcm"))
        elif match[1] in files:
            table.rejected.append((match[1], "AllDICOMs has several files of that number; the first is taken"))
        else:
            files[match[1]] = (path, match)
    regions = {path.stem: path for path in sorted(source.rglob("*.xml"))}
    exams: dict[tuple[str, str], str] = {}  # dates stay out of the data set: a patient's exams are counted
    for row in sorted(rows, key=lambda r: (r["Acquisition date"], r["File Name"])):
        name = row["File Name"]
        if not name:
            continue  # the spreadsheet's empty lines
        if name not in files:
            table.rejected.append((name, "the CSV lists it, but AllDICOMs has no file of that number"))
            continue
        path, match = files.pop(name)
        label = pathology(row["Bi-Rads"])
        if label is None:
            table.rejected.append((name, f'BI-RADS "{row["Bi-Rads"]}" is neither 1, 2 nor 4 to 6, so it has no label'))
            continue
        patient = match[2]
        number = sum(1 for owner, _ in exams if owner == patient) + 1
        exam = exams.setdefault((patient, row["Acquisition date"]), str(number))
        view = row["View"].upper() or match[4]
        table.images.append(
            manifest.Image(
                image=name, path=path, patient_id=patient, exam_id=exam, laterality=(row["Laterality"] or match[3])[:1],
                view=_AS_VIEW.get(view, view), pathology=label, density=row["ACR"],
                columns={"birads": row["Bi-Rads"].lower(), "label_source": birads.SOURCE},
                lesions=_lesions(name, regions.get(name), label, table),
            )
        )  # fmt: skip
    for name in files:
        table.rejected.append((name, "it is in AllDICOMs, but the CSV does not list it"))
    if not table.images:
        raise BadManifest(f"no row of {CSV} has both a label and a DICOM; give the whole download.")
    return table


def _lesions(name: str, path: Path | None, label: str, table: manifest.Table) -> tuple[manifest.Lesion, ...]:
    if path is None:
        return ()
    try:
        regions = read_regions(path)
    except ValueError as error:
        table.rejected.append((f"{name}.xml", f"{error}; the image has no lesions then"))
        return ()
    grade = "MALIGNANT" if label == "MALIGNANT" else "BENIGN"
    return tuple(
        manifest.Lesion(None, grade, abnormality(kind), outline=outline) for kind, outline in regions if outline
    )
