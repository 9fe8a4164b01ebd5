"""Does a change of the code change a result? python -m benchmarks unchanged --json FILE, and later --against FILE.

Tiny image and exam runs, the output of commands on them, and every --help, each as a digest: weights by their arrays,
text by its bytes. Run it before the work, keep FILE, and run it with --against FILE after each step; it marks rows that
differ. Digests hold on one machine with one set of packages, so none is kept in the repository.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from mammojax.data.identity import KEY

ROOT = Path(__file__).resolve().parents[1]
IMAGES = [
    "--config=configs/quickstart.py", "--config.phantom.patients=24", "--config.data.workers=1",
    "--config.data.size=(96,64)", "--config.data.patch_size=32", "--config.model.width=4",
    "--config.patch.model.width=4", "--config.model.blocks=(1,1,1,1)", "--config.patch.model.blocks=(1,1,1,1)",
    "--config.model.head=8-8-16x1", "--config.batch=4", "--config.bootstrap_runs=100", "--config.gallery=1",
    "--config.patch.stages.stage1.epochs=1", "--config.stages.stage1.epochs=2", "--config.stages.stage2.epochs=1",
]  # fmt: skip
EXAMS = [
    "--config=configs/exam_quickstart.py", "--config.phantom.exams=40", "--config.data.workers=1",
    "--config.exam.sizes={'CC': (96, 64), 'MLO': (104, 64)}",
    "--config.birads.exam.sizes={'CC': (96, 64), 'MLO': (104, 64)}", "--config.model.width=2",
    "--config.birads.model.width=2", "--config.patch.model.width=4", "--config.patch.model.blocks=(1,1,1,1)",
    "--config.patch.stages.stage1.epochs=1", "--config.birads.stages.stage1.epochs=1",
    "--config.stages.stage1.epochs=2", "--config.exam.stride=48", "--config.bootstrap_runs=50",
]  # fmt: skip
COMMANDS = {
    "predict": "predict --run images --input INPUT --output predicted --tta flips",
    "predict exams": "predict --run exams --input EXAMS --output predicted_exams",
    "compare": "compare images --output compared",
    "localise": "localise --run images --json localised.json",
    "two-step": "two-step --run images --output forest --min-split 5",
    "populations": "populations --run exams --by density --output populations.json",
    "reproduce shen2019": "reproduce shen2019 --runs .",
    "reproduce wu2019": "reproduce wu2019 --runs .",
}
VERBS = (
    "", "prepare", "predict", "compare", "populations", "readers", "localise", "two-step", "figure", "reproduce",
    "convert",
)  # fmt: skip
KEPT = (
    "metrics.json", "predictions.csv", "breasts.csv", "exams.csv", "compare.json", "localised.json", "populations.json",
    "index.csv",
)  # fmt: skip


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _weights(folder: Path) -> str:
    """A digest of all arrays of a checkpoint, by name."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(ocp.load(folder)):
        digest.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _run(arguments: Sequence[str], cwd: Path) -> str:
    """The printed output of a command of this tree, without times and folders.

    Raises:
        RuntimeError: the command fails.
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments[:3])} failed: {done.stderr[-2000:]}")
    return re.sub(
        r"\d+ images/s(?:, about [\w ]+ left in this stage)?|\S*" + re.escape(cwd.name) + r"\S*", "", done.stdout
    )


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, digest) of every output, in a fresh folder."""
    for name, arguments in (("images", IMAGES), ("exams", EXAMS)):
        workdir = folder / name
        _run(["launch.py", *arguments, f"--workdir={workdir}", f"--config.data.data_dir={folder}/data"], ROOT)
        for run in sorted(path.parent.parent for path in workdir.rglob("checkpoints/best")):
            yield f"weights {run.relative_to(folder)}", _weights(run / "checkpoints/best")
    sources = {kind: next(folder.glob(f"data/{kind}_source/*")) for kind in ("phantom", "phantom_exams")}
    whole = max(sorted(sources["phantom"].rglob("*.dcm")), key=lambda path: path.stat().st_size)  # no crop, no mask
    places = {"INPUT": str(whole), "EXAMS": str(sources["phantom_exams"] / "manifest.csv")}
    (folder / "predicted").mkdir()
    (folder / "predicted" / KEY).write_bytes(bytes(32))  # else the ids' key, and with it their hashes, is random
    for name, command in COMMANDS.items():
        words = [places.get(word, word) for word in command.split()]
        yield f"printed by {name}", _digest(_run(["-m", "mammojax.cli", *words], folder).encode())
    for file in sorted(p for p in folder.rglob("*") if p.name in KEPT or p.parent.name == "predictions"):
        yield str(file.relative_to(folder)), _digest(file.read_bytes())
    for verb in VERBS:
        yield f"help {verb}".strip(), _digest(_run(["-m", "mammojax.cli", *verb.split(), "--help"], folder).encode())


def main(arguments: Sequence[str]) -> list[dict]:
    """A row for each thing: its digest and, with --against, whether it is the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks unchanged")
    parser.add_argument("--against", type=Path, help="what --json wrote before the change")
    args = parser.parse_args(arguments)
    before = None
    if args.against:
        before = {row["what"]: row["digest"] for row in json.loads(args.against.read_text())["rows"]}
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"what": name, "digest": digest} for name, digest in _digests(Path(folder).resolve())]
    for row in rows:
        if before is not None:
            was = before.pop(row["what"], "new")
            row["same"] = "yes" if was == row["digest"] else f"NO, it was {was}"
    return rows + [{"what": name, "digest": "", "same": "NO, it is gone"} for name in before or {}]
