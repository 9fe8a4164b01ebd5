"""ResNet50 patch classifier on CBIS-DDSM, five classes (Shen et al. 2019, Sci Rep, Table 1 and its text).

    mammojax prepare cbis_ddsm --source DIR
    python launch.py --config configs/patch_resnet.py --config.model.pretrained=resnet50_imagenet.h5

Published (text beside Table 1): accuracy 0.89 [0.88, 0.90] on S10, ImageNet weights, the authors' own split.
Not run here: no CBIS-DDSM images and no GPU where this was written.
"""

from ml_collections import ConfigDict


def stage(name: str, learn: tuple[str, ...], freeze: tuple[str, ...], rate: float, epochs: int) -> ConfigDict:
    """One stage of training; mammojax/train/stages.py says what the fields mean."""
    return ConfigDict(
        {
            "name": name,
            "learn": learn,
            "freeze": freeze,
            "fix_statistics": (),
            "move_frozen_statistics": False,  # True: the published code, whose frozen BatchNorms went on averaging
            "learning_rate": rate,
            "schedule": "constant",
            "weight_decay": 0.0,
            "decoupled_decay": False,
            "epochs": epochs,
        }
    )


def get_config() -> ConfigDict:
    """The paper's setting."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # a run folder whose best weights are the start
    config.data = ConfigDict(
        {
            "name": "cbis_ddsm",
            "kind": "patches_s10",  # patches_s1, patches_s1g
            "split": "shen",  # "official" is the honest modern bar, "all"
            "size": (1152, 896),
            "patch_size": 224,
            "crop": "none",
            "keep_aspect": False,
            "data_dir": "",  # WORKDIR/data for the phantom, ~/mammojax_data else
            "source": "",
            "prepare": False,  # prepare the data set on demand
            "seed": 0,
            "workers": 4,
            "shuffle_labels": False,  # a control: training labels permuted between patients
        }
    )
    config.model = ConfigDict(
        {
            "task": "patch",
            "trunk": "resnet50",
            "head": "",
            "classes": 5,
            "channels": 3,
            "width": 64,
            "blocks": (3, 4, 6, 3),
            "stride_on": "1x1",
            "conv_bias": True,
            "bn_momentum": 0.99,
            "bn_epsilon": 1e-3,  # Keras of the paper's time; a Keras 3 file wants 1.001e-5
            "dropout": 0.0,
            "dtype": "float32",  # bfloat16: mixed precision, parameters stay float32
            "pretrained_std": (),  # torchvision: (58.395, 57.12, 57.375), what its inputs were divided by
            "pretrained": "",  # a Keras .h5, torchvision .pth or .safetensors file for the trunk
        }
    )
    config.augment = ConfigDict(
        {
            "enabled": True,
            "flip_horizontal": True,
            "flip_vertical": True,
            "rotation": 25.0,
            "zoom": (0.8, 1.2),
            "shear": 0.0,  # 0.2 rad in the published code, not in the paper
            "intensity": 20.0,
            "order": "nearest",
        }
    )
    config.batch = 32
    config.eval_batch = 32
    config.balance_loss = True
    config.monitor = "accuracy"
    config.checkpoint_steps = 500
    config.bootstrap_runs = 3000
    config.stages = ConfigDict(
        {
            "stage1": stage("last layer", ("classifier/.*",), ("trunk/.*",), 1e-3, 3),
            # "top layer number 46": the last bottleneck unit, its three convolutions and their BatchNorms
            "stage2": stage("top layers", ("classifier/.*", "trunk/stage4_unit3/.*"), ("trunk/.*",), 1e-4, 10),
            "stage3": stage("all layers", (".*",), (), 1e-5, 37),
        }
    )
    return config
