"""The experiments of docs/findings.md: python -m benchmarks findings [--only ARM] [--seeds 0 1 2] [--workdir DIR].

Each arm and seed is one run of configs/quickstart.py, in a folder of its own; a run that was stopped goes on, and a
finished one is not run again. The phantom data are made once for each seed and serve all arms. Results are appended
to findings.jsonl in the workdir.
"""

import argparse
import json
import time
from pathlib import Path

from ml_collections import ConfigDict

from configs import quickstart

ARMS = ("plain", "shuffled labels", "no patch pretraining")


def _config(arm: str, seed: int, data: Path) -> ConfigDict:
    """The quickstart with one thing changed. The seed changes data, split and initialisation together."""
    config = quickstart.get_config()
    config.seed = config.data.seed = config.phantom.seed = seed
    config.data.data_dir = str(data)
    config.data.shuffle_labels = arm == "shuffled labels"
    if arm == "no patch pretraining":
        del config.patch
        config.stages.stage1.update(learn=(".*",), freeze=(), epochs=11)  # nothing is worth freezing
        config.stages = ConfigDict({"stage1": config.stages.stage1})
    return config


def main(arguments: list[str]) -> list[dict]:
    """Run the arms that have no result yet; a row for each arm and seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks findings")
    parser.add_argument("--only", choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/findings"))
    args = parser.parse_args(arguments)
    from mammojax.run import run

    args.workdir.mkdir(parents=True, exist_ok=True)
    book = args.workdir / "findings.jsonl"
    rows = [json.loads(line) for line in book.read_text().splitlines()] if book.exists() else []
    for seed in args.seeds:
        for arm in [args.only] if args.only else ARMS:
            if any(row["arm"] == arm and row["seed"] == seed for row in rows):
                continue
            started = time.perf_counter()
            folder = args.workdir / f"{arm.replace(' ', '_')}_{seed}"
            result = run(_config(arm, seed, args.workdir / f"data_{seed}"), folder)
            auc = result["test"]["auc"]
            row = {"arm": arm, "seed": seed, "auc": auc["value"], "low": auc["low"], "high": auc["high"]}
            rows.append(
                row | {"val_auc": result["val"]["auc"]["value"], "minutes": (time.perf_counter() - started) / 60}
            )
            with book.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    return rows
