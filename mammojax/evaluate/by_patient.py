"""From scored images or breasts to breasts.csv, exams.csv and patients.csv of `mammojax predict`.

A breast's score is the mean over its views (Shen et al. 2019), an exam's the highest of its breasts', a patient's the
highest of the exams', as one suspicious breast is enough to recall.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mammojax.data.cells import Writer
from mammojax.evaluate.inputs import BREAST_COLUMNS, Facts, open_csv

EXAM_COLUMNS = ("exam_id", "patient_id", "breasts", "p_malignant")
"""Columns of exams.csv of runs on mammograms; exam networks have those of `predict_exams.EXAM_COLUMNS`."""
PATIENT_COLUMNS = ("patient_id", "exams", "p_malignant")


class Breast(NamedTuple):
    """A scored breast, or an image of which nobody knows whose breast it shows (laterality "")."""

    exam_id: str
    patient_id: str
    laterality: str
    views: str
    score: float


def of_images(rows: Sequence[tuple[Facts, float]]) -> list[Breast]:
    """The breasts of scored images; several images of a view count as one.

    Images without side or view are breasts of their own; images without patient and exam are left out.
    """
    breasts: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    alone = []
    for facts, p in rows:
        if not (facts["patient_id"] or facts["exam_id"]):
            continue
        if facts["laterality"] and facts["view"]:
            breast = breasts.setdefault((facts["exam_id"], facts["patient_id"], facts["laterality"]), {})
            breast.setdefault(facts["view"], []).append(p)
        else:
            alone.append(Breast(facts["exam_id"], facts["patient_id"], "", "", p))
    means = [
        Breast(*breast, "+".join(sorted(views)), float(np.mean([np.mean(scores) for scores in views.values()])))
        for breast, views in breasts.items()
    ]
    return [*means, *alone]


def write_breasts(path: Path, breasts: Sequence[Breast]) -> None:
    """Write breasts.csv (BREAST_COLUMNS) of the breasts whose side is known."""
    with open_csv(path) as file:
        writer = Writer(file, BREAST_COLUMNS)
        for breast in breasts:
            if breast.laterality:
                ids = (breast.exam_id, breast.patient_id, breast.laterality, breast.views)
                writer.row([*ids, "", repr(breast.score)])


def write_exams(path: Path, breasts: Sequence[Breast]) -> None:
    """Write exams.csv (EXAM_COLUMNS); a patient's images without an exam are one."""
    exams: dict[tuple[str, str], list[Breast]] = {}
    for breast in breasts:
        exams.setdefault((breast.exam_id or breast.patient_id, breast.patient_id), []).append(breast)
    with open_csv(path) as file:
        writer = Writer(file, EXAM_COLUMNS)
        for exam, members in exams.items():
            sides = "+".join(sorted({breast.laterality for breast in members} - {""}))
            writer.row([*exam, sides, repr(max(breast.score for breast in members))])


def write_patients(path: Path, breasts: Sequence[Breast]) -> None:
    """Write patients.csv (PATIENT_COLUMNS) of the breasts whose patient is known."""
    patients: dict[str, list[Breast]] = {}
    for breast in breasts:
        if breast.patient_id:
            patients.setdefault(breast.patient_id, []).append(breast)
    with open_csv(path) as file:
        writer = Writer(file, PATIENT_COLUMNS)
        for patient, members in patients.items():
            exams = len({breast.exam_id for breast in members})
            writer.row([patient, str(exams), repr(max(breast.score for breast in members))])
