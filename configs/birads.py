"""Pretraining of the columns on BI-RADS 0, 1 and 2 (Wu et al. 2019, section IV-C, Fig. 7).

    mammojax prepare manifest --source manifest.csv --kinds exams
    python launch.py --config configs/birads.py --config.data.source=manifest.csv

A view-wise network of three classes, batch 24, chosen by the mean of three one-vs-rest AUCs, ended after 20 epochs
without a better one. Published: mean validation AUC 0.748 after 111 epochs (326 hours on four V100). All exams with one
of these categories are an epoch, which the paper does not say. Not run here at this size: no such data and no GPU.
"""

from ml_collections import ConfigDict

from mammojax.configs import base


def get_config() -> ConfigDict:
    """The paper's setting."""
    config = base.exams("view-wise")
    config.row = "birads"
    config.model.target = "birads"
    config.batch = 24
    return config
