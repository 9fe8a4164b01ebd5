"""`train_patients.txt` lists the patients a run was trained on, and those of every run that it started from.

A patient is named by data set and id, as two data sets may use the same ids: "cbis_ddsm", "inbreast", "manifest"
(equal ids in two manifests mean the same patient, so that a manifest may grow), a phantom with its seed.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from mammojax.data import dataset
from mammojax.data.recipe import PHANTOMS, Recipe
from mammojax.errors import BadCheckpoint, BadDataset, NotPrepared
from mammojax.train import checkpoint
from mammojax.train.checkpoint import TRAIN_PATIENTS, read_config


class TrainPatients(NamedTuple):
    """(data set, patient id), with "" if a file names no data set; `missing`: runs whose patients are unknown."""

    patients: set[tuple[str, str]]
    missing: list[Path]


def write(workdir: Path, config: ml_collections.ConfigDict, data: dataset.Prepared, starts: Iterable[Path]) -> None:
    """Write train_patients.txt, a line "data set, tab, patient id" for each patient of the run and of its `starts`."""
    own = {(_name(config), patient) for patient in _trained_on(config, data)}
    learned = own.union(*(read(start).patients for start in starts))
    (workdir / TRAIN_PATIENTS).write_text("".join(f"{name}\t{patient}\n" for name, patient in sorted(learned)))


def read(run: Path) -> TrainPatients:
    """The patients that a run and those it started from were trained on.

    For run folders older than this file, the patients come from the run's data set, if that still exists, and from the
    runs that its config names.

    Raises:
        BadCheckpoint: the folder is not a run.
    """
    return _read(run, set())


def _read(run: Path, visited: set[Path]) -> TrainPatients:
    visited.add(run.resolve())
    config, facts = read_config(run)
    if facts.get("name") == "nyu":  # converted published weights, of a hospital's own patients
        return TrainPatients(set(), [])
    if "learned_from" in facts:  # converted published weights, of a public data set
        return TrainPatients(set(), [run])
    patients, missing = set(), []
    if (listed := checkpoint.train_patients(run)) is not None:
        if all(name for name, _ in listed):
            return TrainPatients(listed, [])
        patients = listed  # only the run's own
    else:
        try:
            patients = {(_name(config), patient) for patient in _trained_on(config, dataset.of_run(run))}
        except (NotPrepared, BadDataset, AttributeError, KeyError):
            missing.append(run)
    named = [Path(config[field]) for field in ("init_from", "patch_run") if config.get(field, "")]
    for start in (*named, run / "patch", run / "birads", run / "single_view"):
        if start in named and not (start / "config.json").is_file():
            missing.append(start)
        elif (start / "config.json").is_file() and start.resolve() not in visited:
            before = _read(start, visited)
            patients, missing = patients | before.patients, missing + before.missing
    return TrainPatients(patients, missing)


def refuse(starts: Iterable[Path], config: ml_collections.ConfigDict, data: dataset.Prepared) -> None:
    """Refuse starts that were trained on patients of this data set's validation or test split.

    Wu et al. 2019, section IV-C: "we used the same train-validation-test splits for pretraining our BI-RADS
    classification model […], so no data leakage across splits was possible". For exams equal ids are enough to refuse,
    for mammograms the data set must be the same too. A start of mammograms whose patients are unknown is accepted with
    a printed line.

    Args:
        starts: run folders.
        config, data: of the run that starts.

    Raises:
        BadCheckpoint: a start was trained on such patients, or, for exams, its patients are unknown.
    """
    refuse_patients(starts, config, {row["patient_id"] for split in ("val", "test") for row in data.table(split)})


def refuse_patients(starts: Iterable[Path], config: ml_collections.ConfigDict, ours: set[str]) -> None:
    """`refuse` of a run with these validation and test patients, before its data set is prepared."""
    exams = config.model.task in ("exam", "exam_patch")
    for run in starts:
        learned, missing = read(run)
        if _published(run) == config.data.name:
            raise BadCheckpoint(
                f'"{run}" are published weights that have learned from the official training patients of this data set,'
                " from whom its validation patients are drawn; start on other data, or measure them as they are:"
                " mammojax predict, mammojax matrix."
            )
        if exams and not (run / TRAIN_PATIENTS).is_file() and read_config(run)[1].get("name") != "nyu":
            raise BadCheckpoint(f'"{run}" does not say whom it has learned from ({TRAIN_PATIENTS}); train it again.')
        shared = {patient for name, patient in learned if exams or name in ("", _name(config))} & ours
        if shared:
            raise BadCheckpoint(
                f'"{run}" has learned from {len(shared)} patients who stand in the validation or test split of this '
                "data set; pretrain on the same split (the same config.data.split and config.data.seed), or leave "
                "them out."
            )
        for folder in missing:
            print(f'whom "{folder}" has learned from cannot be told: its data set or folder is gone', flush=True)


def _published(run: Path) -> str:
    """The data set from which converted weights, or those that a run started from, have learned; "" for other runs."""
    visited: set[Path] = set()
    folder: Path | None = run
    while folder and folder not in visited and (folder / "config.json").is_file():
        visited.add(folder)
        config, facts = read_config(folder)
        if "learned_from" in facts:
            return str(facts["learned_from"])
        inside = next((folder / name for name in ("single_view", "patch") if (folder / name).is_dir()), None)
        folder = inside or (Path(config.init_from) if config.get("init_from", "") else None)
    return ""


def _name(config: ml_collections.ConfigDict) -> str:
    """The data set's name in `TrainPatients.patients`."""
    name: str = config.data.name
    if name not in PHANTOMS:
        return name
    return f"{name} {(config.get('phantom') or {}).get('seed', Recipe.phantom_seed)}"


def _trained_on(config: ml_collections.ConfigDict, data: dataset.Prepared) -> set[str]:
    """The patients of the training split whose labels are used: all, or `config.data.patients` of them."""
    table: list[dict[str, Any]] = data.table("train")
    chosen = config.data.get("patients", 0)
    if chosen and not config.model.get("auxiliary_classes", 0):
        table = [table[k] for k in dataset.of_patients(table, chosen, config.seed)]
    return {row["patient_id"] for row in table}
