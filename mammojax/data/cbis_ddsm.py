"""CBIS-DDSM as downloaded from TCIA: four CSVs and a tree of DICOMs (Lee et al. 2017, CC BY 3.0).

Downloads differ in depth and file names (000000.dcm under UID folders; 1-1.dcm under dated ones), and the CSVs' crop
and mask columns are swapped in some rows, as are some descriptions. So the reader finds files by the folder of their
image or lesion, such as Mass-Training_P_00001_LEFT_CC_1, or else by the UIDs of their headers. It tells mask and crop
apart by size and content, and only then by SeriesDescription. Ambiguous files are listed and not used. An example is
(patient, side, view): mass and calcification folders of one view are merged, with all their masks.
"""

import csv
import hashlib
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from mammojax.data import manifest
from mammojax.data.dicom import peek, read_mask
from mammojax.errors import BadMammogram, BadManifest

LICENCE = "CC BY 3.0 (TCIA)"
FOLDER = re.compile(r"(Mass|Calc)-(Training|Test)_P_\d+_(LEFT|RIGHT)_(CC|MLO)(_\d+)?")
PATHOLOGIES = {"MALIGNANT": "MALIGNANT", "BENIGN": "BENIGN", "BENIGN_WITHOUT_CALLBACK": "BENIGN"}
CSVS = {
    (kind, half): f"{kind}_case_description_{half}_set.csv" for kind in ("mass", "calc") for half in ("train", "test")
}


@dataclass(frozen=True)
class CsvRow:
    """One lesion of the CSVs.

    Attributes:
        pathology: "BENIGN" or "MALIGNANT", or "" where the cell holds another word.
        image_uids: StudyInstanceUID and SeriesInstanceUID of the full mammogram, as the path's cell has them.
        lesion_uids: those of crop and mask, which the cells may have swapped.
        biopsied: whether its pathology is of a biopsy; that of BENIGN_WITHOUT_CALLBACK is of a reading.
    """

    patient: str
    side: str
    view: str
    abnormality: str
    pathology: str
    density: str
    official: str
    image_folder: str
    lesion_folder: str
    image_uids: tuple[str, ...] = ()
    lesion_uids: tuple[str, ...] = ()
    biopsied: bool = True


def _csv(source: Path, name: str) -> Path:
    """One of the four CSVs, at the top of the source folder or anywhere in it."""
    files = [source / name] if (source / name).is_file() else sorted(source.rglob(name))
    if not files:
        raise BadManifest(f"{name} is not in the source folder; download it from TCIA beside the images.")
    return files[0]


def digest(source: Path) -> str:
    """Eight hex digits that tell one set of four CSVs from another."""
    return hashlib.sha256(b"".join(_csv(source, name).read_bytes() for name in CSVS.values())).hexdigest()[:8]


def read_rows(source: Path) -> list[CsvRow]:
    """All rows of the four CSVs, in their order. Raises BadManifest where one is absent or lacks a column."""
    rows = []
    for (kind, half), name in CSVS.items():
        with _csv(source, name).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for cells in reader:
                cells = {str(k).replace("_", " "): (v or "").strip() for k, v in cells.items() if isinstance(v, str)}
                try:
                    image, mask = cells["image file path"].split("/"), cells["ROI mask file path"].split("/")
                    crop = cells.get("cropped image file path", "").split("/")
                    rows.append(
                        CsvRow(
                            cells["patient id"], {"LEFT": "L", "RIGHT": "R"}[cells["left or right breast"]],
                            cells["image view"], {"mass": "mass", "calc": "calcification"}[kind],
                            PATHOLOGIES.get(cells["pathology"], ""), cells["breast density"], half,
                            image[0], mask[0], tuple(image[1:-1]), (*crop[1:-1], *mask[1:-1]),
                            cells["pathology"] != "BENIGN_WITHOUT_CALLBACK",
                        )
                    )  # fmt: skip
                except KeyError as error:
                    raise BadManifest(
                        f"{name}, line {reader.line_num}: {error} is no column or value of CBIS-DDSM; get it again."
                    ) from None
    return rows


def official_halves(rows: list[CsvRow]) -> dict[str, str]:
    """Patient → "train" or "test"; the 31 patients of both halves go to train."""
    halves: dict[str, str] = {}
    for row in rows:
        if halves.get(row.patient) != "train":
            halves[row.patient] = row.official
    return halves


def views(rows: list[CsvRow]) -> dict[tuple[str, str, str], list[CsvRow]]:
    """The rows of each (patient, side, view)."""
    grouped = defaultdict(list)
    for row in rows:
        grouped[row.patient, row.side, row.view].append(row)
    return dict(grouped)


def splits(rows: list[CsvRow], images: list[manifest.Image], split: str, seed: int) -> dict[str, str]:
    """Patient → train, val or test.

    "shen": 85:15 and 90:10 of the official training patients, among whose images the authors' own lie; "all": the same
    of all patients; "official": the official test, and 90:10 of the official training patients.
    """
    halves = official_halves(rows)
    training = [i for i in images if halves[i.patient_id] == "train"]
    if split == "official":
        train, val = manifest.split_patients(training, (0.9, 0.1), seed)
        return dict.fromkeys(train, "train") | dict.fromkeys(val, "val") | {
            p: "test" for p, half in halves.items() if half == "test"
        }  # fmt: skip
    return manifest.three_way(images if split == "all" else training, seed)


class Files:
    """The DICOM files of a download.

    Attributes:
        by_folder: image or lesion folder, such as Mass-Training_P_00001_LEFT_CC_1 → its files at any depth.
        by_uid: study or series → its files, of those in no such folder.
    """

    def __init__(self, source: Path) -> None:
        """Walk the tree once, links included; only headers of files in unknown folders are read."""
        self.by_folder: dict[str, list[Path]] = defaultdict(list)
        self.by_uid: dict[str, list[Path]] = defaultdict(list)
        visited = set()
        for folder, below, names in os.walk(source, followlinks=True):
            real = os.path.realpath(folder)
            if real in visited:  # a link to a folder above would never end
                below.clear()
                continue
            visited.add(real)
            owner = next((part for part in reversed(Path(folder).parts) if FOLDER.fullmatch(part)), None)
            paths = [Path(folder) / name for name in sorted(names) if name.lower().endswith(".dcm") and name[0] != "."]
            if owner:
                self.by_folder[owner] += paths
            else:
                for path in paths:
                    for uid in _uids(path):
                        self.by_uid[uid].append(path)

    def of(self, folder: str, uids: tuple[str, ...]) -> list[Path]:
        """The files of an image or lesion, sorted."""
        return sorted(self.by_folder.get(folder) or {path for uid in uids for path in self.by_uid.get(uid, ())})


def _uids(path: Path) -> set[str]:
    """Study and series of a file's header."""
    keywords = ("StudyInstanceUID", "SeriesInstanceUID")
    header = peek(path, *keywords)
    return {str(header[keyword].value) for keyword in keywords if keyword in header} - {""}


def read_tree(source: Path, rows: list[CsvRow]) -> manifest.Table:
    """Join the rows with the files; `rejected` of the table lists every row left out, with its reason."""
    files, table = Files(source), manifest.Table([])
    for (patient, side, view), group in views(rows).items():
        table.rejected += [
            (row.lesion_folder, "its pathology is none of CBIS-DDSM's; the lesion is left out")
            for row in group if not row.pathology
        ]  # fmt: skip
        group = [row for row in group if row.pathology]
        folders = dict(sorted((row.image_folder, row.image_uids) for row in group))
        files_of = {folder: files.of(folder, uids) for folder, uids in folders.items()}
        images = {folder: _full(files_of[folder], uids) for folder, uids in folders.items()}
        full = next((path for path in images.values() if path), None)
        several = "several files could be the full mammogram; leave it one"
        table.rejected += [(folder, several) for folder in folders if files_of[folder] and not images[folder]]
        if full is None:
            why = several if any(files_of.values()) else "its full mammogram is not in the source folder"
            table.rejected += [(row.lesion_folder, why) for row in group]
            continue
        lesions = []
        for row in group:
            candidates = files.of(row.lesion_folder, row.lesion_uids)
            mask, why = _mask(candidates, images[row.image_folder] or full)
            if mask is None:
                table.rejected.append((row.lesion_folder, f"{why}; the lesion gives no patches"))
            lesions.append(manifest.Lesion(mask, row.pathology, row.abnormality))
        table.images.append(
            manifest.Image(
                image=next(iter(folders)), path=full, patient_id=patient, exam_id=patient, laterality=side, view=view,
                pathology=manifest.worst(row.pathology for row in group), lesions=tuple(lesions),
                density=group[0].density,
                columns={"label_source": "biopsy" if any(row.biopsied for row in group) else "reading"},
            )
        )  # fmt: skip
    if not table.images:
        raise BadManifest(
            f"none of the {len(rows)} rows of the CSVs has its image below the source folder; give the folder that "
            "holds both the CSVs and the DICOM folders."
        )
    return table


def _full(candidates: list[Path], uids: tuple[str, ...]) -> Path | None:
    """The full mammogram among an image's files: the only one, or that of the CSV's series; copies count as one."""
    if len(candidates) > 1:
        candidates = [path for path in candidates if set(uids) & _uids(path)] or candidates
        candidates = [path for path in candidates if set(uids) <= _uids(path)] or candidates
    return _single(candidates)


def _single(paths: list[Path]) -> Path | None:
    """The first of files that are copies of each other; None where they differ, or there is none."""
    if len(paths) > 1 and len({hashlib.sha256(path.read_bytes()).digest() for path in paths}) > 1:
        return None
    return paths[0] if paths else None


def _mask(candidates: list[Path], full: Path) -> tuple[Path | None, str]:
    """The mask among a lesion's files, or None and why.

    A mask has its mammogram's size, or (some of CBIS-DDSM's) nearly that or its aspect, and two values; a crop has the
    size of a lesion and gray values. SeriesDescription decides last: where one series holds both, both are described
    as masks, and other series have their descriptions swapped. Pixels are decoded only where the headers do not decide:
    3,500 masks of 20 million pixels take a while.
    """
    if not candidates:
        return None, "no mask in the source folder"
    shape = _shape(full)
    alike = [path for path in candidates if shape is not None and _shape(path) == shape]
    if len(alike) == 1 and _described(alike[0]) != "crop" and _bits(alike[0]) <= 8:
        return alike[0], ""
    possible = [path for path in candidates if _plausible(_shape(path), shape) and _two_values(path)]
    if not possible:
        return None, "no mask among its files: none has its mammogram's size or aspect, and two values"
    possible = [path for path in possible if path in alike] or possible
    if len(possible) > 1:
        possible = [path for path in possible if _described(path) == "mask"] or possible
    mask = _single(possible)
    return mask, "" if mask else "no mask is certain: several of its files could be it"


def _shape(path: Path) -> tuple[int, int] | None:
    """Rows and Columns of the header, None where it cannot be read: then the pixels decide."""
    header = peek(path, "Rows", "Columns")
    sides = header.get("Rows"), header.get("Columns")
    return sides if isinstance(sides[0], int) and isinstance(sides[1], int) else None


def _bits(path: Path) -> int:
    """BitsAllocated: CBIS-DDSM's masks have 8, its mammograms and crops 16."""
    bits = peek(path, "BitsAllocated").get("BitsAllocated")
    return bits if isinstance(bits, int) else 16


def _described(path: Path) -> str:
    """What SeriesDescription calls a lesion's file: "mask", "crop" or ""."""
    text = str(peek(path, "SeriesDescription").get("SeriesDescription", "")).lower()
    return next((word for word in ("mask", "crop") if word in text), "")


def _plausible(shape: tuple[int, int] | None, full: tuple[int, int] | None) -> bool:
    """Whether a mask of that size can be of that mammogram: half to twice its sides, or its aspect within 2 %."""
    if shape is None or full is None or 0 in (*shape, *full):
        return True
    down, across = shape[0] / full[0], shape[1] / full[1]
    return 0.5 <= min(down, across) <= max(down, across) <= 2 or abs(down / across - 1) < 0.02


def _two_values(path: Path) -> bool:
    """Whether a file's pixels have two values: a mask's, never a mammogram's."""
    try:
        pixels = read_mask(path)
    except BadMammogram:
        return False
    low, high = pixels.min(), pixels.max()
    return bool(low < high and ((pixels == low) | (pixels == high)).all())
