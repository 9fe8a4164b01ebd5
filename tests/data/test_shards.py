"""A preparation that was stopped goes on with the shards it has; the data set is the same."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mammojax.data import dataset, phantom, shards
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.errors import BadDataset

FACTS = {"size": (96, 64), "patch_size": 32, "split": "all"}
KILLED = """
import os, signal, sys
from pathlib import Path
from mammojax.data import shards
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe


class Bar:
    done = 0

    def __init__(self, **_): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass

    def update(self, images):
        Bar.done += 1
        if Bar.done == 5:
            os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    shards.IMAGES, shards.tqdm = 2, Bar
    source, data = map(Path, sys.argv[1:])
    prepare(Recipe("cbis_ddsm", "whole", data, source, size=(96, 64), patch_size=32, split="all"), workers=2)
"""


def _content(folder: Path) -> tuple[list[str], dict[str, bytes], list[dict[str, bytes]]]:
    """The names of a data set's files, those that are text, and its examples: TFDS orders an example's features at
    random, so that the bytes of equal examples differ."""
    names = sorted(path.name for path in folder.iterdir())
    texts = {name: (folder / name).read_bytes() for name in names if name.endswith((".json", ".csv"))}
    examples = [e for split in ("train", "val", "test") for e in dataset.Prepared(folder).source(split)]
    return names, texts, [{name: np.asarray(value).tobytes() for name, value in e.items()} for e in examples]


def test_a_killed_one_goes_on_with_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, temporary = tmp_path / "source", tmp_path / "tmp"
    phantom.write_phantom(source, patients=20, image_size=(192, 128))
    temporary.mkdir()
    (tmp_path / "killed.py").write_text(KILLED)
    process = subprocess.run(
        [sys.executable, str(tmp_path / "killed.py"), str(source), str(tmp_path / "data")],
        env={**os.environ, "TMPDIR": str(temporary)}, start_new_session=True, capture_output=True, check=False,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    (unfinished,) = (tmp_path / "data").rglob(shards.UNFINISHED)
    kept = {path: path.stat().st_mtime_ns for path in unfinished.parent.iterdir() if path != unfinished}
    complete = [path.name.removesuffix(".json") for path in unfinished.glob("*.json")]
    assert 5 <= len(complete) < 20

    monkeypatch.setattr(shards, "IMAGES", 2)
    passed, real = [], shards.examples_of

    def counted(image: Any, recipe: Any) -> Any:
        passed.append(image.image)
        return real(image, recipe)

    monkeypatch.setattr(shards, "examples_of", counted)
    (path,) = prepare(Recipe("cbis_ddsm", "whole", tmp_path / "data", source, **FACTS))
    rows = sum(len(dataset.Prepared(path).table(split)) for split in ("train", "val", "test"))
    assert rows - 2 * len(complete) <= len(passed) <= rows - 2 * len(complete) + 3  # a split's last shard may hold one
    assert all((path / name).stat().st_mtime_ns == kept[path / name] for name in complete)

    passed.clear()
    (whole,) = prepare(Recipe("cbis_ddsm", "whole", tmp_path / "other", source, **FACTS))
    assert len(passed) == rows
    assert _content(path) == _content(whole)
    assert [p.name for p in (tmp_path / "data").iterdir() if p.name != "cbis_ddsm"] == [".lock"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert not list(temporary.iterdir())


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Eight images of as many patients; 1.png is broken, 7.png (test) has the pixels of 0.png (train)."""
    rows, rng = ["image,patient_id,pathology,split"], np.random.default_rng(0)
    for k, split in enumerate(["train"] * 4 + ["val"] * 2 + ["test"] * 2):
        cv2.imwrite(str(tmp_path / f"{k}.png"), rng.integers(0, 65536, (60, 50), np.uint16))
        rows.append(f"{k}.png,P{k},{'MALIGNANT' if k % 2 else 'BENIGN'},{split}")
    (tmp_path / "1.png").rename(tmp_path / "good.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "7.png"), cv2.imread(str(tmp_path / "0.png"), cv2.IMREAD_UNCHANGED) // 1, [16, 9])
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    return tmp_path


def _names(path: Path) -> list[list[str]]:
    data = dataset.Prepared(path)
    for split in ("train", "val", "test"):
        assert [row["image"] for row in data.table(split)] == [e["image_id"].decode() for e in data.source(split)]
    return [[row["image"] for row in data.table(split)] for split in ("train", "val", "test")]


def test_shards_without_examples_and_copies_in_two_splits(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shard of 1.png holds nothing, that of 7.png loses its only example after it was complete."""
    monkeypatch.setattr(shards, "IMAGES", 1)
    (path,) = prepare(Recipe("manifest", "whole", manifest / "data", manifest, **FACTS))
    assert _names(path) == [["0.png", "2.png", "3.png"], ["4.png", "5.png"], ["6.png"]]
    reasons = (path / "rejected.csv").read_text()
    assert '1.png,"it is neither DICOM' in reasons
    assert '7.png,"its pixels are those of 0.png, another patient\'s in train"' in reasons


def test_a_file_that_was_repaired_meanwhile_is_read_again(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "IMAGES", 1)
    real = shards.examples_of

    def stopped(image: Any, recipe: Any) -> Any:
        if image.image == "5.png":
            raise KeyboardInterrupt
        return real(image, recipe)

    monkeypatch.setattr(shards, "examples_of", stopped)
    recipe = Recipe("manifest", "whole", manifest / "data", manifest, **FACTS)
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe)
    (manifest / "good.png").replace(manifest / "1.png")
    monkeypatch.setattr(shards, "examples_of", real)
    (path,) = prepare(recipe)
    assert _names(path)[0] == ["0.png", "1.png", "2.png", "3.png"]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Killing:
    """Kills the process that unpickles it, as a system does whose memory is full."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _die, ()


def test_a_process_that_the_system_ended_is_one_sentence(tmp_path: Path) -> None:
    two = [shards.Shard(tmp_path / str(k), "train", (), _Killing()) for k in range(2)]  # type: ignore[arg-type]
    with pytest.raises(BadDataset, match=r"most likely as the memory was full; give fewer --workers\. What is fin"):
        list(shards._each(two, 2))
