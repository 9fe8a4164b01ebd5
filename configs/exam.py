"""Four-view exams, four labels each: Table III of Wu et al. 2019 (NYU), a row of it by the argument.

    mammojax prepare manifest --source manifest.csv --kinds exams
    python launch.py --config configs/exam.py:JOIN[+heatmaps][-scratch] --config.data.source=manifest.csv \\
        --config.init_from=BIRADSRUN --config.patch_run=PATCHRUN --config.seed=0

JOIN is view-wise (default), image-wise, breast-wise or joint; "-scratch" starts from random weights (the rows marked *)
instead of a run of configs/birads.py. Where no finished run is named, the patch and the BI-RADS network are trained
first, inside the run folder. Published AUC of malignant/not by breast, screening population, single model (mean and sd
of five seeds) and ensemble of the five (Table III):

    view-wise 0.827±0.008, 0.840    view-wise+heatmaps 0.886±0.003, 0.895    (-scratch: 0.687, 0.703; 0.856, 0.868)
    image-wise 0.830, 0.841; breast-wise 0.821, 0.836; joint 0.822, 0.831; +heatmaps 0.885, 0.889, 0.876 as ensembles

Their data are a hospital's own; not run here at this size: no such data and no GPU. Paper's settings where paper and
published code differ: padding ("code" for the published one), order of the heatmap channels. Section and table of each
value stand in mammojax/train, models and data where it is used.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.patch_resnet import stage
from mammojax.data.sliding import PATCH, STRIDE
from mammojax.data.window import NOISE, SIZES

JOINS = ("view-wise", "image-wise", "breast-wise", "joint")


def get_config(argument: str = "view-wise") -> ConfigDict:
    """The paper's setting of a row."""
    join, _, extra = argument.removesuffix("-scratch").partition("+")
    known = {f"{join}{more}{end}" for more in ("", "+heatmaps") for end in ("", "-scratch")}
    if join not in JOINS or argument not in known:
        raise ValueError(
            f'configs/exam.py has no row "{argument}"; write {", ".join(JOINS)}, then perhaps +heatmaps, -scratch'
        )
    config = base(join)
    config.row = f"exam:{argument}"  # which row of the paper's table a run fills
    from configs import birads, exam_patch  # they are made of `base`

    if not argument.endswith("-scratch"):
        config.birads = birads.get_config()
    if extra:
        config.model.channels = 3
        config.patch = exam_patch.get_config()
    return config


def base(join: str) -> ConfigDict:
    """What all runs on exams have in common: images alone, random weights."""
    config = ConfigDict()
    config.row = ""
    config.seed = 0
    config.init_from = ""  # a run of configs/birads.py, whose columns are the start
    config.patch_run = ""  # a run of configs/exam_patch.py, or of `mammojax convert nyu`, that makes the heatmaps
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
    config.batch = 4
    config.monitor = "auc"  # the mean of the four labels' AUCs
    config.checkpoint_steps = 500
    config.bootstrap_runs = 3000
    # The number of epochs is not published: training ends when 20 in a row brought nothing better.
    config.stages = ConfigDict({"stage1": stage("all layers", (".*",), (), 1e-5, 1000)})
    config.stages.stage1.update(weight_decay=10**-4.5, patience=20)
    return config
