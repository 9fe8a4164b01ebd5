"""VGG16 patch classifier on CBIS-DDSM, five classes (Shen et al. 2019, Sci Rep, Table 1 and its text).

    mammojax prepare cbis_ddsm --source DIR
    python launch.py --config configs/patch_vgg.py --config.model.pretrained=vgg16_imagenet.h5

Published (text beside Table 1): accuracy 0.84 [0.83, 0.85] on S10, ImageNet weights, the authors' own split.
Not run here: no CBIS-DDSM images and no GPU where this was written.
"""

from ml_collections import ConfigDict

from configs import patch_resnet


def get_config() -> ConfigDict:
    """The paper's setting."""
    config = patch_resnet.get_config()
    config.model.trunk = "vgg16"
    config.stages.stage2.learn = ("classifier/.*", "trunk/block5_.*")  # "top layer number 11"
    return config
