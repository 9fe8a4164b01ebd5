"""One DICOM (or gray PNG) file → one Mammogram: pixels with every LUT applied, and the facts of its header.

pydicom inverts nothing and decodes no 12-bit JPEG Extended: here the order is modality LUT → VOI LUT → one inversion
for MONOCHROME1 (DICOM PS3.3 C.11), and all JPEG families go through imagecodecs. The stored range (BitsStored) or the
LUT's output range becomes 0 … 65535; no image is stretched by its own minimum and maximum.
"""

import contextlib
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut

MAX_PIXELS = 2**27  # 134 M: four times the largest detectors; more is a bomb or not a mammogram
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
VIEW_CODES = {
    "399162004": "CC", "R-10242": "CC",
    "399368009": "MLO", "R-10226": "MLO",
    "399260004": "ML", "R-10224": "ML",
    "399352003": "LM", "R-10228": "LM",
}  # fmt: skip
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG: dict[str, Callable[[bytes], Any]] = {
    "1.2.840.10008.1.2.4.50": imagecodecs.jpeg8_decode,  # baseline
    "1.2.840.10008.1.2.4.51": imagecodecs.jpeg_decode,  # extended, 12 bit, which pydicom's plugins cannot
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.91": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.201": imagecodecs.htj2k_decode,
    "1.2.840.10008.1.2.4.202": imagecodecs.htj2k_decode,
    "1.2.840.10008.1.2.4.203": imagecodecs.htj2k_decode,
}


class BadMammogram(ValueError):
    """A file that cannot be used, in one sentence: the file's name, the field, the remedy."""


@dataclass(frozen=True)
class Mammogram:
    """One view of one breast.

    Attributes:
        pixels: uint16 [H, W], 0 … 65535, bright is dense.
        laterality: "L", "R", or "" where nothing says.
        view: "CC", "MLO", another view's short name, or "".
        pixel_spacing: (row, column) in mm in the breast's plane, None where the header does not say.
        patient_id, exam_id: as in the header: they identify a person, never print them.
        sop_class: UID, "" for a PNG.
        for_processing: the raw detector image, not meant for reading: its gray scale differs from other images'.
    """

    pixels: np.ndarray
    laterality: str = ""
    view: str = ""
    pixel_spacing: tuple[float, float] | None = None
    patient_id: str = ""
    exam_id: str = ""
    sop_class: str = ""
    for_processing: bool = False


def read_mammogram(path: str | Path) -> Mammogram:
    """Read a DICOM file or an 8- or 16-bit gray PNG.

    Raises:
        BadMammogram: not a single gray mammogram, or one that cannot be decoded or shows nothing.
    """
    path = Path(path)
    if _is_png(path):
        pixels = _read_png(path)
        if pixels.dtype == np.uint8:
            pixels = pixels.astype(np.uint16) * 257
        mammogram = Mammogram(pixels, *_from_name(path.stem))
    else:
        with _lenient(path):
            mammogram = _read_dicom(path)
    if mammogram.pixels.min() == mammogram.pixels.max():
        raise BadMammogram(f"{path.name}: PixelData holds one value only, no tissue; leave the file out.")
    return mammogram


def read_facts(path: str | Path) -> Mammogram:
    """What `read_mammogram` says of a file, without its pixels (uint16 [0, 0]), which are not decoded.

    Raises:
        BadMammogram: the header is not of a single gray mammogram.
    """
    path, nothing = Path(path), np.zeros((0, 0), np.uint16)
    if _is_png(path):
        return Mammogram(nothing, *_from_name(path.stem))
    with _lenient(path):
        header = _header(path)
        _refuse(path, header)
        return _facts(path, header, nothing)


def read_mask(path: str | Path) -> np.ndarray:
    """The stored values of a lesion mask, uint8 or uint16 [H, W], no LUT; lesion where > 0. Raises BadMammogram."""
    path = Path(path)
    if _is_png(path):
        return _read_png(path)
    with _lenient(path):
        header = _header(path)
        _refuse(path, header)
        return _stored(path, header)


@contextlib.contextmanager
def _lenient(path: Path) -> Iterator[None]:
    """Silent on values that break the standard in fields nobody needs; a broken field that is needed is a BadMammogram.

    pydicom parses a field when it is asked for it, and raises errors of many kinds then.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except BadMammogram:
            raise
        except Exception as error:
            raise BadMammogram(
                f"{path.name}: a field of the DICOM header is broken ({type(error).__name__}); copy the file again."
            ) from None


def peek(path: str | Path, *keywords: str) -> pydicom.Dataset:
    """Some fields of a DICOM header; pixels are not read. Empty where the file is no DICOM or its header is broken.

    The deflated form, which would be inflated whole, is not looked at either.
    """
    try:
        with warnings.catch_warnings(), Path(path).open("rb") as file:
            warnings.simplefilter("ignore")
            head = file.read(132)
            if head.startswith(_PNG):
                return pydicom.Dataset()
            meta = pydicom.filereader.read_file_meta_info(path) if head[128:] == b"DICM" else None
            if meta is not None and meta.get("TransferSyntaxUID") == DEFLATED:
                return pydicom.Dataset()
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(keywords), force=True)
            return pydicom.Dataset({tag: header[tag] for tag in header.keys()})  # noqa: SIM118  parses each field now
    except Exception:  # pydicom raises many kinds on a broken header
        return pydicom.Dataset()


def _is_png(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8) == _PNG
    except OSError as error:
        raise BadMammogram(f"{path.name}: the file cannot be opened ({error.strerror}); check its path.") from None


def _read_png(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        head = file.read(26)
    if len(head) == 26:
        width, height = struct.unpack(">II", head[16:24])
        if width * height > MAX_PIXELS:
            raise BadMammogram(f"{path.name}: the PNG is {height} × {width}, too large for a mammogram; leave it out.")
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise BadMammogram(f"{path.name}: the PNG cannot be decoded; copy it again.")
    if pixels.ndim != 2:
        raise BadMammogram(f"{path.name}: the PNG has {pixels.shape[2]} channels; save it as 8- or 16-bit gray.")
    return pixels


def _header(path: Path) -> pydicom.Dataset:
    """The parsed file, its deflated form refused before parsing: 1 MB of it can take 2 GB of memory."""
    try:
        with path.open("rb") as file:
            file.seek(128)
            magic = file.read(4)
            meta = pydicom.filereader.read_file_meta_info(path) if magic == b"DICM" else None
        if meta is not None and meta.get("TransferSyntaxUID") == DEFLATED:
            raise BadMammogram(f"{path.name}: TransferSyntaxUID is Deflated, which is refused; store it uncompressed.")
        header = pydicom.dcmread(path, force=magic != b"DICM", defer_size=None)
    except BadMammogram:
        raise
    except InvalidDicomError:
        raise BadMammogram(f"{path.name}: it is neither DICOM nor PNG; leave the file out.") from None
    except Exception as error:
        raise BadMammogram(
            f"{path.name}: the DICOM header is broken ({type(error).__name__}); copy it again."
        ) from None
    if "PixelData" not in header:
        what = "it is neither DICOM nor PNG" if "SOPClassUID" not in header else "PixelData is absent"
        raise BadMammogram(f"{path.name}: {what}; leave the file out.")
    return header


def _refuse(path: Path, header: pydicom.Dataset) -> None:
    """What is no single gray image of a plausible size is refused before its pixels are decoded."""
    if header.get("SOPClassUID") == TOMOSYNTHESIS:
        raise BadMammogram(f"{path.name}: SOPClassUID is breast tomosynthesis; use the 2-D or synthetic view.")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise BadMammogram(f"{path.name}: NumberOfFrames is {frames}; only single images are read.")
    if int(header.get("SamplesPerPixel") or 1) > 1:
        raise BadMammogram(f"{path.name}: SamplesPerPixel is {header.SamplesPerPixel}, a colour image; leave it out.")
    rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    if rows < 8 or columns < 8 or rows * columns > MAX_PIXELS:
        raise BadMammogram(f"{path.name}: Rows × Columns is {rows} × {columns}, no mammogram's size; leave it out.")


def _stored(path: Path, header: pydicom.Dataset) -> np.ndarray:
    """The stored values, decoded: unsigned or, where PixelRepresentation says so, signed integers [H, W]."""
    meta = getattr(header, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
    try:
        if syntax in _JPEG:
            frame = next(generate_frames(header.PixelData, number_of_frames=1))
            pixels = np.asarray(_JPEG[syntax](frame))
        else:
            if not syntax and meta is not None:
                meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            pixels = header.pixel_array
    except Exception as error:
        name = pydicom.uid.UID(syntax).name if syntax else "unknown"
        raise BadMammogram(
            f"{path.name}: PixelData cannot be decoded as {name} ({type(error).__name__}); copy the file again."
        ) from None
    if pixels.shape != (header.Rows, header.Columns):
        raise BadMammogram(f"{path.name}: PixelData is {pixels.shape}, not Rows × Columns; copy the file again.")
    if int(header.get("PixelRepresentation") or 0) and pixels.dtype.kind == "u":
        # The JPEG decoders return the bits: the sign is bit BitsStored - 1.
        shift = pixels.dtype.itemsize * 8 - int(header.BitsStored)
        signed = pixels.astype(f"i{pixels.dtype.itemsize}")
        pixels = (signed << shift) >> shift
    return pixels


def _read_dicom(path: Path) -> Mammogram:
    header = _header(path)
    _refuse(path, header)
    stored = _stored(path, header)
    bits = int(header.get("BitsStored") or stored.dtype.itemsize * 8)
    low = -(2 ** (bits - 1)) if int(header.get("PixelRepresentation") or 0) else 0
    values = np.asarray(apply_modality_lut(stored, header), np.float64)
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    bounds = (low * slope + intercept, (low + 2**bits - 1) * slope + intercept)
    if header.get("ModalityLUTSequence"):
        bounds = (0.0, 2.0 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    unit = _voi(values, header, bounds)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        unit = 1 - unit
    return _facts(path, header, np.round(np.clip(unit, 0, 1) * 65535).astype(np.uint16))


def _facts(path: Path, header: pydicom.Dataset, pixels: np.ndarray) -> Mammogram:
    """What the header says, beside the pixels."""
    return Mammogram(
        pixels=pixels,
        laterality=_laterality(header, path),
        view=_view(header, path),
        pixel_spacing=_spacing(header),
        patient_id=str(header.get("PatientID") or ""),
        exam_id=str(header.get("StudyInstanceUID") or ""),
        sop_class=str(header.get("SOPClassUID") or ""),
        for_processing=header.get("SOPClassUID") == FOR_PROCESSING
        or header.get("PresentationIntentType") == "FOR PROCESSING",
    )


def _voi(values: np.ndarray, header: pydicom.Dataset, bounds: tuple[float, float]) -> np.ndarray:
    """The first VOI LUT or window (PS3.3 C.11.2), as 0 … 1; without one, the whole range of `bounds`."""
    if header.get("VOILUTSequence"):
        lut = header.VOILUTSequence[0]
        count, first, bits = (int(v) for v in lut.LUTDescriptor)
        count = count or 65536
        data = lut.LUTData
        table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
        index = np.clip(values - first, 0, count - 1).astype(np.int64)
        return table[index] / (2.0**bits - 1)
    centre, width = header.get("WindowCenter"), header.get("WindowWidth")
    if centre is None or width is None or centre == "" or width == "":
        return (values - min(bounds)) / (max(bounds) - min(bounds))
    c, w = (float(v[0]) if isinstance(v, pydicom.multival.MultiValue) else float(v) for v in (centre, width))
    function = str(header.get("VOILUTFunction") or "LINEAR")
    if function == "SIGMOID" and w > 0:
        return 1 / (1 + np.exp(-4 * (values - c) / w))
    if function == "LINEAR_EXACT" and w > 0:
        return (values - c) / w + 0.5
    if w < 1:
        return (values - min(bounds)) / (max(bounds) - min(bounds))
    return (values - (c - 0.5)) / max(w - 1, 1e-6) + 0.5


def _laterality(header: pydicom.Dataset, path: Path) -> str:
    for keyword in ("ImageLaterality", "Laterality", "FrameLaterality"):
        if str(header.get(keyword) or "").upper()[:1] in ("L", "R"):
            return str(header[keyword].value).upper()[0]
    for shared in header.get("SharedFunctionalGroupsSequence") or []:
        for anatomy in shared.get("FrameAnatomySequence") or []:
            if str(anatomy.get("FrameLaterality") or "") in ("L", "R"):
                return str(anatomy.FrameLaterality)
    return _from_name(path.stem)[0]


def _view(header: pydicom.Dataset, path: Path) -> str:
    if position := str(header.get("ViewPosition") or "").strip().upper():
        return position
    for code in header.get("ViewCodeSequence") or []:
        if str(code.get("CodeValue")) in VIEW_CODES:
            return VIEW_CODES[str(code.CodeValue)]
    text = " ".join(str(header.get(k) or "") for k in ("SeriesDescription", "AcquisitionDeviceProcessingDescription"))
    return _from_name(text)[1] or _from_name(path.stem)[1]


def _from_name(text: str) -> tuple[str, str]:
    """Laterality and view that a file name or description spells out, such as "P1_LEFT_CC" or "L MLO"."""
    words = re.split(r"[^A-Z]+", text.upper())
    sides = {
        "L" if w in ("L", "LEFT", "LCC", "LMLO") else "R" for w in words if re.fullmatch("[LR](CC|MLO)?|LEFT|RIGHT", w)
    }
    views = [w.removeprefix("L").removeprefix("R") if len(w) > 2 and w[0] in "LR" else w for w in words]
    view = next((w for w in views if w in ("CC", "MLO", "ML", "LM", "XCCL")), "")
    return (sides.pop() if len(sides) == 1 else ""), view


def _spacing(header: pydicom.Dataset) -> tuple[float, float] | None:
    """Spacing in the breast's plane: at the detector ImagerPixelSpacing is magnified."""
    try:
        if header.get("ImagerPixelSpacing"):
            factor = float(header.get("EstimatedRadiographicMagnificationFactor") or 1)
            row, column = (float(v) / factor for v in header.ImagerPixelSpacing)
            return row, column
        if header.get("PixelSpacing"):
            row, column = (float(v) for v in header.PixelSpacing)
            return row, column
    except (ValueError, TypeError, ZeroDivisionError):
        pass  # a malformed spacing is no spacing
    return None
