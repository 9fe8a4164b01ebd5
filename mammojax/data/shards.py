"""The shards of a data set: files of examples, each made on its own, so that a stopped preparation goes on.

Their number follows from the images alone, never from the processes. A shard is complete when a JSON file beside it, in
the folder `unfinished`, says what it was made of and what it holds; that folder goes when the data set is complete.
"""

import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tqdm import tqdm

from mammojax.data import disk, source
from mammojax.data.beam import Runner
from mammojax.data.builder import features_of
from mammojax.data.cells import Writer
from mammojax.data.dataset import COLUMNS
from mammojax.data.examples import Example, examples_of
from mammojax.data.levels import gray_levels, ranges
from mammojax.data.manifest import SPLITS, Image
from mammojax.data.recipe import FORMAT_VERSION, WITHOUT_PATCHES, Recipe
from mammojax.errors import BadDataset

IMAGES = 16
"""Images of a shard, unless that makes more than MOST shards: what a process may lose when it is killed."""
MOST = 512
"""Shards of a data set at most, but for the last ones of its splits; a reader keeps all of a split open."""
UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Shard:
    """Images whose examples become one file.

    Attributes:
        path: of the file.
        split: "train", "val" or "test".
        images: whose examples it holds, in this order.
        recipe: of the examples.
    """

    path: Path
    split: str
    images: tuple[Image, ...]
    recipe: Recipe

    @property
    def facts(self) -> Path:
        """The JSON file that says that the shard is complete, and what it holds."""
        return self.path.parent / UNFINISHED / f"{self.path.name}.json"

    def key(self) -> str:
        """A digest of all that the examples depend on: code, recipe, rows, and the size and time of every file."""
        digest = hashlib.sha256(f"{importlib.metadata.version('mammojax')} {FORMAT_VERSION} {self.recipe}".encode())
        for image in self.images:
            digest.update(repr(image).encode())
            for file in (image.path, *(lesion.mask for lesion in image.lesions if lesion.mask)):
                known = os.stat(file) if os.path.exists(file) else None
                digest.update(f"{known and (known.st_size, known.st_mtime_ns)}".encode())
        return digest.hexdigest()

    def complete(self) -> bool:
        """Whether it was written before, from the same files."""
        if not (self.facts.is_file() and self.path.is_file()):
            return False
        return bool(json.loads(self.facts.read_text())["key"] == self.key())


@dataclass
class Written:
    """What a data set holds.

    Attributes:
        counts: of each split, the number of examples by label.
        rejected: (file, reason) of everything left out, sorted.
        mean: gray value of the training examples, 0 … 255.
        levels: the ranges of the gray levels of the training images (`levels.ranges`); empty for patches.
    """

    counts: dict[str, Counter[int]] = field(default_factory=lambda: {split: Counter() for split in SPLITS})
    rejected: list[tuple[str, str]] = field(default_factory=list)
    mean: float = 0.0
    levels: dict[str, list[float]] = field(default_factory=dict)


def write(recipe: Recipe, workers: int, runner: Runner | None = None) -> Written:
    """Write the examples of a recipe and their index.csv into its folder; what a stopped call has finished is kept.

    Args:
        recipe: of the data set.
        workers: processes; the files do not depend on their number.
        runner: of Beam, whose machines write the shards in place of those processes; they are the same files.

    Raises:
        BadConfig: see `Runner.each`.
        BadDataset, BadManifest: the source cannot be used, one of its splits has no usable file, or the disk is too
            small.
    """
    shards, rejected = _planned(recipe)
    expected = {path for shard in shards for path in (shard.path, shard.facts)}
    (recipe.path / UNFINISHED).mkdir(parents=True, exist_ok=True)
    for folder in (recipe.path, recipe.path / UNFINISHED):
        for path in folder.iterdir():
            if path.is_file() and path not in expected:
                path.unlink()
    missing = [shard for shard in shards if not shard.complete()]
    done = sum(len(shard.images) for shard in shards) - sum(len(shard.images) for shard in missing)
    if done:
        print(f"{recipe.kind}: {done} images are prepared already", flush=True)
    disk.refuse_full(recipe, [image for shard in missing for image in shard.images])
    if runner:
        runner.each(_write, missing)
        missing = []
    with tqdm(total=done + sum(len(s.images) for s in missing), initial=done, desc=recipe.kind, disable=None) as bar:
        for shard in _each(missing, workers):
            bar.update(len(shard.images))
    _drop_copies(shards)
    return _indexed(recipe, shards, rejected)


def finish(recipe: Recipe) -> None:
    """Remove what only an unfinished data set needs."""
    shutil.rmtree(recipe.path / UNFINISHED, ignore_errors=True)


def _planned(recipe: Recipe) -> tuple[list[Shard], list[tuple[str, str]]]:
    """The shards of a data set, train before val before test, and (file, reason) of what its table leaves out."""
    table, splits = source.read(recipe)
    rejected = list(table.rejected)
    images: dict[str, list[Image]] = {split: [] for split in SPLITS}
    for image in sorted(table.images, key=lambda image: image.image):
        split = splits.get(image.patient_id, "")  # "": an official test patient under "shen"
        if recipe.kind == "whole" and image.label < 0 and split in ("train", "val"):
            rejected.append((image.image, f"its pathology is empty: {split} has nothing to learn from it"))
        elif split:
            images[split].append(image)
    size = max(IMAGES, -(-sum(map(len, images.values())) // MOST))
    shards = []
    for split, chosen in images.items():
        count = -(-len(chosen) // size)
        for k in range(count):
            name = f"{recipe.folder}-{split}.array_record-{k:05d}-of-{count:05d}"
            shards.append(Shard(recipe.path / name, split, tuple(chosen[k * size : (k + 1) * size]), recipe))
    return shards, rejected


def _each(shards: Sequence[Shard], workers: int) -> Iterator[Shard]:
    """Write shards in this process or in several; each as soon as it is complete.

    Raises:
        BadDataset: the system killed a process.
    """
    if workers <= 1 or len(shards) < 2:
        for shard in shards:
            _write(shard)
            yield shard
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(shards)), context, _begin_worker)
    try:
        futures = {pool.submit(_write, shard): shard for shard in shards}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    except BrokenProcessPool:
        raise BadDataset(
            "the system ended a process that prepares images, most likely as the memory was full; give fewer --workers."
            " What is finished is kept."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """A process leaves Ctrl-C to the first one, uses one core, and ends with the first one, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()

    def end() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _write(shard: Shard) -> None:
    """Make a shard's examples and write them, and what they are."""
    key, (features, serialise) = shard.key(), _serialiser(shard.recipe)
    facts: dict[str, Any] = {"key": key, "rejected": [], "rows": [], "digests": [], "total": 0, "pixels": 0}
    facts |= {"levels": [], "bytes": []}
    unfinished = shard.facts.with_name(shard.path.name)
    writer = ArrayRecordWriter(str(unfinished), "group_size:1")
    for image in shard.images:
        examples, rejected = examples_of(image, shard.recipe)
        facts["rejected"] += rejected
        for example in examples:
            facts["digests"].append(example.pop("digest").hex())
            facts["rows"].append([example.get(column, "") for column in ("image_id", *COLUMNS[1:], "facts")])
            if shard.split == "train":
                _measure(example, facts)
            record = serialise.serialize_example(features.encode_example(example))
            facts["bytes"].append(len(record))
            writer.write(record)
    writer.close()
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
    unfinished.rename(shard.path)
    _write_facts(shard, facts)


def _serialiser(recipe: Recipe) -> tuple[Any, ExampleSerializer]:
    """The features of a recipe's examples, and what turns encoded ones into bytes."""
    features = features_of(recipe)
    return features, ExampleSerializer(features.get_serialized_info())


def _measure(example: Example, facts: dict[str, Any]) -> None:
    """Add an example's gray values, and those of a whole image's regions, to the facts of its shard."""
    image = np.asarray(cv2.imdecode(np.frombuffer(example["image"].getbuffer(), np.uint8), cv2.IMREAD_UNCHANGED))
    facts["total"] += int(image.sum(dtype=np.uint64))
    facts["pixels"] += image.size
    if "masks" in example:
        facts["levels"].append(gray_levels(image))


def _write_facts(shard: Shard, facts: dict[str, Any]) -> None:
    unfinished = shard.facts.with_suffix(".part")
    unfinished.write_text(json.dumps(facts))
    unfinished.rename(shard.facts)


def _drop_copies(shards: Sequence[Shard]) -> None:
    """Leave out the examples of an image whose pixels are those of another patient's in an earlier split."""
    seen: dict[str, tuple[str, str]] = {}  # digest of the pixels → image and split that have them
    for shard in shards:
        facts = json.loads(shard.facts.read_text())
        kept = []
        for k, digest in enumerate(facts["digests"]):
            name = (
                facts["rows"][k][0] if shard.recipe.kind in WITHOUT_PATCHES else facts["rows"][k][0].rpartition("#")[0]
            )
            other, where = seen.setdefault(digest, (name, shard.split))
            if where == shard.split:
                kept.append(k)
            else:
                facts["rejected"].append((name, f"its pixels are those of {other}, another patient's in {where}"))
        if len(kept) < len(facts["digests"]):
            _keep_only(shard, facts, kept)


def _keep_only(shard: Shard, facts: dict[str, Any], kept: Sequence[int]) -> None:
    """Write a shard again with some of its examples."""
    shard.facts.unlink()  # a stop between here and the end makes the shard anew
    reader, unfinished = ArrayRecordReader(str(shard.path)), shard.facts.with_name(shard.path.name)
    writer = ArrayRecordWriter(str(unfinished), "group_size:1")
    for k in kept:
        writer.write(reader.read([k])[0])
    writer.close()
    reader.close()
    unfinished.rename(shard.path)
    for name in ("rows", "digests", "bytes"):
        facts[name] = [facts[name][k] for k in kept]
    _write_facts(shard, facts)


def _indexed(recipe: Recipe, shards: Sequence[Shard], rejected: list[tuple[str, str]]) -> Written:
    """Write index.csv and TFDS's own description of the shards.

    Raises:
        BadDataset: a split has no usable file.
    """
    written, total, pixels = Written(), 0, 0
    levels: list[dict[str, float]] = []
    lengths: dict[str, list[int]] = {}
    sizes: Counter[str] = Counter()
    with (recipe.path / "index.csv").open("w", newline="") as file:
        has_facts = recipe.kind in WITHOUT_PATCHES
        writer = Writer(file, ("split", *COLUMNS, *(["facts"] if has_facts else [])))
        for shard in shards:
            facts = json.loads(shard.facts.read_text())
            for row in facts["rows"]:
                written.counts[shard.split][row[len(COLUMNS) - 1]] += 1
                writer.row((shard.split, *(row if has_facts else row[:-1])))
            lengths.setdefault(shard.split, []).append(len(facts["rows"]))
            sizes[shard.split] += sum(facts["bytes"])
            rejected += [(name, reason) for name, reason in facts["rejected"]]
            total, pixels = total + facts["total"], pixels + facts["pixels"]
            levels += facts["levels"]
    written.rejected, written.mean = sorted(set(rejected)), total / max(pixels, 1) * 255 / 65535
    written.levels = ranges(levels)
    if not all(map(sum, lengths.values())):
        first = "; the first: {}, {}".format(*written.rejected[0]) if written.rejected else ""
        raise BadDataset(
            f"{recipe.name}/{recipe.config_name}: of one split no file can be used, {len(written.rejected)} were left"
            f" out{first}."
        )
    tfds.folder_dataset.write_metadata(
        data_dir=recipe.path,
        features=features_of(recipe),
        split_infos=[tfds.core.SplitInfo(name=s, shard_lengths=n, num_bytes=sizes[s]) for s, n in lengths.items()],
        check_data=False,
        description="Mammograms.",
        disable_shuffling=True,
    )
    return written
