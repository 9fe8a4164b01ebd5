"""One experiment from its config: data → stages → evaluation → report."""

import itertools
import json
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from mammojax import exam_run, run_folder, train_patients
from mammojax.data import classes, pipeline, prepared
from mammojax.errors import (
    BadConfig,
    Diverged,
)
from mammojax.evaluate import heatmap, measure, paper_run, predict, report
from mammojax.models import classifiers, multi_view, weights
from mammojax.start import parts, settle, with_start_mean
from mammojax.train import loop, mesh, stages
from mammojax.train.checkpoint import restore_best
from mammojax.train.state import Size, abstract_variables, init_variables, transfer

Tree = Any


def run(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Train, evaluate and report one experiment; started again, it goes on where it stopped.

    Args:
        config: as the files of configs/ make it.
        workdir: the run folder; what stands in it is described in docs/architecture.md.

    Returns:
        The contents of `metrics.json`.

    Raises:
        UserError with a sentence for the user; of its kinds Stopped after SIGTERM.
    """
    config = check(config)
    workdir.mkdir(parents=True, exist_ok=True)
    with run_folder.lock(workdir):
        run_folder.check(workdir, config)
        data = dataset(config, workdir)
        if config.model.task == "exam":
            return _exams(config, workdir, data)
        start = _nested(config, "patch", workdir, config.init_from) if config.model.task == "whole" else None
        return _experiment(config, workdir, data, start)


def _exams(config: ml_collections.ConfigDict, workdir: Path, data: prepared.Prepared) -> dict[str, Any]:
    """An experiment on exams; its patch network and its BI-RADS network first, where the config holds them."""
    net = _nested(config, "patch", workdir, config.patch_run) if config.model.channels == 3 else None
    start = _nested(config, "birads", workdir, config.init_from)
    starts = [folder for folder in (net, start) if folder]
    train_patients.refuse(starts, config, data)
    made = exam_run.heatmaps_of(config, data, net)
    heatmaps, digest = made or (None, "")
    _write(config, workdir, data, data.facts | ({"heatmaps": digest} if digest else {}), starts)
    variables = _start(config, multi_view.build(config.model), start)
    title = f"{config.model.join} network for {config.model.target} on {config.data.name}"
    results = exam_run.experiment(config, workdir, data, variables, heatmaps, title, _notes(config))
    _print_table(results, workdir / "report.html")
    return results


def _experiment(
    config: ml_collections.ConfigDict, workdir: Path, data: prepared.Prepared, patch_run: Path | None
) -> dict[str, Any]:
    starts = [Path(folder) for folder in (patch_run or config.init_from,) if folder]
    train_patients.refuse(starts, config, data)
    _write(config, workdir, data, with_start_mean(data.facts, patch_run or config.init_from), starts)
    model = classifiers.build(config.model)
    mean = data.facts["mean"]
    variables = _start(config, model, patch_run)
    batches = _batches(config, workdir, data)
    apply = predict.make_apply(model, mean, config.model.channels)

    def score(variables: Tree, split: str, tta: str = "none") -> dict[str, np.ndarray]:
        batches = pipeline.eval_batches(data.source(split, masks=False), batch=config.eval_batch)
        return predict.predict_split(apply, variables, batches, tta)

    def validate(variables: Tree) -> dict[str, float]:
        return measure.summary(score(variables, "val"))

    loop.train(config, model, variables, batches, validate, workdir, mean)
    _, _, best = restore_best(workdir)
    results = {}
    # A whole image is also predicted with flips averaged, the papers' "augmented" AUC; the plain test set comes last.
    ttas = ("flips", "none") if config.model.task == "whole" else ("none",)
    for tta, split in itertools.product(ttas, ("val", "test")):
        scored = score(best, split, tta)
        facts, name = data.table(split), split if tta == "none" else f"{split}_{tta}"
        predict.write_split(workdir / "predictions" / f"{name}.csv", scored, facts, data.facts["classes"])
        patients = [row["patient_id"] for row in facts]
        results[name] = measure.measure(scored, patients, runs=config.bootstrap_runs, seed=config.seed)
    (workdir / "metrics.json").write_text(json.dumps(results, indent=2, sort_keys=True, allow_nan=False) + "\n")
    gallery = []
    if config.model.task == "whole":
        gallery = _gallery(config, data, scored, paper_run.patch_run(workdir, config.init_from))
    page = report.write_report(workdir, title=_title(config), notes=_notes(config), gallery=gallery)
    _print_table(results, page)
    return results


def _write(
    config: ml_collections.ConfigDict, workdir: Path, data: prepared.Prepared, facts: dict[str, Any], starts: list[Path]
) -> None:
    """What a run folder holds before its first step: config, versions, whom it learns from."""
    run_folder.write(workdir, config, facts | {"folder": data.path.parent.name})
    train_patients.write(workdir, config, data, starts)


def _batches(
    config: ml_collections.ConfigDict, workdir: Path, data: prepared.Prepared
) -> pipeline.Batches | pipeline.Paired:
    """The endless stream a run learns from."""
    devices = mesh.data_mesh(config.batch)
    train = data.source("train", masks=False)
    if config.data.shuffle_labels:
        train = Relabelled(train, data.table("train"), config.seed)
    chosen = config.data.patients
    only = prepared.of_patients(data.table("train"), chosen, config.seed) if chosen else None
    classes.refuse_one_class(data, only)

    def stream(source: Any, batch: int, pixels: int, only: np.ndarray | None = None) -> pipeline.Batches:
        workers = pipeline.reading_processes(config.data.workers, len(source if only is None else only), pixels)
        return pipeline.train_batches(source, only=only, batch=batch, seed=config.seed, workers=workers, mesh=devices)

    batches = stream(train, config.batch, int(np.prod(np.array(_input_size(config, config.data)))), only)
    if config.model.get("auxiliary_classes", 0):
        patches = prepared.find(**{**prepared.asked_for(config, workdir), "kind": config.auxiliary.kind})
        beside = stream(patches.source("train"), config.auxiliary.batch, config.data.patch_size**2)
        return pipeline.Paired(batches, beside)
    return batches


class Relabelled:
    """A control experiment: each patient's labels replaced by another patient's, which no image can predict."""

    def __init__(self, source: Any, table: list[dict[str, str]], seed: int) -> None:
        self._source = source
        patients: dict[str, list[int]] = {}
        for row in table:
            patients.setdefault(row["patient_id"], []).append(int(row["label"]))
        names = sorted(patients)
        partner = dict(zip(names, np.random.default_rng(seed).permutation(names), strict=True))
        taken: dict[str, int] = dict.fromkeys(names, 0)
        self._labels = []
        for row in table:
            name = row["patient_id"]
            labels = patients[partner[name]]
            self._labels.append(labels[taken[name] % len(labels)])
            taken[name] += 1

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._source[index], "label": self._labels[index]}


def check(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Refuse what cannot work before anything is prepared or built; the config with what it adopts from its starts."""
    if not config.data.name.startswith("phantom") and config.data.prepare and not config.data.source:
        raise BadConfig("the source of the data is empty; give the folder or manifest: --config.data.source=DIR.")
    config = settle(config)
    for part in (config, *(config[name] for name in parts(config))):
        plan = stages.from_config(part.stages)
        try:
            model = _network(part.model)
            shapes = abstract_variables(model, _input_size(part, config.data), part.model.channels)
        except ValueError as error:
            raise BadConfig(f"config.{error}") from None
        for stage in plan:
            stages.labels(stage, shapes["params"])
    return config


def check_folder(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """`check` a run and its folder, where that is there: of several runs before the first one is started.

    Raises:
        BadConfig: the config cannot work, or the folder holds a run of another one or is in use.
    """
    config = check(config)
    if workdir.is_dir():
        with run_folder.lock(workdir):
            run_folder.check(workdir, config)


def _network(model: ml_collections.ConfigDict) -> Any:
    return multi_view.build(model) if model.task == "exam" else classifiers.build(model)


def _input_size(config: ml_collections.ConfigDict, data: ml_collections.ConfigDict) -> Size:
    """Height and width of what the network is trained on, of exams by view."""
    if config.model.task == "exam":
        return exam_run.input_sizes(config, data)
    if config.model.task == "whole":
        return tuple(data.size)
    side = data.patch_size * (2 if config.data.kind == "patches_s1g" else 1)
    return side, side


def dataset(config: ml_collections.ConfigDict, workdir: Path) -> prepared.Prepared:
    """The prepared data set of a config; made on demand where the config says so."""
    asked = prepared.asked_for(config, workdir)
    if config.data.prepare:
        kinds = [asked["kind"]]
        kinds += [config[name].data.kind for name in parts(config)]
        if config.model.get("auxiliary_classes", 0):
            kinds.append(config.auxiliary.kind)
        without = {name: value for name, value in asked.items() if name != "kind"}
        prepared.prepare(**without, kinds=tuple(kinds), workers=config.data.workers)
    return prepared.find(**asked)


def _nested(config: ml_collections.ConfigDict, name: str, workdir: Path, instead: str) -> Path | None:
    """The run that a net needs before it: the one that a field names, or config.<name>, trained now in WORKDIR/<name>.

    Whole-image nets start from a patch classifier; exam nets take heatmaps from one, and start from a BI-RADS net.
    """
    if instead:
        return Path(instead)
    if name not in config:
        return None
    part = config[name].copy_and_resolve_references()
    kind = part.data.kind
    with part.unlocked():
        part.data.update(config.data.copy_and_resolve_references())
        part.data.kind, part.data.prepare, part.seed = kind, False, config.seed
        part.extend = config.get("extend", False)
        if "phantom" in config:
            part.phantom = config.phantom
        if name == "birads" and "patch_run" in config:
            part.patch_run = config.patch_run
    if not part.data.data_dir and part.data.name.startswith("phantom"):
        part.data.data_dir = str(workdir / "data")
    folder = workdir / name
    grown = run_folder.check(folder, part)
    if (folder / "report.html").is_file() and not grown:  # what a run writes last
        return folder
    folder.mkdir(exist_ok=True)
    print(f"{name} network → {folder}", flush=True)
    data = dataset(part, folder)
    try:
        if part.model.task == "exam":
            _exams(part, folder, data)
        else:
            _experiment(part, folder, data, None)
    except Diverged as error:  # the field as the user writes it
        raise Diverged(error.what, error.field.replace("config.", f"config.{name}.", 1)) from None
    print(f"{config.model.task} network → {workdir}", flush=True)
    return folder


def _start(config: ml_collections.ConfigDict, model: Any, patch_run: Path | None) -> dict[str, Tree]:
    """Variables to start from: init_from or the patch run, else the pretrained file, else random."""
    variables = init_variables(model, _input_size(config, config.data), config.model.channels, config.seed)
    if start := patch_run or config.init_from:
        _, _, trained = restore_best(start)
        return transfer(trained, variables)
    if config.model.get("pretrained", ""):
        try:
            return weights.load(
                Path(config.model.pretrained),
                config.model.trunk,
                variables,
                input_std=tuple(config.model.pretrained_std) or None,
            )
        except (ValueError, ModuleNotFoundError) as error:
            raise BadConfig(f"config.model.pretrained: {error}") from None
    return variables


def _gallery(
    config: ml_collections.ConfigDict, data: prepared.Prepared, scored: dict[str, np.ndarray], patch_run: Path | None
) -> list[report.GalleryItem]:
    """The surest and the worst test images, each with what the patch net, where there is one, sees in it."""
    p, label = scored["scores"][:, 1], scored["label"]
    order = np.argsort(p)
    groups = {
        "surest malignant": [i for i in order[::-1] if label[i] == 1],
        "surest benign": [i for i in order if label[i] == 0],
        "malignant scored lowest": [i for i in order if label[i] == 1],
        "benign scored highest": [i for i in order[::-1] if label[i] == 0],
    }
    net = restore_best(patch_run) if patch_run else None
    source, items = data.source("test"), []
    for group, indices in groups.items():
        for i in indices[: config.gallery]:
            example = source[int(i)]
            image = example["image"]
            seen = None
            if net:
                seen = heatmap.malignant(np.asarray(heatmap.heatmap(*net, image[None])[0]), image.shape[:2])
            items.append(
                report.GalleryItem(
                    image=(image[..., 0] >> 8).astype(np.uint8),
                    heatmap=seen,
                    mask=example["masks"][..., 0],
                    caption=f"{group}: p(malignant) = {p[i]:.2f}",
                )
            )
    return items


def _title(config: ml_collections.ConfigDict) -> str:
    head = config.model.get("head", "")
    net = f"{config.model.trunk}{' + ' + head if head else ''}"
    return f"{'Whole-image' if config.model.task == 'whole' else 'Patch'} classifier {net} on {config.data.name}"


def _notes(config: ml_collections.ConfigDict) -> list[str]:
    """What a reader of the report must know beside its numbers (decisions: honest comparison)."""
    notes = ["Thresholds were not fitted; operating points are read on the split they are printed for."]
    if config.data.name.startswith("phantom"):
        notes.append("Synthetic mammograms: a software check, not a clinical result.")
    return notes


def _print_table(results: dict[str, Any], page: Path) -> None:
    """A short table of the results on the console."""
    print(f"\n{'':<34}{'val':<40}  test")
    for name, value in results["test"].items():
        if isinstance(value, dict):
            found = [results[split].get(name) for split in ("val", "test")]  # a split may lack one of the classes
            cells = [report.with_counts(one) for one in found]
            print(f"{name:<34}{cells[0]:<40}  {cells[1]}")
    print(f"n: how many of each class, negatives first\n\nreport: {page}", flush=True)
