"""A folder of mammograms with a table of labels, which may stand by image, breast, exam or patient.

What the headers say of side, view, patient and exam is joined with the table; ids of headers become keyed hashes.
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from mammojax.data import annotations, download
from mammojax.data.dicom import peek, read_facts
from mammojax.data.identity import hashed, id_key, patient_in
from mammojax.data.manifest import WORSE, Image, Lesion, Table, merged, worst
from mammojax.data.sheet import read_rows
from mammojax.errors import BadMammogram, BadManifest

_KEYS = ("image", "exam_id", "patient_id")
_FACTS = ("patient_id", "exam_id", "laterality", "view")
_SEVERAL = "several images are called so; name it with its folder"
Row = dict[str, str]


def read_table(
    source: Path, id_folder: Path, labels: Path | None = None, drawn: Path | None = None,
    words: dict[str, str] | None = None,
) -> Table:  # fmt: skip
    """Every mammogram below a folder, with its labels and the lesions drawn in it.

    Args:
        source: the folder.
        id_folder: holds the key of the ids' hashes.
        labels: a CSV with the column pathology, and one that says what a row is of: image (a path below the folder, or
            a file's name), else exam_id (StudyInstanceUID or AccessionNumber), else patient_id (PatientID), of which
            laterality makes a breast, and view a view. In a row of an image, ids, laterality and view count before the
            header. Other columns are kept. An image has the worst of its rows.
        drawn: a COCO file, or a folder of LabelMe's files, joined by the image's name. A lesion whose label says
            neither malignant nor benign is what its image is.
        words: the meaning of other words for pathologies, see `manifest.read_map`.

    Raises:
        BadManifest: the table or the annotations cannot be used, or there is no mammogram.
    """
    table = Table([])
    rows = _rows(labels, words or {}, table) if labels else []
    lesions = annotations.read(drawn) if drawn else {}
    mammograms = _Mammograms(source, id_key(id_folder), table)
    of_image: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        names = mammograms.of(row)
        for name in names:
            of_image[name].append(row)
        if not names:
            table.rejected.append((row["line"], mammograms.why_none(row)))
    drawn_in: dict[str, list[annotations.Drawn]] = {}
    for name, outlines in lesions.items():
        if len(names := mammograms.named(name)) == 1:
            drawn_in.setdefault(names[0], []).extend(outlines)
        else:
            table.rejected.append((name, _SEVERAL if names else "lesions are drawn in it, but it is not in the folder"))
    for image in mammograms.images.values():
        labelled = _labelled(image, of_image[image.image])
        table.images.append(replace(labelled, lesions=_lesions(labelled, drawn_in.get(image.image, []), table)))
    if not table.images:
        why = f"; the first: {table.rejected[0][0]}, {table.rejected[0][1]}" if table.rejected else ""
        raise BadManifest(f"no mammogram is below the source folder{why}; give the folder of DICOMs or images.")
    return table


class _Mammograms:
    """The mammograms below a folder, by their names and their headers' ids.

    Attributes:
        images: name below the folder → image, its ids hashed.
    """

    def __init__(self, source: Path, key: bytes, table: Table) -> None:
        self.images: dict[str, Image] = {}
        self._by: dict[tuple[str, str], list[str]] = defaultdict(list)
        for path in download.walk(source):
            name = path.relative_to(source).as_posix()
            try:
                facts = read_facts(path)
            except BadMammogram as error:
                table.rejected.append((name, str(error)))
                continue
            patient, number = patient_in(path), str(peek(path, "AccessionNumber").get("AccessionNumber") or "")
            self.images[name] = Image(
                image=name, path=path, patient_id=hashed(patient, key), exam_id=hashed(facts.exam_id, key),
                laterality=facts.laterality, view=facts.view,
            )  # fmt: skip
            keys = {("name", path.name), ("stem", path.stem), ("patient_id", patient), ("exam_id", facts.exam_id)}
            for one in keys | {("exam_id", number)}:
                if one[1]:
                    self._by[one].append(name)

    def named(self, name: str) -> list[str]:
        """The images that a path below the folder, a file's name, or that name with another suffix may mean."""
        if name in self.images:
            return [name]
        return self._by.get(("name", Path(name).name)) or self._by.get(("stem", Path(name).stem)) or []

    def of(self, row: Row) -> list[str]:
        """The images that a row labels; none if it names one that several are called."""
        key = next(column for column in _KEYS if row.get(column))
        if key == "image":
            names = self.named(row["image"])
            return names if len(names) == 1 else []
        side, view = row.get("laterality", "").upper()[:1], row.get("view", "").upper()
        candidates = [self.images[name] for name in self._by.get((key, row[key]), ())]
        return [i.image for i in candidates if side in ("", i.laterality) and view in ("", i.view)]

    def why_none(self, row: Row) -> str:
        """Why `of` gives no image."""
        if row.get("image") and self.named(row["image"]):
            return _SEVERAL
        return "no mammogram in the folder has its name, or its ids, side and view"


def _rows(path: Path, words: dict[str, str], table: Table) -> list[Row]:
    """The usable rows of the label table; `rejected` of the table lists the others."""
    if not path.is_file():
        raise BadManifest(f'there is no file "{path}"; give the table of labels as --labels.')
    typed, table.rejected = read_rows(path, ("pathology",), (*_FACTS, "image"))
    columns = typed[0][1].keys() if typed else ()
    if not any(column in columns for column in _KEYS):
        raise BadManifest(f"{path.name}: no column says what a row is of; name one image, exam_id or patient_id.")
    if "mask" in columns or "outline" in columns:
        raise BadManifest(f"{path.name}: with mask or outline it is a manifest already; use it as one.")
    rows = []
    for line, row in typed:
        row["pathology"] = words.get(row["pathology"].lower(), row["pathology"].upper())
        where = f"{path.name} line {line}"
        if not any(row.get(column) for column in _KEYS):
            table.rejected.append((where, "it names no image, exam or patient"))
        elif row["pathology"] not in WORSE:
            table.rejected.append((where, f'pathology is "{row["pathology"]}"; say by --map what it is'))
        else:
            rows.append(row | {"line": where})
    return rows


def _labelled(image: Image, rows: list[Row]) -> Image:
    """The image with what its rows say; a row of an image also says whose it is, its side and its view."""
    known = {*_KEYS, *_FACTS, "pathology", "line", "density", "abnormality", "split"}
    kinds = sorted({row.get("abnormality", "") for row in rows} - {""})
    own = [row for row in rows if row.get("image")]

    def fact(column: str, rows: list[Row] = own) -> str:
        return merged(column, (row.get(column, "") for row in rows))

    columns = {column: fact(column, rows) for column in sorted({c for row in rows for c in row} - known)}
    return replace(
        image,
        patient_id=fact("patient_id") or image.patient_id,
        exam_id=fact("exam_id") or image.exam_id,
        laterality=fact("laterality").upper()[:1] or image.laterality,
        view=fact("view").upper() or image.view,
        pathology=worst(row["pathology"] for row in rows),
        density=fact("density", rows),
        split=fact("split", rows).lower(),
        columns=columns | {"finding": "; ".join(kinds)},
    )


def _lesions(image: Image, drawn: list[annotations.Drawn], table: Table) -> tuple[Lesion, ...]:
    """The drawn lesions of an image whose label is known."""
    lesions = []
    for lesion in drawn:
        pathology = lesion.pathology or image.pathology
        if pathology in ("BENIGN", "MALIGNANT") and image.pathology:
            lesions.append(Lesion(None, pathology, lesion.abnormality, outline=lesion.points))
        else:
            table.rejected.append((image.image, "a drawn lesion is left out: it is neither benign nor malignant"))
    return tuple(lesions)
