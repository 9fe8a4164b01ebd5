"""Synthetic film mammograms, written to disk in CBIS-DDSM's own layout, so that the same reader reads them.

Breast texture is a random field with the 1/f³ power spectrum measured on mammograms (Burgess 1999, "Mammographic
structure"); on it lie benign masses (smooth), malignant masses (spiculated), benign calcifications (few, round) and
malignant clusters (pleomorphic, linear). The task tests software: a network's score on it says nothing about patients.

Contrasts on the 0 … 1 scale: masses 0.28, spicules 0.30, calcifications 0.60; texture sd 0.08; gain ±15 %. Index
lesions are half malignant, half masses; a quarter of the patients has a further benign finding. Position and radius
are drawn alike for benign and malignant, so that size and place do not separate them; neither does the
brightness of the whole image, nor the features of the quickstart's network at random weights (AUC 0.4 to 0.6). A
shortcut remains: the maxima of small random filters over the image, which respond to spicules and specks, reached 0.70
to 0.84.
"""

import csv
import itertools
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from tqdm import tqdm

from mammojax.data.cbis_ddsm import CSVS

HEADERS = {
    "mass": "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,"
    "mass margins,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path",
    "calc": "patient_id,breast density,left or right breast,image view,abnormality id,abnormality type,calc type,"
    "calc distribution,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path",
}
# The words of CBIS-DDSM: shape and margins of a mass, type and distribution of calcifications, by (kind, malignant).
WORDS = {
    ("mass", False): ("OVAL", "CIRCUMSCRIBED"),
    ("mass", True): ("IRREGULAR", "SPICULATED"),
    ("calc", False): ("ROUND_AND_REGULAR", "CLUSTERED"),
    ("calc", True): ("PLEOMORPHIC", "CLUSTERED"),
}
MANIFEST = "manifest.csv"
LEVELS = ("study", "series", "instance")  # each has its UID
_MANIFEST_HEADER = "image,patient_id,laterality,view,pathology,abnormality,mask,density"
SIDES = {"L": "LEFT", "R": "RIGHT"}
_FULL, _MASK = "full mammogram images", "ROI mask images"  # series descriptions
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class DrawnFinding:
    """One lesion as drawn: "mass" or "calc", malignant or not, its outline bool [H, W]."""

    kind: str
    malignant: bool
    mask: np.ndarray


def texture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random field with power spectrum 1/f³, mean 0 and sd 1, float64 [H, W]."""
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(2 * height)[:, None], np.fft.rfftfreq(2 * width)[None, :])
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(rng.standard_normal((2 * height, 2 * width)))  # twice the size: the field must not wrap round
    field = np.fft.irfft2(noise * frequency**-1.5, s=(2 * height, 2 * width))[:height, :width]
    return (field - field.mean()) / field.std()


def draw(
    size: tuple[int, int], side: str, view: str, findings: list[tuple[str, bool]], rng: np.random.Generator,
    contrast: float = 1.0, digital: bool = False,
) -> tuple[np.ndarray, list[DrawnFinding]]:  # fmt: skip
    """One view of one breast.

    Args:
        size: (height, width).
        side: "L" (chest wall at the left edge) or "R".
        view: "CC" or "MLO" (with a pectoral muscle).
        findings: ("mass" | "calc", malignant) of each lesion.
        rng: source of everything random.
        contrast: factor of the lesions' contrast.
        digital: background exactly 0 and tissue above it, marker small enough to lie beyond the breast's furthest
            reach; else as scanned film.

    Returns:
        uint16 pixels [H, W] of 0 … 65535, and the findings with their outlines.
    """
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float64)
    half = height * rng.uniform(0.36, 0.44)
    depth = width * rng.uniform(0.62, 0.80)
    radius = np.hypot((y - height * rng.uniform(0.47, 0.53)) / half, x / depth)  # 1 on the skin
    tissue = 0.30 * np.clip((1 - radius) / 0.15, 0, 1) ** 0.5 + 0.08 * np.clip(1 - radius, 0, 1)
    if view == "MLO":
        edge = width * rng.uniform(0.28, 0.40) * (1 - y / (height * rng.uniform(0.55, 0.75)))
        tissue += 0.22 / (1 + np.exp(np.clip(x - edge, -50, 50) / 2)) * (edge > 0)
    inside = radius < 1
    pixels = np.where(inside, tissue + 0.08 * texture(size, rng), 0.0)
    drawn = []
    for kind, malignant in findings:
        angle, reach = rng.uniform(-1.1, 1.1), rng.uniform(0.25, 0.70)
        centre = (height / 2 + np.sin(angle) * reach * half, max(14.0, np.cos(angle) * reach * depth))
        lump, mask = (_mass if kind == "mass" else _calcifications)(y, x, centre, malignant, rng)
        pixels += contrast * lump
        drawn.append(DrawnFinding(kind, malignant, mask & inside))
    pixels = np.where(inside, np.maximum(pixels, 0.02), 0.02) * rng.uniform(0.85, 1.15)
    pixels += 0.012 * rng.standard_normal(size)  # film grain
    canvas = np.clip(pixels, 0, 1)
    if digital:
        canvas = np.where(inside, np.maximum(canvas, 0.004), 0.0)
    flip = side == "R"
    if flip:
        canvas = np.ascontiguousarray(canvas[:, ::-1])
        drawn = [DrawnFinding(f.kind, f.malignant, np.ascontiguousarray(f.mask[:, ::-1])) for f in drawn]
    text, scale = f"{side} {view}", (width / 700 if digital else height / 640)
    (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    corner = (4 if flip else width - text_width - 4, text_height + 6)  # burned in, on the side opposite the chest wall
    marker = np.zeros(size, np.uint8)
    cv2.putText(marker, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, 242, 1, cv2.LINE_AA)
    canvas = np.maximum(canvas, marker / 255)
    return np.round(canvas * 65535).astype(np.uint16), drawn


def _mass(
    y: np.ndarray, x: np.ndarray, centre: tuple[float, float], malignant: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A mass: smooth oval, or an irregular core with spicules."""
    size = rng.uniform(9, 15) * y.shape[0] / 288
    stretch, tilt = rng.uniform(0.75, 1.0), rng.uniform(0, np.pi)
    dy, dx = y - centre[0], x - centre[1]
    u, v = dx * np.cos(tilt) + dy * np.sin(tilt), (dy * np.cos(tilt) - dx * np.sin(tilt)) / stretch
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    edge = size * np.ones_like(radius)
    for k in range(3, 8 if malignant else 5):  # a benign mass may be lobulated; a malignant core is irregular
        edge += size * 0.06 * rng.standard_normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    lump = 0.28 / (1 + np.exp(np.clip((radius - edge) / (1.2 if not malignant else 1.8), -40, 40)))
    mask = radius < edge + 2
    if malignant:
        strokes = np.zeros(y.shape, np.uint8)
        for _ in range(int(rng.integers(5, 11))):
            direction, length = rng.uniform(0, 2 * np.pi), size * rng.uniform(1.3, 2.1)
            bend = direction + rng.normal(0, 0.25)
            middle = (centre[1] + 0.6 * length * np.cos(direction), centre[0] + 0.6 * length * np.sin(direction))
            end = (centre[1] + length * np.cos(bend), centre[0] + length * np.sin(bend))
            points = np.round(np.array([[centre[1], centre[0]], middle, end]) * 8).astype(np.int32)
            cv2.polylines(strokes, [points], False, 255, 1, cv2.LINE_AA, shift=3)
        lines = strokes / 255
        fade = np.clip(1.25 - radius / (2.4 * size), 0, 1)
        lump = np.maximum(lump, 0.30 * cv2.GaussianBlur(lines, (3, 3), 0.6) * fade + lump * 0.5)
        mask |= cv2.dilate((lines > 0.3).astype(np.uint8), np.ones((3, 3))) > 0
        filled = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7)))
        mask = filled > 0
    return lump, mask


def _calcifications(
    y: np.ndarray, x: np.ndarray, centre: tuple[float, float], malignant: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A group of calcifications: few and round, or many, pleomorphic and linear. Their extent is drawn alike."""
    unit = y.shape[0] / 288
    spread = rng.uniform(6, 11) * unit
    spots = np.zeros(y.shape, np.uint8)
    points = []
    for _ in range(int(rng.integers(6, 13)) if malignant else int(rng.integers(4, 9))):
        py, px = np.array(centre) + spread * 0.6 * rng.standard_normal(2).clip(-1.7, 1.7)
        points.append((px, py))
        place = (round(px * 8), round(py * 8))
        if not malignant:
            cv2.circle(
                spots,
                place,
                round(rng.uniform(0.9, 1.5) * unit * 8),
                round(255 * rng.uniform(0.6, 1)),
                -1,
                cv2.LINE_AA,
                shift=3,
            )
        elif rng.random() < 0.4:  # linear
            angle, length = rng.uniform(0, np.pi), rng.uniform(2, 5) * unit
            end = (round((px + length * np.cos(angle)) * 8), round((py + length * np.sin(angle)) * 8))
            cv2.line(spots, place, end, round(255 * rng.uniform(0.6, 1)), 1, cv2.LINE_AA, shift=3)
        else:
            axes = (round(rng.uniform(0.6, 1.6) * unit * 8), round(rng.uniform(0.4, 0.9) * unit * 8))
            tilt, bright = rng.uniform(0, 180), round(255 * rng.uniform(0.6, 1))
            cv2.ellipse(spots, place, axes, tilt, 0, 360, bright, -1, cv2.LINE_AA, shift=3)
    hull = cv2.convexHull(np.round(np.array(points)).astype(np.int32))
    mask = cv2.fillConvexPoly(np.zeros(y.shape, np.uint8), hull, 1)
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    return 0.60 / 255 * spots, mask > 0


def write_phantom(
    root: Path,
    *,
    patients: int = 340,
    seed: int = 0,
    image_size: tuple[int, int] = (288, 224),
    workers: int = 1,
    contrast: float = 1.0,
    both_breasts: bool = False,
    digital: bool = False,
) -> None:
    """Write a phantom data set in CBIS-DDSM's layout: four CSVs, a DICOM tree in both download layouts.

    As in CBIS-DDSM, there are only views with a lesion: CC and MLO of the breast with the patient's index lesion, and
    of the other breast if it has a finding of its own. A fifth of the patients is the official test set. As in
    CBIS-DDSM, the crop and mask cells of some rows are swapped, some masks differ from their image in size, and the
    cells of masks end in a newline. The result depends on the arguments alone, except `workers`.

    Args:
        root: a new folder.
        patients: their number, two or four images each.
        seed: of everything.
        image_size: (height, width) in pixels; lesions scale with the height.
        workers: processes.
        contrast: factor of the lesions' contrast; below 1 the task is harder.
        both_breasts: add the normal breasts, four images for every patient. CBIS-DDSM has no place for them: they lie
            in normal/, and manifest.csv lists every image, for `prepare manifest`. The other files stay as they are.
        digital: black beside the breast, as `draw` says; else as scanned film.
    """
    root.mkdir(parents=True, exist_ok=True)
    work = partial(_write_patient, root, seed, image_size, contrast, both_breasts, digital)
    tables = {name: [HEADERS[kind].split(",")] for (kind, _), name in CSVS.items()}
    if both_breasts:
        tables[MANIFEST] = [_MANIFEST_HEADER.split(",")]
    for rows in tqdm(each(work, patients, workers), total=patients, desc="phantom", disable=None):
        for name, row in rows:
            tables[name].append(row)
    for name, rows in tables.items():
        write_table(root / name, rows)


def write_table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV, header first, completely or not at all."""
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    unfinished.rename(path)


def each(work: partial, count: int, workers: int) -> Iterator[Any]:
    """work(0), work(1), … work(count − 1), in that order, by `workers` processes."""
    if workers <= 1:
        yield from map(work, range(count))
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(work, range(count), chunksize=4)


def _write_patient(
    root: Path, seed: int, size: tuple[int, int], contrast: float, both_breasts: bool, digital: bool, index: int
) -> list[tuple[str, list[str]]]:
    """Write the views of one patient; return their rows, each with the name of its table."""
    rng = np.random.default_rng([seed, index])
    # Four kinds of index lesion in turn, in random order within each four: halves are exact, neighbours independent.
    order = np.random.default_rng([seed, 1_000_000, index // 4]).permutation(4)[index % 4]
    kind, malignant = ("mass", "calc")[order % 2], bool(order // 2)
    side = "LR"[int(rng.integers(2))]
    breasts = {side: [(kind, malignant)]}
    if rng.random() < 0.25:  # a further benign finding, beside the index lesion or in the other breast
        breasts.setdefault("LR"[int(rng.integers(2))], []).append((("mass", "calc")[int(rng.integers(2))], False))
    half = "test" if index % 5 == 4 else "train"
    patient, density = f"P_{index + 1:05d}", str(1 + index % 4)
    rows: list[tuple[str, list[str]]] = []
    for (side, findings), view in itertools.product(breasts.items(), ("CC", "MLO")):
        kind = findings[0][0]
        pixels, drawn = draw(size, side, view, findings, rng, contrast, digital)
        layout = int(rng.integers(2))
        ending = f"{half.replace('train', 'training').capitalize()}_{patient}_{SIDES[side]}_{view}"
        image, cell = _write(root, f"{kind.capitalize()}-{ending}", _FULL, pixels, layout, 0, [seed, index])
        for number, finding in enumerate(drawn, start=1):
            folder, image_cell = f"{finding.kind.capitalize()}-{ending}", cell
            if finding.kind != kind:  # CBIS lists a second kind of finding, and the image again, under that kind
                image_cell = _write(root, folder, _FULL, pixels, layout, 0, [seed, index])[1]
            entropy = [seed, index, number]
            mask, cells = _write_lesion(root, f"{folder}_{number}", pixels, finding, layout, entropy, rng)
            assessment, pathology = ("5", "MALIGNANT") if finding.malignant else ("3", "BENIGN")
            abnormality = {"mass": "mass", "calc": "calcification"}[finding.kind]
            listed = [image, patient, side, view, pathology, abnormality, mask, density]
            if not finding.malignant and index % 3 == 0:
                assessment, pathology = "2", "BENIGN_WITHOUT_CALLBACK"
            words = WORDS[finding.kind, finding.malignant]
            row = [patient, density, SIDES[side], view, str(number), abnormality, *words, assessment, pathology, "3"]
            rows.append((CSVS[finding.kind, half], [*row, image_cell, *cells]))
            if both_breasts:
                rows.append((MANIFEST, listed))
    if both_breasts:
        rng = np.random.default_rng([seed, index, 1])  # its own generator: lesions do not depend on both_breasts
        for side, view in itertools.product(sorted(set(SIDES) - set(breasts)), ("CC", "MLO")):
            path = root / "normal" / f"{patient}_{SIDES[side]}_{view}.dcm"
            uids = [generate_uid(entropy_srcs=[str(seed), path.name, level]) for level in LEVELS]
            save_dicom(path, path.stem, _FULL, draw(size, side, view, [], rng, digital=digital)[0], uids)
            image = path.relative_to(root).as_posix()
            rows.append((MANIFEST, [image, patient, side, view, "NORMAL", "", "", density]))
    return rows


def _write_lesion(
    root: Path,
    folder: str,
    pixels: np.ndarray,
    finding: DrawnFinding,
    layout: int,
    entropy: list[int],
    rng: np.random.Generator,
) -> tuple[str, tuple[str, str]]:
    """Write crop and mask of one lesion; return the mask's real path, and the CSV cells of crop and mask."""
    mask = finding.mask.astype(np.uint8) * 255
    rows_at, columns_at = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    arrays = {"crop": pixels[rows_at[0] : rows_at[-1] + 1, columns_at[0] : columns_at[-1] + 1], "mask": mask}
    if rng.random() < 0.05:  # some of CBIS-DDSM's masks differ from their image in size
        larger = (mask.shape[1] + 2, mask.shape[0] + 2)
        arrays["mask"] = cv2.resize(mask, larger, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    listed = ("crop", "mask") if finding.kind == "mass" else ("mask", "crop")
    stored = listed[::-1] if rng.random() < 0.1 else listed  # the CSV lists the usual order all the same
    paths, cells = {}, {}
    for place, kind in enumerate(stored):
        # The old layout describes a crop as a crop; the new one describes both as masks.
        description = "cropped images" if kind == "crop" and not layout else _MASK
        paths[kind], cells[listed[place]] = _write(root, folder, description, arrays[kind], layout, place, entropy)
    return paths["mask"], (cells["crop"], cells["mask"] + "\n")


def _write(
    root: Path, folder: str, description: str, pixels: np.ndarray, layout: int, place: int, entropy: list[int]
) -> tuple[str, str]:
    """Write one DICOM in the old (UID folders, 000000.dcm) or the new (named folders, 1-1.dcm) layout.

    Returns its path below the root, and its CSV cell, which is always in the old layout.
    """
    words = [*map(str, entropy), folder]
    study, series = (generate_uid(entropy_srcs=[*words, level]) for level in LEVELS[:2])
    cell = f"{folder}/{study}/{series}/{place:06d}.dcm"
    path = f"CBIS-DDSM/{cell}"
    if layout:
        path = f"CBIS-DDSM/{folder}/08-07-2016-DDSM-00001/1.000000-{description}-00001/1-{place + 1}.dcm"
    instance = generate_uid(entropy_srcs=[*words, LEVELS[2], str(place)])
    save_dicom(root / path, folder, description, pixels, [study, series, instance])
    return path, cell


def save_dicom(path: Path, patient: str, description: str, pixels: np.ndarray, uids: Sequence[str]) -> None:
    """A Secondary Capture of uint8 or uint16 pixels; `uids` are of study, series and instance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pydicom.Dataset()
    data.SOPClassUID = _SECONDARY_CAPTURE
    data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID = uids
    data.PatientID, data.Modality, data.SeriesDescription = patient, "MG", description
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, 0
    data.add_new("PixelData", "OW" if pixels.dtype == np.uint16 else "OB", _even(pixels.tobytes()))
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)
