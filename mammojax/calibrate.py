"""`mammojax calibrate`: probabilities and an operating point for a finished run, fitted on examples it did not learn.

They are fitted on images that chose nothing else where there are such: the validation patients that
`config.calibration` has set aside, or a manifest of other patients. Without them the validation split is used, which
has chosen the epoch, and the page says so.
"""

import argparse
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mammojax import arguments, train_patients
from mammojax.data import dataset, exams
from mammojax.data.pairs import Pairs
from mammojax.errors import BadCheckpoint, NotComparable
from mammojax.evaluate import calibration, calibration_report, run_report, table
from mammojax.evaluate.calibration import AIMS
from mammojax.evaluate.predict import predict
from mammojax.evaluate.table import Predictions
from mammojax.train.checkpoint import read_config


def calibrate(
    run: Path, data: Path | None = None, tta: str = "", aims: Sequence[tuple[str, float]] = (),
    prevalences: Sequence[float] = (), words: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Fit, measure on the test split, write calibration.json and calibration.html into RUN; report.html shows it too.

    Args:
        run: a finished whole-image, two-view or exam run.
        data: a manifest of labelled images of other patients; None: the run's own validation patients.
        tta: "none", or "flips" (whole images, two views) or "random10" (exams), the default.
        aims: of the operating points, see `calibration.AIMS`, and their values; the first is that of the decisions.
        prevalences: shares of malignant examples for which PPV, NPV and recall rate are given; the first is that of an
            aim at a recall rate.
        words: the meaning of the manifest's words for pathologies.

    Returns:
        The contents of calibration.json.

    Raises:
        BadCheckpoint: the run cannot be calibrated. NotComparable: the predictions cannot be used, or are too few.
    """
    config, facts = read_config(run)
    if config.model.task not in ("whole", "two_view", "exam") or config.model.get("target", "cancer") == "birads":
        raise BadCheckpoint(f'"{run}" scores no cancer of images or breasts; give a whole-image, two-view or exam run.')
    of_images = config.model.task != "exam"
    tta = tta or ("flips" if of_images else "random10")
    if tta not in ("none", "flips" if of_images else "random10"):
        raise BadCheckpoint(f"--tta {tta} is not of this run; write none or {'flips' if of_images else 'random10'}.")
    read, suffix = (table.read_images if of_images else table.read_breasts), "" if tta == "none" else f"_{tta}"
    test = read(run, f"test{suffix}")
    if data is not None:
        if not of_images:
            raise BadCheckpoint(
                "--data is for whole-image and two-view runs; exam runs set patients aside: config.calibration."
            )
        examples = _predicted(run, data, tta, config.model.task)
        fitted_on, chose_nothing = f"the {'images' if config.model.task == 'whole' else 'breasts'} of {data.name}", True
    else:
        examples, fitted_on, chose_nothing = _of_validation(run, read(run, f"val{suffix}"))
    first = prevalences[0] if prevalences else None
    fitted = calibration.fit(examples, _trained_prior(run, config, facts), tta, fitted_on, chose_nothing, aims, first)
    measured: dict[str, Any] = {"quality": {"test": calibration.quality(test, fitted)}}
    measured["quality"]["fitted on"] = calibration.quality(examples, fitted)
    if fitted.threshold is not None:
        shares = (float(test.label().mean()), *prevalences)
        measured |= _operating(test, examples, fitted.threshold, shares)
        measured["further"] = [_operating(test, examples, point.threshold, shares) for point in fitted.further]
    fitted.save(run, measured)
    calibration_report.write(run, fitted, measured, test, examples)
    run_report.refresh(run)
    return {"calibration": fitted, **measured}


def _operating(test: Predictions, examples: Predictions, at: float, shares: Sequence[float]) -> dict[str, Any]:
    """What a threshold gives on the test split at some shares of malignant examples, and where it was chosen."""
    return {
        "operating": [calibration.operating(test, at, share) for share in shares],
        "operating_fitted_on": calibration.operating(examples, at, float(examples.label().mean())),
    }


def _of_validation(run: Path, val: Predictions) -> tuple[Predictions, str, bool]:
    """The validation examples that were set aside, else all of them."""
    file = run / dataset.ASIDE
    if not file.is_file():
        return val, "the validation split, which also chose the epoch", False
    aside = set(file.read_text().splitlines())
    return val[np.isin(val.patient, sorted(aside))], "the validation patients that chose no epoch", True


def _predicted(run: Path, data: Path, tta: str, task: str) -> Predictions:
    """The run's scores of a manifest's labelled images, or breasts.

    Raises:
        NotComparable: the run knows some of the patients, or no image can be scored.
    """
    with tempfile.TemporaryDirectory() as folder:
        if predict([run], data, Path(folder), tta):
            raise NotComparable(f'"{data.name}": no image of it can be scored; see mammojax check.')
        examples = table.read_plain(Path(folder) / ("predictions.csv" if task == "whole" else "breasts.csv"))
    known = {patient for _, patient in train_patients.read(run).patients}
    for split in ("val", "test"):
        known |= set(table.read_images(run, split).patient)
    if shared := known & set(examples.patient):
        raise NotComparable(
            f"{data.name}: {len(shared)} of its patients stand in the run's own train, val or test split; calibrate "
            "on patients that have chosen nothing."
        )
    return examples


def _trained_prior(run: Path, config: Any, facts: dict[str, Any]) -> float:
    """The share of malignant examples that the run's training amounted to."""
    if config.model.task != "exam" and config.get("balance_loss", False):
        return 0.5
    if config.model.task == "whole":
        counts = facts["counts"]["train"]
        return counts["malignant"] / sum(counts.values())
    if config.model.task == "two_view":
        breasts = Pairs(dataset.of_run(run), "train", config.model.pair).pairs
        return float(np.mean([breast.label for breast in breasts if breast.label >= 0]))
    windows = exams.Windows(
        dataset.of_run(run), config.exam.sizes, target="cancer", angles=tuple(config.model.angles), noise=0,
        batch=config.batch, epochs=1, seed=0,
    )  # fmt: skip
    return (windows.share("left_malignant") + windows.share("right_malignant")) / 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax calibrate`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished whole-image or exam run")
    parser.add_argument("--data", type=Path, help="a manifest of labelled images of other patients to fit on")
    parser.add_argument("--map", default="", help="the manifest's words for pathologies, such as 0=BENIGN,1=MALIGNANT")
    parser.add_argument(
        "--tta", default="", choices=["none", "flips", "random10"], help="default: flips, of exams random10"
    )
    for aim in AIMS:
        parser.add_argument(
            f"--{aim.replace('_', '-')}", dest="aims", default=[], action="append",
            type=functools.partial(_aim, aim), metavar="SHARE",
            help="choose an operating point by it; of several the first given decides",
        )  # fmt: skip
    parser.add_argument(
        "--prevalence",
        type=arguments.share,
        action="append",
        default=[],
        help="PPV, NPV, recall at it; 0.006: screening",
    )


def _aim(aim: str, text: str) -> tuple[str, float]:
    return aim, arguments.share(text)


def main(args: argparse.Namespace) -> int:
    """Run `mammojax calibrate`; see `calibrate`."""
    calibrate(args.run, args.data, args.tta, list(dict.fromkeys(args.aims)), args.prevalence, args.map)
    return 0
