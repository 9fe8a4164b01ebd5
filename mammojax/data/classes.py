"""The classes of a data set's splits: whether there is anything to learn and to measure."""

import numpy as np

from mammojax.data.prepared import Prepared
from mammojax.errors import BadDataset


def refuse_one_class(data: Prepared, only: np.ndarray | None = None) -> None:
    """Refuse what nothing can be learned from or measured on, before hours of training.

    Args:
        data: of whole images or patches.
        only: int [M], the training examples that are used; None: all.

    Raises:
        BadDataset: the training examples are of one class, or the val or test split has no labelled example.
    """
    kind, classes = data.facts["kind"], data.facts["classes"]
    labels = {split: data.labels(split) for split in ("train", "val", "test")}
    if only is not None:
        labels["train"] = labels["train"][only]
    counts = {split: [int((label == k).sum()) for k in range(len(classes))] for split, label in labels.items()}
    told = "; ".join(
        f"{split}: {', '.join(f'{n} {name}' for name, n in zip(classes, row, strict=True))}"
        for split, row in counts.items()
    )
    remedy = "give it more patients, another config.data.split or another config.data.seed"
    for split in ("val", "test"):
        if not sum(counts[split]):
            raise BadDataset(f"the {split} split of {kind} has no labelled example ({told}); {remedy}.")
    if sum(n > 0 for n in counts["train"]) < 2:
        raise BadDataset(
            f"the train split of {kind} has fewer than two classes, so nothing can be told apart ({told}); {remedy}."
        )
