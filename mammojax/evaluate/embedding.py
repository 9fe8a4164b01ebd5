"""A network's activations on exams, and their UMAP embedding in the plane (Wu et al. 2019, section VI-A)."""

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from tqdm import tqdm

from mammojax.data import dataset, exams
from mammojax.errors import BadCheckpoint
from mammojax.evaluate import heatmap
from mammojax.evaluate.predictor import ExamPredictor
from mammojax.models import multi_view
from mammojax.train.checkpoint import restore_best
from mammojax.vocabulary import VIEWS


def whole_exams(
    config: ml_collections.ConfigDict, data: dataset.Prepared, split: str, only: Collection[str] | None
) -> list[exams.Exam]:
    """The exams of a split that have all views of a network; with `only`, those of them with these ids."""
    views = {view for view in VIEWS if view[2:] in config.model.angles}
    whole = [exam for exam in exams.exams_of(data, split) if views <= set(exam.images)]
    return [exam for exam in whole if only is None or exam.exam_id in only]


def activations(
    run: Path, split: str = "test", only: Collection[str] | None = None
) -> tuple[list[exams.Exam], np.ndarray, np.ndarray]:
    """The network's activations on the exams that have all of its views, each view's first image in an unmoved window.

    Args:
        run: the run folder.
        split: "train", "val" or "test".
        only: ids of the exams to take; None: all.

    Returns:
        The exams [N]; float32 [N, 1024] with the paper's widths, the concatenated features of the columns; and
        float32 [N, 1024], those of the first fully connected layers, after their ReLU (section VI-A).

    Raises:
        BadCheckpoint, NotPrepared, BadDataset: the run, its data set or its heatmaps are missing.
    """
    predictor, data = ExamPredictor(*restore_best(run)), dataset.of_run(run)
    config, network = predictor.config, multi_view.build(predictor.config.model)
    images = exams.Images(data, split, predictor.sizes, heatmap.channels_of(data, config, predictor.facts))
    views = [view for view in VIEWS if view[2:] in config.model.angles]
    rng = np.random.RandomState(0)  # unmoved windows do not depend on it

    @jax.jit
    def apply(variables: Any, windows: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        _, intermediates = network.apply(variables, windows)
        columns = [intermediates[f"{view}/features"] for view in views]
        hidden = [intermediates[name] for name in sorted(intermediates) if name.endswith("/hidden")]
        return jnp.concatenate(columns, axis=-1)[0], jnp.concatenate(hidden, axis=-1)[0]

    whole = whole_exams(config, data, split, only)
    columns, hidden = [], []
    for exam in tqdm(whole, desc="activations", unit="exam", disable=None):
        windows = predictor.windows({view: [images.view(exam.images[view][0])] for view in views}, rng)
        of_columns, of_hidden = apply(predictor.variables, {view: x[None] for view, x in windows.items()})
        columns.append(np.asarray(of_columns, np.float32))
        hidden.append(np.asarray(of_hidden, np.float32))
    return whole, np.array(columns), np.array(hidden)


def embed(vectors: np.ndarray) -> np.ndarray:
    """UMAP with the Euclidean distance, float32 [N, D] → float32 [N, 2]; deterministic.

    Raises:
        BadCheckpoint: umap-learn is not installed.
    """
    neighbours = min(15, len(vectors) - 1)  # UMAP's default, or as many as there are
    # A seed allows one thread only; without n_jobs=1 UMAP would warn.
    return load_umap().UMAP(n_neighbors=neighbours, metric="euclidean", random_state=0, n_jobs=1).fit_transform(vectors)


def load_umap() -> Any:
    """The module umap. Raises BadCheckpoint where umap-learn is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Tensorflow not installed", ImportWarning
            )  # needed only by a part that we do not use
            import umap

            return umap
    except ModuleNotFoundError:
        raise BadCheckpoint("the figure umap needs umap-learn; run: pip install 'mammojax[umap]'.") from None
