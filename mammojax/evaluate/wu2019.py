"""What Wu et al. 2019 published, as far as our copy of the paper states it: numbers only, each with where it stands.

The supplement is not in our copy; what only it states is `MISSING` and never guessed. In the text of our copy the label
`image-and-heatmaps` of Table III stands beside its fifth row; the first five rows are image-only and the last five
image-and-heatmaps, as section V says of 0.895 and 0.850.
"""

from typing import NamedTuple

MISSING = "not in our copy"
SIZES = {"CC": (2677, 1942), "MLO": (2974, 1748)}
"""Height and width of the windows (section III)."""
WIDTH, BATCH, BIRADS_BATCH, LEARNING_RATE = 16, 4, 24, 1e-5
"""Section IV: channels of the first convolution, exams a step of both trainings, Adam's rate of both."""
SEEDS = 5
"""Copies of each model, which differ in the first weights of the Dense layers (section V)."""
TWENTY = "image+heatmaps, all four"


class Findings(NamedTuple):
    """Breasts of a split with a finding, by whether the radiologists saw it on the mammograms; shares as printed."""

    split: str
    malignant_visible: int
    malignant_occult: int
    benign_visible: int
    benign_occult: int
    shares: tuple[str, ...] = ()


class Cell(NamedTuple):
    """AUCs of one task on one population: mean and standard deviation of five models, and that of their ensemble."""

    mean: float
    sd: float
    ensemble: float


class Row(NamedTuple):
    """A row of Table III.

    Attributes:
        inputs: "image-only" or "image-and-heatmaps".
        label: as the paper calls it; * is without BI-RADS pretraining.
        row: `config.row` of the runs that fill it.
        cells: by population and finding, such as ("screening", "malignant").
    """

    inputs: str
    label: str
    row: str
    cells: dict[tuple[str, str], Cell]


class Difference(NamedTuple):
    """Two rows of Table III, a minus b; the paper prints no differences, so theirs is that of the single means."""

    label: str
    a: str
    b: str


class Summary(NamedTuple):
    """AUC and PR AUC of malignancy in the reader study; sd and range are over readers, None of a single model."""

    label: str
    auc: float
    auc_sd: float | None
    auc_range: tuple[float, float] | None
    pr_auc: float
    pr_auc_sd: float | None
    pr_auc_range: tuple[float, float] | None


def _row(inputs: str, label: str, row: str, *cells: tuple[float, float, float]) -> Row:
    """Cells in the order screening malignant, screening benign, biopsied malignant, biopsied benign."""
    keys = [(population, finding) for population in ("screening", "biopsied") for finding in ("malignant", "benign")]
    return Row(inputs, label, f"exam:{row}", {key: Cell(*cell) for key, cell in zip(keys, cells, strict=True)})


TABLE_1 = (
    Findings("train", 750, 107, 2586, 2004),
    Findings("val", 51, 15, 357, 253),
    Findings("test", 54, 8, 215, 141),
    Findings("overall", 855, 130, 3158, 2398, ("86.8%", "13.2%", "56.84%", "43.16%")),
)

TABLE_3 = (
    _row("image-only", "view-wise", "view-wise",
         (0.827, 0.008, 0.840), (0.731, 0.004, 0.743), (0.781, 0.006, 0.791), (0.673, 0.003, 0.682)),
    _row("image-only", "view-wise*", "view-wise-scratch",
         (0.687, 0.009, 0.703), (0.657, 0.006, 0.669), (0.693, 0.006, 0.709), (0.564, 0.006, 0.571)),
    _row("image-only", "image-wise", "image-wise",
         (0.830, 0.006, 0.841), (0.759, 0.002, 0.766), (0.740, 0.007, 0.749), (0.638, 0.001, 0.642)),
    _row("image-only", "breast-wise", "breast-wise",
         (0.821, 0.012, 0.836), (0.757, 0.002, 0.768), (0.726, 0.009, 0.738), (0.639, 0.002, 0.645)),
    _row("image-only", "joint", "joint",
         (0.822, 0.008, 0.831), (0.737, 0.004, 0.746), (0.780, 0.006, 0.787), (0.682, 0.001, 0.688)),
    _row("image-and-heatmaps", "view-wise", "view-wise+heatmaps",
         (0.886, 0.003, 0.895), (0.747, 0.002, 0.756), (0.843, 0.004, 0.850), (0.690, 0.002, 0.696)),
    _row("image-and-heatmaps", "view-wise*", "view-wise+heatmaps-scratch",
         (0.856, 0.007, 0.868), (0.701, 0.004, 0.708), (0.828, 0.008, 0.841), (0.633, 0.006, 0.640)),
    _row("image-and-heatmaps", "image-wise", "image-wise+heatmaps",
         (0.875, 0.001, 0.885), (0.765, 0.003, 0.774), (0.812, 0.001, 0.821), (0.653, 0.003, 0.658)),
    _row("image-and-heatmaps", "breast-wise", "breast-wise+heatmaps",
         (0.876, 0.004, 0.889), (0.764, 0.004, 0.779), (0.805, 0.004, 0.818), (0.652, 0.004, 0.661)),
    _row("image-and-heatmaps", "joint", "joint+heatmaps",
         (0.860, 0.008, 0.876), (0.745, 0.002, 0.763), (0.817, 0.008, 0.830), (0.696, 0.005, 0.709)),
)  # fmt: skip

MODEL = "exam:view-wise+heatmaps"
"""The row that sections V-C and VI call the model: its ensemble is what the readers were set beside."""
TWENTY_ROWS = tuple(row.row for row in TABLE_3 if row.inputs == "image-and-heatmaps" and "*" not in row.label)
TWENTY_AUC = {("screening", "malignant"): 0.899, ("screening", "benign"): 0.778}
"""Section V-C, the ensemble of 20; on the biopsied population it is MISSING."""
BIOPSIED_TEST = {"breasts": 401, "benign only": 339, "malignant only": 45, "both": 17}
"""Section V-D."""
BIRADS_AUC = 0.748
"""Section IV-C: mean of the three one-against-others AUCs on validation, of the model after 111 epochs."""

READER_STUDY = "720 exams, 1,440 breasts: 62 malignant, 356 benign; 14 readers (section VI)"
READERS = (
    Summary("model", 0.876, None, None, 0.318, None, None),
    Summary("readers", 0.778, 0.0435, (0.705, 0.860), 0.364, 0.0496, (0.244, 0.453)),
    Summary("hybrids", 0.891, 0.0109, None, 0.431, 0.0332, None),
)

DIFFERENCES = (
    Difference("pretrained - scratch, image-only", "exam:view-wise", "exam:view-wise-scratch"),
    Difference("pretrained - scratch, with heatmaps", MODEL, f"{MODEL}-scratch"),
    *(Difference(f"heatmaps - none, {join}", f"exam:{join}+heatmaps", f"exam:{join}")
      for join in ("view-wise", "image-wise", "breast-wise", "joint")),
    Difference("heatmaps - none, view-wise*", f"{MODEL}-scratch", "exam:view-wise-scratch"),
)  # fmt: skip

NOTES = (
    "The published figures are of the NYU screening data, which are not public: 229,426 exams of a screening"
    " population. Ours are of the data set that is named, whose case mix differs; the two stand side by side to show"
    " whether the order of the rows holds, not to be compared as numbers.",
    "AUCs of different case mixes are not comparable, those of the screening and the biopsied population neither:"
    " without the easy negatives the same network is lower (footnote 6).",
    "Published ± is the standard deviation over five models with other first weights of the Dense layers; ours is the"
    " sample standard deviation over the runs there are. Our brackets are 95 % intervals over patients of the test set,"
    " which the paper does not give.",
    "Ten randomly moved and resized predictions of each exam are averaged, in the paper and in ours.",
    "The biopsied population is of exams in section V-A and of breasts in section V-D (401, each with a finding); ours"
    " is of breasts.",
    "The join that Table III and Fig. 5 call breast-wise is called side-wise in section IV.",
    "Section V-D calls the benign AUC 0.696 of the biopsied population the best; in Table III joint has 0.709.",
)
