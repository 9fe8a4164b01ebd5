"""The whole path on synthetic mammograms, minutes on two CPU cores: phantom → patch net → whole-image net → report.

    python launch.py --config configs/quickstart.py

A software check, not a result: a narrow ResNet (1 M parameters, one input channel) on 288 x 224 phantom images.
Measured AUCs, with their commands, stand in docs/findings.md. BatchNorm momentum 0.9: at 0.99 the statistics still
hold 22 % of their start after the 150 steps of patch training.
"""

from ml_collections import ConfigDict

from mammojax.configs import base, whole_resnet


def get_config() -> ConfigDict:
    """The phantom recipe."""
    config = whole_resnet.get_config()
    config.row = config.patch.row = "quickstart"
    config.data.update(name="phantom", split="all", size=(288, 224), patch_size=64, prepare=True, workers=2, source="")
    config.phantom = ConfigDict({"patients": 340, "seed": 0, "contrast": 1.0, "both_breasts": False, "digital": False})
    config.model.head = "32-32-128x1,32-32-128x1"
    config.batch = 8
    config.eval_batch = 16
    config.augment.rotation = 10.0
    config.augment.zoom = (0.9, 1.1)
    config.stages.stage1.update(learning_rate=1e-3, epochs=8, weight_decay=0.0)
    # The trunk keeps the statistics of the patches: those of eight images are too noisy to go by.
    config.stages.stage2.update(learning_rate=1e-4, epochs=3, weight_decay=0.0, fix_statistics=("trunk/.*",))
    config.patch.stages = ConfigDict({"stage1": base.stage("patches", (".*",), (), 1e-3, 4)})
    config.patch.stages.stage1.schedule = "cosine"
    for model in (config.model, config.patch.model):
        model.update(width=16, blocks=(2, 2, 2, 2), channels=1, bn_momentum=0.9, bn_epsilon=1e-5)
    config.patch.batch = config.patch.eval_batch = 32
    return config
