"""mammojax: screening mammography in JAX, after Shen et al. 2019 and Wu et al. 2019.

import mammojax
model = mammojax.restore("runs/whole_resnet")
model.predict(["image.dcm"])
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mammojax.evaluate.predictor import ExamPredictor, ImagePredictor

__version__ = "0.1.0"
__all__ = ["restore"]


def restore(run: str, patch_run: str | None = None) -> "ImagePredictor | ExamPredictor":
    """A finished run as an object with `.config`, `.variables` and `.predict(…)`.

    Args:
        run: the run's folder (`--workdir`).
        patch_run: of exam networks that take heatmaps, the patch network's run.

    Returns:
        An ImagePredictor, whose `predict` takes images or DICOM paths; of a network for exams an ExamPredictor, whose
        `predict` takes {"L-CC": image or path, …}.

    Raises:
        mammojax.errors.BadCheckpoint: the folder is not a run or has no trained weights.
    """
    from pathlib import Path

    from mammojax.evaluate.predictor import ExamPredictor, ImagePredictor  # JAX is imported only when it is needed
    from mammojax.train.checkpoint import read_config

    if read_config(run)[0].model.task == "exam":
        return ExamPredictor.restore(Path(run), Path(patch_run) if patch_run else None)
    return ImagePredictor.restore(run)
