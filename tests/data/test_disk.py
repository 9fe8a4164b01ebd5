"""A data set's size is said, and one that does not fit is refused, before it is prepared."""

from collections import namedtuple
from pathlib import Path

import pytest

from mammojax.data import disk, phantom
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.errors import BadDataset


@pytest.mark.parametrize("kind", ["whole", "patches_s10"])
def test_the_estimate_is_near_and_what_cannot_fit_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    phantom.write_phantom(tmp_path / "source", patients=8, image_size=(384, 288))
    recipe = Recipe(
        "cbis_ddsm", kind, tmp_path / "data", tmp_path / "source", size=(384, 288), split="all", patch_size=64
    )
    path = prepare(recipe)[-1]
    said = capsys.readouterr().out.split(f"{kind}: about ")[1]
    assert "of the disk are free" in said
    amount, unit, *_ = said.split()
    written = sum(file.stat().st_size for file in path.glob("*.array_record*"))
    assert float(amount) * {"MB": 1e6, "kB": 1e3}[unit] == pytest.approx(written, rel=0.3)

    usage = namedtuple("usage", ["free"])
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage(written // 10))
    other = Recipe(
        "cbis_ddsm", kind, tmp_path / "other", tmp_path / "source", size=(384, 288), split="all", patch_size=64
    )
    with pytest.raises(BadDataset, match=r"whole needs about .* MB for \d+ images, .* are free; make room, or give a"):
        prepare(other)
    assert not list((tmp_path / "other").rglob("*.array_record*"))
    assert (disk.words(999), disk.words(1_530_000_000), disk.words(3e12)) == ("1 kB", "1.5 GB", "3.0 TB")
