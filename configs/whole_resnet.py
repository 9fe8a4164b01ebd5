"""Whole-image classifiers on ResNet50 patch classifiers, CBIS-DDSM: Table 2 of Shen et al. 2019 and its hybrid.

    mammojax prepare cbis_ddsm --source DIR
    python launch.py --config configs/whole_resnet.py[:HEAD[/SET][+EPOCHS]] [--config.init_from=PATCHRUN]

HEAD is a head spec (mammojax/models/head.py), SET the patch set s10 (default), s1 or s1g, EPOCHS more of stage 2.
Without init_from the patch classifier is trained first, in WORKDIR/patch, by config.patch, and from ImageNet weights
with --config.model.pretrained=FILE. Published per-image AUC on
the authors' own random split of the official training images:

    512-512-2048x1,512-512-2048x1               0.85 (Sci Rep, text beside Table 2); 0.85, epoch 20 (arXiv v1, Table 2)
    512-512-2048x1,512-512-2048x1/s1            0.63 (Sci Rep, text)
    512-512-2048x1,512-512-2048x1/s1g           S1g - S10 = -0.023 [-0.061, 0.016] (Sci Rep, text)
    512-512-1024x2,512-512-1024x2 (default)     0.86 (Sci Rep, text); 0.86, with flips 0.88, epoch 25 (arXiv v1)
    256-256-512x3,128-128-256x3                 0.84, epoch 48 (arXiv v1)
    256-256-256x1,128-128-128x1                 "did not significantly decrease" (Sci Rep, text)
    256x1,128x1 (hybrid, Resnet-VGG)            0.87 (Sci Rep, text)
    heatmap7,512-512-1024x2,512-512-1024x2      0.80 (Sci Rep, text); 0.80, epoch 47 (arXiv v1)
    heatmap7,64-64-256x2,128-128-512x2          0.81 (Sci Rep, text)
    heatmap7,pool5,fc64-32                      0.73, epoch 28 (arXiv v1); pool1 … pool5: 0.74 at best (Sci Rep, text)

Not run here: no CBIS-DDSM images, no ImageNet weights and no GPU where this was written.
"""

import re

from ml_collections import ConfigDict

from mammojax.configs import base, patch_resnet

DEFAULT = "512-512-1024x2,512-512-1024x2"


def read_argument(argument: str) -> tuple[str, str, int]:
    """HEAD[/SET][+EPOCHS] → head, patch set, further epochs."""
    match = re.fullmatch(r"([^/+]+)(?:/(s10|s1|s1g))?(?:\+(\d+))?", argument)
    if not match:
        raise ValueError(f'"{argument}" is no whole-image row; write HEAD[/s1|/s1g][+EPOCHS], such as "{DEFAULT}"')
    return match[1], match[2] or "s10", int(match[3] or 0)


def get_config(argument: str = DEFAULT) -> ConfigDict:
    """The paper's setting of a row."""
    head, patch_set, further = read_argument(argument)
    config = patch_resnet.get_config()
    config.row = f"whole_resnet:{argument}"
    config.patch = patch_resnet.get_config(patch_set)  # its data come from config.data, except kind and patch_size
    config.data.kind = "whole"
    config.model.task = "whole"
    config.model.head = head
    config.model.classes = 2
    config.batch = 2
    config.eval_batch = 4
    config.balance_loss = False
    config.monitor = "auc"
    # With model.auxiliary_classes = 5 every step adds the loss of `batch` patches to that of the images: lesion labels
    # without a patch classifier to start from (ours, the control that tells the two apart).
    config.auxiliary = ConfigDict({"kind": "patches_s10", "batch": 32, "weight": 1.0})
    config.gallery = 4  # how many of the surest and of the worst images the report shows
    # f, the patch classifier, is the trunk and the heatmap where there is one; g, the new layers, is the rest.
    new, old = (("head/.*",), ("trunk/.*",))
    if head.startswith("heatmap"):
        new, old = (("head/(?!heatmap/).*",), ("trunk/.*", "head/heatmap/.*"))
    config.stages = ConfigDict(
        {
            "stage1": base.stage("new layers", new, old, 1e-4, 30),
            "stage2": base.stage("all layers", (".*",), (), 1e-5, 20 + further),
        }
    )
    # The paper trains all BatchNorms of stage 2 on batches of 2. If you do not need the paper's row, fix the
    # trunk's: --config.stages.stage2.fix_statistics="('trunk/.*',)" (docs/findings.md, "Stage 2 on batches of 2").
    config.stages.stage1.weight_decay = 1e-3
    config.stages.stage2.weight_decay = 1e-2
    return config
