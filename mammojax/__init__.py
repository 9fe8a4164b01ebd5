"""mammojax: screening mammography in JAX, after Shen et al. 2019 and Wu et al. 2019.

import mammojax
model = mammojax.restore("runs/whole_resnet")
model.predict(["image.dcm"])
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mammojax.evaluate.predict import Predictor

__version__ = "0.1.0"
__all__ = ["restore"]


def restore(run: str) -> "Predictor":
    """A finished run as an object with `.config`, `.variables` and `.predict(images_or_dicom_paths)`.

    Args:
        run: the run's folder (`--workdir`).

    Raises:
        mammojax.train.checkpoint.BadCheckpoint: the folder is not a run or has no trained weights.
    """
    from mammojax.evaluate.predict import restore as _restore  # JAX is imported only when it is needed

    return _restore(run)
