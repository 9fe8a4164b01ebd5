"""Does patch pretraining help on real film? python -m benchmarks film --source DIR [--folds 4] [--workdir DIR].

Patient-level cross-validation of configs/film.py on a manifest: in turn each fold is the test set, the next one the
validation set. Two arms: as configured, and the same whole-image net from random weights with as many epochs. The mean
of the folds' AUCs, and of their differences, with intervals from draws of patients. Resumable.
"""

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from mammojax.configs import base, film
from mammojax.data import manifest
from mammojax.evaluate import compare, table

ARMS = ("patch-pretrained", "random weights")


def _folds(source: Path, folds: int, workdir: Path) -> list[Path]:
    """The manifest once for each fold, its split column filled; patients with a malignant image spread evenly."""
    groups = manifest.split_patients(manifest.read_manifest(source).images, [1.0] * folds, seed=0)
    place = {patient: k for k, group in enumerate(groups) for patient in group}
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    paths = []
    for fold in range(folds):
        path = workdir / f"fold_{fold}.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*dict.fromkeys([*rows[0], "split"])])
            writer.writeheader()
            for row in rows:
                away = (place[row["patient_id"]] - fold) % folds
                moved = {c: os.path.relpath(source.parent / row[c], workdir) for c in ("image", "mask") if row.get(c)}
                writer.writerow({**row, **moved, "split": {0: "test", 1: "val"}.get(away, "train")})
        paths.append(path)
    return paths


def _config(arm: str, source: Path, workdir: Path) -> ConfigDict:
    config = film.get_config()
    config.source, config.data.data_dir = str(source), str(workdir / "data")
    if arm == "random weights":
        del config.patch
        epochs = config.stages.stage1.epochs + config.stages.stage2.epochs
        config.stages = ConfigDict({"stage1": base.stage("all layers", (".*",), (), 1e-3, epochs)})
    return config


def main(arguments: Sequence[str]) -> list[dict]:
    """A row for each arm's mean AUC over the folds, and one for their difference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks film")
    parser.add_argument("--source", type=Path, required=True, help="a manifest, or a folder with a manifest.csv")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--workdir", type=Path, default=Path("runs/film_folds"))
    args = parser.parse_args(arguments)
    from mammojax.run import run

    args.workdir.mkdir(parents=True, exist_ok=True)
    source = args.source / "manifest.csv" if args.source.is_dir() else args.source
    scored: dict[str, list[table.Predictions]] = {arm: [] for arm in ARMS}
    for fold, path in enumerate(_folds(source, args.folds, args.workdir)):
        for arm in ARMS:
            folder = args.workdir / f"{arm.replace(' ', '_')}_{fold}"
            if not (folder / "metrics.json").is_file():
                run(_config(arm, path, args.workdir), folder)
            scored[arm].append(table.read_images(folder, "test"))
    rows = []
    for arm in ARMS:
        mean = compare.over_repeats([(predictions, None) for predictions in scored[arm]])
        rows.append({"arm": arm, "folds": args.folds, "mean_auc": mean.value, "low": mean.low, "high": mean.high})
    gap = compare.over_repeats(list(zip(*scored.values(), strict=True)))
    return [*rows, {"arm": " - ".join(ARMS), "difference": gap.value, "low": gap.low, "high": gap.high}]
