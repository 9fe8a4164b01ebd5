"""The report of a finished run, WORKDIR/report.html, from the run's own files, for images and for exams."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mammojax import metrics
from mammojax.data.dataset import Prepared
from mammojax.errors import BadDataset, NotComparable, NotPrepared
from mammojax.evaluate import calibration_report, figures, flow, model_card, overlays, paired, plots, populations, table
from mammojax.evaluate.measure import RUNS, both_classes, measure_breasts
from mammojax.evaluate.report import TOO_FEW, Section, interval_text, png, replace_part, with_counts, write_page
from mammojax.train.checkpoint import PATH_FIELDS
from mammojax.vocabulary import BIRADS, FINDINGS

SPLITS = {"val": "val", "test": "test", "val_random10": "val, ten windows", "test_random10": "test, ten windows"}
GROUPS = ("density", "view", "views", "vendor", "manufacturer", "finding")
"""Columns of the predictions by which a report measures parts of the test split."""
CATEGORIES = ("0_incomplete", "1_normal", "2_benign")  # BI-RADS, section IV-C


ALIKE, TINY = 0.25, 1e-12
"""Log odds between the 5th and the 95th percentile of the scores, below which they are nearly one; and no zero."""


@dataclass(frozen=True)
class GalleryItem:
    """One image of the gallery: uint8 [H, W]; the patch network's malignant probability [H, W] or None; lesion marks
    uint8 [H, W] (1 benign, 2 malignant) or None; a caption without ids."""

    image: np.ndarray
    heatmap: np.ndarray | None
    mask: np.ndarray | None
    caption: str


@dataclass(frozen=True)
class _Files:
    """The files of a run folder: config without paths, facts of its data, metrics.json, rows of metrics.jsonl,
    versions.json."""

    config: dict[str, Any]
    facts: dict[str, Any]
    results: dict[str, Any]
    log: list[dict[str, Any]]
    versions: str

    @classmethod
    def read(cls, workdir: Path) -> "_Files":
        saved = json.loads((workdir / "config.json").read_text())
        results = json.loads((workdir / "metrics.json").read_text())
        log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        return cls(
            _without_paths(saved["config"]), saved["facts"], results, log, (workdir / "versions.json").read_text()
        )

    @property
    def kept(self) -> str:
        """The best epoch, in words; empty where there is none."""
        best = next((row for row in reversed(self.log) if row["kind"] == "val" and row["best"]), None)
        return f"{best['stage']}, epoch {best['epoch']}" if best else ""

    @property
    def which_kept(self) -> str:
        """Which epoch was kept, and why."""
        if self.config.get("monitor") == "last":
            return f"The last epoch was kept: {self.kept}."
        return f"Best epoch, kept across stages: {self.kept or 'none'}."

    def metrics(self, split: str) -> list[str]:
        """Names of a split's metrics that have an interval."""
        return [name for name, value in self.results[split].items() if isinstance(value, dict)]

    def curves(self) -> str:
        """Loss and validation score by epoch, as a data URL."""
        figure = Figure(figsize=(9.6, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        plots.training(left, right, self.log)
        return png(figure)


def _without_paths(config: Any) -> Any:
    """A nested config with "…" in place of the machine's folders and files."""
    if not isinstance(config, dict):
        return config
    return {k: "…" if k in PATH_FIELDS and v else _without_paths(v) for k, v in config.items()}


def _plot(draw: Callable[..., object], *arrays: Any, size: tuple[float, float] = (4.6, 4.3)) -> str:
    """A plot of plots.py in its own figure, as a data URL."""
    figure = Figure(figsize=size)
    draw(figure.subplots(), *arrays)
    return png(figure)


def _confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> tuple[str, str]:
    size = (4.6, 4.3) if len(classes) == 2 else (6.2, 5.2)
    return "Confusion matrix", _plot(plots.confusion, matrix, classes, size=size)


def write_image_report(
    workdir: Path, *, title: str, notes: Sequence[str] = (), gallery: Sequence[GalleryItem] = (),
    abilities: Mapping[str, Mapping[str, Any]] | None = None, places: Mapping[str, Any] | None = None,
    data: Prepared | None = None,
) -> Path:  # fmt: skip
    """Write WORKDIR/report.html of a run on patches or whole images, and its model card; returns the report's path.

    `abilities` is from `measure.abilities`, `places` from `localise.localise`; `data` is the run's data set, None where
    it is gone.
    Reads config.json, versions.json, metrics.json, metrics.jsonl, calibration.json and predictions/.
    """
    run = _Files.read(workdir)
    names = sorted(run.metrics("test"), key=lambda name: (not name.startswith("auc"), name != "pr_auc", name))
    with matplotlib.rc_context(plots.FONT):
        sections = [
            _results(run, names),
            *(flow.sections(workdir, run.config, run.results, data) if data else [_image_counts(run.facts)]),
            _test_images(workdir, run),
            *_scores(workdir, run),
            *_places(places),
            *_gallery(gallery),
            Section("Training", figures=[("Loss and validation score by epoch", run.curves())], layout="wide",
                    note=run.which_kept),
        ]  # fmt: skip
    notes = [*_sentences(run, abilities or {}), *_alike(workdir), *notes]
    details = [("Config", json.dumps(run.config, indent=2)), ("Versions", run.versions)]
    cards = [(_words(name), *_card(run.results["test"][name])) for name in names[:4]]
    sections.append(_model_card(workdir, run, title, notes))
    write_page(workdir / "report.html", title, notes, [*sections, Section("How it was made", details=details)], cards)
    return workdir / "report.html"


def _model_card(workdir: Path, run: _Files, title: str, notes: Sequence[str]) -> Section:
    """Write the model card; the same items as a section."""
    items = model_card.rows(workdir, run.config, run.facts, run.results, json.loads(run.versions))
    model_card.write(workdir / "model_card.md", title, notes, items)
    return model_card.section(items)


def _scores(workdir: Path, run: _Files) -> list[Section]:
    """Calibration, operating point and subgroups of a run that scores images or breasts for malignant."""
    task = run.config.get("model", {}).get("task", "")
    if task not in ("whole", "two_view", "exam"):
        return []
    read = table.read_breasts if task == "exam" else table.read_images
    try:
        test = read(workdir, "test")
    except NotComparable:  # without a label there is nothing to measure
        return []
    by = {}
    for column in GROUPS:
        try:
            groups = table.parts(test, column)
        except NotComparable:  # there is no such column, or its values are no groups
            continue
        if len(groups) > 1:
            by[column] = paired.subgroups([replace(test, name="AUC")], [column])[column]
    return [*calibration_report.of_run(workdir, task), *paired.sections([], by)]


def refresh(workdir: Path) -> None:
    """Put what calibration.json says into a report and a model card that were written before."""
    page, run = workdir / "report.html", _Files.read(workdir)
    if not page.is_file():
        return
    replace_part(page, calibration_report.PART, calibration_report.of_run(workdir, run.config["model"]["task"]))
    items = model_card.rows(workdir, run.config, run.facts, run.results, json.loads(run.versions))
    replace_part(page, model_card.PART, [model_card.section(items)])
    model_card.replace(workdir / "model_card.md", items)


def _results(run: _Files, names: Sequence[str]) -> Section:
    splits = [split for split in ("val", "test") if split in run.results]
    rows = [(_words(name), *(with_counts(run.results[split].get(name)) for split in splits)) for name in names]
    note = (
        "In brackets the 95 % interval, drawn by patient; with fewer than ten examples of a class there is none. n: how"
        " many of each class were measured, in the order of the classes."
    )
    if run.config.get("monitor") != "last":
        note += " The validation split chose the epoch that was kept, so its numbers are optimistic."
    return Section("Results", header=("", *splits), rows=rows, note=note)


def _sentences(run: _Files, abilities: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the network can do and what it was not shown to do, from the test split."""
    measured = {"all other images": run.results["test"]["auc"], **abilities} if abilities else {}
    can: list[str] = []
    cannot: list[str] = []
    for others, interval in measured.items():
        if interval["value"] is None:
            continue
        text = f"{others} (AUC {with_counts(interval)})"
        (can if interval["low"] is not None and interval["low"] > 0.5 else cannot).append(text)
    sentences = []
    if can:
        sentences.append(f"On the test images it ranks malignant ones above {' and above '.join(can)}.")
    if cannot:
        sentences.append(f"It was not shown to tell malignant images from {' or from '.join(cannot)}.")
    if sentences:
        sentences.append("It marks places for a reader to look at; it is no diagnosis. Research use only.")
    return sentences


def _alike(workdir: Path) -> list[str]:
    """A sentence where the test images have nearly one score: a trunk whose features have died still has a loss, that
    of the share of malignant images, and an AUC, that of rounding."""
    frame = table.read_csv(workdir / "predictions" / "test.csv")
    if "p_malignant" not in frame or len(frame) < 2:
        return []
    low, high = np.quantile(frame["p_malignant"].map(float), (0.05, 0.95))
    odds = [np.log(max(p, TINY) / max(1 - p, TINY)) for p in (low, high)]
    if odds[1] - odds[0] >= ALIKE:
        return []
    return [
        f"It gives the test images nearly one score ({low:.3f} to {high:.3f}, the 5th to the 95th percentile): it has "
        "learned how many are malignant, and little of which. Train it with another seed or a lower learning rate."
    ]


def _places(places: Mapping[str, Any] | None) -> list[Section]:
    """Whether the maps light up at the lesions."""
    if not places:
        return []
    rates = list(next(iter(places["maps"].values()))["froc"])
    names = {"heatmap": "patch network's heatmap", "own heatmap": "this network's own heatmap"}
    rows = [
        [names.get(name, name), interval_text(cells["share"]), interval_text(cells.get("pointing")),
         *(interval_text(cells.get("froc", {}).get(rate)) for rate in rates)]
        for name, cells in places["maps"].items()
    ]  # fmt: skip
    header = ("map", "share inside", "pointing game", *(f"lesions hit at {rate} false marks" for rate in rates))
    text = f"{places['images']} malignant test images with {places['lesions']} outlined lesions,"
    text += f" {places['others']} others."
    note = (
        "Share inside: how much of the map lies inside the outlines; that of the area is chance. Pointing game: the"
        f" map's maximum lies inside one or within {places['tolerance']} pixels, half a position of the network."
        " Lesions hit (FROC): by the map's highest places, at so many marks an image elsewhere."
    )
    return [Section("Does it look at the lesion?", text, header, rows, note=note)]


def _words(name: str) -> str:
    """A metric's name in words."""
    return {"auc": "AUC", "pr_auc": "PR AUC", "auc_by_patient": "AUC by patient"}.get(
        name, name.replace("_", " ").replace("auc", "AUC")
    )


def _card(interval: Mapping[str, Any]) -> tuple[str, str]:
    """A number, and below it its interval and the counts of each class."""
    value, _, rest = with_counts(interval).partition(" ")
    return value, rest.replace("[", "" if TOO_FEW in rest else "95 % by patient: ").replace("]", "")


def _image_counts(facts: dict[str, Any]) -> Section:
    """The numbers of images by class and split, and how the images were framed."""
    classes = facts["classes"]
    rows = [
        (split, *(str(counts[name]) for name in classes), str(sum(counts.values())))
        for split, counts in facts["counts"].items()
    ]
    if framing := facts.get("framing"):
        size = f"{framing['size'][0]} × {framing['size'][1]} pixels, crop {framing['crop']}"
        framed = f"{size}; mean gray value {facts['mean']:.2f} of 255"
    else:
        framed = f"patches of {facts['patch_size']} pixels of cropped exams, on their image's scale"
    note = f"{facts['name']}, {facts['kind']}, split “{facts['split']}”, {framed}; "
    note += f"{facts['rejected']} files or rows left out."
    if pairs := facts.get("pairs"):
        note += " Breasts with both images, an example each: "
        note += ", ".join(f"{split} {used} ({alone} without left out)" for split, (used, alone) in pairs.items()) + "."
    return Section("Data", header=("split", *(name.replace("_", " ") for name in classes), "all"), rows=rows, note=note)


def _test_images(workdir: Path, run: _Files) -> Section:
    """The confusion matrix of the test images and, if there are two classes and both occur, their curves."""
    pictures = []
    frame = table.read_csv(workdir / "predictions" / "test.csv")
    frame = frame[frame["label"] != ""]
    if "p_malignant" in frame and both_classes(label := frame["label"].map(int).to_numpy()):
        score, patient = frame["p_malignant"].map(float).to_numpy(), frame["patient_id"].to_numpy(dtype=str)
        pictures.append(("ROC curve with its band", _plot(plots.roc, label, score, patient)))
        pictures.append(("Scores by class", _plot(plots.scores, label, score)))
    pictures.append(_confusion(run.results["test"]["confusion_matrix"], run.facts["classes"]))
    return Section("Test set", figures=pictures)


def _gallery(items: Sequence[GalleryItem]) -> list[Section]:
    """The images with their lesions outlined, the heatmaps beside them."""
    if not items:
        return []
    pictures = []
    for item in items:
        panels = 1 + (item.heatmap is not None)
        height, width = item.image.shape
        figure = Figure(figsize=(3 * panels, 3 * height / width), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, panels))
        plots.image(axes[0], item.image, brightest=255)
        if item.mask is not None:
            plots.outline(axes[0], item.mask, plots.OF_CLASS)
        if item.heatmap is not None:
            plots.image(axes[1], overlays.blended(item.image, item.heatmap))
        pictures.append((item.caption, png(figure, dpi=130, tight=False)))
    text = (
        "Left the mammogram with its outlined lesions (orange malignant, blue benign), right what the network takes "
        "for malignant: its own heatmap where its head is one, else its patch classifier's. A click enlarges. Images "
        "have no names here, as names may be of people: look the line up, or open the run with mammojax view."
    )
    return [Section("Surest and worst test images", text, figures=pictures, layout="gallery")]


def write_exam_report(workdir: Path, title: str, notes: Sequence[str], data: Prepared | None = None) -> Path:
    """Write WORKDIR/report.html of a run on exams (Wu et al. 2019), and its model card; returns the report's path.

    Reads config.json, versions.json, metrics.json, metrics.jsonl, calibration.json and predictions/, shows up to three
    exams if the data set still exists, and who they are if `data` is that data set. A BI-RADS run has curves and a
    confusion matrix of its categories instead of breasts.

    Raises:
        NotComparable: the predictions of breasts cannot be used, see `table.read_breasts`.
    """
    run = _Files.read(workdir)
    birads = run.config["model"]["target"] == "birads"
    with matplotlib.rc_context(plots.FONT):
        first, *others = _birads(workdir, run) if birads else _breasts(workdir, run)
        people = flow.sections(workdir, run.config, run.results, data) if data else []
        scores, exams = ([], []) if birads else (_scores(workdir, run), _exams(workdir))
        sections = [first, *people, *others, *scores, *exams, _exam_training(run), _exam_counts(run)]
    sections.append(_model_card(workdir, run, title, notes))
    details = [("Config", json.dumps(run.config, indent=2, ensure_ascii=False)), ("Versions", run.versions)]
    sections.append(Section("How it was made", details=details))
    measured = run.results.get("test_random10") or run.results["test"]
    names = [name for name in ("auc_malignant", "auc_benign", "auc", "accuracy") if name in measured]
    cards = [(_words(name), *_card(measured[name])) for name in names]
    write_page(workdir / "report.html", title, notes, sections, cards)
    return workdir / "report.html"


def _breasts(workdir: Path, run: _Files) -> list[Section]:
    """The test breasts by population, all numbers, curves and scores."""
    splits = {split: table.read_breasts(workdir, split) for split in ("test", "test_random10")}
    draws, seed = run.config.get("bootstrap_runs", RUNS), run.config["seed"]
    measured = {SPLITS[split]: measure_breasts(breasts, draws, seed) for split, breasts in splits.items()}
    breasts = splits["test_random10"]
    described = {name: table.description(breasts, name) for name in table.POPULATIONS}
    by = populations.sections({"split": "test split", "populations": described, "runs": measured, "by": {}}, "")
    by = [replace(section, header=("predictions", *section.header[1:])) for section in by]
    curves = []
    for finding in FINDINGS:
        label, score = breasts.label(finding), breasts.score(finding)
        text, pictures = "All are alike, so there is no curve.", []
        if both_classes(label):
            text = "Every labelled breast; the mean of ten windows, moved and resized at random."
            roc = _plot(plots.roc, label, score, breasts.patient, f"ROC, {finding} or not")
            pictures.append((f"ROC curve of {finding} with its band", roc))
            pictures.append((f"Scores of {finding} by class", _plot(plots.breast_scores, label, score, finding)))
        curves.append(Section(f"Test breasts, {finding} or not", text, figures=pictures))
    words = "AUC alone is the mean of the four labels' AUCs by exam, all others are by breast. Ten windows: the mean of"
    return [*by, _exam_results(run, f"{words} their predictions."), *curves]


def _birads(workdir: Path, run: _Files) -> list[Section]:
    """All numbers, and the test exams' categories: each against the others, and their confusion matrix."""
    frame = table.read_csv(workdir / "predictions" / "test.csv")
    frame = frame[frame["birads"] != ""]
    truth = np.array([BIRADS.index(category) for category in frame["birads"]], int)
    scores = frame[[f"p_{name}" for name in BIRADS]].map(float).to_numpy(np.float64)
    patient = frame["patient_id"].to_numpy(dtype=str)
    pictures = []
    for k, category in enumerate(CATEGORIES):
        if both_classes(label := (truth == k).astype(int)):
            name = f"BI-RADS {category.replace('_', ', ')}, or not"
            pictures.append((f"ROC curve of {name}", _plot(plots.roc, label, scores[:, k], patient, name)))
    matrix = metrics.confusion_matrix(truth, scores.argmax(1), len(BIRADS)).tolist()
    words = "AUC 0, 1, 2 are of that BI-RADS category against the others; AUC alone is their mean."
    text = f"{len(frame)} test exams of {len(set(patient))} patients. A category that none or all have has no curve."
    return [
        _exam_results(run, words),
        Section("BI-RADS of the test exams", text, figures=pictures),
        Section("What they were taken for", "The likeliest of the three.", figures=[_confusion(matrix, CATEGORIES)]),
    ]


def _exam_results(run: _Files, text: str) -> Section:
    """All metrics of metrics.json by split."""
    splits = [split for split in SPLITS if split in run.results]
    names = dict.fromkeys(name for split in splits for name in run.metrics(split))
    rows = []
    for name in sorted(names, key=lambda name: ("biopsied" in name, name.startswith("pr_"), name)):
        word = name.replace("pr_auc", "PR AUC").replace("auc", "AUC").replace("_", " ")
        cells = [with_counts(run.results[split].get(name)) for split in splits]
        rows.append([word.replace("biopsied", "(biopsied)"), *cells])
    text += " In brackets 95 % intervals, drawn by patient. n: negatives + positives; of AUC alone, of the rarest."
    text += " The val numbers are optimistic: they chose the epoch."
    return Section("All numbers", text, ("", *(SPLITS[split] for split in splits)), rows)


def _exam_training(run: _Files) -> Section:
    text = f"Kept: {run.kept}. " if run.kept else ""
    text += "The training loss is summed over the halves that predict apart (CC and MLO), "
    text += "the validation loss is of their averaged probabilities; both are nats an exam."
    return Section("Training", text, figures=[("Loss and validation AUC by epoch", run.curves())])


def _exam_counts(run: _Files) -> Section:
    """The numbers of exams, images and findings by split (Table I)."""
    rows, facts = [], run.facts
    for split, findings in facts.get("findings", {}).items():
        exams = run.results.get(split, {}).get("exams", "–")
        counts = [findings[name][how] for name in FINDINGS for how in ("visible", "occult")]
        rows.append([split, str(exams), str(sum(facts["counts"][split].values())), *map(str, counts)])
    columns = (f"{name} breasts, {how}" for name in FINDINGS for how in ("visible", "occult"))
    text = f"{facts['name']}, split “{facts['split']}”; {facts['rejected']} files or rows left out. "
    text += "Exams: those that were predicted. Occult findings are in no image. A breast may have both kinds."
    return Section("Data", text, ("split", "exams", "images", *columns), rows)


def _exams(workdir: Path) -> list[Section]:
    """The surest and the worst malignant breast and the worst benign one; else exams with outlined lesions."""
    try:
        exams = figures.surest_exams(workdir) or figures.outlined_exams(workdir)
    except (NotPrepared, BadDataset):  # the data set or its heatmaps are gone, the rest of the report is not
        return []
    sections = []
    for exam in exams:
        heading, *lines = exam.caption.split("\n")
        bare = replace(exam, caption="")
        pictures = [(panel, png(figures.exam_figure([bare], [panel], plots.OF_CLASS))) for panel in exam.panels]
        text = "".join(f"{line[0].upper()}{line[1:]}. " for line in lines) + "Occult findings have no outline."
        sections.append(Section(heading, text, figures=pictures))
    return sections
