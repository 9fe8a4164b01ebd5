"""Every kind of gray picture gives the pixels it was made of; what is no gray picture is refused by name."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from mammojax.data import dicom, picture
from mammojax.errors import BadMammogram

GRAY = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (96, 80)).astype(np.float32), (9, 9), 3)
EIGHT, SIXTEEN = GRAY.astype(np.uint8), (GRAY * 257).astype(np.uint16)


def _pgm(path: Path, pixels: np.ndarray, white: int) -> None:
    rows, columns = pixels.shape
    header = f"P5\n# a scanner\n{columns} {rows}\n{white}\n".encode()
    path.write_bytes(header + pixels.astype(">u2" if white > 255 else "u1").tobytes())


def test_lossless_pictures_are_read_as_they_are(tmp_path: Path) -> None:
    twelve = SIXTEEN >> 4
    cv2.imwrite(str(tmp_path / "png8.png"), EIGHT)
    cv2.imwrite(str(tmp_path / "png16.png"), SIXTEEN)
    tifffile.imwrite(tmp_path / "tiff8", EIGHT, compression="lzw")  # known by its bytes, not by its name
    tifffile.imwrite(tmp_path / "tiff16.tif", SIXTEEN, compression="zlib", predictor=True, byteorder=">")
    tifffile.imwrite(tmp_path / "inverted.tiff", 65535 - SIXTEEN, photometric="miniswhite")
    _pgm(tmp_path / "pgm8.pgm", EIGHT, 255)
    _pgm(tmp_path / "pgm12.pgm", twelve, 4095)
    expected = {
        "png8.png": EIGHT * np.uint16(257), "png16.png": SIXTEEN, "tiff8": EIGHT * np.uint16(257),
        "tiff16.tif": SIXTEEN, "inverted.tiff": SIXTEEN, "pgm8.pgm": EIGHT * np.uint16(257),
        "pgm12.pgm": np.round(twelve * (65535 / 4095)).astype(np.uint16),
    }  # fmt: skip
    for name, pixels in expected.items():
        np.testing.assert_array_equal(dicom.read_mammogram(tmp_path / name).pixels, pixels, err_msg=name)
    np.testing.assert_array_equal(dicom.read_mask(tmp_path / "pgm12.pgm"), twelve)  # stored values
    assert dicom.read_facts(tmp_path / "pgm8.pgm").pixels.size == 0


def test_a_jpeg_is_read_unturned(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "L_MLO.jpg"), EIGHT, [cv2.IMWRITE_JPEG_QUALITY, 100])
    mammogram = dicom.read_mammogram(tmp_path / "L_MLO.jpg")
    assert (mammogram.laterality, mammogram.view) == ("L", "MLO")
    assert np.abs(mammogram.pixels / 257 - EIGHT).max() <= 2
    data = (tmp_path / "L_MLO.jpg").read_bytes()
    # Exif with Orientation 6, "turn by 90 degrees", which a viewer's software may have written
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    (tmp_path / "turned.jpg").write_bytes(turned)
    np.testing.assert_array_equal(dicom.read_mammogram(tmp_path / "turned.jpg").pixels, mammogram.pixels)


def test_no_gray_picture(tmp_path: Path) -> None:
    colour = np.zeros((9, 9, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "colour.jpg"), colour)
    tifffile.imwrite(tmp_path / "colour.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "float.tif", GRAY)
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([EIGHT, EIGHT]), photometric="minisblack")
    for suffix in (".png", ".jpg"):
        cv2.imwrite(str(tmp_path / f"cut{suffix}"), EIGHT)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "float.tif").read_bytes()[:90])
    (tmp_path / "cut.pgm").write_bytes(b"P5\n80 96\n255\n")
    (tmp_path / "large.pgm").write_bytes(b"P5 200000 200000 255 ")
    jpeg = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(jpeg[:20])
    at = jpeg.index(b"\xff\xc0")
    (tmp_path / "large.jpg").write_bytes(jpeg[: at + 5] + b"\xff\xff\xff\xff" + jpeg[at + 9 :])
    for name, words in {
        "colour.jpg": "the JPEG has 3 channels", "colour.tif": "the TIFF has 3 channels", "float.tif": "holds float32",
        "pages.tif": "2 pages", "cut.jpg": "cannot be decoded", "cut.tif": "cannot be decoded",
        "cut.pgm": "cannot be decoded", "large.pgm": "too large", "large.jpg": "too large",
    }.items():  # fmt: skip
        with pytest.raises(BadMammogram, match=f"{name}: .*{words}"):
            dicom.read_mammogram(tmp_path / name)


def test_a_dicom_with_a_tiff_preamble_is_a_dicom(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"II*\0".ljust(128, b"\0") + b"DICM")
    assert picture.kind(tmp_path / "a") == ""
