"""VGG16 patch classifiers on CBIS-DDSM, five classes: Table 1 of Shen et al. 2019.

    mammojax prepare cbis_ddsm --source DIR --kinds patches_s10,patches_s1,patches_s1g
    python launch.py --config configs/patch_vgg.py[:SET[-random]] --config.model.pretrained=FILE

The argument is that of configs/patch_resnet.py. Published test accuracy on the authors' own split:

    s10          0.84 [0.83, 0.85]  (Sci Rep, text beside Table 1); 0.84, best at epoch 25 (arXiv v1, Table 1)

The other cells are not in our copy. Not run here: no CBIS-DDSM images, no ImageNet weights and no GPU where this was
written.
"""

from ml_collections import ConfigDict

from mammojax.configs import patch_resnet


def get_config(argument: str = "s10") -> ConfigDict:
    """The paper's setting of a row."""
    config = patch_resnet.get_config(argument)
    config.row = f"patch_vgg:{argument}"
    config.model.trunk = "vgg16"
    if "stage2" in config.stages:
        config.stages.stage2.learn = ("classifier/.*", "trunk/block5_.*")  # "top layer number 11"
    return config
