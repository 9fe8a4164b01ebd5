"""Whole-image VGG16 + 256x1, 128x1 on CBIS-DDSM (Shen et al. 2019, Sci Rep, Table 3 and its text).

    mammojax prepare cbis_ddsm --source DIR
    python launch.py --config configs/whole_vgg.py [--config.init_from=runs/patch_vgg]

Published (text beside Table 3): per-image AUC 0.85 on the authors' own random split of the official training images,
after 200 epochs more than the ResNets had ("to be fair for the VGG-based image classifiers").
Not run here: no CBIS-DDSM images and no GPU where this was written.
"""

from ml_collections import ConfigDict

from configs import patch_vgg, whole_resnet


def get_config() -> ConfigDict:
    """The paper's setting."""
    config = whole_resnet.get_config()
    config.patch = patch_vgg.get_config()
    config.model.trunk = "vgg16"
    config.model.head = "256x1,128x1"
    config.stages.stage2.epochs = 220
    return config
