"""Five seeds of a row of Wu et al. 2019's Table III and their mean, or of all four joins: the ensemble of 20.

    python launch.py --config configs/exam_ensemble.py:view-wise+heatmaps --config.init_from=BIRADSRUN \\
        --config.patch_run=PATCHRUN --config.data.source=manifest.csv
    python launch.py --config configs/exam_ensemble.py:all+heatmaps …
    python launch.py --config configs/exam_ensemble.py:quickstart …

Published AUC on the screening population, malignant and benign: view-wise+heatmaps 0.895, 0.756 (Table III); all 20
models 0.899, 0.778 (section V-C). The argument is that of configs/exam.py, "all" being every join; "quickstart" is two
seeds of configs/exam_quickstart.py. Not run here at full size: no such data and no GPU.
"""

from ml_collections import ConfigDict

from mammojax.configs import exam, exam_quickstart


def get_config(argument: str = "view-wise+heatmaps") -> ConfigDict:
    """Members by seed and join."""
    joins = exam.JOINS if argument.startswith("all") else ()
    config = exam.get_config(argument.replace("all", "view-wise")) if argument != "quickstart" else None
    config = config or exam_quickstart.get_config()
    seeds = (0, 1) if argument == "quickstart" else (0, 1, 2, 3, 4)
    config.members = ConfigDict({"seeds": seeds, "joins": joins or (config.model.join,)})
    return config
