"""Where scores come from: what every file that leaves a run says of its network, its training data and its use."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mammojax.train.checkpoint import read_config, train_patients

USE = "Research use only; not a medical device."
_TASKS = {
    "patch": "patch classifier", "exam_patch": "patch classifier of exams", "whole": "whole-image classifier",
    "two_view": "two-view classifier", "exam": "exam network",
}  # fmt: skip


def of_run(run: Path) -> dict[str, Any]:
    """What a run's network is and what it has learned from, without paths and patients.

    Returns:
        "run": the folder's name; "model": the network in words; "trained_on": names of data sets, those of the runs and
        files it started from too; "train_examples": the number of its training examples by class, None where the run
        does not say; "config_sha256": of the config in config.json; "mammojax": the version that says this; "use".

    Raises:
        BadCheckpoint: the folder is not a run.
    """
    config, facts = read_config(run)
    model = config.model
    parts = [_TASKS.get(model.task, model.task)]
    parts += [str(model[field]) for field in ("join", "trunk") if field in model]
    parts += [f"head {model.head}"] if model.task in ("whole", "two_view") else []
    text = json.dumps(json.loads((Path(run) / "config.json").read_text())["config"], sort_keys=True)
    return {
        "run": Path(run).resolve().name,
        "model": ", ".join(parts),
        "trained_on": _data_sets(run, config, facts),
        "train_examples": facts.get("counts", {}).get("train"),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "mammojax": importlib.metadata.version("mammojax"),
        "use": USE,
    }


def _data_sets(run: Path, config: Any, facts: dict[str, Any]) -> list[str]:
    """The data set of the run, with the name of its prepared folder, and those of the runs and files before it."""
    name = facts.get("learned_from", facts.get("name", "unknown"))
    folder = facts.get("folder", "")
    names = [f"{name} ({folder})" if folder else str(name)]
    earlier = {other for other, _ in train_patients(Path(run)) or () if other}
    names += sorted(other for other in earlier if other.split(" ")[0] != name)
    if pretrained := config.model.get("pretrained", ""):
        names.append(f"weights {Path(pretrained).name}")
    return names


def sentence(facts: Mapping[str, Any]) -> str:
    """`of_run` in a line for a console, a picture or a header."""
    learned = ", ".join(facts["trained_on"])
    return f"{facts['run']}: {facts['model']}; learned from {learned}; config {facts['config_sha256'][:12]}. {USE}"


def label(origins: Sequence[Mapping[str, Any]]) -> str:
    """`of_run` of the networks of an ensemble in a cell of a table."""
    runs = ", ".join(f"{origin['run']} (config {origin['config_sha256'][:12]})" for origin in origins)
    learned = ", ".join(dict.fromkeys(name for origin in origins for name in origin["trained_on"]))
    return f"{runs}; learned from {learned}; research use only"


def write(path: Path, origins: Sequence[Mapping[str, Any]], /, **more: Any) -> None:
    """Write `of_run` of some runs, and what else is to be said, as JSON beside an output."""
    contents = {"use": USE, "runs": list(origins), **more}
    path.write_text(json.dumps(contents, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
