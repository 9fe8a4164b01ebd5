"""The meaning of every field of the experiments, for `mammojax configs NAME`.

A field is named as on the command line, without "config." and the name of the run inside (patch, birads, single_view);
STAGE stands for the name of any stage.
"""

import re
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

from mammojax import config_sources, configs

MEANINGS = {
    "row": "the row of a paper's table that a run of it fills, for `mammojax reproduce`; empty: none",
    "seed": "of weights, batches, augmentation and draws of patients",
    "source": "the manifest to train on, the same as data.source",
    "init_from": "a finished run whose best weights are the start",
    "patch_run": "a finished run of the patch network that makes the heatmaps",
    "extend": "True: go on with the run in --workdir, though epochs or bootstrap_runs have grown",
    "tracker": '"wandb" or "mlflow": the config without paths and the numbers of epochs go to its server too',
    "loss": 'a loss of your own, "package.module:function" (docs/extend.md); empty: cross-entropy',
    "batch": "examples a training step, over all devices",
    "eval_batch": "examples at a time when scoring",
    "memory": 'of one device, such as "24GB": sets remat and accumulate so that a training step fits, or refuses',
    "remat": "blocks are computed once more in the backward pass: less memory, more time",
    "accumulate": "parts of a batch that pass one after the other; a learning BatchNorm sees each alone",
    "exact_devices": "above 0: the same run, to the last bit, on any number of devices that divides this one, which "
    "divides the batch; a learning BatchNorm sees each of so many parts alone",
    "bands": "devices that share an image in training, each a band of its height",
    "balance_loss": "weigh the classes of a batch so that each counts alike",
    "monitor": 'what chooses the epoch that is kept: "auc", "accuracy", "loss", or "last"',
    "calibration": "share of the validation patients that choose no epoch, for `mammojax calibrate`",
    "checkpoint_steps": "steps between two saved states, to go on from",
    "bootstrap_runs": "draws of patients for the intervals",
    "gallery": "how many of the surest and of the worst images the report shows",
    "shifts": "score with nine averaged shifts, too (Petrini et al. 2022)",
    "patients_labelled": "numbers of labelled patients, a run each; 0: all",
    "members.seeds": "seeds of the ensemble's members",
    "members.joins": "joins of the ensemble's members",
    "data.name": 'data set: "cbis_ddsm", "inbreast", "manifest", "phantom", "phantom_exams", or "package.module:name"',
    "data.kind": "examples: whole images, one of the patch sets, exams or patches of exams",
    "data.split": '"shen" (85:15, 90:10 by patient), "official" or "all"; a column split of a manifest decides',
    "data.size": "(height, width) in pixels that images are brought to",
    "data.patch_size": "side of a patch in pixels",
    "data.context": "pixels around a patch that its network sees too, on every side; see model.window",
    "data.one_type": "True: patches of lesions are of masses alone, also those of a lesion without a type",
    "data.crop": '"none", "breast" (its box), or "tissue" (what lies beside the breast becomes black, too)',
    "data.keep_aspect": "True: pad instead of stretching an image to data.size",
    "data.threshold": "of an exam's crop: tissue is above this gray value of 0 … 65535; empty: found from each image",
    "data.iterations": "of the erosion of an exam's crop, for images of about 3000 x 2000",
    "data.data_dir": "folder of prepared data sets; empty: WORKDIR/data for a phantom, else ~/mammojax_data",
    "data.source": "the downloaded folder, or the manifest's CSV",
    "data.map": 'a manifest\'s words for pathologies, such as "0=BENIGN,1=MALIGNANT"',
    "data.mean": "gray value of 0 … 255 to subtract; empty: that of the training images",
    "data.prepare": "True: prepare the data set on demand",
    "data.seed": "of the split and of the patches",
    "data.workers": "processes or threads that prepare and read; results do not depend on them",
    "data.patients": "train on the labels of so many patients only; 0: of all",
    "data.shuffle_labels": "a control: training labels permuted between patients",
    "phantom.patients": "patients of the phantom",
    "phantom.exams": "exams of the phantom",
    "phantom.first": "number of the phantom's first exam; another gives other patients",
    "phantom.seed": "of the phantom; another gives other patients",
    "phantom.contrast": "factor of its lesions' contrast",
    "phantom.both_breasts": "True: both breasts of each patient",
    "phantom.digital": "True: as digital mammography, False: as digitised film",
    "model.task": '"patch", "whole", "two_view", "exam" or "exam_patch"; fixed by the experiment',
    "model.trunk": 'network below the head: "resnet50", "vgg16", "densenet121", …, or "package.module:Class"',
    "model.head": 'layers on the trunk, "512-512-1024x2" (blocks), "heatmap7,pool5,…", "heatmap4,max"; empty: none',
    "model.classes": "number of classes",
    "model.auxiliary_classes": "5: learn lesion patches beside whole images; 0: no",
    "model.channels": "of the input: 1, or 3 (gray three times; of exams: the image and two heatmaps)",
    "model.width": "channels of the first layer; the others follow from it",
    "model.blocks": "units in each stage of the trunk",
    "model.stride_on": '"1x1" (the paper, Keras) or "3x3" (torchvision): which convolution strides',
    "model.conv_bias": "whether convolutions have a bias (Keras) or not (torchvision)",
    "model.bn_momentum": "share of the old running statistic that a step of BatchNorm keeps",
    "model.head_bn_momentum": "the same of the head's, where it differs",
    "model.bn_epsilon": "of BatchNorm; a published file sets that of its release",
    "model.drop_path": "stochastic depth: the share of dropped branches in the last block",
    "model.dropout": "before the last layer",
    "model.dtype": '"float32", or "bfloat16": mixed precision, parameters stay float32',
    "model.normalise": 'input: "mean" (0 … 255 less the mean), "unit" (0 … 1 less the mean) or "image" (standardised)',
    "model.padding": "of the trunk's convolutions, as its paper, code or release has it",
    "model.pretrained": 'file of published weights, "imagenet" or "imagenet-tf"; empty: random weights',
    "model.pretrained_std": "what the inputs of that file's network were divided by; the file sets it",
    "model.window": "of a patch with context: positions of the trunk in its middle that are averaged; 0: all",
    "model.pair": '"views": CC and MLO of a breast; "breasts": a breast and the other one',
    "model.join": '"view-wise", "image-wise", "breast-wise" or "joint" (Wu et al. 2019, Fig. 5)',
    "model.angles": "views that are used: CC, MLO",
    "model.tie": '"sides": left and right share their columns; "all": one column for all views',
    "model.target": '"cancer": four labels; "birads": three categories',
    "model.noise": "standard deviation of the noise added to the input in training",
    "exam.sizes.CC": "(height, width) of the windows of CC views",
    "exam.sizes.MLO": "(height, width) of the windows of MLO views",
    "exam.noise": "most pixels by which a window and its borders move",
    "exam.random": '"exam": an exam\'s draws do not depend on the others; "published": one stream, as the code',
    "exam.patch": "side of the patches that heatmaps slide, in pixels",
    "exam.stride": "their steps, in pixels",
    "exam.dense": "True: the trunk runs once over an image, for patches 32 pixels apart; exam.stride is not used",
    "exam.heatmaps": "order of the two heatmap channels",
    "auxiliary.kind": "patch set that is learned beside whole images",
    "auxiliary.batch": "patches a step",
    "auxiliary.weight": "of their loss",
    "augment.enabled": "False: no augmentation",
    "augment.flip_horizontal": "flip left and right at random",
    "augment.flip_vertical": "flip up and down at random",
    "augment.rotation": "most degrees, either way",
    "augment.zoom": "factors from, to; of each axis",
    "augment.shear": "most radians; 0.2 in the published code, not in the paper",
    "augment.translation": "most, as a share of each side",
    "augment.intensity": "most gray values of 255 added, either way; of standardised patches in standard deviations",
    "augment.saturate": "True: shifted intensities stay in 0 … 255",
    "augment.border": 'outside the image: "edge" goes on, or "reflect" mirrors it',
    "augment.contrast": "factors from, to; of the distances from an image's mean",
    "augment.order": 'interpolation: "nearest" or "linear"',
    "stages.STAGE.name": "in the log and the report",
    "stages.STAGE.learn": "regular expressions on the paths of parameters that learn",
    "stages.STAGE.freeze": "of those that stay; learn wins where both match",
    "stages.STAGE.fix_statistics": "of BatchNorm layers that keep their running statistics",
    "stages.STAGE.move_frozen_statistics": "True: frozen BatchNorms go on averaging, as in the published code",
    "stages.STAGE.learning_rate": "of Adam",
    "stages.STAGE.schedule": '"constant", "cosine" (down to zero over the stage) or "waves"',
    "stages.STAGE.slow": "regular expressions of parameters that learn at learning_rate * slow_factor",
    "stages.STAGE.slow_factor": "see slow",
    "stages.STAGE.weight_decay": "factor of L2 on kernels, in the gradient before Adam",
    "stages.STAGE.decay": "regular expressions of the kernels that weight_decay acts on",
    "stages.STAGE.decoupled_decay": "True: AdamW",
    "stages.STAGE.epochs": "length of the stage",
    "stages.STAGE.warmup": 'epochs at the start of the schedules "cosine" and "waves" in which the rate grows',
    "stages.STAGE.renew": "True: Adam begins anew in each epoch",
    "stages.STAGE.cache": "epochs whose outputs of the frozen first layers are used again; 0: none",
    "stages.STAGE.patience": "epochs without a better monitor after which the stage ends; 0: never",
}  # fmt: skip


class Field(NamedTuple):
    """A field of an experiment.

    Attributes:
        name: on the command line, "config.patch.stages.stage1.epochs".
        value: in this experiment.
        default: where the experiment's row differs from the config without an argument, that one's value; else `value`.
        meaning: in words.
        source: where `value` comes from, see `config_sources`.
    """

    name: str
    value: Any
    default: Any
    meaning: str
    source: str


def fields(name: str, argument: str = "") -> list[Field]:
    """The fields of an experiment and of the runs inside it, in order.

    Raises:
        BadConfig: there is no such experiment or row.
    """
    defaults = flatten_dict(configs.get(name).to_dict(), sep=".")
    sources = config_sources.sources(name, argument)
    return [
        Field(f"config.{path}", value, defaults.get(path, value), meaning(path), sources[path])
        for path, value in flatten_dict(configs.get(name, argument).to_dict(), sep=".").items()
    ]


def meaning(path: str) -> str:
    """The meaning of a field, "patch.stages.stage1.epochs"; "" if nobody has written one."""
    path = re.sub(r"^(?:(?:patch|birads|single_view)\.)+", "", path)
    return MEANINGS.get(re.sub(r"^stages\.\w+\.", "stages.STAGE.", path), "")
