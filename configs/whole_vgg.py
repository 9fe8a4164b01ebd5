"""Whole-image classifiers on VGG16 patch classifiers, CBIS-DDSM: Table 3 of Shen et al. 2019 and its hybrid.

    mammojax prepare cbis_ddsm --source DIR
    python launch.py --config configs/whole_vgg.py[:HEAD[/SET][+EPOCHS]] [--config.init_from=PATCHRUN]

The argument is that of configs/whole_resnet.py. In Sci Rep the VGG rows have 200 epochs more than the ResNets ("to be
fair"), so the default is 256x1,128x1+200; arXiv v1 trained 50. Published per-image AUC on the authors' own random split
of the official training images:

    256x1,128x1+200 (VGG-VGG)                          0.85 (Sci Rep, text beside Table 3)
    512x3,512x3+200                                    0.81 (Sci Rep, text)
    512x1,512x1+200, 128x1,64x1+200                    cells not in our copy; 128x1,64x1 "did not further improve"
    512-512-1024x2,512-512-1024x2+200 (VGG-Resnet)     0.85 (Sci Rep, text); 0.85, with flips 0.88 (arXiv v1, Table 2)
    512-512-1024x2,512-512-1024x2                      0.81, epoch 46 (arXiv v1)
    512x3,512x3                                        0.71, epoch 47 (arXiv v1)
    512x1,512x1                                        0.83, with flips 0.86, epoch 44 (arXiv v1)
    256x1,128x1                                        0.80, epoch 35 (arXiv v1)
    heatmap7,pool5,fc64-32                             0.71, epoch 26 (arXiv v1)

Not run here: no CBIS-DDSM images, no ImageNet weights and no GPU where this was written.
"""

from ml_collections import ConfigDict

from mammojax.configs import patch_vgg, whole_resnet

DEFAULT = "256x1,128x1+200"


def get_config(argument: str = DEFAULT) -> ConfigDict:
    """The paper's setting of a row."""
    config = whole_resnet.get_config(argument)
    config.row = f"whole_vgg:{argument}"
    config.patch = patch_vgg.get_config(whole_resnet.read_argument(argument)[1])
    config.model.trunk = "vgg16"
    return config
