"""A run folder belongs to one config: its config.json, and the fields that may change when the run is started again."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
from flax.traverse_util import flatten_dict

from mammojax.errors import BadConfig
from mammojax.start import parts
from mammojax.train.checkpoint import PATH_FIELDS, Latest

FREE = (
    "extend", "checkpoint_steps", "gallery", "memory", "remat", "source", "data.data_dir", "data.prepare",
    "data.source", "data.workers", "tracker",
)  # fmt: skip
"""Fields that change neither a run's weights, but for rounding, nor its metrics. Sources and folders of data may be
moved: their contents are compared by the facts of the prepared data."""
INNER = ("patch", "birads", "single_view")
"""Configs inside a config, see `start.parts`."""
NAME_LENGTH = 100


class Difference(NamedTuple):
    """A field that differs from the run's config; `grows`: `config.extend` allows it; `why`: the reason if not."""

    field: str
    old: Any
    new: Any
    grows: bool = False
    why: str = ""

    def __str__(self) -> str:
        return f"{self.field} {_text(self.old)} → {_text(self.new)}" + (f" ({self.why})" if self.why else "")


def default(file: str, argument: str, overrides: Mapping[str, Any]) -> Path:
    """The run folder if none is given: runs/<file>_<argument>, with the fields set on the command line.

    `runs/quickstart,seed=1`: two experiments never share a folder. Paths are hashed, since they may hold names, and so
    is a long list of fields. Fields that change nothing (FREE, except sources) are left out.

    Args:
        file, argument: the config file's name and the argument behind its colon: "whole_resnet", "256x1,128x1".
        overrides: the fields that were set, by their dotted names.
    """
    named = []
    for field, value in sorted(overrides.items()):
        if field in FREE and field.rpartition(".")[2] != "source":
            continue
        text = str(value)
        if field.rpartition(".")[2] in PATH_FIELDS and text:
            text = _digest(str(Path(text).expanduser().absolute()))
        elif re.search(r"[/\\~]", text):
            text = _digest(text)
        plain = re.sub(r"[^\w.+-]+", "_", text).strip("_")
        named.append(f"{field}={plain}")
    name = re.sub(r"[^\w+-]", "_", f"{file}_{argument}" if argument else file)
    if len(",".join((name, *named))) > NAME_LENGTH:
        named = [_digest(",".join(named))]
    return Path("runs") / ",".join((name, *named))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Lock the run folder: two runs in one folder would overwrite each other's files."""
    fd = os.open(workdir / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)  # CLOEXEC: loader workers must not hold it
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise BadConfig(f'"{workdir}" is in use by another run; wait for it or give another --workdir.') from None
    try:
        yield
    finally:
        os.close(fd)


def check(workdir: Path, config: ml_collections.ConfigDict, facts: Mapping[str, Any] | None = None) -> list[Difference]:
    """Refuse to go on in a folder whose run has another config; before the first checkpoint any config fits.

    A field that the saved config lacks comes from a later version of this code and is not compared; whole stages and
    inner runs are. `facts` are those of the prepared data.

    Returns:
        The fields that `config.extend` lets grow: epochs of the stage that the run is in and of later ones,
        bootstrap_runs.

    Raises:
        BadConfig: names the fields that differ.
    """
    if not _trained(workdir):
        return []
    saved = json.loads((workdir / "config.json").read_text())
    changed = _differences(saved["config"], json.loads(config.to_json_best_effort()), workdir)
    theirs, ours = (
        flatten_dict(tree, sep=".") for tree in (saved.get("facts", {}), json.loads(json.dumps(facts or {})))
    )
    changed += [
        Difference(f"the data set's {name}", theirs[name], ours[name])
        for name in theirs
        if name in ours and theirs[name] != ours[name]
    ]
    grows = all(difference.grows for difference in changed)
    if not changed or (config.get("extend", False) and grows):
        return changed
    remedy = "give another --workdir"
    if grows:
        remedy += ", or --config.extend=True to go on with this run"
    raise BadConfig(f'"{workdir}" holds a run of another config: {", ".join(map(str, changed))}; {remedy}.')


def write(workdir: Path, config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> None:
    """Write config.json, once, and versions.json: the config, and the versions it runs with.

    If the run is extended, config.json gets the grown fields, and the shorter run's results (metrics.json, report.html)
    are removed, so that the run does not pass for finished.

    Raises:
        BadConfig: the folder's run has another config, see `check`.
    """
    grown = check(workdir, config, facts)
    file = workdir / "config.json"
    if not _trained(workdir):
        saved = {"config": json.loads(config.to_json_best_effort()), "facts": facts}
        if "extend" in saved["config"]:
            saved["config"]["extend"] = False  # a flag of this start, not of the run
        file.write_text(json.dumps(saved, indent=2) + "\n")
    elif grown:
        saved = json.loads(file.read_text())
        for difference in grown:
            *path, last = difference.field.split(".")
            inner = saved["config"]
            for key in path:
                inner = inner[key]
            inner[last] = difference.new
        for name in ("metrics.json", "report.html", "model_card.md", "calibration.json"):
            (workdir / name).unlink(missing_ok=True)
        file.write_text(json.dumps(saved, indent=2) + "\n")
    (workdir / "versions.json").write_text(json.dumps(_versions(), indent=2) + "\n")


def _trained(workdir: Path) -> bool:
    """Whether the folder holds checkpoints or results of a run.

    Raises:
        BadConfig: it does, but its config.json is gone.
    """
    has_results = any((workdir / name).exists() for name in ("checkpoints/best", "metrics.json", "report.html"))
    has_results = has_results or any(path.name.isdigit() for path in (workdir / "checkpoints" / "latest").glob("*"))
    if has_results and not (workdir / "config.json").is_file():
        raise BadConfig(
            f'"{workdir}" holds checkpoints or results of a run, but no config.json that says of which; give another '
            "--workdir, or remove that folder."
        )
    return has_results


def _differences(old: dict[str, Any], new: dict[str, Any], workdir: Path) -> list[Difference]:
    """The fields that count and differ between two configs."""
    used = {
        name
        for config in (old, new)
        for name in parts(ml_collections.ConfigDict({"init_from": "", "patch_run": ""} | config))
    }
    a, b = ({**flatten_dict(config, sep="."), **dict.fromkeys(_blocks(config), "there")} for config in (old, new))
    for block in sorted({*_blocks(old), *_blocks(new)}):
        for config in (a, b):
            config.setdefault(block, "absent")
    changed = []
    for field in (field for field in a if field in b and a[field] != b[field]):
        top, _, inner = field.partition(".")
        if top in INNER and (top not in used or (inner and (top in old) != (top in new))):
            continue  # a finished run is named instead, or the whole inner run is reported absent
        own = inner if top in used else field
        if own in FREE or (own.rpartition(".")[2] in PATH_FIELDS and _same_path(a[field], b[field])):
            continue
        why = None
        if own == "bootstrap_runs":
            why = "" if b[field] > a[field] else "it can only grow"
        elif re.fullmatch(r"stages\.\w+\.epochs", own):
            if top in used:
                why = "this run has started from that one"
            else:
                why = _why_not(field.split(".")[1], a[field], b[field], old["stages"], workdir)
        changed.append(Difference(field, a[field], b[field], why == "", why or ""))
    return changed


def _blocks(config: dict[str, Any]) -> list[str]:
    """The inner runs and all stages of a config, which a start must not gain or lose."""
    inner = [name for name in INNER if name in config]
    stages = [f"stages.{key}" for key in config.get("stages", {})]
    return [*inner, *stages, *(f"{name}.{stage}" for name in inner for stage in _blocks(config[name]))]


def _why_not(key: str, old: int, new: int, stages: dict[str, Any], workdir: Path) -> str:
    """Why a stage cannot go from `old` to `new` epochs; "" if the run then equals one started with `new` epochs."""
    if new < old:
        return "a stage can only grow"
    host = Latest(workdir).host()
    if host is None:
        return "there is no checkpoints/latest to go on from"
    place = sorted(stages).index(key)
    if host["stage"] > place:
        return "the run is past that stage"
    if host["stage"] == place and stages[key]["schedule"] != "constant":
        return f"a {stages[key]['schedule']} stage of that length would have had other rates from its first step"
    return ""


def _same_path(a: str, b: str) -> bool:
    return bool(a and b) and Path(a).expanduser().resolve() == Path(b).expanduser().resolve()


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _versions() -> dict[str, Any]:
    """The versions, commit and devices that a run uses."""
    names = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "pydicom", "numpy", "mammojax")
    packages = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "python": platform.python_version(),
        "packages": packages,
        "git_commit": commit,
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
    }
