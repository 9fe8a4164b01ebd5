"""Heatmaps over full mammograms: what `mammojax predict --overlays` draws."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mammojax.data.breast import Framing
from mammojax.errors import BadCheckpoint
from mammojax.evaluate import heatmap, plots
from mammojax.evaluate.predictor import ImagePredictor
from mammojax.train.checkpoint import patch_run, restore_best

HEIGHT = 9.0  # inches of a picture
Map = Callable[[np.ndarray], np.ndarray]
"""The malignant probability float32 [h, w] of each place of a framed image, uint16 [h, w]."""


def map_of(run: Path, network: ImagePredictor) -> Map:
    """The heatmap of a whole-image run: its head's, if that is one, else that of the patch run it started from.

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


def mean_map(
    pixels: np.ndarray, framed: Sequence[np.ndarray], networks: Sequence[ImagePredictor], maps: Sequence[Map]
) -> np.ndarray:
    """The mean of several networks' heatmaps of a mammogram, on its own pixels: float32 [H, W], 0 … 1.

    Args:
        pixels: uint16 [H, W], as stored.
        framed: the mammogram in each network's frame, uint16 [h, w].
        networks, maps: each network, and its `map_of`.
    """
    placements = [Framing.from_json(network.facts["framing"]).place(pixels) for network in networks]
    back = [place.back(map_(image)) for place, map_, image in zip(placements, maps, framed, strict=True)]
    for place, map_ in zip(placements, back, strict=True):
        if place.beside is not None:  # black for the network: there the map is the same in every mammogram
            map_[place.beside] = 0
    return np.mean(back, axis=0)


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
        plots.image(
            right, pixels, "what the network takes for malignant; research use only", float(max(1, pixels.max()))
        )
        plots.overlay(right, np.ma.masked_where(whole <= 0, whole), 0.5)
    return figure
