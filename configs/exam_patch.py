"""The DenseNet-121 that makes the heatmaps: 256 x 256 patches, malignant, benign, outside or negative.

    mammojax prepare manifest --source manifest.csv --kinds exam_patches
    python launch.py --config configs/exam_patch.py --config.data.source=manifest.csv \\
        --config.model.pretrained=densenet121-a639ec97.pth

Wu et al. 2019, section IV-B: ImageNet start (gray repeated to RGB, footnote 5). The file is torchvision's, as it is.
How patches were drawn and the network trained is in no source: sampler (mammojax/data/patches.py), learning
rates, batch and augmentation are ours. Patches are on the scale of their image's mean and standard deviation.
Not run here at this size: no such data, no ImageNet weights and no GPU.
"""

from ml_collections import ConfigDict

from mammojax.configs import base


def get_config() -> ConfigDict:
    """Our setting."""
    config = base.exams("")
    del config.exam, config.patch_run
    config.row = "exam_patch"
    config.data.kind = "exam_patches"
    with config.data.unlocked():
        config.data.update(patients=0, shuffle_labels=False)  # as in configs/patch_resnet.py
    config.model = ConfigDict(
        {
            "task": "exam_patch",
            "trunk": "densenet121",
            "classes": 4,
            "channels": 3,
            "width": 64,
            "blocks": (6, 12, 24, 16),
            "padding": "same",  # the published patch model's; "torch": torchvision's, which its file sets
            "dropout": 0.0,
            "dtype": "float32",
            "pretrained": "",
            "pretrained_std": (),
        }
    )
    config.augment = base.augment()
    config.augment.update(zoom=(0.9, 1.1), intensity=0.1, order="linear")  # intensity: of the image's sd
    config.batch = config.eval_batch = 64
    config.balance_loss = True
    config.monitor = "accuracy"
    config.stages = ConfigDict({"stage1": base.stage("all layers", (".*",), (), 1e-4, 20)})
    config.stages.stage1.schedule = "cosine"
    return config
