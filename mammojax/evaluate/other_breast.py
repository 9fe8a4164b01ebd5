"""Scores against the same patient's other breast, from tables of predictions."""

from dataclasses import replace

import numpy as np
import pandas as pd

from mammojax.evaluate.table import Predictions


def asymmetry(frame: pd.DataFrame) -> np.ndarray:
    """How much more suspicious each image or breast is than the same patient's other breast.

    Radiologists compare the two breasts; neither paper's score does (ours). It is the log odds of `p_malignant` minus
    those of the other breast in the same exam: of an image, of the other breast's images of the same view, or of all
    its images where it has none of that view; several count by the mean of their log odds.

    Args:
        frame: with patient_id, exam_id, laterality ("L", "R" or ""), p_malignant float64 and, for images, view.

    Returns:
        float64 [N]; NaN where the other breast has no score or the row's side, or patient and exam, are not known.
    """
    p = np.clip(frame["p_malignant"].to_numpy(np.float64), 1e-12, 1 - 1e-12)
    odds = np.log(p) - np.log1p(-p)
    side, view = (
        frame[name].to_numpy(dtype=str) if name in frame else np.full(len(frame), "") for name in ("laterality", "view")
    )
    result = np.full(len(frame), np.nan)
    for (patient, exam), rows in frame.reset_index(drop=True).groupby(["patient_id", "exam_id"]).indices.items():
        for k in rows if patient or exam else ():
            others = [j for j in rows if side[k] and side[j] and side[j] != side[k]]
            if others := [j for j in others if view[j] == view[k]] or others:
                result[k] = odds[k] - odds[others].mean()
    return result


def by_asymmetry(predictions: Predictions) -> Predictions:
    """The rows whose patient has both breasts, scored by `asymmetry`, squashed to 0 … 1: 0.5 is as suspicious."""
    values = asymmetry(predictions.frame)
    both = predictions[np.isfinite(values)]
    score = 1 / (1 + np.exp(-values[np.isfinite(values)]))
    return replace(both, frame=both.frame.assign(p_malignant=score))
