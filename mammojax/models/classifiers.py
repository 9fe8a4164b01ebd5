"""The patch classifier, and the classifiers of one and two views made from it.

All are a trunk with a top. The whole-image network keeps the trunk and replaces the patch classifier by a head
(head.py), so the patch network's `params["trunk"]` fit into it unchanged (Shen et al. 2019, "Converting a classifier
…"); the two-view network keeps the whole-image network's trunk likewise (Petrini et al. 2022).
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mammojax import extension
from mammojax.models import convnext, efficientnet
from mammojax.models.convnext import ConvNeXt
from mammojax.models.densenet121 import PADDINGS, DenseNet121
from mammojax.models.efficientnet import EfficientNet
from mammojax.models.efficientnet_lite import EfficientNetLite
from mammojax.models.head import Brighter, Head, Output, parse_head
from mammojax.models.layers import Frozen, never, pool
from mammojax.models.resnet50 import ResNet50
from mammojax.models.vgg16 import VGG16
from mammojax.vocabulary import PAIRS

Array = jax.Array


NORMALISATIONS = ("mean", "unit", "image")
Apply = Callable[[Any, Any], jax.Array]


def centre(image_BxHxWx1: Array, mean: float, channels: int, normalise: str = "mean") -> Array:
    """The network's input for a gray image on the 0..255 scale: float32 [B, H, W, channels], all channels equal.

    Args:
        image_BxHxWx1: any number type.
        mean: a gray value of 0..255, of the training images.
        channels: of the input.
        normalise: "mean" subtracts the mean (Shen et al. 2019); "unit" also divides by 255 (Petrini et al. 2022 on
            CBIS-DDSM); "image" subtracts each image's own mean and divides by its standard deviation (Petrini & Kim
            2025 on VinDr-Mammo).
    """
    x = image_BxHxWx1.astype(jnp.float32)
    if normalise == "image":
        x = x - x.mean(axis=(1, 2, 3), keepdims=True)
        x = x / jnp.maximum(jnp.sqrt(jnp.mean(x * x, axis=(1, 2, 3), keepdims=True)), 255e-5)
    else:
        x = (x - mean) / (255 if normalise == "unit" else 1)
    return jnp.repeat(x, channels, axis=-1)


def as_input(image: Any, mean: float | None, channels: int, normalise: str = "mean") -> Any:
    """The network's input for stored images: gray, 0..65535, uint16 or float → `centre` of them on the 0..255 scale.

    Args:
        image: [B, H, W, 1], or such an array for each view.
        mean: as of `centre`; None: the images are standardised already, as Wu et al. 2019's patches, and are only
            repeated.
        channels, normalise: as of `centre`.
    """

    def of_view(image_BxHxWx1: Array) -> Array:
        if mean is None:
            return centre(image_BxHxWx1, 0.0, channels)
        return centre(image_BxHxWx1.astype(jnp.float32) * (255 / 65535), mean, channels, normalise)

    return jax.tree.map(of_view, image)


def make_apply(model: nn.Module, mean: float, channels: int, normalise: str = "mean") -> Apply:
    """A jitted function: variables, images uint16 [B, H, W, 1], or such by view → probabilities float32 [B, K]."""

    @jax.jit
    def apply(variables: Any, images: Any) -> jax.Array:
        logits, _ = model.apply(variables, as_input(images, mean, channels, normalise))
        return jax.nn.softmax(logits, axis=-1)

    return apply


class PatchClassifier(nn.Module):
    """Trunk → global average pooling → dropout → Dense: float [B, H, W, C] → (logits, intermediates).

    Logits are float32 [B, classes]. `intermediates` holds the trunk's intermediates, "features" (the trunk's output)
    and "pooled". Params: "trunk" and "classifier". `frozen` keeps the running statistics of chosen BatchNorms while
    `train`; see `layers.Frozen`. With `window`, the average is over so many positions in the middle of the features,
    along each axis; what lies around them is the patch's context.
    """

    trunk: nn.Module
    classes: int = 5
    dropout: float = 0.0
    window: int = 0

    @nn.compact
    def __call__(self, x_BxHxWxC: Array, train: bool = False, frozen: Frozen = never) -> Output:
        features, intermediates = self.trunk(x_BxHxWxC, train, frozen)
        pooled = pool(self._middle(features) if self.window else features)
        x = nn.Dropout(self.dropout)(pooled, deterministic=not train)
        logits = nn.Dense(self.classes, name="classifier")(x)
        return logits, {**intermediates, "features": features, "pooled": pooled}

    def _middle(self, features_BxhxwxC: Array) -> Array:
        around = [side - self.window for side in features_BxhxwxC.shape[1:3]]
        if min(around) < 0 or any(n % 2 for n in around):
            height, width = features_BxhxwxC.shape[1:3]
            raise ValueError(
                f"model.window={self.window}: there is no middle of so many positions in the {height}x{width} of a"
                " patch; its context must be as wide on all sides (data.patch_size, data.context)."
            )
        y, x = (n // 2 for n in around)
        return features_BxhxwxC[:, y : y + self.window, x : x + self.window]


class WholeImageClassifier(nn.Module):
    """Trunk → head: float [B, H, W, C] → (logits float32 [B, classes], intermediates).

    `intermediates` holds the trunk's, "features" (the trunk's output) and the head's, "head/block1" … "head/pooled".
    Params: "trunk" and "head". `head` is a spec that `parse_head` reads, or a `Head` or another module, which overrides
    the fields after it. With `auxiliary_classes` there is also "auxiliary", a patch classifier's Dense layer on the
    same trunk: with `auxiliary`, x holds patches and the logits are float32 [B, auxiliary_classes].
    """

    trunk: nn.Module
    head: Any = "512-512-1024x2,512-512-1024x2"
    classes: int = 2
    dropout: float = 0.0
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    dtype: Any = jnp.float32
    auxiliary_classes: int = 0

    def __post_init__(self) -> None:
        # The field and the submodule share the name "head", which linen allows only when the field is the module.
        if isinstance(self.head, str):
            self.head = Head(
                self.head, self.classes, self.dropout, self.bn_momentum, self.bn_epsilon, self.dtype, parent=None
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x_BxHxWxC: Array, train: bool = False, frozen: Frozen = never, auxiliary: bool = False
    ) -> Output:
        of_head: dict[str, Array] = {}
        if isinstance(self.head, Head) and parse_head(self.head.spec).maximum:
            of_head["tissue"] = Brighter(name="brighter")(x_BxHxWxC)
        features, intermediates = self.trunk(x_BxHxWxC, train, frozen)
        if self.auxiliary_classes and (auxiliary or self.is_initializing()):
            patch_logits = nn.Dense(self.auxiliary_classes, name="auxiliary")(pool(features))
            if auxiliary:
                return patch_logits, intermediates
        logits, head_intermediates = self.head(features, train, frozen, **of_head)
        intermediates = {
            **intermediates,
            "features": features,
            **{f"head/{name}": x for name, x in head_intermediates.items()},
        }
        return logits, intermediates


class TwoView(nn.Module):
    """Two views of a breast → one trunk for both → head: {view: float [B, H, W, C]} → (logits, intermediates).

    The features of the views are joined on the channels, in the order of `views` (Petrini et al. 2022: CC first), and
    the head reads them. Logits are float32 [B, classes]. `intermediates` holds the trunk's as "CC/stem" …,
    "CC/features", "joined" and the head's, "head/block1" … "head/pooled". Params: "trunk" and "head". In training the
    trunk sees one view after the other: each has its own batch statistics.

    Attributes:
        trunk: a module as `PatchClassifier` has it.
        head: a `Head` or another module.
        views: the keys of the images.

    Raises:
        ValueError: a view is absent.
    """

    trunk: nn.Module
    head: nn.Module
    views: tuple[str, ...] = PAIRS["views"]

    @nn.compact
    def __call__(self, images: Mapping[str, Array], train: bool = False, frozen: Frozen = never) -> Output:
        if absent := [view for view in self.views if view not in images]:
            raise ValueError(f"A two-view network needs {' and '.join(self.views)}; {absent[0]} is absent.")
        intermediates: dict[str, Array] = {}
        for view in self.views:
            features, maps = self.trunk(images[view], train, frozen)
            intermediates |= {f"{view}/{name}": x for name, x in maps.items()} | {f"{view}/features": features}
        joined = jnp.concatenate([intermediates[f"{view}/features"] for view in self.views], axis=-1)
        logits, of_head = self.head(joined, train, frozen)
        return logits, intermediates | {"joined": joined} | {f"head/{name}": x for name, x in of_head.items()}


TRUNKS: dict[str, type[nn.Module]] = {
    "resnet50": ResNet50, "vgg16": VGG16, "densenet121": DenseNet121,
    **{f"efficientnet_lite{variant}": EfficientNetLite for variant in range(3)},
    **{f"efficientnet_{variant}": EfficientNet for variant in efficientnet.SCALES},
    **{f"convnext_{variant}": ConvNeXt for variant in convnext.DEPTHS},
}  # fmt: skip
SQUEEZED = tuple(f"efficientnet_{variant}" for variant in efficientnet.SCALES)
"""Trunks whose blocks weigh channels by a mean over the input: a patch's features alone are not those in an image."""
TASKS = ("patch", "whole", "exam_patch", "two_view")


def build(model: ConfigDict) -> nn.Module:
    """The network that `config.model` describes.

    Fields: task "patch", "whole", "two_view" or "exam_patch" (a patch classifier too); trunk, one of TRUNKS; classes;
    width; channels (of the input, 1 or 3); dropout in 0..1; dtype "float32" or "bfloat16". For "resnet50" also blocks,
    stride_on and conv_bias, for "densenet121" blocks and padding, for "efficientnet_b0" and "…_b3" padding and
    drop_path, for ConvNeXts drop_path; for "resnet50", EfficientNets and heads bn_momentum and bn_epsilon; for "whole"
    and "two_view" also head and, if its momentum differs, head_bn_momentum; for "whole" auxiliary_classes; for
    "two_view" pair, one of PAIRS. `normalise` says what the network takes, see `centre`.

    A trunk or a head from outside this package is "package.module:Class", a flax module that gets those of these
    fields that it has: a trunk (x, train, frozen) → (features [B, h, w, C], intermediates), a head (features, train,
    frozen) → (logits float32 [B, classes], intermediates). See docs/extend.md.

    Raises:
        ValueError: names the field.
    """
    choices: dict[str, tuple[Any, ...]] = {
        "task": TASKS,
        "trunk": tuple(TRUNKS),
        "dtype": ("float32", "bfloat16"),
        "channels": (1, 3),
    }
    if extension.named(model.trunk):
        del choices["trunk"]
    if model.trunk == "resnet50":
        choices["stride_on"] = ("1x1", "3x3")
    if model.trunk == "densenet121":
        choices["padding"] = tuple(PADDINGS)
    for field, allowed in {
        "normalise": NORMALISATIONS, "pair": tuple(PAIRS), "padding": efficientnet.PADDINGS
    }.items():  # fmt: skip
        if field in model and (field != "padding" or TRUNKS.get(model.trunk) is EfficientNet):
            choices[field] = allowed
    for field, allowed in choices.items():
        if model[field] not in allowed:
            raise ValueError(f"model.{field}={model[field]!r} is unknown; use {' or '.join(map(str, allowed))}.")
    trunk = _trunk(model)
    if model.task not in ("whole", "two_view"):
        if model.get("window", 0) and model.trunk in SQUEEZED:
            raise ValueError(
                f"model.window={model.window}: the squeezes of {model.trunk} take the context into every feature of the"
                " patch; write model.window=0 and data.context=0."
            )
        return PatchClassifier(trunk, model.classes, model.dropout, model.get("window", 0))
    head, momentum = model.head, model.get("head_bn_momentum", model.bn_momentum)
    if extension.named(head):
        head = extension.build(_module(head, "head"), _fields(model))
    else:
        parse_head(head)  # a bad spec must fail here, not at the network's first trace
    fields = (model.classes, model.dropout, momentum, model.bn_epsilon, jnp.dtype(model.dtype))
    if model.task == "two_view":
        if isinstance(head, str) and head.startswith("heatmap"):
            raise ValueError(f"model.head={head!r}: a heatmap is of one image, and a two-view network joins two.")
        head = Head(head, *fields) if isinstance(head, str) else head
        return TwoView(trunk, head, PAIRS[model.get("pair", "views")])
    return WholeImageClassifier(trunk, head, *fields, model.auxiliary_classes)


def _trunk(model: ConfigDict) -> nn.Module:
    if extension.named(model.trunk):
        return extension.build(_module(model.trunk, "trunk"), _fields(model))
    blocks = tuple(model.blocks)
    if model.trunk in ("resnet50", "densenet121") and (len(blocks) != 4 or min(blocks) < 1):
        raise ValueError(f"model.blocks={blocks}: give four unit counts of at least 1, as (3, 4, 6, 3).")
    kind, _, name = model.trunk.partition("_")
    variant: dict[str, Any] = {"variant": int(name[-1]) if name.startswith("lite") else name}
    if kind == "convnext":
        variant = {"depths": convnext.DEPTHS[name]}
    return extension.build(TRUNKS[model.trunk], _fields(model) | variant)


def _fields(model: ConfigDict) -> dict[str, Any]:
    """The fields of config.model as the networks' attributes."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in model.to_dict().items()}
    return fields | {"dtype": jnp.dtype(model.dtype)}


def _module(text: str, field: str) -> type[nn.Module]:
    """A flax module from outside this package."""
    cls = extension.load(text, f"config.model.{field}")
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f'model.{field}="{text}" is no flax.linen.Module class; name one.')
    return cls
