"""Small mammograms as files, for trees in the shape of published data sets."""

from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SHAPE = (96, 80)


def pixels(name: str) -> np.ndarray:
    """uint16 [96, 80] with 12 bits, another picture for each name."""
    rng = np.random.default_rng(list(name.encode()))
    return cv2.GaussianBlur(rng.uniform(0, 4095, SHAPE).astype(np.float32), (9, 9), 3).astype(np.uint16)


def dicom(path: Path, **tags: object) -> Path:
    """A digital mammogram with these fields in its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", generate_uid(entropy_srcs=[str(path)])
    header.Modality, header.SamplesPerPixel, header.PhotometricInterpretation = "MG", 1, "MONOCHROME2"
    header.Rows, header.Columns = SHAPE
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    for name, value in tags.items():
        setattr(header, name, value)
    header.PixelData = pixels(str(path)).tobytes()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.save_as(path, enforce_file_format=True)
    return path


def view_code(value: str) -> list[Dataset]:
    """A ViewCodeSequence."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", "view"
    return [code]


def table(path: Path, text: str) -> Path:
    """A CSV of these lines, without the indentation of the code."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n")
    return path
