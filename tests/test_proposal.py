"""`mammojax plan`: what the data hold decides sizes, the device's memory the batch, and the file is a config."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mammojax import arguments, plan, proposal, run
from mammojax.data import manifest, phantom
from mammojax.data.fingerprint import Fingerprint, fingerprint
from mammojax.errors import BadConfig, BadManifest


def _found(**changes: object) -> Fingerprint:
    """Breasts of 1000 × 500 pixels with lesions from 40 to 200."""
    boxes = np.tile([1000, 500], (50, 1))
    values = {
        "images": 200, "patients": 100, "malignant": 30, "lesions": 50, "untyped": 0, "read": 50,
        "shapes": boxes, "boxes": boxes, "spacings": np.array([0.2]), "diameters": np.linspace(40, 200, 50),
        "around": boxes,
    }  # fmt: skip
    return Fingerprint(**(values | changes))


def _values(chosen: list[proposal.Choice]) -> dict[str, object]:
    return {choice.field: choice.value for choice in chosen}


def test_the_fingerprint_of_a_phantom_is_what_was_drawn(tmp_path: Path) -> None:
    phantom.write_phantom(tmp_path, patients=12, image_size=(192, 144), both_breasts=True)
    images = manifest.read_manifest(tmp_path).images
    found = fingerprint(images)
    assert (found.images, found.patients, found.read) == (48, 12, 48)
    assert (found.shapes == (192, 144)).all()
    assert found.malignant == len({image.patient_id for image in images if image.label == 1})
    assert len(found.diameters) == len(found.around) == found.lesions > 20
    assert 0.7 * 192 < np.median(found.boxes[:, 0]) <= 192
    assert (found.diameters < found.boxes[:, 0].min()).all()
    few = fingerprint(images, most=10)
    assert few.read == 10
    assert few.lesions == found.lesions  # counted in the table, not in the images that were read


def test_the_smallest_lesions_keep_their_pixels() -> None:
    found = _found()
    values = _values(proposal.choices(found, Path("manifest.csv")))
    height, width = values["data.size"]
    smallest = np.percentile(found.diameters, proposal.SMALLEST) * min(height / 1000, width / 500)
    assert proposal.LEAST <= smallest < proposal.LEAST * (1 + proposal.POSITION / height)
    largest = np.percentile(found.diameters, 90) * height / 1000
    assert largest < values["data.patch_size"] <= 224
    window = values["patch.model.window"]
    assert values["model.head"] == f"heatmap{window},max"
    assert window * 32 <= values["data.patch_size"] < (window + 1) * 32
    assert values["data.patch_size"] + 2 * values["data.context"] == (window + 4) * 32
    halved = _found(diameters=found.diameters / 4)  # too small for any size: no more than what is stored
    size = next(choice for choice in proposal.choices(halved, Path("manifest.csv")) if choice.field == "data.size")
    assert size.value == (1024, 512)
    assert "more than the stored images have" in size.reason


def test_outlines_without_types_are_learned_as_one_type() -> None:
    assert "data.one_type" not in _values(proposal.choices(_found(), Path("manifest.csv")))
    untyped = proposal.choices(_found(untyped=7), Path("manifest.csv"))
    (choice,) = (choice for choice in untyped if choice.field == "data.one_type")
    assert choice.value is True
    assert "7 of 50 outlines name no type" in choice.reason


def test_without_outlines_another_command_is_named() -> None:
    with pytest.raises(BadManifest, match=r"no lesion of the manifest is outlined.*finetune"):
        proposal.choices(_found(diameters=np.array([]), lesions=0), Path("manifest.csv"))


def test_memory_decides_remat_then_the_batch_and_then_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that needs 1,000 bytes a pixel, 400 with remat, and 10 MB beside them."""

    def program(config, facts):
        of_pixel = 400 if config.remat else 1000
        needed = config.batch * config.data.size[0] * config.data.size[1] * of_pixel + 10_000_000
        return SimpleNamespace(compile=lambda: needed)

    monkeypatch.setattr(plan, "program", program)
    monkeypatch.setattr(plan, "needed_bytes", lambda needed: needed)
    monkeypatch.setattr(plan, "measure", lambda *_: "cost")
    chosen = proposal.choices(_found(), Path("manifest.csv"))
    height, width = _values(chosen)["data.size"]
    pixels = height * width * 1000
    for memory, batch, remat in ((5, 4, False), (3, 4, True), (1.2, 2, True), (0.6, 1, True)):
        fitted, _ = proposal.fit("film", chosen, int(memory * pixels), few=True)
        assert _values(fitted)["batch"] == batch
        assert _values(fitted).get("remat", False) == remat
        assert _values(fitted)["data.size"] == (height, width)
    fitted, _ = proposal.fit("film", chosen, int(0.35 * pixels), few=True)
    assert _values(fitted)["batch"] == 1
    assert _values(fitted)["data.size"][0] < height
    with pytest.raises(BadConfig, match=r"no training step fits into 0\.005 GB: the smallest needs 0\.0104 GB"):
        proposal.fit("film", chosen, 5_000_000, few=True)


@pytest.mark.parametrize(("images", "name"), [(200, "film"), (2000, "whole_lite")])
def test_the_file_is_a_config_that_can_be_run_with_a_reason_for_each_choice(
    tmp_path: Path, images: int, name: str
) -> None:
    found = _found(images=images)
    assert proposal.base_of(found) == name
    chosen = [*proposal.choices(found, tmp_path / "manifest.csv", "0=BENIGN"), proposal.Choice("batch", 2, "memory")]
    (tmp_path / "mine.py").write_text(proposal.text(name, chosen, "a day"))
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    mine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    config = mine.get_config()
    assert config == proposal.build(name, chosen)
    assert config.batch == 2
    lines = (tmp_path / "mine.py").read_text().splitlines()
    assigned = [k for k, line in enumerate(lines) if line.startswith("    config.")]
    assert len(assigned) == len(chosen)
    assert all(lines[k - 1].startswith("    # ") for k in assigned)
    assert max(map(len, lines)) <= 120
    with config.unlocked():
        config.model.pretrained = ""  # the file of weights may not be here
    run.check(config)


def test_a_memory_is_read() -> None:
    assert arguments.memory("24GB") == 24 * 10**9
    assert arguments.memory("1.5 GiB") == 3 * 2**29
    for wrong in ("24", "GB", "0GB", "24 apples"):
        with pytest.raises(arguments.argparse.ArgumentTypeError, match="write such as 24GB"):
            arguments.memory(wrong)
