"""Where the input's time goes: python -m benchmarks input_stages [--json FILE]

Images a second of every stage between the disk and an update, for each config: what one core reads, decodes and cuts,
what reaches the device, what the run's own pipeline of all that gives, and what the training step takes. The data is a
phantom of the config's sizes; on a GPU the paper's sizes are the default.
"""

import argparse
import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from benchmarks import _timing
from benchmarks.input import Long
from benchmarks.training import batch_of, ours
from mammojax.data import dataset, exams, phantom, phantom_exams, pipeline
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.train import mesh, stages

CONFIGS = {
    "quickstart": ("whole", (288, 224)), "quickstart.patch": ("patches_s10", (288, 224)),
    "exam_quickstart": ("exams", (288, 224)), "patch_resnet": ("patches_s10", (1152, 896)),
    "whole_resnet": ("whole", (1152, 896)), "exam": ("exams", (3200, 2200)),
}  # fmt: skip
"""Kind of the examples, and size of the phantom's mammograms."""
SMALL, LARGE = ["quickstart", "quickstart.patch", "exam_quickstart"], ["patch_resnet", "whole_resnet", "exam"]


def main(arguments: Sequence[str]) -> Iterator[dict]:
    """A row for each config: images a second of each stage, and how many times the step's the pipeline's are."""
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(prog="python -m benchmarks input_stages")
    parser.add_argument("--config", nargs="+", default=SMALL if on_cpu else LARGE, choices=list(CONFIGS))
    parser.add_argument("--precision", default="float32" if on_cpu else "bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, help="instead of the config's")
    parser.add_argument("--workers", type=int, default=2, help="processes that read, where they pay")
    parser.add_argument("--patients", type=int, default=12)
    args = parser.parse_args(arguments)
    for name in args.config:
        with tempfile.TemporaryDirectory() as folder:
            yield _row(name, args, Path(folder))


def _row(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    kind, image_size = CONFIGS[name]
    config = _config(name)
    config.batch, config.model.dtype = args.batch or config.batch, args.precision
    data = _prepared(config, kind, image_size, args, folder)
    skipped = ("image",) if kind == "patches_s10" else ("image", "masks")
    builder = tfds.builder_from_directory(data.path)
    raw = builder.as_data_source("train", decoders={name: tfds.decode.SkipDecoding() for name in skipped})
    stored = [raw[k]["image"] for k in range(min(8, len(raw)))]
    calls = {"read": _over(lambda k: raw[k % len(raw)]), "decode": _over(lambda k: _decoded(stored[k % len(stored)]))}
    stream = _stream(config, kind, data, args.workers, calls)
    example = next(stream)
    images = {"read": 1, "decode": 1, "window": 1}
    of_batch = sum(len(image) for image in jax.tree.leaves(example["image"]))
    on_host = jax.tree.map(np.asarray, example["image"])
    calls["transfer"] = lambda turns: [jax.block_until_ready(jax.device_put(on_host)) for _ in range(turns)]
    calls["pipeline"] = lambda turns: jax.block_until_ready([next(stream)["image"] for _ in range(turns)][-1])
    calls["step"] = ours(config, stages.from_config(config.stages)[-1], batch_of(config))[2]
    seconds = _timing.medians(calls)
    stream.close()
    row: dict[str, Any] = {"config": name, "batch": config.batch, "workers": args.workers, "precision": args.precision}
    row |= {"MB": sum(image.nbytes for image in jax.tree.leaves(on_host)) / 1e6}
    row |= {stage: images.get(stage, of_batch) / float(value) for stage, value in seconds.items()}
    return row | {"pipeline/step": row["pipeline"] / row["step"]}


def _config(name: str) -> ConfigDict:
    module, _, part = name.partition(".")
    arguments = {"exam": "view-wise-scratch", "exam_quickstart": "view-wise-scratch", "patch_resnet": "s10-random"}
    get = importlib.import_module(f"mammojax.configs.{module}").get_config
    config = get(arguments[module]) if module in arguments else get()
    if part:  # a run inside it learns from the same data
        config[part].data.update(config.data.to_dict() | {"kind": config[part].data.kind})
    return config[part] if part else config


def _prepared(
    config: ConfigDict, kind: str, image_size: tuple[int, int], args: argparse.Namespace, folder: Path
) -> dataset.Prepared:
    common: dict[str, Any] = {"source": folder / "source", "split": "all", "patch_size": config.data.patch_size}
    if kind == "exams":
        phantom_exams.write_exams(folder / "source", exams=args.patients, image_size=image_size, workers=args.workers)
        recipe = Recipe("phantom_exams", kind, folder / "data", iterations=10, **common)
    else:
        phantom.write_phantom(folder / "source", patients=args.patients, image_size=image_size, workers=args.workers)
        recipe = Recipe("phantom", kind, folder / "data", size=image_size, **common)
    return dataset.Prepared(prepare(recipe, (kind,), args.workers)[-1])


def _stream(
    config: ConfigDict, kind: str, data: dataset.Prepared, workers: int, calls: dict[str, Callable[[int], object]]
) -> pipeline.Batches:
    """The batches of a run; for exams `calls` gets the cutting of a window too."""
    devices = mesh.data_mesh(config.batch)
    if kind != "exams":
        source = Long(data.source("train", masks=False), 50)
        pixels = int(np.prod(data.facts["framing"]["size"] if kind == "whole" else (config.data.patch_size,) * 2))
        processes = pipeline.reading_processes(workers, 20_000 if kind != "whole" else 2_000, pixels)
        return pipeline.train_batches(source, batch=config.batch, seed=0, workers=processes, mesh=devices)
    windows = exams.Windows(
        data, config.exam.sizes, target="cancer", angles=("CC", "MLO"), noise=config.exam.noise, batch=config.batch,
        epochs=10_000, seed=0,
    )  # fmt: skip
    angle = data.table("train")[0]["view"]
    view, size = exams.Images(data, "train", config.exam.sizes).view(0), tuple(config.exam.sizes[angle])
    rng = np.random.default_rng(0)
    calls["window"] = _over(lambda _: view.window(angle, size, rng, config.exam.noise))
    processes = pipeline.reading_processes(workers, 2_000, 4 * size[0] * size[1])
    return pipeline.exam_batches(windows, batch=config.batch, workers=processes, mesh=devices)


def _decoded(stored: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED))


def _over(call: Callable[[int], object]) -> Callable[[int], object]:
    """A function of the number of turns, from one of the turn."""

    def turns(count: int) -> None:
        for k in range(count):
            call(k)

    return turns
