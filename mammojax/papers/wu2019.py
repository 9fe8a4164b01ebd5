"""The tables of Wu et al. 2019, as far as our copy has them, beside our runs.

The supplement is not in our copy. In our copy's text the label `image-and-heatmaps` of Table III is beside its
fifth row; the first five rows are image-only and the last five image-and-heatmaps, as section V says of 0.895 and
0.850.

Runs are matched to rows by `config.row`: "exam:JOIN[+heatmaps][-scratch]", "birads" for the pretraining. Everything
is computed from predictions/test_random10.csv. Each data set has its own tables: runs on different data sets, or with
different settings or starts, are never averaged.
"""

import json
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mammojax import metrics
from mammojax.errors import NotComparable
from mammojax.evaluate import compare, measure, reader_file, report, table
from mammojax.evaluate import readers as study
from mammojax.evaluate.table import POPULATIONS, Predictions
from mammojax.evaluate.text_table import WIDTH
from mammojax.papers.runs import PaperRun, exam_deviations, exam_settings, settings_of, status
from mammojax.papers.tables import Row, ToDo, members, rows_of
from mammojax.vocabulary import FINDINGS

TITLE = "Wu et al. 2019: published values and ours"
SPLIT = "test_random10"
CELLS = tuple(product(POPULATIONS, FINDINGS))
MODEL = "exam:view-wise+heatmaps"
"""The row that sections V-C and VI call the model; its ensemble was compared with the readers."""
SEEDS = 5
"""Copies of each model, which differ in the initial weights of the Dense layers (section V)."""
READER_STUDY = "720 exams, 1,440 breasts: 62 malignant, 356 benign; 14 readers (section VI)"
NOTES = (
    "The published figures are of the NYU screening data, which are not public: 229,426 exams of a screening"
    " population. Ours are of the data set that is named, whose case mix differs; the two stand side by side to show"
    " whether the order of the rows holds, not to be compared as numbers.",
    "AUCs of different case mixes are not comparable, those of the screening and the biopsied population neither:"
    " without the easy negatives the same network is lower (footnote 6).",
    "Published ± is the standard deviation over five models with other first weights of the Dense layers; ours is the"
    " sample standard deviation over the runs there are. Our brackets are 95 % intervals over patients of the test set,"
    " which the paper does not give.",
    "Ten randomly moved and resized predictions of each exam are averaged, in the paper and in ours.",
    "The biopsied population is of exams in section V-A and of breasts in section V-D (401, each with a finding); ours"
    " is of breasts.",
    "The join that Table III and Fig. 5 call breast-wise is called side-wise in section IV.",
    "Section V-D calls the benign AUC 0.696 of the biopsied population the best; in Table III joint has 0.709.",
)


@dataclass(frozen=True)
class Group:
    """The runs behind the cells of a row, one per seed, their breasts in one order, and their status. `breasts` is
    empty if the runs have no predictions of the same breasts."""

    runs: list[PaperRun]
    breasts: list[Predictions]
    status: str


def sections(
    runs: Sequence[PaperRun], readers: Path | None = None, root: Path = Path("runs")
) -> list[report.Section]:  # fmt: skip
    """Table I, the BI-RADS pretraining, then for each data set Table III, its differences and the reader study; the
    commands beside rows put runs below `root`."""
    published = rows_of("wu2019")
    sets = data_sets(runs)
    result = [_table_1(published["Table I"], sets), _birads(published["BI-RADS pretraining"], runs, root)]
    for name, group_runs in sets.items() or [("", [])]:
        groups = {row: group for row in _model_rows(published) if (group := _group(group_runs, row, name))}
        further = f", ours on {name}" if name else ""
        places = _places(group_runs, _pretraining(runs, group_runs), root / name if len(sets) > 1 else root)
        lines = {row: _commands_of(row, group_runs, places) for row in _model_rows(published)}
        beside = {row: _beside(of_row) for row, of_row in lines.items()}
        for population in POPULATIONS:
            result.append(_table_3(published["Table III"], groups, population, further, beside))
        result.append(_differences(published, groups, further, beside))
        result.append(_reader_study(published["Reader study"], groups.get(MODEL), readers, further, beside[MODEL]))
    return result


def _model_rows(published: dict[str, list[Row]]) -> list[str]:
    """The rows of Table III that runs fill, without the ensembles computed from them."""
    rows = dict.fromkeys(row.row for row in published["Table III"])
    return [row for row in rows if not row.startswith("ensemble:")]


def data_sets(runs: Iterable[PaperRun]) -> dict[str, list[PaperRun]]:
    """The exam runs by data set; data sets of one name with different counts of findings are numbered."""
    groups: dict[tuple[str, str], list[PaperRun]] = {}
    for run in runs:
        if run.row.startswith("exam:"):
            key = (run.facts["name"], json.dumps(run.facts.get("findings"), sort_keys=True))
            groups.setdefault(key, []).append(run)
    names = [name for name, _ in groups]
    result = {}
    for k, (name, group) in enumerate(zip(names, groups.values(), strict=True)):
        result[f"{name} #{names[: k + 1].count(name)}" if names.count(name) > 1 else name] = group
    return result


def _group(runs: Iterable[PaperRun], row: str, data: str) -> Group | None:
    """The runs of a row nearest to the paper: of the setting with the fewest deviations, then with the most seeds."""
    seeds: dict[tuple[str, ...], dict[int, PaperRun]] = {}
    doubles = 0
    for setting in settings_of(runs, row, exam_deviations):
        of_seed = seeds[setting.deviations] = {run.config["seed"]: run for run in reversed(setting.runs)}
        doubles += len(setting.runs) - len(of_seed)
    if not seeds:
        return None
    nearest = min(seeds, key=lambda deviations: (len(deviations), -len(seeds[deviations]), deviations))
    chosen = [run for _, run in sorted(seeds[nearest].items())]
    text = status([f"on {data}", *nearest])
    if doubles:
        text += f"; left out, as their seed is there: {doubles}"
    if others := sorted(", ".join(other) or "the paper's setting" for other in seeds if other != nearest):
        text += f"; others: {' / '.join(others)}"
    try:
        return Group(chosen, table.aligned([table.read_breasts(run.path, SPLIT) for run in chosen]), text)
    except NotComparable as error:
        return Group(chosen, [], f"{text}; {error}")


def _table_1(published: Sequence[Row], sets: dict[str, list[PaperRun]]) -> report.Section:
    """Breasts by finding and split, the published ones beside each data set's."""
    header = ["split", "finding", "published, visible", "published, occult"]
    header += [f"{name}, {visibility}" for name in sets for visibility in ("visible", "occult")]
    rows = []
    for row in published:
        cells = [row.published, row.second]
        for runs in sets.values():
            cells += _ours_1(runs[0].facts.get("findings") or {}, row.label, row.finding)
        rows.append([row.label, row.finding, *cells])
    text = "Breasts with findings by whether they are visible on the mammograms; a breast with both counts in both."
    return report.Section("Table I: breasts with findings", text, header, rows, words=True)


def _ours_1(findings: dict[str, Any], split: str, finding: str) -> list[str]:
    """Visible and occult breasts of a split; for all splits together also their shares."""
    splits = ("train", "val", "test") if split == "overall" else (split,)
    if any(finding not in findings.get(name, {}) for name in splits):
        return ["–", "–"]
    counts = [sum(int(findings[name][finding][visibility]) for name in splits) for visibility in ("visible", "occult")]
    if split == "overall" and any(counts):
        return [f"{n:,} ({n / sum(counts):.1%})" for n in counts]
    return [f"{n:,}" for n in counts]


def _birads(published: Sequence[Row], runs: Sequence[PaperRun], root: Path) -> report.Section:
    """The pretraining's validation AUC, a row for each kind of run."""
    kinds: dict[tuple[str, str], list[PaperRun]] = {}
    for run in runs:
        if run.row.startswith("birads"):
            kinds.setdefault((run.row, status([f"on {run.facts['name']}", *exam_deviations(run)])), []).append(run)
    (pretraining,) = published
    line = f"python launch.py --config configs/birads.py --workdir {shlex.quote(str(root / 'birads'))}"
    rows = [] if kinds else [[pretraining.row, pretraining.published, "–", "–", "not run", line]]
    for (row, text), group in kinds.items():
        aucs = [run.metrics.get("val", {}).get("auc") or {} for run in group]
        values = [auc["value"] for auc in aucs if auc.get("value") is not None]
        rows.append([row, pretraining.published, _spread(values), str(len(group)), text, "–"])
    text = "Mean of the AUCs of BI-RADS 0, 1 and 2 each against the others, validation split, by exam (section IV-C)."
    header = ("row", "published", "ours", "seeds", "status", "command")
    return report.Section("BI-RADS pretraining", text, header, rows, words=True)


def _table_3(
    published: Sequence[Row], groups: dict[str, Group], population: str, further: str, beside: dict[str, str]
) -> report.Section:
    """Published and our AUCs of each row's single models and of their ensemble, on one population; `beside` each row
    what fills it."""
    rows: list[list[str]] = []
    for row in (row for row in published if row.population == population):
        single, together, seeds, text = (_of_joins if row.row.startswith("ensemble:") else _of_seeds)(row, groups)
        line = beside.get(row.row, "computed from the rows of its members")
        line = "as the row above" if rows and rows[-1][0] == row.label else line
        rows.append([row.label, row.finding, row.published or "–", single, row.second, together, seeds, text, line])
    breasts = next((group.breasts[0] for group in groups.values() if group.breasts), None)
    text = (
        f"AUC by breast on the {population} population of the test split. Published: mean±sd of five models, and their"
        " ensemble; ours: of as many seeds as are said, the ensemble's interval is over patients. "
    )
    text += f"Ours: {table.description(breasts, population)} " if breasts else ""
    header = (
        "model",
        "finding",
        "single, published",
        "single, ours",
        "5x, published",
        "ensemble, ours",
        "seeds",
        "status",
        "command",
    )
    text += "Not to be compared with AUCs of another case mix. The command makes the first run that a row lacks."
    return report.Section(f"Table III: {population} population{further}", text, header, rows, words=True)


def _of_seeds(row: Row, groups: dict[str, Group]) -> tuple[str, str, str, str]:
    """For a row of Table III the AUC of our single models and of their ensemble, the number of seeds, the status."""
    group = groups.get(row.row)
    if not group:
        return "–", "–", "–", "not run"
    if not group.breasts:
        return "–", "–", str(len(group.runs)), group.status
    values = [value for breasts in group.breasts if (value := _auc(breasts, row.population, row.finding)) is not None]
    return _spread(values), _of_ensemble(group.breasts, row), str(len(group.runs)), group.status


def _of_joins(row: Row, groups: dict[str, Group]) -> tuple[str, str, str, str]:
    """The same for the ensemble of all models of several joins, which has no single models."""
    joins = {name: groups[name] for name in members(row.row) if name in groups and groups[name].breasts}
    if missing := [_join(name) for name in members(row.row) if name not in joins]:
        return "–", "–", "–", f"not run: {', '.join(missing)}"
    models = [breasts for group in joins.values() for breasts in group.breasts]
    counts = "+".join(str(len(group.breasts)) for group in joins.values())
    try:
        return "–", _of_ensemble(models, row), counts, f"{len(models)} of {SEEDS * len(joins)} models"
    except NotComparable:
        return "–", "–", counts, "the joins were not measured on the same breasts"


def _differences(
    published: dict[str, list[Row]], groups: dict[str, Group], further: str, beside: dict[str, str]
) -> report.Section:
    """Published differences of single means beside ours of ensembles, on the same draws of patients."""
    single = {(row.row, row.population, row.finding): row.published.partition("±")[0] for row in published["Table III"]}
    rows = []
    for difference, (population, finding) in product(published["Differences"], CELLS):
        theirs = [float(single[row, population, finding]) for row in (difference.row, difference.minus)]
        head = [difference.label, population, finding, f"{theirs[0] - theirs[1]:+.3f}"]
        a, b = groups.get(difference.row), groups.get(difference.minus)
        if not (a and b and a.breasts and b.breasts):
            lacking = [row for row, group in zip((difference.row, difference.minus), (a, b), strict=True)
                       if not (group and group.breasts)]  # fmt: skip
            rows.append([*head, "–", "not run", "; ".join(beside[row] for row in lacking)])
            continue
        first, second = _pair(a, b)
        text = f"{len(first)} − {len(second)} models"
        text += f"; {a.status}" if a.status == b.status else f"; first: {a.status}; second: {b.status}"
        try:
            rows.append([*head, _difference(first, second, population, finding), text, "–"])
        except NotComparable:
            rows.append([*head, "–", "not measured on the same breasts", "–"])
    text = (
        "Published: the difference of the single models' means in Table III (our subtraction). Ours: AUC of the first"
        " ensemble minus that of the second, of the same seeds where there are such, on the same draws of patients."
    )
    header = ("difference", "population", "finding", "published", "ours", "status", "command")
    return report.Section(f"Differences{further}", text, header, rows, words=True)


def _pair(a: Group, b: Group) -> tuple[list[Predictions], list[Predictions]]:
    """The breasts of the seeds that both have; of all seeds where they share none."""
    seeds = [
        {run.config["seed"]: breasts for run, breasts in zip(group.runs, group.breasts, strict=True)}
        for group in (a, b)
    ]
    shared = [seed for seed in seeds[0] if seed in seeds[1]]
    if not shared:
        return a.breasts, b.breasts
    return [seeds[0][seed] for seed in shared], [seeds[1][seed] for seed in shared]


def _difference(first: Sequence[Predictions], second: Sequence[Predictions], population: str, finding: str) -> str:
    a, b = table.aligned([table.ensemble(first), table.ensemble(second)])
    if population == "biopsied":
        both = table.biopsied(a)  # one population for both
        a, b = a[both], b[both]
    if not measure.both_classes(a.label(finding)):
        return "–"
    return report.interval_text(compare.difference(a, b, finding).to_json(), "+.3f")


def _reader_study(
    published: Sequence[Row], model: Group | None, readers: Path | None, further: str, of_model: str
) -> report.Section:
    """The model, the readers and their hybrids; ours if there are a CSV of readers and the model's ensemble. `of_model`
    says which commands make the runs that the ensemble lacks."""
    ours: dict[str, dict[str, Any]] = {}
    line = "–"
    if model is None or not model.breasts:
        line = of_model
    elif readers is None:
        line = "mammojax reproduce wu2019 --runs RUNS --readers FILE.csv"
    if readers is None:
        text = "not run: give --readers FILE.csv, the readers' probabilities of malignancy by breast"
    elif model is None or not model.breasts:
        text = f"not run: needs the runs of {MODEL}"
    else:
        count = len(model.breasts)
        panel = reader_file.read(readers)
        text = f"{len(panel)} reader{'s' if len(panel) > 1 else ''}, {count} model{'s' if count > 1 else ''}; "
        text += model.status
        try:
            ours = study.hybrid_summary(table.ensemble(model.breasts), panel)
        except NotComparable as error:
            text = str(error)
    rows = []
    for row in published:
        measured = ours.get(row.label, {})
        cells = []
        for metric, theirs in zip(measure.METRICS, (row.published, row.second), strict=True):
            mean, sd = (
                measured.get(f"{metric}_mean"),
                measured.get(f"{metric}_sd"),
            )  # no sd for one reader
            cells += [theirs, (f"{mean:.3f}" if measured else "–") + (f"±{sd:.4f}" if sd is not None else "")]
        rows.append([row.label, *cells, text, line])
    text = (
        f"Malignancy by breast. Published: {READER_STUDY}; mean±sd over readers, their range where it is given;"
        " the model is the view-wise image-and-heatmaps ensemble, a hybrid the mean of a reader and the model."
    )
    header = ("who", "AUC, published", "AUC, ours", "PR AUC, published", "PR AUC, ours", "status", "command")
    return report.Section(f"Reader study{further}", text, header, rows, words=True)


def _auc(breasts: Predictions, population: str, finding: str) -> float | None:
    part = table.population(breasts, population)
    if not measure.both_classes(part.label(finding)):
        return None
    return float(metrics.roc_auc(part.label(finding), part.score(finding)))


def _spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation of runs; for one run only its value."""
    if not values:
        return "–"
    return f"{np.mean(values):.3f}" + (f"±{np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def _of_ensemble(breasts: Sequence[Predictions], row: Row) -> str:
    """AUC of an ensemble with its interval."""
    part = table.population(table.ensemble(breasts), row.population)
    return report.interval_text(measure.estimate(part, row.finding, "auc"))


def _join(row: str) -> str:
    return row.partition(":")[2].removesuffix("+heatmaps")


def to_do(runs: Sequence[PaperRun], root: Path) -> ToDo:
    """The commands for the empty cells of each data set's tables."""
    exams = [run for run in runs if run.row.partition(":")[0] in ("exam", "birads")]
    sets = data_sets(exams)
    result = []
    for name, group_runs in sets.items() or [("", [])]:
        if lines := commands(group_runs, _pretraining(exams, group_runs), root / name if len(sets) > 1 else root):
            heading = "To fill the empty cells" + (f" of {name}" if name else "")
            text = (
                "Patch network and pretraining first, as the others need them; each takes "
                "--config.data.source=MANIFEST. configs/exam_ensemble.py runs five seeds of a row in one command."
            )
            printed = f"\n## {heading}\n\n" + "\n".join([*lines, textwrap.fill(text, WIDTH)])
            result.append((printed, report.Section(heading, text, commands=lines)))
    return result


def commands(runs: Sequence[PaperRun], pretraining: Sequence[PaperRun], root: Path = Path("runs")) -> list[str]:
    """The commands for the runs that Table III lacks: patch and BI-RADS networks, then five seeds of each row.

    Args:
        runs: the exam runs of one data set; a patch network with the paper's settings is reused.
        pretraining: the BI-RADS runs of that data set; the first with the paper's settings is the start.
        root: the folder of runs.
    """
    places = _places(runs, pretraining, root)
    first = [] if places.has_patch else [f"python launch.py --config configs/exam_patch.py --workdir {places.patch}"]
    first += [] if places.has_birads else [f"python launch.py --config configs/birads.py --workdir {places.birads}"]
    lines = [line for row in _model_rows(rows_of("wu2019")) for line in _commands_of(row, runs, places)]
    return [*first, *lines] if lines else []


@dataclass(frozen=True)
class _Places:
    """Where runs are that others start from, quoted for a shell, whether they are there, and the folder of new runs."""

    birads: str
    patch: str
    has_birads: bool
    has_patch: bool
    root: Path


def _pretraining(runs: Iterable[PaperRun], of: Sequence[PaperRun]) -> list[PaperRun]:
    """The BI-RADS runs on the data of some exam runs; all of them where there are none."""
    data = {run.facts["name"] for run in of}
    return [run for run in runs if run.row == "birads" and (not data or run.facts["name"] in data)]


def _places(runs: Iterable[PaperRun], pretraining: Iterable[PaperRun], root: Path) -> _Places:
    """The patch network and the pretraining with the paper's settings among the runs of a data set; else those that
    the commands make."""
    birads = next((run.path for run in pretraining if not exam_settings(run)), None)
    nets = (run.config.get("patch_run", "") for run in runs if not exam_settings(run))
    patch = next((net for net in nets if net), "")
    start, net = (shlex.quote(str(path)) for path in (birads or root / "birads", patch or root / "exam_patch"))
    return _Places(start, net, birads is not None, bool(patch), root)


def _commands_of(row: str, runs: Iterable[PaperRun], places: _Places) -> list[str]:
    """The commands for the seeds of a row that no run fills."""
    finished, name = {run.config["seed"] for run in runs if run.row == row}, row.partition(":")[2]
    lines = []
    for seed in (seed for seed in range(SEEDS) if seed not in finished):
        line = f"python launch.py --config configs/exam.py:{name} --config.seed={seed}"
        line += "" if name.endswith("-scratch") else f" --config.init_from={places.birads}"
        line += f" --config.patch_run={places.patch}" if "+heatmaps" in name else ""
        lines.append(f"{line} --workdir {shlex.quote(str(places.root / f'exam_{name}_{seed}'))}")
    return lines


def _beside(lines: Sequence[str]) -> str:
    """The first of a row's commands, and how many more there are."""
    if not lines:
        return "–"
    return lines[0] + (f", and {len(lines) - 1} further seeds likewise" if len(lines) > 1 else "")
