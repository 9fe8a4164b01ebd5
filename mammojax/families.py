"""Experiments of several runs: one config at several numbers of labelled patients, or as several seeds and joins.

Seeds and joins are those of Wu et al. 2019, section V: "We trained five copies of each model with different random
initializations of the weights in the fully connected layers"; the ensemble of 20 is "of the four model variants […]
with five randomly initialized models per variant".
"""

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib
import ml_collections
from matplotlib.figure import Figure

from mammojax import processes, run
from mammojax.data.dataset import of_patients
from mammojax.data.recipe import data_dir
from mammojax.errors import BadConfig
from mammojax.evaluate import measure, plots, populations, table
from mammojax.evaluate.report import interval_text


def launch(config: ml_collections.ConfigDict, workdir: Path) -> Any:
    """Run a config: a sweep if it has `patients_labelled`, several runs if it has `members`, else one run."""
    if processes.several() and ("patients_labelled" in config or "members" in config):
        raise BadConfig("several runs in one config are trained one after the other; start them with one process.")
    if "patients_labelled" in config:
        return sweep(config, workdir)
    if "members" in config:
        return members(config, workdir)
    return run.run(config, workdir)


def sweep(config: ml_collections.ConfigDict, workdir: Path) -> list[dict[str, Any]]:
    """Run `config` once for each number of `config.patients_labelled`; write a table and a plot.

    The labels of the other training patients are not used; validation and test set stay the same, and the
    patients of a smaller number are among those of a greater one. Started again, the sweep goes on where it stopped.

    Args:
        config: of a whole-image run, with `patients_labelled`, numbers of training patients (0: all).
        workdir: gets patients_<n>/ (run folders), label_efficiency.csv and label_efficiency.png.

    Returns:
        The rows of the CSV: patients, images, auc, low, high (empty where the test split has too few of a class),
        test_images (negatives + positives), auc_flips (four flips averaged).

    Raises:
        as `run.run`; before training BadConfig if no size is given or a size's folder holds a run of another config,
        BadDataset if the train split has fewer patients.
    """
    sizes = tuple(config.patients_labelled)
    if not sizes or min(sizes) < 0:
        raise BadConfig("config.patients_labelled must list numbers of patients, 0 for all: (20, 30, 40, 50, 60).")
    config = run.check(config)
    workdir.mkdir(parents=True, exist_ok=True)
    # All runs share the data set prepared for the first.
    folders = [workdir / f"patients_{size or 'all'}" for size in sizes]
    configs: list[ml_collections.ConfigDict] = []
    rows: list[dict[str, Any]] = []
    for size, folder in zip(sizes, folders, strict=True):
        sized = config.copy_and_resolve_references()  # ConfigDict(config) would share its inner dictionaries
        with sized.unlocked():
            del sized.patients_labelled
            sized.data.patients, sized.data.data_dir = size, data_dir(config, workdir)
        run.check_folder(sized, folder)
        configs.append(sized)
    for sized in configs:
        table = run.dataset(sized, workdir).table("train")
        used = of_patients(table, sized.data.patients or len({row["patient_id"] for row in table}), sized.seed)
        rows.append({"patients": len({table[k]["patient_id"] for k in used}), "images": len(used)})
    for row, sized, folder in zip(rows, configs, folders, strict=True):
        print(f"{row['patients']} labelled patients, {row['images']} images → {folder}", flush=True)
        measured = run.run(sized, folder)
        auc = measured["test"]["auc"]
        row |= {"auc": auc["value"], "low": auc["low"], "high": auc["high"]}
        row["test_images"] = " + ".join(map(str, auc["n"]))
        row["auc_flips"] = measured["test_flips"]["auc"]["value"]
    with (workdir / "label_efficiency.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(5.6, 3.8), layout="constrained")
        plots.label_efficiency(figure.subplots(), rows)
        figure.savefig(workdir / "label_efficiency.png", dpi=150, bbox_inches="tight")
    print(f"\n{'patients':>8}{'images':>8}  test AUC by image")
    for row in rows:
        text = interval_text({"value": row["auc"], "low": row["low"], "high": row["high"]})
        print(f"{row['patients']:>8}{row['images']:>8}  {text}, n {row['test_images']}")
    print(f"\nplot: {workdir / 'label_efficiency.png'}", flush=True)
    return rows


def members(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Run `config` once for each of `config.members.joins` and `config.members.seeds`, then measure their mean.

    The first member trains the config's patch and BI-RADS networks once, with the member's seed; the other members
    start from these runs. Started again, it goes on where it stopped.

    Args:
        config: of an exam run, with `members`: seeds, joins.
        workdir: gets <join>_<seed>/ (run folders) and ensemble.json.

    Returns:
        The contents of ensemble.json: {"members": n, "test_random10": `measure.measure_breasts` of the mean of all
        members}.

    Raises:
        as `run.run`; before training BadConfig if a list is empty or a member's folder holds a run of another config.
    """
    seeds, joins = tuple(config.members.seeds), tuple(config.members.joins)
    if not seeds or not joins:
        raise BadConfig("config.members.seeds and config.members.joins must each name at least one.")
    parts = []
    for join in joins:
        for seed in seeds:
            member = config.copy_and_resolve_references()
            with member.unlocked():
                del member.members
                member.seed, member.model.join = seed, join
                member.data.data_dir = data_dir(config, workdir)
                member.row = member.row.replace(config.model.join, join)
            parts.append((workdir / f"{join}_{seed}", run.check(member)))
    first = parts[0][0]
    for _, member in parts[1:]:  # all share one pretraining and one patch network's heatmaps
        for name, field in (("birads", "init_from"), ("patch", "patch_run")):
            if name in member and not member[field]:
                member[field] = str(first / name)
                if member[name].model.get("pretrained", ""):
                    member[name].model.pretrained = ""  # the first member's network started from it
    for folder, member in parts:
        if folder.is_dir():  # else its start may not exist yet
            run.check_folder(member, folder)
    for folder, member in parts:
        print(f"{folder.name} → {folder}", flush=True)
        run.run(member, folder)
    read = [table.read_breasts(folder, "test_random10") for folder, _ in parts]
    measured = measure.measure_breasts(table.ensemble(read), config.bootstrap_runs, config.seed)
    result = {"members": len(parts), "test_random10": measured}
    (workdir / "ensemble.json").write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    populations.write([folder for folder, _ in parts], "test_random10", [], None)
    print(f"\nensemble of {len(parts)}: {workdir / 'ensemble.json'}", flush=True)
    return result
