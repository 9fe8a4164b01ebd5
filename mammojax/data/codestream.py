"""A compressed frame, from bytes to stored values: its size is compared with the header's before it is decoded.

A frame's first bytes say how large it is, and its decoder allocates that much: 11 kB of JPEG can ask for 4 GB.
The marker segments are those of ITU-T T.81 (JPEG), T.87 (JPEG-LS), T.800 and T.814 (JPEG 2000, HTJ2K); RLE is that of
DICOM PS3.5 Annex G.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import imagecodecs
import numpy as np

RLE = "1.2.840.10008.1.2.5"
_JPEG: dict[str, Callable[[bytes], Any]] = {
    "1.2.840.10008.1.2.4.50": imagecodecs.jpeg8_decode,  # baseline
    "1.2.840.10008.1.2.4.51": imagecodecs.jpeg_decode,  # extended, 12 bit, which pydicom's plugins cannot
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
}
_JPEG_2000: dict[str, Callable[[bytes], Any]] = {
    "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.91": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.201": imagecodecs.htj2k_decode,
    "1.2.840.10008.1.2.4.202": imagecodecs.htj2k_decode,
    "1.2.840.10008.1.2.4.203": imagecodecs.htj2k_decode,
}
DECODED = {*_JPEG, *_JPEG_2000}
_END = b"\xff\xd9"  # EOI of JPEG, EOC of JPEG 2000: neither occurs inside entropy-coded data


class BadCodestream(ValueError):
    """Why a frame is not decoded: a sentence without the file's name and the full stop."""


def decode(frame: bytes, syntax: str, rows: int, columns: int) -> np.ndarray:
    """The stored values of a gray frame of one of DECODED, uint8 or uint16 (int16) [rows, columns].

    Raises:
        BadCodestream: the frame is of another size than the header says, or cut short. The decoders raise their own.
    """
    if syntax in _JPEG:
        sizes, data = list(jpeg_sizes(frame)), frame.rfind(b"\xff\xda")
    else:
        frame = _without_boxes(frame)
        sizes, data = [_jpeg_2000_size(frame)], frame.rfind(b"\xff\x93")
    if not sizes:
        raise BadCodestream(
            "PixelData says no size of its own, so it is no JPEG or the file is cut short; copy it again"
        )
    for size in sizes:  # more than one is against the standard: then the decoder might take another
        if size != (rows, columns, 1):
            raise BadCodestream(
                f"PixelData is compressed as {size[0]} × {size[1]} × {size[2]}, but Rows × Columns × SamplesPerPixel "
                f"is {rows} × {columns} × 1; copy the file again"
            )
    if data < 0 or frame.find(_END, data) < 0:  # several decoders fill the rest with gray and say nothing
        raise BadCodestream("the file is cut short, the compressed image in PixelData has no end; copy it again")
    return np.asarray({**_JPEG, **_JPEG_2000}[syntax](frame))


def check_rle(frame: bytes, rows: int, columns: int, bits: int) -> None:
    """Raise BadCodestream where a gray frame's RLE header does not fit `bits` a pixel, or its segments are too long.

    There is a segment for each byte of a pixel; the worst packing makes two bytes of one (literal runs of length 1).
    """
    if len(frame) < 64:
        raise BadCodestream("the file is cut short, the RLE header in PixelData is not whole; copy it again")
    count, *offsets = struct.unpack("<16L", frame[:64])
    if count != -(-bits // 8):
        raise BadCodestream(
            f"PixelData has {count} RLE segments, but BitsAllocated {bits} needs {-(-bits // 8)}; copy the file again"
        )
    ends = [*offsets[1:count], len(frame)]
    for start, end in zip(offsets[:count], ends, strict=True):
        if not 64 <= start < end <= len(frame):
            raise BadCodestream("the file is cut short, PixelData lacks an RLE segment; copy it again")
        if end - start > 2 * rows * columns + 2:
            raise BadCodestream(f"PixelData is compressed as more than {rows} × {columns} pixels; copy the file again")


def jpeg_sizes(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """Rows, columns and components of each frame header (SOF) before the first scan."""
    at = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while (at := frame.find(b"\xff", at)) >= 0 and at + 10 <= len(frame):
        marker = frame[at + 1]
        if marker in (0xDA, 0xD9):  # a scan begins, or the end
            return
        if marker in (0x00, 0xFF):  # no marker; fill bytes
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            at += 2
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:  # 0xF7: JPEG-LS
            rows, columns, samples = struct.unpack(">HHB", frame[at + 5 : at + 10])
            yield rows, columns, samples
        at += 2 + max(2, struct.unpack(">H", frame[at + 2 : at + 4])[0])


def _without_boxes(frame: bytes) -> bytes:
    """The JPEG 2000 codestream inside a JP2 file: DICOM forbids that wrapping, but some devices write it. Its boxes
    could turn one channel into many (a palette), so no decoder sees them."""
    if frame[4:8] != b"jP  ":
        return frame
    at = 0
    while at + 16 <= len(frame):
        length, kind, long = struct.unpack(">L4sQ", frame[at : at + 16])
        if kind == b"jp2c":
            return frame[at + (16 if length == 1 else 8) :]
        length = long if length == 1 else length
        if length < 8:
            break
        at += length
    return b""


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int]:
    """Rows, columns and components of the SIZ segment, which comes first."""
    if len(frame) < 45 or frame[:4] != b"\xff\x4f\xff\x51":
        raise BadCodestream("PixelData is no JPEG 2000 codestream, or the file is cut short; copy it again")
    width, height, left, top = struct.unpack(">4L", frame[8:24])
    samples, _, step_x, step_y = struct.unpack(">HBBB", frame[40:45])
    step_x, step_y = max(1, step_x), max(1, step_y)
    return -(-height // step_y) - -(-top // step_y), -(-width // step_x) - -(-left // step_x), samples
