"""The head, from trunk features to a whole image's logits (Shen et al. 2019, "Network design"), written as text.

Blocks, the paper's all-convolutional design: "512-512-1024x2,512-512-1024x2" ([L-M-N]×K, bottleneck units),
"256x1,128x1" (N×K, VGG blocks), "mbconv,mbconv" (inverted bottlenecks, Petrini et al. 2022). With the patch
classifier's heatmap before them: "heatmap7,512-512-1024x2,…". Fully connected layers on the max-pooled heatmap:
"heatmap7,pool5,fc64-32". The 7 is the side of a patch's own feature map, 224 / 32; "heatmap7softmax" has softmax where
the paper's default is ReLU. Ours is "heatmap7,max": the patch classifier slid over the image and its most suspicious
place, with nothing new but a scale and an offset, for few images. Places that are black are not asked.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mammojax.models.efficientnet import InvertedBottleneck
from mammojax.models.layers import HE_NORMAL, Frozen, never, norms, pool, relu, swish
from mammojax.models.max_pool import max_pool
from mammojax.models.resnet50 import Bottleneck
from mammojax.vocabulary import MALIGNANT_PATCHES, PATCH_CLASSES

Array = jax.Array
Output = tuple[Array, dict[str, Array]]


class Spec(NamedTuple):
    """A head as `parse_head` reads it.

    Attributes:
        window: side of the heatmap's average pool in trunk positions; 0 without heatmap.
        softmax: the heatmap's activation is softmax, not ReLU.
        pool: side of the max pool on the heatmap.
        blocks: (widths, units) of each convolutional block; three widths a bottleneck, one a VGG block, none an
            inverted bottleneck.
        fc: widths of the two fully connected layers, () without.
        maximum: the most suspicious place of the heatmap is the answer.
    """

    window: int
    softmax: bool
    pool: int
    blocks: tuple[tuple[tuple[int, ...], int], ...]
    fc: tuple[int, ...]
    maximum: bool = False


_GRAMMAR = re.compile(
    r"(?:heatmap(?P<window>[1-9]\d*)(?P<softmax>softmax)?(?:,pool(?P<pool>[1-9]\d*))?(?:,|$))?"
    r"(?:fc(?P<fc1>[1-9]\d*)-(?P<fc2>[1-9]\d*)|(?P<blocks>.*))"
)


def parse_head(text: str) -> Spec:
    """Read a head spec; the module's docstring has examples.

    Raises:
        ValueError: the text is no head spec; the sentence names the part that cannot be read.
    """
    if maximum := re.fullmatch(r"heatmap([1-9]\d*),max", text.replace(" ", "")):
        return Spec(int(maximum[1]), False, 1, (), (), maximum=True)
    match = _GRAMMAR.fullmatch(text.replace(" ", ""))
    assert match is not None  # noqa: S101  (`blocks` takes any rest)
    if match["fc1"]:
        if not match["window"]:
            raise ValueError(
                f'model.head: {text!r} has fully connected layers on no heatmap; write "heatmap7,pool5,…".'
            )
        blocks: tuple[tuple[tuple[int, ...], int], ...] = ()
        fc: tuple[int, ...] = (int(match["fc1"]), int(match["fc2"]))
    else:
        blocks, fc = tuple(_block(block, text) for block in match["blocks"].split(",")), ()
    return Spec(int(match["window"] or 0), bool(match["softmax"]), int(match["pool"] or 1), blocks, fc)


def _block(block: str, text: str) -> tuple[tuple[int, ...], int]:
    if block == "mbconv":
        return (), 1
    match = re.fullmatch(r"([1-9]\d*(?:-[1-9]\d*-[1-9]\d*)?)x([1-9]\d*)", block)
    if not match:
        raise ValueError(
            f"model.head: {block!r} in {text!r} is no block; write L-M-NxK for K bottleneck units"
            ' ("512-512-1024x2"), NxK for K convolutions ("256x1") or mbconv, blocks separated by commas, "heatmap7"'
            ' and "pool5" before them, or "fc64-32" after those two.'
        )
    return tuple(int(width) for width in match[1].split("-")), int(match[2])


TISSUE = 0.25
"""The share of a patch that must be brighter than black for its place to be asked by the maximum head."""


class Brighter(nn.Module):
    """Where images are brighter than their darkest pixel: float [B, H, W, C] → bool [B, H, W].

    What `config.data.crop = "tissue"` lays beside the breast is the darkest; on an image without it, all but a few
    pixels are brighter. A module, so that a stage that keeps the outputs of its frozen layers keeps this one too.
    """

    @nn.compact
    def __call__(self, x_BxHxWxC: Array) -> Array:
        gray = x_BxHxWxC[..., 0]
        return gray > gray.min(axis=(1, 2), keepdims=True)


class ConvUnit(nn.Module):
    """3×3 convolution, BN, ReLU: the unit of the paper's VGG head blocks."""

    features: int
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BxHxWxC: Array, train: bool = False, frozen: Frozen = never) -> Array:
        x = nn.Conv(self.features, (3, 3), kernel_init=HE_NORMAL, dtype=self.dtype, name="conv")(x_BxHxWxC)
        x = norms(self, train, frozen, self.bn_momentum, self.bn_epsilon, self.dtype)(x, "bn")
        return relu(x)


def halving_block(channels: int, bn_momentum: float, dtype: Any, name: str) -> InvertedBottleneck:
    """The inverted bottleneck of Petrini et al. 2022 on top of a trunk: stride 2, channels as its input has, no sum.

    Its padding is symmetric and its epsilon 1e-3 whatever the trunk's: the published code takes these blocks from
    lukemelas's EfficientNet, built for maps of 15 × 15.
    """
    return InvertedBottleneck(
        3, 2, 2, channels, bn_momentum, 1e-3, dtype, swish, max(1, channels // 4), "symmetric", name=name
    )


class Head(nn.Module):
    """Trunk features [B, h, w, C] → (logits float32 [B, classes], intermediates).

    *Blocks*: each halves height and width, a bottleneck block in its first unit (stride on the first 1×1, projected
    shortcut), a VGG block in a 2×2 max pool after its last; then global average pooling, dropout, Dense. Convolutions
    have biases, whether the trunk's have them or not; those of "mbconv" blocks (`halving_block`) have none. *Heatmap*:
    average pool of `window` × `window`, stride 1, valid; Dense to the five patch classes at every position, whose
    parameters are the patch classifier's own Dense; ReLU or softmax; max pool. *Fully
    connected*: Dense, BN, ReLU twice on the flattened heatmap, Dense to the classes, plus another Dense to the classes
    straight from the heatmap; it fits one image size. *Maximum*: see `_maximum`; two classes.

    Parameters: heatmap, block{b}_unit{u}/…, fc1, fc1_bn, fc2, fc2_bn, shortcut, logits, scale, bias. `intermediates`
    holds "heatmap" (before its max pool), "block1", "block2", …, and "pooled" [B, C], from which the logits are
    computed. `tissue`, bool [B, H, W], is where the maximum may lie; default: anywhere.

    Raises:
        ValueError: the feature map is too small for the pools.
    """

    spec: str
    classes: int = 2
    dropout: float = 0.0
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BxHxWxC: Array, train: bool = False, frozen: Frozen = never, tissue: Array | None = None
    ) -> Output:
        x, spec = x_BxHxWxC, parse_head(self.spec)
        intermediates: dict[str, Array] = {}
        norm = {"bn_momentum": self.bn_momentum, "bn_epsilon": self.bn_epsilon, "dtype": self.dtype}
        if spec.maximum:
            return self._maximum(x, spec, intermediates, tissue)
        if spec.window:
            x = intermediates["heatmap"] = self._heatmap(x, spec)
            x = self._max_pool(x, spec.pool, "the heatmap's pool")
        if spec.fc:
            return self._fully_connected(x, spec, intermediates, train, frozen)
        for b, (widths, units) in enumerate(spec.blocks, start=1):
            unit: Callable[..., nn.Module]
            for u in range(1, units + 1):
                if not widths:
                    x = halving_block(x.shape[-1], self.bn_momentum, self.dtype, f"block{b}_unit{u}")(x, train, frozen)
                    continue
                if len(widths) == 3:
                    unit = partial(Bottleneck, widths, stride=2 if u == 1 else 1, project=u == 1)
                else:
                    unit = partial(ConvUnit, widths[0])
                x = unit(**norm, name=f"block{b}_unit{u}")(x, train, frozen)
            if len(widths) == 1:
                x = self._max_pool(x, 2, f"block {b}")
            intermediates[f"block{b}"] = x
        intermediates["pooled"] = pool(x)
        x = nn.Dropout(self.dropout)(intermediates["pooled"], deterministic=not train)
        return nn.Dense(self.classes, name="logits")(x), intermediates

    def _maximum(self, x: Array, spec: Spec, intermediates: dict[str, Array], tissue: Array | None) -> Output:
        """The log odds of malignant against all other patch classes at the place where they are highest.

        They are scaled and shifted to the image's log odds: at the start by 1 and 0, which is the patch classifier slid
        over the image. Places whose patch is less than a quarter tissue get the lowest log odds of the others: the
        patch classifier's answer to black is no news of the breast, yet the same for all images.
        """
        z = self._positions(x, spec)
        others = [k for k in range(len(PATCH_CLASSES)) if k not in MALIGNANT_PATCHES]
        malignant, rest = (jax.nn.logsumexp(z[..., jnp.array(k)], axis=-1) for k in (MALIGNANT_PATCHES, others))
        odds = malignant - rest
        if tissue is not None:
            share = jax.image.resize(tissue.astype(jnp.float32), x.shape[:3], "linear")
            share = nn.avg_pool(share[..., None], (spec.window, spec.window), strides=(1, 1), padding="VALID")[..., 0]
            asked = (share >= TISSUE) | (share.max(axis=(1, 2), keepdims=True) < TISSUE)
            lowest = jnp.where(asked, odds, jnp.inf).min(axis=(1, 2), keepdims=True)
            odds = jnp.where(asked, odds, jax.lax.stop_gradient(lowest))
        intermediates["heatmap"] = odds
        scale = self.param("scale", nn.initializers.ones, (1,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (1,), jnp.float32)
        flat = odds.reshape(odds.shape[0], -1)
        # Taken from its place: the gradient of jnp.max is 0 / 0 where a compiler computes `odds` anew, one digit off.
        highest = intermediates["pooled"] = jnp.take_along_axis(flat, flat.argmax(axis=1)[:, None], axis=1)
        log_odds = scale[None] * highest + bias[None]
        return jnp.concatenate([jnp.zeros_like(log_odds), log_odds], axis=-1), intermediates

    def _heatmap(self, x: Array, spec: Spec) -> Array:
        x = self._positions(x, spec)
        return jax.nn.softmax(x, axis=-1) if spec.softmax else relu(x)

    def _positions(self, x: Array, spec: Spec) -> Array:
        """The patch classifier's logits at every position of the trunk, float32 [B, h, w, 5]."""
        if min(x.shape[1:3]) < spec.window:
            raise ValueError(
                f"model.head: the heatmap of {self.spec!r} averages {spec.window}x{spec.window} positions, more than"
                f" the {x.shape[1]}x{x.shape[2]} there are; use larger images or a smaller window."
            )
        x = nn.avg_pool(x.astype(jnp.float32), (spec.window, spec.window), strides=(1, 1), padding="VALID")
        return nn.Dense(len(PATCH_CLASSES), name="heatmap")(x)

    def _max_pool(self, x: Array, side: int, where: str) -> Array:
        if min(x.shape[1:3]) < side:
            raise ValueError(
                f"model.head: {where} of {self.spec!r} would pool a {x.shape[1]}x{x.shape[2]} map to nothing;"
                " use larger images or fewer blocks."
            )
        return x if side == 1 else max_pool(x, side, side)

    def _fully_connected(
        self, x: Array, spec: Spec, intermediates: dict[str, Array], train: bool, frozen: Frozen
    ) -> Output:
        flat = intermediates["pooled"] = x.astype(jnp.float32).reshape(x.shape[0], -1)
        norm = norms(self, train, frozen, self.bn_momentum, self.bn_epsilon, jnp.float32)
        x = flat
        for k, width in enumerate(spec.fc, start=1):
            x = nn.Dense(width, name=f"fc{k}")(x)
            x = norm(x, f"fc{k}_bn")
            x = relu(x)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        shortcut = nn.Dense(self.classes, name="shortcut")(flat)
        return nn.Dense(self.classes, name="logits")(x) + shortcut, intermediates
