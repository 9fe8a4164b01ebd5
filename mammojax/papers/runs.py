"""A finished run that fills a row of a paper's table: its metrics, and its deviations from the paper.

Runs name their row in `config.row`, which the files of configs/ set. The status of a run lists every difference from
that row's own config (`settings`), in the run or in one that it started from; controls with shuffled labels are left
out.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mammojax.errors import BadCheckpoint
from mammojax.papers import settings
from mammojax.train.checkpoint import started_from

NOT_AT_HAND = "the run it started from is not at hand"
FOREST = {"trees": 500, "depth": 9, "min_split": 300}
"""The two-step forest's settings (Shen et al. 2019, "two-step approach")."""
PLAIN = "512-512-1024x2,512-512-1024x2"
"""The head of most of Shen et al.'s networks."""
TRANSFERRED = {
    "inbreast:resnet-resnet": f"whole_resnet:{PLAIN}",
    "inbreast:resnet-vgg": "whole_resnet:256x1,128x1",
    "inbreast:vgg-vgg": "whole_vgg:256x1,128x1+200",
    "inbreast:vgg-resnet": f"whole_vgg:{PLAIN}+200",
}
"""The whole-image rows that rows of INbreast start from: Shen et al.'s four best."""


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
        """Epoch of the best checkpoint, counted through all stages; None without gradient training."""
        log = self.path / "metrics.jsonl"
        if not log.is_file():
            return None
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        best = [k for k, row in enumerate((r for r in rows if r["kind"] == "val"), start=1) if row["best"]]
        return best[-1] if best else None

    def deviations(self, data: str, row: str = "") -> list[str]:
        """The run's deviations from the paper, "on <data set>" first; `data` is the row's data set, `row` the row to
        compare with if it is not the run's own."""
        framing = self.facts["framing"]
        size = tuple(framing["size"])
        tests = [
            (self.facts["name"] != data, f"on {self.facts['name']}"),
            (size != (1152, 896), f"{size[0]}x{size[1]}"),
            (framing["crop"] != "none", "cropped"),
            (framing["keep_aspect"], "aspect kept"),
            (self.facts["split"] != "shen", f"split {self.facts['split']}"),
        ]
        differences = [text for differs, text in tests if differs]
        if self.row == "two_step":  # a forest, without gradient training
            forest = self.config["two_step"]
            differences += [f"{field.replace('_', ' ')} {forest[field]}" for field, value in FOREST.items()
                      if forest.get(field, value) != value]  # fmt: skip
        else:
            differences += settings.differences(self.config, row or self.row)
        return differences + [text for text in self._start() if text.removeprefix("start ") not in differences]

    def _start(self) -> list[str]:
        """The deviations of the weights that the run started from."""
        init_from, pretrained = self.config["init_from"], self.config["model"]["pretrained"]
        if self.config["model"]["task"] == "patch":
            differences = ["started from another run"] if init_from else []
            if self.row.endswith("-random"):
                return differences + ["from pretrained weights"] * bool(pretrained)
            return differences + ["not from ImageNet weights"] * (not pretrained)
        if self.row == "two_step":
            folder = Path(named) if (named := self.config["two_step"].get("patch_run")) else None
        else:
            folder = started_from(self.path, init_from)
            if folder is None and "patch" not in self.config:
                return ["not from a patch classifier"] + ["not from ImageNet weights"] * (not pretrained)
        if folder is None or not (folder / "config.json").is_file() or folder.resolve() == self.path.resolve():
            return [NOT_AT_HAND]
        before = read(folder)
        start_row = starts_from(self.row)
        differences = [] if before.row == start_row else [f"started from {before.row or 'no row'}"]
        differences += before.deviations("cbis_ddsm", "" if settings.of_row(before.row) else start_row)
        return [text if text.startswith(("start", "not ", "the run")) else f"start {text}" for text in differences]


def exam_deviations(run: PaperRun) -> list[str]:
    """The deviations of an exam or BI-RADS run and of those it started from, without its data set."""
    own = exam_settings(run)
    before = _exam_start(run) + _heatmaps(run)
    return own + [text for text in before if text.removeprefix("start ").removeprefix("patch ") not in own]


def exam_settings(run: PaperRun) -> list[str]:
    """The deviations of a run's config from its row's, and of the split of its data."""
    split = run.facts.get("split", "shen")
    return settings.differences(run.config, run.row) + [f"split {split}"] * (split != "shen")


def _exam_start(run: PaperRun) -> list[str]:
    """The deviations of the weights that an exam run started from."""
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
    differences = [f"on {before.facts['name']}"] if before.facts["name"] != run.facts["name"] else []
    return [f"start {text}" for text in differences + exam_settings(before)]


def _heatmaps(run: PaperRun) -> list[str]:
    """The deviations of the patch network that made an exam run's heatmaps; the published network has none."""
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
    differences = [f"on {net.facts['name']}"] if net.facts["name"] != run.facts["name"] else []
    differences += exam_settings(net) + ["not from ImageNet weights"] * (not net.config["model"]["pretrained"])
    return [f"patch {text}" for text in differences]


def starts_from(row: str) -> str:
    """The row that a whole-image, INbreast or two-step row starts from."""
    kind, _, argument = row.partition(":")
    if kind == "two_step":
        return "patch_resnet:s10"
    if kind == "inbreast":
        return TRANSFERRED.get(row, argument)
    return f"{kind.replace('whole', 'patch')}:{argument.partition('/')[2].partition('+')[0] or 's10'}"


def find_runs(folder: Path) -> list[PaperRun]:
    """The finished runs below a folder that name a row, sorted by path; patch runs inside whole-image runs too.

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
    row = saved["config"].get("row", "").replace("/s10", "")  # the default patch set, which row names leave out
    return PaperRun(folder, row, saved["config"], saved["facts"], read["metrics.json"])


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs of one row that deviate from the paper in the same way."""

    deviations: tuple[str, ...]
    runs: list[PaperRun]

    @property
    def status(self) -> str:
        """See `status`."""
        return status(self.deviations)


def settings_of(runs: Iterable[PaperRun], row: str, deviations: Callable[[PaperRun], list[str]]) -> list[Setting]:
    """The runs of a row, grouped by their deviations; a group never mixes data sets or sizes."""
    groups: dict[tuple[str, ...], list[PaperRun]] = {}
    for run in runs:
        if run.row == row:
            groups.setdefault(tuple(deviations(run)), []).append(run)
    return [Setting(*setting) for setting in groups.items()]


def status(deviations: Sequence[str]) -> str:
    """ "run" where data set, split, framing, config and start are the row's, else with the deviations."""
    elsewhere = [text for text in deviations if text.startswith("on ")]
    others = [text for text in deviations if text not in elsewhere]
    return " ".join(["run", *elsewhere]) + (f" ({', '.join(others)})" if others else "")
