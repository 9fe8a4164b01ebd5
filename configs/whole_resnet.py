"""Whole-image ResNet50 + [512-512-1024]x2 twice on CBIS-DDSM (Shen et al. 2019, Sci Rep, Table 2 and its text).

    mammojax prepare cbis_ddsm --source DIR
    python launch.py --config configs/whole_resnet.py [--config.init_from=runs/patch_resnet]

Published (text beside Table 2): per-image AUC 0.86 on the authors' own random split of the official training images.
Without init_from the patch classifier is trained first, in WORKDIR/patch, by config.patch.
Not run here: no CBIS-DDSM images and no GPU where this was written.
"""

from ml_collections import ConfigDict

from configs import patch_resnet


def get_config() -> ConfigDict:
    """The paper's setting."""
    config = patch_resnet.get_config()
    config.patch = patch_resnet.get_config()  # its data come from config.data, but for kind and patch_size
    config.data.kind = "whole"
    config.model.task = "whole"
    config.model.head = "512-512-1024x2,512-512-1024x2"
    config.model.classes = 2
    config.batch = 2
    config.eval_batch = 4
    config.balance_loss = False
    config.monitor = "auc"
    config.gallery = 4  # surest and worst images shown in the report, each
    stage = patch_resnet.stage
    config.stages = ConfigDict(
        {
            "stage1": stage("new layers", ("head/.*",), ("trunk/.*",), 1e-4, 30),
            "stage2": stage("all layers", (".*",), (), 1e-5, 20),
        }
    )
    config.stages.stage1.weight_decay = 1e-3
    config.stages.stage2.weight_decay = 1e-2
    return config
