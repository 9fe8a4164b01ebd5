"""CBIS-DDSM as downloaded from TCIA: four CSVs and a tree of DICOMs (Lee et al. 2017, CC BY 3.0).

Downloads differ in depth and file names (000000.dcm under UID folders; 1-1.dcm under dated ones), and the CSVs' crop
and mask columns are swapped in some rows. So files are found by the folder of their image or lesion, such as
Mass-Training_P_00001_LEFT_CC_1, and mask and crop are told apart by SeriesDescription, then by content.
An example is (patient, side, view): mass and calcification folders of one view are merged, with all their masks.
"""

import csv
import hashlib
import os
import re
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pydicom

from mammojax.data import manifest
from mammojax.data.builders.mammograms import MammogramBuilder
from mammojax.data.dicom import BadMammogram, read_mask, series_description

FOLDER = re.compile(r"(Mass|Calc)-(Training|Test)_P_\d+_(LEFT|RIGHT)_(CC|MLO)(_\d+)?")
PATHOLOGIES = {"MALIGNANT": "MALIGNANT", "BENIGN": "BENIGN", "BENIGN_WITHOUT_CALLBACK": "BENIGN"}
CSVS = {
    (kind, half): f"{kind}_case_description_{half}_set.csv" for kind in ("mass", "calc") for half in ("train", "test")
}


@dataclass(frozen=True)
class Row:
    """One lesion of the CSVs; `pathology` is "BENIGN" or "MALIGNANT", or "" where the cell says nothing known."""

    patient: str
    side: str
    view: str
    abnormality: str
    pathology: str
    density: str
    official: str
    image_folder: str
    lesion_folder: str


def _csv(source: Path, name: str) -> Path:
    """One of the four CSVs, at the top of the source folder or anywhere in it."""
    found = [source / name] if (source / name).is_file() else sorted(source.rglob(name))
    if not found:
        raise manifest.BadManifest(f"{name} is not in the source folder; download it from TCIA beside the images.")
    return found[0]


def digest(source: Path) -> str:
    """Eight hex digits that tell one set of four CSVs from another."""
    return hashlib.sha256(b"".join(_csv(source, name).read_bytes() for name in CSVS.values())).hexdigest()[:8]


def read_rows(source: Path) -> list[Row]:
    """All rows of the four CSVs, in their order. Raises BadManifest where one is absent or lacks a column."""
    rows = []
    for (kind, half), name in CSVS.items():
        with _csv(source, name).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for cells in reader:
                cells = {str(k).replace("_", " "): (v or "").strip() for k, v in cells.items() if isinstance(v, str)}
                try:
                    rows.append(
                        Row(
                            cells["patient id"], {"LEFT": "L", "RIGHT": "R"}[cells["left or right breast"]],
                            cells["image view"], {"mass": "mass", "calc": "calcification"}[kind],
                            PATHOLOGIES.get(cells["pathology"], ""), cells["breast density"], half,
                            cells["image file path"].split("/")[0], cells["ROI mask file path"].split("/")[0],
                        )
                    )  # fmt: skip
                except KeyError as error:
                    raise manifest.BadManifest(
                        f"{name}, line {reader.line_num}: {error} is no column or value of CBIS-DDSM; get it again."
                    ) from None
    return rows


def official_halves(rows: list[Row]) -> dict[str, str]:
    """Patient → "train" or "test"; the 31 patients who stand in both halves go to train."""
    halves: dict[str, str] = {}
    for row in rows:
        if halves.get(row.patient) != "train":
            halves[row.patient] = row.official
    return halves


def views(rows: list[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """The rows of each (patient, side, view)."""
    grouped = defaultdict(list)
    for row in rows:
        grouped[row.patient, row.side, row.view].append(row)
    return dict(grouped)


def splits(rows: list[Row], images: list[manifest.Image], split: str, seed: int) -> dict[str, str]:
    """Patient → train, val or test.

    "shen": 85:15 and 90:10 of the official training patients, whose images the authors' own lie in; "all": the same of
    all patients; "official": the official test, and 90:10 of the official training patients.
    """
    halves = official_halves(rows)
    training = [i for i in images if halves[i.patient_id] == "train"]
    if split == "official":
        train, val = manifest.split_patients(training, (0.9, 0.1), seed)
        return dict.fromkeys(train, "train") | dict.fromkeys(val, "val") | {
            p: "test" for p, half in halves.items() if half == "test"
        }  # fmt: skip
    return manifest.three_way(images if split == "all" else training, seed)


class CbisDdsm(MammogramBuilder, skip_registration=True):  # type: ignore[call-arg]
    """CBIS-DDSM, or whatever has its shape on disk."""

    def _table(self) -> tuple[manifest.Table, dict[str, str]]:
        config = self.builder_config
        rows = read_rows(Path(config.source))
        table = read_tree(Path(config.source), rows)
        chosen = splits(rows, table.images, config.split, config.seed)
        return table, chosen


def _index(source: Path) -> dict[str, list[Path]]:
    """Image or lesion folder → its DICOM files at any depth; the tree is walked once, through links as well."""
    files: dict[str, list[Path]] = defaultdict(list)
    seen = set()
    for folder, below, names in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above would never end
            below.clear()
            continue
        seen.add(real)
        owner = next((part for part in reversed(Path(folder).parts) if FOLDER.fullmatch(part)), None)
        if owner:
            files[owner] += [Path(folder) / name for name in names if name.lower().endswith(".dcm") and name[0] != "."]
    return {owner: sorted(found) for owner, found in files.items()}


def read_tree(source: Path, rows: list[Row]) -> manifest.Table:
    """Join the rows with the files; every row that is left out stands in the table's `rejected` with its reason."""
    files, table = _index(source), manifest.Table([])
    for (patient, side, view), group in views(rows).items():
        table.rejected += [
            (row.lesion_folder, "its pathology is none of CBIS-DDSM's; the lesion is left out")
            for row in group if not row.pathology
        ]  # fmt: skip
        group = [row for row in group if row.pathology]
        folders = sorted({row.image_folder for row in group})
        full = next((path for folder in folders for path in files.get(folder, [])), None)
        if full is None:
            table.rejected += [(row.lesion_folder, "its full mammogram is not in the source folder") for row in group]
            continue
        lesions = []
        for row in group:
            mask = _mask(files.get(row.lesion_folder, []), full)
            if mask is None:
                table.rejected.append((row.lesion_folder, "no mask in the source folder; the lesion gives no patches"))
            lesions.append(manifest.Lesion(mask, row.pathology, row.abnormality))
        table.images.append(
            manifest.Image(
                image=folders[0], path=full, patient_id=patient, exam_id=patient, laterality=side, view=view,
                pathology=manifest.worst(row.pathology for row in group), lesions=tuple(lesions),
                density=group[0].density,
            )
        )  # fmt: skip
    if not table.images:
        raise manifest.BadManifest(
            f"none of the {len(rows)} rows of the CSVs has its image below the source folder; give the folder that "
            "holds both the CSVs and the DICOM folders."
        )
    return table


def _mask(candidates: list[Path], full: Path) -> Path | None:
    """The mask among a lesion's files: by SeriesDescription, then by its image's shape, then by having two values.

    Where one series holds both, both are described as masks. A crop has the size of a lesion; a mask has its image's
    shape, or (some of CBIS-DDSM's) nearly so. Only those that the headers leave open are decoded: 3,500 masks of 20
    million pixels take a while.
    """
    described = {path: series_description(path) for path in candidates}
    masks = [path for path, text in described.items() if "mask" in text]
    crops = [path for path, text in described.items() if "crop" in text and "mask" not in text]
    if len(masks) == 1 and len(crops) == len(candidates) - 1 > 0:
        return masks[0]
    left = [path for path in candidates if path not in crops]
    shape = _shape(full)
    alike = [path for path in left if _shape(path) == shape]
    if len(alike) == 1 and shape is not None:
        return alike[0]
    best, size = None, 0
    for path in alike or left:
        try:
            pixels = read_mask(path)
        except BadMammogram:
            continue
        low, high = pixels.min(), pixels.max()
        if pixels.size > size and low < high and ((pixels == low) | (pixels == high)).all():
            best, size = path, pixels.size
    return best


def _shape(path: Path) -> tuple[int, int] | None:
    """Rows and Columns of the header, None where it cannot be read: then the pixels decide."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"], force=True)
            return int(header.Rows), int(header.Columns)
    except Exception:  # pydicom raises many kinds on a broken header
        return None
