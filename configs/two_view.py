"""Two-view networks, Petrini et al. 2022 and Petrini & Kim 2025: CC and MLO of a breast through one trunk, joined.

    mammojax prepare cbis_ddsm --source DIR --split official --kinds patches_s10
    python launch.py --config configs/two_view.py[:2022|2025|vindr][-direct][-frozen] [--config.init_from=SINGLEVIEWRUN]

The argument is that of configs/single_view.py. Without init_from the single-view network is trained first, in
WORKDIR/single_view, and inside it the patch classifier; --config.model.pretrained=FILE goes to the first of them. A
breast is an example; breasts with one view are left out and counted. Published test AUC by breast:

    2022, EfficientNet-B0    CBIS-DDSM, official split  0.8483; five folds 0.9344 (abstract of Petrini et al. 2022)
    2025, EfficientNet-B3    CBIS-DDSM, official split  0.8658 (abstract of Petrini & Kim 2025, version 3)
    vindr, ConvNeXt-Base     VinDr-Mammo                0.8511 (abstract of Petrini & Kim 2025, version 3)

From the abstracts: one trunk for both views, from the single-view network. From the authors' later code, not checked
with the papers: the fusion (no dropout), 100 epochs (2022) or 50, half of the single view's batch, views augmented
independently, and the rest as in configs/single_view.py. The published weights can be had: docs/pretrained.md.

Where there is one view only, --config.model.pair=breasts takes a breast with the other one of its exam (ours): "film"
does so on any manifest of film mammograms, from the single-view networks of configs/film.py. "quickstart" is a narrow
ResNet on the phantom; both are for two CPU cores. Not run here at full size: no such images, no GPU.
"""

from ml_collections import ConfigDict

from mammojax.configs import base, film, single_view


def get_config(argument: str = "2022") -> ConfigDict:
    """The setting of a row."""
    if argument in ("quickstart", "film"):
        return _small(argument)
    network, _, frozen = single_view.read_argument(argument)
    config = _two_views(single_view.get_config(argument), single_view.get_config(argument))
    config.row = f"two_view:{argument}"
    config.model.dropout = 0.0
    config.batch = config.batch // 2
    config.stages = single_view.stages(100 if network == "2022" else 50, frozen)
    return config


def _two_views(config: ConfigDict, first: ConfigDict) -> ConfigDict:
    """The single-view network `config` made one of two views, which starts from `first`."""
    if "patch" in config:
        del config.patch
    config.single_view = first
    config.model.task = "two_view"
    config.model.pair = "views"  # "breasts": a breast and the other one of its exam
    return config


def _small(argument: str) -> ConfigDict:
    """Few updates of narrow new layers: the quickstart's on the phantom, or film's."""
    if argument == "quickstart":
        config = _two_views(single_view.get_config("quickstart"), single_view.get_config("quickstart"))
        config.row, config.model.dropout = "two_view_quickstart", 0.0
        return config
    config = _two_views(film.get_config(), film.get_config())
    config.row = "two_view_film"
    config.model.pair, config.model.head = "breasts", "32x1"
    stage = base.stage("end to end", ("head/.*", *film.LATE), film.EARLY, 1e-3, 6)
    stage.update(schedule="cosine", slow=film.LATE, slow_factor=0.03, weight_decay=0.01, decoupled_decay=True)
    stage.cache = 2
    stage.fix_statistics = ("trunk/.*",)
    config.stages = ConfigDict({"stage1": stage})
    return config
