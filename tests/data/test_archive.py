"""A .zip is unpacked inside its folder or refused."""

import zipfile
from pathlib import Path

import pytest

from mammojax.data import archive
from mammojax.errors import BadMammogram


def test_a_zip_is_a_folder_for_a_while(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ZIP", "w") as file:
        file.writestr("study/1.dcm", b"one")
        file.writestr("../../outside.dcm", b"two")
    with archive.as_folder(tmp_path / "a.ZIP") as folder:
        names = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.dcm")}
    assert names == {"study/1.dcm": b"one", "outside.dcm": b"two"}
    assert not folder.exists()
    with pytest.raises(BadMammogram, match="no such file"), archive.as_folder(tmp_path / "b.zip"):
        pass


def test_bombs_and_broken_files_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", bytes(2**28))
    (tmp_path / "text.zip").write_text("text")
    for name, words in (("bomb.zip", "as no mammograms do"), ("text.zip", "the .zip is broken")):
        with pytest.raises(BadMammogram, match=words):
            archive.unpack(tmp_path / name, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
