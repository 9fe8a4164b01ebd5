"""Single mammograms from files to tables."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from mammojax.data.cells import Writer
from mammojax.data.dicom import Mammogram
from mammojax.data.identity import KEY, hashed, id_key
from mammojax.data.manifest import read_manifest
from mammojax.errors import BadCheckpoint, BadMammogram
from mammojax.evaluate.predictor import ImagePredictor, ensemble, read
from mammojax.evaluate.table import IMAGE_COLUMNS as COLUMNS

TABLES = (".csv", ".tsv", ".xlsx", ".xls")  # what is taken for a manifest, if only to be refused as no CSV
_OWN = (
    "predictions.csv",
    "breasts.csv",
    "exams.csv",
    "rejected.csv",
    KEY,
)  # what predict_folder itself leaves in its output
BREAST_COLUMNS = ("exam_id", "patient_id", "laterality", "views", "p_benign", "p_malignant")  # p_benign: exam models


def predict_folder(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", any_modality: bool = False
) -> int:
    """Score a file, every file below a folder, or the images of a manifest.

    Several runs are an ensemble: the mean of their malignant scores, each framing the image its own way (Shen et al.
    2019, "Augmented prediction and model averaging"). Writes OUTPUT/predictions.csv (COLUMNS; label empty where
    unknown), OUTPUT/breasts.csv (BREAST_COLUMNS; the mean over a breast's views, of images whose side and view are
    known) and OUTPUT/rejected.csv (file, reason): each file stands in predictions or there. Ids from DICOM headers
    become keyed hashes (the key: OUTPUT/.id_key); a manifest's are kept. What is no mammogram is rejected, by Modality
    too unless `any_modality`.

    Returns:
        0, or 3 when no image could be predicted.

    Raises:
        BadCheckpoint: the run cannot be used. BadManifest, BadMammogram: the input cannot be.
    """
    models = [ImagePredictor.restore(run) for run in runs]
    for run, model in zip(runs, models, strict=True):
        if model.config.model.task != "whole":
            raise BadCheckpoint(f'"{run}" is a patch classifier; give the run of a whole-image classifier.')
    listed, rejected, key = listing(source, output)
    output.mkdir(parents=True, exist_ok=True)

    def load(item: tuple[Path, dict[str, str]]) -> tuple[list[np.ndarray], dict[str, str]] | tuple[str, str]:
        path, facts = item
        try:
            mammogram = read(path, any_modality)
            return [model.frame(mammogram.pixels) for model in models], facts_of(mammogram, facts, key)
        except BadMammogram as error:
            return facts["image"], str(error)

    done = 0
    batch = max(1, min(*(model.config.eval_batch for model in models), len(listed)))
    breasts: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    with table(output / "predictions.csv") as file, ThreadPoolExecutor(2) as pool:
        writer = Writer(file, COLUMNS)
        bar = tqdm(total=len(listed), desc="predict", unit="image", disable=None)
        # The next batch is decoded while the device works on this one.
        ahead = [pool.submit(load, item) for item in listed[:batch]]
        for start in range(0, len(listed), batch):
            now, ahead = ahead, [pool.submit(load, item) for item in listed[start + batch : start + 2 * batch]]
            loaded = [future.result() for future in now]
            rejected += [item for item in loaded if isinstance(item[0], str)]
            good = [item for item in loaded if not isinstance(item[0], str)]
            scores = [  # batches are always full: rejected files must not change their shape
                model.score([item[0][k] for item in good], tta, batch) for k, model in enumerate(models)
            ]
            for (_, facts), p in zip(good, ensemble(scores), strict=True):
                writer.row({**facts, "p_malignant": repr(float(p))})
                of_whom = facts["patient_id"] or facts["exam_id"]
                if of_whom and facts["laterality"] and facts["view"]:  # else whose breast, or which view, is unknown
                    breast = breasts.setdefault((facts["exam_id"], facts["patient_id"], facts["laterality"]), {})
                    breast.setdefault(facts["view"], []).append(float(p))
            file.flush()
            done += len(good)
            bar.update(len(loaded))
        bar.close()
    with table(output / "breasts.csv") as file:
        breast_writer = Writer(file, BREAST_COLUMNS)
        for breast_of, views in breasts.items():  # several images of a view count as one
            mean = float(np.mean([np.mean(scores) for scores in views.values()]))
            breast_writer.row([*breast_of, "+".join(sorted(views)), "", repr(mean)])
    with table(output / "rejected.csv") as file:
        Writer(file, ("file", "reason")).rows(rejected)
    print(f"{done} predicted, {len(rejected)} rejected → {output}", flush=True)
    return 0 if done else 3


Listed = list[tuple[Path, dict[str, str]]]


def listing(source: Path, output: Path) -> tuple[Listed, list[tuple[str, str]], bytes]:
    """What is to be predicted: the files with what is known of each, what is rejected already, and the ids' key.

    Args:
        source: a file, a folder, or a manifest.
        output: where results go; its own files are not looked at when it lies inside `source`.

    Raises:
        BadMammogram: the source does not exist. BadManifest: it cannot be read.
    """
    if not source.exists():
        raise BadMammogram(f'"{source}": there is no such file or folder; check --input.')
    rejected: list[tuple[str, str]] = []
    listed: Listed = []
    if source.suffix.lower() in TABLES:
        manifest = read_manifest(source, id_folder=output)
        rejected += manifest.rejected
        columns = ("image", "patient_id", "exam_id", "laterality", "view", "horizontal_flip")
        for image in manifest.images:
            facts = {c: getattr(image, c) for c in columns}
            listed.append((image.path, facts | {"label": str(image.label) if image.label >= 0 else ""}))
        return listed, rejected, b""
    if source.is_dir():
        own = {output.resolve() / name for name in _OWN}
        files = sorted(p for p in source.rglob("*") if p.is_file() and p.resolve() not in own)
        listed = [(p, {"image": p.relative_to(source).as_posix(), "label": ""}) for p in files]
    else:
        listed = [(source, {"image": source.name, "label": ""})]
    output.mkdir(parents=True, exist_ok=True)
    return listed, rejected, id_key(output)


def table(path: Path) -> TextIO:
    """A CSV to write; a file name that is no UTF-8 gets there byte for byte."""
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")


def facts_of(mammogram: Mammogram, facts: dict[str, str], key: bytes) -> dict[str, str]:
    """The row of an image: what the manifest says, else what the header says, ids hashed."""
    if "patient_id" not in facts:
        for name in ("patient_id", "exam_id"):
            value = getattr(mammogram, name)
            facts[name] = hashed(value, key)
    facts["laterality"] = facts.get("laterality") or mammogram.laterality
    facts["view"] = facts.get("view") or mammogram.view
    facts["modifier"] = mammogram.modifier
    return facts
