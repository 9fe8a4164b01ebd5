"""Every example exactly once an epoch, whatever the workers; resuming continues with the very next batch."""

from collections import Counter

import jax
import numpy as np
import pytest

from mammojax.data import pipeline


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
    batches = pipeline.train_batches(source, np.zeros(24), batch=4, seed=1, workers=workers)
    assert batches.steps_per_epoch == 6
    first, second = (sum(_names(batches, 6), []) for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(f"image{i}" for i in range(24))
    assert first != second
    one = pipeline.train_batches(source, np.zeros(24), batch=4, seed=1)
    assert sum(_names(one, 6), []) == first
    other = pipeline.train_batches(source, np.zeros(24), batch=4, seed=2)
    assert sum(_names(other, 6), []) != first


def test_the_rest_of_an_epoch_is_dropped_and_differs() -> None:
    batches = pipeline.train_batches(Source(10), np.zeros(10), batch=4, seed=0)
    epochs = [sum(_names(batches, 2), []) for _ in range(6)]
    assert all(len(set(names)) == 8 for names in epochs)
    assert len(set().union(*epochs)) == 10


@pytest.mark.parametrize("on_devices", [False, True])
def test_a_restored_state_goes_on_with_the_next_batch(on_devices: bool) -> None:
    mesh = jax.make_mesh((2,), ("data",)) if on_devices else None
    make = lambda: pipeline.train_batches(Source(24), np.zeros(24), batch=4, seed=1, mesh=mesh)  # noqa: E731
    batches = make()
    _names(batches, 8)
    state = batches.get_state()
    wanted = _names(batches, 9)
    again = make()
    again.set_state(state)
    assert again.get_state() == state
    assert _names(again, 9) == wanted
    _names(again, 2)
    again.set_state(state)  # an iterator that has already run ahead
    assert _names(again, 9) == wanted


def test_images_labels_and_names_stay_together_on_the_devices() -> None:
    mesh = jax.make_mesh((2,), ("data",))
    batch = next(pipeline.train_batches(Source(24), np.zeros(24), batch=4, seed=1, mesh=mesh))
    assert len(batch["image"].sharding.device_set) == 2
    for image, label, name in zip(
        np.asarray(batch["image"]), np.asarray(batch["label"]), batch["image_id"], strict=True
    ):
        assert name == f"image{image.max()}"
        assert label == image.max() % 3
    with pytest.raises(ValueError, match="2 devices"):
        pipeline.train_batches(Source(24), np.zeros(24), batch=3, seed=1, mesh=mesh)


def test_evaluation_is_one_pass_in_order_with_the_padding_marked() -> None:
    batches = list(pipeline.eval_batches(Source(10), batch=4))
    names = [n for b in batches for n, w in zip(b["image_id"], b["weight"], strict=True) if w]
    assert names == [f"image{i}" for i in range(10)]
    assert [b["image"].shape[0] for b in batches] == [4, 4, 4]
    assert sum(b["weight"].sum() for b in batches) == 10


def test_class_balance_repeats_the_rare() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    batches = pipeline.train_batches(Source(12), labels, batch=6, seed=0, balance="class")
    seen = Counter(labels[int(n.removeprefix("image"))] for n in sum(_names(batches, batches.steps_per_epoch), []))
    assert seen == {0: 9, 1: 9}
