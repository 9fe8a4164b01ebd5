"""One DICOM or gray picture → one Mammogram: pixels with every LUT applied, and the facts of its header.

pydicom inverts nothing and decodes no 12-bit JPEG Extended: here the order is modality LUT → VOI LUT → one inversion
for MONOCHROME1 (DICOM PS3.3 C.11), and all JPEG families go through imagecodecs. The stored range (BitsStored) or the
LUT's output range becomes 0 … 65535; no image is stretched by its own minimum and maximum.

A mammogram is of Modality MG, or digitised film: RG, CR, DX, OT or no modality, of the breast by BodyPartExamined, or
without a body part a Secondary Capture or mammography SOP class.
"""

import contextlib
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut

from mammojax.data import codestream, picture, projection
from mammojax.data.silence import silence
from mammojax.errors import BadMammogram

MIN_SIDE = 64  # pixels; smaller images are icons or cut-outs
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MAMMOGRAPHY = ("1.2.840.10008.5.1.4.1.1.1.2", FOR_PROCESSING)
FILM = ("RG", "CR", "DX", "OT", "")  # modalities of digitised film, beside MG
_NO_IMAGE = "it is neither DICOM nor PNG, JPEG, TIFF or PGM"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")


@dataclass(frozen=True)
class Mammogram:
    """One view of one breast.

    Attributes:
        pixels: uint16 [H, W], 0 … 65535, bright is dense.
        laterality: "L", "R", or "" where the file does not say.
        view: one of projection.PROJECTIONS, such as "CC" and "MLO", or "".
        modifier: why the view is empty though the file says one: "spot compression", "magnification", …; else "".
        pixel_spacing: (row, column) in mm in the breast's plane, None where the header does not say.
        patient_id, exam_id: as in the header. They identify a person; never print them.
        sop_class: UID, "" for a PNG.
        for_processing: whether it is the raw detector image, not meant for reading, whose gray scale differs.
    """

    pixels: np.ndarray
    laterality: str = ""
    view: str = ""
    pixel_spacing: tuple[float, float] | None = None
    patient_id: str = ""
    exam_id: str = ""
    sop_class: str = ""
    for_processing: bool = False
    modifier: str = ""


def read_mammogram(path: str | Path, any_modality: bool = False) -> Mammogram:
    """Read a DICOM file, or a gray PNG, JPEG, TIFF or PGM of 8 or 16 bits.

    Args:
        path: the file.
        any_modality: accept DICOMs of every modality as mammograms.

    Raises:
        BadMammogram: not a single gray mammogram, or one that cannot be decoded or shows nothing.
    """
    path = Path(path)
    if picture.kind(path):
        pixels, white = picture.read(path)
        scale = np.round(np.arange(white + 1) * (65535 / white)).astype(np.uint16)
        mammogram = _of_picture(path, scale[np.minimum(pixels, white)])
    else:
        with _lenient(path):
            mammogram = _read_dicom(path, any_modality)
    if mammogram.pixels.min() == mammogram.pixels.max():
        raise BadMammogram(f"{path.name}: PixelData holds one value only, no tissue; leave the file out.")
    return mammogram


def read_facts(path: str | Path, any_modality: bool = False) -> Mammogram:
    """A file's mammogram as `read_mammogram` reads it, but without decoding the pixels (uint16 [0, 0]).

    Raises:
        BadMammogram: the header is not of a single gray mammogram.
    """
    path, nothing = Path(path), np.zeros((0, 0), np.uint16)
    if picture.kind(path):
        return _of_picture(path, nothing)
    with _lenient(path):
        header = _header(path)
        _refuse(path, header)
        _refuse_others(path, header, any_modality)
        return _facts(path, header, nothing)


def read_mask(path: str | Path) -> np.ndarray:
    """The stored values of a lesion mask, uint8 or uint16 [H, W], no LUT; lesion where > 0. Raises BadMammogram."""
    path = Path(path)
    if picture.kind(path):
        return picture.read(path)[0]
    with _lenient(path):
        header = _header(path)
        _refuse(path, header)
        return _stored(path, header)


@contextlib.contextmanager
def _lenient(path: Path) -> Iterator[None]:
    """Ignore broken values in fields nobody needs; turn a broken field that is needed into a BadMammogram.

    pydicom parses a field on access, and raises errors of many kinds then.
    """
    with silence:
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

    A deflated file, which would have to be inflated whole, gives an empty one too.
    """
    try:
        with silence, Path(path).open("rb") as file:
            if picture.kind(Path(path)):
                return pydicom.Dataset()
            head = file.read(132)
            meta = pydicom.filereader.read_file_meta_info(path) if head[128:] == b"DICM" else None
            if meta is not None and meta.get("TransferSyntaxUID") == DEFLATED:
                return pydicom.Dataset()
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(keywords), force=True)
            return pydicom.Dataset({tag: header[tag] for tag in header.keys()})  # noqa: SIM118  parses each field now
    except Exception:  # pydicom raises many kinds on a broken header
        return pydicom.Dataset()


def _of_picture(path: Path, pixels: np.ndarray) -> Mammogram:
    side, view, modifier = projection.from_name(path.stem)
    return Mammogram(pixels, side, view, modifier=modifier)


def _header(path: Path) -> pydicom.Dataset:
    """The parsed file. Deflated files are refused before parsing: 1 MB can take 2 GB of memory."""
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
        raise BadMammogram(f"{path.name}: {_NO_IMAGE}; leave the file out.") from None
    except Exception as error:
        raise BadMammogram(
            f"{path.name}: the DICOM header is broken ({type(error).__name__}); copy it again."
        ) from None
    if (magic == b"DICM" or "PixelData" in header) and _is_cut(header):
        where = ", inside PixelData" if "PixelData" in header else ""
        raise BadMammogram(f"{path.name}: the file is cut short{where}; copy it again.")
    if "PixelData" not in header:
        if "Rows" in header:
            raise BadMammogram(f"{path.name}: PixelData is absent, the file is cut short or has none; copy it again.")
        if magic != b"DICM" and zipfile.is_zipfile(path):
            raise BadMammogram(f"{path.name}: it is a .zip among other files; unpack it.")
        reason = "PixelData is absent" if magic == b"DICM" or "SOPClassUID" in header else _NO_IMAGE
        raise BadMammogram(f"{path.name}: {reason}; leave the file out.")
    return header


def _is_cut(header: pydicom.Dataset) -> bool:
    """Whether the last field is cut, or no field is left: pydicom drops all if a sequence has no end."""
    last = header.get_item(max(header.keys())) if header else None
    if last is None:
        return True
    length, value = getattr(last, "length", 0xFFFFFFFF), last.value
    return length != 0xFFFFFFFF and isinstance(value, bytes) and len(value) < length


def _refuse(path: Path, header: pydicom.Dataset) -> None:
    """Refuse, before decoding, a file that is not a single gray image of a plausible size."""
    if header.get("SOPClassUID") == TOMOSYNTHESIS:
        raise BadMammogram(f"{path.name}: SOPClassUID is breast tomosynthesis; use the 2-D or synthetic view.")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise BadMammogram(f"{path.name}: NumberOfFrames is {frames}; only single images are read.")
    if int(header.get("SamplesPerPixel") or 1) > 1:
        raise BadMammogram(f"{path.name}: SamplesPerPixel is {header.SamplesPerPixel}, a colour image; leave it out.")
    rows, columns = _shape(header)
    if rows < 8 or columns < 8 or rows * columns > picture.MAX_PIXELS:
        raise BadMammogram(f"{path.name}: Rows × Columns is {rows} × {columns}, no mammogram's size; leave it out.")


def _refuse_others(path: Path, header: pydicom.Dataset, any_modality: bool) -> None:
    """Refuse an image that is no mammogram: another modality, a palette, an icon's size."""
    modality, body, sop_class = (
        str(header.get(k) or "").upper() for k in ("Modality", "BodyPartExamined", "SOPClassUID")
    )
    breast = "BREAST" in body or "MAMM" in body
    captured = sop_class in MAMMOGRAPHY or f"{sop_class}.".startswith(f"{SECONDARY_CAPTURE}.")
    film = modality in FILM and (breast or (captured and not body))
    if not (modality == "MG" or film or any_modality):
        # A header's text may be anything, a name too: only a text that looks like a modality is repeated.
        word = modality if re.fullmatch("[A-Z]{2}", modality) else "another" if modality else "absent"
        raise BadMammogram(
            f"{path.name}: Modality is {word}, neither MG nor digitised film of a breast; leave the file out, or "
            "predict it with --any-modality if it is a mammogram."
        )
    photometric = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        word = "PALETTE COLOR" if photometric == "PALETTE COLOR" else "neither MONOCHROME1 nor MONOCHROME2"
        raise BadMammogram(f"{path.name}: PhotometricInterpretation is {word}, so it is not gray; leave the file out.")
    refuse_small(path.name, _shape(header))


def refuse_small(name: str, shape: tuple[int, ...]) -> None:
    """Raise BadMammogram where an image [H, W] is smaller than MIN_SIDE on a side: an icon, or a cut-out."""
    if min(shape) < MIN_SIDE:
        raise BadMammogram(
            f"{name}: it is {shape[0]} × {shape[1]} pixels, a mammogram has {MIN_SIDE} or more a side; leave it out."
        )


def _shape(header: pydicom.Dataset) -> tuple[int, int]:
    return int(header.get("Rows") or 0), int(header.get("Columns") or 0)


def _stored(path: Path, header: pydicom.Dataset) -> np.ndarray:
    """The stored values, decoded: unsigned or, where PixelRepresentation says so, signed integers [H, W]."""
    meta = getattr(header, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
    (rows, columns), bits = _shape(header), int(header.get("BitsAllocated") or 16)
    try:
        if syntax in codestream.DECODED:
            pixels = codestream.decode(_frame(header), syntax, rows, columns)
        else:
            if syntax == codestream.RLE:
                codestream.check_rle(_frame(header), rows, columns, bits)
            elif syntax in _NATIVE and len(header.PixelData) < (needed := -(-rows * columns * bits // 8)):
                raise codestream.BadCodestream(
                    f"PixelData has {len(header.PixelData)} bytes, Rows × Columns need {needed}; copy the file again"
                )
            if not syntax and meta is not None:
                meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            pixels = header.pixel_array
    except codestream.BadCodestream as error:
        raise BadMammogram(f"{path.name}: {error}.") from None
    except Exception as error:
        uid = pydicom.uid.UID(syntax)
        name = uid.name if syntax and uid.name != syntax else "unknown"  # an unknown one may be any text
        raise BadMammogram(
            f"{path.name}: PixelData cannot be decoded as {name} ({type(error).__name__}); copy the file again."
        ) from None
    if pixels.shape != (rows, columns):
        raise BadMammogram(f"{path.name}: PixelData is {pixels.shape}, not Rows × Columns; copy the file again.")
    if int(header.get("PixelRepresentation") or 0) and pixels.dtype.kind == "u":
        # The JPEG decoders return the bits: the sign is bit BitsStored - 1.
        shift = pixels.dtype.itemsize * 8 - int(header.BitsStored)
        signed = pixels.astype(f"i{pixels.dtype.itemsize}")
        pixels = (signed << shift) >> shift
    return pixels


def _frame(header: pydicom.Dataset) -> bytes:
    """The one compressed frame, of as many fragments as it has."""
    return next(generate_frames(header.PixelData, number_of_frames=1))


def _read_dicom(path: Path, any_modality: bool) -> Mammogram:
    header = _header(path)
    _refuse(path, header)
    _refuse_others(path, header, any_modality)
    stored = _stored(path, header)
    bits = int(header.get("BitsStored") or stored.dtype.itemsize * 8)
    low = -(2 ** (bits - 1)) if int(header.get("PixelRepresentation") or 0) else 0
    slope, intercept = 1.0, 0.0
    if "RescaleSlope" in header and "RescaleIntercept" in header:  # pydicom applies both or none
        slope, intercept = float(header.RescaleSlope or 1), float(header.RescaleIntercept or 0)
    bounds = (low * slope + intercept, (low + 2**bits - 1) * slope + intercept)
    if header.get("ModalityLUTSequence"):
        bounds = (0.0, 2.0 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    pixels = np.empty(stored.shape, np.uint16)
    step = max(1, 2**20 // stored.shape[1])  # in pieces: in float64 a large film would take gigabytes
    for top in range(0, len(stored), step):
        unit = _voi(np.asarray(apply_modality_lut(stored[top : top + step], header), np.float64), header, bounds)
        if header.get("PhotometricInterpretation") == "MONOCHROME1":
            unit = 1 - unit
        pixels[top : top + step] = np.round(np.clip(unit, 0, 1) * 65535)
    return _facts(path, header, pixels)


def _facts(path: Path, header: pydicom.Dataset, pixels: np.ndarray) -> Mammogram:
    """The mammogram of a header and its pixels."""
    view, modifier = projection.view(header, path)
    return Mammogram(
        pixels=pixels,
        laterality=projection.laterality(header, path),
        view=view,
        modifier=modifier,
        pixel_spacing=_spacing(header),
        patient_id=str(header.get("PatientID") or ""),
        exam_id=str(header.get("StudyInstanceUID") or ""),
        sop_class=str(header.get("SOPClassUID") or ""),
        for_processing=header.get("SOPClassUID") == FOR_PROCESSING
        or header.get("PresentationIntentType") == "FOR PROCESSING",
    )


def _voi(values: np.ndarray, header: pydicom.Dataset, bounds: tuple[float, float]) -> np.ndarray:
    """The values through the first VOI LUT or window (PS3.3 C.11.2), 0 … 1; without one, over the range of `bounds`."""
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


def _spacing(header: pydicom.Dataset) -> tuple[float, float] | None:
    """Pixel spacing in the breast's plane; ImagerPixelSpacing is the magnified one at the detector."""
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
