"""The tables of Wu et al. 2019 beside our runs: `mammojax reproduce wu2019 --runs DIR`.

Runs are matched to rows by `config.row`: "exam:JOIN[+heatmaps][-scratch]", "birads" for the pretraining. Everything is
computed from predictions/test_random10.csv. Each data set has its own tables: its runs are averaged with no other's,
and runs whose settings or starts differ are not averaged with each other either.
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
from mammojax.evaluate import compare, measure, paper_config, reader_file, report, table, wu2019
from mammojax.evaluate import readers as study
from mammojax.evaluate.console import WIDTH, with_notes
from mammojax.evaluate.paper_run import PaperRun, exam_deviations, exam_settings, find_runs
from mammojax.evaluate.table import POPULATIONS, Predictions
from mammojax.vocabulary import FINDINGS

SPLIT = "test_random10"
CELLS = tuple(product(POPULATIONS, FINDINGS))


@dataclass(frozen=True)
class Group:
    """The runs of a row that its cells are of, one a seed, their breasts in one order, and what is to be said of them.
    `breasts` is empty where the runs have no predictions of the same breasts."""

    runs: list[PaperRun]
    breasts: list[Predictions]
    status: str


def tables(runs: Sequence[PaperRun], readers: Path | None = None) -> list[report.Section]:
    """Table I, the BI-RADS pretraining, then for each data set Table III, its differences and the reader study."""
    sets = data_sets(runs)
    sections = [_table_1(sets), _birads([run for run in runs if run.row.startswith("birads")])]
    for name, members in sets.items() or [("", [])]:
        groups = {row.row: group for row in wu2019.TABLE_3 if (group := _group(members, row.row, name))}
        further = f", ours on {name}" if name else ""
        sections += [_table_3(groups, population, further) for population in POPULATIONS]
        sections += [_differences(groups, further), _reader_study(groups.get(wu2019.MODEL), readers, further)]
    return sections


def exam_runs(folder: Path) -> list[PaperRun]:
    """The finished exam and BI-RADS runs below a folder, by path; controls with shuffled labels are left out.

    Raises:
        BadCheckpoint: the folder does not exist, or a run's files cannot be read.
    """
    return [run for run in find_runs(folder) if run.row.partition(":")[0] in ("exam", "birads")]


def data_sets(runs: Iterable[PaperRun]) -> dict[str, list[PaperRun]]:
    """The exam runs by data set; those of one name with other counts of findings are numbered apart."""
    found: dict[tuple[str, str], list[PaperRun]] = {}
    for run in runs:
        if run.row.startswith("exam:"):
            key = (run.facts["name"], json.dumps(run.facts.get("findings"), sort_keys=True))
            found.setdefault(key, []).append(run)
    names = [name for name, _ in found]
    result = {}
    for k, (name, members) in enumerate(zip(names, found.values(), strict=True)):
        result[f"{name} #{names[: k + 1].count(name)}" if names.count(name) > 1 else name] = members
    return result


def _group(runs: Iterable[PaperRun], row: str, data: str) -> Group | None:
    """The runs of a row nearest to the paper: of one setting, that with the fewest deviations, then with most seeds."""
    settings: dict[tuple[str, ...], dict[int, PaperRun]] = {}
    doubles = 0
    for run in runs:
        if run.row == row:
            seeds = settings.setdefault(tuple(exam_deviations(run)), {})
            doubles += run.config["seed"] in seeds
            seeds.setdefault(run.config["seed"], run)
    if not settings:
        return None
    nearest = min(settings, key=lambda differs: (len(differs), -len(settings[differs]), differs))
    chosen = [run for _, run in sorted(settings[nearest].items())]
    status = f"run on {data}" + (f" ({', '.join(nearest)})" if nearest else "")
    if doubles:
        status += f"; left out, as their seed is there: {doubles}"
    if others := sorted(", ".join(differs) or "the paper's setting" for differs in settings if differs != nearest):
        status += f"; others: {' / '.join(others)}"
    try:
        return Group(chosen, table.aligned([table.read_breasts(run.path, SPLIT) for run in chosen]), status)
    except NotComparable as error:
        return Group(chosen, [], f"{status}; {error}")


def _table_1(sets: dict[str, list[PaperRun]]) -> report.Section:
    """Breasts by finding and split, published beside each data set's."""
    header = ["split", "finding", "published, visible", "published, occult"]
    header += [f"{name}, {seen}" for name in sets for seen in ("visible", "occult")]
    rows = []
    for published, finding in product(wu2019.TABLE_1, FINDINGS):
        theirs = [getattr(published, f"{finding}_{seen}") for seen in ("visible", "occult")]
        at = 2 * FINDINGS.index(finding)
        shares = [f" ({share})" for share in published.shares[at : at + 2]] or ["", ""]
        cells = [f"{n:,}{share}" for n, share in zip(theirs, shares, strict=True)]
        for members in sets.values():
            cells += _ours_1(members[0].facts.get("findings") or {}, published.split, finding)
        rows.append([published.split, finding, *cells])
    text = "Breasts with findings by whether they are visible on the mammograms; a breast with both counts in both."
    return report.Section("Table I: breasts with findings", text, header, rows, words=True)


def _ours_1(findings: dict[str, Any], split: str, finding: str) -> list[str]:
    """Visible and occult breasts of a split, with shares where it is all of them."""
    splits = ("train", "val", "test") if split == "overall" else (split,)
    if any(finding not in findings.get(one, {}) for one in splits):
        return ["–", "–"]
    numbers = [sum(int(findings[one][finding][seen]) for one in splits) for seen in ("visible", "occult")]
    if split == "overall" and any(numbers):
        return [f"{n:,} ({n / sum(numbers):.1%})" for n in numbers]
    return [f"{n:,}" for n in numbers]


def _birads(runs: Sequence[PaperRun]) -> report.Section:
    """The pretraining's validation AUC, a row for each kind of run."""
    kinds: dict[tuple[str, str], list[PaperRun]] = {}
    for run in runs:
        differs = exam_deviations(run)
        status = f"run on {run.facts['name']}" + (f" ({', '.join(differs)})" if differs else "")
        kinds.setdefault((run.row, status), []).append(run)
    published = f"{wu2019.BIRADS_AUC:.3f}"
    rows = [] if runs else [["birads", published, "–", "–", "not run"]]
    for (row, status), members in kinds.items():
        found = [run.metrics.get("val", {}).get("auc") or {} for run in members]
        values = [one["value"] for one in found if one.get("value") is not None]
        rows.append([row, published, _spread(values), str(len(members)), status])
    text = "Mean of the AUCs of BI-RADS 0, 1 and 2 each against the others, validation split, by exam (section IV-C)."
    header = ("row", "published", "ours", "seeds", "status")
    return report.Section("BI-RADS pretraining", text, header, rows, words=True)


def _table_3(groups: dict[str, Group], population: str, further: str) -> report.Section:
    """Published and our AUCs of each row's single models and of their ensemble, on one population."""
    rows = []
    for row, finding in product(wu2019.TABLE_3, FINDINGS):
        cell, group = row.cells[population, finding], groups.get(row.row)
        ours = ["–", "–"]
        if group and group.breasts:
            values = [value for one in group.breasts if (value := _auc(one, population, finding)) is not None]
            ours = [_spread(values), _together(group.breasts, population, finding)]
        theirs = (f"{cell.mean:.3f}±{cell.sd:.3f}", f"{cell.ensemble:.3f}")
        said = [str(len(group.runs)), group.status] if group else ["–", "not run"]
        rows.append(
            [f"{row.inputs.replace('-and-', '+')}, {row.label}", finding, theirs[0], ours[0], theirs[1], ours[1], *said]
        )
    rows += [_twenty(groups, population, finding) for finding in FINDINGS]
    known = next((group.breasts[0] for group in groups.values() if group.breasts), None)
    text = (
        f"AUC by breast on the {population} population of the test split. Published: mean±sd of five models, and their"
        " ensemble; ours: of as many seeds as are said, the ensemble's interval is over patients. "
    )
    text += f"Ours: {table.described(known, population)} " if known else ""
    header = (
        "model",
        "finding",
        "single, published",
        "single, ours",
        "5x, published",
        "ensemble, ours",
        "seeds",
        "status",
    )
    text += "Not to be compared with AUCs of another case mix."
    return report.Section(f"Table III: {population} population{further}", text, header, rows, words=True)


def _twenty(groups: dict[str, Group], population: str, finding: str) -> list[str]:
    """The row of the ensemble of all image-and-heatmaps models."""
    published = wu2019.TWENTY_AUC.get((population, finding))
    theirs = wu2019.MISSING if published is None else f"{published:.3f}"
    head = [wu2019.TWENTY, finding, "–", "–", f"{theirs} (20x)" if published else theirs]
    joins = {row: groups[row] for row in wu2019.TWENTY_ROWS if row in groups and groups[row].breasts}
    if missing := [_join(row) for row in wu2019.TWENTY_ROWS if row not in joins]:
        return [*head, "–", "–", f"not run: {', '.join(missing)}"]
    members = [one for group in joins.values() for one in group.breasts]
    counts = "+".join(str(len(group.breasts)) for group in joins.values())
    try:
        return [*head, _together(members, population, finding), counts, f"{len(members)} of 20 models"]
    except NotComparable:
        return [*head, "–", counts, "the joins were not measured on the same breasts"]


def _differences(groups: dict[str, Group], further: str) -> report.Section:
    """Published differences of single means beside ours of ensembles, on the same draws of patients."""
    theirs = {row.row: row.cells for row in wu2019.TABLE_3}
    rows = []
    for wanted, (population, finding) in product(wu2019.DIFFERENCES, CELLS):
        cells = [theirs[row][population, finding].mean for row in (wanted.a, wanted.b)]
        head = [wanted.label, population, finding, f"{cells[0] - cells[1]:+.3f}"]
        a, b = groups.get(wanted.a), groups.get(wanted.b)
        if not (a and b and a.breasts and b.breasts):
            rows.append([*head, "–", "not run"])
            continue
        first, second = _pair(a, b)
        status = f"{len(first)} − {len(second)} models"
        status += f"; {a.status}" if a.status == b.status else f"; first: {a.status}; second: {b.status}"
        try:
            rows.append([*head, _difference(first, second, population, finding), status])
        except NotComparable:
            rows.append([*head, "–", "not measured on the same breasts"])
    text = (
        "Published: the difference of the single models' means in Table III (our subtraction). Ours: AUC of the first"
        " ensemble minus that of the second, of the same seeds where there are such, on the same draws of patients."
    )
    header = ("difference", "population", "finding", "published", "ours", "status")
    return report.Section(f"Differences{further}", text, header, rows, words=True)


def _pair(a: Group, b: Group) -> tuple[list[Predictions], list[Predictions]]:
    """The breasts of the seeds that both have; of all seeds where they share none."""
    seeds = [{run.config["seed"]: one for run, one in zip(group.runs, group.breasts, strict=True)} for group in (a, b)]
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


def _reader_study(model: Group | None, readers: Path | None, further: str) -> report.Section:
    """The model, the readers and their hybrids; ours where there is a CSV of readers and the model's ensemble."""
    ours: dict[str, dict[str, Any]] = {}
    if readers is None:
        status = "not run: give --readers FILE.csv, the readers' probabilities of malignancy by breast"
    elif model is None or not model.breasts:
        status = f"not run: needs the runs of {wu2019.MODEL}"
    else:
        count = len(model.breasts)
        each = reader_file.read(readers)
        status = f"{len(each)} reader{'s' if len(each) > 1 else ''}, {count} model{'s' if count > 1 else ''}; "
        status += model.status
        try:
            ours = study.hybrid_summary(table.ensemble(model.breasts), each)
        except NotComparable as error:
            status = str(error)
    rows = []
    for one in wu2019.READERS:
        cells = []
        for metric in measure.METRICS:
            value, sd, span = (getattr(one, metric + end) for end in ("", "_sd", "_range"))
            mean = f"{value:.3f}" + (f"±{sd:.4f}" if sd else "")
            cells.append(mean + (f", {span[0]:.3f}–{span[1]:.3f}" if span else ""))
            found = ours.get(one.label, {})
            mine = f"{found[f'{metric}_mean']:.3f}" if found else "–"
            deviation = found.get(f"{metric}_sd")  # a single reader has none, and the model
            cells.append(mine + (f"±{deviation:.4f}" if deviation is not None else ""))
        rows.append([one.label, *cells, status])
    text = (
        f"Malignancy by breast. Published: {wu2019.READER_STUDY}; mean±sd over readers, their range where it is given;"
        " the model is the view-wise image-and-heatmaps ensemble, a hybrid the mean of a reader and the model."
    )
    header = ("who", "AUC, published", "AUC, ours", "PR AUC, published", "PR AUC, ours", "status")
    return report.Section(f"Reader study{further}", text, header, rows, words=True)


def _auc(breasts: Predictions, population: str, finding: str) -> float | None:
    part = table.population(breasts, population)
    if not measure.both_classes(part.label(finding)):
        return None
    return float(metrics.roc_auc(part.label(finding), part.score(finding)))


def _spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation of runs; of one run no deviation."""
    if not values:
        return "–"
    return f"{np.mean(values):.3f}" + (f"±{np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def _together(breasts: Sequence[Predictions], population: str, finding: str) -> str:
    """AUC of an ensemble with its interval."""
    part = table.population(table.ensemble(breasts), population)
    return report.interval_text(measure.estimate(part, finding, "auc"))


def _join(row: str) -> str:
    return row.partition(":")[2].removesuffix("+heatmaps")


def commands(runs: Sequence[PaperRun], pretraining: Sequence[PaperRun], root: Path = Path("runs")) -> list[str]:
    """What to type for the runs that Table III lacks: patch and BI-RADS networks, then five seeds of each row.

    Args:
        runs: the exam runs of one data set; the patch network of one of the paper's settings is taken again.
        pretraining: the BI-RADS runs of that data set; the first of the paper's settings is started from.
        root: the folder of runs.
    """
    started = next((run.path for run in pretraining if not exam_settings(run)), None)
    nets = (run.config.get("patch_run", "") for run in runs if not exam_settings(run))
    known = next((net for net in nets if net), "")
    start, net = (shlex.quote(str(path)) for path in (started or root / "birads", known or root / "exam_patch"))
    lines = [] if known else [f"python launch.py --config configs/exam_patch.py --workdir {net}"]
    lines += [] if started else [f"python launch.py --config configs/birads.py --workdir {start}"]
    there = {(run.row, run.config["seed"]) for run in runs}
    before = len(lines)
    for row, seed in product(wu2019.TABLE_3, range(wu2019.SEEDS)):
        if (row.row, seed) not in there:
            name = row.row.partition(":")[2]
            line = f"python launch.py --config configs/exam.py:{name} --config.seed={seed}"
            line += "" if name.endswith("-scratch") else f" --config.init_from={start}"
            line += f" --config.patch_run={net}" if "+heatmaps" in name else ""
            lines.append(f"{line} --workdir {shlex.quote(str(root / f'exam_{name}_{seed}'))}")
    return lines if len(lines) > before else []


def write(folder: Path, output: Path | None, readers: Path | None = None) -> None:
    """Print the tables and the commands for what is not run; as a page too where `output` names a .html file.

    Args:
        folder: the folder that holds the run folders.
        output: the page.
        readers: the readers' CSV, see `readers.read`.

    Raises:
        BadCheckpoint: as `exam_runs`.
    """
    runs = exam_runs(folder)
    if not paper_config.at_hand():
        print(paper_config.MISSING)
    sections = tables(runs, readers)
    for section in sections:
        text = textwrap.fill(section.text, WIDTH)
        print(f"\n## {section.heading}\n{text}\n\n{with_notes(section.header, section.rows)}")
    print("\n## Notes\n")
    for note in wu2019.NOTES:
        print(textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  "))
    sets = data_sets(runs)
    for name, members in sets.items() or [("", [])]:
        data = {run.facts["name"] for run in members or runs}
        pretraining = [run for run in runs if run.row == "birads" and run.facts["name"] in data]
        if todo := commands(members, pretraining, folder / name if len(sets) > 1 else folder):
            heading = "To fill the empty cells" + (f" of {name}" if name else "")
            print(f"\n## {heading}\n\n" + "\n".join(todo), flush=True)
            text = (
                "Patch network and pretraining first, as the others need them; each takes "
                "--config.data.source=MANIFEST. configs/exam_ensemble.py runs five seeds of a row in one command."
            )
            print(textwrap.fill(text, WIDTH), flush=True)
            sections.append(report.Section(heading, text, commands=todo))
    if output:
        report.write_page(output, "Wu et al. 2019: published values and ours", wu2019.NOTES, sections)
        print(f"\n→ {output}", flush=True)
