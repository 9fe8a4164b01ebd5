"""What each image file of a data set is: its header's facts, its pixels' size, levels and letters, a thumbnail.

No id, date or free text of a header is kept: makers and SOP classes are known words, ids are compared and dropped.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from tqdm import tqdm

from mammojax.data import picture
from mammojax.data.breast import breast_mask
from mammojax.data.dicom import peek
from mammojax.data.examples import Rejected, digest, read_image, read_lesion
from mammojax.data.identity import patient_in
from mammojax.data.lettering import Letters, find_letters
from mammojax.data.levels import gray_levels
from mammojax.data.manifest import Image
from mammojax.data.silence import silence

MAKERS = (
    "HOLOGIC", "LORAD", "SIEMENS", "FUJI", "PHILIPS", "SECTRA", "PLANMED", "GIOTTO", "IMS", "KODAK", "CARESTREAM",
    "AGFA", "KONICA", "HOWTEK", "LUMISYS", "VIDAR", "DBA", "CANON", "METALTRONICA", "FISCHER", "TREX", "GE",
)  # fmt: skip
"""Words of a header's Manufacturer that are shown; other texts may be anything."""
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR")
MODALITIES = ("MG", "RG", "CR", "DX", "OT", "CT", "MR", "US", "PR", "SR", "SC", "XA", "RF", "KO", "SEG")
THUMBNAIL = 144  # pixels of its longer side
_TAGS = ("BurnedInAnnotation", "PhotometricInterpretation", "Manufacturer", "Modality", "BitsStored", "SOPClassUID")


@dataclass(frozen=True)
class Seen:
    """One image file.

    Attributes:
        image: the table's row.
        reason: why the file cannot be used; "": it can. Of such a file only the header's facts are filled.
        encoding: the transfer syntax, or the file's kind, such as "PNG".
        photometric, modality, sop_class, maker: of the header, known words, "" where it has none.
        bits: BitsStored, 0 where unknown.
        laterality, view, modifier: what the file says, not the table; see `dicom.Mammogram`.
        shape: (height, width) in pixels.
        spacing: (row, column) in mm, None where unknown.
        for_processing: whether it is a raw detector image.
        burned_in: BurnedInAnnotation, "YES", "NO" or "".
        letters: those outside the breast.
        has_breast: whether a breast was found.
        levels: see `levels.gray_levels`, of the framed image where a run's framing is given.
        digest: of the pixels; equal where two files show one image.
        header_patient: a number for the header's PatientID, equal within one survey where the ids are; "" without one.
        masks: (name of the mask, what is wrong with it).
        thumbnail: a JPEG; letters are covered, as they may be a name.
    """

    image: Image
    reason: str = ""
    encoding: str = ""
    photometric: str = ""
    modality: str = ""
    sop_class: str = ""
    maker: str = ""
    bits: int = 0
    laterality: str = ""
    view: str = ""
    modifier: str = ""
    shape: tuple[int, int] = (0, 0)
    spacing: tuple[float, float] | None = None
    for_processing: bool = False
    burned_in: str = ""
    letters: Sequence[Letters] = ()
    has_breast: bool = True
    levels: dict[str, float] = field(default_factory=dict)
    digest: bytes = b""
    header_patient: str = ""
    masks: Sequence[tuple[str, str]] = ()
    thumbnail: bytes = b""


def survey(images: Sequence[Image], framed: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels) -> list[Seen]:
    """Look at every image's file, in the order of the images; a broken file raises nothing.

    Args:
        images: of one table.
        framed: what a run makes of pixels uint16 [H, W] before its network sees them; gray levels are measured there.
    """
    key = secrets.token_bytes(16)  # of this survey alone: the numbers mean nothing afterwards

    def look(image: Image) -> Seen:
        return _look(image, framed, key)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(_bounded(pool, look, images), total=len(images), desc="check", unit="image", disable=None)
        return list(bar)


def _bounded(pool: ThreadPoolExecutor, work: Callable[[Image], Seen], images: Sequence[Image]) -> Iterator[Seen]:
    """The results in order; only a few files are ahead, since decoded mammograms take much memory."""
    for start in range(0, len(images), 32):
        yield from pool.map(work, images[start : start + 32])


def _look(image: Image, framed: Callable[[np.ndarray], np.ndarray], key: bytes) -> Seen:
    header = peek(image.path, *_TAGS)
    bits = str(header.get("BitsStored") or "")
    patient = patient_in(image.path) if len(header) else ""
    facts: dict[str, Any] = {
        "encoding": _encoding(image.path),
        "photometric": _word(header, "PhotometricInterpretation", PHOTOMETRIC),
        "modality": _word(header, "Modality", MODALITIES),
        "sop_class": _sop_class(str(header.get("SOPClassUID") or "")),
        "maker": _maker(str(header.get("Manufacturer") or "")),
        "bits": int(bits) if bits.isdecimal() else 0,
        "burned_in": _word(header, "BurnedInAnnotation", ("YES", "NO")),
        "header_patient": hashlib.sha256(key + patient.encode()).hexdigest()[:16] if patient else "",
    }
    rejected: Rejected = []
    mammogram = read_image(image, rejected)
    if mammogram is None:
        return Seen(image, rejected[0][1], **facts)
    pixels = mammogram.pixels
    breast = breast_mask(pixels)
    letters = find_letters(pixels, breast)
    return Seen(
        image, **facts, laterality=mammogram.laterality, view=mammogram.view, modifier=mammogram.modifier,
        shape=(pixels.shape[0], pixels.shape[1]), spacing=mammogram.pixel_spacing,
        for_processing=mammogram.for_processing, letters=letters, has_breast=bool(breast.any()),
        levels=gray_levels(framed(pixels)), digest=digest(pixels), masks=_masks(image, pixels.shape),
        thumbnail=_thumbnail(pixels, letters),
    )  # fmt: skip


def _encoding(path: Path) -> str:
    """The transfer syntax of a DICOM, else the kind of picture."""
    try:
        if name := picture.kind(path):
            return name
        with silence:
            syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
        return "DICOM without a file header" if syntax is None else f"DICOM, {_name_of(str(syntax))}"
    except Exception:  # pydicom raises many kinds on what is no DICOM
        return "unknown"


def _name_of(uid: str) -> str:
    """The name of a UID of the DICOM standard; an unknown one may be any text."""
    name = pydicom.uid.UID(uid).name
    return "unknown" if name == uid else str(name)


def _sop_class(uid: str) -> str:
    return _name_of(uid).replace(" Image Storage", "") if uid else ""


def _word(header: pydicom.Dataset, keyword: str, known: Sequence[str]) -> str:
    """A word of a header if it is one of the known ones, "other" for any other text, "" for none."""
    word = str(header.get(keyword) or "").upper()
    return word if word in known else "other" * bool(word)


def _maker(text: str) -> str:
    words = text.upper()
    return next((maker for maker in MAKERS if maker in words), "other" if words else "")


def _masks(image: Image, shape: tuple[int, ...]) -> list[tuple[str, str]]:
    """(name of a mask, what is wrong with it) of an image uint16 [H, W]'s lesions."""
    wrong = []
    for lesion in image.lesions:
        if lesion.mask is None:
            continue
        rejected: Rejected = []
        mask = read_lesion(lesion, shape, image.image, rejected)
        if mask is None:
            wrong.append((lesion.mask.name, rejected[0][1].removeprefix("mask: ")))
        elif not (mask > 0).any():
            wrong.append((lesion.mask.name, f"it marks nothing in {image.image}"))
        elif abs(mask.shape[0] * shape[1] / (mask.shape[1] * shape[0]) - 1) > 0.02:
            sizes = f"{mask.shape[0]} × {mask.shape[1]}, {image.image} is {shape[0]} × {shape[1]}"
            wrong.append((lesion.mask.name, f"it has another aspect than its image: {sizes}"))
    return wrong


def _thumbnail(pixels: np.ndarray, letters: Sequence[Letters]) -> bytes:
    """A small JPEG; the letters are covered."""
    scale = THUMBNAIL / max(pixels.shape)
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    top = max(1.0, float(np.percentile(small, 99.8)))
    colour = cv2.cvtColor(np.clip(small / top * 255, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    for (upper, left, lower, right), _ in letters:
        corner, other = (int(left * scale), int(upper * scale)), (int(right * scale) + 1, int(lower * scale) + 1)
        cv2.rectangle(colour, corner, other, (46, 140, 208), thickness=-1)
    return bytes(cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])
