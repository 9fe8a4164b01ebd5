"""A restored network says the same of files, arrays and data sets."""

import csv
from pathlib import Path

import numpy as np
import pytest

import mammojax
from mammojax.data.dicom import read_mammogram
from mammojax.errors import BadMammogram


def test_files_arrays_and_batches_agree(finished: Path, films: list[Path]) -> None:
    model = mammojax.restore(str(finished))
    from_files = model.predict(films)
    assert from_files.shape == (5,)
    assert from_files.dtype == np.float32
    assert ((from_files >= 0) & (from_files <= 1)).all()
    assert len(np.unique(from_files)) > 1
    np.testing.assert_array_equal(from_files, model.predict([read_mammogram(f).pixels for f in films]))
    np.testing.assert_allclose([model.predict(f)[0] for f in films], from_files, rtol=1e-5)
    pixels = model.frame(films[0])
    turned = [pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1]]
    np.testing.assert_allclose(model.predict(films[0], tta="flips")[0], np.mean(model.score(turned, "none")), rtol=1e-5)
    with pytest.raises(BadMammogram, match="uint16"):
        model.predict(np.zeros((5, 5), np.float32))
    with pytest.raises(ValueError, match="flips"):
        model.predict(films[0], tta="ten")


def test_predictions_equal_the_runs_own(finished: Path) -> None:
    rows = {
        row["image"]: row for row in csv.DictReader((finished / "predictions" / "test.csv").read_text().splitlines())
    }
    model = mammojax.restore(str(finished))
    tree = finished.parent / "data" / "phantom_source"
    for name in list(rows)[:3]:
        (file,) = (p for p in tree.rglob("*.dcm") if name in p.parts)
        assert model.predict(file)[0] == pytest.approx(float(rows[name]["p_malignant"]), rel=1e-4)
