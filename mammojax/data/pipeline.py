"""From a prepared data set to batches on the devices: TFDS source → grain → mesh. The only file that knows grain."""

import json
from collections.abc import Iterator
from typing import Any, SupportsIndex

import grain
import jax
import numpy as np
from absl import flags

from mammojax import processes
from mammojax.data.exams import Windows
from mammojax.errors import BadConfig

Batch = dict[str, Any]
WORTH_PROCESSES = 1_000_000_000
"""Pixels per epoch above which processes pay: about ten seconds of decoding, more than starting them takes."""
_ARRAYS = ("image", "label", "weight")


class _Parse:
    """An example as a batch holds it; a class, so that worker processes can unpickle it."""

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        name, image = example["image_id"], example["image"]
        if "std" in example:  # a patch of an exam's image, on that image's scale (Wu et al. 2019)
            image = (image.astype(np.float32) - example["mean"]) / example["std"]
        return {
            "image": image,
            "label": np.asarray(example["label"], np.int32),
            "weight": example.get("weight", np.float32(1)),
            "image_id": np.asarray(name if isinstance(name, bytes) else str(name).encode(), dtype=object),
        }


def _stack(examples: list[dict[str, Any]]) -> Batch:
    arrays = [{key: example[key] for key in _ARRAYS} for example in examples]
    batch: Batch = jax.tree.map(lambda *leaves: np.stack(leaves), *arrays)
    return batch | {"image_id": [example["image_id"].item().decode() for example in examples]}


class Batches(Iterator[Batch]):
    """A stream of batches whose position can be saved.

    Each batch is {"image": uint16 [B, H, W, 1], "label": int32 [B], "weight": float32 [B] (0 for padding),
    "image_id": list of B names}; "exam_patches" are float32, standardised; exams are examples of `exams.Windows`, each
    view [B, h, w, C], "label" [B, R]. With a mesh the arrays lie on its devices, split over `data`, and the next batch
    travels to them while the current one is used; of several processes each reads its own rows, and "image_id" has
    those alone. The state counts the batches handed out, not those fetched ahead, and
    does not depend on the workers: a run may be resumed with another number of them.
    """

    def __init__(
        self, dataset: grain.MapDataset, steps_per_epoch: int, workers: int, mesh: jax.sharding.Mesh | None
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._dataset, self._workers = dataset, workers
        self._sharding = None if mesh is None else jax.NamedSharding(mesh, jax.P("data"))
        self._iterator: grain.DatasetIterator | None = None
        self._position = 0
        self._ahead: Batch | None = None

    def _fetch(self) -> Batch | None:
        if (
            self._iterator is None
        ):  # a slice, as grain's own state fits only the number of workers with which it was saved
            self._iterator = iter(_read(self._dataset.slice(slice(self._position, None)), self._workers))
        batch = next(self._iterator, None)
        if batch is not None and self._sharding is not None:
            arrays = {key: batch[key] for key in _ARRAYS}
            batch |= jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._sharding, x), arrays)
        return batch

    def __next__(self) -> Batch:
        now = self._ahead or self._fetch()
        if now is None:
            raise StopIteration
        self._ahead = self._fetch() if self._sharding is not None else None
        self._position += 1
        return now

    def get_state(self) -> str:
        """The position after the last batch handed out, as JSON."""
        return json.dumps({"next_index": self._position})

    def set_state(self, state: str) -> None:
        """Continue exactly after the batch at which `state` was taken, whatever the number of workers was then."""
        self.close()
        self._position = json.loads(state)["next_index"]

    def back(self, steps: int) -> None:
        """Go back by `steps` batches."""
        self.set_state(json.dumps({"next_index": self._position - steps}))

    def close(self) -> None:
        """Stop the reading threads and processes; the next call for a batch starts them again."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = self._ahead = None


class Paired(Iterator[Batch]):
    """Batches of whole images, each with a batch of patches beside it ("patch_image", "patch_label")."""

    def __init__(self, images: Batches, patches: Batches) -> None:
        self.steps_per_epoch = images.steps_per_epoch
        self._images, self._patches = images, patches

    def __next__(self) -> Batch:
        patches = next(self._patches)
        return next(self._images) | {"patch_image": patches["image"], "patch_label": patches["label"]}

    def get_state(self) -> str:
        """The position after the last batch handed out, as JSON; both streams are endless and advance together."""
        return self._images.get_state()

    def set_state(self, state: str) -> None:
        """Continue exactly after the batch at which `state` was taken."""
        self._images.set_state(state)
        self._patches.set_state(state)

    def back(self, steps: int) -> None:
        """Go back by `steps` batches."""
        self._images.back(steps)
        self._patches.back(steps)

    def close(self) -> None:
        """Stop the reading threads and processes."""
        self._images.close()
        self._patches.close()


def reading_processes(workers: int, examples: int, pixels: int) -> int:
    """How many processes read an epoch of `examples` of `pixels` pixels each: `workers`, or 0 if they do not pay.

    Threads of this process read smaller epochs, since starting processes and passing their examples on takes longer
    than they save. The batches are the same either way.
    """
    return workers if examples * pixels >= WORTH_PROCESSES else 0


def train_batches(
    source: Any,
    *,
    batch: int,
    seed: int,
    workers: int = 0,
    only: np.ndarray | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Batches:
    """An endless, seeded stream; every epoch has its own shuffle and holds each example once.

    Rare classes are not repeated: Shen et al. 2019 balance classes by weights in the loss (`train.losses`).

    Args:
        source: random access to examples {"image", "label", "image_id", …}.
        batch: examples a step; the epoch's incomplete last batch is dropped.
        seed: of the shuffles.
        workers: processes that decode; 0 decodes in this one. The batches are the same whatever the number.
        only: int [M], the examples to use; None: all.
        mesh: the devices that get the batches; None leaves NumPy arrays.

    Raises:
        BadConfig: the batch does not divide among the devices. ValueError: the source is empty.
    """
    if mesh is not None and batch % mesh.shape["data"]:
        raise BadConfig(f"a batch of {batch} cannot be shared by {mesh.shape['data']} devices; take a multiple of it.")
    indices = np.arange(len(source)) if only is None else np.asarray(only)
    if not len(indices):
        raise ValueError("the split has no examples; prepare the data set with more patients or another split.")
    if len(indices) < batch:  # a data set smaller than a batch: examples are repeated to fill one
        indices = np.resize(indices, batch)
    steps = len(indices) // batch
    dataset = grain.MapDataset.source(_Subset(source, indices)).seed(seed).shuffle()
    dataset = dataset.slice(slice(0, steps * batch)).map(_Parse())
    return Batches(_batched(dataset.repeat(), batch), steps, workers, mesh)


def exam_batches(windows: Windows, *, batch: int, workers: int = 0, mesh: jax.sharding.Mesh | None = None) -> Batches:
    """The stream of `exams.Windows`, in its own order, with `windows.per_epoch` examples per epoch."""
    dataset = grain.MapDataset.source(windows).map(_Parse())
    return Batches(_batched(dataset, batch), windows.per_epoch // batch, workers, mesh)


def _batched(dataset: grain.MapDataset, batch: int) -> grain.MapDataset:
    """Batches of examples; of several processes each gets, and reads, its rows of every batch alone."""
    count = jax.process_count()
    rows = dataset if count == 1 else grain.MapDataset.source(_Rows(dataset, batch, count, jax.process_index()))
    # An endless stream is as long as an index can be; without this its length would be rounded up, beyond that.
    return rows.batch(batch // count, drop_remainder=True, batch_fn=_stack)


class _Rows:
    """The examples of a stream that stand in process `index`'s rows of its batches."""

    def __init__(self, dataset: grain.MapDataset, batch: int, count: int, index: int) -> None:
        self._dataset, self._batch, self._rows = dataset, batch, batch // count
        self._first = index * self._rows

    def __len__(self) -> int:
        return len(self._dataset) // self._batch * self._rows

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        step, row = divmod(int(index), self._rows)
        return self._dataset[step * self._batch + self._first + row]


def eval_batches(source: Any, *, batch: int, workers: int = 0, mesh: jax.sharding.Mesh | None = None) -> Batches:
    """One pass in order over the examples, or, of several processes, over this one's share of them (`processes.share`).

    Repeats of weight 0 fill the last batch, so that all batches have one shape.
    """
    if mesh is not None and batch % mesh.shape["data"]:
        raise BadConfig(
            f"config.eval_batch is {batch}, which {mesh.shape['data']} devices cannot share; take a multiple."
        )
    own = processes.share(len(source))
    steps = max(-(-len(own) // batch), 1 if len(source) else 0)
    padded = np.concatenate([np.array(own, np.int64), np.full(steps * batch - len(own), len(source))])
    dataset = grain.MapDataset.source(_Subset(source, padded)).map(_Parse())
    return Batches(dataset.batch(batch, batch_fn=_stack), steps, workers, mesh)


class _Subset:
    """A source's examples by a list of indices; one beyond the end repeats the last with weight 0."""

    def __init__(self, source: Any, indices: np.ndarray) -> None:
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        chosen = int(self._indices[int(index)])
        example = self._source[min(chosen, len(self._source) - 1)]
        return {**example, "weight": np.float32(chosen < len(self._source))}


def _read(dataset: grain.MapDataset, workers: int) -> grain.IterDataset:
    """Start reading: in threads of this process, or in `workers` processes."""
    if workers == 0:
        return dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
    if not flags.FLAGS.is_parsed():  # grain's workers read absl flags, which a notebook or a test never parses
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)).mp_prefetch(options)
