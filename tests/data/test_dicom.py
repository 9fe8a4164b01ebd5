"""Every transfer syntax bit-exact where lossless, the LUT chain by hand, and what is refused by name."""

from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from mammojax.data import dicom

UNCOMPRESSED = "1.2.840.10008.1.2.1"


def _pixels(bits: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    field = cv2.GaussianBlur(rng.uniform(0, 2**bits - 1, (48, 40)).astype(np.float32), (9, 9), 3)
    return np.round(field).astype(np.uint16 if bits > 8 else np.uint8)


def _write(
    path: Path,
    pixels: np.ndarray,
    syntax: str = UNCOMPRESSED,
    data: bytes | None = None,
    bits: int = 12,
    **tags: object,
) -> Path:
    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.3.4"
    header.PatientID, header.StudyInstanceUID = "secret-id", "1.2.3"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape[:2]
    header.BitsAllocated = pixels.dtype.itemsize * 8
    header.BitsStored, header.HighBit, header.PixelRepresentation = bits, bits - 1, 0
    for name, value in tags.items():
        setattr(header, name, value)
    raw = pixels.tobytes() if data is None else encapsulate([data])
    header.add_new(
        "PixelData", "OB" if data is not None or pixels.dtype == np.uint8 else "OW", raw + b"\0" * (len(raw) % 2)
    )
    header["PixelData"].is_undefined_length = data is not None
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.save_as(path, enforce_file_format=True)
    return path


def _stretched(pixels: np.ndarray, bits: int = 12) -> np.ndarray:
    return np.round(pixels / (2**bits - 1) * 65535).astype(np.uint16)


ENCODERS = {
    "1.2.840.10008.1.2.4.70": lambda a: imagecodecs.ljpeg_encode(a, bitspersample=12),
    "1.2.840.10008.1.2.4.57": lambda a: imagecodecs.ljpeg_encode(a, bitspersample=12),
    "1.2.840.10008.1.2.4.80": lambda a: imagecodecs.jpegls_encode(a),
    "1.2.840.10008.1.2.4.90": lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True, level=0),
    "1.2.840.10008.1.2.4.201": lambda a: imagecodecs.htj2k_encode(a, reversible=True),
}


@pytest.mark.parametrize("syntax", list(ENCODERS))
def test_lossless_syntaxes_are_bit_exact(tmp_path: Path, syntax: str) -> None:
    pixels = _pixels()
    path = _write(tmp_path / "a.dcm", pixels, syntax, ENCODERS[syntax](pixels))
    np.testing.assert_array_equal(dicom.read_mammogram(path).pixels, _stretched(pixels))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.5"])
def test_native_syntaxes_are_bit_exact(tmp_path: Path, syntax: str) -> None:
    pixels, path = _pixels(), tmp_path / "a.dcm"
    if syntax.endswith(".5"):
        _write(path, pixels)
        header = pydicom.dcmread(path)
        header.compress(pydicom.uid.RLELossless, encoding_plugin="pydicom")
        header.save_as(path)
    else:
        _write(path, pixels, syntax)
    np.testing.assert_array_equal(dicom.read_mammogram(path).pixels, _stretched(pixels))


def test_baseline_jpeg_is_close(tmp_path: Path) -> None:
    pixels = _pixels(8)
    path = _write(tmp_path / "a.dcm", pixels, "1.2.840.10008.1.2.4.50", imagecodecs.jpeg8_encode(pixels, level=98), 8)
    assert np.abs(dicom.read_mammogram(path).pixels.astype(int) - _stretched(pixels, 8)).max() <= 3 * 257


def test_real_compressed_films_decode(shared: Path) -> None:
    files = sorted((shared / "data" / "wg04").glob("*.dcm"))
    extended, reversible = (dicom.read_mammogram(f) for f in reversed(files))
    assert len(files) == 2
    assert extended.pixels.shape == reversible.pixels.shape == (4664, 3064)
    assert (extended.laterality, extended.view) == ("L", "MLO")
    # one film, compressed twice: lossy 12-bit JPEG stays close to the lossless one
    assert np.abs(extended.pixels.astype(int) - reversible.pixels.astype(int)).mean() < 0.01 * 65535


def test_luts_then_one_inversion(tmp_path: Path) -> None:
    pixels = _pixels()
    window = {"WindowCenter": 4000, "WindowWidth": 800}
    values = pixels * 2.0 - 100
    tags = {"RescaleSlope": 2, "RescaleIntercept": -100, **window}
    linear = np.clip((values - 3999.5) / 799 + 0.5, 0, 1)
    got = dicom.read_mammogram(_write(tmp_path / "a.dcm", pixels, **tags)).pixels
    np.testing.assert_allclose(got, linear * 65535, atol=1)
    inverted = dicom.read_mammogram(_write(tmp_path / "b.dcm", pixels, PhotometricInterpretation="MONOCHROME1", **tags))
    np.testing.assert_allclose(inverted.pixels, (1 - linear) * 65535, atol=1)
    sigmoid = dicom.read_mammogram(_write(tmp_path / "c.dcm", pixels, VOILUTFunction="SIGMOID", **tags)).pixels
    np.testing.assert_allclose(sigmoid, 65535 / (1 + np.exp(-4 * (values - 4000) / 800)), atol=1)
    exact = dicom.read_mammogram(_write(tmp_path / "d.dcm", pixels, VOILUTFunction="LINEAR_EXACT", **tags)).pixels
    np.testing.assert_allclose(exact, np.clip((values - 4000) / 800 + 0.5, 0, 1) * 65535, atol=1)


def test_voi_table_wins_over_a_window(tmp_path: Path) -> None:
    pixels = _pixels()
    lut = pydicom.Dataset()
    lut.add_new("LUTDescriptor", "US", [4096, 0, 10])
    lut.add_new("LUTData", "OW", (np.arange(4096) // 8).astype("<u2").tobytes())
    path = _write(tmp_path / "a.dcm", pixels, VOILUTSequence=Sequence([lut]), WindowCenter=1, WindowWidth=2)
    np.testing.assert_allclose(dicom.read_mammogram(path).pixels, (pixels // 8) / 1023 * 65535, atol=1)


def test_signed_pixels_keep_their_order(tmp_path: Path) -> None:
    pixels = _pixels().astype(np.int16) - 2048
    got = dicom.read_mammogram(_write(tmp_path / "a.dcm", pixels, PixelRepresentation=1)).pixels
    np.testing.assert_array_equal(got, _stretched(pixels + 2048.0))


def test_sides_views_and_spacing_have_fallbacks(tmp_path: Path) -> None:
    read = lambda name, **tags: dicom.read_mammogram(_write(tmp_path / name, _pixels(), **tags))  # noqa: E731
    assert read("x.dcm", ImageLaterality="R", ViewPosition="ML").view == "ML"
    assert read("x.dcm", ImageLaterality="R", Laterality="L").laterality == "R"
    assert read("x.dcm", Laterality="L").laterality == "L"
    code = pydicom.Dataset()
    code.CodeValue = "399162004"
    assert read("x.dcm", ViewCodeSequence=Sequence([code])).view == "CC"
    named = read("Mass-Test_P_1_LEFT_MLO.dcm")
    assert (named.laterality, named.view) == ("L", "MLO")
    magnified = read("x.dcm", ImagerPixelSpacing=[0.09, 0.09], EstimatedRadiographicMagnificationFactor="1.5")
    assert magnified.pixel_spacing == pytest.approx((0.06, 0.06))
    assert read("x.dcm", PresentationIntentType="FOR PROCESSING").for_processing


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({"SOPClassUID": dicom.TOMOSYNTHESIS}, "tomosynthesis"),
        ({"NumberOfFrames": 40}, "NumberOfFrames"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"Rows": 60000, "Columns": 60000}, "60000"),
        ({"Rows": 49}, "PixelData"),
    ],
)
def test_what_is_no_mammogram_is_refused_by_name(tmp_path: Path, tags: dict, word: str) -> None:
    path = _write(tmp_path / "scan.dcm", _pixels(), **tags)
    with pytest.raises(dicom.BadMammogram, match=f"scan.dcm.*{word}") as caught:
        dicom.read_mammogram(path)
    assert "secret-id" not in str(caught.value)


def test_deflated_one_value_text_and_colour_png_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.dcm", _pixels())
    raw = path.read_bytes()
    # the meta header alone decides, before anything is inflated
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = dicom.DEFLATED
    header.save_as(tmp_path / "deflated.dcm", enforce_file_format=True)
    (tmp_path / "cut.dcm").write_bytes(raw[:-500])
    (tmp_path / "notes.txt").write_text("these are notes " * 20)
    cv2.imwrite(str(tmp_path / "colour.png"), np.zeros((9, 9, 3), np.uint8))
    _write(tmp_path / "empty.dcm", np.zeros((40, 40), np.uint16))
    for name, word in {
        "deflated.dcm": "Deflated", "cut.dcm": "PixelData", "notes.txt": "neither DICOM nor PNG",
        "colour.png": "channels", "empty.dcm": "no tissue", "absent.dcm": "cannot be opened",
    }.items():  # fmt: skip
        with pytest.raises(dicom.BadMammogram, match=word):
            dicom.read_mammogram(tmp_path / name)


def test_png_of_8_and_16_bits(tmp_path: Path) -> None:
    for pixels in (_pixels(8), _pixels(16)):
        cv2.imwrite(str(tmp_path / "R_CC.png"), pixels)
        mammogram = dicom.read_mammogram(tmp_path / "R_CC.png")
        np.testing.assert_array_equal(
            mammogram.pixels, pixels.astype(np.uint16) * (257 if pixels.dtype == np.uint8 else 1)
        )
        assert (mammogram.laterality, mammogram.view) == ("R", "CC")


def test_whatever_is_broken_is_a_bad_mammogram_or_none(tmp_path: Path) -> None:
    raw = bytearray(_write(tmp_path / "a.dcm", _pixels()).read_bytes())
    rng, messages = np.random.default_rng(0), []
    for _ in range(150):
        broken = raw.copy()
        for place in rng.integers(132, len(raw) - 3900, 4):
            broken[place] = rng.integers(256)
        (tmp_path / "b.dcm").write_bytes(broken)
        try:
            dicom.read_mammogram(tmp_path / "b.dcm")
        except dicom.BadMammogram as error:
            messages.append(str(error))
    assert messages
    assert all("b.dcm" in text and "secret-id" not in text for text in messages)
