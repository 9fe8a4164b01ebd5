"""What is measured of a scored split: the numbers of metrics.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mammojax import metrics
from mammojax.errors import BadDataset


def summary(scored: dict[str, np.ndarray]) -> dict[str, float]:
    """Loss, accuracy and (two classes) AUC of a scored split; examples without a label are left out."""
    known = scored["label"] >= 0
    scores, label = scored["scores"][known], scored["label"][known]
    loss = -np.log(np.maximum(scores[np.arange(len(label)), label], 1e-12)).mean()
    result = {"loss": float(loss), "accuracy": float((scores.argmax(1) == label).mean())}
    if scores.shape[1] == 2:
        result["auc"] = float(metrics.roc_auc(label, scores[:, 1]))
    return result


def measure(scored: dict[str, np.ndarray], patients: Sequence[str], *, runs: int, seed: int) -> dict[str, Any]:
    """Each metric of a split with its patient-clustered 95 % interval.

    Args:
        scored: as `predict.predict_split` returns it; examples of label -1 (unknown) are left out.
        patients: [N], who each example belongs to.
        runs: bootstrap draws (Shen et al. 2019: 3000).
        seed: of the draws.

    Returns:
        {metric: {"value", "low", "high", "n"}, "confusion_matrix": [[n]], "images": n}: what metrics.json holds of a
        split. "n" is a list, how many images (of "auc_by_patient": patients) of each class; low and high are None where
        those are too few for an interval, the value too where a class is absent.

    Raises:
        BadDataset: nothing in the split is labelled.
    """
    known = scored["label"] >= 0
    scores, label, patient = scored["scores"][known], scored["label"][known], np.asarray(patients)[known]
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
        np.maximum.at(highest, index, scores[:, 1])  # a patient is as suspicious as the worst image
        interval = metrics.bootstrap(metrics.roc_auc, any_label, highest, ids, runs=runs, seed=seed)
        result["auc_by_patient"] = interval.to_json(any_label)
    classes = scores.shape[1]
    result["confusion_matrix"] = metrics.confusion_matrix(label, scores.argmax(1), classes).tolist()
    result["images"] = len(label)
    return result
