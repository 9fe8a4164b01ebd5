"""VinDr-Mammo 1.0.0 (Nguyen et al. 2023, Sci Data 10:277; PhysioNet, doi.org/10.13026/br2v-7517).

From its page and paper: 5,000 exams of four views, images/<study_id>/<image_id>.dicom; breast-level_annotations.csv has
a row per image (study_id, series_id, image_id, laterality, view_position, height, width, breast_birads "BI-RADS 1" to
"BI-RADS 5", breast_density "DENSITY A" to "DENSITY D", split "training" or "test": 4,000 and 1,000 exams);
finding_annotations.csv a row per finding, with finding_categories such as "['Mass', 'Skin Retraction']" or
"['No Finding']", finding_birads, and its box xmin, ymin, xmax, ymax in pixels. All labels are the readers' BI-RADS
categories, none is a biopsy's. Patients are not named; each exam counts as one. Access is restricted: PhysioNet
asks for a signed agreement.
"""

import re
from collections import defaultdict
from pathlib import Path

from mammojax.data import birads, download, outline
from mammojax.data.manifest import Image, Lesion, Table
from mammojax.errors import BadManifest

LICENCE = "PhysioNet, restricted access by signed agreement"
_IMAGE = ("study_id", "image_id", "laterality", "view_position", "breast_birads")
_FINDING = ("image_id", "finding_categories", "finding_birads", "xmin", "ymin", "xmax", "ymax")
_KINDS = {"mass": "mass", "suspicious calcification": "calcification", "architectural distortion": "mass",
          "asymmetry": "mass", "focal asymmetry": "mass", "global asymmetry": "mass"}  # fmt: skip


def read_table(source: Path, three: str = "unknown") -> Table:
    """All images of the breast-level table that have a file; `split` is train or test, as published.

    An image's label is its breast's category (`birads.pathology`), a finding's its own; findings of the skin, the
    nipple or lymph nodes have no `abnormality`, so that they give no patches.

    Args:
        source: the download.
        three: what is made of BI-RADS 3, see `birads.THREE`.

    Raises:
        BadManifest: a table is absent or lacks a column, or no image is there.
    """
    csv = download.find(source, "breast-level_annotations.csv")
    findings: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in download.rows(download.find(source, "finding_annotations.csv"), _FINDING):
        if row["xmin"]:  # "No Finding" has no box
            findings[row["image_id"]].append(row)
    files, table = download.images(csv.parent), Table([])
    for row in download.rows(csv, _IMAGE, ("breast_density", "split")):
        name = row["image_id"]
        if name not in files:
            table.rejected.append((name, f"{csv.name} lists it, but there is no file of that name"))
            continue
        categories = {word for finding in findings[name] for word in _categories(finding)}
        pathology = birads.pathology(row["breast_birads"], three)
        table.images.append(
            Image(
                image=name, path=files[name], patient_id=row["study_id"], exam_id=row["study_id"],
                laterality=row["laterality"][:1], view=row["view_position"], pathology=pathology,
                density=row["breast_density"].upper().removeprefix("DENSITY").strip(),
                split={"training": "train", "test": "test"}.get(row["split"], ""),
                lesions=tuple(lesion for f in findings[name] if (lesion := _lesion(f, three, name, table))),
                columns={"label_source": birads.SOURCE, "birads": birads.number(row["breast_birads"]),
                         "finding": "; ".join(sorted(categories))},
            )
        )  # fmt: skip
    if not table.images:
        raise BadManifest(f'no image of {csv.name} is below its folder; put it beside the folder "images".')
    return table


def _categories(finding: dict[str, str]) -> list[str]:
    return re.findall(r"['\"]([^'\"]+)['\"]", finding["finding_categories"])


def _lesion(finding: dict[str, str], three: str, name: str, table: Table) -> Lesion | None:
    pathology = birads.pathology(finding["finding_birads"], three)
    if pathology not in ("BENIGN", "MALIGNANT"):
        category = finding["finding_birads"] or "no category"
        table.rejected.append((name, f"a finding of {category} is left out: it is neither benign nor malignant"))
        return None
    kinds = [kind for word in _categories(finding) if (kind := _KINDS.get(word.lower()))]
    box = outline.box(*(float(finding[side]) for side in ("xmin", "ymin", "xmax", "ymax")))
    return Lesion(None, pathology, kinds[0] if kinds else "", outline=box)
