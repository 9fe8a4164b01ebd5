"""The gray levels of a mammogram, by which one data set's brightness is compared with another's."""

from collections.abc import Sequence

import numpy as np

from mammojax.data.breast import breast_mask, smaller

LEVELS = {
    "background": "median outside the breast",
    "tissue": "median of the breast",
    "brightest": "99th percentile of the breast",
}
"""Gray values that are measured of an image, 0 … 1, in words."""
QUANTILES = (0, 5, 50, 95, 100)


def gray_levels(pixels: np.ndarray) -> dict[str, float]:
    """LEVELS of an image uint16 [H, W], 0 … 1, of a copy of 256 pixels a side; NaN where there is no such pixel.

    Framing and cropping change them little, so files compare with prepared images.
    """
    small = smaller(pixels)
    breast = breast_mask(small)
    inside, outside = small[breast] / 65535, small[~breast] / 65535
    nan = float("nan")
    return {
        "background": float(np.median(outside)) if len(outside) else nan,
        "tissue": float(np.median(inside)) if len(inside) else nan,
        "brightest": float(np.percentile(inside, 99)) if len(inside) else nan,
    }


def ranges(images: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """The QUANTILES of each of LEVELS over images, five digits; a level that no image has is left out."""
    result = {}
    for name in LEVELS:
        values = np.array([image[name] for image in images])
        if np.isfinite(values).any():
            result[name] = [round(float(q), 5) for q in np.nanpercentile(values, QUANTILES)]
    return result
