"""A scored split of exams: its file, and what is measured of it (Wu et al. 2019, sections IV and V)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mammojax import metrics
from mammojax.data import exams
from mammojax.data.cells import Writer
from mammojax.evaluate import populations
from mammojax.evaluate.predictor import numbers
from mammojax.vocabulary import BIRADS, FINDINGS, LABELS

Scored = list[tuple[exams.Exam, np.ndarray]]
"""Exams, their images those that the network used, with what it says of each: float64 [4, 2] by LABELS, NaN of a breast
without such an image, or [1, 3] by BIRADS."""


def write(workdir: Path, name: str, scored: Scored, target: str) -> None:
    """Write WORKDIR/predictions/NAME.csv: a row a breast, of a BI-RADS network a row an exam.

    Raises:
        BadCheckpoint: see `predictor.numbers`.
    """
    for exam, probabilities in scored:
        seen = [any(view[0] == label[0].upper() for view in exam.images) for label in LABELS]
        numbers(probabilities if target == "birads" else probabilities[seen])
    path = workdir / "predictions" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    (_write_birads if target == "birads" else _write_breasts)(path, scored)


def _rows(scored: Scored, target: str) -> Iterator[tuple[str, np.ndarray, np.ndarray, list[str]]]:
    """Each task's name, labels of 0 and 1, scores and patients, over the exams with a known label and a score.

    Four labels for cancer, three one-vs-rest for BI-RADS.
    """
    if target == "birads":
        known = [(e.birads, p[0], e.patient_id) for e, p in scored if e.birads >= 0]
        for k, name in enumerate(BIRADS):
            label, score = np.array([int(b == k) for b, *_ in known]), np.array([p[k] for _, p, _ in known])
            yield name, label, score, [patient for *_, patient in known]
        return
    for k, name in enumerate(LABELS):
        seen = [(e.label[k], p[k, 1], e.patient_id) for e, p in scored if e.label[k] >= 0 and not np.isnan(p[k, 1])]
        label, score = np.array([label for label, *_ in seen]), np.array([score for _, score, _ in seen])
        yield name, label, score, [patient for *_, patient in seen]


def summary(scored: Scored, target: str) -> dict[str, float]:
    """Loss of the averaged probabilities, in nats an exam, and the mean AUC that chooses the best epoch.

    Of the four labels (section IV-A.1: "the average of the validation AUCs over the four prediction tasks"), or of
    BI-RADS 0, 1, 2 against the others (section IV-C). A label that is all of one kind has no AUC and is not counted.
    """
    aucs, loss = [], 0.0
    for _, label, score, _ in _rows(scored, target):
        if len(set(label.tolist())) == 2:
            aucs.append(float(metrics.roc_auc(label, score)))
        hit = score[label == 1]
        misses = np.zeros(0) if target == "birads" else 1 - score[label == 0]
        loss -= float(np.log(np.maximum(np.concatenate([hit, misses]), 1e-12)).sum())
    return {"loss": loss / max(len(scored), 1), "auc": float(np.mean(aucs)) if aucs else float("nan")}


def measure(workdir: Path, name: str, scored: Scored, target: str, runs: int, seed: int) -> dict[str, Any]:
    """What metrics.json holds of a written split: each metric with its patient-clustered interval.

    Cancer: auc_<finding>, pr_auc_<finding> by breast, the same of biopsied breasts as …_biopsied, and "auc", the mean
    AUC of the four labels by exam. BI-RADS: auc_0, auc_1, auc_2 and their mean.
    """
    results: dict[str, Any] = {}
    rows = list(_rows(scored, target))
    kept = [exam for exam, _ in scored if target != "birads" or exam.birads >= 0]
    if target == "birads":
        patient = np.array([exam.patient_id for exam in kept])
        for task, label, score, _ in rows:
            interval = metrics.bootstrap(metrics.roc_auc, label, score, patient, runs, seed)
            results[f"auc_{task}"] = interval.to_json(label)
        truth = np.stack([label for _, label, *_ in rows], axis=1).argmax(1)
        called = np.stack([score for *_, score, _ in rows], axis=1).argmax(1)
        results["accuracy"] = metrics.bootstrap(metrics.accuracy, truth, called, patient, runs, seed).to_json(truth)
    else:
        breasts = populations.read(workdir, name)
        found = populations.measure(breasts, runs, seed)
        for population, values in found.items():
            suffix = "" if population == "screening" else f"_{population}"
            for finding in FINDINGS:
                for metric, value in values[finding].items():
                    if value is not None:
                        results[f"{metric}_{finding}{suffix}"] = value
    results["auc"] = _mean_auc(rows, kept, runs, seed)
    results["exams"] = len(scored)
    return results


def _mean_auc(rows: list[Any], kept: list[exams.Exam], runs: int, seed: int) -> dict[str, Any]:
    """The mean over tasks of their AUC, with an interval over patients; see `summary`.

    Its "n" is that of the task with the fewest positives or negatives, which also says whether there are too few.
    """
    tasks = [(label, score, patients) for _, label, score, patients in rows if len(set(label.tolist())) == 2]
    ids = sorted({exam.patient_id for exam in kept})
    place = {name: k for k, name in enumerate(ids)}

    def mean(weights: np.ndarray | None) -> np.ndarray | float:
        values = [
            np.asarray(metrics.roc_auc(label, score, None if weights is None else weights[:, [place[p] for p in who]]))
            for label, score, who in tasks
        ]
        return np.mean(values, axis=0)

    nan = float("nan")
    if not tasks:
        return metrics.Interval(nan, nan, nan).to_json()
    fewest = min((label for label, *_ in tasks), key=lambda label: min(metrics.class_counts(label)))
    if metrics.too_few(fewest):
        return metrics.Interval(float(mean(None)), nan, nan).to_json(fewest)
    return metrics.interval_of(mean, np.array(ids), runs, seed).to_json(fewest)


def _write_birads(path: Path, scored: Scored) -> None:
    with path.open("w", newline="") as file:
        writer = Writer(file, ("exam_id", "patient_id", "birads", *(f"p_{name}" for name in BIRADS)))
        for exam, p in scored:
            said = BIRADS[exam.birads] if exam.birads >= 0 else ""
            writer.row((exam.exam_id, exam.patient_id, said, *(repr(float(v)) for v in p[0])))


def _write_breasts(path: Path, scored: Scored) -> None:
    """A row for each breast with an image that was used: populations.KNOWN, biopsied, the manifest's other columns."""
    own = (*populations.KNOWN, "biopsied")
    further = dict.fromkeys(c for exam, _ in scored for side in exam.columns.values() for c in side if c not in own)
    with path.open("w", newline="") as file:
        writer = Writer(file, (*own, *further))
        for exam, p in scored:
            for side, breast in (("L", "left"), ("R", "right")):
                views = [view[2:] for view in exam.images if view.startswith(side)]
                if not views:
                    continue
                at = [LABELS.index(f"{breast}_{finding}") for finding in ("benign", "malignant")]
                scores = [repr(float(p[k, 1])) for k in at]
                labels = ["" if exam.label[k] < 0 else int(exam.label[k]) for k in at]
                facts = [exam.columns[side].get(column, "") for column in further]
                known = [exam.exam_id, exam.patient_id, side, "+".join(views)]
                writer.row((*known, *scores, *labels, int(exam.biopsied(side)), *facts))
