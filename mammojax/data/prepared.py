"""A prepared data set: what TFDS wrote, and beside it what a run must know of it (dataset.json, index.csv)."""

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import shlex
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mammojax.data import manifest
from mammojax.data.breast import Framing
from mammojax.data.builders import cbis_ddsm, exams, inbreast, mammograms
from mammojax.data.builders.manifest import Manifest
from mammojax.data.builders.phantom import Phantom, PhantomExams
from mammojax.data.cells import Writer, read_table
from mammojax.data.crop import ITERATIONS
from mammojax.data.phantom import write_phantom
from mammojax.data.phantom_exams import write_exams
from mammojax.errors import BadDataset, NotPrepared

BUILDERS = {
    "cbis_ddsm": cbis_ddsm.CbisDdsm, "inbreast": inbreast.Inbreast, "manifest": Manifest, "phantom": Phantom,
    "phantom_exams": PhantomExams,
}  # fmt: skip
DIGESTS = {"cbis_ddsm": cbis_ddsm.digest, "inbreast": inbreast.digest}  # of the tables a download was described by
DRAWN = ("shen", "official", "all")
PHANTOMS: dict[str, dict[str, Any]] = {
    "phantom": {"patients": 340, "seed": 0, "contrast": 1.0, "both_breasts": False},
    "phantom_exams": {"exams": 300, "first": 0, "seed": 0, "contrast": 1.0},
}
COLUMNS = ("image", "patient_id", "exam_id", "laterality", "view", "label")
FRAMED: dict[str, Any] = {"size": (1152, 896), "crop": "none", "keep_aspect": False}
CROPPED: dict[str, Any] = {"threshold": None, "iterations": ITERATIONS}
"""What whole images and their patches are made by, and what exams and theirs are; both by patch_size, split, seed."""


class Prepared:
    """One data set on disk.

    Attributes:
        path: its folder.
        facts: dataset.json: name, kind, framing, patch_size, mean (gray value of the training images, 0 … 255),
            classes, counts {split: {class: n}}, rejected (number of files and rows left out).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.facts: dict[str, Any] = json.loads((path / "dataset.json").read_text())
        with (path / "index.csv").open(newline="") as file:
            _, self._rows = read_table(file)
        self._builder = tfds.builder_from_directory(path)

    def source(self, split: str, masks: bool = True) -> Any:
        """Random access to the examples of "train", "val" or "test"; see builders/mammograms.py.

        Without `masks` those of whole images stay undecoded, which saves a tenth of the reading.
        """
        if not self.table(split):
            return []
        marked = self.facts["kind"] in ("whole", "exams")
        skip = {"masks": tfds.decode.SkipDecoding()} if marked and not masks else None
        return self._builder.as_data_source(split, decoders=skip)

    def table(self, split: str) -> list[dict[str, str]]:
        """A row an example, in the source's order: COLUMNS, and of exams their facts, as JSON."""
        return [row for row in self._rows if row["split"] == split]

    def labels(self, split: str) -> np.ndarray:
        """int64 [N], the label of each example."""
        return np.array([int(row["label"]) for row in self.table(split)], np.int64)


def of_patients(table: list[dict[str, str]], patients: int, seed: int) -> np.ndarray:
    """The rows of `patients` patients, int64 [M], in order: with and without a malignant row in the table's proportion.

    A smaller number's patients are among those of a greater one (Shen et al. 2019, Table 4: "training subsets with 20,
    30, 40, 50 and 60 patients were sampled"; that they are nested is ours, it takes the draw out of the comparison).

    Raises:
        BadDataset: there are fewer patients.
    """
    malignant: dict[str, bool] = {}
    for row in table:
        malignant[row["patient_id"]] = malignant.get(row["patient_id"], False) or row["label"] == "1"
    if patients > len(malignant):
        raise BadDataset(f"config.data.patients is {patients}, but the train split has {len(malignant)}; take fewer.")
    rng = np.random.default_rng(seed)
    place: list[tuple[float, str]] = []  # each stratum spread evenly over 0 … 1: any beginning keeps the proportion
    for stratum in (True, False):
        ids = rng.permutation(sorted(p for p, m in malignant.items() if m is stratum))
        place += [((k + 0.5) / len(ids), str(name)) for k, name in enumerate(ids)]
    chosen = {name for _, name in sorted(place)[:patients]}
    return np.array([k for k, row in enumerate(table) if row["patient_id"] in chosen], np.int64)


def _config(
    name: str, kind: str, *, source: Path | None, split: str, seed: int, phantom: dict[str, Any] | None,
    patch_size: int = 224, workers: int = 1, label_map: str = "", **how: Any,
) -> mammograms.MammogramConfig:  # fmt: skip
    """The builder config; its name holds everything that changes the examples, so that no two share a folder."""
    if kind not in mammograms.KINDS:
        raise BadDataset(f'the kind "{kind}" is unknown; write {", ".join(mammograms.KINDS)}.')
    if split not in DRAWN or (split == "official" and name not in ("cbis_ddsm", "phantom")):
        raise BadDataset(f'{name} has no split "{split}"; write shen or all, for CBIS-DDSM official as well.')
    of_exams = kind in exams.KINDS
    chosen = {field: how.get(field, default) for field, default in (CROPPED if of_exams else FRAMED).items()}
    size = (0, 0) if of_exams else (chosen["size"][0], chosen["size"][1])
    if patch_size < 8 or (min(size) < 8 and not of_exams):
        raise BadDataset(f"images of {size[0]}x{size[1]} or patches of {patch_size} show nothing; 8 is the least.")
    if of_exams and chosen["threshold"] is None and name.startswith("phantom"):
        chosen["threshold"] = 0  # they are drawn on it
    if of_exams and ((chosen["threshold"] or 0) < 0 or chosen["iterations"] < 1):
        raise BadDataset("config.data.threshold must not be negative and config.data.iterations must be at least 1.")
    parts = [kind, split]
    threshold = "auto" if chosen.get("threshold") is None else chosen["threshold"]
    parts.append(f"t{threshold}i{chosen['iterations']}" if of_exams else f"{size[0]}x{size[1]}")
    parts += [f"p{patch_size}"] * (kind not in ("whole", "exams"))
    if not of_exams:
        parts += [chosen["crop"]] * (chosen["crop"] != "none") + ["aspect"] * chosen["keep_aspect"]
    parts += [f"s{seed}"]
    if name.startswith("phantom"):
        parts.append(_phantom_name(name, phantom))
    if name == "manifest":
        file = Path(source or "") / "manifest.csv" if source and source.is_dir() else Path(source or "")
        if not file.is_file():
            raise BadDataset(f'there is no manifest at "{source}"; give a CSV, or a folder with a manifest.csv.')
        parts.append(hashlib.sha256(file.read_bytes()).hexdigest()[:8])
    if words := manifest.read_map(label_map):
        if name != "manifest":
            raise BadDataset(f"the map {label_map} is for a manifest's words; {name} has its own, leave the map empty.")
        parts.append("m" + hashlib.sha256(json.dumps(sorted(words.items())).encode()).hexdigest()[:8])
    made_by = chosen if of_exams else {"framing": Framing(size, chosen["crop"], chosen["keep_aspect"])}
    return mammograms.MammogramConfig(
        name="_".join(parts), kind=kind, patch_size=patch_size, split=split, seed=seed, source=str(source or ""),
        workers=workers, label_map=label_map, **made_by,
    )  # fmt: skip


def _phantom_name(name: str, phantom: dict[str, Any] | None) -> str:
    chosen = PHANTOMS[name] | (phantom or {})
    if name == "phantom_exams":
        name = f"e{chosen['exams']}p{chosen['seed']}" + f"f{chosen['first']}" * (chosen["first"] != 0)
        return name + f"c{chosen['contrast']:g}" * (chosen["contrast"] != 1)
    name = f"n{chosen['patients']}p{chosen['seed']}"
    return name + f"c{chosen['contrast']:g}" * (chosen["contrast"] != 1) + "b" * chosen["both_breasts"]


def _folder(data_dir: Path, name: str, config: mammograms.MammogramConfig) -> Path:
    return data_dir / name / config.name / str(mammograms.MammogramBuilder.VERSION)


def find(
    name: str,
    kind: str,
    data_dir: Path,
    *,
    source: Path | None = None,
    phantom: dict[str, Any] | None = None,
    **facts: Any,
) -> Prepared:
    """The prepared data set; `facts` are those of `prepare`.

    Raises:
        NotPrepared: with the command that prepares it.
    """
    config = _config(name, kind, source=source, phantom=phantom, **facts)
    path = _folder(data_dir, name, config)
    if (path / "dataset.json").is_file():
        return Prepared(path)
    given = "" if name.startswith("phantom") and source is None else f" --source {shlex.quote(str(source or 'DIR'))}"
    command = f"mammojax prepare {name}{given} --data-dir {shlex.quote(str(data_dir))} --kinds {kind}"
    command += f" --split {facts['split']} --seed {facts['seed']}"
    command += f" --map {shlex.quote(config.label_map)}" * bool(config.label_map)
    command += f" --patch-size {facts['patch_size']}" * (kind not in ("whole", "exams"))
    if kind in exams.KINDS:
        command += f" --iterations {config.iterations}"
        command += "" if config.threshold is None else f" --threshold {config.threshold}"
    else:
        framing = config.framing
        command += f" --size {framing.size[0]}x{framing.size[1]}" + " --keep-aspect" * framing.keep_aspect
        command += f" --crop {framing.crop}" * (framing.crop != "none")
    if name.startswith("phantom"):
        chosen = PHANTOMS[name] | (phantom or {})
        command += f" --exams {chosen['exams']}" if "exams" in chosen else f" --patients {chosen['patients']}"
        command += f" --phantom-seed {chosen['seed']}"
        for flag, field, usual in (("contrast", "contrast", 1), ("first-exam", "first", 0)):
            command += f" --{flag} {chosen[field]:g}" if chosen.get(field, usual) != usual else ""
        command += " --both-breasts" * chosen.get("both_breasts", False)
    raise NotPrepared(f"the data set {name}/{config.name} is not prepared; run: {command}")


def asked_for(config: Any, workdir: Path) -> dict[str, Any]:
    """The arguments of `find` for a run's config (a ConfigDict, or its dictionary in config.json)."""
    data = config["data"]
    default = workdir / "data" if data["name"].startswith("phantom") else Path.home() / "mammojax_data"
    phantom = config.get("phantom", None)
    return {
        "name": data["name"],
        "kind": data["kind"],
        "data_dir": Path(data["data_dir"]).expanduser() if data["data_dir"] else default,
        "source": Path(data["source"]).expanduser() if data["source"] else None,
        "phantom": None if phantom is None else dict(phantom),
        "label_map": data.get("map", ""),
        **{field: data[field] for field in ("patch_size", "split", "seed", *FRAMED, *CROPPED) if field in data},
    }


def of_run(run: Path) -> Prepared:
    """The data set a run was trained on, where it still stands.

    Raises:
        NotPrepared: it is gone.
    """
    return find(**asked_for(json.loads((run / "config.json").read_text())["config"], run))


def prepare(
    name: str, source: Path | None, data_dir: Path, *, kinds: tuple[str, ...] = ("whole", "patches_s10"),
    patch_size: int = 224, split: str = "shen", seed: int = 0, workers: int = 1,
    phantom: dict[str, Any] | None = None, label_map: str = "", **how: Any,
) -> list[Path]:  # fmt: skip
    """Make a data set ready: each kind once, into DATA_DIR/<name>/<config>/<version>. A second call does nothing.

    Args:
        name: "cbis_ddsm", "inbreast", "manifest", "phantom", "phantom_exams".
        source: the downloaded folder, or the manifest; a phantom is written to DATA_DIR when None.
        data_dir: where prepared data sets live.
        kinds: of builders.mammograms.KINDS; with patches of whole images "whole" is always made, as the mean gray value
            comes from it.
        patch_size: side of a patch, pixels of the framed image (s1g: twice that), of exams those of the image.
        split: "shen", "official", "all".
        seed: of the split and of the patches.
        workers: processes; the result does not depend on their number.
        phantom: what PHANTOMS has of this name (`phantom.write_phantom`, `phantom_exams.write_exams`).
        label_map: what the words of a manifest mean, such as "0=BENIGN,1=MALIGNANT" (`manifest.read_map`).
        how: size, crop, keep_aspect: the Framing of whole images, from which patches are cut; threshold, iterations:
            the crop of exams (`crop.crop`); without a threshold it is found from each image, and of the phantom 0.

    Returns:
        The folders, in the order of the kinds, "whole" first.

    Raises:
        BadDataset, BadManifest: what was given cannot be used; nothing made before is lost.
    """
    if name.startswith("phantom") and source is None:
        source = data_dir / f"{name}_source" / _phantom_name(name, phantom)
    paths: list[Path] = []
    first = () if all(kind in exams.KINDS for kind in kinds) else ("whole",)
    for kind in dict.fromkeys((*first, *kinds)):
        config = _config(
            name, kind, source=source, patch_size=patch_size, split=split, seed=seed, phantom=phantom, workers=workers,
            label_map=label_map, **how,
        )  # fmt: skip
        path = _folder(data_dir, name, config)
        if (path / "dataset.json").is_file():
            _same_source(name, source, path)
        else:
            with _alone(data_dir):
                if not (path / "dataset.json").is_file():
                    _write_source(name, source, phantom, workers)
                    whole = Prepared(paths[0]) if first and kind not in ("whole", *exams.KINDS) else None
                    _build(name, config, data_dir, path, whole)
        paths.append(path)
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


def _write_source(name: str, source: Path | None, phantom: dict[str, Any] | None, workers: int) -> None:
    """Write the phantom where its tree is not complete; any other source must be there."""
    # The table that is written last.
    last = {"phantom": "calc_case_description_test_set.csv", "phantom_exams": "manifest.csv"}.get(name, "")
    if last and source is not None and not (source / last).is_file():
        shutil.rmtree(source, ignore_errors=True)
        write: Callable[..., None] = write_phantom if name == "phantom" else write_exams
        write(source, workers=workers, **(PHANTOMS[name] | (phantom or {})))
    if source is None or not source.exists():
        raise BadDataset(f'there is no source folder "{source}"; give the downloaded data as --source.')


def _same_source(name: str, source: Path | None, path: Path) -> None:
    """Refuse to pass what was made of one download off as another's; a manifest's or phantom's name tells already."""
    made_of = json.loads((path / "dataset.json").read_text()).get("source")
    if name in DIGESTS and made_of and source is not None and source.is_dir() and DIGESTS[name](source) != made_of:
        raise BadDataset(
            f"{name}/{path.parent.name} was prepared from other CSVs than those of the source folder; "
            "remove that data set or give another --data-dir."
        )


def _build(name: str, config: mammograms.MammogramConfig, data_dir: Path, path: Path, whole: Prepared | None) -> None:
    """Make one kind: TFDS writes, then dataset.json marks it complete; what an interruption left is removed first."""
    shutil.rmtree(path.parent, ignore_errors=True)
    logging.getLogger("absl").setLevel(logging.ERROR)  # it would print the source's path and the whole config
    builder = BUILDERS[name](config=config, data_dir=str(data_dir), file_format="array_record")
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
    classes = mammograms.CLASSES[config.kind]
    facts = {
        "name": name,
        "kind": config.kind,
        **_made_by(config, made),
        "patch_size": config.patch_size,
        "split": config.split,
        "seed": config.seed,
        "source": DIGESTS[name](Path(config.source)) if name in DIGESTS else "",
        **({"map": config.label_map} if config.label_map else {}),
        "mean": None if config.kind in exams.KINDS else mean if whole is None else whole.facts["mean"],
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


def _made_by(config: mammograms.MammogramConfig, made: Path) -> dict[str, Any]:
    """What images were framed or cropped by; of exams also how many breasts have which findings."""
    if config.kind not in exams.KINDS:
        return {"framing": config.framing.to_json()}
    facts: dict[str, Any] = {"crop": {"threshold": config.threshold, "iterations": config.iterations}}
    if config.kind == "exams":
        with (made / "index.csv").open(newline="") as file:
            facts["findings"] = exams.findings(read_table(file)[1], mammograms.SPLITS)
    return facts


def _index(builder: tfds.core.DatasetBuilder, made: Path) -> tuple[dict[str, Counter[int]], float]:
    """Write index.csv; the labels' counts of each split, and the mean gray value of train, 0 … 255."""
    counts: dict[str, Counter[int]] = {split: Counter() for split in mammograms.SPLITS}
    total, pixels = 0.0, 0
    with (made / "index.csv").open("w", newline="") as file:
        facts = ("facts",) * (builder.builder_config.kind == "exams")
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
