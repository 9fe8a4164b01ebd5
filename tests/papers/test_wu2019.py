"""The tables of Wu et al. 2019: published cells as the paper prints them, ours as computed directly, none invented."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mammojax import metrics
from mammojax.configs import birads as birads_config
from mammojax.configs import exam as exam_config
from mammojax.configs import exam_patch
from mammojax.errors import NotComparable
from mammojax.evaluate import reader_file, readers, table
from mammojax.papers import tables, wu2019
from mammojax.papers.runs import find_runs
from mammojax.papers.tables import MISSING, members, rows_of
from mammojax.vocabulary import FINDINGS
from tests.evaluate.test_table import breast_rows, write_breasts

COUNTS = {
    split: {f: {"visible": n + k, "occult": k} for k, f in enumerate(("malignant", "benign"), start=1)}
    for split, n in (("train", 1000), ("val", 200), ("test", 30))
}
SIZES = {"CC": [2677, 1942], "MLO": [2974, 1748]}
HEATMAPS = "image+heatmaps, view-wise"
TWENTY = "image+heatmaps, all four"
JOINS = [f"exam:{join}+heatmaps" for join in ("view-wise", "image-wise", "breast-wise", "joint")]


def _run(folder: Path, row: str, seed: int = 0, data: str = "ours", **changed: Any) -> Path:
    """A run folder as a training of the paper's setting would leave it, but for `changed`."""
    birads = row.startswith("birads")
    argument = row.partition(":")[2]
    row_config = birads_config.get_config() if birads else exam_config.get_config(argument)
    config = json.loads(row_config.to_json_best_effort())
    config |= {"row": row, "seed": seed, "batch": changed.get("batch", config["batch"])}
    start = str(folder.parent / "birads")
    config["init_from"] = changed.get("init_from", "" if birads or row.endswith("-scratch") else start)
    config["data"]["shuffle_labels"] = changed.get("shuffled", False)
    config["model"]["width"] = changed.get("width", 16)
    config["exam"]["sizes"] = changed.get("sizes", SIZES)
    config["stages"]["stage1"]["learning_rate"] = changed.get("rate", 1e-5)
    if "patch_run" in changed:
        config["patch_run"] = changed["patch_run"]
    else:  # as in a run from before it was recorded
        del config["patch_run"]
    for field, new in changed.get("fields", {}).items():
        inner, (*path, last) = config, field.split(".")
        for key in path:
            inner = inner[key]
        inner[last] = new
    facts = {"name": data, "kind": "exams", "findings": changed.get("findings", COUNTS)}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": config, "facts": facts}))
    results = {"val": {"auc": {"value": changed.get("auc", 0.7), "low": 0.6, "high": 0.8}}} if birads else {}
    (folder / "metrics.json").write_text(json.dumps(results))
    if not birads:
        write_breasts(folder, changed.get("rows") or breast_rows(seed=7), changed.get("noise", seed))
    return folder


def _cells(root: Path, heading: str, *first: str) -> dict[str, str]:
    """The cells of the row that begins with `first`."""
    (section,) = [s for s in wu2019.sections(find_runs(root)) if s.heading == heading]
    (row,) = [row for row in section.rows if tuple(row[: len(first)]) == first]
    return dict(zip(section.header, row, strict=True))


def test_table_3_is_the_mean_of_the_seeds_and_their_ensemble(tmp_path: Path) -> None:
    _run(tmp_path / "birads", "birads")
    runs = [_run(tmp_path / f"r{seed}", wu2019.MODEL, seed, rows=breast_rows(160, seed=7)) for seed in (0, 1, 4)]
    _run(tmp_path / "control", wu2019.MODEL, 2, shuffled=True)
    breasts = [table.read_breasts(run, "test_random10") for run in runs]
    for population, finding in wu2019.CELLS:
        keep = [
            {(r["exam_id"], r["laterality"]): (r[finding], r[f"p_{finding}"]) for r in model.frame.to_dict("records")
             if population == "screening" or r["biopsied"] == "1"} for model in breasts
        ]  # fmt: skip
        keys = list(keep[0])
        label = [keep[0][key][0] for key in keys]
        single = [roc_auc_score(label, [each[key][1] for key in keys]) for each in keep]
        together = roc_auc_score(label, np.mean([[each[key][1] for key in keys] for each in keep], axis=0))
        cells = _cells(tmp_path, f"Table III: {population} population, ours on ours", HEATMAPS, finding)
        assert cells["single, ours"] == f"{np.mean(single):.3f}±{np.std(single, ddof=1):.3f}"
        assert re.fullmatch(rf"{together:.3f} \[0\.\d{{3}}, [01]\.\d{{3}}\]", cells["ensemble, ours"])
        assert (cells["seeds"], cells["status"]) == ("3", "run on ours")
    cells = _cells(tmp_path, "Table III: screening population, ours on ours", HEATMAPS, "malignant")
    assert (cells["single, published"], cells["5x, published"]) == ("0.886±0.003", "0.895")
    cells = _cells(tmp_path, "Table III: screening population, ours on ours", "image-only, joint", "benign")
    assert (cells["single, ours"], cells["ensemble, ours"], cells["status"]) == ("–", "–", "not run")


def test_one_seed_has_no_deviation_and_no_run_at_all_no_ours(tmp_path: Path) -> None:
    assert _cells(tmp_path, "Table III: screening population", HEATMAPS, "benign")["status"] == "not run"
    assert _cells(tmp_path, "BI-RADS pretraining", "birads")["ours"] == "–"
    _run(tmp_path / "birads", "birads")
    _run(tmp_path / "one", wu2019.MODEL)
    cells = _cells(tmp_path, "Table III: screening population, ours on ours", HEATMAPS, "benign")
    assert re.fullmatch(r"0\.\d{3}", cells["single, ours"])
    assert cells["ensemble, ours"].startswith(f"{cells['single, ours']} [")
    assert cells["command"] == "as the row above"
    above = _cells(tmp_path, "Table III: screening population, ours on ours", HEATMAPS, "malignant")
    assert "configs/exam.py:view-wise+heatmaps --config.seed=1 " in above["command"]  # seed 0 is there
    assert above["command"].endswith(", and 3 further seeds likewise")
    twenty = _cells(tmp_path, "Table III: screening population, ours on ours", TWENTY, "malignant")
    assert twenty["command"] == "computed from the rows of its members"
    assert _cells(tmp_path, "BI-RADS pretraining", "birads")["ours"] == "0.700"


@pytest.mark.parametrize(
    ("changed", "status_text"),
    [
        ({}, "run on ours"),
        ({"width": 8}, "run on ours (width 8)"),
        ({"batch": 2}, "run on ours (batch 2)"),
        ({"rate": 1e-3}, "run on ours (learning rate 0.001)"),
        ({"sizes": {"CC": [512, 384], "MLO": [2974, 1748]}}, "run on ours (CC 512x384)"),
        ({"fields": {"model.blocks": [1, 1, 1, 1, 1]}}, "run on ours (blocks [1, 1, 1, 1, 1])"),
        ({"fields": {"stages.stage1.epochs": 12}}, "run on ours (12 epochs)"),
        ({"fields": {"stages.stage1.schedule": "cosine"}}, "run on ours (schedule cosine)"),
        ({"fields": {"exam.noise": 8, "data.workers": 0}}, "run on ours (exam.noise 8)"),
        ({"patch_run": "nowhere"}, "run on ours (the patch run is not at hand)"),
        ({"init_from": ""}, "run on ours (no BI-RADS pretraining)"),
        ({"init_from": "nowhere"}, "run on ours (the run it started from is not at hand)"),
    ],
)
def test_the_status_lists_deviations_from_the_paper(tmp_path: Path, changed: dict[str, Any], status_text: str) -> None:
    _run(tmp_path / "birads", "birads")
    _run(tmp_path / "one", wu2019.MODEL, **changed)
    heading = "Table III: biopsied population, ours on ours"
    assert _cells(tmp_path, heading, HEATMAPS, "malignant")["status"] == status_text


@pytest.mark.parametrize(
    ("fields", "name", "status_text"),
    [
        ({}, "ours", "run on ours"),
        ({}, "nyu", "run on ours"),
        ({}, "other", "run on ours (patch on other)"),
        ({"model.blocks": [2, 2]}, "ours", "run on ours (patch blocks [2, 2])"),
        ({"model.pretrained": ""}, "ours", "run on ours (patch not from ImageNet weights)"),
        ({"row": "film"}, "ours", "run on ours (patch network of film)"),
    ],
)
def test_the_patch_network_counts_too(tmp_path: Path, fields: dict[str, Any], name: str, status_text: str) -> None:
    """Named in config.patch_run; the published one is the paper's own."""
    _run(tmp_path / "birads", "birads")
    net = exam_patch.get_config()
    net.model.pretrained = "densenet121.pth"
    net.update_from_flattened_dict(fields)
    config = {"row": "", "model": {"task": "exam_patch"}} if name == "nyu" else json.loads(net.to_json_best_effort())
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text(json.dumps({"config": config, "facts": {"name": name}}))
    _run(tmp_path / "one", wu2019.MODEL, patch_run=str(tmp_path / "net"))
    _run(tmp_path / "plain", "exam:view-wise", patch_run="")  # takes no heatmaps
    heading = "Table III: biopsied population, ours on ours"
    assert _cells(tmp_path, heading, HEATMAPS, "malignant")["status"] == status_text
    assert _cells(tmp_path, heading, "image-only, view-wise", "malignant")["status"] == "run on ours"


def test_pretraining_inside_the_run_is_seen(tmp_path: Path) -> None:
    _run(tmp_path / "one", wu2019.MODEL, init_from="")
    _run(tmp_path / "one" / "birads", "birads", width=8)
    heading = "Table III: biopsied population, ours on ours"
    assert _cells(tmp_path, heading, HEATMAPS, "malignant")["status"] == "run on ours (start width 8)"


def test_the_start_of_a_run_counts_too_and_settings_are_not_mixed(tmp_path: Path) -> None:
    _run(tmp_path / "birads", "birads:half", data="other", batch=8)
    _run(tmp_path / "one", wu2019.MODEL)
    heading = "Table III: screening population, ours on ours"
    status = "run on ours (start on other, start batch 8)"
    assert _cells(tmp_path, heading, HEATMAPS, "malignant")["status"] == status
    assert _cells(tmp_path, "BI-RADS pretraining", "birads:half")["status"] == "run on other (batch 8)"
    for seed in (1, 2):
        _run(tmp_path / f"small{seed}", wu2019.MODEL, seed, width=8)
    cells = _cells(tmp_path, heading, HEATMAPS, "malignant")
    assert cells["seeds"] == "1"  # the nearer to the paper, not the more seeds
    assert cells["status"] == f"{status}; others: width 8, start on other, start batch 8"
    for seed in (3, 4):
        _run(tmp_path / f"near{seed}", wu2019.MODEL, seed)
    _run(tmp_path / "twice", wu2019.MODEL, 3, noise=8)
    cells = _cells(tmp_path, heading, HEATMAPS, "malignant")
    assert cells["seeds"] == "3"
    assert cells["status"].startswith(f"{status}; left out, as their seed is there: 1; others: ")


def test_data_sets_have_their_own_tables_and_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path / "a", wu2019.MODEL, 0, data="first")
    _run(tmp_path / "b", wu2019.MODEL, 1, data="second")
    fewer = COUNTS | {"test": {f: {"visible": 5, "occult": 0} for f in FINDINGS}}
    _run(tmp_path / "c", wu2019.MODEL, 2, data="second", findings=fewer, rows=breast_rows(30, seed=3))
    for name in ("first", "second #1", "second #2"):
        cells = _cells(tmp_path, f"Table III: screening population, ours on {name}", HEATMAPS, "malignant")
        assert cells["seeds"] == "1"
        assert cells["status"].startswith(f"run on {name} (")
    tables.write("wu2019", tmp_path)
    printed = capsys.readouterr().out
    for name in ("first", "second #1", "second #2"):  # what fills one set's cells does not write over another's
        (part,) = re.findall(rf"## To fill the empty cells of {name}\n(.*?)(?:\n##|\Z)", printed, re.DOTALL)
        assert part.count("python launch.py") == 51  # a patch network, and but for one all seeds of all rows
        assert part.count(f"--workdir {shlex.quote(f'{tmp_path}/{name}/birads')}\n") == 1
    cells = _cells(tmp_path, "Table I: breasts with findings", "test", "malignant")
    assert cells["published, visible"] == "54"
    assert (cells["first, visible"], cells["first, occult"], cells["second #2, visible"]) == ("31", "1", "5")
    cells = _cells(tmp_path, "Table I: breasts with findings", "overall", "benign")
    assert (cells["published, occult"], cells["first, visible"]) == ("2,398 (43.16%)", "1,236 (99.5%)")


def test_twenty_models_and_differences_are_of_the_same_breasts(tmp_path: Path) -> None:
    heading = "Table III: screening population, ours on ours"
    _run(tmp_path / "birads", "birads")
    for k, row in enumerate(JOINS[:3]):
        _run(tmp_path / f"join{k}", row, noise=k)
    cells = _cells(tmp_path, heading, TWENTY, "malignant")
    assert (cells["5x, published"], cells["ensemble, ours"], cells["status"]) == ("0.899 (20x)", "–", "not run: joint")
    _run(tmp_path / "join3", JOINS[3], noise=3)
    _run(tmp_path / "more", JOINS[3], 1, noise=4)
    _run(tmp_path / "plain", "exam:joint", 1, noise=9)
    cells = _cells(tmp_path, heading, TWENTY, "malignant")
    assert (cells["seeds"], cells["status"]) == ("1+1+1+2", "5 of 20 models")
    every = [*(tmp_path / f"join{k}" for k in range(4)), tmp_path / "more"]
    mean = table.ensemble(table.read_all_breasts(every, "test_random10"))
    assert cells["ensemble, ours"].startswith(f"{roc_auc_score(mean.label(), mean.score()):.3f} [")
    biopsied = _cells(tmp_path, heading.replace("screening", "biopsied"), TWENTY, "benign")
    assert biopsied["5x, published"] == MISSING

    # Both have seed 1, so the heatmap run of seed 0 is not in the difference.
    first, second = table.read_all_breasts([tmp_path / "more", tmp_path / "plain"], "test_random10")
    at = table.biopsied(first)
    expected = metrics.paired_bootstrap(
        metrics.roc_auc, first.label("benign")[at], first.score("benign")[at], second.score("benign")[at],
        first.patient[at],
    )  # fmt: skip
    name = ("heatmaps - none, joint", "biopsied", "benign")
    cells = _cells(tmp_path, "Differences, ours on ours", *name)
    assert cells["ours"] == "{:+.3f} [{:+.3f}, {:+.3f}]".format(*expected)
    assert (cells["published"], cells["status"]) == ("+0.014", "1 − 1 models; run on ours")
    name = ("pretrained - scratch, image-only", "screening", "malignant")
    cells = _cells(tmp_path, "Differences, ours on ours", *name)
    assert (cells["published"], cells["ours"], cells["status"]) == ("+0.140", "–", "not run")
    assert "configs/exam.py:view-wise-scratch --config.seed=0" in cells["command"]

    write_breasts(tmp_path / "plain", breast_rows(seed=7)[:-1], 9)
    cells = _cells(tmp_path, "Differences, ours on ours", "heatmaps - none, joint", "biopsied", "benign")
    assert (cells["ours"], cells["status"]) == ("–", "not measured on the same breasts")
    write_breasts(tmp_path / "more", breast_rows(seed=7)[:-1], 9)
    cells = _cells(tmp_path, heading, "image+heatmaps, joint", "benign")
    assert cells["ensemble, ours"] == "–"
    assert "were measured on different breasts (1 stand in one alone)" in cells["status"]


def test_the_readers_are_set_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(tmp_path / "birads", "birads")
    section = wu2019.sections(find_runs(tmp_path))[-1]
    assert section.rows[0][:5] == ["model", "0.876", "–", "0.318", "–"]
    assert section.rows[1][1:4:2] == ["0.778±0.0435, 0.705–0.860", "0.364±0.0496, 0.244–0.453"]
    assert all("give --readers FILE.csv" in row[-2] for row in section.rows)
    assert all(
        row[-1].startswith("python launch.py --config configs/exam.py:view-wise+heatmaps ") for row in section.rows
    )
    calls = []

    def summary(breasts: table.Predictions, readers: list[str]) -> dict[str, dict[str, float | None]]:
        calls.append((breasts, readers))
        each = {"auc_mean": 0.71, "auc_sd": 0.02, "pr_auc_mean": 0.31, "pr_auc_sd": None}
        return {"readers": each, "hybrids": each, "model": {"auc_mean": 0.8, "pr_auc_mean": 0.4}}

    monkeypatch.setattr(reader_file, "read", lambda path: [path.name])
    monkeypatch.setattr(readers, "hybrid_summary", summary)
    assert "needs the runs of exam:view-wise+heatmaps" in wu2019.sections([], tmp_path / "r.csv")[-1].rows[0][-2]
    for seed in (0, 1):
        _run(tmp_path / f"r{seed}", wu2019.MODEL, seed)
    rows = wu2019.sections(find_runs(tmp_path), tmp_path / "r.csv")[-1].rows
    assert rows[0][1:] == ["0.876", "0.800", "0.318", "0.400", "1 reader, 2 models; run on ours", "–"]
    assert [rows[2][2], rows[2][4]] == ["0.710±0.0200", "0.310"]
    expected = table.ensemble(table.read_all_breasts([tmp_path / "r0", tmp_path / "r1"], "test_random10"))
    assert (calls[0][0].score() == expected.score()).all()
    assert calls[0][1] == ["r.csv"]

    def other(breasts: table.Predictions, readers: list[str]) -> None:
        raise NotComparable("they read other breasts.")

    monkeypatch.setattr(readers, "hybrid_summary", other)
    rows = wu2019.sections(find_runs(tmp_path), tmp_path / "r.csv")[-1].rows
    assert (rows[0][2], rows[0][-2]) == ("–", "they read other breasts.")


def test_published_numbers_are_those_of_the_papers_text(shared: Path) -> None:
    text = (shared / "seeds" / "004_72ee2a50dc9530c2.txt").read_text()
    lines = text.splitlines()
    printed = []
    for line in lines[lines.index(next(x for x in lines if x.startswith("image-only\tview-wise\t"))) :][:10]:
        cells = line.split("\t")
        printed.append((cells[1], [tuple(float(number) for number in cell.split("±")) for cell in cells[2:]]))
    published = rows_of("wu2019")
    cells_of: dict[str, dict[tuple[str, str], tables.Row]] = {}
    for row in published["Table III"]:
        cells_of.setdefault(row.label, {})[row.population, row.finding] = row
    twenty = cells_of.pop(TWENTY)
    assert members(twenty["screening", "malignant"].row) == JOINS
    for (name, ours_by), (label, cells) in zip(cells_of.items(), printed, strict=True):
        assert name.split(", ")[1] == label
        ours: list[tuple[float, ...]] = []
        for population in table.POPULATIONS:
            both = [ours_by[population, finding] for finding in FINDINGS]
            ours += [tuple(map(float, row.published.split("±"))) for row in both]
            ours += [(float(row.second),) for row in both]
        assert ours == cells, name
    assert [name.split(", ")[0] for name in cells_of] == ["image-only"] * 5 + ["image+heatmaps"] * 5
    splits = {"train": "training", "val": "validation", "test": "test", "overall": "overall"}
    for split, name in splits.items():
        (line,) = [line for line in lines if line.startswith(f"{name}\t")]
        cells = [cell for row in published["Table I"] if row.label == split for cell in (row.published, row.second)]
        numbers = [int(n.replace(",", "")) for n in re.findall(r"(?<=\t)[\d,]+", line)]
        assert numbers == [int(cell.split(" ")[0].replace(",", "")) for cell in cells]
        assert re.findall(r"[\d.]+%", line) == re.findall(r"[\d.]+%", " ".join(cells))
    study = {row.label: (row.published, row.second) for row in published["Reader study"]}
    (auc, auc_low, auc_high), (area, area_low, area_high) = (re.split(r", |–", cell) for cell in study["readers"])
    (auc, auc_sd), (area, area_sd) = auc.split("±"), area.split("±")
    (both, both_sd), (both_area, both_area_sd) = (cell.split("±") for cell in study["hybrids"])
    configs = exam_config.get_config("view-wise+heatmaps"), birads_config.get_config()
    sizes = configs[0].exam.sizes
    for sentence in (
        f"an AUC of {twenty['screening', 'benign'].second.split(' ')[0]} on benign/not benign prediction, and "
        f"{twenty['screening', 'malignant'].second.split(' ')[0]} on malignant/not malignant",
        "401 breasts: 339 with benign findings, 45 with malignant findings, and 17 with both",
        f"an averaged validation AUC of {published['BI-RADS pretraining'][0].published}",
        "an AUC of {} and PRAUC of {}".format(*study["model"]),
        f"from {auc_low} to {auc_high} (mean: {auc}, std: {auc_sd})",
        f"from {area_low} to {area_high} (mean: {area}, std: {area_sd})",
        f"an average AUC of {both} (std: {both_sd}) and an average PRAUC of {both_area} (std: {both_area_sd})",
        "{}×{} pixels for CC views and {}×{} pixels for MLO views".format(*sizes["CC"], *sizes["MLO"]),
        f"a minibatch size of {configs[1].batch} instead of {configs[0].batch}",
    ):
        assert re.sub(r"\W+", " ", sentence) in re.sub(r"\W+", " ", text), sentence


def test_the_printed_tables_the_page_and_its_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "my runs"
    _run(root / "birads", "birads")
    _run(root / "a<b>", wu2019.MODEL, 3)
    page = tmp_path / "tables.html"
    tables.write("wu2019", root, page)
    printed, written = capsys.readouterr().out, page.read_text()
    assert "birads.py" not in printed  # it is run already
    assert printed.count("python launch.py --config configs/exam.py:") == 49
    assert f"{wu2019.MODEL.replace(':', '.py:')} --config.seed=3 " not in printed
    assert (
        f"configs/exam.py:joint+heatmaps --config.seed=4 --config.init_from='{root}/birads' "
        f"--config.patch_run='{root}/exam_patch' --workdir '{root}/exam_joint+heatmaps_4'\n" in printed
    )
    assert f"configs/exam.py:view-wise-scratch --config.seed=0 --workdir '{root}/exam_view-wise-scratch_0'\n" in printed
    for text in (printed, written):
        assert "0.886±0.003" in text
        assert "footnote 6" in text
    cells = _cells(root, "Table III: screening population, ours on ours", HEATMAPS, "malignant")
    assert cells["single, ours"] in written
    assert "configs/exam.py:joint+heatmaps" in written
    assert max(map(len, printed.partition("## To fill")[0].splitlines())) <= 120
    empty = wu2019.commands([], [], Path("runs"))
    assert empty[0] == "python launch.py --config configs/exam_patch.py --workdir runs/exam_patch"
    assert empty[1] == "python launch.py --config configs/birads.py --workdir runs/birads"
    assert len(empty) == 52
    assert "--config.init_from=runs/birads " in empty[2]
