"""ResNet50 patch classifiers on CBIS-DDSM, five classes: Table 1 of Shen et al. 2019.

    mammojax prepare cbis_ddsm --source DIR --kinds patches_s10,patches_s1,patches_s1g
    python launch.py --config configs/patch_resnet.py[:SET[-random]] --config.model.pretrained=FILE

SET is s10 (default), s1 or s1g; "-random" starts from random weights instead of ImageNet's (docs/reproduce.md names the
files). Published test accuracy on the authors' own split:

    s10          0.89 [0.88, 0.90]  (Sci Rep, text beside Table 1); 0.89, best at epoch 39 (arXiv v1, Table 1)
    s10-random   lower "by a large margin" (Sci Rep, text)
    s1-random    "similar accuracy" to s1 (Sci Rep, text)
    s1g          "much lower than that in S10" (Sci Rep, text)

The other cells are not in our copy of the paper. S1 has 200 epochs, as has S1g here, of which the paper says nothing.
Not run here: no CBIS-DDSM images, no ImageNet weights and no GPU where this was written.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mammojax.configs import base


def get_config(argument: str = "s10") -> ConfigDict:
    """The paper's setting of a row."""
    patch_set, _, start = argument.partition("-")
    if patch_set not in ("s10", "s1", "s1g") or start not in ("", "random"):
        raise ValueError(f'configs/patch_resnet.py has no row "{argument}"; write s10, s1 or s1g, then perhaps -random')
    config = ConfigDict()
    config.row = f"patch_resnet:{argument}"  # which row of the papers' tables a run fills
    config.seed = 0
    config.init_from = ""  # a run folder whose best weights are the start
    config.tracker = ""  # "wandb" or "mlflow": numbers of epochs go to its server too
    config.extend = False  # True: go on with the run in --workdir, though epochs or bootstrap_runs have grown
    config.data = ConfigDict(
        {
            "name": "cbis_ddsm",
            "kind": f"patches_{patch_set}",
            "split": "shen",  # "official" is the honest modern bar, "all"
            "size": (1152, 896),
            "patch_size": 224,
            "context": 0,  # pixels around a patch that its network sees too; "patches_jittered" only, see model.window
            "one_type": False,  # True: all lesions are learned as masses, those without a type too
            "crop": "none",
            "keep_aspect": False,
            "data_dir": "",  # WORKDIR/data for the phantom, ~/mammojax_data else
            "source": "",
            "map": "",  # a manifest's words for pathologies, such as "0=BENIGN,1=MALIGNANT"
            "mean": placeholder(float),  # gray value to subtract, 0 … 255; empty: that of the training images
            "prepare": False,  # prepare the data set on demand
            "seed": 0,
            # Processes that prepare the data set, and that read it for training where an epoch has a billion pixels or
            # more; smaller ones are read by threads (data/pipeline.py says why). Batches do not depend on them.
            "workers": 4,
            "patients": 0,  # train on the labels of so many patients only; 0: of all
            "shuffle_labels": False,  # a control: training labels permuted between patients
        }
    )
    config.model = ConfigDict(
        {
            "task": "patch",
            "trunk": "resnet50",
            "head": "",
            "classes": 5,
            "auxiliary_classes": 0,  # 5: a whole-image net that learns lesion patches beside images, see whole_resnet
            "channels": 3,
            "window": 0,  # of a patch with context: positions in its middle that are averaged, 0: all
            "width": 64,
            "blocks": (3, 4, 6, 3),
            "stride_on": "1x1",
            "conv_bias": True,
            "bn_momentum": 0.99,
            "bn_epsilon": 1e-3,  # Keras of the paper's time
            "dropout": 0.0,
            "dtype": "float32",  # bfloat16: mixed precision, parameters stay float32
            "pretrained_std": (),  # what the inputs of the file's network were divided by; the file sets it
            "pretrained": "",  # a Keras .h5, torchvision .pth or .safetensors file for the trunk: it sets what it needs
        }
    )
    config.augment = base.augment()
    config.loss = ""  # "package.module:function" of your own, see docs/extend.md
    config.batch = 32
    config.bands = 1  # devices that share an image in training, each a band of its height; mammojax/train/mesh.py
    config.eval_batch = 32
    config.memory = ""  # of one device, such as "24GB": sets the next two so that a step fits, or refuses
    config.remat = False  # blocks are computed once more in the backward pass: less memory, more time
    config.accumulate = 1  # parts of a batch that pass one after the other (mammojax/train/step.py: BatchNorms)
    config.exact_devices = 0  # above 0: the same to the last bit on any number that divides it; mammojax/train/exact.py
    config.balance_loss = True
    config.monitor = "accuracy"
    config.calibration = 0.0  # share of the validation patients that choose no epoch, for `mammojax calibrate`
    config.checkpoint_steps = 500
    config.bootstrap_runs = 3000
    epochs = 50 if patch_set == "s10" else 200
    if start:
        config.stages = ConfigDict({"stage1": base.stage("all layers", (".*",), (), 1e-3, epochs)})
        return config
    config.stages = ConfigDict(
        {
            "stage1": base.stage("last layer", ("classifier/.*",), ("trunk/.*",), 1e-3, 3),
            # "top layer number 46": the last bottleneck unit, its three convolutions and their BatchNorms
            "stage2": base.stage("top layers", ("classifier/.*", "trunk/stage4_unit3/.*"), ("trunk/.*",), 1e-4, 10),
            "stage3": base.stage("all layers", (".*",), (), 1e-5, epochs - 13),
        }
    )
    return config
