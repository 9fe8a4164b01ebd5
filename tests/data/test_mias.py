"""mini-MIAS's reader: the real films and their real circles, in the shape of the published download."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mammojax.data import manifest, mias
from mammojax.data.dicom import read_mammogram, read_mask
from mammojax.data.examples import read_lesion
from mammojax.errors import BadManifest

INFO = """
    THE MINI-MIAS DATABASE
	1st column:	MIAS database reference number.
mdb001 G CIRC B 535 425 197
mdb002 G CIRC B 522 280 69
mdb003 D NORM
mdb005 F CIRC B 477 133 30
mdb005 F CIRC B 500 168 26
mdb059 F CIRC B *NOTE 3*
mdb105 D SPIC M 516 279 98
"""


def test_lines_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "Info.txt").write_text(INFO)
    for name in ("mdb001", "mdb003", "mdb005", "mdb059", "mdb105"):
        cv2.imwrite(str(tmp_path / f"{name}.pgm"), np.zeros((16, 16), np.uint8))
    table = mias.read_table(tmp_path)
    told = [(i.image, i.patient_id, i.laterality, i.pathology, len(i.lesions), i.density) for i in table.images]
    assert told == [
        ("mdb001", "MIAS001", "R", "BENIGN", 1, "glandular"), ("mdb003", "MIAS002", "R", "NORMAL", 0, "dense"),
        ("mdb005", "MIAS003", "R", "BENIGN", 2, "fatty"), ("mdb059", "MIAS030", "R", "BENIGN", 1, "fatty"),
        ("mdb105", "MIAS053", "R", "MALIGNANT", 1, "dense"),
    ]  # fmt: skip
    assert table.images[3].lesions[0].outline == ()  # no circle was published
    assert [image.columns["finding"] for image in table.images] == ["CIRC", "", "CIRC", "CIRC", "SPIC"]
    assert table.rejected == [("mdb002", "Info.txt lists it, but there is no file of that name")]
    (tmp_path / "Info.txt").write_text("nothing")
    with pytest.raises(BadManifest, match=r"Info.txt lists no film"):
        mias.read_table(tmp_path)


def test_circles_lie_where_the_reference_masks_lie(shared: Path, tmp_path: Path) -> None:
    """The masks of the shared copy were drawn by somebody else from the same Info.txt."""
    (tmp_path / "Info.txt").write_text(INFO)
    source = shared / "data" / "mias"
    for name in ("mdb001", "mdb002", "mdb005"):
        pixels = read_mammogram(source / "images" / f"{name}.dcm").pixels
        cv2.imwrite(str(tmp_path / f"{name}.pgm"), (pixels // 257).astype(np.uint8))
    ours = {image.image: image for image in mias.read_table(tmp_path).images}
    theirs = {Path(i.image).stem: i for i in manifest.read_manifest(source / "manifest.csv").images}
    for name, image in ours.items():
        assert (image.patient_id, image.laterality) == (theirs[name].patient_id, theirs[name].laterality)
        assert (image.pathology, image.density) == (theirs[name].pathology, theirs[name].density)
        pixels = read_mammogram(image.path).pixels
        for lesion, reference in zip(image.lesions, theirs[name].lesions, strict=True):
            assert lesion.abnormality == reference.abnormality
            circle, mask = read_lesion(lesion, pixels.shape, name, []) > 0, read_mask(reference.mask) > 0
            assert (circle & mask).sum() / (circle | mask).sum() > 0.95
