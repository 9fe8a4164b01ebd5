"""Cross-validation by patient: a manifest once for each fold, with its split column filled."""

import os
from pathlib import Path

from mammojax.data.cells import Writer, plain, shielded
from mammojax.data.manifest import Image, Table, split_patients
from mammojax.data.sheet import read_rows
from mammojax.errors import BadManifest


def fold_of_patients(table: Table, folds: int, seed: int) -> dict[str, int]:
    """Patient → the fold, from 0 on, in whose run it is a test patient; patients with a malignant image spread evenly.

    Raises:
        BadManifest: there are fewer patients with a malignant image, or without one, than folds.
    """
    malignant = {image.patient_id for image in table.images if image.label == 1}
    others = {image.patient_id for image in table.images} - malignant
    most = min(len(malignant), len(others))
    if folds < 3 or most < folds:
        remedy = f"take {most} or fewer" if most >= 3 else "take none, or more patients"
        raise BadManifest(
            f"{folds} folds need as many patients with a malignant image, as many without, and are three at the least; "
            f"there are {len(malignant)} and {len(others)}: {remedy}."
        )
    groups = split_patients(table.images, [1.0] * folds, seed=seed)
    return {patient: fold for fold, group in enumerate(groups) for patient in group}


def write_folds(
    source: Path, table: Table, folder: Path, folds: int, seed: int, groups: int | None = None
) -> list[Path]:
    """Write FOLDER/split_<seed>_fold_<k>.csv: a fold's groups of patients are test, the next one val, the others train.

    Rows that `table` left out are left out; patient_id is the table's, which names every patient.

    Args:
        source: the manifest's CSV, or a folder with a manifest.csv.
        table: of that manifest.
        folder: to write to; its parent folders exist.
        folds: 3 or more.
        seed: of the division.
        groups: of patients, a multiple of `folds`: groups / folds of them are a fold's test split; default: `folds`.

    Raises:
        BadManifest: see `fold_of_patients`.
    """
    source = source / "manifest.csv" if source.is_dir() else source
    groups = groups or folds
    tested = groups // folds
    place = fold_of_patients(table, groups, seed)
    images: dict[str, Image] = {os.path.realpath(image.path): image for image in table.images}
    rows = []
    for _, row in read_rows(source, ("image", "pathology"), ("patient_id", "mask", "split"))[0]:
        image = images.get(os.path.realpath(source.parent / row["image"]))
        if image is None:
            continue
        row = {column: cell if column in ("image", "mask") else plain(cell) for column, cell in row.items()}
        row["patient_id"] = image.patient_id
        for column in ("image", "mask"):
            if row.get(column):
                name = os.path.relpath(source.parent / row[column], folder)
                row[column] = name if shielded(name) == name else os.path.join(os.curdir, name)
        rows.append(row)
    folder.mkdir(exist_ok=True)
    paths = []
    for fold in range(folds):
        path = folder / f"split_{seed}_fold_{fold}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = Writer(file, list(dict.fromkeys([*rows[0], "split"])))
            for row in rows:
                away = (place[row["patient_id"]] - tested * fold) % groups
                writer.row(row | {"split": "test" if away < tested else "val" if away == tested else "train"})
        paths.append(path)
    return paths
