"""A finished run beside the row of a paper's table that it fills: what is measured of it, and what is not the paper's.

Runs name their row in `config.row`, which the files of configs/ set. A run on other data, at another size or with other
epochs than the paper's, or that started from such a run, is told by its status; controls with shuffled labels are left
out.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammojax.evaluate import shen2019
from mammojax.train.checkpoint import BadCheckpoint, read_config


@dataclass(frozen=True, eq=False)
class PaperRun:
    """A finished run as the tables need it."""

    path: Path
    row: str
    config: dict[str, Any]
    facts: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def patients(self) -> int:
        """Labelled patients it was trained on; 0: all."""
        return int(self.config["data"].get("patients", 0))

    def best_epoch(self) -> int | None:
        """Epoch of the best checkpoint, counted through all stages; None where nothing was trained by gradient."""
        log = self.path / "metrics.jsonl"
        if not log.is_file():
            return None
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        best = [k for k, row in enumerate((r for r in rows if r["kind"] == "val"), start=1) if row["best"]]
        return best[-1] if best else None

    def status(self, data: str) -> str:
        """ "run" where data set, split, framing, width, batch, epochs and start are the paper's, else what differs."""
        differs = self.deviations(data)
        elsewhere = [text for text in differs if text.startswith("on ")]
        others = [text for text in differs if text not in elsewhere]
        return " ".join(["run", *elsewhere]) + (f" ({', '.join(others)})" if others else "")

    def deviations(self, data: str) -> list[str]:
        """What is not the paper's about this run, "on <data set>" first; `data` is the row's data set."""
        framing, model, config = self.facts["framing"], self.config["model"], self.config
        size = tuple(framing["size"])
        epochs = sum(stage["epochs"] for stage in config["stages"].values())
        batch = 32 if model["task"] == "patch" else 2
        tests = [
            (self.facts["name"] != data, f"on {self.facts['name']}"),
            (size != (1152, 896), f"{size[0]}x{size[1]}"),
            (framing["crop"] != "none", "cropped"),
            (framing["keep_aspect"], "aspect kept"),
            (self.facts["split"] != "shen", f"split {self.facts['split']}"),
            (model["width"] != 64, f"width {model['width']}"),
        ]
        if self.row == "two_step":  # nothing of it is trained by gradient
            split = config["two_step"]["min_split"]
            tests.append((split != 300, f"min split {split}"))
        else:
            tests.append((epochs != epochs_of(self.row), f"{epochs} epochs"))
            tests.append((config["batch"] != batch, f"batch {config['batch']}"))
        found = [text for differs, text in tests if differs]
        return found + [text for text in self._start() if text.removeprefix("start ") not in found]

    def _start(self) -> list[str]:
        """What is not the paper's about the weights it began with."""
        if self.row == "two_step" or self.row.endswith("-random") or self.config["model"]["pretrained"]:
            return []
        folder = started_from(self.path, self.config["init_from"])
        if folder is None:
            return ["not from ImageNet weights"]
        if not (folder / "config.json").is_file() or folder.resolve() == self.path.resolve():
            return ["the run it started from is not at hand"]
        before = _read(folder)
        found = [] if before.row == starts_from(self.row) else [f"started from {before.row or 'no row'}"]
        found += before.deviations("cbis_ddsm")
        return [text if text.startswith(("start", "not ", "the run")) else f"start {text}" for text in found]


def started_from(run: Path, init_from: str, inside: str = "patch") -> Path | None:
    """The run whose weights a run began with: the one trained `inside` it, else the one that its config.init_from
    names, which may be gone; None where that is empty."""
    if (run / inside / "config.json").is_file():
        return run / inside
    return Path(init_from) if init_from else None


def patch_run(run: Path, init_from: str) -> Path | None:
    """The patch run that a whole-image run started from, or that the run it started from holds; None where neither is
    at hand. `init_from` is that of the run's config, which may be empty."""
    start = started_from(run, init_from)
    for folder in (start, start / "patch") if start else ():
        if (folder / "config.json").is_file() and read_config(folder)[0].model.task == "patch":
            return folder
    return None


def epochs_of(row: str) -> int:
    """The paper's epochs for a row, all stages together."""
    kind, _, argument = row.partition(":")
    if kind.startswith("patch"):
        return 50 if argument.startswith("s10") else 200
    if kind == "inbreast":
        return 200
    return 50 + int(argument.partition("+")[2] or 0)


def starts_from(row: str) -> str:
    """The row that a whole-image or INbreast row starts from."""
    kind, _, argument = row.partition(":")
    if kind == "inbreast":
        return dict(zip(shen2019.INBREAST, shen2019.FOUR_BEST, strict=True)).get(row, argument)
    return f"{kind.replace('whole', 'patch')}:{argument.partition('/')[2].partition('+')[0] or 's10'}"


def find_runs(folder: Path) -> list[PaperRun]:
    """The finished runs below a folder that name a row, patch runs inside whole-image runs included, by path.

    Raises:
        BadCheckpoint: the folder does not exist, or a run's files cannot be read.
    """
    if not folder.is_dir():
        raise BadCheckpoint(f'--runs: there is no folder "{folder}"; name the one that holds the run folders.')
    folders = [path.parent for path in sorted(folder.rglob("metrics.json"))]
    runs = [_read(path) for path in folders if (path / "config.json").is_file()]
    return [run for run in runs if run.row and not run.config.get("data", {}).get("shuffle_labels")]


def _read(folder: Path) -> PaperRun:
    """A run folder, finished or not."""
    read = {}
    for name in ("config.json", "metrics.json"):
        try:
            read[name] = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
        except ValueError as error:
            raise BadCheckpoint(f'"{folder / name}" is not JSON; finish that run again, or move its folder.') from error
    saved = read["config.json"]
    if not {"config", "facts"} <= saved.keys():
        raise BadCheckpoint(f'"{folder / "config.json"}" is no run\'s; move it out of the folder of runs.')
    row = saved["config"].get("row", "").replace("/s10", "")  # the patch set that needs no saying
    return PaperRun(folder, row, saved["config"], saved["facts"], read["metrics.json"])


def nearest(runs: Iterable[PaperRun], row: str, data: str, patients: int = 0) -> list[PaperRun]:
    """The runs of a row that are nearest to the paper's, all of one status; never several data sets or sizes."""
    groups: dict[str, list[PaperRun]] = {}
    for run in runs:
        if run.row == row and run.patients == patients:
            groups.setdefault(run.status(data), []).append(run)
    if not groups:
        return []
    return groups[min(groups, key=lambda status: (status.startswith("run on "), status != "run", len(status), status))]
