"""The four multi-view networks of Wu et al. 2019: one ResNet-22 column per view, joined in one of four ways (Fig. 5).

The hidden layer of each branch is as wide as its input, so that with the paper's columns of 256 features all branches
together have 1,024 activations (Fig. 5's caption).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mammojax.models.layers import Frozen, never, relu
from mammojax.models.resnet22 import PADDINGS, ResNet22
from mammojax.vocabulary import BIRADS, LABELS, VIEWS

Array = jax.Array

BOTH = "CC+MLO"
"""The key of the prediction of networks that do not predict from CC and MLO separately."""

CHOICES: dict[str, tuple[Any, ...]] = {
    "join": ("view-wise", "image-wise", "breast-wise", "joint"),
    "angles": (("CC", "MLO"), ("CC",), ("MLO",)),
    "tie": ("sides", "all"),
    "target": ("cancer", "birads"),
    "padding": tuple(PADDINGS),
    "dtype": ("float32", "bfloat16"),
}


class MultiView(nn.Module):
    """Four views → predictions for both breasts: {view: float [B, H, W, C]} → (predictions, intermediates).

    The images are standardised, all breasts face right (Table II: 2677×1942 CC, 2974×1748 MLO; sizes may differ
    between CC and MLO, not between sides); C is 1, or 3 with heatmaps. View-wise and image-wise networks leave out a
    half, CC or MLO, if both of its views are absent.

    `predictions` are logits, float32 [B, 4, 2]: rows as LABELS, the last axis (absent, present). There is one array per
    *half*: keys "CC" and "MLO" for view-wise and image-wise, one key, "CC+MLO", for breast-wise and joint. The loss is
    summed over halves, `probabilities` averages them. With target "birads" an array is [B, 1, 3], classes as BIRADS.

    `intermediates` holds each column's intermediates as "L-CC/stem_conv" …, its output as "L-CC/features" [B,
    16·width], and each branch's "<branch>/hidden" (after the first Dense and ReLU) and "<branch>/logits" from its last
    Dense.

    Branches, whose names are those of their Dense layers too, "<branch>_hidden" and "<branch>_logits":
        view-wise: "CC" and "MLO", each of the left and the right view; four labels.
        image-wise: the four views, each alone. A branch has the four rows of the published network, of which the first
            two, (benign, malignant) of the breast it shows, are used; Wu et al.'s parameter count needs all four.
        breast-wise: "left" and "right", each of its CC and its MLO view; (benign, malignant).
        joint: "joint", of all views; four labels.

    Attributes:
        join: "view-wise", "image-wise", "breast-wise" (the paper's "side-wise" too) or "joint".
        angles: ("CC", "MLO"), or one of them alone; breast-wise and joint need both.
        tie: the columns that share their weights: "sides" (left and right; params "column_CC", "column_MLO"; the
            paper's default) or "all" (params "column"; supplement I-B).
        target: "cancer", or "birads" with a view-wise join: the network that is pretrained on BI-RADS (Fig. 7).
        width, blocks, padding, dtype: of the columns, see `ResNet22`.
        noise: standard deviation of the Gaussian noise added to all channels in training, drawn from the stream
            "dropout".

    Raises:
        ValueError: a view is absent.
    """

    join: str = "view-wise"
    angles: tuple[str, ...] = ("CC", "MLO")
    tie: str = "sides"
    target: str = "cancer"
    width: int = 16
    blocks: tuple[int, int, int, int, int] = (2, 2, 2, 2, 2)
    padding: str = "paper"
    noise: float = 0.01
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Mapping[str, Array], train: bool = False, frozen: Frozen = never
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        angles = self._angles(images)
        intermediates: dict[str, Array] = {}
        columns: dict[str, ResNet22] = {}
        for view in (view for view in VIEWS if view[2:] in angles):
            name = "column" if self.tie == "all" else f"column_{view[2:]}"
            if name not in columns:
                columns[name] = ResNet22(self.width, self.blocks, self.padding, self.dtype, name=name)
            x = images[view]
            if train and self.noise:
                x = x + self.noise * jax.random.normal(self.make_rng("dropout"), x.shape, x.dtype)
            features, maps = columns[name](x, train, frozen)
            intermediates |= {f"{view}/{layer}": value for layer, value in maps.items()}
            intermediates[f"{view}/features"] = features

        if self.join == "joint":
            return {BOTH: self._branch("joint", VIEWS, len(LABELS), intermediates)}, intermediates
        if self.join == "breast-wise":
            left, right = (
                self._branch(breast, tuple(f"{breast[0].upper()}-{angle}" for angle in angles), 2, intermediates)
                for breast in ("left", "right")
            )
            return {BOTH: _rows(left, right)}, intermediates
        predictions = {}
        for angle in angles:
            pair = (f"L-{angle}", f"R-{angle}")
            if self.join == "view-wise":
                predictions[angle] = self._branch(angle, pair, len(LABELS), intermediates)
            else:
                predictions[angle] = _rows(*(self._branch(view, (view,), len(LABELS), intermediates) for view in pair))
        return predictions, intermediates

    def _angles(self, images: Mapping[str, Array]) -> list[str]:
        """The halves whose views are given; ValueError where only one view of a half is absent."""
        halves_alone = self.join in ("view-wise", "image-wise") and not self.is_initializing()
        angles = [a for a in self.angles if not halves_alone or f"L-{a}" in images or f"R-{a}" in images]
        needed = [view for view in VIEWS if view[2:] in (angles or self.angles)]
        if absent := [view for view in needed if view not in images]:
            raise ValueError(
                f"A {self.join} network needs the view{'s' * (len(absent) > 1)} {', '.join(absent)}; mirror the other"
                " side or leave the exam out."
            )
        return angles

    def _branch(self, name: str, views: tuple[str, ...], labels: int, intermediates: dict[str, Array]) -> Array:
        """Features of `views` → Dense → ReLU → Dense → [B, labels, 2], or [B, 1, 3] for BI-RADS."""
        x = jnp.concatenate([intermediates[f"{view}/features"] for view in views], axis=-1)
        labels, classes = (labels, 2) if self.target == "cancer" else (1, len(BIRADS))
        x = intermediates[f"{name}/hidden"] = relu(nn.Dense(x.shape[-1], name=f"{name}_hidden")(x))
        x = nn.Dense(labels * classes, name=f"{name}_logits")(x)
        x = intermediates[f"{name}/logits"] = x.reshape(-1, labels, classes)
        return x


def _rows(left: Array, right: Array) -> Array:
    """(benign, malignant, …) of the left and the right breast, [B, 2 or more, 2] each → [B, 4, 2], rows as LABELS."""
    return jnp.stack([left[:, 0], right[:, 0], left[:, 1], right[:, 1]], axis=1)


def probabilities(predictions: Mapping[str, Array]) -> Array:
    """Logits of the halves → the mean of their probabilities, float32 [B, 4, 2] (or [B, 1, 3]), as in the paper."""
    return jnp.mean(jnp.stack([nn.softmax(logits, axis=-1) for logits in predictions.values()]), axis=0)


def build(model: ConfigDict) -> MultiView:
    """The network that `config.model` describes by the attributes of `MultiView`; ValueError names a bad field."""
    for field, allowed in CHOICES.items():
        value = tuple(model[field]) if field == "angles" else model[field]
        if value not in allowed:
            raise ValueError(f"model.{field}={value!r} is unknown; use {' or '.join(map(repr, allowed))}.")
    if len(model.blocks) != 5 or min(model.blocks) < 1:
        raise ValueError(
            f"model.blocks={tuple(model.blocks)}: give five unit counts of at least 1, as (2, 2, 2, 2, 2)."
        )
    if len(model.angles) < 2 and model.join in ("breast-wise", "joint"):
        raise ValueError(f"model.angles={tuple(model.angles)}: a {model.join} network joins CC with MLO; give both.")
    if model.target == "birads" and model.join != "view-wise":
        raise ValueError(f'model.join={model.join!r}: a BI-RADS network is view-wise; set model.join="view-wise".')
    return MultiView(
        model.join,
        tuple(model.angles),
        model.tie,
        model.target,
        model.width,
        tuple(model.blocks),
        model.padding,
        model.noise,
        jnp.dtype(model.dtype),
    )
