"""The whole NYU path on synthetic exams, minutes on two CPU cores: patches → heatmaps; BI-RADS → view-wise network.

    python launch.py --config configs/exam_quickstart.py[:JOIN[+heatmaps][-scratch]]

A software check, not a result: narrow networks on windows of 240 x 160 and 256 x 160. The argument is that of
configs/exam.py, view-wise+heatmaps by default; `mammojax reproduce wu2019` says how its runs differ from the paper's.
Measured AUCs, with their commands, stand in docs/findings.md.
"""

from ml_collections import ConfigDict

from mammojax.configs import exam


def _small(config: ConfigDict, rate: float, epochs: int) -> None:
    """A narrow network on small windows, a cosine schedule instead of patience.

    The best epoch is that of the lowest validation loss: on 120 exams the AUC, the paper's choice, is so uneven from
    epoch to epoch that the first of twelve was once kept.
    """
    config.monitor = "loss"
    config.exam.update(sizes={"CC": (240, 160), "MLO": (256, 160)}, noise=8, patch=48, stride=24)
    config.model.update(width=8, blocks=(1, 1, 1, 1, 1))
    config.stages.stage1.update(learning_rate=rate, schedule="cosine", epochs=epochs, patience=0)


def get_config(argument: str = "view-wise+heatmaps") -> ConfigDict:
    """The phantom recipe."""
    config = exam.get_config(argument)
    config.data.update(name="phantom_exams", split="all", patch_size=48, iterations=10, prepare=True, workers=2)
    config.data.threshold = 0  # the phantom's background
    config.phantom = ConfigDict({"exams": 480, "first": 0, "seed": 0, "contrast": 1.0})
    _small(config, 1e-3, 12)
    config.batch = 8
    if "birads" in config:
        _small(config.birads, 1e-3, 8)
        config.birads.batch = 8
    if "patch" in config:
        config.patch.model.update(width=16, blocks=(2, 2, 2, 2), channels=1)
        config.patch.batch = config.patch.eval_batch = 32
        config.patch.stages.stage1.update(learning_rate=1e-3, epochs=4)
    return config
