"""`mammojax manifest`: a data set as downloaded, or a folder with a table of labels, as our manifest."""

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mammojax import arguments
from mammojax.data import (
    archive,
    birads,
    cbis_ddsm,
    cmmd,
    embed,
    folder,
    folds,
    inbreast,
    manifest,
    mias,
    outline,
    rsna,
    vindr,
)
from mammojax.data.cells import Writer, shielded
from mammojax.data.manifest import Image, Table
from mammojax.errors import BadManifest

SETS = {"rsna": rsna, "vindr": vindr, "cmmd": cmmd, "embed": embed, "cbis_ddsm": cbis_ddsm, "inbreast": inbreast,
        "mias": mias}  # fmt: skip
SPLITS = {"cbis_ddsm": ("official", "shen", "all", "none"), "inbreast": ("none", "shen", "all"),
          "vindr": ("official", "none")}  # fmt: skip
"""The splits that a data set has, its default first; the others have none."""
_FIRST = ("image", "patient_id", "exam_id", "laterality", "view", "pathology", "label_source", "abnormality", "mask",
          "outline", "visible", "density", "birads", "biopsied", "split", "horizontal_flip")  # fmt: skip


def read(name: str, source: Path, split: str = "", three: str = "unknown", seed: int = 0) -> Table:
    """A downloaded data set's images, with `split` and the columns label_source and data_set filled in.

    Args:
        name: of SETS.
        source: the download.
        split: of SPLITS; "": the data set's default.
        three: what is made of BI-RADS 3 where labels are categories, see `birads.THREE`.
        seed: of the part of a split that is drawn.

    Raises:
        BadManifest: the source cannot be used, or the data set has no such split.
    """
    if name in ("vindr", "embed"):
        table: Table = SETS[name].read_table(source, three)
    elif three != "unknown":
        raise BadManifest(f"--birads-3 is for vindr and embed; {name} has no label of BI-RADS 3 to change.")
    elif name == "cbis_ddsm":
        table = cbis_ddsm.read_tree(source, cbis_ddsm.read_rows(source))
    else:
        table = SETS[name].read_table(source)
    possible = SPLITS.get(name, ("none",))
    if (split := split or possible[0]) not in possible:
        raise BadManifest(f'{name} has no split "{split}"; write {" or ".join(possible)}.')
    table.images = [
        replace(image, columns={"data_set": name, **image.columns}, split="" if split == "none" else image.split)
        for image in table.images
    ]
    if split != "none":
        _divide(name, source, table, split, seed)
    return table


def _divide(name: str, source: Path, table: Table, split: str, seed: int) -> None:
    """Give each image its part; images of patients in no part are left out."""
    if name == "cbis_ddsm":
        parts = cbis_ddsm.splits(cbis_ddsm.read_rows(source), table.images, split, seed)
    elif name == "inbreast":
        parts = inbreast.splits(table.images, split, seed)
    else:  # official train and test; a tenth of the training patients is for validation, as for CBIS-DDSM
        training = [image for image in table.images if image.split == "train"]
        train, val = manifest.split_patients(training, (0.9, 0.1), seed)
        parts = {image.patient_id: image.split for image in table.images}
        parts |= dict.fromkeys(train, "train") | dict.fromkeys(val, "val")
    for image in table.images:
        if not parts.get(image.patient_id):
            table.rejected.append((image.image, f"its patient is in no part of the split {split}"))
    table.images = [replace(i, split=parts[i.patient_id]) for i in table.images if parts.get(i.patient_id)]


def write(path: Path, table: Table) -> None:
    """Write a manifest, and FILE_rejected.csv beside it: a row for each lesion, and one for each image that none of its
    lesions makes what it is. Columns that would be empty are left out; paths are relative to the manifest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [row for image in table.images for row in _rows(image, path.parent)]
    filled = {column for row in rows for column, cell in row.items() if cell}
    columns = [c for c in _FIRST if c in filled or c in ("image", "pathology")] + sorted(filled - {*_FIRST})
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        Writer(file, columns).rows([row.get(column, "") for column in columns] for row in rows)
    part.replace(path)
    with path.with_name(f"{path.stem}_rejected.csv").open("w", newline="", encoding="utf-8") as file:
        Writer(file, ("file", "reason")).rows(table.rejected)


def _rows(image: Image, root: Path) -> Iterable[dict[str, str]]:
    cells = {name: getattr(image, name) for name in ("patient_id", "exam_id", "laterality", "view", "density", "split",
             "horizontal_flip")}  # fmt: skip
    cells |= {"image": _relative(image.path, root), **image.columns}
    lesions = image.lesions if image.pathology else ()  # a lesion of known pathology would be its image's label
    if not lesions or manifest.worst(lesion.pathology for lesion in lesions) != image.pathology:
        yield {**cells, "pathology": image.pathology}
    for lesion in lesions:
        yield {
            **cells, "pathology": lesion.pathology, "abnormality": lesion.abnormality,
            "mask": _relative(lesion.mask, root) if lesion.mask else "",
            "outline": "" if lesion.mask else outline.text(lesion.outline), "visible": "" if lesion.visible else "0",
        }  # fmt: skip


def _relative(path: Path, root: Path) -> str:
    """A path as a manifest of that folder names it; a name that a spreadsheet would run begins with "./"."""
    text = Path(os.path.relpath(path, root)).as_posix()
    return text if shielded(text) == text else f"./{text}"


def summary(table: Table) -> str:
    """Counts of images, patients, pathologies, label sources, lesions and splits, in lines."""
    images = table.images
    lines = [f"{len(images)} images of {len({image.patient_id for image in images})} patients"]
    for title, values in (
        ("pathology", (image.pathology or "unknown" for image in images)),
        ("label from", (image.columns.get("label_source") or "unknown" for image in images)),
        ("split", (image.split or "drawn later" for image in images)),
    ):
        lines.append(f"{title}: " + ", ".join(f"{value} {n}" for value, n in Counter(values).most_common()))
    places = Counter("mask" if le.mask else "outline" if le.outline else "unknown" for i in images for le in i.lesions)
    lines.append("places of lesions: " + (", ".join(f"{kind} {n}" for kind, n in places.most_common()) or "none"))
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax manifest`."""
    parser.add_argument("name", choices=[*SETS, "folder"], help="the data set; folder: your own mammograms")
    parser.add_argument("--source", type=Path, required=True, help="the downloaded folder; of folder, a .zip too")
    parser.add_argument("--output", type=arguments.file(".csv"), required=True, help="the manifest to write")
    parser.add_argument("--split", default="", help="official, shen, all or none, where the data set has them")
    parser.add_argument(
        "--folds", type=arguments.count, default=0, help="also a manifest for each of N folds, by patient"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn: a part of a split, or the folds")
    parser.add_argument("--birads-3", choices=list(birads.THREE), default="unknown", help="vindr, embed: BI-RADS 3 is")
    parser.add_argument("--labels", type=Path, help="of folder: a CSV of labels by image, breast, exam or patient")
    parser.add_argument("--annotations", type=Path, help="of folder: a COCO file, or a folder of LabelMe's files")
    parser.add_argument("--map", default="", help="of folder: words for pathologies, such as 0=BENIGN,1=MALIGNANT")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax manifest`: write a manifest, or one for each fold too, and print what is in it."""
    if args.folds and args.split not in ("", "none"):
        raise BadManifest("--folds divides all patients anew; leave out --split, or write --split none.")
    if args.name == "folder":
        source = _unpacked(args.source, args.output)
        words: Mapping[str, str] = manifest.read_map(args.map)
        if args.split or args.birads_3 != "unknown":
            raise BadManifest("--split and --birads-3 are for published data sets; the table of labels may name both.")
        table = folder.read_table(source, args.output.parent, args.labels, args.annotations, dict(words))
        licence = ""
    elif args.labels or args.annotations or args.map:
        raise BadManifest(f"--labels, --annotations and --map are for your own folder; {args.name} brings its own.")
    elif not args.source.is_dir():
        raise BadManifest(f'there is no folder "{args.source}"; give the downloaded data set as --source.')
    else:
        table = read(args.name, args.source, "none" if args.folds else args.split, args.birads_3, args.seed)
        licence = SETS[args.name].LICENCE
    write(args.output, table)
    print(summary(table))
    print(f"left out: {len(table.rejected)} ({args.output.stem}_rejected.csv)")
    if licence:
        print(f"licence: {licence}")
    paths = [args.output]
    if args.folds:
        written = manifest.read_manifest(args.output, id_folder=args.output.parent)
        place = args.output.parent / f"{args.output.stem}_folds"
        paths = folds.write_folds(args.output, written, place, args.folds, args.seed)
    for path in paths:
        print(f"→ {path}; next: mammojax check {path}", flush=True)
    return 0


def _unpacked(source: Path, output: Path) -> Path:
    """The folder itself, or that of a .zip, unpacked once beside the manifest, which names its files."""
    if source.suffix.lower() == ".zip":
        target = output.parent / source.stem
        if not target.exists():
            archive.unpack(source, target)
        return target
    if not source.is_dir():
        raise BadManifest(f'there is no folder "{source}"; give the folder of your mammograms as --source.')
    return source
