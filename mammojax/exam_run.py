"""One experiment on exams (Wu et al. 2019): heatmaps → windows → a multi-view network → breasts, populations, report.

What run.py does of mammograms, of exams of four views; the loop is the same.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from mammojax import metrics
from mammojax.data import exams, pipeline, prepared
from mammojax.data.dicom import BadMammogram
from mammojax.evaluate import exam_report, heatmap, populations
from mammojax.evaluate.exams import ExamPredictor, of_split
from mammojax.models import multi_view
from mammojax.train import loop, mesh
from mammojax.train.checkpoint import BadCheckpoint, restore_best

Tree = Any
Scored = list[tuple[exams.Exam, np.ndarray]]
PATIENTS = "train_patients.txt"


def input_sizes(config: ml_collections.ConfigDict, data: ml_collections.ConfigDict) -> dict[str, tuple[int, int]]:
    """(height, width) of the windows of each view that the network takes.

    Raises:
        ValueError: a window that cannot be, or noise that leaves nothing of it.
    """
    exam, sizes = config.exam, {}
    for view in (view for view in exams.VIEWS if view[2:] in config.model.angles):
        height, width = exam.sizes[view[2:]]
        if min(height, width) < 32:
            raise ValueError(f"exam.sizes.{view[2:]}={(height, width)}: a window of less than 32 pixels shows nothing.")
        if not 0 <= exam.noise < min(height, width) / 2:
            raise ValueError(f"exam.noise={exam.noise}: give a number of pixels below half of each window's side.")
        sizes[view] = (int(height), int(width))
    if not 0 < exam.stride <= exam.patch:
        raise ValueError(f"exam.stride={exam.stride}: steps longer than exam.patch={exam.patch} leave gaps.")
    if data.patch_size != exam.patch:
        raise ValueError(f"exam.patch={exam.patch}: heatmaps slide what was learned; set data.patch_size to the same.")
    if sorted(exam.heatmaps) != sorted(heatmap.FINDINGS):
        raise ValueError(
            f"exam.heatmaps={tuple(exam.heatmaps)}: name malignant and benign, in the order of the channels."
        )
    return sizes


def refuse_leaks(run: Path, data: prepared.Prepared) -> None:
    """Refuse a start that has learned from patients of this data set's validation or test split.

    Wu et al. 2019, section IV-C: "we used the same train-validation-test splits for pretraining our BI-RADS
    classification model […], so no data leakage across splits was possible".

    Raises:
        BadCheckpoint: it has, or it cannot be told.
    """
    file = run / PATIENTS
    if not file.is_file():
        if json.loads((run / "config.json").read_text())["facts"].get("name") == "nyu":
            return  # converted published weights, of a hospital's own patients
        raise BadCheckpoint(f'"{run}" does not say whom it has learned from ({PATIENTS}); train it again.')
    learned = set(file.read_text().split("\n"))
    ours = {row["patient_id"] for split in ("val", "test") for row in data.table(split)}
    if shared := learned & ours:
        raise BadCheckpoint(
            f'"{run}" has learned from {len(shared)} patients who stand in the validation or test split of this data '
            "set; pretrain on the same split (the same config.data.split and config.data.seed)."
        )


def write_patients(workdir: Path, data: prepared.Prepared) -> None:
    """Write whom the run learns from, for `refuse_leaks`."""
    (workdir / PATIENTS).write_text("\n".join(sorted({row["patient_id"] for row in data.table("train")})))


def heatmaps_of(
    config: ml_collections.ConfigDict, data: prepared.Prepared, patch_run: Path | None
) -> tuple[exams.Heatmaps, str] | None:
    """The data set's heatmap channels, written now where they are not there yet, and the patch network's digest.

    Raises:
        BadCheckpoint: the network takes heatmaps and there is no patch network.
    """
    if config.model.channels == 1:
        return None
    if patch_run is None:
        raise BadCheckpoint("config.patch_run is empty; name the run of the patch network that makes the heatmaps.")
    refuse_leaks(patch_run, data)
    net = heatmap.PatchNet(patch_run)
    return (heatmap.write_channels(data, net, config.exam), heatmap.order(config.exam)), net.digest


def experiment(
    config: ml_collections.ConfigDict, workdir: Path, data: prepared.Prepared, variables: Tree,
    heatmaps: exams.Heatmaps | None, title: str, notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Train on the exams of a data set, measure, report; what metrics.json holds.

    Args:
        config: of task "exam".
        workdir: the run folder, with its config.json.
        data: of kind "exams".
        variables: where to start.
        heatmaps: see `heatmaps_of`.
        title, notes: of the report.

    Raises:
        BadDataset: no exam can be learned from or measured. Stopped, Diverged: see `loop.train`.
    """
    exam, target = config.exam, config.model.target
    windows = exams.Windows(
        data, exam.sizes, target=target, angles=tuple(config.model.angles), noise=exam.noise, batch=config.batch,
        epochs=sum(stage.epochs for stage in config.stages.values()), seed=config.seed, heatmaps=heatmaps,
    )  # fmt: skip
    if windows.left_out:
        print(f"{windows.left_out} training exams are left out: a view or the label is missing", flush=True)
    large = max(h * w for h, w in exam.sizes.values()) > 500_000  # decoding takes longer than handing over
    devices = mesh.data_mesh(config.batch)
    batches = pipeline.exam_batches(
        windows, batch=config.batch, workers=config.data.workers if large else 0, mesh=devices
    )
    predictor = ExamPredictor(config, data.facts, variables)

    def scored(split: str, tta: str) -> Iterator[tuple[exams.Exam, np.ndarray]]:
        """The exams of a split that the network can say something of, and what it says."""
        for known, loaded in of_split(data, split, exam.sizes, heatmaps, max(2, config.data.workers)):
            try:
                yield known, predictor.probabilities(loaded, tta)
            except BadMammogram:
                continue

    def validate(variables: Tree) -> dict[str, float]:
        predictor.variables = variables
        return summary(list(scored("val", "none")), target)

    loop.train(config, multi_view.build(config.model), variables, batches, validate, workdir, None)
    _, _, predictor.variables = restore_best(workdir)
    results = {}
    for tta in ("none", "random10"):
        for split in ("val", "test"):
            found = list(scored(split, tta))
            if not found:
                raise prepared.BadDataset(f"the {split} split has no exam with the views that this network needs.")
            name = split if tta == "none" else f"{split}_{tta}"
            path = workdir / "predictions" / f"{name}.csv"
            path.parent.mkdir(exist_ok=True)
            (_write_birads if target == "birads" else _write_breasts)(path, found)
            results[name] = measure(workdir, name, found, target, config)
    (workdir / "metrics.json").write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    exam_report.write_exam_report(workdir, title, notes)
    return results


def _rows(scored: Scored, target: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each task's name, labels of 0 and 1 and scores, over the exams whose label is known.

    Four labels for cancer, three one-vs-rest for BI-RADS.
    """
    if target == "birads":
        known = [(e.birads, p[0]) for e, p in scored if e.birads >= 0]
        for k, name in enumerate(exams.BIRADS):
            yield name, np.array([int(b == k) for b, _ in known]), np.array([p[k] for _, p in known])
        return
    for k, name in enumerate(exams.LABELS):
        pairs = [(e.label[k], p[k, 1]) for e, p in scored if e.label[k] >= 0]
        yield name, np.array([label for label, _ in pairs]), np.array([score for _, score in pairs])


def summary(scored: Scored, target: str) -> dict[str, float]:
    """Loss of the averaged probabilities, in nats an exam, and the mean AUC that chooses the best epoch.

    Of the four labels (section IV-A.1: "the average of the validation AUCs over the four prediction tasks"), or of
    BI-RADS 0, 1, 2 against the others (section IV-C). A label that is all of one kind has no AUC and is not counted.
    """
    aucs, loss = [], 0.0
    for _, label, score in _rows(scored, target):
        if len(set(label.tolist())) == 2:
            aucs.append(float(metrics.roc_auc(label, score)))
        hit = score[label == 1]
        misses = np.zeros(0) if target == "birads" else 1 - score[label == 0]
        loss -= float(np.log(np.maximum(np.concatenate([hit, misses]), 1e-12)).sum())
    return {"loss": loss / max(len(scored), 1), "auc": float(np.mean(aucs)) if aucs else float("nan")}


def measure(
    workdir: Path, name: str, scored: Scored, target: str, config: ml_collections.ConfigDict,
) -> dict[str, Any]:  # fmt: skip
    """What metrics.json holds of a split: each metric with its patient-clustered interval.

    Cancer: auc_<finding>, pr_auc_<finding> by breast, the same of biopsied breasts as …_biopsied, and "auc", the mean
    AUC of the four labels by exam. BI-RADS: auc_0, auc_1, auc_2 and their mean.
    """
    results: dict[str, Any] = {}
    rows = list(_rows(scored, target))
    kept = [exam for exam, _ in scored if target != "birads" or exam.birads >= 0]
    if target == "birads":
        patient = np.array([exam.patient_id for exam in kept])
        for task, label, score in rows:
            results[f"auc_{task}"] = metrics.bootstrap(
                metrics.roc_auc, label, score, patient, config.bootstrap_runs, config.seed
            )._asdict()
        truth = np.stack([label for _, label, _ in rows], axis=1).argmax(1)
        called = np.stack([score for *_, score in rows], axis=1).argmax(1)
        results["accuracy"] = metrics.bootstrap(
            metrics.accuracy, truth, called, patient, config.bootstrap_runs, config.seed
        )._asdict()
    else:
        breasts = populations.read(workdir, name)
        found = populations.measure(breasts, config.bootstrap_runs, config.seed)
        for population, values in found.items():
            suffix = "" if population == "screening" else f"_{population}"
            for finding in populations.FINDINGS:
                for metric, value in values[finding].items():
                    if value is not None:
                        results[f"{metric}_{finding}{suffix}"] = value
    results["auc"] = _mean_auc(rows, kept, target, config)
    results["exams"] = len(scored)
    return results


def _mean_auc(
    rows: list[Any], kept: list[exams.Exam], target: str, config: ml_collections.ConfigDict
) -> dict[str, float]:
    """The mean over tasks of their AUC, with an interval over patients; see `summary`."""
    tasks = []
    for k, (_, label, score) in enumerate(rows):
        known = [e.patient_id for e in kept if target == "birads" or e.label[k] >= 0]
        if len(set(label.tolist())) == 2:
            tasks.append((label, score, known))
    ids = sorted({exam.patient_id for exam in kept})
    place = {name: k for k, name in enumerate(ids)}

    def mean(weights: np.ndarray | None) -> np.ndarray | float:
        values = [
            np.asarray(metrics.roc_auc(label, score, None if weights is None else weights[:, [place[p] for p in who]]))
            for label, score, who in tasks
        ]
        return np.mean(values, axis=0)

    if not tasks:
        return metrics.Interval(float("nan"), float("nan"), float("nan"))._asdict()
    return metrics.interval_of(mean, np.array(ids), config.bootstrap_runs, config.seed)._asdict()


def _write_birads(path: Path, scored: Scored) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("exam_id", "patient_id", "birads", *(f"p_{name}" for name in exams.BIRADS)))
        for exam, p in scored:
            said = exams.BIRADS[exam.birads] if exam.birads >= 0 else ""
            writer.writerow((exam.exam_id, exam.patient_id, said, *(repr(float(v)) for v in p[0])))


def _write_breasts(path: Path, scored: Scored) -> None:
    """A row for each breast that has an image: populations.KNOWN, biopsied, and the manifest's further columns."""
    own = (*populations.KNOWN, "biopsied")
    further = dict.fromkeys(c for exam, _ in scored for side in exam.columns.values() for c in side if c not in own)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*own, *further))
        for exam, p in scored:
            for side, breast in (("L", "left"), ("R", "right")):
                views = [view[2:] for view in exam.images if view.startswith(side)]
                if not views:
                    continue
                at = [exams.LABELS.index(f"{breast}_{finding}") for finding in ("benign", "malignant")]
                scores = [repr(float(p[k, 1])) for k in at]
                labels = ["" if exam.label[k] < 0 else int(exam.label[k]) for k in at]
                facts = [exam.columns[side].get(column, "") for column in further]
                known = [exam.exam_id, exam.patient_id, side, "+".join(views)]
                writer.writerow((*known, *scores, *labels, int(exam.biopsied(side)), *facts))
