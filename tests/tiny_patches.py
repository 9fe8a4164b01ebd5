"""A config of patches that trains in seconds, for runs over several processes: python launch.py --config THIS_FILE."""

from pathlib import Path

from ml_collections import ConfigDict

from mammojax import start
from mammojax.configs import quickstart


def get_config() -> ConfigDict:
    """The quickstart's patch classifier, narrow and alone."""
    config = start.part(quickstart.get_config(), "patch", Path("runs"))
    config.phantom.patients = 16
    config.data.update(prepare=True, data_dir="", workers=1, size=(96, 64), patch_size=32, patients=2)
    config.model.update(width=4, blocks=(1, 1, 1, 1))
    config.batch, config.eval_batch, config.checkpoint_steps, config.bootstrap_runs = 16, 32, 3, 20
    # The statistics of a batch would let float32 rounding grow from step to step.
    config.stages.stage1.update(epochs=2, fix_statistics=(".*",))
    return config
