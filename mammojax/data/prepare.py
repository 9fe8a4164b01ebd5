"""Making a data set ready: TFDS writes its examples, and beside them stands what a run must know of it."""

import contextlib
import fcntl
import io
import json
import logging
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mammojax.data.builders import cbis_ddsm, exams, inbreast, mammograms
from mammojax.data.builders.manifest import Manifest
from mammojax.data.builders.phantom import Phantom, PhantomExams
from mammojax.data.cells import Writer, read_table
from mammojax.data.dataset import COLUMNS, Prepared
from mammojax.data.phantom import write_phantom
from mammojax.data.phantom_exams import write_exams
from mammojax.data.recipe import EXAM_KINDS, PHANTOMS, Recipe
from mammojax.errors import BadDataset

BUILDERS = {
    "cbis_ddsm": cbis_ddsm.CbisDdsm, "inbreast": inbreast.Inbreast, "manifest": Manifest, "phantom": Phantom,
    "phantom_exams": PhantomExams,
}  # fmt: skip
DIGESTS = {"cbis_ddsm": cbis_ddsm.digest, "inbreast": inbreast.digest}  # of the tables a download was described by


def prepare(recipe: Recipe, kinds: Sequence[str] = (), workers: int = 1) -> list[Path]:
    """Make a data set ready: each kind once, into its recipe's folder. A second call does nothing.

    Args:
        recipe: of the data set.
        kinds: the kinds to make; (): the recipe's own. With patches of whole images "whole" is always made, as the mean
            gray value comes from it.
        workers: processes; the result does not depend on their number.

    Returns:
        The folders, in the order of the kinds, "whole" first.

    Raises:
        BadDataset, BadManifest: what was given cannot be used; nothing made before is lost.
    """
    kinds = kinds or (recipe.kind,)
    if not set(kinds) <= set(EXAM_KINDS):
        kinds = ("whole", *kinds)
    recipes = [recipe.of_kind(kind) for kind in dict.fromkeys(kinds)]
    paths = [recipe.path for recipe in recipes]
    for recipe, path in zip(recipes, paths, strict=True):
        if (path / "dataset.json").is_file():
            _same_source(recipe)
            continue
        with _alone(recipe.data_dir):
            if not (path / "dataset.json").is_file():
                if recipe.name in PHANTOMS:
                    _write_phantom(recipe, workers)
                whole = None if recipe.kind in ("whole", *EXAM_KINDS) else Prepared(paths[0])
                _build(recipe, workers, whole)
    return paths


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Hold a folder of data sets: whoever comes second waits, and finds what it wanted."""
    data_dir.mkdir(parents=True, exist_ok=True)
    fd = os.open(data_dir / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)  # CLOEXEC: workers must not hold it
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write_phantom(recipe: Recipe, workers: int) -> None:
    """Write a phantom where its tree is not complete."""
    last = {"phantom": "calc_case_description_test_set.csv", "phantom_exams": "manifest.csv"}[recipe.name]
    if not (recipe.origin / last).is_file():  # the table that is written last
        shutil.rmtree(recipe.origin, ignore_errors=True)
        write: Callable[..., None] = write_phantom if recipe.name == "phantom" else write_exams
        write(recipe.origin, workers=workers, **recipe.phantom_settings)


def _same_source(recipe: Recipe) -> None:
    """Refuse to pass what was made of one download off as another's; a manifest's or phantom's name tells already."""
    name, source, path = recipe.name, recipe.source, recipe.path
    made_of = json.loads((path / "dataset.json").read_text()).get("source")
    if name in DIGESTS and made_of and source is not None and source.is_dir() and DIGESTS[name](source) != made_of:
        raise BadDataset(
            f"{name}/{path.parent.name} was prepared from other CSVs than those of the source folder; "
            "remove that data set or give another --data-dir."
        )


def _build(recipe: Recipe, workers: int, whole: Prepared | None) -> None:
    """Make one kind: TFDS writes, then dataset.json marks it complete; what an interruption left is removed first."""
    name, source = recipe.name, recipe.origin
    config = mammograms.MammogramConfig(name=recipe.config_name, recipe=recipe, workers=workers)
    shutil.rmtree(recipe.path.parent, ignore_errors=True)
    logging.getLogger("absl").setLevel(logging.ERROR)  # it would print the source's path and the whole config
    builder = BUILDERS[name](config=config, data_dir=str(recipe.data_dir), file_format="array_record")
    tfds.disable_progress_bar()  # ours counts mammograms; TFDS's counts shards
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            builder.download_and_prepare()
        except AssertionError:  # TFDS, on a split whose every file was left out
            first = "; the first: {}, {}".format(*sorted(builder.rejected)[0]) if builder.rejected else ""
            raise BadDataset(
                f"{name}/{config.name}: of one split no file can be used, {len(builder.rejected)} were left out{first}."
            ) from None
    made = Path(builder.data_dir)
    rejected = sorted(set(builder.rejected))
    with (made / "rejected.csv").open("w", newline="") as file:
        Writer(file, ("file", "reason")).rows(rejected)
    counts, mean = _index(builder, made)
    if not sum(counts["train"].values()):
        shutil.rmtree(made)
        why = f"; the first of {len(rejected)} left out: {rejected[0][0]}, {rejected[0][1]}" if rejected else ""
        raise BadDataset(f"{name}/{config.name}: the train split has no example{why}.")
    classes = recipe.classes
    facts = {
        "name": name,
        "kind": recipe.kind,
        **_made_by(recipe, made),
        "patch_size": recipe.patch_size,
        "split": recipe.split,
        "seed": recipe.seed,
        "source": DIGESTS[name](source) if name in DIGESTS else "",
        **({"map": recipe.label_map} if recipe.label_map else {}),
        "mean": None if recipe.of_exams else mean if whole is None else whole.facts["mean"],
        "classes": classes,
        "counts": {s: {c: counts[s][k] for k, c in enumerate(classes)} for s in mammograms.SPLITS},
        "rejected": len(rejected),
    }
    (made / "dataset.json").write_text(json.dumps(facts, indent=2) + "\n")
    shown = []
    for split in mammograms.SPLITS:
        kinds = ", ".join(f"{c} {counts[split][k]}" for k, c in enumerate(classes) if counts[split][k])
        shown.append(f"{split} {sum(counts[split].values())} ({kinds})")
    print(f"prepared {name}/{config.name}: {'; '.join(shown)}; {len(rejected)} left out (rejected.csv)", flush=True)


def _made_by(recipe: Recipe, made: Path) -> dict[str, Any]:
    """What images were framed or cropped by; of exams also how many breasts have which findings."""
    if not recipe.of_exams:
        return {"framing": recipe.framing.to_json()}
    facts: dict[str, Any] = {"crop": {"threshold": recipe.threshold, "iterations": recipe.iterations}}
    if recipe.kind == "exams":
        with (made / "index.csv").open(newline="") as file:
            facts["findings"] = exams.findings(read_table(file)[1], mammograms.SPLITS)
    return facts


def _index(builder: tfds.core.DatasetBuilder, made: Path) -> tuple[dict[str, Counter[int]], float]:
    """Write index.csv; the labels' counts of each split, and the mean gray value of train, 0 … 255."""
    counts: dict[str, Counter[int]] = {split: Counter() for split in mammograms.SPLITS}
    total, pixels = 0.0, 0
    with (made / "index.csv").open("w", newline="") as file:
        facts = ("facts",) * (builder.builder_config.recipe.kind == "exams")
        writer = Writer(file, ("split", *COLUMNS, *facts))
        for split in mammograms.SPLITS:
            if split not in builder.info.splits:  # no patient fell into it
                continue
            for example in builder.as_data_source(split):
                label = int(example["label"])
                counts[split][label] += 1
                texts = [_text(example[c]) for c in ("image_id", *COLUMNS[1:-1])]
                writer.row((split, *texts, label, *(_text(example[name]) for name in facts)))
                if split == "train":
                    total += float(example["image"].sum(dtype=np.float64))
                    pixels += example["image"].size
    return counts, total / max(pixels, 1) * 255 / 65535


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
