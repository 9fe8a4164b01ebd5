"""One experiment from its config: data → start → train → score → report."""

import argparse
import contextlib
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections

from mammojax import arguments, compilation, config_values, plan, processes, run_folder, start, tasks, train_patients
from mammojax.data.dataset import ASIDE, Prepared, find, of_run, set_aside
from mammojax.data.prepare import prepare
from mammojax.data.recipe import PHANTOMS, Recipe
from mammojax.errors import BadConfig, BadDataset, Diverged
from mammojax.evaluate import report
from mammojax.train import loop, mesh, stages
from mammojax.train.checkpoint import restore_best
from mammojax.train.state import abstract_variables


def run(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Train, evaluate and report one experiment; started again, it goes on where it stopped.

    Args:
        config: as the files of configs/ make it.
        workdir: the run folder; docs/architecture.md describes its contents.

    Returns:
        The contents of `metrics.json`.

    Raises:
        UserError: with a sentence for the user; Stopped after SIGTERM.
    """
    compilation.keep()
    processes.refuse_different(f"{workdir.absolute()} {config.to_json_best_effort()}")
    config = check(config)
    with contextlib.ExitStack() as locks:
        with processes.in_turn() as is_first:
            if is_first:
                workdir.mkdir(parents=True, exist_ok=True)
                locks.enter_context(run_folder.lock(workdir))
            run_folder.check(workdir, config)
        return experiment(config, workdir, dataset(config, workdir))


def experiment(
    config: ml_collections.ConfigDict, workdir: Path, data: Prepared, aside: set[str] | None = None
) -> dict[str, Any]:
    """Run a checked experiment on its prepared data, in a locked folder; see `run`.

    `aside` are validation patients that choose no epoch, for a run inside another; None: those of config.calibration.
    """
    task = tasks.of(config.model.task)
    if aside is None:
        aside = set_aside(data, config.get("calibration", 0.0), config.seed)
    starts = {field: folder for field in start.starts(config) if (folder := _start(config, field, workdir, aside))}
    train_patients.refuse(starts.values(), config, data)
    with processes.in_turn() as is_first:
        facts = task.facts(config, data, starts)
        if is_first:
            run_folder.write(workdir, config, facts | {"folder": data.path.parent.name})
            train_patients.write(workdir, config, data, starts.values())
            if aside:
                (workdir / ASIDE).write_text("".join(f"{patient}\n" for patient in sorted(aside)))
    choosing = {row["patient_id"] for row in data.table("val")} - aside
    if aside and not choosing:
        raise BadDataset(
            f"config.calibration leaves no validation patient of {config.data.kind}; take a smaller share."
        )
    model = task.network(config.model)
    variables = start.variables(config, model, task.sizes(config, config.data), starts.get("init_from"))
    batches = task.batches(config, workdir, data, facts)
    score = task.score(config, data, facts, variables)

    def validate(variables: Any) -> dict[str, float]:
        scored = score(variables, "val", "none")
        return task.summary(config, task.only(scored, data, "val", choosing) if aside else scored)

    loop.train(config, model, variables, batches, validate, workdir, task.loss(config, facts))

    _, _, best = restore_best(workdir)
    scored = {
        split if tta == "none" else f"{split}_{tta}": (split, score(best, split, tta))
        for tta, split in itertools.product(task.ttas(config), ("val", "test"))
    }
    file = workdir / "metrics.json"
    with processes.in_turn() as is_first:
        if is_first:
            results = {
                name: task.measure(config, workdir, name, predictions, data, split)
                for name, (split, predictions) in scored.items()
            }
            file.write_text(json.dumps(results, indent=2, sort_keys=True, allow_nan=False) + "\n")
            task.report(config, workdir, data, scored["test"][1], _notes(config))
            _print_table(results, workdir / "report.html")
    return results if is_first else json.loads(file.read_text())


def evaluate(workdir: Path, split: str, tta: str) -> dict[str, Any]:
    """Score and measure a split of a finished run's data set; nothing is written into the run's folder."""
    config, facts, best = restore_best(workdir)
    task, data = tasks.of(config.model.task), of_run(workdir)
    predictions = task.score(config, data, facts, best)(best, split, tta)
    with tempfile.TemporaryDirectory() as folder:
        return task.measure(config, Path(folder), split, predictions, data, split)


def check(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Refuse a config that cannot work, before anything is prepared; return it with the settings of its starts."""
    if config.data.name not in PHANTOMS and config.data.prepare and not config.data.source:
        raise BadConfig("the source of the data is empty; give the folder or manifest: --config.data.source=DIR.")
    config = start.settle(config)
    for part in _with_inner(config):
        config_values.refuse(part)
        task, of_part = tasks.of(part.model.task), stages.from_config(part.stages)
        try:
            size = task.sizes(part, config.data)
            shapes = abstract_variables(task.network(part.model), size, part.model.channels)
        except BadConfig:
            raise
        except ValueError as error:
            raise BadConfig(f"config.{error}") from None
        for stage in of_part:
            stages.labels(stage, shapes["params"])
        _check_parts(part, of_part)
        mesh.of_config(part)
        if processes.several():
            _refuse_alone(part, of_part)
    if config.get("memory", ""):
        _fit(config, config.memory, "config")
    return config


def _check_parts(config: ml_collections.ConfigDict, of_config: list[stages.Stage]) -> None:
    """Refuse a batch that cannot go through the network in config.accumulate or config.exact_devices parts."""
    parts = config.get("accumulate", 1)
    batches = [config.batch] + ([config.auxiliary.batch] if config.model.get("auxiliary_classes", 0) else [])
    if parts < 1 or any(batch % parts for batch in batches):
        raise BadConfig(f"config.accumulate is {parts}, which does not divide the batch of {batches[-1]}.")
    if parts > 1 and any(stage.cache for stage in of_config):
        raise BadConfig("config.accumulate and a stage's cache exclude each other; write accumulate=1 or cache=0.")
    exact = config.get("exact_devices", 0)
    if exact < 0 or any(exact and batch % exact for batch in batches):
        raise BadConfig(f"config.exact_devices is {exact}, which does not divide the batch of {batches[-1]}.")
    others = {"accumulate": parts > 1, "bands": config.get("bands", 1) > 1, "memory": config.get("memory", ""),
              "stages.STAGE.cache": any(stage.cache for stage in of_config)}  # fmt: skip
    if exact and (wrong := next((name for name, is_set in others.items() if is_set), "")):
        raise BadConfig(
            f"config.exact_devices and config.{wrong} exclude each other, as the sum of a batch would depend on the "
            "devices again; set only one of them."
        )


def _refuse_alone(config: ml_collections.ConfigDict, of_config: list[stages.Stage]) -> None:
    """Refuse what only a single process can do."""
    for stage in of_config:
        if stage.cache:
            raise BadConfig(
                f"config.stages.{stage.key}.cache keeps outputs in one process; write 0, or start one process."
            )
    if config.model.task == "exam" and config.exam.random == "published":
        raise BadConfig(
            'config.exam.random="published" draws all windows one after the other in one process; write "exam", or '
            "start one process."
        )


def _fit(config: ml_collections.ConfigDict, memory: str, name: str) -> None:
    """Set remat and accumulate of a config and of the runs inside it, see `plan.fit`."""
    try:
        limit = arguments.memory(memory)
    except argparse.ArgumentTypeError as error:
        raise BadConfig(f"config.memory: {error}.") from None
    for inner in start.parts(config):
        own = start.part(config, inner, Path())
        plan.fit(own, limit, f"{name}.{inner}")
        with config.unlocked():
            config[inner].remat, config[inner].accumulate = own.remat, own.accumulate
    with config.unlocked():
        plan.fit(config, limit, name)


def _with_inner(config: ml_collections.ConfigDict) -> Iterator[ml_collections.ConfigDict]:
    """A config and the runs inside it that are trained before it, and those inside them."""
    yield config
    for name in start.parts(config):
        yield from _with_inner(config[name])


def check_folder(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """`check` a run and, if it exists, its folder: for several runs, before the first one starts.

    Raises:
        BadConfig: the config cannot work, or the folder holds a run of another one or is in use.
    """
    config = check(config)
    if workdir.is_dir():
        with run_folder.lock(workdir):
            run_folder.check(workdir, config)


def dataset(config: ml_collections.ConfigDict, workdir: Path) -> Prepared:
    """The prepared data set of a config; prepared on demand if the config says so."""
    recipe = Recipe.of_run(config, workdir)
    if config.data.prepare:
        kinds = [part.data.kind for part in _with_inner(config)]
        if config.model.get("auxiliary_classes", 0):
            kinds.append(config.auxiliary.kind)
        with processes.in_turn() as is_first:
            if is_first:
                prepare(recipe, kinds, config.data.workers)
    return find(recipe)


def _start(config: ml_collections.ConfigDict, field: str, workdir: Path, aside: set[str]) -> Path | None:
    """The run that a network starts from or takes heatmaps from: the one that a field names, or the one inside the
    config, trained now in WORKDIR/<name>; None without either."""
    name = start.starts(config)[field]
    if config[field]:
        return Path(config[field])
    if name not in config:
        return None
    part, folder = start.part(config, name, workdir), workdir / name
    grown = run_folder.check(folder, part)
    if (folder / "report.html").is_file() and not grown:  # a run writes it last
        return folder
    folder.mkdir(exist_ok=True)
    print(f"{name} network → {folder}", flush=True)
    try:
        experiment(part, folder, dataset(part, folder), aside)
    except Diverged as error:  # the field as the user types it
        raise Diverged(error.event, error.field.replace("config.", f"config.{name}.", 1)) from None
    print(f"{config.model.task} network → {workdir}", flush=True)
    return folder


def _notes(config: ml_collections.ConfigDict) -> list[str]:
    """Notes for the reader of the report on how to judge its numbers."""
    notes = ["Thresholds were not fitted; operating points are read on the split they are printed for."]
    if config.data.name in PHANTOMS:
        notes.append("Synthetic mammograms: a software check, not a clinical result.")
    return notes


def _print_table(results: dict[str, Any], page: Path) -> None:
    """Print a short table of the results."""
    print(f"\n{'':<34}{'val':<40}  test")
    for name, value in results["test"].items():
        if isinstance(value, dict):
            values = [results[split].get(name) for split in ("val", "test")]  # a split may lack one of the classes
            cells = [report.with_counts(value) for value in values]
            print(f"{name:<34}{cells[0]:<40}  {cells[1]}")
    print(f"n: how many of each class, negatives first\n\nreport: {page}", flush=True)
