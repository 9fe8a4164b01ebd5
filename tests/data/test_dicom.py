"""Every transfer syntax bit-exact where lossless, the LUT chain by hand, and what is refused by name."""

import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from mammojax.data import codestream, dicom
from mammojax.data.examples import read_image
from mammojax.data.manifest import Image
from mammojax.errors import BadMammogram

UNCOMPRESSED = "1.2.840.10008.1.2.1"


def _pixels(bits: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    field = cv2.GaussianBlur(rng.uniform(0, 2**bits - 1, (96, 80)).astype(np.float32), (9, 9), 3)
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
    header.PatientID, header.StudyInstanceUID, header.Modality = "secret-id", "1.2.3", "MG"
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


def test_a_slope_without_intercept_changes_nothing(tmp_path: Path) -> None:
    """PS3.3 C.11.1 has both or none; pydicom applies none then, and the range must not be scaled alone."""
    got = dicom.read_mammogram(_write(tmp_path / "a.dcm", _pixels(), RescaleSlope=2)).pixels
    np.testing.assert_array_equal(got, _stretched(_pixels()))


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
    assert (magnified.view, magnified.modifier) == ("", "magnification")
    assert read("x.dcm", PresentationIntentType="FOR PROCESSING").for_processing


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({"SOPClassUID": dicom.TOMOSYNTHESIS}, "tomosynthesis"),
        ({"NumberOfFrames": 40}, "NumberOfFrames"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"Rows": 60000, "Columns": 60000}, "60000"),
        ({"Rows": 97}, "PixelData"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PhotometricInterpretation": "RGB"}, "neither MONOCHROME1"),
        ({"Rows": 63}, "63 × 80 pixels"),
    ],
)
def test_files_that_are_no_mammograms_are_refused_with_a_reason(tmp_path: Path, tags: dict, word: str) -> None:
    path = _write(tmp_path / "scan.dcm", _pixels(), **tags)
    with pytest.raises(BadMammogram, match=f"scan.dcm.*{word}") as caught:
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
    _write(tmp_path / "empty.dcm", np.zeros((70, 64), np.uint16))
    for name, word in {
        "deflated.dcm": "Deflated", "cut.dcm": "the file is cut short, inside PixelData",
        "notes.txt": "neither DICOM nor PNG", "colour.png": "channels", "empty.dcm": "no tissue",
        "absent.dcm": "cannot be opened",
    }.items():  # fmt: skip
        with pytest.raises(BadMammogram, match=word):
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
        except BadMammogram as error:
            messages.append(str(error))
    assert messages
    assert all("b.dcm" in text and "secret-id" not in text for text in messages)


CAPTURE, DIGITAL, CR = dicom.SECONDARY_CAPTURE, "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1"


@pytest.mark.parametrize(
    ("modality", "sop_class", "body", "accepted"),
    [
        ("MG", CR, "", True),
        ("MG", CAPTURE, "CHEST", True),  # the scanner's default must not undo what MG says
        ("RG", CAPTURE, "", True),
        ("CR", CAPTURE, "BREAST", True),
        ("OT", CAPTURE + ".2", "", True),
        ("", CAPTURE, "LEFT BREAST", True),
        ("", DIGITAL, "", True),
        ("CR", CR, "BREAST", True),
        ("CR", CR, "", False),
        ("DX", CR, "CHEST", False),
        ("OT", CAPTURE, "HAND", False),
        *((other, CAPTURE, "BREAST", False) for other in ("CT", "MR", "US", "PT", "NM", "XA")),
    ],
)
def test_mammograms_and_digitised_film_alone_are_taken(
    tmp_path: Path, modality: str, sop_class: str, body: str, accepted: bool
) -> None:
    path = _write(tmp_path / "a.dcm", _pixels(), Modality=modality, SOPClassUID=sop_class, BodyPartExamined=body)
    if accepted:
        assert dicom.read_mammogram(path).sop_class == dicom.read_facts(path).sop_class == sop_class
        return
    for read in (dicom.read_mammogram, dicom.read_facts):
        with pytest.raises(BadMammogram, match=f"a.dcm: Modality is {modality or 'absent'}, .*--any-modality"):
            read(path)
        assert read(path, any_modality=True).sop_class == sop_class
    assert dicom.read_mask(path).any()  # masks are written by all sorts of software


def test_files_that_are_no_mammograms_are_listed_in_a_data_set(tmp_path: Path) -> None:
    rejected: list[tuple[str, str]] = []
    for name, tags in {"ct": {"Modality": "CT"}, "icon": {"Rows": 40}, "mg": {}}.items():
        path = _write(tmp_path / f"{name}.dcm", _pixels()[: tags.get("Rows", 96)], **tags)
        read_image(Image(f"images/{name}", path, "P1"), rejected)
    assert [name for name, _ in rejected] == ["images/ct", "images/icon"]
    assert rejected[0][1].startswith("Modality is CT, neither MG")
    assert rejected[1][1].startswith("it is 40 × 80 pixels")


def test_a_mask_may_be_small(tmp_path: Path) -> None:
    assert dicom.read_mask(_write(tmp_path / "a.dcm", _pixels()[:20, :30])).shape == (20, 30)


@pytest.mark.parametrize("position", ["SMITH JOHN", "CC SPOT", "MCC", "AP"])
def test_free_text_is_no_view_and_no_side(tmp_path: Path, position: str) -> None:
    path = _write(tmp_path / "LEFT_CC.dcm", _pixels(), ViewPosition=position, ImageLaterality="LASTNAME")
    mammogram = dicom.read_mammogram(path)
    assert (mammogram.laterality, mammogram.view) == ("L", "")  # the side is the file name's


def test_known_views_are_kept(tmp_path: Path) -> None:
    for position, view in {"MLO": "MLO", "LCC": "CC", "XCCL": "XCCL", "LMO": "LMO", "LM": "LM", "RLM": "LM"}.items():
        assert dicom.read_mammogram(_write(tmp_path / "a.dcm", _pixels(), ViewPosition=position)).view == view
    for name, (side, view, modifier) in {
        "P1_RMLO": ("R", "MLO", ""), "P1_LEFT_LM": ("L", "LM", ""), "L CC MAG": ("L", "", "magnification"),
        "R_SPOT_MLO": ("R", "", "spot compression"), "LLM": ("L", "LM", ""), "LM": ("", "LM", ""),
    }.items():  # fmt: skip
        mammogram = dicom.read_mammogram(_write(tmp_path / f"{name}.dcm", _pixels()))
        assert (mammogram.laterality, mammogram.view, mammogram.modifier) == (side, view, modifier)


@pytest.mark.parametrize(
    ("code", "modifier"),
    [
        ("399055006", "spot compression"), ("R-102D7", "spot compression"), ("399163009", "magnification"),
        ("R-102D6", "magnification"), ("399209000", "implant displaced"), ("SMITH^JOHN", "other modifier"),
        ("442581004", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_changed_view_is_none(tmp_path: Path, code: str, modifier: str) -> None:
    """Modifiers stand inside ViewCodeSequence (PS3.3 C.8.11.5), in some files beside it."""
    changed, view = pydicom.Dataset(), pydicom.Dataset()
    changed.CodeValue, view.CodeValue = code, "399162004"
    beside = {"ViewPosition": "CC", "ViewModifierCodeSequence": Sequence([changed])}
    view.ViewModifierCodeSequence = Sequence([changed])
    for tags in (beside, {"ViewCodeSequence": Sequence([view])}):
        mammogram = dicom.read_mammogram(_write(tmp_path / "a.dcm", _pixels(), **tags))
        assert (mammogram.view, mammogram.modifier) == ("" if modifier else "CC", modifier)
    tags = {"ViewPosition": "CC", "SeriesDescription": "R CC SPOT"}
    assert dicom.read_mammogram(_write(tmp_path / "a.dcm", _pixels(), **tags)).view == ""


LOSSY: dict[str, Callable[[np.ndarray], bytes]] = {
    "1.2.840.10008.1.2.4.51": lambda a: imagecodecs.jpeg_encode(a, bitspersample=12, level=95),
    "1.2.840.10008.1.2.4.50": lambda a: imagecodecs.jpeg8_encode((a >> 4).astype(np.uint8), level=95),
}


def _compressed(path: Path, syntax: str, change: Callable[[bytes], bytes]) -> Path:
    pixels, bits = (_pixels(8), 8) if syntax.endswith(".50") else (_pixels(), 12)
    data = {**ENCODERS, **LOSSY}[syntax](_pixels())
    return _write(path, pixels, syntax, change(data), bits)


@pytest.mark.parametrize("syntax", [*ENCODERS, *LOSSY])
def test_a_stream_or_file_that_is_cut_short_is_called_so(tmp_path: Path, syntax: str) -> None:
    for share in (0.5, 0.9, 0.999):
        path = _compressed(tmp_path / "a.dcm", syntax, lambda data, share=share: data[: int(share * len(data))])
        with pytest.raises(BadMammogram, match=r"a.dcm: the file is cut short, the compressed image"):
            dicom.read_mammogram(path)
    path = _compressed(tmp_path / "a.dcm", syntax, lambda data: data + b"\0" * 20)
    assert dicom.read_mammogram(path).pixels.any()  # padding behind the end is none of it
    for length in (path.stat().st_size - 100, 500, 300, 150):
        (tmp_path / "b.dcm").write_bytes(path.read_bytes()[:length])
        with pytest.raises(BadMammogram, match=r"b.dcm: the file is cut short"):
            dicom.read_mammogram(tmp_path / "b.dcm")


def _resized(data: bytes) -> bytes:
    """The same stream, saying that it is 65000 × 64000."""
    if data[:4] == b"\xff\x4f\xff\x51":
        size = struct.pack(">2L", 64000, 65000)
        return data[:8] + size + data[16:24] + size + data[32:]
    at = next(k for k in range(len(data)) if data[k] == 0xFF and data[k + 1] in (0xC0, 0xC1, 0xC3, 0xF7))
    return data[: at + 5] + struct.pack(">2H", 65000, 64000) + data[at + 9 :]


@pytest.mark.parametrize("syntax", [*ENCODERS, *LOSSY])
def test_a_stream_of_another_size_never_reaches_its_decoder(
    tmp_path: Path, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoder(_: bytes) -> None:
        raise AssertionError("decoded")

    table = codestream._JPEG if syntax in codestream._JPEG else codestream._JPEG_2000
    monkeypatch.setitem(table, syntax, decoder)
    path = _compressed(tmp_path / "a.dcm", syntax, _resized)
    message = "a.dcm: PixelData is compressed as 65000 × 64000 × 1, but .* is 96 × 80 × 1;"
    with pytest.raises(BadMammogram, match=message):
        dicom.read_mammogram(path)
    coloured = np.zeros((96, 80, 3), np.uint8)
    encode = {"1.2.840.10008.1.2.4.50": imagecodecs.jpeg8_encode, "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_encode}
    if syntax in encode:
        with pytest.raises(BadMammogram, match="compressed as 96 × 80 × 3"):
            dicom.read_mammogram(_write(tmp_path / "a.dcm", _pixels(8), syntax, encode[syntax](coloured), 8))


def test_a_second_size_in_a_stream_is_refused(tmp_path: Path) -> None:
    """One decoder takes the first, another the last: neither may ask for more memory than the header's size needs."""
    syntax = "1.2.840.10008.1.2.4.51"
    data = LOSSY[syntax](_pixels())
    at = data.index(b"\xff\xc1")
    length = 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    twice = data[: at + length] + _resized(data)[at:]
    with pytest.raises(BadMammogram, match="compressed as 65000 × 64000"):
        dicom.read_mammogram(_write(tmp_path / "a.dcm", _pixels(), syntax, twice))


def test_jpeg_2000_in_its_file_format_is_read_and_measured(tmp_path: Path) -> None:
    pixels, syntax = _pixels(), "1.2.840.10008.1.2.4.90"
    boxed = imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", reversible=True, level=0)
    path = _write(tmp_path / "a.dcm", pixels, syntax, boxed)
    np.testing.assert_array_equal(dicom.read_mammogram(path).pixels, _stretched(pixels))
    at = boxed.index(b"\xff\x4f\xff\x51")
    with pytest.raises(BadMammogram, match="compressed as 65000 × 64000"):
        dicom.read_mammogram(_write(path, pixels, syntax, boxed[:at] + _resized(boxed[at:])))


def test_rle_of_another_size_is_refused_by_its_header(tmp_path: Path) -> None:
    def rle(*segments: bytes) -> Path:
        offsets = np.cumsum([64, *map(len, segments)])[:-1].tolist()
        header = struct.pack("<16L", len(segments), *offsets, *[0] * (15 - len(segments)))
        return _write(tmp_path / "a.dcm", _pixels(), codestream.RLE, header + b"".join(segments))

    row = b"\x81\x07" * (96 * 80 // 128)
    assert rle(row, row[:-2] + b"\x81\x08").stat().st_size < 1000
    dicom.read_mammogram(tmp_path / "a.dcm")
    for segments, word in {
        (row,): "1 RLE segments", (row, row, row): "3 RLE segments", (row, row * 200): "more than 96 × 80 pixels",
    }.items():  # fmt: skip
        with pytest.raises(BadMammogram, match=f"a.dcm: PixelData .*{word}"):
            dicom.read_mammogram(rle(*segments))


def test_a_large_film_takes_little_more_memory_than_its_pixels(tmp_path: Path) -> None:
    """1 kB of JPEG 2000 may be 100 M pixels: their gray values pass through float64 in pieces."""
    pixels = np.random.default_rng(0).integers(0, 4096, (2500, 1800), np.uint16)
    path = _write(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    tracemalloc.start()
    try:
        got = dicom.read_mammogram(path).pixels
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * got.size  # the file, the pixels twice, and 1 M float64 a few times
    np.testing.assert_array_equal(got, np.round((1 - pixels / 4095) * 65535).astype(np.uint16))


def test_nothing_of_a_header_reaches_the_log(tmp_path: Path) -> None:
    """pydicom warns of values that break the standard, and says them."""
    tags = {"ViewPosition": "A" * 10, "BodyPartExamined": "B" * 10, "StudyInstanceUID": "9.9.9.9.99"}
    path = _write(tmp_path / "a.dcm", _pixels(), AccessionNumber="C" * 10, WindowCenter="1234567890", **tags)
    raw = path.read_bytes()
    for text in (*tags.values(), "C" * 10):
        assert text.encode() in raw
        raw = raw.replace(text.encode(), b"SMITH^JOHN")
    (tmp_path / "view.dcm").write_bytes(raw)
    (tmp_path / "window.dcm").write_bytes(raw.replace(b"1234567890", b"SMITH^JOHN"))
    (tmp_path / "syntax.dcm").write_bytes(raw.replace(b"1.2.840.10008.1.2.1\0", b"SMITH^JOHN".ljust(20, b"\0")))
    code = (
        "import logging, sys\nlogging.basicConfig(level=logging.DEBUG)\n"
        "from mammojax.data import dicom\nfrom mammojax.errors import BadMammogram\n"
        "for path in sys.argv[1:]:\n"
        "    try: m = dicom.read_mammogram(path); print('read', m.view, m.laterality)\n"
        "    except BadMammogram as error: print(error)\n"
        "    dicom.peek(path, 'ViewPosition')\n"
    )
    files = [str(tmp_path / name) for name in ("view.dcm", "window.dcm", "syntax.dcm")]
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, *files], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("read")
    assert len(done.stdout.splitlines()) == 3
    assert "SMITH" not in done.stdout + done.stderr
