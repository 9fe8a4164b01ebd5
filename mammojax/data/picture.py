"""Gray pictures that are no DICOM: PNG, JPEG, TIFF and PGM, known by their first bytes, not by their names.

How large a picture is stands in its first bytes and is checked before anything is decoded.
"""

import re
from pathlib import Path

import cv2
import numpy as np
import tifffile

from mammojax.data import codestream
from mammojax.errors import BadMammogram

MAX_PIXELS = 2**27  # 134 M: four times the largest detectors; a larger image is a decompression bomb or no mammogram
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"P5": "PGM",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
}  # fmt: skip
_PGM = re.compile(rb"P5(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)\s")


def kind(path: Path) -> str:
    """ "PNG", "JPEG", "TIFF" or "PGM"; "" for any other file, a DICOM with such a preamble too.

    Raises:
        BadMammogram: the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise BadMammogram(f"{path.name}: the file cannot be opened ({error.strerror}); check its path.") from None
    if head[128:] == b"DICM":
        return ""
    return next((name for signature, name in _SIGNATURES.items() if head.startswith(signature)), "")


def read(path: Path) -> tuple[np.ndarray, int]:
    """A gray picture of 8 or 16 bits, bright as white.

    Returns:
        uint8 or uint16 [H, W], and the value that is white: 255 or 65535, less for 12-bit TIFFs and PGMs.

    Raises:
        BadMammogram: it is too large, not gray, has several pages, or cannot be decoded.
    """
    name = kind(path)
    try:
        pixels, white = _tiff(path) if name == "TIFF" else _of_opencv(path, name)
    except BadMammogram:
        raise
    except Exception as error:  # decoders raise errors of many kinds on broken files
        raise BadMammogram(
            f"{path.name}: the {name} cannot be decoded ({type(error).__name__}); copy it again."
        ) from None
    if pixels.ndim != 2:
        raise BadMammogram(f"{path.name}: the {name} has {pixels.shape[2]} channels; save it as 8- or 16-bit gray.")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise BadMammogram(f"{path.name}: the {name} holds {pixels.dtype}; save it as 8- or 16-bit gray.")
    return pixels, white


def _of_opencv(path: Path, name: str) -> tuple[np.ndarray, int]:
    """A PNG, JPEG or PGM: OpenCV decodes each bit for bit, and a JPEG without turning it as its EXIF says."""
    data = path.read_bytes()
    white = 0
    if name == "PNG":
        _refuse_large(path, name, int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big"))
    elif name == "JPEG":
        for rows, columns, _ in codestream.jpeg_sizes(data):
            _refuse_large(path, name, rows, columns)
    else:
        header = _PGM.match(data)
        columns, rows, white = (int(number) for number in header.groups()) if header else (0, 0, 0)
        _refuse_large(path, name, rows, columns)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise BadMammogram(f"{path.name}: the {name} cannot be decoded; copy it again.")
    return pixels, white or (255 if pixels.dtype == np.uint8 else 65535)


def _tiff(path: Path) -> tuple[np.ndarray, int]:
    """The only page of a TIFF; one whose lowest value is white is inverted."""
    with tifffile.TiffFile(path) as file:
        if len(file.pages) > 1:
            raise BadMammogram(f"{path.name}: the TIFF has {len(file.pages)} pages; save each view as a file.")
        page = file.pages.first
        if page.samplesperpixel > 1:
            raise BadMammogram(f"{path.name}: the TIFF has {page.samplesperpixel} channels; save it as gray.")
        _refuse_large(path, "TIFF", page.imagelength, page.imagewidth)
        white = 2**page.bitspersample - 1
        pixels = page.asarray()
        return (white - pixels if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE else pixels), white


def _refuse_large(path: Path, name: str, rows: int, columns: int) -> None:
    if rows * columns > MAX_PIXELS:
        raise BadMammogram(f"{path.name}: the {name} is {rows} × {columns}, too large for a mammogram; leave it out.")
