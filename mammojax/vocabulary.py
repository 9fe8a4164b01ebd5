"""The words of screening mammography in the order of our arrays; every room may import them."""

VIEWS = ("L-CC", "R-CC", "L-MLO", "R-MLO")
"""The four views of a screening exam: laterality, then angle."""

PAIRS = {"views": ("CC", "MLO"), "breasts": ("breast", "other")}
"""The two inputs of a two-view network: the views of a breast (Petrini et al. 2022), or, where there is one view only,
a breast and the other breast of its exam; the label is the first one's."""

LABELS = ("left_benign", "right_benign", "left_malignant", "right_malignant")
"""The four labels of an exam (Wu et al. 2019, section IV)."""

BIRADS = ("0", "1", "2")
"""The BI-RADS categories of the paper's screening exams: incomplete, normal, benign (Wu et al. 2019, section IV-C)."""

FINDINGS = ("malignant", "benign")
"""The findings of a breast, in the paper's order of heatmap channels (Wu et al. 2019, section IV-B)."""

PATCH_CLASSES = ("background", "malignant_mass", "benign_mass", "malignant_calcification", "benign_calcification")
"""Classes of a patch of a mammogram (Shen et al. 2019, "Setup and processing of the dataset")."""

MALIGNANT_PATCHES = tuple(k for k, name in enumerate(PATCH_CLASSES) if name.startswith("malignant"))
"""Indices of the malignant ones among PATCH_CLASSES."""

EXAM_PATCH_CLASSES = (*FINDINGS, "outside", "negative")
"""Classes of a patch of an exam, as the published network has them: of an image with a finding, or without any."""
