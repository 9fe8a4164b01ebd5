"""A finished run beside the row of a paper's table that it fills: what is measured of it, and what is not the paper's.

Runs name their row in `config.row`, which the files of configs/ set. Whatever differs from that row's own config
(`paper_config`), in a run or in one that it started from, is told by its status; controls with shuffled labels are left
out.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammojax.errors import BadCheckpoint
from mammojax.evaluate import paper_config, shen2019
from mammojax.train.checkpoint import read_config

NOT_AT_HAND = "the run it started from is not at hand"
FOREST = {"trees": 500, "depth": 9, "min_split": 300}
"""The two-step forest's settings (Shen et al. 2019, "two-step approach")."""


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
        """ "run" where data set, split, framing, the whole config and the start are the row's, else what differs."""
        differs = self.deviations(data)
        elsewhere = [text for text in differs if text.startswith("on ")]
        others = [text for text in differs if text not in elsewhere]
        return " ".join(["run", *elsewhere]) + (f" ({', '.join(others)})" if others else "")

    def deviations(self, data: str, row: str = "") -> list[str]:
        """What is not the paper's about this run, "on <data set>" first; `data` is the row's data set, `row` the one to
        compare with where it is not the run's own."""
        framing = self.facts["framing"]
        size = tuple(framing["size"])
        tests = [
            (self.facts["name"] != data, f"on {self.facts['name']}"),
            (size != (1152, 896), f"{size[0]}x{size[1]}"),
            (framing["crop"] != "none", "cropped"),
            (framing["keep_aspect"], "aspect kept"),
            (self.facts["split"] != "shen", f"split {self.facts['split']}"),
        ]
        found = [text for differs, text in tests if differs]
        if self.row == "two_step":  # nothing of it is trained by gradient
            forest = self.config["two_step"]
            found += [f"{field.replace('_', ' ')} {forest[field]}" for field, value in FOREST.items()
                      if forest.get(field, value) != value]  # fmt: skip
        else:
            found += paper_config.differences(self.config, row or self.row)
        return found + [text for text in self._start() if text.removeprefix("start ") not in found]

    def _start(self) -> list[str]:
        """What is not the paper's about the weights it began with."""
        init_from, pretrained = self.config["init_from"], self.config["model"]["pretrained"]
        if self.config["model"]["task"] == "patch":
            found = ["started from another run"] if init_from else []
            if self.row.endswith("-random"):
                return found + ["from pretrained weights"] * bool(pretrained)
            return found + ["not from ImageNet weights"] * (not pretrained)
        if self.row == "two_step":
            folder = Path(named) if (named := self.config["two_step"].get("patch_run")) else None
        else:
            folder = started_from(self.path, init_from)
            if folder is None and "patch" not in self.config:
                return ["not from a patch classifier"] + ["not from ImageNet weights"] * (not pretrained)
        if folder is None or not (folder / "config.json").is_file() or folder.resolve() == self.path.resolve():
            return [NOT_AT_HAND]
        before = read(folder)
        wanted = starts_from(self.row)
        found = [] if before.row == wanted else [f"started from {before.row or 'no row'}"]
        found += before.deviations("cbis_ddsm", "" if paper_config.of_row(before.row) else wanted)
        return [text if text.startswith(("start", "not ", "the run")) else f"start {text}" for text in found]


def exam_deviations(run: PaperRun) -> list[str]:
    """What is not the paper's about an exam or BI-RADS run and those it came from; its data set is said apart."""
    own = exam_settings(run)
    before = _exam_start(run) + _heatmaps(run)
    return own + [text for text in before if text.removeprefix("start ").removeprefix("patch ") not in own]


def exam_settings(run: PaperRun) -> list[str]:
    """What is not the row's own about a run's config, and the split of its data."""
    split = run.facts.get("split", "shen")
    return paper_config.differences(run.config, run.row) + [f"split {split}"] * (split != "shen")


def _exam_start(run: PaperRun) -> list[str]:
    """What is not the paper's about the weights that an exam run began with."""
    start = started_from(run.path, run.config.get("init_from") or "", "birads")
    if run.row.startswith("birads") or run.row.endswith("-scratch"):
        return ["started from another run"] if start else []
    if not start:
        return ["no BI-RADS pretraining"]
    if not (start / "config.json").is_file():
        return [NOT_AT_HAND]
    before = read(start)
    if not before.row.startswith("birads"):
        return [f"started from {before.row or 'no row'}"]
    found = [f"on {before.facts['name']}"] if before.facts["name"] != run.facts["name"] else []
    return [f"start {text}" for text in found + exam_settings(before)]


def _heatmaps(run: PaperRun) -> list[str]:
    """What is not the row's about the patch network that made an exam run's heatmaps; the published one is."""
    if "+heatmaps" not in run.row or "patch_run" not in run.config:
        return []
    folder = started_from(run.path, run.config["patch_run"])
    if folder is None or not (folder / "config.json").is_file():
        return ["the patch run is not at hand"]
    net = read(folder)
    if net.facts["name"] == "nyu":
        return []
    if net.row != "exam_patch":
        return [f"patch network of {net.row or 'no row'}"]
    found = [f"on {net.facts['name']}"] if net.facts["name"] != run.facts["name"] else []
    found += exam_settings(net) + ["not from ImageNet weights"] * (not net.config["model"]["pretrained"])
    return [f"patch {text}" for text in found]


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


def starts_from(row: str) -> str:
    """The row that a whole-image, INbreast or two-step row starts from."""
    kind, _, argument = row.partition(":")
    if kind == "two_step":
        return "patch_resnet:s10"
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
    runs = [read(path) for path in folders if (path / "config.json").is_file()]
    return [run for run in runs if run.row and not run.config.get("data", {}).get("shuffle_labels")]


def read(folder: Path) -> PaperRun:
    """A run folder, finished or not.

    Raises:
        BadCheckpoint: its files cannot be read.
    """
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
