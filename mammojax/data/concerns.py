"""What stands in the way of training on a data set, or of trusting what is measured on it: `mammojax check`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mammojax import metrics
from mammojax.data import manifest
from mammojax.data.examples import Rejected
from mammojax.data.levels import LEVELS
from mammojax.data.manifest import Image, Table
from mammojax.data.projection import why_unused
from mammojax.data.survey import Seen
from mammojax.errors import BadManifest
from mammojax.vocabulary import VIEWS

CANNOT, WARNING, NOTE = "cannot train", "warning", "note"
"""How much a concern matters; the exit codes of `mammojax check` are 2, 1 and 0."""
SHARE = 0.2
"""The share of images beyond all that a run has seen, or far from the others, that is no chance any more."""


@dataclass(frozen=True)
class Concern:
    """One thing to know of a data set.

    Attributes:
        kind: CANNOT, WARNING or NOTE.
        text: a sentence, with what to do.
        files: (image or file, what is the matter with it) of those it concerns.
    """

    kind: str
    text: str
    files: Sequence[tuple[str, str]] = ()


def splits_of(usable: Sequence[Image], seed: int = 0) -> tuple[dict[str, str], list[Concern]]:
    """Patient → split as training would have it, {} where there is none; and the concerns about the splits' classes.

    What `dataset.refuse_one_class` refuses after preparing is refused here before.
    """
    try:
        splits = manifest.splits(usable, seed)
    except BadManifest as error:
        return {}, [Concern(CANNOT, str(error))]
    concerns = []
    patients: dict[str, list[int]] = {split: [0, 0] for split in manifest.SPLITS}
    images: dict[str, list[int]] = {split: [0, 0] for split in manifest.SPLITS}
    worst: dict[str, int] = {}
    for image in usable:
        if image.label >= 0:
            images[splits[image.patient_id]][image.label] += 1
            worst[image.patient_id] = max(worst.get(image.patient_id, 0), image.label)
    for patient, label in worst.items():
        patients[splits[patient]][label] += 1
    if not worst:
        return splits, [Concern(CANNOT, "No image has a known pathology: these images can only be predicted.")]
    if min(map(sum, zip(*images.values(), strict=True))) == 0:
        only = "malignant" if not sum(n for n, _ in images.values()) else "not malignant"
        return splits, [Concern(CANNOT, f"All labelled images are {only}, so nothing can be told apart.")]
    if min(images["train"]) == 0:
        concerns.append(Concern(CANNOT, f"The training images are of one class: {_counts(images['train'])}."))
    for split in ("val", "test"):
        if not sum(images[split]):
            concerns.append(Concern(CANNOT, f"The {split} split has no labelled image; give it more patients."))
        elif min(images[split]) < metrics.ENOUGH:
            text = f"The {split} split is too small to measure an AUC with an interval: {_counts(images[split])}."
            concerns.append(Concern(WARNING, f"{text} `mammojax finetune --folds 5` tests on every patient once."))
    if 0 < min(patients["train"]) < metrics.ENOUGH:
        text = f"The training patients are few to learn from: {_counts(patients['train'])}."
        concerns.append(Concern(WARNING, f"{text} Fine-tune a run that knows mammograms: mammojax finetune."))
    return splits, concerns


def _counts(negative_positive: Sequence[int]) -> str:
    return f"{negative_positive[1]} malignant and {negative_positive[0]} other"


def concerns_of(table: Table, seen: Sequence[Seen], splits: dict[str, str]) -> list[Concern]:
    """What `splits_of` does not say, most serious first.

    Args:
        table: of the images, with what was left out of it.
        seen: its images' files, from `survey`.
        splits: patient → split, {} where unknown.
    """
    used = [file for file in seen if not file.reason]
    concerns = []
    if not used:
        concerns.append(Concern(CANNOT, "No file can be used as a mammogram.", _of_reasons(seen)))
    elif len(used) < len(seen):
        text = f"{len(seen) - len(used)} of {len(seen)} files cannot be read or are no mammograms; they are left out."
        concerns.append(Concern(WARNING, text, _of_reasons(seen)))
    if table.rejected:
        text = f"{len(table.rejected)} rows, images or masks of the table cannot be used as they are."
        concerns.append(Concern(WARNING, text, table.rejected))
    concerns += [
        *_twins(used, splits), *_shared_patients(used, splits), *_masks(used), *_letters(used), *_sides(used),
        *_appearance(used), *_lesions(table.images), *_ids(table.images), *_exams(used),
    ]  # fmt: skip
    return sorted(concerns, key=lambda concern: (CANNOT, WARNING, NOTE).index(concern.kind))


def _of_reasons(seen: Iterable[Seen]) -> Rejected:
    return [(file.image.image, file.reason) for file in seen if file.reason]


def _twins(used: Sequence[Seen], splits: dict[str, str]) -> list[Concern]:
    """Files with equal pixels: of several patients, or twice for one."""
    groups: dict[bytes, list[Seen]] = defaultdict(list)
    for file in used:
        groups[file.digest].append(file)
    apart, same = [], []
    for group in groups.values():
        first = group[0].image
        for file in group[1:]:
            if file.image.patient_id == first.patient_id:
                same.append((file.image.image, f"its pixels are those of {first.image}, of the same patient"))
            else:
                where = {splits.get(image.patient_id, "") for image in (first, file.image)} - {""}
                across = f", and they stand in {' and '.join(sorted(where))}" if len(where) > 1 else ""
                apart.append((file.image.image, f"its pixels are those of {first.image}, of another patient{across}"))
    concerns = []
    if apart:
        text = f"{len(apart)} images have the pixels of another patient's image; one of the two labels is wrong."
        concerns.append(Concern(WARNING, text, apart))
    if same:
        concerns.append(
            Concern(WARNING, f"{len(same)} images stand in the table twice or more, by their pixels.", same)
        )
    return concerns


def _shared_patients(used: Sequence[Seen], splits: dict[str, str]) -> list[Concern]:
    """Headers whose PatientID is that of several patients of the table."""
    groups: dict[str, list[Image]] = defaultdict(list)
    for file in used:
        if file.header_patient:
            groups[file.header_patient].append(file.image)
    if len(groups) == 1:  # one id in all headers is no patient's
        return []
    joined = [group for group in groups.values() if len({image.patient_id for image in group}) > 1]
    across = [group for group in joined if len({splits.get(image.patient_id, "") for image in group}) > 1]
    if not joined:
        return []
    text = f"{len(joined)} patients by the headers' PatientID have several patient_id in the table"
    text += f"; {len(across)} of them would stand in two splits." if across else "."
    files = [
        (image.image, f"its header names the patient of {group[0].image}") for group in joined for image in group[1:]
    ]
    return [Concern(WARNING, f"{text} Give each patient one patient_id.", files)]


def _masks(used: Sequence[Seen]) -> list[Concern]:
    wrong = [pair for file in used for pair in file.masks]
    text = f"{len(wrong)} masks cannot be read, mark nothing or do not fit their image."
    return [Concern(WARNING, text, wrong)] if wrong else []


def _letters(used: Sequence[Seen]) -> list[Concern]:
    said = [(file.image.image, "BurnedInAnnotation is YES") for file in used if file.burned_in == "YES"]
    found = [file for file in used if file.letters]
    concerns = []
    if said:
        text = f"{len(said)} images say of themselves that text is burned in, which may name a patient."
        concerns.append(Concern(WARNING, text, said))
    if found:
        denied = sum(file.burned_in == "NO" for file in found)
        text = (
            f"{len(found)} images seem to have letters outside the breast: a lead marker, or a patient's name or date"
        )
        text += f"; {denied} of them say they have none. " if denied else ". "
        files = [(file.image.image, f"about {sum(n for _, n in file.letters)} characters") for file in found]
        concerns.append(Concern(WARNING, f"{text}Look at them before they leave your hospital.", files))
    return concerns


def _sides(used: Sequence[Seen]) -> list[Concern]:
    """Table and header that name another side or view."""
    wrong = []
    for file in used:
        for name in ("laterality", "view"):
            table, header = getattr(file.image, name), getattr(file, name)
            if table and header and table != header:
                wrong.append((file.image.image, f"{name} is {table} in the table and {header} in the file"))
    text = f"Table and file contradict each other on the side or view of {len({name for name, _ in wrong})} images."
    return [Concern(WARNING, f"{text} The table is believed.", wrong)] if wrong else []


def _appearance(used: Sequence[Seen]) -> list[Concern]:
    """Images that look unlike the rest: no breast, raw detector images, levels far away."""
    concerns = []
    if blank := [(file.image.image, "no breast was found") for file in used if not file.has_breast]:
        concerns.append(Concern(WARNING, f"No breast was found in {len(blank)} images.", blank))
    raw = [(file.image.image, "for processing") for file in used if file.for_processing]
    if raw and len(raw) < len(used):
        text = f"{len(raw)} of {len(used)} images are raw detector images (FOR PROCESSING), whose gray scale differs."
        concerns.append(Concern(WARNING, f"{text} Use one kind.", raw))
    values = np.array([file.levels["tissue"] for file in used])
    if len(values) >= 2 * metrics.ENOUGH:
        middle = np.nanmedian(values)
        spread = max(1.4826 * float(np.nanmedian(np.abs(values - middle))), 0.02)
        far = np.flatnonzero(np.abs(values - middle) > 4 * spread)
        files = [
            (used[int(k)].image.image, f"the breast's median is {values[k]:.2f}, of all {middle:.2f}") for k in far
        ]
        text = f"{len(files)} images are much darker or brighter than the others of this data set."
        concerns += [Concern(WARNING if len(files) > SHARE * len(values) else NOTE, text, files)] if files else []
    return concerns


def _lesions(images: Sequence[Image]) -> list[Concern]:
    """Outlines, and the classes of lesions that a patch classifier learns."""
    drawn = [x for image in images for x in image.lesions if (x.mask or x.outline) and x.visible]
    kinds = Counter(f"{x.pathology.lower()} {x.abnormality}" for x in drawn if x.abnormality)
    untyped = sum(not x.abnormality for x in drawn)
    if not drawn:
        text = (
            "No lesion is outlined, so no patch classifier can be trained here: start from a run (mammojax finetune)."
        )
        return [Concern(NOTE, text)]
    few = [(name, f"{n} outlined") for name, n in kinds.items() if n < metrics.ENOUGH]
    text = f"Some kinds of lesion have fewer than {metrics.ENOUGH} outlines, too few for a patch classifier."
    concerns = [Concern(WARNING, text, few)] if few else []
    if untyped:
        text = f"{untyped} of {len(drawn)} outlined lesions have no type (the column abnormality is empty); they give "
        concerns.append(Concern(NOTE, text + "no patches unless data.one_type=True counts all as masses."))
    return concerns


def _ids(images: Sequence[Image]) -> list[Concern]:
    alone = [image for image in images if image.patient_id == image.image]
    if len(alone) < 2:
        return []
    text = (
        f"{len(alone)} images name no patient, in the table or their header; each counts as a patient of its own, so "
    )
    return [Concern(WARNING, f"{text}a patient may stand in two splits. Fill the column patient_id.")]


def _exams(used: Sequence[Seen]) -> list[Concern]:
    """How many exams have the four views of screening."""
    views: dict[str, set[str]] = defaultdict(set)
    others = []
    for file in used:
        side, view = file.image.laterality or file.laterality, file.image.view or file.view
        if reason := why_unused(side, view, "" if file.image.view else file.modifier):
            others.append((file.image.image, reason))
        else:
            views[file.image.exam_id or file.image.patient_id].add(f"{side}-{view}")
    whole = sum(len(names) == len(VIEWS) for names in views.values())
    text = f"{whole} of {len(views)} exams have all four views (CC and MLO of both breasts)."
    concerns = [Concern(NOTE, text)] if views else []
    if others:
        text = (
            f"{len(others)} images are no CC or MLO of a known side; image classifiers take them, exam networks do not."
        )
        concerns.append(Concern(NOTE, text, others))
    return concerns


def beyond(seen: Sequence[Seen], ranges: Mapping[str, Sequence[float]]) -> list[Concern]:
    """Images outside the gray levels of a run's training images.

    Args:
        seen: measured on framed images, see `survey`.
        ranges: of the run's training images, see `levels.ranges`.
    """
    concerns = []
    used = [file for file in seen if not file.reason]
    for name, quantiles in ranges.items():
        lowest, *_, highest = quantiles
        values = np.array([file.levels[name] for file in used])
        for which, word in ((values < lowest - 1e-4, "darker"), (values > highest + 1e-4, "brighter")):
            if not which.any():
                continue
            files = [(used[int(k)].image.image, f"{values[k]:.3f}") for k in np.flatnonzero(which)]
            text = f"{len(files)} of {len(used)} images are {word} than anything this run has seen ({LEVELS[name]}; "
            text += f"the run's training images: {lowest:.3f} … {highest:.3f}). Do not trust its scores on them."
            many = len(files) > SHARE * len(used) or which[np.argsort(values)[len(values) // 2]]  # the middle one too
            concerns.append(Concern(WARNING if many else NOTE, text, files))
    return concerns
