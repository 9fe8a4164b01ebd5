"""`mammojax predict` with two-view runs: breasts from two files each; each file is in a pair or in rejected.csv."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mammojax.data import beam, projection
from mammojax.data.cells import Writer
from mammojax.data.pairs import Pair, by_view, pairs_of
from mammojax.errors import BadCheckpoint, BadMammogram
from mammojax.evaluate import by_patient, overlays, parts, pictures, provenance
from mammojax.evaluate.by_patient import Breast
from mammojax.evaluate.calibration import Calibration
from mammojax.evaluate.inputs import (
    BREAST_COLUMNS,
    Listed,
    Rejected,
    ahead,
    finish,
    listing,
    open_csv,
    with_headers,
)
from mammojax.evaluate.pictures import Pictures
from mammojax.evaluate.predictor import ImagePredictor, ensemble, read
from mammojax.vocabulary import PAIRS

ALONE = {
    "views": "its breast has no CC and MLO view, and a two-view network needs both; of several of a view one is used",
    "breasts": "the other breast of its exam has no image of this view, and the network needs both breasts",
}
"""Why an image is in no pair."""


def predict_pairs(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", any_modality: bool = False,
    calibration: Calibration | None = None, ids: str = "", drawn: str = "", dicom: str = "",
    runner: beam.Runner | None = None,
) -> int:  # fmt: skip
    """Score the breasts of a folder or of a manifest that have both images of a pair, see `pairs.pairs_of`.

    Several runs are an ensemble: the mean of their malignant scores. Files without ids, such as PNGs, belong to one
    exam where their folder and name are the same but for the words of side and view. Writes OUTPUT/breasts.csv
    (BREAST_COLUMNS, the label, empty where unknown, and the columns of `calibration`), OUTPUT/exams.csv and
    patients.csv (see `by_patient`), OUTPUT/predictions.json and OUTPUT/rejected.csv (file, reason). `ids`: see
    `inputs.listing`. With `drawn`, "heatmap", OUTPUT/overlays/<row of breasts.csv>_CC.png and _MLO.png, the first row
    being 1, or <row>_breast.png where a breast is paired with the other one, have each full mammogram, and over it the
    heatmap of the patch classifier that the run started from; the score above them is the breast's. `dicom` writes the
    same as DICOM, see `predict.predict_images`. `runner`: see `parts.run`.

    Returns:
        0, or 3 when no breast could be predicted.

    Raises:
        BadCheckpoint: a run cannot be used. BadManifest, BadMammogram: the input cannot be used.
    """
    opening = tuple(runs), pictures.kinds(drawn, dicom)
    networks, _ = opened = _networks(*opening)
    kind = networks[0].config.model.get("pair", "views")
    listed, rejected, key = listing(source, output, ids)
    images = _with_facts(listed, rejected, key, kind, any_modality)
    pairs, _ = pairs_of([facts for _, facts in images], kind)
    used = {k for pair in pairs for k in pair.images}
    rejected += [(facts["image"], ALONE[kind]) for k, (_, facts) in enumerate(images) if k not in used]
    output.mkdir(parents=True, exist_ok=True)
    size = max(1, min(*(network.config.eval_batch for network in networks), len(pairs)))
    origins = [provenance.of_run(run) for run in runs]
    of_breasts = Pictures.of(output, drawn, dicom, origins)

    def write(results: Iterator[_ScoredPair]) -> int:
        breasts: list[Breast] = []
        left_out = rejected
        with open_csv(output / "breasts.csv") as file:
            writer = Writer(file, (*BREAST_COLUMNS, "label", *(calibration.columns if calibration else ())))
            for position, p, reasons in results:
                left_out += [(name, reason) for name, reason in reasons]
                if p is None:
                    continue
                pair = pairs[position]
                breast = Breast(pair.exam_id, pair.patient_id, pair.laterality, pair.views, p)
                more = calibration.cells(p).values() if calibration else ()
                label = pair.label if pair.label >= 0 else ""
                writer.row([*breast[:4], "", repr(p), label, *more])
                file.flush()
                breasts.append(breast)
                of_breasts.place(output, position, len(breasts), [f"_{name}" for name in PAIRS[kind]])
        by_patient.write_exams(output / "exams.csv", breasts)
        by_patient.write_patients(output / "patients.csv", breasts)
        left_out = list(dict.fromkeys(left_out))  # with two breasts as a pair an image is in two pairs
        summary = f"{len(breasts)} breasts predicted, {len(left_out)} files rejected"
        return finish(output, left_out, summary, len(breasts), origins, tta, ids)

    work = parts.Work(_networks, opening, _score, (kind, tta, any_modality, of_breasts))
    items = [(pair, [images[k] for k in pair.images]) for pair in pairs]
    return parts.run(work, opened, items, size, output, "breast", write, runner)


_ScoredPair = tuple[int, float | None, Rejected]
"""A pair's position among the pairs, and its score or, without one, the reasons."""


def _score(
    opened: tuple[list[ImagePredictor], list[overlays.Map]], pairs: parts.Numbered, size: int, kind: str, tta: str,
    any_modality: bool, of_breasts: Pictures,
) -> Iterator[_ScoredPair]:  # fmt: skip
    """Score pairs with their images, `size` at a time, and draw them."""
    networks, maps = opened

    def load(item: tuple[int, tuple[Pair, Listed]]) -> tuple[dict[str, np.ndarray], list[Any], Rejected]:
        """The images of a pair, as stored and framed for each network, or the reasons for its rejection."""
        images, pixels, reasons = item[1][1], {}, []
        for name, (path, facts) in zip(PAIRS[kind], images, strict=True):
            try:
                pixels[name] = read(path, any_modality).pixels
            except BadMammogram as error:
                reasons.append((facts["image"], str(error)))
        if reasons:
            names = {name for name, _ in reasons}
            others = [facts["image"] for _, facts in images if facts["image"] not in names]
            return {}, [], reasons + [(name, "the other image of its pair cannot be read") for name in others]
        return pixels if maps else {}, [network.frame(pixels) for network in networks], []

    for start, batch in zip(range(0, len(pairs), size), ahead(load, pairs, size), strict=True):
        framed = [frames for _, frames, reasons in batch if not reasons]
        scores = ensemble(
            [network.score([frames[k] for frames in framed], tta, size) for k, network in enumerate(networks)]
        )
        following = iter(np.asarray(scores).tolist())
        for (position, (pair, images)), (pixels, frames, reasons) in zip(pairs[start:], batch, strict=False):
            if reasons:
                yield position, None, reasons
                continue
            p = next(following)
            for name, image in by_view(pixels).items():
                places = [overlays.placed(network, image) for network in networks]
                whole = overlays.mean_map(places, [of_network[name] for of_network in frames], maps)
                path = images[PAIRS[kind].index(name)][0]
                of_breasts.write(path, f"{position}_{name}", image, {"heatmap": whole}, p, pair.laterality, "breast")
            yield position, p, []


def _networks(runs: Sequence[Path], kinds: Sequence[str]) -> tuple[list[ImagePredictor], list[overlays.Map]]:
    """The networks of two-view runs and, to draw them, their heatmaps."""
    networks = [ImagePredictor.restore(run) for run in runs]
    for run, network in zip(runs, networks, strict=True):
        if network.config.model.task != "two_view":
            raise BadCheckpoint(f'"{run}" is no two-view run; give only such runs, or only whole-image ones.')
    if len({network.config.model.get("pair", "views") for network in networks}) > 1:
        raise BadCheckpoint("some of these runs pair views, others breasts; give runs of one kind.")
    return networks, [
        overlays.map_of(run, net, kind) for kind in kinds for run, net in zip(runs, networks, strict=True)
    ]


def _with_facts(
    listed: Listed, rejected: Rejected, key: bytes, kind: str, any_modality: bool
) -> Listed:  # fmt: skip
    """The files with side, view, ids and a label; those that can be in no pair are rejected."""
    images: Listed = []
    for path, facts in with_headers(listed, rejected, key, any_modality):
        if not (facts["patient_id"] or facts["exam_id"]):
            facts["exam_id"] = _stem(facts["image"])
        reason = projection.why_unused(facts["laterality"], facts["view"], facts.get("modifier", ""))
        if kind == "breasts" and facts["laterality"] and not facts.get("modifier", ""):
            reason = ""
        if reason:
            rejected.append((facts["image"], reason))
        else:
            images.append((path, facts | {"label": facts.get("label") or "-1"}))
    return images


def _stem(image: str) -> str:
    """The folder and name of a file without its words of side and view: "a/P_1_LEFT_CC.png" → "a/P_1"."""
    path = PurePosixPath(image)
    words = [word for word in re.split(r"[^A-Za-z0-9]+", path.stem) if not any(projection.from_name(word)[:2])]
    return str(path.with_name("_".join(words) or "exam"))
