"""The files that `mammojax predict` is given, the facts of each, and the tables that it writes of them."""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from mammojax import processes
from mammojax.data.cells import Writer, shielded
from mammojax.data.dicom import Mammogram, read_facts
from mammojax.data.identity import KEY, hashed, id_key
from mammojax.data.manifest import read_manifest
from mammojax.errors import BadConfig, BadMammogram, near_file
from mammojax.evaluate import parts, predict_report, provenance

TABLES = (".csv", ".tsv", ".xlsx", ".xls")  # taken as manifests; all but CSVs are then refused
BREAST_COLUMNS = ("exam_id", "patient_id", "laterality", "views", "p_benign", "p_malignant")
"""Columns of breasts.csv; p_benign is of exam networks only."""
ORIGIN = "predictions.json"
"""Which runs the tables come from, and what they may be used for."""
_OUTPUTS = (*predict_report.TABLES, "rejected.csv", ORIGIN, predict_report.FILE, KEY)
_FOLDERS = ("overlays", "dicom")
Facts = dict[str, str]
Listed = list[tuple[Path, Facts]]
Rejected = list[tuple[str, str]]


def listing(source: Path, output: Path, ids: str = "") -> tuple[Listed, Rejected, bytes]:
    """The files to predict with their facts, the files rejected already, and the key of the ids.

    Args:
        source: a file, a folder, or a manifest.
        output: the folder of results; its own files are ignored when it lies inside `source`.
        ids: "": those of headers are hashed, those of a manifest kept. "keep": both are kept; the key is then empty.
            "hash": both are hashed.

    Raises:
        BadMammogram: the source does not exist. BadManifest: the manifest cannot be read. BadConfig: the processes of
            a run see different files.
    """
    with processes.in_turn() as first:  # the first makes the key of the ids
        if first:
            shutil.rmtree(output / parts.FOLDER, ignore_errors=True)  # of a call that was killed
        result = _listing(source, output, ids)
    names = json.dumps([facts["image"] for _, facts in result[0]])
    if len(set(processes.exchange(hashlib.sha256(names.encode()).digest()))) > 1:
        raise BadConfig("the processes see different files; give an --input on a disk that all share.")
    return result


def _listing(source: Path, output: Path, ids: str) -> tuple[Listed, Rejected, bytes]:
    if not source.exists():
        raise BadMammogram(f'"{source}": there is no such file or folder; {near_file(source, "check --input.")}')
    if source.suffix.lower() in TABLES:
        manifest = read_manifest(source, id_folder=output)
        columns = ("image", "patient_id", "exam_id", "laterality", "view", "horizontal_flip")
        listed = []
        for image in manifest.images:
            facts = {column: getattr(image, column) for column in columns}
            if ids == "hash":
                facts |= {name: hashed(facts[name], id_key(output)) for name in ("patient_id", "exam_id")}
            listed.append((image.path, facts | {"label": str(image.label) if image.label >= 0 else ""}))
        return listed, [*manifest.rejected], b""
    if source.is_dir():
        own = {output.resolve() / name for name in _OUTPUTS}
        inside, work = [output.resolve() / name for name in _FOLDERS], output.resolve() / parts.FOLDER
        files = sorted(
            path
            for path in source.rglob("*")
            if path.is_file()
            and path.resolve() not in own
            and path.resolve().parent not in inside
            and work not in path.resolve().parents
        )
        listed = [(p, {"image": p.relative_to(source).as_posix(), "label": ""}) for p in files]
    else:
        listed = [(source, {"image": source.name, "label": ""})]
    output.mkdir(parents=True, exist_ok=True)
    return listed, [], b"" if ids == "keep" else id_key(output)


def facts_of(mammogram: Mammogram, facts: Facts, key: bytes) -> Facts:
    """The row of an image: cells of the manifest, else of the header, whose ids are hashed if there is a key."""
    if "patient_id" not in facts:
        for name in ("patient_id", "exam_id"):
            own = getattr(mammogram, name)
            facts[name] = hashed(own, key) if key else own
    facts["laterality"] = facts.get("laterality") or mammogram.laterality
    facts["view"] = facts.get("view") or mammogram.view
    facts["modifier"] = mammogram.modifier
    return facts


def with_headers(listed: Listed, rejected: Rejected, key: bytes, any_modality: bool) -> Listed:
    """The files with the side, view and ids of their headers where they have none; `rejected` gets unreadable ones.

    Each process of a run reads the headers of its share.
    """

    def read(path: Path, facts: Facts) -> tuple[Facts, str]:
        if not (facts.get("laterality") and facts.get("view") and "patient_id" in facts):
            try:
                facts = facts_of(read_facts(path, any_modality), facts, key)
            except BadMammogram as error:
                return facts, str(error)
        return facts, ""

    own = [json.dumps(read(*listed[k])) for k in processes.share(len(listed))]
    images: Listed = []
    for (path, _), text in zip(listed, processes.gather_texts(own), strict=True):
        facts, reason = json.loads(text)
        if reason:
            rejected.append((facts["image"], reason))
        else:
            images.append((path, facts))
    return images


def ahead(load: Callable[[Any], Any], items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """The results of `load`, `size` items at a time; threads load the next ones while the device works on these."""
    with ThreadPoolExecutor(2) as pool:
        following = [pool.submit(load, item) for item in items[:size]]
        for start in range(size, len(items) + size, size):
            batch, following = following, [pool.submit(load, item) for item in items[start : start + size]]
            yield [future.result() for future in batch]


def finish(
    output: Path, rejected: Rejected, summary: str, done: int, origins: Sequence[Mapping[str, Any]], tta: str, ids: str
) -> int:  # fmt: skip
    """Write rejected.csv, predictions.json and predictions.html, add a column `origin` to the tables, and print where
    the scores come from and the summary.

    Args:
        output, rejected: the folder, and (file, reason) of what was not scored.
        summary: for the console.
        done: the number of what was scored.
        origins: `provenance.of_run` of each run.
        tta, ids: of `predict.predict`.

    Returns:
        The exit code.
    """
    with open_csv(output / "rejected.csv") as file:
        Writer(file, ("file", "reason")).rows(rejected)
    for name in predict_report.TABLES:
        if (output / name).is_file():
            _sign(output / name, provenance.label(origins))
    provenance.write(output / ORIGIN, origins, tta=tta, ids=ids or "those of headers hashed, those of a manifest kept")
    predict_report.write(output, rejected, origins, tta)
    for origin in origins:
        print(provenance.sentence(origin))
    if ids == "keep":
        print(f'"{output}" holds patient ids as they were given: it identifies patients')
    print(f"{summary} → {output}", flush=True)
    return 0 if done else 3


def _sign(path: Path, origin: str) -> None:
    """Add the column `origin` to a table, in a copy; not with pandas, which holds no name that is no UTF-8."""
    signed = path.with_name(f".{path.name}")
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file, open_csv(signed) as copy:
        rows = csv.reader(file)
        writer = csv.writer(copy)
        writer.writerow([*next(rows), "origin"])
        writer.writerows([*row, shielded(origin)] for row in rows)
    signed.replace(path)


def open_csv(path: Path) -> TextIO:
    """Open a CSV to write; a file name that is not UTF-8 is written byte for byte."""
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
