"""The recipe of a prepared data set, from which its folder and the command that prepares it follow."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mammojax import extension
from mammojax.data import manifest
from mammojax.data.breast import ITERATIONS, Framing
from mammojax.errors import BadDataset, near_file
from mammojax.vocabulary import EXAM_PATCH_CLASSES, PATCH_CLASSES

PHANTOMS = ("phantom", "phantom_exams")
DATA_SETS = ("cbis_ddsm", "inbreast", "manifest", *PHANTOMS)
EXAM_KINDS = ("exams", "exam_patches")
KINDS = ("whole", "patches_s10", "patches_s1", "patches_s1g", "patches_jittered", *EXAM_KINDS)
WITHOUT_PATCHES = ("whole", "exams")
FORMAT_VERSION = "1.0.0"
"""Version of the examples' format; the last part of every data set's path."""
_SPLITS = ("shen", "official", "all")


def patch_side(kind: str, patch_size: int, context: int = 0) -> int:
    """Height and width of a patch of a kind of KINDS, in pixels, with its context.

    S1g patches are twice as large as `patch_size`; `context` lies around the others on every side.
    """
    return patch_size * (2 if kind == "patches_s1g" else 1) + 2 * context


def data_dir(config: Any, workdir: Path) -> str:
    """The folder of a run's data sets for its config: the one that it names, for phantoms else WORKDIR/data, else ""
    (the user's own, see `Recipe.of_run`)."""
    data = config["data"]
    return data["data_dir"] or (str(workdir / "data") if data["name"] in PHANTOMS else "")


@dataclass(frozen=True)
class Recipe:
    """One kind of examples of one data set.

    Attributes:
        name: one of DATA_SETS, or "package.module:name", a function or TFDS builder outside of this package.
        kind: one of KINDS.
        data_dir: the folder of prepared data sets.
        source: the downloaded folder, or the manifest; None: a phantom is written below `data_dir`.
        split: "shen", "official" (of CBIS-DDSM) or "all".
        seed: of the split and of the patches.
        patch_size: side of a patch in pixels of the framed image ("patches_s1g": twice that), for exams of the image.
        context: pixels around a patch that its network sees too, on every side; of "patches_jittered".
        one_type: all lesions of patches count as masses, those without a type too; of patches of whole images.
        label_map: the meaning of a manifest's words, such as "0=BENIGN,1=MALIGNANT" (`manifest.read_map`).
        size, crop, keep_aspect: the `Framing` of whole images, from which their patches are cut.
        threshold, iterations: the crop of exams (`breast.crop`). Threshold None: it is computed from each
            image; for a phantom it is 0, the background of its images.
        patients, both_breasts, digital: of "phantom" (`phantom.write_phantom`).
        exams, first_exam: of "phantom_exams" (`phantom_exams.write_exams`).
        phantom_seed, contrast: of both phantoms.

    Raises:
        BadDataset: the fields contradict each other or the data set, or the images are too small.
        BadManifest: `label_map` is no map.
    """

    name: str
    kind: str
    data_dir: Path
    source: Path | None = None
    split: str = "shen"
    seed: int = 0
    patch_size: int = 224
    context: int = 0
    one_type: bool = False
    label_map: str = ""
    size: tuple[int, int] = (1152, 896)
    crop: str = "none"
    keep_aspect: bool = False
    threshold: int | None = None
    iterations: int = ITERATIONS
    patients: int = 340
    both_breasts: bool = False
    digital: bool = False
    exams: int = 300
    first_exam: int = 0
    phantom_seed: int = 0
    contrast: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadDataset(f'the kind "{self.kind}" is unknown; write {", ".join(KINDS)}.')
        if self.name not in DATA_SETS and not self.is_outside:
            raise BadDataset(
                f'there is no data set "{self.name}"; write {", ".join(DATA_SETS)}, or package.module:function for one '
                "of your own."
            )
        if self.split not in _SPLITS or (self.split == "official" and self.name not in ("cbis_ddsm", "phantom")):
            raise BadDataset(
                f'{self.name} has no split "{self.split}"; write shen or all, for CBIS-DDSM official as well.'
            )
        height, width = (0, 0) if self.of_exams else self.size
        if self.patch_size < 8 or (min(height, width) < 8 and not self.of_exams):
            raise BadDataset(
                f"images of {height}x{width} or patches of {self.patch_size} show nothing; 8 is the least."
            )
        if self.context < 0 or (self.context and self.kind not in (*WITHOUT_PATCHES, "patches_jittered")):
            raise BadDataset(
                f'data.context={self.context} is for the kind "patches_jittered", and not negative; {self.kind} has 0.'
            )
        if self.one_type and self.of_exams:
            raise BadDataset(f"data.one_type is for patches of whole images; the classes of {self.kind} have no types.")
        if self.threshold is None and self.name in PHANTOMS:
            object.__setattr__(self, "threshold", 0)
        if self.of_exams and ((self.threshold or 0) < 0 or self.iterations < 1):
            raise BadDataset(
                "config.data.threshold must not be negative and config.data.iterations must be at least 1."
            )
        if manifest.read_map(self.label_map) and self.name != "manifest":
            raise BadDataset(
                f"the map {self.label_map} is for a manifest's words; {self.name} has its own, leave the map empty."
            )

    @classmethod
    def of_run(cls, config: Any, workdir: Path) -> "Recipe":
        """The recipe of a run's data set.

        Args:
            config: a ConfigDict as the files of configs/ make it, or its dictionary in config.json.
            workdir: the run folder; phantoms go to its data/ unless the config names another folder.
        """
        data, is_phantom = config["data"], config["data"]["name"] in PHANTOMS
        of_patches = ("patch_size", "context", "one_type")
        settings = ("split", "seed", *of_patches, "crop", "keep_aspect", "threshold", "iterations")
        fields = {field: data[field] for field in settings if field in data}
        if "size" in data:
            fields["size"] = tuple(data["size"])
        if is_phantom:
            renamed = {"seed": "phantom_seed", "first": "first_exam"}
            phantom = config.get("phantom", None) or {}
            fields |= {renamed.get(field, field): value for field, value in phantom.items()}
        default = workdir / "data" if is_phantom else Path.home() / "mammojax_data"
        return cls(
            name=data["name"],
            kind=data["kind"],
            data_dir=Path(data["data_dir"]).expanduser() if data["data_dir"] else default,
            source=Path(data["source"]).expanduser() if data["source"] else None,
            label_map=data.get("map", ""),
            **fields,
        )

    def of_kind(self, kind: str) -> "Recipe":
        """The same data set's recipe for examples of another kind."""
        return replace(self, kind=kind)

    @property
    def is_outside(self) -> bool:
        """Whether the name is that of a function or a TFDS builder outside of this package."""
        return extension.named(self.name)

    @property
    def of_exams(self) -> bool:
        """Whether the images are those of screening exams: cropped, not framed."""
        return self.kind in EXAM_KINDS

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels 0, 1, …"""
        if self.kind in WITHOUT_PATCHES:
            return ("not malignant", "malignant")
        return EXAM_PATCH_CLASSES if self.of_exams else PATCH_CLASSES

    @property
    def framing(self) -> Framing:
        """How whole images are brought to one size."""
        return Framing(self.size, self.crop, self.keep_aspect)

    @property
    def patch_side(self) -> int:
        """Height and width of a patch, in pixels."""
        return patch_side(self.kind, self.patch_size, self.context)

    @property
    def origin(self) -> Path:
        """The folder or file that is read: the source, or the phantom's folder.

        Raises:
            BadDataset: there is none.
        """
        if self.source is None and self.name in PHANTOMS:
            return self.data_dir / f"{self.name}_source" / self._phantom_words
        if self.source is None or not (self.name in PHANTOMS or self.source.exists()):
            raise BadDataset(f'there is no source folder "{self.source}"; give the downloaded data as --source.')
        return self.source

    @property
    def config_name(self) -> str:
        """The name of this kind's folder, with every field that changes the examples: no two recipes share a folder.

        Raises:
            BadDataset: the manifest, whose digest is part of the name, does not exist.
        """
        parts = [self.kind, self.split]
        if self.of_exams:
            parts.append(f"t{'auto' if self.threshold is None else self.threshold}i{self.iterations}")
        else:
            parts.append(f"{self.size[0]}x{self.size[1]}")
        if self.kind not in WITHOUT_PATCHES:
            parts.append(f"p{self.patch_size}" + f"c{self.context}" * (self.context > 0))
            parts += ["onetype"] * self.one_type
        if not self.of_exams:
            parts += [self.crop] * (self.crop != "none") + ["aspect"] * self.keep_aspect
        parts.append(f"s{self.seed}")
        if self.name in PHANTOMS:
            parts.append(self._phantom_words)
        if self.name == "manifest":
            parts.append(_digest(self._manifest.read_bytes()))
        if words := manifest.read_map(self.label_map):
            parts.append("m" + _digest(json.dumps(sorted(words.items())).encode()))
        return "_".join(parts)

    @property
    def folder(self) -> str:
        """The name as a folder name that TFDS accepts: letters, digits and underscores."""
        return re.sub(r"\W", "_", self.name)

    @property
    def path(self) -> Path:
        """The prepared folder: DATA_DIR/NAME/CONFIG/VERSION. Raises BadDataset as `config_name` does."""
        return self.data_dir / self.folder / self.config_name / FORMAT_VERSION

    @property
    def command(self) -> str:
        """The command line that prepares this data set, quoted for a shell."""
        given = str(self.source or ("" if self.name in PHANTOMS else "DIR"))
        words = ["mammojax", "prepare", self.name, *(["--source", given] if given else [])]
        words += ["--data-dir", str(self.data_dir), "--kinds", self.kind]
        words += ["--split", self.split, "--seed", str(self.seed)]
        words += ["--map", self.label_map] if self.label_map else []
        words += [] if self.kind in WITHOUT_PATCHES else ["--patch-size", str(self.patch_size)]
        words += ["--context", str(self.context)] if self.context and self.kind not in WITHOUT_PATCHES else []
        words += ["--one-type"] * (self.one_type and self.kind not in WITHOUT_PATCHES)
        if self.of_exams:
            words += ["--iterations", str(self.iterations)]
            words += [] if self.threshold is None else ["--threshold", str(self.threshold)]
        else:
            words += ["--size", f"{self.size[0]}x{self.size[1]}"] + ["--keep-aspect"] * self.keep_aspect
            words += ["--crop", self.crop] if self.crop != "none" else []
        if self.name in PHANTOMS:
            of_exams = self.name == "phantom_exams"
            words += ["--exams", str(self.exams)] if of_exams else ["--patients", str(self.patients)]
            words += ["--phantom-seed", str(self.phantom_seed)]
            words += ["--contrast", f"{self.contrast:g}"] if self.contrast != 1 else []
            words += ["--first-exam", str(self.first_exam)] if of_exams and self.first_exam else []
            words += ["--both-breasts"] * (self.both_breasts and not of_exams)
            words += ["--digital"] * (self.digital and not of_exams)
        return shlex.join(words)

    @property
    def phantom_settings(self) -> Mapping[str, Any]:
        """The phantom's settings: arguments of `phantom.write_phantom` or `phantom_exams.write_exams`."""
        common = {"seed": self.phantom_seed, "contrast": self.contrast}
        if self.name == "phantom_exams":
            return {"exams": self.exams, "first": self.first_exam, **common}
        return {"patients": self.patients, "both_breasts": self.both_breasts, "digital": self.digital, **common}

    @property
    def _phantom_words(self) -> str:
        if self.name == "phantom_exams":
            words = f"e{self.exams}p{self.phantom_seed}" + f"f{self.first_exam}" * (self.first_exam != 0)
        else:
            words = f"n{self.patients}p{self.phantom_seed}"
        words += f"c{self.contrast:g}" * (self.contrast != 1)
        return words + ("b" * self.both_breasts + "d" * self.digital) * (self.name == "phantom")

    @property
    def _manifest(self) -> Path:
        """The manifest's CSV."""
        source = self.source or Path()
        file = source / "manifest.csv" if self.source and source.is_dir() else source
        if not file.is_file():
            did = near_file(file, "give a CSV, or a folder with a manifest.csv.")
            raise BadDataset(f'there is no manifest at "{self.source}"; {did}')
        return file


def _digest(data: bytes) -> str:
    """Eight hex digits."""
    return hashlib.sha256(data).hexdigest()[:8]
