"""What a run says of itself, item by item, and what it does not: a table of the report, and the model card beside it.

The items are those of TRIPOD+AI (Collins et al. 2024, "TRIPOD+AI statement", BMJ 385:e078378), by its numbers, as far
as a run can know them; CLAIM (Mongan et al. 2020, Radiology: Artificial Intelligence 2:e200029) asks for the same facts
of images. What no file of the run holds is "not reported": it has to be written by who publishes it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mammojax.evaluate import table
from mammojax.evaluate.calibration import Calibration
from mammojax.evaluate.report import Section, with_counts

NOT = "not reported"
PART = "reported"
HEADER = ("item", "of TRIPOD+AI", "this run")
MOST_WORDS = 10  # different words of a column; more are ids or free text
_BALANCE = ("the loss takes classes as they come", "the loss weighs classes alike")
_INSIDE = {"exam": "birads", "two_view": "single_view"}  # by task, the run inside a config that gives the weights
_WORDS = {"birads": "BI-RADS", "single_view": "single-view", "patch": "patch"}
UNKNOWN = (
    ("Intended use", "3b", "research; use in patients was not studied"),
    ("Dates of the images", "5b", NOT),
    ("Hospitals, makers, eligibility", "6a, 6b", NOT),
)
LEFT_TO_AUTHORS = (
    ("Reason for the size of the study", "10", NOT),
    ("Subgroups and fairness", "14", f"{NOT}; measure with mammojax compare --by COLUMN"),
    ("Test on another hospital's patients", "16", f"{NOT}; measure with mammojax matrix"),
    ("Ethical approval", "17", NOT),
    ("Funding, interests, protocol, registration", "18a – 18d", NOT),
)


def rows(
    workdir: Path, config: Mapping[str, Any], facts: Mapping[str, Any], results: Mapping[str, Any],
    versions: Mapping[str, Any],
) -> list[tuple[str, str, str]]:  # fmt: skip
    """The items of HEADER.

    Args:
        workdir: the run folder, of whose predictions of the test split patients and sources of labels are read.
        config, facts: of config.json; `facts` are of the prepared data.
        results: metrics.json.
        versions: versions.json.
    """
    model, name = config.get("model", {}), facts["name"]
    counts = "; ".join(
        f"{split}: {', '.join(f'{n} {word}'.replace('_', ' ') for word, n in of.items())}"
        for split, of in facts["counts"].items()
    )
    frame = table.read_csv(workdir / "predictions" / "test.csv")
    patients = len(set(frame["patient_id"])) if "patient_id" in frame else 0
    framing = facts.get("framing")
    framed = (
        f"{framing['size'][0]} × {framing['size'][1]} pixels, crop {framing['crop']}" if framing else "cropped exams"
    )
    network = ", ".join(str(model[field]) for field in ("task", "trunk", "join", "head") if model.get(field))
    stages = [config["stages"][key] for key in sorted(config.get("stages", {}))]
    learned = "; ".join(f"{s['name']}: {s['epochs']} epochs at {s['learning_rate']:g}" for s in stages)
    auc = results.get("test", {}).get("auc")
    package = versions.get("packages", {}).get("mammojax", "")
    return [
        UNKNOWN[0],
        ("Source of the images", "5a", f"{name}, split “{facts['split']}”, by patient"),
        *UNKNOWN[1:],
        ("Flow of the images", "20a", f"{facts['rejected']} files or rows left out; used, {counts}"),
        ("Patients of the test split", "20a", str(patients) if patients else NOT),
        ("What labels come from", "8a", _words(frame, "label_source")),
        ("Breast density of the test split", "20b", _words(frame, "density")),
        ("Preparation of the images", "7", framed),
        ("Images that could not be used", "11", f"left out and listed with the reason: {facts['rejected']}"),
        ("Network", "12c, 22", network or NOT),
        ("First weights", "12c", _start(config)),
        ("Training", "12c", learned or NOT),
        ("Choice of the epoch", "12c", _choice(config)),
        ("Balance of classes", "13", _BALANCE[bool(config.get("balance_loss"))]),
        ("AUC on the test split, 95 % interval by patient", "23a", with_counts(auc) if auc else NOT),
        ("Calibration", "12e", _calibration(workdir)),
        *LEFT_TO_AUTHORS,
        ("Code", "18f", f"mammojax {package}, Apache-2.0" if package else NOT),
    ]  # fmt: skip


def _words(frame: Any, column: str) -> str:
    """The words of a column of the test split, with their counts; never text that could be anybody's."""
    if column not in frame or not (filled := frame[column][frame[column] != ""]).size:
        return NOT
    counted = filled.value_counts(sort=False).sort_index()
    if len(counted) > MOST_WORDS:
        return f"{len(counted)} different values"
    return ", ".join(f"{word} {n}" for word, n in counted.items())


def _calibration(workdir: Path) -> str:
    fitted = Calibration.load(workdir)
    if fitted is None:
        return f"{NOT}; fit it with mammojax calibrate"
    text = f"temperature {fitted.temperature:.2f}, fitted on {fitted.fitted_on}"
    further = "".join(f", or from {point.threshold:.4f} on" for point in fitted.further)
    return text + ("" if fitted.threshold is None else f"; recall from {fitted.threshold:.4f} on{further}")


def _start(config: Mapping[str, Any]) -> str:
    """Where the weights come from: the runs inside the config that are trained before it, or an earlier run, and
    whether the first of them has published weights."""
    chain, published, inner = [], False, config
    while inner:
        model = inner.get("model", {})
        published = published or bool(model.get("pretrained"))
        inside = _INSIDE.get(model.get("task", ""), "patch")
        if inner.get("init_from"):
            chain.append("an earlier run")
            break
        inner = inner.get(inside) or {}
        chain += [f"its own {_WORDS[inside]} run"] if inner else []
    return ", that from ".join([*chain, *(["published weights"] if published else [])]) or "random"


def _choice(config: Mapping[str, Any]) -> str:
    monitor = config.get("monitor")
    return "the last one" if monitor == "last" else "on the validation split" + (f", by {monitor}" if monitor else "")


def section(items: Sequence[tuple[str, str, str]]) -> Section:
    """The items as a part of the report."""
    text = "After TRIPOD+AI; what the run cannot know is for its authors to write. The same table is in model_card.md."
    return Section("What is reported, and what is not", text, HEADER, items, words=True, part=PART)


def write(path: Path, title: str, notes: Sequence[str], items: Sequence[tuple[str, str, str]]) -> None:
    """Write the items as a page of Markdown.

    Args:
        path: of the model card.
        title, notes: of the report.
        items: see `rows`.
    """
    lines = [
        f"# {_cell(title)}",
        "",
        "Research use only; not a medical device.",
        "",
        *(f"- {_cell(n)}" for n in notes),
        "",
    ]
    path.write_text("\n".join([*lines, *_lines(items)]) + "\n", encoding="utf-8")


def replace(path: Path, items: Sequence[tuple[str, str, str]]) -> None:
    """Put items into a written model card in place of those that it has; nothing where there is none."""
    if path.is_file():
        before, _, _ = path.read_text(encoding="utf-8").partition(_row(HEADER))
        path.write_text(before + "\n".join(_lines(items)) + "\n", encoding="utf-8")


def _lines(items: Sequence[tuple[str, str, str]]) -> list[str]:
    return [_row(cells) for cells in (HEADER, ("---",) * len(HEADER), *items)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    """Text that stays text in Markdown."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
