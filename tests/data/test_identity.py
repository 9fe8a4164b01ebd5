"""Whose an image is: ids from headers only as keyed hashes, and files with the same bytes."""

import stat
from pathlib import Path

import numpy as np
import pydicom

from mammojax.data import identity, phantom


def _dicom(path: Path, patient: str, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 65536, (60, 50), np.uint16)
    phantom.save_dicom(path, patient, "x", pixels, [pydicom.uid.generate_uid() for _ in range(3)])
    return path


def test_an_id_is_a_hash_that_only_the_key_s_owner_can_make(tmp_path: Path) -> None:
    key = identity.id_key(tmp_path / "a")
    assert identity.id_key(tmp_path / "a") == key != identity.id_key(tmp_path / "b")
    assert stat.S_IMODE((tmp_path / "a" / identity.KEY).stat().st_mode) == 0o600
    assert identity.hashed("Doe^Jane", key) == identity.hashed("Doe^Jane", key)
    assert len({identity.hashed(v, key) for v in ("1", "2")} | {identity.hashed("1", b"other")}) == 3
    assert identity.hashed("", key) == ""


def test_the_patient_in_a_header(tmp_path: Path) -> None:
    assert identity.patient_in(_dicom(tmp_path / "a.dcm", "P7")) == "P7"
    for nobody in ("", "ANONYMIZED", "removed", "000"):
        assert identity.patient_in(_dicom(tmp_path / "b.dcm", nobody)) == ""
    (tmp_path / "c.dcm").write_bytes(b"no DICOM")
    assert identity.patient_in(tmp_path / "c.dcm") == identity.patient_in(tmp_path / "gone.dcm") == ""
    whole = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "d.dcm").write_bytes(whole[:-5000])  # pixels cut off: the header is all that is read
    assert identity.patient_in(tmp_path / "d.dcm") == "P7"


def test_copies_are_files_with_equal_bytes(tmp_path: Path) -> None:
    contents = {"a": b"x" * 99, "b": b"x" * 99, "c": b"x" * 98 + b"y", "d": b"z", "e": b"", "f": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in contents]
    assert sorted(identity.copies([*paths, paths[0], tmp_path / "gone"])) == [paths[:2], paths[4:]]
