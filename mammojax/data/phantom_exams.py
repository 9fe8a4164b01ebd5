"""Synthetic digital screening exams of four views with the labels of Wu et al. 2019 (section II), for software tests.

Breasts and lesions are the film phantom's (`phantom.draw`), the background is exactly 0. Half of the exams are
biopsied, far more than the few in a hundred of screening; a network's score on them says nothing about patients.
Texture, density, age and vendor are independent of the labels. No network can be perfect: occult findings label their
breast and are not drawn, and a benign group of calcifications looks the same whether it was biopsied or not. A reader
who knew exactly what is drawn in both breasts would reach an AUC of 0.96 for malignant and 0.87 for benign
(`python -m benchmarks phantom_ceiling`).
"""

import itertools
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydicom.uid import generate_uid
from tqdm import tqdm

from mammojax.data import manifest, phantom

COLUMNS = (
    "image", "patient_id", "exam_id", "laterality", "view", "pathology", "abnormality", "mask", "density", "birads",
    "biopsied", "visible", "horizontal_flip", "age_band", "vendor", "finding", "split",
)  # fmt: skip
ABNORMALITY = {"mass": "mass", "calc": "calcification", "": ""}
AGE_BANDS = ("40-49", "50-59", "60-69", "70+")
VENDORS = ("A", "B")  # invented
# The index finding of 40 exams: half biopsied, 45 % of those malignant; 30 % of the others a group of calcifications
# that nobody biopsied.
_FORTY = ("MALIGNANT",) * 9 + ("BENIGN",) * 11 + ("NORMAL",) * 6 + ("",) * 14
_MALIGNANT = 0.45  # of further findings
_FURTHER = 0.2  # of the biopsied exams
# Table I: 13.2 % and 43.2 %. Fewer benign ones here, so that small sets still have something to learn.
_OCCULT = {"MALIGNANT": 0.13, "BENIGN": 0.30}
_REPEATED = 0.1  # footnote 2: "Some exams contain more than one image per view"
_NOISE = 0.1  # "these labels are more noisy than biopsy outcomes" (section IV)


class Finding(NamedTuple):
    """A finding before it is drawn: "mass" or "calc"; "MALIGNANT", "BENIGN", or "NORMAL" if nobody biopsied it; and
    whether it is visible: no view shows an occult one."""

    kind: str
    pathology: str
    visible: bool


_NOTHING = Finding("", "NORMAL", False)


class PhantomExam(NamedTuple):
    """One exam before it is drawn: the findings of "L" and "R", its (side, view) in order, one of them perhaps
    twice, BI-RADS 0, 1 or 2, and its further columns."""

    breasts: dict[str, list[Finding]]
    views: list[tuple[str, str]]
    birads: int
    density: str
    age_band: str
    vendor: str


def exam(seed: int, index: int) -> PhantomExam:
    """The exam of this index, as `write_exams` draws it. It depends on the two numbers alone."""
    rng = np.random.default_rng([seed, index])
    # In random order within each forty: shares are exact, neighbours independent.
    place = np.random.default_rng([seed, 1_000_000, index // len(_FORTY)]).permutation(len(_FORTY))[index % len(_FORTY)]
    index_finding = _FORTY[place]
    breasts: dict[str, list[Finding]] = {"L": [], "R": []}
    side = _choice(rng, "LR")
    if index_finding:
        breasts[side].append(_finding(rng, index_finding))
    biopsied = index_finding in _OCCULT
    if biopsied and rng.random() < _FURTHER:  # in either breast: one may hold a benign and a malignant finding
        further = "MALIGNANT" if rng.random() < _MALIGNANT else "BENIGN"
        breasts[_choice(rng, "LR")].append(_finding(rng, further))
    visible = [f for side in "LR" for f in breasts[side] if f.visible]  # a radiologist reads what the views show
    birads = 0 if any(f.pathology != "NORMAL" for f in visible) else 2 if visible else 1
    if rng.random() < _NOISE:
        birads = (birads + int(rng.integers(1, 3))) % 3
    views = list(itertools.product("LR", ("CC", "MLO")))
    if rng.random() < _REPEATED:
        again = int(rng.integers(4))
        views.insert(again, views[again])
    return PhantomExam(breasts, views, birads, _choice(rng, "1234"), _choice(rng, AGE_BANDS), _choice(rng, VENDORS))


def _choice(rng: np.random.Generator, of: str | tuple[str, ...]) -> str:
    return of[int(rng.integers(len(of)))]


def _finding(rng: np.random.Generator, pathology: str) -> Finding:
    if pathology == "NORMAL":
        return Finding("calc", pathology, True)
    return Finding(_choice(rng, ("mass", "calc")), pathology, bool(rng.random() >= _OCCULT[pathology]))


def write_exams(
    root: Path,
    *,
    exams: int = 300,
    first: int = 0,
    seed: int = 0,
    image_size: tuple[int, int] = (288, 224),
    contrast: float = 1.0,
    workers: int = 1,
) -> None:
    """Write synthetic exams, one per patient: images/ (DICOM, uint16), masks/ (PNG, 8 bit), manifest.csv.

    The manifest has a row for each image or lesion; a lesion is in every image of its breast. Beside the columns
    of `manifest.read_manifest`: birads, of the exam; biopsied, 1 for a breast with a benign or malignant finding, else
    0; finding, the kind of the breast's worst finding, drawn or not ("mass", "calcification", ""); age_band; vendor. A
    group of calcifications that nobody biopsied is a row of pathology NORMAL without a mask: "For the remaining
    screening exams that were not matched with a biopsy, we assigned labels corresponding to the absence of malignant
    and benign findings" (section II). The manifest is written last, completely or not at all. The result
    depends on the arguments alone, except `workers`; the findings depend on `seed` and the exam's index alone.

    Args:
        root: a new folder.
        exams: their number; each has four images, a tenth of them five.
        first: index of the first exam; exams with other indices belong to other patients.
        seed: of everything.
        image_size: (height, width) in pixels; lesions scale with the height.
        contrast: factor of the lesions' contrast; below 1 the task is harder.
        workers: processes.
    """
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    work = partial(_write_exam, root, seed, image_size, contrast, first)
    rows: list[list[str]] = [list(COLUMNS)]
    for of_exam in tqdm(phantom.each(work, exams, workers), total=exams, desc="phantom exams", disable=None):
        rows += of_exam
    phantom.write_table(root / phantom.MANIFEST, rows)


def _write_exam(
    root: Path, seed: int, size: tuple[int, int], contrast: float, first: int, number: int
) -> list[list[str]]:
    """Write the images and masks of one exam; return its rows of the manifest."""
    index = first + number
    facts = exam(seed, index)
    patient, exam_id = f"P_{index + 1:05d}", f"E_{index + 1:05d}"
    # Half train, a quarter val, a quarter test; findings are shuffled, so every part is alike.
    split = ("train", "train", "val", "test")[index % 20 // 5]
    rng = np.random.default_rng([seed, index, 1])
    study = generate_uid(entropy_srcs=[str(seed), exam_id, phantom.LEVELS[0]])
    rows = []
    for place, (side, view) in enumerate(facts.views, start=1):
        findings = facts.breasts[side]
        visible = [(f.kind, f.pathology == "MALIGNANT") for f in findings if f.visible]
        pixels, drawn = phantom.draw(size, side, view, visible, rng, contrast, digital=True)
        name = f"{exam_id}_{place}_{side}_{view}"
        uids = [study, *(generate_uid(entropy_srcs=[str(seed), name, level]) for level in phantom.LEVELS[1:])]
        image = f"images/{name}.dcm"
        phantom.save_dicom(root / image, patient, f"{side} {view}", pixels, uids)
        outlines = iter(drawn)
        worst = max(findings or [_NOTHING], key=lambda f: manifest.WORSE[f.pathology])
        biopsied = str(int(worst.pathology != "NORMAL"))
        for k, finding in enumerate(findings or [_NOTHING], start=1):
            outline = next(outlines).mask if finding.visible else None
            mask = ""
            if outline is not None and finding.pathology != "NORMAL":
                mask = f"masks/{name}_{k}.png"
                (root / mask).write_bytes(cv2.imencode(".png", outline.astype(np.uint8) * 255)[1].tobytes())
            rows.append([
                image, patient, exam_id, side, view, finding.pathology, ABNORMALITY[finding.kind], mask, facts.density,
                str(facts.birads), biopsied, str(int(finding.visible)) if finding.kind else "", "NO", facts.age_band,
                facts.vendor, ABNORMALITY[worst.kind], split,
            ])  # fmt: skip
    return rows
