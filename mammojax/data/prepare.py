"""Preparing a data set: its examples are written for TFDS, and dataset.json beside them marks it complete."""

import argparse
import contextlib
import fcntl
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mammojax import arguments, extension
from mammojax.data import beam, exams, shards, source
from mammojax.data.breast import CROPS
from mammojax.data.builder import MammogramConfig
from mammojax.data.cells import Writer, read_table
from mammojax.data.dataset import COLUMNS, Prepared, out_and_remarks
from mammojax.data.levels import gray_levels, ranges
from mammojax.data.manifest import SPLITS
from mammojax.data.phantom import write_phantom
from mammojax.data.phantom_exams import write_exams
from mammojax.data.recipe import DATA_SETS, EXAM_KINDS, FORMAT_VERSION, PHANTOMS, WITHOUT_PATCHES, Recipe
from mammojax.errors import BadConfig, BadDataset


def prepare(
    recipe: Recipe, kinds: Sequence[str] = (), workers: int = 1, runner: beam.Runner | None = None
) -> list[Path]:
    """Prepare a data set: each kind once, in its recipe's folder. A second call does nothing.

    Args:
        recipe: of the data set.
        kinds: the kinds to prepare; (): the recipe's own. With patches of whole images "whole" is always prepared, as
            the mean gray value comes from it.
        workers: processes; the result does not depend on their number.
        runner: of Beam, in place of those processes; the result is the same.

    Returns:
        The folders, in the order of the kinds, "whole" first.

    Raises:
        BadDataset, BadManifest: the source cannot be used; nothing prepared before is lost.
    """
    kinds = kinds or (recipe.kind,)
    if not set(kinds) <= set(EXAM_KINDS):
        kinds = ("whole", *kinds)
    recipes = [recipe.of_kind(kind) for kind in dict.fromkeys(kinds)]
    paths = [recipe.path for recipe in recipes]
    for recipe, path in zip(recipes, paths, strict=True):
        if (path / "dataset.json").is_file():
            _same_source(recipe)
            shards.finish(recipe)  # which a call that was stopped at its very end did not come to
            continue
        with _alone(recipe.data_dir):
            if not (path / "dataset.json").is_file():
                if recipe.name in PHANTOMS:
                    _write_phantom(recipe, workers)
                whole = None if recipe.kind in ("whole", *EXAM_KINDS) else Prepared(paths[0])
                _build(recipe, workers, whole, runner)
    return paths


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Lock a folder of data sets: a second process waits, and then finds its data set prepared."""
    data_dir.mkdir(parents=True, exist_ok=True)
    fd = os.open(data_dir / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)  # CLOEXEC: workers must not hold it
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write_phantom(recipe: Recipe, workers: int) -> None:
    """Write a phantom where its tree is not complete.

    Raises:
        BadDataset: the folder that the user names as its source holds something else, which is never removed.
    """
    last = {"phantom": "calc_case_description_test_set.csv", "phantom_exams": "manifest.csv"}[recipe.name]
    if not (recipe.origin / last).is_file():  # the table that is written last
        if (
            recipe.source is not None
            and recipe.source.exists()
            and (recipe.source.is_file() or any(recipe.source.iterdir()))
        ):
            raise BadDataset(
                f'"{recipe.source}" holds something else than a complete phantom; name a new folder as --source, or'
                " none."
            )
        shutil.rmtree(recipe.origin, ignore_errors=True)
        write: Callable[..., None] = write_phantom if recipe.name == "phantom" else write_exams
        write(recipe.origin, workers=workers, **recipe.phantom_settings)


def _same_source(recipe: Recipe) -> None:
    """Refuse a data set prepared from another download; manifests and phantoms already differ by folder."""
    before = json.loads((recipe.path / "dataset.json").read_text()).get("source")
    if before and (now := source.digest(recipe)) and now != before:
        difference = "rows than it gives now" if recipe.is_outside else "CSVs than those of the source folder"
        raise BadDataset(
            f"{recipe.name}/{recipe.config_name} was prepared from other {difference}; "
            "remove that data set or give another --data-dir."
        )


def _builder(cls: type[tfds.core.DatasetBuilder], recipe: Recipe, workers: int) -> tfds.core.DatasetBuilder:
    """The builder that a recipe names.

    Raises:
        BadDataset: its examples lack a feature that ours have.
    """

    class Builder(cls, skip_registration=True):  # type: ignore[call-arg]
        name = recipe.folder  # TFDS would take the class's name
        VERSION = tfds.core.Version(FORMAT_VERSION)

    config = MammogramConfig(name=recipe.config_name, recipe=recipe, workers=workers)
    builder = Builder(config=config, data_dir=str(recipe.data_dir), file_format="array_record")
    needed = {"image", "image_id", *COLUMNS[1:], *(["facts"] if recipe.kind == "exams" else [])}
    if lacking := sorted(needed - set(builder.info.features)):
        raise BadDataset(f"{recipe.name}: its examples lack {', '.join(lacking)}; docs/extend.md names their features.")
    return builder


def _build(recipe: Recipe, workers: int, whole: Prepared | None, runner: beam.Runner | None = None) -> None:
    """Prepare one kind: its examples are written, then dataset.json marks it complete.

    Args:
        recipe: of the kind.
        workers: processes.
        whole: the whole images of the same data set, whose mean the patches use; None: the mean of the examples.
        runner: of Beam.

    Raises:
        BadConfig: the user's own builder is to run on Beam.
    """
    data_set, path = f"{recipe.name}/{recipe.config_name}", recipe.path
    _ = recipe.origin  # raises without a source, before anything is removed
    logging.getLogger("absl").setLevel(logging.ERROR)  # it would print the source's path and the whole config
    cls = source.outside_builder(recipe)
    if cls and runner:
        raise BadConfig(f"{recipe.name} has a TFDS builder of its own, which --beam-runner does not run; leave it out.")
    written = shards.write(recipe, workers, runner) if cls is None else _write_outside(cls, recipe, workers)
    counts, rejected = written.counts, written.rejected
    if not sum(counts["train"].values()):
        shutil.rmtree(path)
        why = f"; the first of {len(rejected)} left out: {rejected[0][0]}, {rejected[0][1]}" if rejected else ""
        raise BadDataset(f"{data_set}: the train split has no example{why}.")
    with (path / "rejected.csv").open("w", newline="") as file:
        Writer(file, ("file", "reason")).rows(rejected)
    with (path / "index.csv").open(newline="") as file:
        out, remarks = out_and_remarks(rejected, read_table(file)[1], recipe.kind)
    facts = {
        "name": recipe.name,
        "kind": recipe.kind,
        **_settings_used(recipe, path / "index.csv"),
        "patch_size": recipe.patch_size,
        **({"context": recipe.context} if recipe.context else {}),
        **({"one_type": True} if recipe.one_type and recipe.kind not in WITHOUT_PATCHES else {}),
        "split": recipe.split,
        "seed": recipe.seed,
        "source": source.digest(recipe),
        **({"map": recipe.label_map} if recipe.label_map else {}),
        "mean": None if recipe.of_exams else written.mean if whole is None else whole.facts["mean"],
        **({"levels": written.levels} if recipe.kind in WITHOUT_PATCHES else {}),
        "classes": recipe.classes,
        "counts": {s: {c: counts[s][k] for k, c in enumerate(recipe.classes)} for s in SPLITS},
        "rejected": len(out),
        "remarks": len(remarks),
    }
    unfinished = path / "dataset.json.part"
    unfinished.write_text(json.dumps(facts, indent=2) + "\n")
    unfinished.rename(path / "dataset.json")
    shards.finish(recipe)
    numbers = []
    for split in SPLITS:
        by_class = ", ".join(f"{c} {counts[split][k]}" for k, c in enumerate(recipe.classes) if counts[split][k])
        numbers.append(f"{split} {sum(counts[split].values())} ({by_class})")
    more = f", remarks on images that are used: {len(remarks)}" if remarks else ""
    print(f"prepared {data_set}: {'; '.join(numbers)}; {len(out)} left out{more} (rejected.csv)", flush=True)


def _write_outside(cls: type[tfds.core.DatasetBuilder], recipe: Recipe, workers: int) -> shards.Written:
    """Let a builder of the user write its examples by TFDS, silently; index.csv follows.

    Raises:
        BadDataset: a split has no usable file, see `_builder` too.
    """
    shutil.rmtree(recipe.path.parent, ignore_errors=True)  # of an interrupted call
    builder = _builder(cls, recipe, workers)
    tfds.disable_progress_bar()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            builder.download_and_prepare()
        except AssertionError:  # TFDS, on a split without examples
            raise BadDataset(f"{recipe.name}/{recipe.config_name}: one split has no examples.") from None
    written = _write_index(builder, recipe.path / "index.csv")
    written.rejected = sorted(set(getattr(builder, "rejected", [])))
    return written


def _settings_used(recipe: Recipe, index: Path) -> dict[str, Any]:
    """The framing or crop of the images; for exams also the numbers of breasts by finding."""
    if not recipe.of_exams:
        return {"framing": recipe.framing.to_json()}
    facts: dict[str, Any] = {"crop": {"threshold": recipe.threshold, "iterations": recipe.iterations}}
    if recipe.kind == "exams":
        with index.open(newline="") as file:
            facts["findings"] = exams.findings(read_table(file)[1], SPLITS)
    return facts


def _write_index(builder: tfds.core.DatasetBuilder, path: Path) -> shards.Written:
    """Write index.csv of the examples of a builder of the user."""
    written, total, pixels = shards.Written(), 0.0, 0
    levels: list[dict[str, float]] = []
    with path.open("w", newline="") as file:
        facts = ("facts",) * ("facts" in builder.info.features)
        writer = Writer(file, ("split", *COLUMNS, *facts))
        for split in SPLITS:
            if split not in builder.info.splits:  # no patient fell into it
                continue
            for example in builder.as_data_source(split):
                label = int(example["label"])
                written.counts[split][label] += 1
                texts = [_text(example[c]) for c in ("image_id", *COLUMNS[1:-1])]
                writer.row((split, *texts, label, *(_text(example[name]) for name in facts)))
                if split == "train":
                    total += float(example["image"].sum(dtype=np.float64))
                    pixels += example["image"].size
                    if "masks" in example:
                        levels.append(gray_levels(example["image"][..., 0]))
    written.mean, written.levels = total / max(pixels, 1) * 255 / 65535, ranges(levels)
    return written


def training_levels(data: Prepared) -> dict[str, list[float]]:
    """The ranges of the gray levels of the training images of a data set of whole images, see `levels.ranges`."""
    return ranges([gray_levels(example["image"][..., 0]) for example in data.source("train", masks=False)])


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class _DataSets(tuple[str, ...]):
    """The data sets that `prepare` takes: those listed, and the user's own, "package.module:name"."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or extension.named(str(name))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax prepare`."""
    parser.add_argument("name", choices=_DataSets(DATA_SETS))
    parser.add_argument("--source", type=Path, help="the downloaded folder, or the manifest's CSV")
    parser.add_argument("--data-dir", type=Path, default=Path.home() / "mammojax_data")
    parser.add_argument(
        "--kinds",
        help="whole, patches_s10, patches_s1, patches_s1g, patches_jittered; exams, exam_patches (default: the first "
        "two)",
    )
    parser.add_argument("--size", type=arguments.size, default=(1152, 896), metavar="HxW")
    parser.add_argument("--patch-size", type=int, help="default: 224, of exams 256")
    parser.add_argument(
        "--threshold",
        type=arguments.count,
        help="of exams: tissue is above this gray value of 0 to 65535; else found by image",
    )
    parser.add_argument(
        "--iterations", type=arguments.count, default=100, help="of exams: the crop's erosion in pixels"
    )
    parser.add_argument(
        "--context", type=int, default=0, help="of patches_jittered: pixels around a patch that are cut with it"
    )
    parser.add_argument(
        "--one-type", action="store_true", help="of patches: all lesions count as masses, those without a type too"
    )
    parser.add_argument("--crop", choices=CROPS, default="none")
    parser.add_argument("--keep-aspect", action="store_true")
    parser.add_argument("--split", choices=["shen", "official", "all"], default="shen")
    parser.add_argument("--map", default="", help="a manifest's words for pathologies, such as 0=BENIGN,1=MALIGNANT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    beam.add_arguments(parser)
    parser.add_argument("--patients", type=int, default=340, help="of the phantom")
    parser.add_argument("--exams", type=int, default=300, help="of the phantom exams")
    parser.add_argument(
        "--first-exam", type=arguments.count, default=0, help="of the phantom exams: other exams, other patients"
    )
    parser.add_argument("--phantom-seed", type=int, default=0)
    parser.add_argument("--contrast", type=float, default=1.0, help="factor of the phantom's lesion contrast")
    parser.add_argument("--both-breasts", action="store_true", help="the phantom's normal breasts too, in a manifest")
    parser.add_argument(
        "--digital", action="store_true", help="the phantom is black beside the breast, no scanned film"
    )


def main(args: argparse.Namespace) -> int:
    """Run `mammojax prepare`; see `prepare`."""
    if args.name not in PHANTOMS and args.source is None:
        raise BadDataset(f"prepare {args.name} needs --source: the folder or file to read.")
    usual = "exams,exam_patches" if args.name == "phantom_exams" else "whole,patches_s10"
    kinds = tuple((args.kinds or usual).split(","))
    recipe = Recipe(
        args.name, kinds[0], args.data_dir, args.source, split=args.split, seed=args.seed,
        patch_size=args.patch_size or (256 if "exam_patches" in kinds else 224), context=args.context,
        one_type=args.one_type, label_map=args.map, size=args.size, crop=args.crop, keep_aspect=args.keep_aspect,
        threshold=args.threshold, iterations=args.iterations,
        patients=args.patients, both_breasts=args.both_breasts, exams=args.exams, first_exam=args.first_exam,
        phantom_seed=args.phantom_seed, contrast=args.contrast, digital=args.digital,
    )  # fmt: skip
    for path in prepare(recipe, kinds, args.workers, beam.of(args)):
        print(path)
    return 0
