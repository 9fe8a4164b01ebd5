"""What the experiments of configs/ share: a stage of training, augmentation, runs on exams. No experiment itself."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mammojax.data.sliding import PATCH, STRIDE
from mammojax.data.window import NOISE, SIZES


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
            "slow": (),  # parameters that learn at learning_rate * slow_factor
            "slow_factor": 1.0,
            "weight_decay": 0.0,
            "decay": (".*",),  # kernels that weight_decay acts on; ("head/.*",): the published code's new layers alone
            "decoupled_decay": False,
            "epochs": epochs,
            "warmup": 0,  # epochs at the start of "cosine" and "waves" in which the rate grows
            "renew": False,  # True: Adam begins anew in each epoch
            "cache": 0,  # epochs whose outputs of the frozen first layers are used again; mammojax/train/cache.py
            "patience": 0,  # epochs without a better `monitor` after which the stage ends; 0: never
        }
    )


def augment() -> ConfigDict:
    """Augmentation of mammograms and their patches; mammojax/train/augment.py says what the fields mean."""
    return ConfigDict(
        {
            "enabled": True,
            "flip_horizontal": True,
            "flip_vertical": True,
            "rotation": 25.0,
            "zoom": (0.8, 1.2),
            "shear": 0.0,  # 0.2 rad in the published code, not in the paper
            "translation": 0.0,  # share of each side; ours, for patch sets whose lesions all stand in the middle
            "intensity": 20.0,
            "saturate": False,  # True: shifted intensities stay in 0 … 255
            "border": "edge",  # "reflect": beyond the image it is mirrored
            "contrast": (1.0, 1.0),  # factors of the distances from an image's mean; ours
            "order": "nearest",
        }
    )


def exams(join: str) -> ConfigDict:
    """What all runs on exams have in common: images alone, random weights."""
    config = ConfigDict()
    config.row = ""
    config.seed = 0
    config.init_from = ""  # a run of configs/birads.py, whose columns are the start
    config.patch_run = ""  # a run of configs/exam_patch.py, or of `mammojax convert nyu`, that makes the heatmaps
    config.tracker = ""  # "wandb" or "mlflow": numbers of epochs go to its server too
    config.extend = False  # True: go on with the run in --workdir, though epochs or bootstrap_runs have grown
    config.data = ConfigDict(
        {
            "name": "manifest",
            "kind": "exams",
            "split": "shen",  # 85:15, 90:10 by patient, or the manifest's split column; the paper names none
            "patch_size": PATCH,
            "threshold": placeholder(int),  # of the crop: tissue is above it; else found from each image
            "iterations": 100,  # of the crop's erosion, for images of about 3000 x 2000
            "data_dir": "",
            "source": "",
            "map": "",  # a manifest's words for pathologies, such as "0=BENIGN,1=MALIGNANT"
            "prepare": False,
            "seed": 0,
            "workers": 8,  # as in configs/patch_resnet.py; also the threads that read val and test exams, 2 at least
        }
    )
    config.exam = ConfigDict(
        {
            "sizes": SIZES,  # (height, width) of the windows
            "noise": NOISE,  # most pixels by which a window and its borders move
            "random": "exam",  # an exam's augmented predictions do not depend on the others; "published": as the code
            "patch": PATCH,
            "stride": STRIDE,
            "dense": False,  # True (ours): the trunk runs once over the image, not patch by patch
            "heatmaps": ("malignant", "benign"),  # the paper's order of channels; the published code's is the other
        }
    )
    config.model = ConfigDict(
        {
            "task": "exam",
            "join": join,
            "angles": ("CC", "MLO"),
            "tie": "sides",  # "all": one column for all views (supplement I-B)
            "target": "cancer",
            "width": 16,
            "blocks": (2, 2, 2, 2, 2),
            "padding": "paper",
            "noise": 0.01,
            "channels": 1,  # 3: with heatmaps
            "dtype": "float32",
        }
    )
    config.loss = ""  # "package.module:function" of your own, see docs/extend.md
    config.batch = 4
    config.memory = ""  # as in configs/patch_resnet.py, like the next three
    config.remat = False
    config.accumulate = 1
    config.exact_devices = 0
    config.bands = 1
    config.calibration = 0.0  # as in configs/patch_resnet.py
    config.monitor = "auc"  # the mean of the four labels' AUCs
    config.checkpoint_steps = 500
    config.bootstrap_runs = 3000
    # The number of epochs is not published: training ends when 20 in a row brought nothing better.
    config.stages = ConfigDict({"stage1": stage("all layers", (".*",), (), 1e-5, 1000)})
    config.stages.stage1.update(weight_decay=10**-4.5, patience=20)
    return config
