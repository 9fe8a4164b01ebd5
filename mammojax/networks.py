"""The networks, as flax.linen modules from which to build your own.

>>> import jax, jax.numpy as jnp
>>> network = PatchClassifier(ResNet50(width=8, blocks=(1, 1, 1, 1)), classes=5)
>>> image = jnp.zeros((1, 64, 64, 3))
>>> variables = network.init(jax.random.key(0), image)
>>> logits, intermediates = network.apply(variables, image)
>>> logits.shape, intermediates["features"].shape
((1, 5), (1, 2, 2, 256))
"""

from mammojax.models.classifiers import PatchClassifier, TwoView, WholeImageClassifier
from mammojax.models.convnext import ConvNeXt
from mammojax.models.densenet121 import DenseNet121
from mammojax.models.efficientnet import EfficientNet
from mammojax.models.efficientnet_lite import EfficientNetLite
from mammojax.models.head import Head
from mammojax.models.multi_view import MultiView
from mammojax.models.resnet22 import ResNet22
from mammojax.models.resnet50 import ResNet50
from mammojax.models.vgg16 import VGG16

__all__ = [
    "VGG16",
    "ConvNeXt",
    "DenseNet121",
    "EfficientNet",
    "EfficientNetLite",
    "Head",
    "MultiView",
    "PatchClassifier",
    "ResNet22",
    "ResNet50",
    "TwoView",
    "WholeImageClassifier",
]
