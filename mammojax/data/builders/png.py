"""Arrays as PNG bytes, which TFDS takes as they are: uint16 arrays it would encode through TensorFlow."""

import io

import cv2
import numpy as np


def png(array: np.ndarray) -> io.BytesIO:
    """Losslessly encoded; level 1 is four times as fast as the default and a tenth larger."""
    _, data = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return io.BytesIO(data.tobytes())
