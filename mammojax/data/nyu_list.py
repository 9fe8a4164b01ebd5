"""The NYU code's exam lists, pickles of plain dictionaries, as manifests.

A pickle may run any code that it names, so only containers, strings and numbers are read; no name is looked up.
"""

import csv
import io
import pickle
from pathlib import Path
from typing import Any

from mammojax.errors import BadManifest
from mammojax.vocabulary import VIEWS

COLUMNS = ("image", "pathology", "patient_id", "exam_id", "laterality", "view", "horizontal_flip")


class _Named(pickle.UnpicklingError):
    """The pickle names something to be looked up."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise _Named(f"it names {module}.{name}")


def read_exam_list(path: Path) -> list[dict[str, Any]]:
    """The exams of a list: {"horizontal_flip": "YES" | "NO", "L-CC": [names], …}.

    Raises:
        BadManifest: the file is no such list, or holds more than plain values.
    """
    try:
        exams = _Plain(io.BytesIO(path.read_bytes())).load()
    except _Named as error:
        raise BadManifest(f"{path.name}: {error}, which a list of exams does not need; it is not opened.") from None
    except Exception as error:  # a file that is no pickle fails in as many ways as there are bytes
        raise BadManifest(
            f"{path.name} is no pickle ({type(error).__name__}); give the exam list of the NYU code."
        ) from None
    if not isinstance(exams, list) or not exams:
        raise BadManifest(f"{path.name} is not a list of exams; give the exam list of the NYU code.")
    for k, exam in enumerate(exams):
        wrong = "is not a dictionary" if not isinstance(exam, dict) else ""
        for view in VIEWS:
            names = [] if wrong else exam.get(view, [])
            if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
                wrong = f'has a "{view}" that is no list of file names'
        if not wrong and exam.get("horizontal_flip") not in ("YES", "NO"):
            wrong = 'has a "horizontal_flip" that is neither YES nor NO'
        if wrong:
            raise BadManifest(f"{path.name}: exam {k} {wrong}; make the list again.")
    return exams


def write_manifest(source: Path, output: Path, images: str = "images", suffix: str = ".png") -> int:
    """Write an exam list as a manifest, one row per image; the pathology stays empty.

    Args:
        source: the pickle.
        output: the CSV.
        images: the folder of the images in the manifest's paths.
        suffix: of the image files; their names in the list have none.

    Returns:
        The number of images.

    Raises:
        BadManifest: see `read_exam_list`.
    """
    rows = []
    for k, exam in enumerate(read_exam_list(source)):
        for view in VIEWS:
            side, angle = view.split("-")
            for name in exam.get(view, []):
                rows.append(
                    (f"{images}/{name}{suffix}", "", f"exam{k}", f"exam{k}", side, angle, exam["horizontal_flip"])
                )
    with output.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return len(rows)
