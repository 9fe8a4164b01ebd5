"""The one table that every data set becomes: an image a row, its lesions inside it."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

WORSE = {"": -1, "NORMAL": 0, "BENIGN": 1, "MALIGNANT": 2}
# Findings that are no calcification are masses to a patch classifier with two kinds of lesion (Shen et al. 2019).
ABNORMALITIES = {
    "mass": "mass", "calcification": "calcification", "": "",
    "architectural distortion": "mass", "asymmetry": "mass", "misc": "mass", "other": "mass",
}  # fmt: skip


_OWN = (
    "image", "patient_id", "exam_id", "laterality", "view", "pathology", "abnormality", "mask", "visible", "split",
    "horizontal_flip",
)  # fmt: skip


class BadManifest(ValueError):
    """A table that cannot be read, in one sentence: the file, the field, the remedy."""


@dataclass(frozen=True)
class Lesion:
    """One finding: its mask's file, or its outline, (x, y) in pixels of the image; occult with neither; "BENIGN" or
    "MALIGNANT"; "mass", "calcification" or ""."""

    mask: Path | None
    pathology: str
    abnormality: str
    visible: bool = True
    outline: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Image:
    """One mammogram of the table.

    Attributes:
        image: its name, verbatim from the table; unique.
        path: the file.
        patient_id, exam_id, laterality ("L", "R", ""), view: as the table says.
        pathology: the worst of its rows: "NORMAL", "BENIGN", "MALIGNANT", or "" where unknown.
        lesions: in the table's order.
        split: "train", "val", "test" where the table says, else "".
        horizontal_flip: "NO" (left breasts face right), "YES" (mirrored), or "" where the pixels are to tell.
        findings: (pathology, visible) of each row that says BENIGN or MALIGNANT, with or without a mask.
        columns: the table's further columns, such as density, birads, biopsied or age_band.
    """

    image: str
    path: Path
    patient_id: str
    exam_id: str = ""
    laterality: str = ""
    view: str = ""
    pathology: str = ""
    lesions: tuple[Lesion, ...] = ()
    density: str = ""
    split: str = ""
    horizontal_flip: str = ""
    findings: tuple[tuple[str, bool], ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> int:
        """1 malignant, 0 benign or normal, -1 unknown."""
        return {"": -1, "MALIGNANT": 1}.get(self.pathology, 0)


@dataclass
class Table:
    """The images of a data set, and the (file or row, reason) of everything that was left out."""

    images: list[Image]
    rejected: list[tuple[str, str]] = field(default_factory=list)


def worst(pathologies: Iterable[str]) -> str:
    """The worst pathology: NORMAL < BENIGN < MALIGNANT; "" where none is known."""
    return max(pathologies, key=WORSE.__getitem__, default="")


def read_manifest(path: str | Path) -> Table:
    """Read a manifest: CSV, a row for each image or lesion; docs/data.md describes the columns.

    Required columns: image, pathology. Optional: patient_id (default: the image's own name), exam_id, laterality,
    view, abnormality, mask, density, visible, split, horizontal_flip. Paths are relative to the CSV. Rows that cannot
    be used stand in `rejected` with their reason; other columns are kept as they are.

    Raises:
        BadManifest: no such file, a missing column, or no usable row.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.csv"
    if not path.is_file():
        raise BadManifest(f'"{path.name}": there is no such manifest; give the path of a CSV or of its folder.')
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"image", "pathology"} - set(reader.fieldnames or ())
            rows = [{k: (v or "").strip() for k, v in row.items() if isinstance(k, str)} for row in reader]
    except (UnicodeDecodeError, csv.Error):
        raise BadManifest(f"{path.name}: it is no CSV in UTF-8; save it as one, separated by commas.") from None
    if missing:
        raise BadManifest(f"{path.name}: the column {min(missing)} is missing; docs/data.md lists the columns.")
    table = Table([])
    groups: dict[str, list[dict[str, str]]] = {}
    for number, row in enumerate(rows, start=2):
        if reason := _wrong(row):
            table.rejected.append((row.get("image") or f"{path.name} line {number}", reason))
        else:
            groups.setdefault(row["image"], []).append(row)
    for name, group in groups.items():
        file_path = path.parent / name
        patients = {row["patient_id"] for row in group if row.get("patient_id")}
        # Rows of one image may leave a cell to another of its rows: the first that is filled counts.
        first = {column: next((r[column] for r in group if r[column]), "") for column in group[0]}
        if len(patients) > 1:
            table.rejected.append((name, "its rows name different patients"))
        elif not file_path.is_file():
            table.rejected.append((name, "the file does not exist"))
        else:
            lesions = tuple(_lesion(row, path.parent, table) for row in group if _is_lesion(row))
            table.images.append(
                Image(
                    image=name, path=file_path, patient_id=first.get("patient_id") or name,
                    exam_id=first.get("exam_id", ""), laterality=first.get("laterality", "").upper()[:1],
                    view=first.get("view", "").upper(), pathology=worst(row["pathology"].upper() for row in group),
                    lesions=lesions, density=first.get("density", ""), split=first.get("split", "").lower(),
                    horizontal_flip=first.get("horizontal_flip", "").upper(),
                    findings=tuple((r["pathology"].upper(), _visible(r)) for r in group if _is_finding(r)),
                    columns={column: value for column, value in first.items() if column not in _OWN},
                )
            )  # fmt: skip
    if not table.images:
        why = f"; the first: {table.rejected[0][0]}, {table.rejected[0][1]}" if table.rejected else ""
        raise BadManifest(f"{path.name}: no row can be used{why}.")
    return table


def _wrong(row: dict[str, str]) -> str:
    """Why a row cannot be used, or nothing."""
    if not row["image"]:
        return "image is empty"
    if row["pathology"].upper() not in WORSE:
        return f'pathology is "{row["pathology"]}"; write NORMAL, BENIGN, MALIGNANT or nothing'
    if row.get("abnormality", "").lower() not in ABNORMALITIES:
        return f'abnormality is "{row["abnormality"]}"; write mass or calcification'
    if row.get("laterality", "").upper() not in ("", "L", "R", "LEFT", "RIGHT"):
        return f'laterality is "{row["laterality"]}"; write L or R'
    if row.get("split", "").lower() not in ("", "train", "val", "test"):
        return f'split is "{row["split"]}"; write train, val or test'
    if row.get("horizontal_flip", "").upper() not in ("", "YES", "NO"):
        return f'horizontal_flip is "{row["horizontal_flip"]}"; write YES or NO'
    return ""


def _is_finding(row: dict[str, str]) -> bool:
    return row["pathology"].upper() in ("BENIGN", "MALIGNANT")


def _is_lesion(row: dict[str, str]) -> bool:
    return _is_finding(row) and bool(row.get("mask") or row.get("abnormality"))


def _lesion(row: dict[str, str], root: Path, table: Table) -> Lesion:
    mask = root / row["mask"] if row.get("mask") else None
    if mask is not None and not mask.is_file():
        table.rejected.append((row["mask"], f"the mask of {row['image']} does not exist; its lesion gives no patches"))
        mask = None
    abnormality = ABNORMALITIES[row.get("abnormality", "").lower()]
    return Lesion(mask, row["pathology"].upper(), abnormality, _visible(row))


def _visible(row: dict[str, str]) -> bool:
    return row.get("visible", "1").lower() not in ("0", "false")


def split_patients(images: Sequence[Image], fractions: Sequence[float], seed: int) -> list[set[str]]:
    """Divide the patients into len(fractions) groups, patients with a malignant image and others alike.

    "The splits were done in a stratified fashion to maintain the same proportion of cancer cases" (Shen et al. 2019).
    Depends on the ids and the seed alone, not on the order of the images.
    """
    malignant: dict[str, bool] = {}
    for image in images:
        malignant[image.patient_id] = malignant.get(image.patient_id, False) or image.label == 1
    groups: list[set[str]] = [set() for _ in fractions]
    rng = np.random.default_rng(seed)
    for stratum in (True, False):
        ids = np.array(sorted(p for p, m in malignant.items() if m is stratum), dtype=object)
        rng.shuffle(ids)
        ends = np.round(np.cumsum(fractions) / sum(fractions) * len(ids)).astype(int)
        for group, start, end in zip(groups, [0, *ends[:-1]], ends, strict=True):
            group.update(ids[start:end])
    return groups


def three_way(images: Sequence[Image], seed: int) -> dict[str, str]:
    """Patient → split: 85:15, then the 85 once more 90:10 (Shen et al. 2019: 1903, 199 and 376 images)."""
    rest, test = split_patients(images, (0.85, 0.15), seed)
    train, val = split_patients([i for i in images if i.patient_id in rest], (0.9, 0.1), seed + 1)
    return {p: name for name, group in (("train", train), ("val", val), ("test", test)) for p in group}
