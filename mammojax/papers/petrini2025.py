"""Petrini & Kim 2025 (arXiv 2503.19945 v3): other trunks, resolutions and two views, on CBIS-DDSM and VinDr-Mammo."""

from functools import partial

from mammojax.papers import petrini

TITLE = "Petrini & Kim 2025: published values and ours"
NOTES = (
    "We have the abstract of the paper alone, its tables are not in our copy; trunks are the published weights'.",
    "CBIS-DDSM is malignant against benign lesions, by biopsy; VinDr-Mammo's labels are BI-RADS categories of a"
    " screening population, 3 to 5 positive by the authors' later code. AUCs of the two are not of one task.",
    "The gain of 0.0217 is by a comparison of their own that the abstract does not describe; 0.8658 - 0.8343 is 0.0315."
    " Ours is the AUC by breast of two views minus that of the mean of a breast's two single-view scores.",
    "The names of the published files hold AUCs too (0.8393 and 0.8643 on CBIS-DDSM, 0.8187 and 0.8655 on VinDr-Mammo);"
    " they are probably of validation, and are no rows here.",
)
sections = partial(petrini.sections, "petrini2025")
to_do = partial(petrini.to_do, "petrini2025")
