"""Petrini et al. 2022 (IEEE Access 10:77723; arXiv 2110.01606): patch, single view, two views; EfficientNet-B0."""

from functools import partial

from mammojax.papers import petrini

TITLE = "Petrini et al. 2022: published values and ours"
NOTES = (
    "We have the abstract of the paper alone; its tables are not in our copy.",
    "The published five folds are random divisions of CBIS-DDSM's patients, the official split is harder: 0.9344 and"
    " 0.8483 of the same method. Lists of the folds are not public.",
    "CBIS-DDSM is malignant against benign lesions, with almost no normal breasts.",
    "Averaging nine shifts is in the published code: 0.8414 without and 0.8476 with it, says a comment there.",
    "Of five folds ours is the mean of the folds' AUCs, with an interval over the patients of each.",
)
sections = partial(petrini.sections, "petrini2022")
to_do = partial(petrini.to_do, "petrini2022")
