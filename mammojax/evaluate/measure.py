"""The metrics of a scored split, as metrics.json holds them, for images and for exams.

Wu et al. 2019, section V: AUC and PR AUC of malignant/not and benign/not by breast, on the screening population (every
exam of the split) and on the biopsied one. Section V-A defines it by exams with a biopsied breast, but section V-D
counts 401 breasts, each with a finding; so ours holds biopsied breasts. Our intervals are over patients.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mammojax import metrics
from mammojax.data.exams import Exam
from mammojax.errors import BadDataset
from mammojax.evaluate import table
from mammojax.evaluate.table import POPULATIONS, Exams, Predictions
from mammojax.vocabulary import BIRADS, FINDINGS, LABELS

RUNS = 3000
"""Bootstrap draws of patients (Shen et al. 2019)."""
METRICS: dict[str, metrics.Metric] = {"auc": metrics.roc_auc, "pr_auc": metrics.pr_auc}


def summary(scored: dict[str, np.ndarray]) -> dict[str, float]:
    """Loss, accuracy and (two classes) AUC of a scored split; examples without a label are left out."""
    labelled = scored["label"] >= 0
    scores, label = scored["scores"][labelled], scored["label"][labelled]
    loss = -np.log(np.maximum(scores[np.arange(len(label)), label], 1e-12)).mean()
    result = {"loss": float(loss), "accuracy": float((scores.argmax(1) == label).mean())}
    if scores.shape[1] == 2:
        result["auc"] = float(metrics.roc_auc(label, scores[:, 1]))
    return result


def measure(scored: dict[str, np.ndarray], patients: Sequence[str], *, runs: int, seed: int) -> dict[str, Any]:
    """Each metric of a split with its patient-clustered 95 % interval.

    Args:
        scored: "scores" and "label" as `ImagePredictor.score_split` returns them; label -1 (unknown) is left out.
        patients: [N], the patient of each example.
        runs: bootstrap draws (Shen et al. 2019: 3000).
        seed: of the draws.

    Returns:
        {metric: {"value", "low", "high", "n"}, "confusion_matrix": [[n]], "images": n}: an entry of
        metrics.json. "n" lists the number of images (for "auc_by_patient": patients) of each class; low and high are
        None where those are too few for an interval, the value too where a class is absent.

    Raises:
        BadDataset: the split has no labelled example.
    """
    labelled = scored["label"] >= 0
    scores, label, patient = scored["scores"][labelled], scored["label"][labelled], np.asarray(patients)[labelled]
    if not len(label):
        raise BadDataset("a split has no labelled example; give the manifest pathologies or another split.")
    chosen: dict[str, Any] = {"accuracy": (metrics.accuracy, scores.argmax(1))}
    if scores.shape[1] == 2:
        chosen |= {
            "auc": (metrics.roc_auc, scores[:, 1]),
            "pr_auc": (metrics.pr_auc, scores[:, 1]),
            "sensitivity_at_0.8_specificity": (metrics.sensitivity_at_specificity, scores[:, 1]),
            "specificity_at_0.86_sensitivity": (metrics.specificity_at_sensitivity, scores[:, 1]),
        }
    result: dict[str, Any] = {}
    for name, (metric, score) in chosen.items():
        interval = metrics.bootstrap(metric, label, score, patient, runs=runs, seed=seed)
        result[name] = interval.to_json(label)
    if scores.shape[1] == 2:
        ids, index = np.unique(patient, return_inverse=True)
        any_label, highest = np.zeros(len(ids), int), np.zeros(len(ids))
        np.maximum.at(any_label, index, label)
        np.maximum.at(highest, index, scores[:, 1])  # a patient's score is that of the most suspicious image
        interval = metrics.bootstrap(metrics.roc_auc, any_label, highest, ids, runs=runs, seed=seed)
        result["auc_by_patient"] = interval.to_json(any_label)
    classes = scores.shape[1]
    result["confusion_matrix"] = metrics.confusion_matrix(label, scores.argmax(1), classes).tolist()
    result["images"] = len(label)
    return result


def abilities(
    score: np.ndarray, label: np.ndarray, benign: np.ndarray, patients: Sequence[str], runs: int = RUNS
) -> dict[str, dict[str, Any]]:
    """What a network tells apart: malignant images from those with an outlined benign lesion, and from all others.

    Args:
        score, label: [N], of images; label -1 (unknown) is left out.
        benign: bool [N], whether an image that is not malignant has an outlined benign lesion.
        patients: [N].
        runs: bootstrap draws of patients.

    Returns:
        {"images without an outlined lesion", "images with a benign lesion": `metrics.Interval.to_json`}; a part that no
        image belongs to is left out.
    """
    result = {}
    for name, others in (("images without an outlined lesion", ~benign), ("images with a benign lesion", benign)):
        among = (label == 1) | ((label == 0) & others)
        if both_classes(label[among]):
            interval = metrics.bootstrap(
                metrics.roc_auc, label[among], score[among], np.asarray(patients)[among], runs=runs
            )
            result[name] = interval.to_json(label[among])
    return result


def both_classes(label: np.ndarray) -> bool:
    """Whether an AUC can be computed."""
    return bool((label == 1).any() and (label == 0).any())


def estimate(breasts: Predictions, finding: str, metric: str, runs: int = RUNS, seed: int = 0) -> dict[str, Any] | None:
    """One of METRICS with its 95 % interval, as `metrics.Interval.to_json` has it; None where a class is absent."""
    label, score = breasts.label(finding), breasts.score(finding)
    if not both_classes(label):
        return None
    return metrics.bootstrap(METRICS[metric], label, score, breasts.patient, runs, seed).to_json(label)


def measure_breasts(breasts: Predictions, runs: int = RUNS, seed: int = 0) -> dict[str, Any]:
    """AUC and PR AUC of both findings on both populations.

    Args:
        breasts: from `table.read_breasts` or `table.ensemble`.
        runs: bootstrap draws of patients.
        seed: of the draws.

    Returns:
        {population: {"counts": {"breasts", "malignant", "benign", "both", "patients"}, finding: {"auc", "pr_auc"}}} for
        POPULATIONS and FINDINGS; an entry is from `estimate`, None where a class is absent. "malignant" and
        "benign" count breasts with the finding, "both" those with both findings.
    """
    result: dict[str, Any] = {}
    for name in POPULATIONS:
        part = table.population(breasts, name)
        malignant, benign = part.label("malignant") == 1, part.label("benign") == 1
        counts = {
            "breasts": len(part), "malignant": int(malignant.sum()), "benign": int(benign.sum()),
            "both": int((malignant & benign).sum()), "patients": len(set(part.patient)),
        }  # fmt: skip
        measured = {f: {metric: estimate(part, f, metric, runs, seed) for metric in METRICS} for f in FINDINGS}
        result[name] = {"counts": counts, **measured}
    return result


def _tasks(scored: Exams, target: str) -> Iterator[tuple[str, np.ndarray, np.ndarray, list[str]]]:
    """Each task's name, labels of 0 and 1, scores and patients, over the exams with a label and a score.

    Four labels for cancer, three one-vs-rest for BI-RADS.
    """
    if target == "birads":
        labelled = [(exam.birads, p[0], exam.patient_id) for exam, p in scored if exam.birads >= 0]
        for k, name in enumerate(BIRADS):
            label, score = np.array([int(b == k) for b, *_ in labelled]), np.array([p[k] for _, p, _ in labelled])
            yield name, label, score, [patient for *_, patient in labelled]
        return
    for k, name in enumerate(LABELS):
        rows = [(e.label[k], p[k, 1], e.patient_id) for e, p in scored if e.label[k] >= 0 and not np.isnan(p[k, 1])]
        label, score = np.array([label for label, *_ in rows]), np.array([score for _, score, _ in rows])
        yield name, label, score, [patient for *_, patient in rows]


def exam_summary(scored: Exams, target: str) -> dict[str, float]:
    """Loss of the averaged probabilities, in nats an exam, and the mean AUC that chooses the best epoch.

    Of the four labels (section IV-A.1: "the average of the validation AUCs over the four prediction tasks"), or of
    BI-RADS 0, 1, 2 against the others (section IV-C). A label with one class only has no AUC and does not count.
    """
    aucs, loss = [], 0.0
    for _, label, score, _ in _tasks(scored, target):
        if len(set(label.tolist())) == 2:
            aucs.append(float(metrics.roc_auc(label, score)))
        hit = score[label == 1]
        misses = np.zeros(0) if target == "birads" else 1 - score[label == 0]
        loss -= float(np.log(np.maximum(np.concatenate([hit, misses]), 1e-12)).sum())
    return {"loss": loss / max(len(scored), 1), "auc": float(np.mean(aucs)) if aucs else float("nan")}


def measure_exams(workdir: Path, name: str, scored: Exams, target: str, runs: int, seed: int) -> dict[str, Any]:
    """The entry of metrics.json for a written split: each metric with its patient-clustered interval.

    Cancer: auc_<finding>, pr_auc_<finding> by breast, the same of biopsied breasts as …_biopsied, and "auc", the mean
    AUC of the four labels by exam. BI-RADS: auc_0, auc_1, auc_2 and their mean.
    """
    results: dict[str, Any] = {}
    tasks = list(_tasks(scored, target))
    kept = [exam for exam, _ in scored if target != "birads" or exam.birads >= 0]
    if target == "birads":
        patient = np.array([exam.patient_id for exam in kept])
        for task, label, score, _ in tasks:
            interval = metrics.bootstrap(metrics.roc_auc, label, score, patient, runs, seed)
            results[f"auc_{task}"] = interval.to_json(label)
        truth = np.stack([label for _, label, *_ in tasks], axis=1).argmax(1)
        called = np.stack([score for *_, score, _ in tasks], axis=1).argmax(1)
        results["accuracy"] = metrics.bootstrap(metrics.accuracy, truth, called, patient, runs, seed).to_json(truth)
    else:
        by_population = measure_breasts(table.read_breasts(workdir, name), runs, seed)
        for population, values in by_population.items():
            suffix = "" if population == "screening" else f"_{population}"
            for finding in FINDINGS:
                for metric, value in values[finding].items():
                    if value is not None:
                        results[f"{metric}_{finding}{suffix}"] = value
    results["auc"] = _mean_auc(tasks, kept, runs, seed)
    results["exams"] = len(scored)
    return results


def _mean_auc(tasks: list[Any], kept: list[Exam], runs: int, seed: int) -> dict[str, Any]:
    """The mean over tasks of their AUC, with an interval over patients; see `exam_summary`.

    Its "n" is that of the task with the fewest positives or negatives, which also decides whether there are too few.
    """
    tasks = [(label, score, patients) for _, label, score, patients in tasks if len(set(label.tolist())) == 2]
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
