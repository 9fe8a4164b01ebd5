"""Apache Beam: a data set equal to the plain one, byte for byte, and what is refused."""

import json
import sys
from pathlib import Path

import pytest

from mammojax import cli
from mammojax.data import beam, phantom
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.errors import BadConfig


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.filterwarnings("ignore")  # Beam's and its dependencies' own
def test_beam_writes_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("apache_beam", reason="Beam is not installed: pip install 'mammojax[beam]'")
    source = tmp_path / "source"
    phantom.write_phantom(source, patients=20, image_size=(96, 64))
    broken = min(source.rglob("*.dcm"))
    broken.write_bytes(b"no DICOM")  # is listed, and the rest goes on
    for name, runner in (("plain", None), ("beam", beam.Runner("DirectRunner"))):
        recipe = Recipe("cbis_ddsm", "patches_s1", tmp_path / name, source, size=(96, 64), patch_size=32, split="all")
        paths = prepare(recipe, runner=runner)
        assert [json.loads((path / "dataset.json").read_text())["kind"] for path in paths] == ["whole", "patches_s1"]
    plain, of_beam = (_files(tmp_path / name) for name in ("plain", "beam"))
    assert sum(".array_record-" in name for name in plain) > 4
    assert plain.keys() == of_beam.keys()
    for name, content in plain.items():
        assert content == of_beam[name], name


@pytest.mark.filterwarnings("ignore")
def test_a_runner_that_beam_does_not_know_is_refused() -> None:
    pytest.importorskip("apache_beam", reason="Beam is not installed: pip install 'mammojax[beam]'")
    with pytest.raises(BadConfig, match="Unexpected pipeline runner: Nope"):
        beam.Runner("Nope").each(print, [1])


def test_without_beam_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(BadConfig, match=r"pip install 'mammojax\[beam\]'"):
        beam.Runner("DirectRunner").each(print, [1])


def test_options_without_a_runner_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prepare", "phantom", "--beam-options=--parallelism=8"]) == 2
    assert "--beam-options are of --beam-runner" in capsys.readouterr().err
