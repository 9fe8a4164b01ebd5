"""Fine-tuning a whole-image classifier on INbreast from image labels alone: Table 4 of Shen et al. 2019.

    mammojax prepare inbreast --source DIR --kinds whole
    python launch.py --config configs/inbreast.py:resnet-resnet --config.init_from=RUN

The argument names the network of the run in init_from: one of the four best, resnet-resnet (default), resnet-vgg,
vgg-vgg, vgg-resnet, or FAMILY:HEAD such as whole_vgg:512x1,512x1. Published per-image test AUC, 70:30 by patient:

    each of the four                   0.95, the mean of the four 0.98 (Sci Rep, text beside Table 4)
    resnet-resnet                      0.84 (arXiv v1, section 3.2.2)
    whole_vgg:512x1,512x1              0.92, with flips 0.94 (arXiv v1)
    vgg-resnet                         0.95, with flips 0.96 (arXiv v1)

Not run here: no INbreast and no CBIS-DDSM images, and no GPU where this was written. Another data set of image labels
takes its place by --config.data.name=manifest --config.data.source=FILE.csv --config.data.prepare=True.
"""

from ml_collections import ConfigDict

from mammojax.configs import base, whole_resnet, whole_vgg

FOUR_BEST = {
    "resnet-resnet": "whole_resnet:512-512-1024x2,512-512-1024x2",
    "resnet-vgg": "whole_resnet:256x1,128x1",
    "vgg-vgg": "whole_vgg:256x1,128x1",
    "vgg-resnet": "whole_vgg:512-512-1024x2,512-512-1024x2",
}


def get_config(argument: str = "resnet-resnet") -> ConfigDict:
    """The paper's setting: all layers at 1e-5, weight decay 0.01, 200 epochs."""
    family, _, head = FOUR_BEST.get(argument, argument).partition(":")
    if family not in ("whole_resnet", "whole_vgg") or not head:
        raise ValueError(f'configs/inbreast.py has no row "{argument}"; write {", ".join(FOUR_BEST)} or FAMILY:HEAD')
    config = {"whole_resnet": whole_resnet, "whole_vgg": whole_vgg}[family].get_config(head)
    config.row = f"inbreast:{argument}"
    del config.patch
    config.init_from = "RUN"  # to be given: the whole-image run whose weights are the start
    config.data.update(name="inbreast")
    config.stages = ConfigDict({"stage1": base.stage("all layers", (".*",), (), 1e-5, 200)})
    config.stages.stage1.weight_decay = 0.01
    return config
