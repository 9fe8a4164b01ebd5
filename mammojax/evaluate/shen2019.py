"""What Shen et al. 2019 published, as far as our copies state it: numbers only, each with where it stands.

Our copy of the Scientific Reports article has its tables' captions but not their cells, so of that version only what
the text says is here; arXiv v1's Tables 1–3 are complete (one of our two copies lacks the last rows' epochs). A cell
that neither states is `MISSING` and never guessed.
"""

from typing import NamedTuple

MISSING = "not in our copy"
NO_FLIPS = f"Its column of A-AUC, flips averaged, is {MISSING}."
SCIREP, ARXIV = "Scientific Reports 2019", "arXiv v1"
PLAIN = "512-512-1024x2,512-512-1024x2"
LARGE = "512-512-2048x1,512-512-2048x1"
FOUR_BEST = (f"whole_resnet:{PLAIN}", "whole_resnet:256x1,128x1", "whole_vgg:256x1,128x1+200", f"whole_vgg:{PLAIN}+200")
INBREAST = ("inbreast:resnet-resnet", "inbreast:resnet-vgg", "inbreast:vgg-vgg", "inbreast:vgg-resnet")


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        label: as the paper calls it.
        row: `config.row` of the runs that fill it; "ensemble:a|b|…" is computed of other rows' runs.
        published: the value, with its interval where one is given; "" where the paper states the one with flips only.
        flips: the value with flips averaged (A-AUC); "" where the table has none.
        epoch: of the best checkpoint; "" where the table has none.
        where: where in the paper the value stands.
        patients: labelled patients of a label-efficiency row; 0: all.
    """

    label: str
    row: str
    published: str = MISSING
    flips: str = ""
    epoch: str = ""
    where: str = ""
    patients: int = 0


class Table(NamedTuple):
    """A table: which version of the paper, what is measured ("accuracy" or "auc"), on which data set; what it lacks."""

    name: str
    version: str
    measure: str
    data: str
    rows: tuple[Row, ...]
    lacks: str = ""


class Difference(NamedTuple):
    """A published difference of AUCs: row a minus row b, or for b = "two views" the gain of a breast's two views."""

    label: str
    a: str
    b: str
    published: str
    where: str


def _pools(network: str, further: str = "") -> tuple[Row, ...]:
    """Max pooling and FC layers on the heatmap: of all of them the text gives the best value."""
    return tuple(
        Row(f"heatmap, max pool {n}x{n}, FC 64-32", f"{network}:heatmap7,pool{n},fc64-32{further}", "at most 0.74",
            where="text, max-pooling") for n in range(1, 6)
    )  # fmt: skip


def _sweep(label: str, row: str, values: dict[int, str], where: str) -> tuple[Row, ...]:
    return tuple(
        Row(f"{label}, {n} patients", row, value, where="" if value == MISSING else where, patients=n)
        for n, value in values.items()
    )


TABLES = (
    Table("Table 1: patch classifiers", SCIREP, "accuracy", "cbis_ddsm", (
        Row("Resnet50, S1, random", "patch_resnet:s1-random"),
        Row("Resnet50, S1, ImageNet", "patch_resnet:s1"),
        Row("Resnet50, S10, random", "patch_resnet:s10-random"),
        Row("Resnet50, S10, ImageNet", "patch_resnet:s10", "0.89 [0.88, 0.90]", where="text beside Table 1"),
        Row("Resnet50, S1g, ImageNet", "patch_resnet:s1g"),
        Row("VGG16, S10, ImageNet", "patch_vgg:s10", "0.84 [0.83, 0.85]", where="text beside Table 1"),
    )),
    Table("Table 2: whole images, Resnet50 patch classifiers", SCIREP, "auc", "cbis_ddsm", (
        Row("S1, [512-512-2048]x1 twice", f"whole_resnet:{LARGE}/s1", "0.63", where="text, Resnet-based networks"),
        Row("S10, [512-512-2048]x1 twice", f"whole_resnet:{LARGE}", "0.85", where="text, Resnet-based networks"),
        Row("S1g, [512-512-2048]x1 twice", f"whole_resnet:{LARGE}/s1g"),
        Row("S10, [512-512-1024]x2 twice", f"whole_resnet:{PLAIN}", "0.86", where="text, Resnet-based networks"),
        Row("S10, [256-256-256]x1, [128-128-128]x1", "whole_resnet:256-256-256x1,128-128-128x1"),
        Row("hybrid: VGG 256x1, 128x1", "whole_resnet:256x1,128x1", "0.87", where="text, hybrid networks"),
        Row("heatmap, [512-512-1024]x2 twice", f"whole_resnet:heatmap7,{PLAIN}", "0.80", where="text, heatmap"),
        Row("heatmap, [64-64-256]x2, [128-128-512]x2", "whole_resnet:heatmap7,64-64-256x2,128-128-512x2", "0.81",
            where="text, heatmap"),
        *_pools("whole_resnet"),
        Row("two-step: random forest on heatmaps", "two_step", "0.73", where="text, two-step approach"),
        Row("ensemble of the four best, flips averaged", "ensemble:" + "|".join(FOUR_BEST), "", "0.91",
            where="text, model averaging"),
    ), NO_FLIPS),
    Table("Table 3: whole images, VGG16 patch classifiers", SCIREP, "auc", "cbis_ddsm", (
        Row("512x3 twice", "whole_vgg:512x3,512x3+200", "0.81", where="text, VGG-based networks"),
        Row("512x1 twice", "whole_vgg:512x1,512x1+200"),
        Row("256x1, 128x1", "whole_vgg:256x1,128x1+200", "0.85", where="text, VGG-based networks"),
        Row("128x1, 64x1", "whole_vgg:128x1,64x1+200"),
        Row("hybrid: [512-512-1024]x2 twice", f"whole_vgg:{PLAIN}+200", "0.85", where="text, hybrid networks"),
        *_pools("whole_vgg", "+200"),
    ), NO_FLIPS),
    Table("Table 4: INbreast, by labelled patients", SCIREP, "auc", "inbreast", (
        *(Row(f"{row.split(':')[1]}, all patients", row, "0.95", where="text, transfer") for row in INBREAST),
        *(r for row in INBREAST for r in _sweep(
            row.split(":")[1], row, {20: "0.87 to 0.92"} | dict.fromkeys((30, 40, 50, 60), MISSING),
            "text, transfer: range of the four")),
        Row("ensemble of the four", "ensemble:" + "|".join(INBREAST), "0.98", where="text, transfer"),
    )),
    Table("Table 1: patch classifiers", ARXIV, "accuracy", "cbis_ddsm", (
        Row("Resnet50", "patch_resnet:s10", "0.89", epoch="39", where="Table 1"),
        Row("VGG16", "patch_vgg:s10", "0.84", epoch="25", where="Table 1"),
    )),
    Table("Table 2: whole images", ARXIV, "auc", "cbis_ddsm", (
        Row("Resnet50, [512-512-2048]x1 twice", f"whole_resnet:{LARGE}", "0.85", "NA", "20", "Table 2"),
        Row("Resnet50, [512-512-1024]x2 twice", f"whole_resnet:{PLAIN}", "0.86", "0.88", "25", "Table 2"),
        Row("Resnet50, [256-256-512]x3, [128-128-256]x3", "whole_resnet:256-256-512x3,128-128-256x3", "0.84", "NA",
            "48", "Table 2"),
        Row("VGG16, 512x3 twice", "whole_vgg:512x3,512x3", "0.71", "NA", "47", "Table 2"),
        Row("VGG16, 512x1 twice", "whole_vgg:512x1,512x1", "0.83", "0.86", "44", "Table 2"),
        Row("VGG16, 256x1, 128x1", "whole_vgg:256x1,128x1", "0.80", "NA", "35", "Table 2"),
        Row("VGG16, [512-512-1024]x2 twice", f"whole_vgg:{PLAIN}", "0.81", "", "46", "Table 2"),
        Row("the same, 200 epochs more", f"whole_vgg:{PLAIN}+200", "0.85", "0.88", where="Table 2, note 1"),
        Row("Resnet50, heatmap, [512-512-1024]x2 twice", f"whole_resnet:heatmap7,{PLAIN}", "0.80", "NA", "47",
            "Table 2"),
        Row("Resnet50, heatmap, max pool 5x5, FC 64-32", "whole_resnet:heatmap7,pool5,fc64-32", "0.73", "NA",
            "28", "Table 2"),
        Row("VGG16, heatmap, max pool 5x5, FC 64-32", "whole_vgg:heatmap7,pool5,fc64-32", "0.71", "NA",
            "26", "Table 2"),
        Row("mean of three, flips averaged",
            f"ensemble:whole_resnet:{PLAIN}|whole_vgg:512x1,512x1|whole_vgg:{PLAIN}+200", "", "0.91",
            where="section 3.1.3"),
    )),
    Table("Table 3: INbreast, by labelled patients", ARXIV, "auc", "inbreast", (
        *_sweep("Resnet50", "inbreast:resnet-resnet",
                {20: "0.78", 30: "0.78", 40: "0.82", 50: "0.80", 60: "0.84"}, "Table 3"),
        Row("Resnet50, all patients", "inbreast:resnet-resnet", "0.84", where="section 3.2.2"),
        *_sweep("VGG16 512x1 twice", "inbreast:whole_vgg:512x1,512x1",
                {20: "0.87", 30: "0.90", 40: "0.90", 50: "0.93", 60: "0.95"}, "Table 3"),
        Row("VGG16 512x1 twice, all patients", "inbreast:whole_vgg:512x1,512x1", "0.92", "0.94",
            where="section 3.2.2"),
        *_sweep("hybrid", "inbreast:vgg-resnet",
                {20: "0.89", 30: "0.90", 40: "0.93", 50: "0.93", 60: "0.91"}, "Table 3"),
        Row("hybrid, all patients", "inbreast:vgg-resnet", "0.95", "0.96", where="section 3.2.2"),
        Row("mean of VGG16 and hybrid, flips averaged", "ensemble:inbreast:whole_vgg:512x1,512x1|inbreast:vgg-resnet",
            "", "0.96", where="section 3.2.2"),
    )),
)  # fmt: skip

DIFFERENCES = (
    Difference("S1g - S10 patches", f"whole_resnet:{LARGE}/s1g", f"whole_resnet:{LARGE}", "-0.023 [-0.061, 0.016]",
               "text, Resnet-based networks"),
    Difference("VGG heads: 256x1, 128x1 - 512x3 twice", "whole_vgg:256x1,128x1+200", "whole_vgg:512x3,512x3+200",
               "0.041 [0.011, 0.071]", "text, VGG-based networks"),
    Difference("heatmap before the blocks - without", f"whole_resnet:heatmap7,{PLAIN}", f"whole_resnet:{PLAIN}",
               "-0.050 [-0.088, -0.012]", "text, heatmap"),
    Difference("heatmap before smaller blocks - without", "whole_resnet:heatmap7,64-64-256x2,128-128-512x2",
               f"whole_resnet:{PLAIN}", "-0.044 [-0.075, -0.012]", "text, heatmap"),
    *(Difference(f"two views - one, {name}", row, "two views", value, "text, CC and MLO views")
      for name, row, value in zip(
          ("Resnet-Resnet", "Resnet-VGG", "VGG-VGG", "VGG-Resnet"), FOUR_BEST,
          ("0.030 [0.018, 0.042]", "0.027 [0.016, 0.037]", "0.040 [0.028, 0.051]", "0.048 [0.032, 0.064]"),
          strict=True)),
    *(Difference(f"flips averaged - as is, {name}", row, "flips", "0.01–0.03", "text, augmented prediction")
      for name, row in zip(("Resnet-Resnet", "Resnet-VGG", "VGG-VGG", "VGG-Resnet"), FOUR_BEST, strict=True)),
)  # fmt: skip

NOTES = (
    "Published figures of CBIS-DDSM are of the authors' own random split of the official training images, whose lists"
    " are not public; on the official test split others measured 0.69 to 0.75 for the released models.",
    "CBIS-DDSM is malignant against benign lesions; INbreast labels are BI-RADS (1, 2 against 4, 5, 6): AUCs of the two"
    " are not of one task.",
    "Ours differ from the published code, following the paper, in: frozen BatchNorms keep their statistics, weight"
    " decay acts on all kernels that learn, background patches keep clear of all lesions of an image, no shear.",
    "Intervals of ours are drawn by patient. The paper drew breasts for two views, and does not say what it drew"
    " elsewhere.",
    "arXiv v1 measured INbreast on the images that it calls its validation set, and does not say whether its hybrid was"
    " transferred before or after the 200 further epochs; ours is measured on a test set, and transferred after them.",
    "Operating points: the paper reads 86.1 % sensitivity at 80.1 % specificity (CBIS-DDSM, ensemble) and 86.7 % at"
    " 96.1 % (INbreast, ensemble) on the test set itself; `mammojax compare` prints ours both chosen on validation and"
    " read on test.",
)
