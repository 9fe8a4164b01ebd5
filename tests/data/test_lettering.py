"""Letters burned into a picture are found outside the breast, on drawn pictures and on real film."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mammojax.data.dicom import read_mammogram
from mammojax.data.lettering import find_letters


@pytest.mark.parametrize("turn", [0, 1])
def test_letters_outside_the_breast_are_found_in_any_direction(turn: int) -> None:
    rng = np.random.default_rng(0)
    pixels = np.zeros((1152, 896), np.uint16)
    cv2.ellipse(pixels, (0, 576), (520, 480), 0, 0, 360, 30000, -1)
    pixels[200:1100, :300] += np.uint16(8000) * (rng.random((900, 300)) > 0.999)  # specks in the breast
    pixels = cv2.GaussianBlur(pixels, (5, 5), 1) + rng.integers(0, 1500, pixels.shape, dtype=np.uint16)
    assert find_letters(pixels) == []
    text = np.zeros((280, 280), np.uint8)
    cv2.putText(text, "DOE 1960", (10, 150), cv2.FONT_HERSHEY_SIMPLEX, 1.3, 255, 3, cv2.LINE_AA)
    area = pixels[20:300, 600:880]
    np.maximum(area, np.rot90(text, turn).astype(np.uint16) * 200, out=area)
    letters = find_letters(pixels)
    assert sum(n for _, n in letters) >= 4
    assert all(
        top >= 20 and left >= 600 and bottom <= 300 and right <= 880 for (top, left, bottom, right), _ in letters
    )


def test_letters_on_real_film(shared: Path) -> None:
    for name in ("wg04/MG1_J2KI.dcm", "mias/images/mdb031.dcm", "mias/images/mdb029.dcm"):  # tilted, upright, upright
        assert find_letters(read_mammogram(shared / "data" / name).pixels), name
    for name in ("mdb033", "mdb039", "mdb049", "mdb053", "mdb065"):  # nothing, strips of the scanner, nothing
        assert not find_letters(read_mammogram(shared / "data" / "mias" / "images" / f"{name}.dcm").pixels), name
