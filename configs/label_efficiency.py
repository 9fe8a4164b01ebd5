"""How many labelled patients does fine-tuning need? Table 4 of Shen et al. 2019, as one sweep on any data set.

    python launch.py --config configs/label_efficiency.py:resnet-resnet --config.init_from=RUN

The argument is that of configs/inbreast.py, so is the data set unless --config.data.name says otherwise. Each size is a
run of its own, WORKDIR/patients_20 and so on; the table and the plot of AUC against patients labelled are
WORKDIR/label_efficiency.csv and .png. --config.patients_labelled="(10, 20)" chooses other sizes; 0 means all patients.
Published per-image test AUC (arXiv v1, Table 3; of the Sci Rep table only "between 0.87 and 0.92" with 20 patients):

    patients (images)        20 (79)    30 (117)    40 (159)    50 (199)    60 (239)
    resnet-resnet            0.78       0.78        0.82        0.80        0.84
    whole_vgg:512x1,512x1    0.87       0.90        0.90        0.93        0.95
    vgg-resnet               0.89       0.90        0.93        0.93        0.91

Not run here on INbreast: no images, and no GPU where this was written. The argument "quickstart" is a sweep for two CPU
cores, on the phantom, from the quickstart's patch classifier: --config.init_from=runs/quickstart/patch. What it gave is
in docs/findings.md.
"""

from ml_collections import ConfigDict

from mammojax.configs import inbreast, quickstart


def get_config(argument: str = "resnet-resnet") -> ConfigDict:
    """The transfer's config and the sizes to sweep."""
    if argument == "quickstart":
        config = quickstart.get_config()
        del config.patch
        config.init_from = "RUN"
        config.patients_labelled = (20, 40, 80, 160, 0)
        return config
    config = inbreast.get_config(argument)
    config.patients_labelled = (20, 30, 40, 50, 60)
    return config
