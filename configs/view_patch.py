"""Patch classifiers that single-view networks start from, the first stage of Petrini et al. 2022 and their later code.

    mammojax prepare cbis_ddsm --source DIR --split official --kinds patches_s10
    python launch.py --config configs/view_patch.py[:2022|2025|vindr] --config.model.pretrained=FILE

2022 is EfficientNet-B0 (file: lukemelas's efficientnet-b0-355c32eb.pth), 2025 EfficientNet-B3 (torchvision's
efficientnet_b3_rwightman-b3899882.pth), vindr ConvNeXt-Base (timm's convnext_base.fb_in22k). No accuracy of patches is
published in our copies; a file name of 2022 says 0.7872.

From the papers' abstracts: patch, single view, two views, each from the one before; the networks. All other settings
are those of the authors' later code, which we could not check with the papers: patches of 224 x 224 from images of
1152 x 896, ten a lesion and ten of background; cross-entropy, Adam at 1e-4 made anew in each epoch, warm-up, waves,
patience 10; the augmentation. Ours: the patches (Shen's S10 sampler), the batch, linear instead of cubic
interpolation, the zoom of each axis drawn by itself, choice of the epoch by accuracy. Not run here: no CBIS-DDSM
images, no ImageNet weights of these trunks and no GPU where this was written.
"""

import math

from ml_collections import ConfigDict

from mammojax.configs import base, patch_resnet

NETWORKS = {
    "2022": {"trunk": "efficientnet_b0", "width": 32, "padding": "same", "bn_epsilon": 1e-3, "bn_momentum": 0.99},
    "2025": {"trunk": "efficientnet_b3", "width": 40, "padding": "symmetric", "bn_epsilon": 1e-5, "bn_momentum": 0.9},
    "vindr": {"trunk": "convnext_base", "width": 128},
}


def all_layers(epochs: int) -> ConfigDict:
    """The training of all layers in the authors' later code."""
    stage = base.stage("all layers", (".*",), (), 1e-4, epochs)
    stage.update(schedule="waves", warmup=4, renew=True, patience=10)
    return stage


def get_config(argument: str = "2022") -> ConfigDict:
    """The patch stage of a paper's network."""
    if argument not in NETWORKS:
        raise ValueError(f'configs/view_patch.py has no row "{argument}"; write {", ".join(NETWORKS)}')
    config = patch_resnet.get_config()
    config.row = f"view_patch:{argument}"
    config.data.split = "official"
    if argument == "vindr":
        config.data.update(name="manifest", split="all")  # the official split stands in the manifest
    config.model.drop_path = 0.0 if argument == "vindr" else 0.2
    config.model.normalise = "image" if argument == "vindr" else "unit"
    config.model.padding = "same"
    config.model.update(NETWORKS[argument])
    config.augment.update(
        rotation=25.0, zoom=(0.8, 1.2), shear=math.radians(12), intensity=0.2 * 255, saturate=True, border="reflect",
        order="linear",
    )  # fmt: skip
    config.balance_loss = False
    config.stages = ConfigDict({"stage1": all_layers(30)})
    return config
