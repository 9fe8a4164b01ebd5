"""mammojax: screening mammography in JAX, after Shen et al. 2019 and Wu et al. 2019.

`prepare` a data set, `train` a config, `restore` a run, `evaluate` it; `networks` has the flax modules. Everything else
is internal and may change. JAX is imported by the first call, not by `import mammojax`.

>>> import mammojax
>>> model = mammojax.restore(run)
>>> model.predict(dicom).shape
(1,)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# These rooms are loaded first: the functions below then replace them as attributes of the package, while
# `from mammojax.train import loop` still works.
import mammojax.evaluate
import mammojax.train  # noqa: F401

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from mammojax import networks as networks
    from mammojax.evaluate.predictor import ExamPredictor, ImagePredictor

__version__ = "0.1.0"
__all__ = ["evaluate", "networks", "prepare", "restore", "train"]


def prepare(
    name: str, source: str | Path | None = None, data_dir: str | Path = "~/mammojax_data",
    kinds: Sequence[str] = ("whole", "patches_s10"), workers: int = 1, **settings: Any,
) -> list[Path]:  # fmt: skip
    """Prepare a data set for training; a second call does nothing.

    Args:
        name: "cbis_ddsm", "inbreast", "manifest", "phantom", "phantom_exams", or "package.module:name" of your own.
        source: the downloaded folder, or the manifest's CSV; None: a phantom is written.
        data_dir: the folder of prepared data sets.
        kinds: of examples, see `mammojax.data.recipe.KINDS`.
        workers: processes; the result does not depend on their number.
        settings: further fields of `mammojax.data.recipe.Recipe`: size, patch_size, split, seed, crop, …

    Returns:
        The folders, in the order of the kinds; "whole" first if patches of whole images are among them.

    Raises:
        mammojax.errors.UserError: the source or the settings cannot be used; nothing prepared before is lost.

    >>> (folder,) = mammojax.prepare("phantom", data_dir=data_dir, kinds=["whole"], size=(96, 64), patients=24,
    ...                              split="all", patch_size=32)
    whole: about ... of the disk are free
    prepared phantom/whole_all_96x64_s0_n24p0: train 44 ...
    >>> folder.parent.name
    'whole_all_96x64_s0_n24p0'
    """
    from mammojax.data import prepare as making
    from mammojax.data.recipe import Recipe

    source = None if source is None else Path(source)
    recipe = Recipe(name, kinds[0], Path(data_dir).expanduser(), source, **settings)
    return making.prepare(recipe, tuple(kinds), workers)


def train(config: "str | ConfigDict", workdir: str | Path) -> Any:
    """Run an experiment; started again in its folder, it goes on where it stopped.

    Args:
        config: the name of one of configs/, with its argument ("exam:joint"), or a config from
            `mammojax.configs.get`.
        workdir: the run folder.

    Returns:
        The contents of metrics.json: {"test": {"auc": {"value": 0.91, "low": 0.87, "high": 0.94, "n": [60, 40]}, …},
        …}; for a sweep over labelled patients the rows of its table, for an ensemble the contents of ensemble.json.

    Raises:
        mammojax.errors.UserError: the config cannot work, or the folder holds a run of another one.

    >>> results = mammojax.train(config, run)  # finished before: nothing is trained
    <BLANKLINE>
    ...
    >>> sorted(results)
    ['test', 'test_flips', 'val', 'val_flips']
    """
    from mammojax import configs, families

    if isinstance(config, str):
        name, _, argument = config.partition(":")
        config = configs.get(name, argument)
    return families.launch(config, Path(workdir))


def restore(run: str | Path, patch_run: str | Path | None = None) -> "ImagePredictor | ExamPredictor":
    """A finished run as an object with `.config`, `.variables` and `.predict(…)`.

    Args:
        run: the run's folder (`--workdir`).
        patch_run: the patch network's run, for exam networks that take heatmaps.

    Returns:
        An ImagePredictor, whose `predict` takes images or DICOM paths; for an exam network an ExamPredictor, whose
        `predict` takes {"L-CC": image or path, …}.

    Raises:
        mammojax.errors.BadCheckpoint: the folder is not a run or has no trained weights.

    >>> mammojax.restore(run).config.model.trunk
    'resnet50'
    """
    from mammojax.evaluate.predictor import ExamPredictor, ImagePredictor
    from mammojax.train.checkpoint import read_config

    if read_config(run)[0].model.task == "exam":
        return ExamPredictor.restore(Path(run), Path(patch_run) if patch_run else None)
    return ImagePredictor.restore(run)


def evaluate(run: str | Path, split: str = "test", tta: str = "none") -> dict[str, Any]:
    """Score a split of a run's data set anew, with its best weights.

    Args:
        run: the run's folder; its data set must still exist.
        split: "train", "val" or "test".
        tta: "none", "flips" for whole images, "random10" for exams.

    Returns:
        The entry of metrics.json for a split.

    Raises:
        mammojax.errors.UserError: the folder is not a run, or its data set is gone.

    >>> mammojax.evaluate(run, "val")["images"]
    4
    """
    from mammojax import run as running

    return running.evaluate(Path(run), split, tta)


def __getattr__(name: str) -> Any:
    """`mammojax.networks`, imported on first use."""
    if name == "networks":
        import importlib

        return importlib.import_module("mammojax.networks")
    raise AttributeError(f"module 'mammojax' has no attribute '{name}'")
