"""Data of one class, or without labels, are refused before anything is trained."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mammojax.data.dataset import refuse_one_class
from mammojax.errors import BadDataset


def _labelled(**labels: list[int]) -> Any:
    """What `refuse_one_class` asks of a data set."""
    facts = {"kind": "whole", "classes": ("benign", "malignant")}
    return SimpleNamespace(facts=facts, labels=lambda split: np.array(labels.get(split, [0, 1]), np.int64))


def test_data_without_two_classes_or_labels_is_refused_before_training() -> None:
    refuse_one_class(_labelled())
    refuse_one_class(_labelled(val=[1, 1]))  # no AUC, but a loss: the loop says that it chooses by it
    with pytest.raises(BadDataset, match=r"train split of whole has fewer than two classes.*3 benign, 0 mal"):
        refuse_one_class(_labelled(train=[0, 0, 0]))
    with pytest.raises(BadDataset, match=r"two classes.*train: 0 benign, 2 malignant; val: 1 benign"):
        refuse_one_class(_labelled(train=[0, 1, 1]), np.array([1, 2]))
    for split in ("val", "test"):
        for label in ([], [-1, -1]):
            with pytest.raises(BadDataset, match=f"the {split} split .* another config.data.split or another"):
                refuse_one_class(_labelled(**{split: label}))
