"""The peers: our networks, our augmentation and a training step in PyTorch, as its own users write them.

channels_last everywhere; on a GPU also torch.compile, autocast to bfloat16, Adam fused, cuDNN's search for algorithms.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LITE = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320))  # fmt: skip
"""Repeats, kernel, stride, expansion, channels of EfficientNet-Lite0's blocks."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device() -> torch.device:
    """The GPU if there is one; TF32 and cuDNN's search are then on, as JAX has them."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    return torch.device("cuda")


def _conv(
    inputs: int, outputs: int, side: int = 1, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(outputs)]
    return layers if act is None else [*layers, act(inplace=True)]


class Bottleneck(nn.Module):
    """torchvision's unit: 1×1, 3×3 with the stride, 1×1, plus a shortcut."""

    def __init__(self, inputs: int, widths: tuple[int, int, int], stride: int = 1) -> None:
        super().__init__()
        a, b, c = widths
        self.branch = nn.Sequential(*_conv(inputs, a), *_conv(a, b, 3, stride), *_conv(b, c, act=None))
        same = stride == 1 and inputs == c
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, c, 1, stride, act=None))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x), inplace=True)


class Inverted(nn.Module):
    """1×1 up, depthwise, 1×1 down; the input is added where shapes are equal."""

    def __init__(self, inputs: int, kernel: int, stride: int, expansion: int, outputs: int) -> None:
        super().__init__()
        wide = inputs * expansion
        up = _conv(inputs, wide, act=nn.ReLU6) if expansion > 1 else []
        self.branch = nn.Sequential(
            *up, *_conv(wide, wide, kernel, stride, wide, nn.ReLU6), *_conv(wide, outputs, act=None)
        )
        self.add = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) if self.add else self.branch(x)


class DenseLayer(nn.Module):
    """BN, ReLU, 1×1, BN, ReLU, 3×3, joined to its input."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(True), *_conv(inputs, 128), nn.Conv2d(128, 32, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.branch(x)], 1)


class Preactivation(nn.Module):
    """The unit of ResNet-22 (Wu et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(True))
        self.branch = nn.Sequential(
            *_conv(inputs, outputs, 3, stride), nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if project else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.branch(y) + (x if self.shortcut is None else self.shortcut(y))


def bottlenecks(inputs: int, groups: list[tuple[tuple[int, int, int], int, int]]) -> tuple[list[nn.Module], int]:
    """Bottleneck units of (widths, units, stride of the first), and their channels."""
    units: list[nn.Module] = []
    for widths, count, stride in groups:
        for k in range(count):
            units.append(Bottleneck(inputs, widths, stride if k == 0 else 1))
            inputs = widths[-1]
    return units, inputs


def trunk(name: str) -> tuple[nn.Module, int]:
    """A trunk of `models.classifiers.TRUNKS` on three channels, and its channels.

    Raises:
        ValueError: there is no peer of this trunk.
    """
    if name == "vgg16":
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(convs):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers), 512
    if name == "efficientnet_lite0":
        layers, inputs = _conv(3, 32, 3, 2, act=nn.ReLU6), 32
        for repeats, kernel, stride, expansion, outputs in LITE:
            for k in range(repeats):
                layers.append(Inverted(inputs, kernel, stride if k == 0 else 1, expansion, outputs))
                inputs = outputs
        return nn.Sequential(*layers, *_conv(inputs, 1280, act=nn.ReLU6)), 1280
    stem = [*_conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    if name == "resnet50":
        stages = [((w, w, 4 * w), n, 1 if w == 64 else 2) for w, n in ((64, 3), (128, 4), (256, 6), (512, 3))]
        units, channels = bottlenecks(64, stages)
        return nn.Sequential(*stem, *units), channels
    if name == "densenet121":
        layers, inputs = list(stem), 64
        for b, count in enumerate((6, 12, 24, 16)):
            for _ in range(count):
                layers.append(DenseLayer(inputs))
                inputs += 32
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(True)]
            if b < 3:
                layers += [nn.Conv2d(inputs, inputs // 2, 1, bias=False), nn.AvgPool2d(2)]
                inputs //= 2
        return nn.Sequential(*layers), inputs
    raise ValueError(f'there is no peer of "{name}"; take resnet50, vgg16, efficientnet_lite0 or densenet121.')


class Classifier(nn.Module):
    """A trunk, the blocks of a whole-image head or none, average pool, Dense.

    Args:
        name: of the trunk.
        classes: of the logits.
        head: as "512-512-1024x2,512-512-1024x2", bottleneck blocks of stride 2 each; "": a patch classifier.
    """

    def __init__(self, name: str, classes: int, head: str = "") -> None:
        super().__init__()
        self.trunk, channels = trunk(name)
        groups = []
        for block in head.split(",") if head else ():
            widths, _, units = block.partition("x")
            a, b, c = (int(width) for width in widths.split("-"))
            groups.append(((a, b, c), int(units), 2))
        blocks, channels = bottlenecks(channels, groups)
        self.head = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


class ViewWise(nn.Module):
    """The view-wise network of Wu et al. 2019: two columns of ResNet-22, each of both sides, and a branch for each."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.columns, self.branches = nn.ModuleDict(), nn.ModuleDict()
        for angle in ("CC", "MLO"):
            layers: list[nn.Module] = [
                nn.Conv2d(1, width, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)
            ]  # fmt: skip
            inputs = width
            for stage in range(5):
                for unit in range(2):
                    outputs = width * 2**stage
                    stride = 2 if stage and not unit else 1
                    layers.append(Preactivation(inputs, outputs, stride, project=not unit))
                    inputs = outputs
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            self.columns[angle] = nn.Sequential(*layers)
            self.branches[angle] = nn.Sequential(
                nn.Linear(2 * inputs, 2 * inputs), nn.ReLU(True), nn.Linear(2 * inputs, 8)
            )

    def forward(self, images: dict[str, Tensor]) -> Tensor:
        halves = []
        for angle, column in self.columns.items():
            pair = [images[f"{side}-{angle}"] for side in ("L", "R")]
            noisy = [x + 0.01 * torch.randn_like(x) for x in pair] if self.training else pair
            halves.append(self.branches[angle](torch.cat([column(x) for x in noisy], 1)).view(-1, 4, 2))
        return torch.stack(halves)


def augment(images: Tensor) -> Tensor:
    """The augmentation of configs/base.py on a batch [B, 1, H, W], on its device: one random affine map an image,
    nearest neighbour, the edge continued, a shift of the intensity."""
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(count, *shape, device=images.device).uniform_(low, high)

    angle, zoom = torch.deg2rad(uniform(-25, 25)), uniform(0.8, 1.2, 2)
    zoom = zoom * torch.where(torch.rand_like(zoom) < 0.5, -1.0, 1.0)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    height, width = images.shape[2:]
    rows = [cos * zoom[:, 0], -sin * zoom[:, 1] * height / width, zero]
    rows += [sin * zoom[:, 0] * width / height, cos * zoom[:, 1], zero]
    grid = F.affine_grid(torch.stack(rows, 1).view(count, 2, 3), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="nearest", padding_mode="border", align_corners=False)
    return moved + uniform(-20, 20, 1, 1, 1)


def as_input(images: Tensor, augmented: bool) -> Tensor:
    """Gray images [B, 1, H, W] of 0 … 255 → what a network with three channels takes."""
    x = (augment(images) if augmented else images) - 52.0
    return x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def weighted(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the classes of a batch balanced (`mammojax.train.losses`)."""
    counts = torch.bincount(labels, minlength=logits.shape[-1])
    return (F.cross_entropy(logits.float(), labels, reduction="none") * len(labels) / counts[labels]).mean()


def trainer(
    network: nn.Module, loss: Callable[[nn.Module], Tensor], precision: str, frozen: str = ""
) -> Callable[[], Any]:
    """A function that takes one training step and returns the loss on its device.

    Args:
        network: moved to the device.
        loss: network → the loss of the resident batch.
        precision: "float32" or "bfloat16" (autocast).
        frozen: the submodule that stays, in inference mode.
    """
    place = device()
    network.to(place, memory_format=torch.channels_last).train()
    if frozen:
        network.get_submodule(frozen).eval().requires_grad_(False)
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, 1e-5, fused=place.type == "cuda")
    of_batch = torch.compile(loss) if place.type == "cuda" else loss

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(place.type, DTYPES[precision], enabled=precision != "float32"):
            value = of_batch(network)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def scorer(network: nn.Module, precision: str) -> Callable[[Tensor], Tensor]:
    """A network in inference: images on its device → softmax of its logits."""
    place = device()
    network.to(place, memory_format=torch.channels_last).eval()
    forward = torch.compile(network) if place.type == "cuda" else network

    @torch.inference_mode()
    def score(x: Tensor) -> Tensor:
        with torch.autocast(place.type, DTYPES[precision], enabled=precision != "float32"):
            return forward(x).float().softmax(-1)

    return score


def wait(value: Tensor) -> float:
    """A number of a tensor, when the device has computed it."""
    number = float(value.flatten()[0])
    return 0.0 if math.isnan(number) else number
