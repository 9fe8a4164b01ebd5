"""The table that every data set becomes: one image per row, with its lesions."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mammojax.data import outline
from mammojax.data.cells import plain
from mammojax.data.identity import copies, hashed, id_key, patient_in
from mammojax.data.sheet import read_rows
from mammojax.errors import BadManifest, near_file

SPLITS = ("train", "val", "test")
WORSE = {"": -1, "NORMAL": 0, "BENIGN": 1, "MALIGNANT": 2}
# Findings that are no calcification are masses to a patch classifier with two kinds of lesion (Shen et al. 2019).
ABNORMALITIES = {
    "mass": "mass", "calcification": "calcification", "": "",
    "architectural distortion": "mass", "asymmetry": "mass", "misc": "mass", "other": "mass",
}  # fmt: skip


_REQUIRED = ("image", "pathology")
_OWN = (
    *_REQUIRED, "patient_id", "exam_id", "laterality", "view", "abnormality", "mask", "outline", "visible",
    "split", "horizontal_flip",
)  # fmt: skip
_KNOWN = (*_OWN, "density", "birads", "biopsied", "label_source")
BIRADS_ORDER = ("1", "2", "3", "0", "4", "4a", "4b", "4c", "5", "6")
"""BI-RADS categories by suspicion; any other text counts as the most suspicious, as it must not pass for a category.
"""


@dataclass(frozen=True)
class Lesion:
    """One finding: the file of its mask, or its outline, (x, y) in pixels of the stored image, or neither; "BENIGN" or
    "MALIGNANT"; "mass", "calcification" or ""; whether a view shows it (else it is occult)."""

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
        patient_id, exam_id, laterality ("L", "R", ""), view: from the table.
        pathology: the worst of its rows: "NORMAL", "BENIGN", "MALIGNANT", or "" where unknown.
        lesions: in the table's order.
        split: "train", "val", "test", or "" where the table has none.
        horizontal_flip: "NO" (left breasts face right), "YES" (mirrored), or "" where the pixels decide.
        findings: (pathology, visible) of each row that says BENIGN or MALIGNANT, with or without a mask.
        columns: the table's further columns, such as birads, biopsied, label_source or age_band.
        drawn_as: the text by which its patient is sorted when splits are drawn; "": patient_id. It differs where
            patient_id is a keyed hash, so that another key draws the same split.
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
    drawn_as: str = ""

    @property
    def label(self) -> int:
        """1 malignant, 0 benign or normal, -1 unknown."""
        return {"": -1, "MALIGNANT": 1}.get(self.pathology, 0)


@dataclass
class Table:
    """The images of a data set, and (file or row, reason) of everything left out."""

    images: list[Image]
    rejected: list[tuple[str, str]] = field(default_factory=list)


def unusable(image: Image) -> str:
    """Why a row that comes from a function, not from a file, cannot be used; "" if it can."""
    if not image.image or not image.patient_id:
        return "image or patient_id is empty"
    if image.pathology not in WORSE:
        return f'pathology is "{image.pathology}"; write NORMAL, BENIGN, MALIGNANT or nothing'
    if image.split not in ("", *SPLITS):
        return f'split is "{image.split}"; write train, val, test or nothing'
    for lesion in image.lesions:
        if lesion.pathology not in ("BENIGN", "MALIGNANT"):
            return f'a lesion\'s pathology is "{lesion.pathology}"; write BENIGN or MALIGNANT'
        if lesion.abnormality not in ("mass", "calcification", ""):
            return f'a lesion\'s abnormality is "{lesion.abnormality}"; write mass, calcification or nothing'
    return ""


def worst(pathologies: Iterable[str]) -> str:
    """The worst pathology: NORMAL < BENIGN < MALIGNANT; "" where none is known."""
    return max(pathologies, key=WORSE.__getitem__, default="")


def merged(column: str, values: Iterable[str]) -> str:
    """One value for an image's rows, or a breast's images: the worst of birads and biopsied, else the first."""
    filled = [value for value in values if value]
    if column == "birads":
        place = {category: k for k, category in enumerate(BIRADS_ORDER)}
        return max(filled, key=lambda value: place.get(value.lower(), len(place)), default="")
    if column == "biopsied":
        return max(filled, key=is_yes, default="")
    return filled[0] if filled else ""


def is_yes(cell: str) -> bool:
    """Whether a cell says 1, true or yes."""
    return cell.lower() in ("1", "true", "yes")


def read_map(text: str) -> dict[str, str]:
    """The meaning of a manifest's words for pathologies: "0=BENIGN,1=MALIGNANT" → {"0": "BENIGN", "1": "MALIGNANT"}.

    The case of words does not matter; nothing after "=" means unknown.

    Raises:
        BadManifest: a part has no "=", a pathology is none of ours, or a word has two meanings.
    """
    words: dict[str, str] = {}
    for part in text.split(",") if text.strip() else ():
        word, equals, pathology = (piece.strip() for piece in part.partition("="))
        pathology = pathology.upper()
        if not word or not equals:
            raise BadManifest(f'the map "{text}" has the part "{part}"; write such as 0=BENIGN,1=MALIGNANT.')
        if pathology not in WORSE:
            raise BadManifest(f'the map "{text}" makes "{pathology}" of "{word}"; write NORMAL, BENIGN or MALIGNANT.')
        if words.setdefault(word.lower(), pathology) != pathology:
            raise BadManifest(f'the map "{text}" has two meanings for "{word}"; leave one.')
    return words


def read_manifest(
    path: str | Path, words: Mapping[str, str] | None = None, id_folder: Path | None = None
) -> Table:  # fmt: skip
    """Read a manifest: CSV, a row for each image or lesion; docs/data.md describes the columns.

    Required columns: image, pathology. Optional: patient_id, exam_id, laterality, view, abnormality, mask, outline,
    density, birads, biopsied, label_source, visible, split, horizontal_flip. Paths are relative to the CSV. `rejected`
    lists rows that cannot be used, with their reason, and images whose rows contradict each other; other columns are
    kept as they are.
    Several names of one file are one image. Without patient_id, an image's patient is that of its DICOM header and of
    its exam's images; without those it is the exam, and at last the image itself.

    Args:
        path: the CSV, or a folder with a manifest.csv.
        words: the meaning of other words for pathologies, see `read_map`.
        id_folder: the folder of the key that hashes ids from headers; None: no header is read.

    Raises:
        BadManifest: no such file, no such table (see `sheet.read_rows`), or no usable row.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.csv"
    if not path.is_file():
        did = near_file(path, "give the path of a CSV or of its folder.")
        raise BadManifest(f'"{path.name}": there is no such manifest; {did}')
    typed, wrong = read_rows(path, _REQUIRED, _KNOWN[len(_REQUIRED) :])
    # An id copied from one of our tables may begin with an apostrophe; file names stay as they are.
    rows = [(line, {c: v if c in ("image", "mask") else plain(v) for c, v in row.items()}) for line, row in typed]
    table = Table([], wrong)
    groups: dict[str, list[dict[str, str]]] = {}
    for line, row in rows:
        row["pathology"] = (words or {}).get(row["pathology"].lower(), row["pathology"])
        if reason := _wrong(row):
            table.rejected.append((row["image"] or f"{path.name} line {line}", reason))
        else:
            groups.setdefault(os.path.realpath(path.parent / row["image"]), []).append(row)
    for group in groups.values():
        name = group[0]["image"]
        file_path = path.parent / name
        if reason := _contradiction(group):
            table.rejected.append((name, reason))
        elif not file_path.is_file():
            table.rejected.append((name, "the file does not exist"))
        else:
            # A row may leave a cell empty that another row of its image fills.
            cells = {column: merged(column, (row[column] for row in group)) for column in group[0]}
            lesions = [_lesion(row, path.parent, table) for row in group]
            table.images.append(
                Image(
                    image=name, path=file_path, patient_id=cells.get("patient_id", ""),
                    exam_id=cells.get("exam_id", ""), laterality=cells.get("laterality", "").upper()[:1],
                    view=cells.get("view", "").upper(), pathology=worst(row["pathology"].upper() for row in group),
                    lesions=tuple(lesion for lesion in lesions if lesion), density=cells.get("density", ""),
                    split=cells.get("split", "").lower(), horizontal_flip=cells.get("horizontal_flip", "").upper(),
                    findings=tuple((r["pathology"].upper(), _visible(r)) for r in group if _is_finding(r)),
                    columns={column: value for column, value in cells.items() if column not in _OWN},
                )
            )  # fmt: skip
    _name_patients(table, id_folder)
    if not table.images:
        why = f"; the first: {table.rejected[0][0]}, {table.rejected[0][1]}" if table.rejected else ""
        raise BadManifest(f"{path.name}: no row can be used{why}; paths are relative to the table's folder.")
    return table


def _name_patients(table: Table, id_folder: Path | None) -> None:
    """Give each image that has no patient_id the patient it shares its exam or its header's PatientID with."""
    unnamed = [image for image in table.images if not image.patient_id]
    if not unnamed:
        return
    headers = {image.image: patient_in(image.path) if id_folder else "" for image in table.images}
    roots: dict[tuple[str, str], tuple[str, str]] = {}

    def ties(image: Image) -> list[tuple[str, str]]:
        every = (("exam", image.exam_id), ("header", headers[image.image]))
        return [tie for tie in every if tie[1]] or [("image", image.image)]

    def root(tie: tuple[str, str]) -> tuple[str, str]:
        while roots.setdefault(tie, tie) != tie:
            tie = roots[tie]
        return tie

    for image in unnamed:  # an image with both ties joins them: they are one patient's
        first, *others = ties(image)
        for other in others:
            roots[root(other)] = root(first)
        root(first)
    named: dict[tuple[str, str], set[str]] = defaultdict(set)
    for image in table.images:
        for tie in ties(image) if image.patient_id else ():
            if tie in roots:
                named[root(tie)].add(image.patient_id)
    groups: dict[tuple[str, str], list[Image]] = defaultdict(list)
    for image in unnamed:
        groups[root(ties(image)[0])].append(image)
    whose: dict[str, tuple[str, str]] = {}  # image → patient_id, drawn_as
    for tie, group in groups.items():
        ids = sorted({headers[image.image] for image in group} - {""})
        if len(named[tie]) > 1:
            why = "its patient_id is empty, and its exam_id or its header's PatientID is that of several patients"
            table.rejected += [(image.image, f"{why}; fill it in") for image in group]
        elif named[tie] or not ids or id_folder is None:
            patient = min(named[tie], default=min(image.exam_id for image in group) or group[0].image)
            whose |= {image.image: (patient, "") for image in group}
        else:
            patient, drawn = hashed(ids[0], id_key(id_folder)), min(image.image for image in group)
            whose |= {image.image: (patient, drawn) for image in group}
    table.images = [
        image if image.patient_id else replace(image, patient_id=whose[image.image][0], drawn_as=whose[image.image][1])
        for image in table.images if image.patient_id or image.image in whose
    ]  # fmt: skip


def _contradiction(rows: list[dict[str, str]]) -> str:
    """The reason to leave out an image whose rows disagree, or ""."""
    for column in ("patient_id", "exam_id", "laterality", "view", "split", "horizontal_flip"):
        values = {row.get(column, "") for row in rows} - {""}
        if column in ("patient_id", "exam_id"):
            if len(values) > 1:
                return f"its rows name different {column.removesuffix('_id')}s"
        elif len(answers := {v.upper()[:1] if column == "laterality" else v.upper() for v in values}) > 1:
            return f"its rows say {column} {' and '.join(sorted(answers))}; leave one"
    return ""


def _wrong(row: dict[str, str]) -> str:
    """Why a row cannot be used, or ""."""
    if not row["image"]:
        return "image is empty"
    if row["pathology"].upper() not in WORSE:
        word = row["pathology"]
        return (
            f'pathology is "{word}"; write NORMAL, BENIGN, MALIGNANT or nothing, or say by a map ({word}=…) what it is'
        )
    if row.get("abnormality", "").lower() not in ABNORMALITIES:
        return f'abnormality is "{row["abnormality"]}"; write mass or calcification'
    if row.get("laterality", "").upper() not in ("", "L", "R", "LEFT", "RIGHT"):
        return f'laterality is "{row["laterality"]}"; write L or R'
    if row.get("split", "").lower() not in ("", *SPLITS):
        return f'split is "{row["split"]}"; write train, val or test'
    if row.get("horizontal_flip", "").upper() not in ("", "YES", "NO"):
        return f'horizontal_flip is "{row["horizontal_flip"]}"; write YES or NO'
    try:
        points = outline.parse(row.get("outline", ""))
    except ValueError as error:
        return f'outline is "{row["outline"]}"; {error}'
    return "a lesion has a mask and an outline; leave one" if points and row.get("mask") else ""


def _is_finding(row: dict[str, str]) -> bool:
    return row["pathology"].upper() in ("BENIGN", "MALIGNANT")


def _lesion(row: dict[str, str], root: Path, table: Table) -> Lesion | None:
    """The lesion of a row, None where it has none; a missing mask is listed in `rejected`."""
    mask, points = root / row["mask"] if row.get("mask") else None, outline.parse(row.get("outline", ""))
    is_lesion = _is_finding(row) and bool(mask or points or row.get("abnormality"))
    if mask is not None and not mask.is_file():
        effect = "; its lesion gives no patches" if is_lesion else ""
        table.rejected.append((row["mask"], f"the mask of {row['image']} does not exist{effect}"))
        mask = None
    abnormality = ABNORMALITIES[row.get("abnormality", "").lower()]
    return Lesion(mask, row["pathology"].upper(), abnormality, _visible(row), points) if is_lesion else None


def _visible(row: dict[str, str]) -> bool:
    return row.get("visible", "1").lower() not in ("0", "false")


def split_patients(images: Sequence[Image], fractions: Sequence[float], seed: int) -> list[set[str]]:
    """Divide the patients into len(fractions) groups, stratified by whether a patient has a malignant image.

    "The splits were done in a stratified fashion to maintain the same proportion of cancer cases" (Shen et al. 2019).
    The result depends on the ids and the seed alone, not on the order of the images.
    """
    malignant: dict[str, bool] = {}
    for image in images:
        malignant[image.patient_id] = malignant.get(image.patient_id, False) or image.label == 1
    place = {image.patient_id: image.drawn_as or image.patient_id for image in images}
    groups: list[set[str]] = [set() for _ in fractions]
    rng = np.random.default_rng(seed)
    for stratum in (True, False):
        ids = np.array(sorted((p for p, m in malignant.items() if m is stratum), key=place.__getitem__), dtype=object)
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


def splits(images: Sequence[Image], seed: int, column: str = "the manifest's split column") -> dict[str, str]:
    """Patient → split: as the images say, else drawn 85:15 and 90:10 as in Shen et al. 2019 (`three_way`).

    Args:
        images: of one table.
        seed: of the draw.
        column: the name of an image's split column, for messages.

    Raises:
        BadManifest: the images put one patient in two splits, or name the split of some patients only; or only
            headers name the patients, and all name the same one.
    """
    patients = {image.patient_id for image in images}
    if len(patients) == 1 < len(images) and all(image.drawn_as for image in images):
        raise BadManifest(
            f"the manifest names no patients, and by exam_id and the headers' PatientID its {len(images)} "
            "images are all of one, which gives no split; fill the column patient_id."
        )
    drawn = three_way(images, seed)
    named = {image.patient_id: image.split for image in images if image.split}
    for image in images:
        if image.split and named[image.patient_id] != image.split:
            of_header = ", as the DICOM header names the patient," if image.drawn_as else ""
            raise BadManifest(
                f"{column} puts one patient in {image.split} and {named[image.patient_id]} "
                f"(see {image.image}){of_header}; give all images of a patient the same split."
            )
    if named and len(named) < len(drawn):
        raise BadManifest(f"{column} is filled for some patients only; fill it for all or leave it empty.")
    return named or drawn


def leave_out_copies(table: Table) -> None:
    """Keep each image to one patient: of files with the same bytes one stays, or none where their rows disagree.

    A patient who is only named after the file counts as no patient: that copy goes and the other image stays.
    """
    by_path = {image.path: image for image in table.images}
    gone: dict[str, str] = {}
    for paths in copies(by_path):
        images = [by_path[path] for path in paths]
        if len({image.patient_id for image in images}) == 1:
            continue
        named = [image for image in images if image.patient_id != image.image]
        if len({image.patient_id for image in named}) > 1 or len({image.label for image in images}) > 1:
            for image, other in zip(images, [*images[1:], images[0]], strict=True):
                gone[image.image] = f"its file is the same as {other.image}, whose patient or pathology is another"
        else:
            used = named or images[:1]
            gone |= {
                i.image: f"its file is the same as {used[0].image}, which is used" for i in images if i not in used
            }
    table.rejected += gone.items()
    table.images = [image for image in table.images if image.image not in gone]
