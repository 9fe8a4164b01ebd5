"""Patch → whole image on any manifest of film mammograms, at a size that two CPU cores can train.

    python launch.py --config configs/film.py --config.source=DIR_OR_MANIFEST.csv

Ours, not a row of a paper: the breast is cropped and its aspect kept, the narrow ResNet of the quickstart starts from
random weights. docs/data.md describes the manifest; docs/findings.md has what one run of it gave.
"""

from ml_collections import ConfigDict, FieldReference

from mammojax.configs import quickstart


def get_config() -> ConfigDict:
    """The quickstart's nets on real film."""
    config = quickstart.get_config()
    config.row = config.patch.row = "film"
    del config.phantom
    config.source = FieldReference("", field_type=str)
    config.data.update(name="manifest", split="shen", size=(384, 256), crop="breast", keep_aspect=True)
    config.data.source = config.get_ref("source")
    config.patch.stages.stage1.epochs = 12
    config.stages.stage1.epochs = 15
    config.stages.stage2.epochs = 10
    return config
