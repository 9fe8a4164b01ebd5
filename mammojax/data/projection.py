"""The side and the view of a mammogram as known words; no other text of a header or a file name is passed on.

Views are those of DICOM PS3.16 CID 4014, coded in SNOMED CT (SCT) or its predecessor (SRT), and the short names of the
ACR that ViewPosition holds. A modifier (CID 4015: spot compression, magnification, a displaced implant, …) makes a
diagnostic view of it, which is not part of a screening exam.
"""

import re
from pathlib import Path

import pydicom

MAGNIFIED = 1.4  # MQSA's magnification begins here (21 CFR 900.12(b)(6)); contact views stay below 1.2
PROJECTIONS = ("CC", "MLO", "ML", "LM", "LMO", "XCC", "XCCL", "XCCM", "FB", "SIO", "ISO", "AT", "CV", "TAN")
_WRITTEN = PROJECTIONS[:8]  # the others' short names have other meanings in a file name
VIEW_CODES = {
    "399162004": "CC", "R-10242": "CC",
    "399368009": "MLO", "R-10226": "MLO",
    "399260004": "ML", "R-10224": "ML",
    "399352003": "LM", "R-10228": "LM",
    "399099002": "LMO", "R-10230": "LMO",
    "399192008": "XCCL", "R-1024A": "XCCL",
    "399101009": "XCCM", "R-1024B": "XCCM",
    "399196006": "FB", "R-10244": "FB",
    "399188001": "SIO", "R-102D0": "SIO",
    "441555000": "ISO", "R-40AAA": "ISO",
}  # fmt: skip
MODIFIERS = {
    "399055006": "spot compression", "R-102D7": "spot compression",
    "399163009": "magnification", "R-102D6": "magnification",
    "399209000": "implant displaced", "R-102D5": "implant displaced",
    "399011000": "axillary tail", "R-102D1": "axillary tail",
    "442580003": "axillary tissue", "R-40AB2": "axillary tissue",
    "399161006": "cleavage", "R-102D2": "cleavage",
    "399110001": "tangential", "R-102C2": "tangential",
    "399197002": "rolled", "R-102D3": "rolled",
    "399226006": "rolled", "R-102D4": "rolled",
    "414493004": "rolled", "R-102CA": "rolled",
    "415670009": "rolled", "R-102C9": "rolled",
    "441752004": "anterior compression", "P2-00161": "anterior compression",
    "442593008": "infra-mammary fold", "R-40ABE": "infra-mammary fold",
}  # fmt: skip
KEYWORDS = (
    "ImageLaterality", "Laterality", "FrameLaterality", "SharedFunctionalGroupsSequence", "ViewPosition",
    "ViewCodeSequence", "ViewModifierCodeSequence", "SeriesDescription", "AcquisitionDeviceProcessingDescription",
    "EstimatedRadiographicMagnificationFactor",
)  # fmt: skip
"""The fields of a header that `laterality` and `view` read."""
_IN_PROFILE = ("442581004", "R-40AB3")  # the nipple in profile, as every screening view should show it
_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
_WORDS = {
    "SPOT": "spot compression",
    **dict.fromkeys(("MAG", "MAGN", "MAGNIFIED", "MAGNIFICATION"), "magnification"),
}


def laterality(header: pydicom.Dataset, path: Path) -> str:
    """One of "L", "R", "": from the header, else from the file's name."""
    for keyword in ("ImageLaterality", "Laterality", "FrameLaterality"):
        if side := _SIDES.get(_text(header, keyword)):
            return side
    for shared in header.get("SharedFunctionalGroupsSequence") or []:
        for anatomy in shared.get("FrameAnatomySequence") or []:
            if side := _SIDES.get(_text(anatomy, "FrameLaterality")):
                return side
    return from_name(path.stem)[0]


def view(header: pydicom.Dataset, path: Path) -> tuple[str, str]:
    """The view, one of PROJECTIONS or "", and its modifier, a value of MODIFIERS, "other modifier" or "".

    A modified view is no view: ("", "magnification"). ViewPosition counts where it is a known word, then
    ViewCodeSequence; a description or the file's name counts only where ViewPosition is empty.
    """
    if modifier := _modifier(header):
        return "", modifier
    position = _text(header, "ViewPosition")
    for word in (position, position[1:] if position[:1] in ("L", "R") else ""):
        if word in PROJECTIONS:
            return word, ""
    for code in header.get("ViewCodeSequence") or []:
        if name := VIEW_CODES.get(_text(code, "CodeValue")):
            return name, ""
    if position:
        return "", ""
    described = f"{_text(header, 'SeriesDescription')} {_text(header, 'AcquisitionDeviceProcessingDescription')}"
    for text in (described, path.stem):
        _, name, modifier = from_name(text)
        if name or modifier:
            return name, modifier
    return "", ""


def from_name(text: str) -> tuple[str, str, str]:
    """Laterality, view and modifier that a file name or description spells out, such as "P1_LEFT_CC" or "L MLO"."""
    words = re.split(r"[^A-Z]+", text.upper())
    joined = [w for w in words if w[:1] in ("L", "R") and w[1:] in _WRITTEN]  # "LCC"
    sides = {_SIDES[w] for w in words if w in _SIDES} | {w[0] for w in joined}
    views = [w[1:] if w in joined else w for w in words]
    modifier = next((_WORDS[w] for w in words if w in _WORDS), "")
    name = "" if modifier else next((w for w in views if w in _WRITTEN), "")
    return (sides.pop() if len(sides) == 1 else ""), name, modifier


def why_unused(side: str, view: str, modifier: str) -> str:
    """Why an image is none of an exam's four views, or ""."""
    if side in ("L", "R") and view in ("CC", "MLO"):
        return ""
    if modifier and not view:
        return f"it is no screening view ({modifier}); leave it out, or name its view in a manifest"
    return "its side or view (CC, MLO) is unknown; give them in a manifest"


def _modifier(header: pydicom.Dataset) -> str:
    """The modifier of the view: by code (mostly inside ViewCodeSequence), magnification factor or words."""
    items = [*(header.get("ViewModifierCodeSequence") or [])]
    for code in header.get("ViewCodeSequence") or []:
        items += code.get("ViewModifierCodeSequence") or []
    for item in items:
        code = _text(item, "CodeValue")
        if code not in _IN_PROFILE and (code or _text(item, "LongCodeValue") or _text(item, "CodeMeaning")):
            return MODIFIERS.get(code, "other modifier")
    try:
        if float(header.get("EstimatedRadiographicMagnificationFactor") or 1) >= MAGNIFIED:
            return "magnification"
    except (TypeError, ValueError):
        pass  # a malformed factor is no factor
    return from_name(_text(header, "SeriesDescription"))[2]


def _text(header: pydicom.Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip().upper()
