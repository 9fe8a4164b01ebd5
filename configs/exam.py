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

from mammojax.configs import base, birads, exam_patch

JOINS = ("view-wise", "image-wise", "breast-wise", "joint")


def get_config(argument: str = "view-wise") -> ConfigDict:
    """The paper's setting of a row."""
    join, _, extra = argument.removesuffix("-scratch").partition("+")
    rows = {f"{join}{more}{end}" for more in ("", "+heatmaps") for end in ("", "-scratch")}
    if join not in JOINS or argument not in rows:
        raise ValueError(
            f'configs/exam.py has no row "{argument}"; write {", ".join(JOINS)}, then perhaps +heatmaps, -scratch'
        )
    config = base.exams(join)
    config.row = f"exam:{argument}"  # which row of the paper's table a run fills
    if not argument.endswith("-scratch"):
        config.birads = birads.get_config()
    if extra:
        config.model.channels = 3
        config.patch = exam_patch.get_config()
    return config
