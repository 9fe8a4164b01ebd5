"""Networks of two views (Petrini et al. 2022): the two images of a breast are one example, see `data.pairs`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mammojax.data import dataset, pipeline
from mammojax.data import pairs as pairing
from mammojax.data.pairs import Pairs
from mammojax.evaluate import measure as measures
from mammojax.evaluate import table
from mammojax.tasks import images
from mammojax.tasks.images import loss, network, summary
from mammojax.train import mesh
from mammojax.vocabulary import PAIRS

__all__ = ["batches", "facts", "loss", "measure", "network", "only", "report", "score", "sizes", "summary", "ttas"]

Tree = Any
Predictions = dict[str, Any]
SPLITS = ("train", "val", "test")


def sizes(config: ConfigDict, data: ConfigDict) -> dict[str, tuple[int, int]]:
    """(height, width) of each input."""
    size = (int(data.size[0]), int(data.size[1]))
    mesh.refuse(config, size, stride=32)
    return dict.fromkeys(PAIRS.get(config.model.pair, ()), size)


def facts(config: ConfigDict, data: dataset.Prepared, starts: Mapping[str, Path]) -> dict[str, Any]:
    """Those of single images, and "pairs": {split: [breasts that are used, breasts without a second image]}."""
    counts = {}
    for split in SPLITS:
        of_split, left_out = pairing.pairs_of(data.table(split), config.model.pair)
        counts[split] = [len(of_split), left_out]
    return images.facts(config, data, starts) | {"pairs": counts}


def batches(
    config: ConfigDict, workdir: Path, data: dataset.Prepared, facts: Mapping[str, Any]
) -> pipeline.Batches | pipeline.Paired:
    """Shuffled pairs; breasts without a second image are left out, which a printed line says.

    Raises:
        BadDataset: see `pairing.refuse`.
    """
    splits = {split: Pairs(data, split, config.model.pair) for split in SPLITS}
    pairing.refuse(splits, config.model.pair)
    train: Any = splits["train"]
    for split, pairs in splits.items():
        if pairs.left_out:
            print(
                f"{split}: {len(pairs)} breasts are used, {pairs.left_out} have one image only and are left out",
                flush=True,
            )
    only = None
    if config.data.patients:  # the patients of a run on single images, of which these are the pairs
        rows = data.table("train")
        chosen = {rows[k]["patient_id"] for k in dataset.of_patients(rows, config.data.patients, config.seed)}
        only = np.array([k for k, row in enumerate(train.table) if row["patient_id"] in chosen], np.int64)
    if config.data.shuffle_labels:
        train = images.Relabelled(train, train.table, config.seed)
    pixels = 2 * int(config.data.size[0]) * int(config.data.size[1])
    workers = pipeline.reading_processes(config.data.workers, len(train if only is None else only), pixels)
    devices = mesh.of_config(config)
    return pipeline.train_batches(train, only=only, batch=config.batch, seed=config.seed, workers=workers, mesh=devices)


def score(
    config: ConfigDict, data: dataset.Prepared, facts: Mapping[str, Any], variables: Tree
) -> Callable[[Tree, str, str], Predictions]:
    """A function that scores the pairs of a split, compiled once for all splits."""
    return images.scorer(config, facts, variables, lambda split: Pairs(data, split, config.model.pair))


def ttas(config: ConfigDict) -> tuple[str, ...]:
    """As for whole images; both images of a pair are flipped or shifted alike."""
    return images.whole_ttas(config)


def measure(
    config: ConfigDict, workdir: Path, name: str, predictions: Predictions, data: dataset.Prepared, split: str
) -> dict[str, Any]:
    """Write predictions/NAME.csv, one row per breast; return the metrics with their intervals."""
    pairs = Pairs(data, split, config.model.pair)
    path, classes = workdir / "predictions" / f"{name}.csv", data.facts["classes"]
    table.write_images(path, predictions, pairs.table, classes, table.PAIR_COLUMNS)
    patients = [pair.patient_id for pair in pairs.pairs]
    measured = measures.measure(predictions, patients, runs=config.bootstrap_runs, seed=config.seed)
    return measured | {"breasts": measured.pop("images"), "breasts_left_out": pairs.left_out}


def only(predictions: Predictions, data: dataset.Prepared, split: str, patients: set[str]) -> Predictions:
    """The predictions of these patients' breasts."""
    chosen = np.array([name.partition("\t")[0] in patients for name in predictions["image_id"]], bool)
    return {name: np.asarray(values)[chosen] for name, values in predictions.items()}


def report(
    config: ConfigDict, workdir: Path, data: dataset.Prepared, predictions: Predictions, notes: list[str]
) -> None:
    """Write report.html with a gallery of the surest and the worst."""
    inputs = {"views": "CC and MLO", "breasts": "a breast and the other one"}[config.model.pair]
    title = f"Two-view classifier ({inputs}) {config.model.trunk} + {config.model.head} on {config.data.name}"
    if config.model.pair == "breasts":
        notes = [*notes, "Of two mammograms side by side the first is the breast that is scored, the second the other."]
    source = Pairs(data, "test", config.model.pair, masks=True)
    images.write_report(config, workdir, data, source, source.table, predictions, title, notes)
