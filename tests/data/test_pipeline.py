"""Every example exactly once an epoch, whatever the workers; resuming continues with the very next batch."""

from pathlib import Path

import jax
import numpy as np
import pytest

from mammojax.data import dataset, phantom, pipeline
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe


class Source:
    """Examples that name themselves."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        return {"image": np.full((2, 2, 1), index, np.uint16), "image_id": f"image{index}".encode(), "label": index % 3}


def _names(batches: pipeline.Batches, count: int) -> list[list[str]]:
    return [next(batches)["image_id"] for _ in range(count)]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_example_once_an_epoch_and_epochs_differ(workers: int) -> None:
    source = Source(24)
    batches = pipeline.train_batches(source, batch=4, seed=1, workers=workers)
    assert batches.steps_per_epoch == 6
    first, second = (sum(_names(batches, 6), []) for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(f"image{i}" for i in range(24))
    assert first != second
    stream = pipeline.train_batches(source, batch=4, seed=1)
    assert sum(_names(stream, 6), []) == first
    other = pipeline.train_batches(source, batch=4, seed=2)
    assert sum(_names(other, 6), []) != first


def test_a_batch_may_be_one_example() -> None:
    """The length of an endless stream is the largest index there is, which a rounded division exceeds."""
    batches = pipeline.train_batches(Source(3), batch=1, seed=0)
    assert batches.steps_per_epoch == 3
    assert sorted(sum(_names(batches, 3), [])) == ["image0", "image1", "image2"]


def test_the_rest_of_an_epoch_is_dropped_and_differs() -> None:
    batches = pipeline.train_batches(Source(10), batch=4, seed=0)
    epochs = [sum(_names(batches, 2), []) for _ in range(6)]
    assert all(len(set(names)) == 8 for names in epochs)
    assert len(set().union(*epochs)) == 10


@pytest.mark.parametrize(("before", "after", "on_devices"), [(0, 0, False), (0, 0, True), (2, 0, False), (0, 2, True)])
def test_a_restored_state_goes_on_with_the_next_batch(before: int, after: int, on_devices: bool) -> None:
    mesh = jax.make_mesh((2,), ("data",)) if on_devices else None

    def make(workers: int) -> pipeline.Batches:
        return pipeline.train_batches(Source(24), batch=4, seed=1, workers=workers, mesh=mesh)

    batches = make(before)
    _names(batches, 8)  # in the middle of the second epoch
    state = batches.get_state()
    expected = [next(batches) for _ in range(5)]
    again = make(after)
    for _ in range(2):  # the second time it has already run ahead
        again.set_state(state)
        assert again.get_state() == state
        for batch in expected:
            got = next(again)
            assert got["image_id"] == batch["image_id"]
            for key in ("image", "label", "weight"):
                np.testing.assert_array_equal(got[key], batch[key])
    batches.close()
    again.close()


def test_closing_loses_no_place() -> None:
    mesh = jax.make_mesh((2,), ("data",))
    make = lambda: pipeline.train_batches(Source(24), batch=4, seed=1, mesh=mesh)  # noqa: E731
    closed = make()
    names = _names(closed, 3)
    closed.close()
    assert names + _names(closed, 5) == _names(make(), 8)


def test_an_evaluation_pass_resumes_too() -> None:
    batches = pipeline.eval_batches(Source(10), batch=4, workers=2)
    _names(batches, 2)
    again = pipeline.eval_batches(Source(10), batch=4)
    again.set_state(batches.get_state())
    assert _names(again, 1) == [["image8", "image9", "image9", "image9"]]
    again.set_state(again.get_state())
    assert not list(again)
    batches.close()


def test_images_labels_and_names_stay_together_on_the_devices() -> None:
    mesh = jax.make_mesh((2,), ("data",))
    batch = next(pipeline.train_batches(Source(24), batch=4, seed=1, mesh=mesh))
    assert len(batch["image"].sharding.device_set) == 2
    for image, label, name in zip(
        np.asarray(batch["image"]), np.asarray(batch["label"]), batch["image_id"], strict=True
    ):
        assert name == f"image{image.max()}"
        assert label == image.max() % 3
    with pytest.raises(ValueError, match="2 devices"):
        pipeline.train_batches(Source(24), batch=3, seed=1, mesh=mesh)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_is_one_pass_in_order_with_the_padding_marked(workers: int) -> None:
    batches = list(pipeline.eval_batches(Source(10), batch=4, workers=workers))
    names = [n for b in batches for n, w in zip(b["image_id"], b["weight"], strict=True) if w]
    assert names == [f"image{i}" for i in range(10)]
    assert [b["image"].shape[0] for b in batches] == [4, 4, 4]
    assert sum(b["weight"].sum() for b in batches) == 10


def test_processes_read_where_an_epoch_is_long_enough_to_pay_for_their_start() -> None:
    assert pipeline.reading_processes(4, 50_000, 224 * 224) == 4  # S10 patches
    assert pipeline.reading_processes(4, 1_800, 1152 * 896) == 4  # CBIS-DDSM
    assert pipeline.reading_processes(2, 400, 288 * 224) == 0  # the quickstart
    assert pipeline.reading_processes(0, 10**9, 10**9) == 0


@pytest.mark.slow
def test_worker_processes_read_a_prepared_data_set(tmp_path: Path) -> None:
    phantom.write_phantom(tmp_path / "source", patients=20, image_size=(96, 64))
    recipe = Recipe(
        "cbis_ddsm", "patches_s1", tmp_path, tmp_path / "source", size=(96, 64), patch_size=32, split="all"
    )  # fmt: skip
    whole, _ = prepare(recipe)
    data = dataset.Prepared(whole)
    expected = {example["image_id"].decode(): example for example in data.source("train")}
    batches = pipeline.train_batches(data.source("train"), batch=2, seed=0, workers=2)
    batches_read = [next(batches) for _ in range(batches.steps_per_epoch)]
    batches.close()
    assert sorted(name for batch in batches_read for name in batch["image_id"]) == sorted(expected)
    for batch in batches_read:
        for image, label, name in zip(batch["image"], batch["label"], batch["image_id"], strict=True):
            assert image.dtype == np.uint16
            np.testing.assert_array_equal(image, expected[name]["image"])
            assert label == expected[name]["label"]
