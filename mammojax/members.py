"""One config as several exam runs that are averaged: seeds of a row, or of all joins (Wu et al. 2019, section V).

"We trained five copies of each model with different random initializations of the weights in the fully connected
layers"; the ensemble of 20 is "of the four model variants […] with five randomly initialized models per variant".
"""

import json
from pathlib import Path
from typing import Any

import ml_collections

from mammojax import run
from mammojax.errors import BadConfig
from mammojax.evaluate import measure, populations, table


def members(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Run `config` once for each of `config.members.joins` and `config.members.seeds`, then measure their mean.

    The patch and BI-RADS networks that the config holds are trained once, with its own seed, by the first member, and
    named to the others. Started again, it goes on where it stopped.

    Args:
        config: of an exam run, with `members`: seeds, joins.
        workdir: gets <join>_<seed>/ (run folders) and ensemble.json.

    Returns:
        What ensemble.json holds: {"members": n, "test_random10": `measure.measure_breasts` of the mean of all members}.

    Raises:
        as `run.run`; before anything is trained BadConfig where a list is empty or a member's folder holds a run of
        another config.
    """
    seeds, joins = tuple(config.members.seeds), tuple(config.members.joins)
    if not seeds or not joins:
        raise BadConfig("config.members.seeds and config.members.joins must each name at least one.")
    data_dir = config.data.data_dir or (str(workdir / "data") if config.data.name.startswith("phantom") else "")
    parts = []
    for join in joins:
        for seed in seeds:
            one = config.copy_and_resolve_references()
            with one.unlocked():
                del one.members
                one.seed, one.model.join, one.data.data_dir = seed, join, data_dir
                one.row = one.row.replace(config.model.join, join)
            parts.append((workdir / f"{join}_{seed}", run.check(one)))
    first = parts[0][0]
    for _, one in parts[1:]:  # all start from one pretraining, and see one patch network's heatmaps
        for name, field in (("birads", "init_from"), ("patch", "patch_run")):
            if name in one and not one[field]:
                one[field] = str(first / name)
                if one[name].model.get("pretrained", ""):
                    one[name].model.pretrained = ""  # the first member's network started from it
    for folder, one in parts:
        if folder.is_dir():  # else what it starts from may not be there yet
            run.check_folder(one, folder)
    for folder, one in parts:
        print(f"{folder.name} → {folder}", flush=True)
        run.run(one, folder)
    read = [table.read_breasts(folder, "test_random10") for folder, _ in parts]
    measured = measure.measure_breasts(table.ensemble(read), config.bootstrap_runs, config.seed)
    result = {"members": len(parts), "test_random10": measured}
    (workdir / "ensemble.json").write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    populations.write([folder for folder, _ in parts], "test_random10", [], None)
    print(f"\nensemble of {len(parts)}: {workdir / 'ensemble.json'}", flush=True)
    return result
