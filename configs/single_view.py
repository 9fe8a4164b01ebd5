"""Single-view networks, Petrini et al. 2022 and Petrini & Kim 2025: a patch classifier's trunk, two blocks, a mean.

    mammojax prepare cbis_ddsm --source DIR --split official --kinds patches_s10
    python launch.py --config configs/single_view.py[:2022|2025|vindr][-direct][-frozen] [--config.init_from=PATCHRUN]

Without init_from the patch classifier is trained first, in WORKDIR/patch, by config.patch, and from ImageNet weights
with --config.model.pretrained=FILE (configs/view_patch.py names the files). "-direct" starts from the file without a
patch stage (the authors' "DC"), "-frozen" learns the new layers at 1e-4 first, then all at 1e-5. Published test AUC by
image:

    2022, EfficientNet-B0    CBIS-DDSM, official split  0.8153 (abstract of Petrini & Kim 2025, as the value before)
    2025, EfficientNet-B3    CBIS-DDSM, official split  0.8343 (abstract of Petrini & Kim 2025, version 3)
    vindr, ConvNeXt-Base     VinDr-Mammo                0.8019 (0.8511 - 0.0492 of that abstract, our subtraction)

From the abstracts: the stages and the networks. From the authors' later code, not checked with the papers: the head,
its dropout of 0.1, 50 epochs, the schedule, patience 10, the augmentation, the best epoch by validation AUC, nine
averaged shifts at the end (--config.shifts=True; code of 2022 alone). Ours: the batch (theirs is the largest that
fits), the epochs of "-frozen", and what configs/view_patch.py lists. Images are 1152 x 896 without crop; for the
larger ones give --config.data.size="(2304, 1792)". VinDr-Mammo comes as a manifest, --config.data.source=vindr.csv;
five folds likewise, a manifest each (--config.data.name=manifest --config.data.split=all). "quickstart" is a narrow
ResNet on the phantom. Not run here at full size: no such images, no ImageNet weights of these trunks, no GPU.
"""

from ml_collections import ConfigDict

from mammojax.configs import base, quickstart, view_patch, whole_resnet

HEAD = "mbconv,mbconv"
NEW, OLD = ("head/.*",), ("trunk/.*",)


def read_argument(argument: str) -> tuple[str, bool, bool]:
    """NETWORK[-direct][-frozen] → the network, whether it starts without patches, whether the trunk is frozen first."""
    network, *extra = argument.split("-")
    if network not in view_patch.NETWORKS or extra not in ([], ["direct"], ["frozen"], ["direct", "frozen"]):
        raise ValueError(
            f'"{argument}" is no row of views; write {", ".join(view_patch.NETWORKS)}, then perhaps -direct, -frozen; '
            "or quickstart"
        )
    return network, "direct" in extra, "frozen" in extra


def stages(epochs: int, frozen: bool) -> ConfigDict:
    """All layers as the later code trains them; or the alternative of the code of 2022, the new layers first."""
    if not frozen:
        return ConfigDict({"stage1": view_patch.all_layers(epochs)})
    first, then = base.stage("new layers", NEW, OLD, 1e-4, epochs // 2), view_patch.all_layers(epochs - epochs // 2)
    then.update(learning_rate=1e-5, schedule="constant", warmup=0)
    first.patience = then.patience
    return ConfigDict({"stage1": first, "stage2": then})


def get_config(argument: str = "2022") -> ConfigDict:
    """The setting of a row."""
    if argument == "quickstart":
        return _quickstart()
    network, direct, frozen = read_argument(argument)
    config = whole_resnet.get_config(HEAD)
    patch = view_patch.get_config(network)
    config.row = f"single_view:{argument}"
    if direct:
        del config.patch
    else:
        config.patch = patch
    config.data.update(name=patch.data.name, split=patch.data.split)
    for field in ("trunk", "width", "padding", "bn_epsilon", "bn_momentum", "drop_path", "normalise"):
        config.model[field] = patch.model[field]
    config.model.dropout = 0.1
    config.model.head_bn_momentum = 0.99  # the head's blocks are those of lukemelas, whatever the trunk
    config.augment = patch.augment.copy_and_resolve_references()
    config.batch, config.eval_batch = 8, 4
    config.shifts = False  # True: also measure the mean over nine shifts
    config.stages = stages(50, frozen)
    return config


def _quickstart() -> ConfigDict:
    """A software check for two CPU cores: configs/quickstart.py with the head of this one.

    Not with EfficientNet-B0: its squeezes take their mean over a patch, then over an image. Its frozen features of an
    image are not those that the patches taught; the rows above learn all layers, and so have the time to adapt.
    """
    config = quickstart.get_config()
    config.row = config.patch.row = "single_view_quickstart"
    config.model.head, config.model.dropout = HEAD, 0.1
    config.model.head_bn_momentum = 0.9  # at 0.99 the start would still be there after so few steps
    config.shifts = False
    return config
