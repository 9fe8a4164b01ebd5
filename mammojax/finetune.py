"""`mammojax finetune`: a finished run learns another data set, alone or cross-validated by patient.

Shen et al. 2019, "Transfer learning": a whole-image classifier is fine-tuned on another data set from image labels
alone. The network, its framing and the mean it subtracts are those of the run; the last of the run's stages trains it.
The run as it is scores the same test images, so that the table says what fine-tuning brought.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from mammojax import arguments, plan, run, run_folder, start, tasks, train_patients
from mammojax.data import folds as folding
from mammojax.data import manifest
from mammojax.data.concerns import CANNOT, splits_of
from mammojax.data.examples import examples_of
from mammojax.data.manifest import SPLITS, Image, Table
from mammojax.data.recipe import Recipe
from mammojax.errors import BadCheckpoint, BadConfig, BadManifest
from mammojax.evaluate import compare, plots, report, table
from mammojax.evaluate.report import interval_text
from mammojax.evaluate.table import Predictions
from mammojax.evaluate.text_table import text_table
from mammojax.train.checkpoint import load_best, read_config

START = "start_"  # before the names of the predictions of the run as it was
FEW = 20  # malignant patients in all: a test split of one draw then has three


@dataclass(frozen=True)
class Part:
    """One run of a fine-tuning.

    Attributes:
        name: "fold 1", … or "all".
        config: of the run.
        folder: of the run.
        splits: patient → split.
    """

    name: str
    config: ConfigDict
    folder: Path
    splits: dict[str, str]


def config_of(
    source_run: Path, source: Path, data_dir: str = "", words: str = "", seed: int = 0, epochs: int | None = None,
    learning_rate: float | None = None, memory: str = "",
) -> ConfigDict:  # fmt: skip
    """The config that fine-tunes a run on a manifest.

    Args:
        source_run: a finished whole-image or exam run.
        source: the manifest.
        data_dir: the folder of prepared data sets; "": ~/mammojax_data.
        words: the meaning of the manifest's words for pathologies, see `manifest.read_map`.
        seed: of the run and of a drawn split.
        epochs, learning_rate: in place of those of the run's last stage.
        memory: of one device, such as "24GB", see `plan.fit`; "": as much as the step takes.

    Raises:
        BadCheckpoint: the folder is no such run.
    """
    config, facts = read_config(source_run)
    task = config.model.task
    if task not in ("whole", "two_view", "exam") or config.model.get("target", "cancer") == "birads":
        raise BadCheckpoint(
            f'"{source_run}" is no whole-image or two-view run and no exam run that scores cancer; give the run of one.'
        )
    config = ConfigDict(_tuples(config.to_dict()))
    with config.unlocked():
        for inner in start.starts(config).values():
            if inner in config:
                del config[inner]
        if task == "exam" and config.model.channels == 3:
            config.patch_run = config.get("patch_run", "") or str(source_run / "patch")
        config.row, config.init_from, config.seed, config.extend = "finetune", str(source_run), seed, False
        config.tracker, config.memory = "", memory  # RUN's server is not asked for here
        config.data.update(
            name="manifest", source=str(source), map=words, split="all", seed=seed, prepare=True, data_dir=data_dir,
            patients=0, shuffle_labels=False, workers=config.data.get("workers", 2),
        )  # fmt: skip
        if task != "exam":
            config.data.mean = facts["mean"]
            config.model.auxiliary_classes, config.model.pretrained = 0, ""
        last = config.stages[max(config.stages)].copy_and_resolve_references()
        last.epochs = last.epochs if epochs is None else epochs
        last.learning_rate = last.learning_rate if learning_rate is None else learning_rate
        config.stages = ConfigDict({"stage1": last})
        config.monitor = "loss"  # an AUC of few validation patients chooses by chance
    return config


def _tuples(value: Any) -> Any:
    """A value of JSON as configs have it: lists become tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def parts_of(config: ConfigDict, source_table: Table, workdir: Path, folds: int) -> list[Part]:
    """The runs of a fine-tuning: one, or one for each fold, whose manifests are written to WORKDIR/folds.

    Raises:
        BadManifest: the manifest has a split column, which folds would overrule, or too few patients.
        BadCheckpoint: the run that they start from has learned from patients of a validation or test split.
    """
    start_run = [Path(config.init_from)]
    labelled = {image.patient_id for image in source_table.images if image.label >= 0}
    if not folds:
        splits, concerns = splits_of(source_table.images, config.data.seed)
        for concern in concerns:
            if concern.kind == CANNOT:
                raise BadManifest(concern.text)
        train_patients.refuse_patients(start_run, config, {p for p in labelled if splits[p] != "train"})
        return [Part("all", config, workdir, splits)]
    if any(image.split for image in source_table.images):
        raise BadManifest("the manifest's split column is filled; leave it empty, or leave out --folds.")
    place = folding.fold_of_patients(source_table, folds, config.seed)
    train_patients.refuse_patients(start_run, config, labelled)
    workdir.mkdir(parents=True, exist_ok=True)
    source = Path(config.data.source)
    paths = folding.write_folds(source, source_table, workdir / "folds", folds, config.seed)
    parts = []
    for fold, path in enumerate(paths):
        own = config.copy_and_resolve_references()
        own.data.source = str(path)
        splits = {p: {0: "test", 1: "val"}.get((k - fold) % folds, "train") for p, k in place.items()}
        parts.append(Part(f"fold {fold + 1}", own, workdir / f"fold_{fold + 1}", splits))
    return parts


def print_plan(source_run: Path, parts: Sequence[Part], source_table: Table, workdir: Path) -> None:
    """Print data, network, stages, time and memory: of one step and of one image, measured now."""
    config = run.check(parts[0].config)
    facts = read_config(source_run)[1]
    of_exams = config.model.task == "exam"
    rows, examples = [], {}
    for part in parts:
        counts = _counts(source_table.images, part.splits, of_exams)
        examples[part.name] = {split: n for split, (n, *_) in counts.items()}
        rows.append([part.name, *(f"{n} ({patients}, {sick} malignant)" for n, patients, sick in counts.values())])
    kind = "exams" if of_exams else "images"
    print(f"\nDATA  {len(source_table.images)} images, {len(source_table.rejected)} rows or masks left out")
    print(text_table(("", *(f"{split}: {kind} (patients)" for split in SPLITS)), rows))
    sick = {image.patient_id for image in source_table.images if image.label == 1}
    if len(parts) == 1 and len(sick) < FEW and not any(image.split for image in source_table.images):
        print(f"only {len(sick)} patients have a malignant image: --folds 5 tests on each patient once")
    variables = load_best(source_run)
    cost = plan.measure(config, variables, facts)
    total, moving = cost.parameters
    mean = facts.get("mean")
    print(f"\nNETWORK  from {source_run.name}: {total / 1e6:.2f} M parameters, {moving / 1e6:.2f} M of them learn")
    print(f"{_framing_words(facts)}; " + (f"mean {mean:.2f} of 255 subtracted" if mean else "each image standardised"))
    print("\nSTAGES\n" + "\n".join(plan.stage_lines(config)))
    each = [plan.training_seconds(part.config, cost, examples[part.name]) for part in parts if not _done(part)]
    image_seconds = _preparing_seconds(parts[0], source_table.images, workdir)
    preparing = len(each) * len(source_table.images) * image_seconds
    print(
        f"\nTIME  about {plan.duration(sum(each) + preparing)}: {plan.duration(preparing)} to prepare images, ", end=""
    )
    print(f"{plan.duration(sum(each))} to train and score ({cost.seconds:.2f} s a step of {config.batch})")
    memory = "not known" if cost.bytes is None else f"{cost.bytes / 2**30:.2f} GiB"
    print(f"MEMORY  {memory} for a training step\nRESULTS  {workdir}\n", flush=True)


def _framing_words(facts: dict[str, Any]) -> str:
    """How the run's images are framed, or its exams cropped."""
    if framing := facts.get("framing"):
        aspect = ", their aspect kept" if framing["keep_aspect"] else ""
        return f"images of {framing['size'][0]} × {framing['size'][1]} pixels, crop {framing['crop']}{aspect}"
    return "exams cropped to the breast, windows of the run's size"


def _counts(images: Sequence[Image], splits: dict[str, str], of_exams: bool) -> dict[str, tuple[int, int, int]]:
    """Of each split: examples (labelled images, or exams), patients, patients with a malignant image."""
    result = {}
    for split in SPLITS:
        own = [image for image in images if splits[image.patient_id] == split and image.label >= 0]
        examples = {image.exam_id or image.patient_id if of_exams else image.image for image in own}
        sick = {image.patient_id for image in own if image.label == 1}
        result[split] = (len(examples), len({image.patient_id for image in own}), len(sick))
    return result


def _preparing_seconds(part: Part, images: Sequence[Image], workdir: Path) -> float:
    """Seconds that an image takes to prepare, from the first three."""
    recipe, started = Recipe.of_run(part.config, workdir), time.perf_counter()
    for image in images[:3]:
        examples_of(image, recipe)
    return (time.perf_counter() - started) / min(3, len(images)) / max(1, part.config.data.workers)


def _done(part: Part) -> bool:
    return (part.folder / "report.html").is_file()  # a run writes it last


def finetune(
    source_run: Path, source: Path, workdir: Path, folds: int = 0, words: str = "", *, plan_only: bool = False,
    **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Fine-tune a run; started again, it goes on where it stopped.

    Args:
        source_run: a finished whole-image or exam run.
        source: the manifest.
        workdir: the run folder; with folds it holds fold_1, fold_2, … and folds/, their manifests.
        folds: 0: one run, split as the manifest says or 85:15 and 90:10; else each patient is in the test split once.
        words: see `config_of`.
        plan_only: print what would be done, and return {}.
        settings: further arguments of `config_of`.

    Returns:
        The contents of finetune.json, see `compared`.

    Raises:
        UserError: with a sentence for the user.
    """
    config = config_of(source_run, source, words=words, **settings)
    data_dir = Recipe.of_run(config, workdir).data_dir
    source_table = manifest.read_manifest(source, manifest.read_map(words), data_dir)
    manifest.leave_out_copies(source_table)
    parts = parts_of(config, source_table, workdir, folds)
    for part in parts:
        run.check_folder(part.config, part.folder)
    print_plan(source_run, parts, source_table, workdir)
    if plan_only:
        return {}
    for part in parts:
        if not _done(part):
            print(f"{part.name} → {part.folder}", flush=True)
            run.run(part.config, part.folder)
        _score_start(source_run, part)
    result = compared(source_run, parts)
    write(workdir, source_run, parts, result)
    return result


def _score_start(source_run: Path, part: Part) -> None:
    """Write the predictions of the run as it was, for the part's test split, beside those of the fine-tuned one."""
    config, facts = read_config(part.folder)
    task, name = tasks.of(config.model.task), f"{START}{_split(config)}"
    if (part.folder / "predictions" / f"{name}.csv").is_file():
        return
    variables, data = load_best(source_run), run.dataset(config, part.folder)
    scored = task.score(config, data, facts, variables)(variables, "test", _split(config).removeprefix("test_"))
    task.measure(config, part.folder, name, scored, data, "test")


def _split(config: ConfigDict) -> str:
    """The predictions that are compared: flips, or ten windows, averaged."""
    return "test_random10" if config.model.task == "exam" else "test_flips"


def _read(part: Part, before: str = "") -> Predictions:
    read = table.read_breasts if part.config.model.task == "exam" else table.read_images
    return read(part.folder, f"{before}{_split(part.config)}")


def compared(source_run: Path, parts: Sequence[Part]) -> dict[str, Any]:
    """AUC of malignant or not before and after fine-tuning, of each part and of their mean.

    Returns:
        {"start", "split", "rows": [{"name", "patients", "n", "start", "finetuned", "difference"}]}; the last of several
        rows is the mean over the folds, with draws of patients inside each fold (`compare.over_repeats`).
    """
    pairs = [(_read(part), _read(part, START)) for part in parts]
    rows = []
    for part, (after, before) in zip(parts, pairs, strict=True):
        rows.append(_row(part.name, [(after, before)]))
    if len(parts) > 1:
        rows.append(_row("mean", pairs))
    return {"start": source_run.name, "split": _split(parts[0].config), "rows": rows}


def _row(name: str, pairs: Sequence[tuple[Predictions, Predictions]]) -> dict[str, Any]:
    labels = np.concatenate([after.label() for after, _ in pairs])
    alone = {"start": [(before, None) for _, before in pairs], "finetuned": [(after, None) for after, _ in pairs]}
    return {
        "name": name,
        "patients": len({patient for after, _ in pairs for patient in after.patient}),
        "n": [int((labels == 0).sum()), int((labels == 1).sum())],
        **{key: compare.over_repeats(value).to_json() for key, value in alone.items()},
        "difference": compare.over_repeats(pairs).to_json(),
    }


def write(workdir: Path, source_run: Path, parts: Sequence[Part], result: dict[str, Any]) -> None:
    """Print the table; write finetune.json and finetune.html."""
    unit = "images" if parts[0].config.model.task == "whole" else "breasts"
    header = ("", "patients", f"other + malignant {unit}", "AUC as it was", "AUC fine-tuned", "difference")
    rows = [
        [row["name"], str(row["patients"]), " + ".join(map(str, row["n"])), interval_text(row["start"]),
         interval_text(row["finetuned"]), interval_text(row["difference"], "+.3f")] for row in result["rows"]
    ]  # fmt: skip
    last = result["rows"][-1]
    print("\n" + text_table(header, rows))
    (workdir / "finetune.json").write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    predictions = [_read(part) for part in parts]
    curves = [(part.name, own.label(), own.score()) for part, own in zip(parts, predictions, strict=True)]
    if len(parts) > 1:
        labels, scores = (np.concatenate(arrays) for arrays in zip(*[curve[1:] for curve in curves], strict=True))
        curves.append(("all folds together", labels, scores))
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(5.6, 5.0))
        plots.rocs(figure.subplots(), curves, "Test patients, fine-tuned (AUC in the legend)")
        picture = report.png(figure)
    text = (
        "Each patient is a test patient once, scored by the network that has not seen them." if len(parts) > 1 else ""
    )
    note = (
        "In brackets 95 % intervals from draws of patients, of the mean inside each fold. They cover the chance of the "
    )
    note += (
        "test patients, not that of another training. The curve of all folds together mixes scores of several networks."
    )
    sections = [
        report.Section("Before and after", text, header, rows, note=note),
        report.Section("ROC curves", figures=[("ROC curves of the test patients", picture)]),
        report.Section("The runs", header=("", "folder"), rows=[[p.name, p.folder.name] for p in parts], words=True,
                       note="Each has a report.html. mammojax predict takes several --run and averages their scores."),
    ]  # fmt: skip
    value, _, rest = interval_text(last["finetuned"]).partition(" ")
    gain, _, gain_rest = interval_text(last["difference"], "+.3f").partition(" ")
    cards = [("AUC fine-tuned", value, rest), ("difference from the run as it was", gain, gain_rest)]
    title = f"{source_run.name} fine-tuned, {len(parts)} folds" if len(parts) > 1 else f"{source_run.name} fine-tuned"
    notes = [f"Fine-tuning {_verdict(last['difference'])} the AUC.", "Research use only. The validation patients of "
             "each run chose its epoch; the test patients chose nothing."]  # fmt: skip
    report.write_page(workdir / "finetune.html", title, notes, sections, cards)
    print(f"\n→ {workdir / 'finetune.html'}", flush=True)


def _verdict(difference: dict[str, Any]) -> str:
    """What the interval of a difference shows; of too few patients there is none."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None or low <= 0 <= high:
        return "was not shown to change"
    return "raised" if low > 0 else "lowered"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax finetune`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished whole-image or exam run")
    parser.add_argument("--data", type=Path, required=True, help="the manifest")
    parser.add_argument(
        "--folds", type=arguments.count, default=0, help="cross-validate by patient, 5 for few patients"
    )
    parser.add_argument("--workdir", type=arguments.folder, help="the folder of results; default: below runs/")
    parser.add_argument("--data-dir", default="", help="the folder of prepared data sets; default: ~/mammojax_data")
    parser.add_argument("--map", default="", help="the manifest's words for pathologies, such as 0=BENIGN,1=MALIGNANT")
    parser.add_argument("--epochs", type=arguments.count, help="in place of those of the run's last stage")
    parser.add_argument("--learning-rate", type=float, help="in place of that of the run's last stage")
    parser.add_argument("--seed", type=arguments.count, default=0, help="of the folds or the split, and of training")
    parser.add_argument("--memory", default="", help="of one device, such as 24GB: a batch passes in parts if need be")
    parser.add_argument("--plan-only", action="store_true", help="print data, stages, time and memory, and stop")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax finetune`; see `finetune`."""
    if args.folds in (1, 2):
        raise BadConfig(f"--folds is {args.folds}; training, validation and test take three folds or more.")
    settings = {"seed": args.seed, "epochs": args.epochs, "learning_rate": args.learning_rate}
    chosen = {k: v for k, v in settings.items() if v is not None} | {"source": str(args.data)}
    named = chosen | ({"folds": args.folds} if args.folds else {}) | ({"map": args.map} if args.map else {})
    workdir = args.workdir or run_folder.default("finetune", args.run.resolve().name, named)
    finetune(
        args.run, args.data, workdir, args.folds, args.map, plan_only=args.plan_only, data_dir=args.data_dir,
        memory=args.memory, **settings,
    )  # fmt: skip
    return 0
