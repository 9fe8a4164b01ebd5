"""What a BI-RADS category says of a breast. It is a reader's opinion before any biopsy, not a pathology."""

from mammojax.errors import BadManifest

SOURCE = "BI-RADS"
"""`label_source` of labels from categories."""
THREE = {"unknown": "", "benign": "BENIGN", "malignant": "MALIGNANT"}
"""What may be made of category 3, "probably benign", which is followed up: unknown (Shen et al. 2019 leave it out),
benign, or malignant (Petrini & Kim 2025 count VinDr-Mammo's 3 to 5 as positive)."""

_PATHOLOGIES = {"1": "NORMAL", "2": "BENIGN"} | dict.fromkeys(("4", "4a", "4b", "4c", "5", "6"), "MALIGNANT")


def pathology(category: str, three: str = "unknown") -> str:
    """NORMAL (1), BENIGN (2), MALIGNANT (4, 4a to 4c, 5, 6), as for INbreast in Shen et al. 2019; "" for 0 and others.

    Args:
        category: such as "2", "4a" or "BI-RADS 5".
        three: of `THREE`.

    Raises:
        BadManifest: `three` is none of them.
    """
    if three not in THREE:
        raise BadManifest(f'--birads-3 is "{three}"; write {", ".join(THREE)}.')
    word = number(category)
    if word == "3":
        return THREE[three]
    return _PATHOLOGIES.get(word, "")


def number(category: str) -> str:
    """The category alone: "BI-RADS 4A" → "4a"."""
    return category.strip().lower().removeprefix("bi-rads").strip()
