"""Heatmaps over mammograms: one way to bring them back to the mammogram's pixels and to blend them with it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mammojax.data.breast import Framing, Placement
from mammojax.errors import BadCheckpoint
from mammojax.evaluate import heatmap, plots
from mammojax.evaluate.predictor import ImagePredictor
from mammojax.train.checkpoint import patch_run, restore_best

HEIGHT = 9.0  # inches of a picture
OPACITY = 0.7  # of a heatmap's highest values over the mammogram
Map = Callable[[np.ndarray], np.ndarray]
"""The malignant probability float32 [h, w] of each place of a framed image, uint16 [h, w]."""


def map_of(run: Path, network: ImagePredictor) -> Map:
    """The heatmap of a whole-image or two-view run: its head's, if that is one, else that of the patch run it started
    from.

    Raises:
        BadCheckpoint: it has neither.
    """
    config, facts = network.config, network.facts
    if heatmap.is_map(config.model.head):
        return lambda framed: heatmap.of_head(config, facts, network.variables, framed[None, ..., None])[0]
    folder = patch_run(run, config.init_from)
    if folder is None:
        raise BadCheckpoint(
            f'"{run}" has no heatmap: its head "{config.model.head}" is none, and the patch run that it started from '
            "is not there; leave --overlays out."
        )
    patch = restore_best(folder)

    def of_patches(framed: np.ndarray) -> np.ndarray:
        return heatmap.malignant(np.asarray(heatmap.heatmap(*patch, framed[None, ..., None])[0]), framed.shape)

    return of_patches


def placed(network: ImagePredictor, pixels: np.ndarray) -> Placement:
    """Where a mammogram uint16 [H, W] lies in the frame of a whole-image network."""
    return Framing.from_json(network.facts["framing"]).place(pixels)


def mean_map(places: Sequence[Placement], framed: Sequence[np.ndarray], maps: Sequence[Map]) -> np.ndarray:
    """The mean of several networks' heatmaps of a mammogram, on its own pixels: float32 [H, W], 0 … 1.

    Args:
        places: where the mammogram lies in each network's frame.
        framed: the mammogram in each of these frames, uint16 [h, w].
        maps: each network's `map_of`.
    """
    return np.mean([place.back(map_(image)) for place, map_, image in zip(places, maps, framed, strict=True)], axis=0)


def coloured(heatmap_: np.ndarray) -> np.ndarray:
    """A heatmap [H, W], 0 … 1, in the colours of inferno, RGBA uint8 [H, W, 4]: the lower, the more transparent.

    The opacity is the root of the value, so that a low map is seen at all; where it is 0, nothing covers the image.
    """
    share = np.clip(heatmap_, 0, 1)
    colours = cv2.applyColorMap(np.round(share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.dstack([colours, np.round(np.sqrt(share) * 255).astype(np.uint8)])


def blended(pixels: np.ndarray, heatmap_: np.ndarray, longest: int = 0) -> np.ndarray:
    """A mammogram in gray under its heatmap, as every picture of ours shows it: RGB uint8 [h, w, 3].

    Args:
        pixels: uint8 or uint16 [H, W]; the brightest becomes white.
        heatmap_: [H, W], 0 … 1.
        longest: pixels of the longer side, at most; 0: as it is.
    """
    scale = min(1.0, longest / max(pixels.shape)) if longest else 1.0
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    gray = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32) * (255 / max(1, int(pixels.max())))
    colours = coloured(cv2.resize(heatmap_.astype(np.float32), size, interpolation=cv2.INTER_AREA)).astype(np.float32)
    cover = OPACITY * colours[..., 3:] / 255
    return np.clip(gray[..., None] * (1 - cover) + colours[..., :3] * cover + 0.5, 0, 255).astype(np.uint8)


def save(output: Path, name: str, pixels: np.ndarray, whole: np.ndarray, p: float) -> None:
    """Write OUTPUT/overlays/<name>.png; see `over`."""
    (output / "overlays").mkdir(parents=True, exist_ok=True)
    over(pixels, whole, p).savefig(output / "overlays" / f"{name}.png", dpi=100, metadata={"Software": None})


def over(pixels: np.ndarray, whole: np.ndarray, p: float) -> Figure:
    """A mammogram as stored, alone and under its heatmap.

    Args:
        pixels: uint16 [H, W].
        whole: from `mean_map`.
        p: the mammogram's malignant probability, written above it.
    """
    height, width = pixels.shape
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(2 * HEIGHT * width / height, HEIGHT + 0.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        plots.image(left, pixels, f"p(malignant) {p:.2f}", float(max(1, pixels.max())))
        plots.image(right, blended(pixels, whole), "what the network takes for malignant; research use only")
    return figure
