"""Does a network of two views beat two views' mean? python -m benchmarks two_views [--seeds 0 1 2 3 4] [--workdir DIR].

Narrow ResNets on a phantom of both breasts, a phantom a seed; all arms are measured on the same test breasts.

    single view           configs/single_view.py:quickstart, patches first; a breast's score is the mean of its views
    single view, longer   the same, trained on for as many updates as the next arm's
    two views             configs/two_view.py:quickstart, from the single-view network (Petrini et al. 2022)
    ResNet-22, view-wise  exams of four views (Wu et al. 2019) from random weights, in as many updates as the patch, the
                          single-view and the two-view network have together

A row is the mean over seeds of the AUC by breast, its interval from draws of patients, the spread over seeds, and the
difference from "single view, longer". One arm and seed runs at a time; a call that was stopped goes on.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from benchmarks._arms import over_seeds
from mammojax import run, start, train_patients
from mammojax.configs import exam_quickstart, two_view
from mammojax.data import phantom
from mammojax.evaluate import table

PATIENTS, CONTRAST = 160, 1.0
LONGER, TWO, EXAMS = "single view, longer", "two views", "ResNet-22, view-wise"
ARMS = ("single view", LONGER, TWO, EXAMS)


def _folder(workdir: Path, arm: str, seed: int) -> Path:
    return workdir / f"{arm.replace(', ', '_').replace(' ', '_')}_{seed}"


def _config(arm: str, seed: int, workdir: Path) -> ConfigDict:
    """The config of an arm; its start is finished, if it has one."""
    config = exam_quickstart.get_config("view-wise-scratch") if arm == EXAMS else two_view.get_config("quickstart")
    source = workdir / f"phantom_{seed}"
    config.data.update(name="manifest", source=str(source / "manifest.csv"), data_dir=str(workdir / "data"), seed=seed)
    config.seed = seed
    if not (source / "manifest.csv").is_file():
        phantom.write_phantom(source, patients=PATIENTS, seed=seed, contrast=CONTRAST, both_breasts=True)
    single = _folder(workdir, "single view", seed)
    if arm == EXAMS:
        config.batch = 4
        del config.data.threshold  # the manifest's films have grain beside the breast; found by image
        updates = sum(_updates(folder) for folder in (single / "patch", single, _folder(workdir, TWO, seed)))
        exams = len(train_patients.read(single).patients)  # one of each patient, all with a biopsy
        config.stages.stage1.epochs = round(updates / (exams // config.batch))
        return config
    if arm == TWO:
        config.init_from = str(single)
        del config.single_view
        return config
    config = start.part(config, "single_view", workdir)
    config.data.prepare = True
    if arm == LONGER:
        config.init_from = str(single)
        del config.patch
        every_epoch = _updates(single) / sum(stage.epochs for stage in config.stages.values())
        config.stages = ConfigDict({"stage1": config.stages.stage2})
        config.stages.stage1.epochs = round(_updates(_folder(workdir, TWO, seed)) / every_epoch)
    return config


def _updates(folder: Path) -> int:
    """How many updates a finished run took."""
    return max(json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines())


def main(arguments: Sequence[str]) -> list[dict]:
    """Run the arms that are not finished; a row for each arm."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks two_views")
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workdir", type=Path, default=Path("runs/two_views"))
    args = parser.parse_args(arguments)
    args.workdir.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for arm in ("single view", TWO, LONGER, EXAMS):  # the number of updates of the later ones follows the earlier
            folder = _folder(args.workdir, arm, seed)
            if arm in args.only and not (folder / "metrics.json").is_file():
                run.run(_config(arm, seed, args.workdir), folder)
    scored = {arm: _scored(arm, args.seeds, args.workdir) for arm in ARMS}
    return [
        over_seeds(arm, scored[arm], scored[LONGER] if arm != LONGER else {}, LONGER) for arm in ARMS if scored[arm]
    ]


def _scored(arm: str, seeds: Sequence[int], workdir: Path) -> dict[int, table.Predictions]:
    """The scores of the test breasts of an arm's finished seeds, flips or windows averaged."""
    scored = {}
    for seed in seeds:
        folder = _folder(workdir, arm, seed)
        if not (folder / "metrics.json").is_file():
            continue
        if arm == EXAMS:
            frame = table.read_csv(folder / "predictions" / "test_random10.csv")
            frame = frame.assign(
                malignant=frame["malignant"].astype(int), p_malignant=frame["p_malignant"].astype(float)
            )
        else:
            frame = table.read_images(folder, "test_flips").frame
        if arm != TWO and arm != EXAMS:
            frame = table.by_breast(table.Predictions(arm, frame)).rename(columns={"both": "p_malignant"})
        frame = frame.assign(image=frame["patient_id"] + frame["laterality"])
        scored[seed] = table.Predictions(arm, frame[["image", "patient_id", "malignant", "p_malignant"]])
    return scored
