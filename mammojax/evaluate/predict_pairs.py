"""`mammojax predict` with two-view runs: breasts from two files each; each file is in a pair or in rejected.csv."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mammojax.data import projection
from mammojax.data.cells import Writer
from mammojax.data.pairs import Pair, by_view, pairs_of
from mammojax.errors import BadCheckpoint, BadMammogram
from mammojax.evaluate import by_patient, overlays, provenance
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
    progress,
    with_headers,
)
from mammojax.evaluate.predictor import ImagePredictor, ensemble, read
from mammojax.vocabulary import PAIRS

ALONE = {
    "views": "its breast has no CC and MLO view, and a two-view network needs both; of several of a view one is used",
    "breasts": "the other breast of its exam has no image of this view, and the network needs both breasts",
}
"""Why an image is in no pair."""


def predict_pairs(
    runs: Sequence[Path], source: Path, output: Path, tta: str = "none", any_modality: bool = False,
    calibration: Calibration | None = None, ids: str = "", with_overlays: bool = False,
) -> int:  # fmt: skip
    """Score the breasts of a folder or of a manifest that have both images of a pair, see `pairs.pairs_of`.

    Several runs are an ensemble: the mean of their malignant scores. Files without ids, such as PNGs, belong to one
    exam where their folder and name are the same but for the words of side and view. Writes OUTPUT/breasts.csv
    (BREAST_COLUMNS, the label, empty where unknown, and the columns of `calibration`), OUTPUT/exams.csv and
    patients.csv (see `by_patient`), OUTPUT/predictions.json and OUTPUT/rejected.csv (file, reason). `ids`: see
    `inputs.listing`. `with_overlays` draws OUTPUT/overlays/<row of breasts.csv>_CC.png and _MLO.png, the first row
    being 1, or <row>_breast.png where a breast is paired with the other one: each full mammogram, and over it the
    heatmap of the patch classifier that the run started from; the score above them is the breast's.

    Returns:
        0, or 3 when no breast could be predicted.

    Raises:
        BadCheckpoint: a run cannot be used. BadManifest, BadMammogram: the input cannot be used.
    """
    networks = _networks(runs)
    maps = [overlays.map_of(run, network) for run, network in zip(runs, networks, strict=True) if with_overlays]
    kind = networks[0].config.model.get("pair", "views")
    listed, rejected, key = listing(source, output, ids)
    images = _with_facts(listed, rejected, key, kind, any_modality)
    pairs, _ = pairs_of([facts for _, facts in images], kind)
    used = {k for pair in pairs for k in pair.images}
    rejected += [(facts["image"], ALONE[kind]) for k, (_, facts) in enumerate(images) if k not in used]
    output.mkdir(parents=True, exist_ok=True)
    size = max(1, min(*(network.config.eval_batch for network in networks), len(pairs)))

    def load(pair: Pair) -> tuple[Pair, dict[str, np.ndarray], list[Any], Rejected]:
        """A pair with its images, as stored and framed for each network, or with the reasons for its rejection."""
        pixels, reasons = {}, []
        for name, k in zip(PAIRS[kind], pair.images, strict=True):
            path, facts = images[k]
            try:
                pixels[name] = read(path, any_modality).pixels
            except BadMammogram as error:
                reasons.append((facts["image"], str(error)))
        if reasons:
            names = {name for name, _ in reasons}
            others = [images[k][1]["image"] for k in pair.images if images[k][1]["image"] not in names]
            return pair, {}, [], reasons + [(name, "the other image of its pair cannot be read") for name in others]
        return pair, pixels if maps else {}, [network.frame(pixels) for network in networks], []

    breasts: list[Breast] = []
    with open_csv(output / "breasts.csv") as file, progress(len(pairs), "breast") as bar:
        writer = Writer(file, (*BREAST_COLUMNS, "label", *(calibration.columns if calibration else ())))
        for batch in ahead(load, pairs, size):
            rejected += [reason for *_, reasons in batch for reason in reasons]
            framed = [item[:3] for item in batch if not item[3]]
            scores = ensemble(
                [network.score([frames[k] for *_, frames in framed], tta, size) for k, network in enumerate(networks)]
            )
            for (pair, pixels, frames), p in zip(framed, np.asarray(scores).tolist(), strict=True):
                breast = Breast(pair.exam_id, pair.patient_id, pair.laterality, pair.views, p)
                more = calibration.cells(p).values() if calibration else ()
                label = pair.label if pair.label >= 0 else ""
                writer.row([*breast[:4], "", repr(p), label, *more])
                breasts.append(breast)
                for name, image in by_view(pixels).items():
                    places = [overlays.placed(network, image) for network in networks]
                    whole = overlays.mean_map(places, [of_network[name] for of_network in frames], maps)
                    overlays.save(output, f"{len(breasts)}_{name}", image, whole, p)
            file.flush()
            bar.update(len(batch))
    by_patient.write_exams(output / "exams.csv", breasts)
    by_patient.write_patients(output / "patients.csv", breasts)
    rejected = list(dict.fromkeys(rejected))  # with two breasts as a pair an image is in two pairs
    summary = f"{len(breasts)} breasts predicted, {len(rejected)} files rejected"
    origins = [provenance.of_run(run) for run in runs]
    return finish(output, rejected, summary, len(breasts), origins, tta, ids)


def _networks(runs: Sequence[Path]) -> list[ImagePredictor]:
    networks = [ImagePredictor.restore(run) for run in runs]
    for run, network in zip(runs, networks, strict=True):
        if network.config.model.task != "two_view":
            raise BadCheckpoint(f'"{run}" is no two-view run; give only such runs, or only whole-image ones.')
    if len({network.config.model.get("pair", "views") for network in networks}) > 1:
        raise BadCheckpoint("some of these runs pair views, others breasts; give runs of one kind.")
    return networks


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
