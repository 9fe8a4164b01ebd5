"""Heatmaps over mammograms: one way to bring them back to the mammogram's pixels and to blend them with it."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mammojax.data.breast import Framing, Placement
from mammojax.errors import BadCheckpoint
from mammojax.evaluate import heatmap, plots, provenance, saliency
from mammojax.evaluate.predictor import ImagePredictor
from mammojax.train.checkpoint import patch_run, restore_best

KINDS = ("heatmap", "saliency")
"""What lies over a mammogram: where a network sees lesions, or which pixels its score depends on."""
HEIGHT = 9.0  # inches of a picture
BLUR = 0.008  # of the longer side: single pixels of a saliency map could not be seen
OPACITY = 0.7  # of a heatmap's highest values over the mammogram
Map = Callable[[np.ndarray], np.ndarray]
"""The malignant probability float32 [h, w] of each place of a framed image, uint16 [h, w]."""


def map_of(run: Path, network: ImagePredictor, kind: str = "heatmap") -> Map:
    """The map of a whole-image or two-view run, of KINDS. A heatmap is its head's, if that is one, else that of the
    patch run it started from; a saliency map is of whole-image runs (`saliency.saliency`), blurred.

    Raises:
        BadCheckpoint: it has none.
    """
    config, facts = network.config, network.facts
    if kind == "saliency":
        if config.model.task != "whole":
            raise BadCheckpoint(f'"{run}" is a two-view run; --overlays saliency is for whole-image runs.')

        def of_pixels(framed: np.ndarray) -> np.ndarray:
            map_ = saliency.saliency(config, facts, network.variables, framed[None, ..., None])[0]
            wide = cv2.GaussianBlur(map_, (0, 0), BLUR * max(map_.shape))
            return np.asarray(wide / max(float(wide.max()), 1e-30))

        return of_pixels
    if heatmap.is_map(config.model.head):
        return lambda framed: heatmap.of_head(config, facts, network.variables, framed[None, ..., None])[0]
    folder = patch_run(run, config.init_from)
    if folder is None:
        raise BadCheckpoint(
            f'"{run}" has no heatmap: its head "{config.model.head}" is none, and the patch run that it started from '
            "is not there; leave --overlays out, or write --overlays saliency."
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


def save(
    output: Path, name: str, pixels: np.ndarray, whole: np.ndarray, p: float, origins: Sequence[Mapping[str, Any]],
    kind: str = "heatmap", of: str = "",
) -> None:  # fmt: skip
    """Write OUTPUT/overlays/<name>.png: a mammogram as stored, alone and under its map; below them its origin.

    Args:
        output, name: of the file.
        pixels: uint16 [H, W].
        whole: from `mean_map`.
        p: the malignant probability, written above the mammogram.
        origins: `provenance.of_run` of each network.
        kind: of KINDS.
        of: what `p` is of, if not of the mammogram: "breast".
    """
    (output / "overlays").mkdir(parents=True, exist_ok=True)
    height, width = pixels.shape
    sentences = [provenance.sentence(origin) for origin in origins]
    inches = 2 * HEIGHT * width / height
    below = "\n".join(line for text in sentences for line in textwrap.wrap(text, max(40, int(20 * inches))))
    margin = 0.25 + 0.12 * below.count("\n")
    words = {"heatmap": "what the network takes for malignant", "saliency": "where the score depends on the pixels"}
    with matplotlib.rc_context(plots.FONT):
        figure = Figure(figsize=(inches, HEIGHT + 0.2 + margin))
        figure.text(0.5, 0.05 / (HEIGHT + 0.2 + margin), below, ha="center", va="bottom", fontsize=7, color=plots.GRAY)
        bottom, top = margin / (HEIGHT + 0.2 + margin), (HEIGHT + margin) / (HEIGHT + 0.2 + margin)
        left, right = figure.subplots(1, 2, gridspec_kw={"left": 0, "right": 1, "bottom": bottom, "top": top,
                                                         "wspace": 0.01})  # fmt: skip
        score = f"p(malignant){' of the breast' if of == 'breast' else ''} {p:.2f}"
        plots.image(left, pixels, score, float(max(1, pixels.max())))
        plots.image(right, blended(pixels, whole), f"{words[kind]}; research use only")
        metadata = {"Software": None, "Description": " ".join(sentences)}
        figure.savefig(output / "overlays" / f"{name}.png", dpi=100, metadata=metadata)
