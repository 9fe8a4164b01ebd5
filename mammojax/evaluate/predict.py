"""From images to probabilities: in batches, with flips averaged, of files or of a data set's split."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from tqdm import tqdm

from mammojax.data.breast import Framing
from mammojax.data.cells import Writer
from mammojax.data.dicom import Mammogram, read_mammogram, refuse_small
from mammojax.data.identity import KEY, hashed, id_key
from mammojax.data.manifest import read_manifest
from mammojax.errors import BadCheckpoint, BadMammogram
from mammojax.models import classifiers
from mammojax.train.checkpoint import restore_best

Tree = Any
Apply = Callable[[Tree, jax.Array], jax.Array]
TABLES = (".csv", ".tsv", ".xlsx", ".xls")  # what is taken for a manifest, if only to be refused as no CSV
_OWN = (
    "predictions.csv",
    "breasts.csv",
    "exams.csv",
    "rejected.csv",
    KEY,
)  # what predict_folder itself leaves in its output
BREAST_COLUMNS = ("exam_id", "patient_id", "laterality", "views", "p_benign", "p_malignant")  # p_benign: exam models
COLUMNS = ("image", "patient_id", "exam_id", "laterality", "view", "label", "p_malignant")


def make_apply(model: nn.Module, mean: float, channels: int) -> Apply:
    """A jitted function: variables, images uint16 [B, H, W, 1] → probabilities float32 [B, K]."""

    @jax.jit
    def apply(variables: Tree, images: jax.Array) -> jax.Array:
        logits, _ = model.apply(variables, classifiers.as_input(images, mean, channels))
        return jax.nn.softmax(logits, axis=-1)

    return apply


def numbers(probabilities: np.ndarray) -> np.ndarray:
    """The probabilities, unchanged.

    Raises:
        BadCheckpoint: one is not a number, which only weights beyond all bounds make of an image.
    """
    if not np.isfinite(probabilities).all():
        raise BadCheckpoint(
            "the network answers an image with a probability that is not a number, so its weights are no use; copy the "
            "run folder again from where it is whole, or train it again at a lower learning rate."
        )
    return probabilities


def _averaged(apply: Apply, variables: Tree, images: Any, tta: str) -> np.ndarray:
    """Probabilities float32 [B, K] of images [B, H, W, 1]: as they are, or the mean over the four flips."""
    turned = [images]
    if tta == "flips":
        turned += [images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]
    return np.mean([np.asarray(apply(variables, jnp.asarray(t))) for t in turned], axis=0)


def predict_split(
    apply: Apply, variables: Tree, batches: Iterable[dict[str, Any]], tta: str = "none"
) -> dict[str, Any]:
    """Score one pass over a data set; padding is dropped. `tta` as in `Predictor.predict`.

    Returns:
        {"scores": float32 [N, K], "label": int [N], "image_id": N names}.
    """
    scores, labels, names = [], [], []
    for batch in batches:
        real = np.asarray(batch["weight"]) > 0
        scores.append(_averaged(apply, variables, batch["image"], tta)[real])
        labels.append(np.asarray(batch["label"])[real])
        names += [name for name, keep in zip(batch["image_id"], real, strict=True) if keep]
    return {"scores": np.concatenate(scores), "label": np.concatenate(labels), "image_id": names}


def write_split(path: Path, scored: dict[str, Any], rows: Sequence[dict[str, str]], classes: Sequence[str]) -> None:
    """Write predictions/<split>.csv: COLUMNS, or for a patch net a column p_<class> for each class.

    Raises:
        BadCheckpoint: see `numbers`.
    """
    whole = len(classes) == 2
    numbers(scored["scores"])
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = Writer(file, COLUMNS if whole else (*COLUMNS[:-1], *(f"p_{name}" for name in classes)))
        for row, scores, label in zip(rows, scored["scores"], scored["label"], strict=True):
            shown = scores[1:] if whole else scores
            facts = [row[c] for c in COLUMNS[:5]]
            writer.row([*facts, label if label >= 0 else "", *(repr(float(p)) for p in shown)])


class Predictor:
    """A restored run.

    Attributes:
        config: its config.
        facts: of the data it was trained on: mean, framing, classes.
        variables: its best weights.
    """

    def __init__(self, config: ml_collections.ConfigDict, facts: dict[str, Any], variables: Tree) -> None:
        self.config, self.facts, self.variables = config, facts, variables
        self._apply = make_apply(classifiers.build(config.model), facts["mean"], config.model.channels)
        self._framing = Framing.from_json(facts["framing"])

    def frame(self, image: str | Path | np.ndarray) -> np.ndarray:
        """One image as the network was trained to see it, uint16 [H, W]; a patch net takes patches as they are.

        Raises:
            BadMammogram: the file or array cannot be used.
        """
        if self.config.model.task == "patch":
            return gray(image) if isinstance(image, np.ndarray) else read_mammogram(image).pixels
        pixels = read(image).pixels
        return self._framing.place(pixels).image(pixels)

    def predict(self, images: Any, tta: str = "none") -> np.ndarray:
        """Probabilities of images, alike whether they come as files or as arrays.

        Args:
            images: one or a sequence of: a path of a DICOM or gray PNG, or a mammogram uint16 [H, W].
            tta: "none", or "flips": the mean over {as is, horizontal, vertical, both} (Shen et al. 2019, "Augmented
                prediction").

        Returns:
            float32 [N], p(malignant); of a patch net float32 [N, 5].
        """
        if isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim == 2):
            images = [images]
        return self.score([self.frame(image) for image in images], tta)

    def score(self, framed: Sequence[np.ndarray], tta: str, batch: int | None = None) -> np.ndarray:
        """Probabilities of framed images.

        Batches are filled up to `batch` (no larger than needed when None), so that one compiled program serves all.

        Raises:
            BadCheckpoint: see `numbers`.
        """
        if tta not in ("none", "flips"):
            raise ValueError(f'tta is "{tta}"; write "none" or "flips".')
        size = batch or min(self.config.eval_batch, max(1, len(framed)))
        scores = []
        for start in range(0, len(framed), size):
            chunk = np.stack(framed[start : start + size])
            full = np.pad(chunk, ((0, size - len(chunk)), (0, 0), (0, 0)))[..., None]
            scores.append(numbers(_averaged(self._apply, self.variables, full, tta)[: len(chunk)]))
        result = np.concatenate(scores) if scores else np.zeros((0, self.config.model.classes), np.float32)
        return result[:, 1] if self.config.model.task == "whole" else result


def read(image: str | Path | np.ndarray, any_modality: bool = False) -> Mammogram:
    """A mammogram to predict, from a file (see `read_mammogram`) or of pixels uint16 [H, W].

    Raises:
        BadMammogram: it cannot be read, is no mammogram, smaller than MIN_SIDE on a side, or of one value only.
    """
    if not isinstance(image, np.ndarray):
        mammogram = read_mammogram(image, any_modality)
        refuse_small(Path(image).name, mammogram.pixels.shape)
        return mammogram
    pixels = gray(image)
    refuse_small("an array", pixels.shape)
    if pixels.min() == pixels.max():
        raise BadMammogram("an array holds one value only, no tissue; leave it out.")
    return Mammogram(pixels)


def gray(pixels: np.ndarray) -> np.ndarray:
    """The array itself. Raises BadMammogram where it is not uint16 [H, W]."""
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise BadMammogram(f"an array must be uint16 [H, W], not {pixels.dtype} {pixels.shape}; convert it.")
    return pixels


def restore(run: str | Path) -> Predictor:
    """A finished run as a Predictor. Raises BadCheckpoint where the folder is none."""
    return Predictor(*restore_best(run))


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
    models = [restore(run) for run in runs]
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
            for (_, facts), p in zip(good, np.mean(scores, axis=0), strict=True):
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
