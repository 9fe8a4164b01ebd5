"""The papers' tables: values in their cells, nothing invented, no run called what it is not."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mammojax import cli, configs, metrics
from mammojax.evaluate import table as predictions
from mammojax.evaluate.text_table import WIDTH
from mammojax.papers import settings, shen2019
from mammojax.papers.runs import TRANSFERRED, find_runs
from mammojax.papers.tables import MISSING, rows_of
from tests.evaluate.test_table import write_predictions

HEAD = "512-512-1024x2,512-512-1024x2"
PLAIN = f"whole_resnet:{HEAD}"


def row_config(row: str) -> dict[str, Any]:
    """The config of a paper's row as a run saves it."""
    kind, _, argument = row.partition(":")
    config = importlib.import_module(f"mammojax.configs.{kind}").get_config(argument)
    return json.loads(config.to_json_best_effort())


def _facts(data: str = "cbis_ddsm", split: str = "shen", size: Any = (1152, 896), crop: str = "none") -> dict[str, Any]:
    return {"name": data, "split": split, "framing": {"size": list(size), "crop": crop, "keep_aspect": False}}


def _run(folder: Path, row: str, value: float, *, measure: str = "auc", noise: int = 0, **changed: Any) -> Path:
    """A run folder as a paper's run would leave it, but for `changed`; `fields` are any of its config."""
    config = row_config(row)
    pretrained = changed.get("pretrained", "imagenet.h5")
    if row.startswith("patch"):
        config["model"]["pretrained"] = "" if row.endswith("-random") else pretrained
    elif "init_from" not in changed:  # trained inside the run
        patch = {"config": config.get("patch") or row_config("patch_resnet:s10"), "facts": _facts()}
        patch["config"]["model"]["pretrained"] = pretrained
        (folder / "patch").mkdir(parents=True)
        (folder / "patch" / "config.json").write_text(json.dumps(patch))
    config |= {"seed": changed.get("seed", 0), "init_from": str(changed.get("init_from", ""))}
    config["batch"] = changed.get("batch", config["batch"])
    config["model"]["width"] = changed.get("width", 64)
    config["data"] |= {"patients": changed.get("patients", 0), "shuffle_labels": changed.get("shuffled", False)}
    if "epochs" in changed:
        for key, stage in config["stages"].items():
            stage["epochs"] = changed["epochs"] if key == "stage1" else 0
    for field, new in changed.get("fields", {}).items():
        inner, (*path, last) = config, field.split(".")
        for key in path:
            inner = inner[key]
        inner[last] = new
    facts = _facts(**{k: v for k, v in changed.items() if k in ("data", "split", "size", "crop")})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"config": config, "facts": facts}))
    cell = {"value": value, "low": value - 0.05, "high": value + 0.05}
    results = {"test": {measure: cell}}
    if measure == "auc":
        results["test_flips"] = {"auc": {k: v + 0.01 for k, v in cell.items()}}
        labels = {split: np.arange(40) // 2 % 2 for split in ("val", "test")}
        rng = np.random.default_rng(noise)
        scores = {s: labels[s.split("_")[0]] * 0.5 + rng.random(40) for s in ("val", "test", "val_flips", "test_flips")}
        write_predictions(folder, scores, labels)
    (folder / "metrics.json").write_text(json.dumps(results))
    log = [{"kind": "val", "best": k in (0, 2)} for k in range(5)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, log)))
    return folder


def _cells(root: Path, label: str, version: str = shen2019.SCIREP) -> dict[str, str]:
    for section in shen2019.sections(find_runs(root)):
        if section.heading.startswith(version):
            for row in section.rows:
                if row[0] == label:
                    return dict(zip(section.header, row, strict=True))
    raise AssertionError(label)


def test_a_run_on_the_papers_data_fills_its_row_in_both_versions(tmp_path: Path) -> None:
    _run(tmp_path / "a", PLAIN, 0.851)
    cells = _cells(tmp_path, "S10, [512-512-1024]x2 twice")
    assert (cells["published"], cells["ours"], cells["status"]) == ("0.86", "0.851 [0.801, 0.901]", "run")
    assert (cells["ours, flips"], cells["best epoch"]) == ("0.861 [0.811, 0.911]", "3")
    cells = _cells(tmp_path, "Resnet50, [512-512-1024]x2 twice", shen2019.ARXIV)
    assert cells["published"] == "0.86; flips 0.88; epoch 25"
    assert cells["ours"] == "0.851 [0.801, 0.901]"
    assert _cells(tmp_path, "S10, [256-256-256]x1, [128-128-128]x1")["published"] == MISSING
    assert _cells(tmp_path, "S10, [256-256-256]x1, [128-128-128]x1")["status"] == "not run"


@pytest.mark.parametrize(
    ("changed", "status_text"),
    [
        ({"data": "phantom"}, "run on phantom"),
        ({"size": [288, 224]}, "288x224"),
        ({"width": 16}, "width 16"),
        ({"epochs": 3}, "3 epochs"),
        ({"batch": 8}, "batch 8"),
        ({"crop": "breast"}, "cropped"),
        ({"split": "official"}, "split official"),
        ({"pretrained": ""}, "not from ImageNet weights"),
        ({"fields": {"model.head": "8-8-16x1"}}, "run (head 8-8-16x1)"),
        ({"fields": {"model.blocks": [1, 1, 1, 1]}}, "run (blocks [1, 1, 1, 1])"),
        ({"fields": {"stages.stage2.learning_rate": 1e-3}}, "run (stage2 learning rate 0.001)"),
        ({"fields": {"augment.enabled": False}}, "run (augment.enabled false)"),
        (
            {"fields": {"stages.stage1.epochs": 25, "stages.stage2.epochs": 25}},
            "run (stage1 25 epochs, stage2 25 epochs)",
        ),
    ],
)
def test_the_status_lists_deviations_from_the_paper(tmp_path: Path, changed: dict[str, Any], status_text: str) -> None:
    _run(tmp_path / "a", PLAIN, 0.99, **changed)
    status = _cells(tmp_path, "S10, [512-512-1024]x2 twice")["status"]
    assert status_text in status
    assert status != "run"


@pytest.mark.parametrize(
    ("row", "changed", "status_text"),
    [
        ("patch_resnet:s10", {}, "run"),
        ("patch_resnet:s10", {"data": "phantom"}, "run (start on phantom)"),
        ("patch_resnet:s10", {"pretrained": ""}, "run (not from ImageNet weights)"),
        ("patch_resnet:s10-random", {}, "run (started from patch_resnet:s10-random)"),
        ("patch_resnet:s1", {}, "run (started from patch_resnet:s1)"),
    ],
)
def test_the_start_of_a_run_counts_too(tmp_path: Path, row: str, changed: dict[str, Any], status_text: str) -> None:
    patch = _run(tmp_path / "patch", row, 0.9, measure="accuracy", **changed)
    whole = _run(tmp_path / "whole", PLAIN, 0.86, init_from=patch)
    assert _cells(tmp_path, "S10, [512-512-1024]x2 twice")["status"] == status_text
    _run(tmp_path / "transfer", "inbreast:resnet-resnet", 0.9, data="inbreast", init_from=whole)
    assert _cells(tmp_path, "Resnet50, all patients", shen2019.ARXIV)["status"] == status_text
    (patch / "config.json").rename(patch / "gone.json")
    status_text = "run (the run it started from is not at hand)"
    assert _cells(tmp_path, "S10, [512-512-1024]x2 twice")["status"] == status_text


def test_fields_that_do_not_change_the_result_leave_the_status_run(tmp_path: Path) -> None:
    fields = {"data.workers": 0, "data.data_dir": "/x", "data.source": "/y", "data.prepare": True, "gallery": 0,
              "checkpoint_steps": 1, "eval_batch": 1, "extend": True, "data.seed": 3, "patch.batch": 7}  # fmt: skip
    _run(tmp_path / "a", PLAIN, 0.851, fields=fields)
    assert _cells(tmp_path, "S10, [512-512-1024]x2 twice")["status"] == "run"


def test_the_published_epochs_of_both_fully_connected_rows(shared: Path) -> None:
    text = (shared / "seeds" / "003_d779424a3d08af15.txt").read_text()
    rows = rows_of("shen2019")[f"{shen2019.ARXIV}: Table 2: whole images"]
    epochs = {row.label.split(",")[0]: row for row in rows if "max pool" in row.label}
    assert {net: row.epoch for net, row in epochs.items()} == {"Resnet50": "28", "VGG16": "26"}
    for net, row in epochs.items():
        assert f"{net} 5x5 64 32 {row.published} NA {row.epoch}" in text


def test_seeds_are_averaged_but_data_sets_are_not(tmp_path: Path) -> None:
    for seed, value in enumerate((0.80, 0.84, 0.88)):
        _run(tmp_path / str(seed), PLAIN, value, seed=seed)
    _run(tmp_path / "easy", PLAIN, 1.0, data="phantom")
    _run(tmp_path / "control", PLAIN, 0.5, shuffled=True)
    cells = _cells(tmp_path, "S10, [512-512-1024]x2 twice")
    assert cells["ours"] == "0.840, 0.800 to 0.880 in 3 runs"
    assert cells["data, seeds"] == "cbis_ddsm, seeds 0, 1, 2"
    assert cells["status"] == "run; others: run on phantom"


def test_differences_and_ensembles_are_of_the_same_images(tmp_path: Path) -> None:
    for k, row in enumerate(TRANSFERRED.values()):
        _run(tmp_path / f"best{k}", row, 0.85, noise=k)
    _run(tmp_path / "heat", f"whole_resnet:heatmap7,{HEAD}", 0.80, noise=9)
    section = shen2019.sections(find_runs(tmp_path))[-1]
    rows = {row[0]: row for row in section.rows}
    number = r"[+-]0\.\d{3} \[[+-]0\.\d{3}, [+-]0\.\d{3}\]"
    a, b = (predictions.read_images(tmp_path / name, "test") for name in ("heat", "best0"))
    expected = metrics.paired_bootstrap(metrics.roc_auc, a.label(), a.score(), b.score(), a.patient)
    assert rows["heatmap before the blocks - without"][3] == "{:+.3f} [{:+.3f}, {:+.3f}]".format(*expected)
    assert re.fullmatch(number, rows["heatmap before the blocks - without"][3])
    assert re.fullmatch(number, rows["two views - one, VGG-VGG"][3])
    assert rows["S1g - S10 patches"][3:] == ["–", "–", "not run"]
    cells = _cells(tmp_path, "ensemble of the four best, flips averaged")
    assert cells["published"] == "flips 0.91"
    assert re.match(r"0\.\d{3} \[", cells["ours, flips"])
    assert cells["status"] == "run"
    # A run on other data, found first, is not what the paper's difference is set beside.
    _run(tmp_path / "a_phantom", PLAIN, 0.99, noise=5, data="phantom")
    assert {row[0]: row for row in shen2019.sections(find_runs(tmp_path))[-1].rows} == rows
    path = tmp_path / "best1" / "predictions" / "test_flips.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    cells = _cells(tmp_path, "ensemble of the four best, flips averaged")
    assert (cells["ours, flips"], cells["status"]) == ("–", "not the same test images")


def test_a_difference_of_several_seeds_is_taken_seed_by_seed(tmp_path: Path) -> None:
    heatmap = f"whole_resnet:heatmap7,{HEAD}"
    for seed in (1, 2):
        _run(tmp_path / f"plain{seed}", PLAIN, 0.85, noise=seed, seed=seed)
        _run(tmp_path / f"heat{3 - seed}", heatmap, 0.80, noise=seed, seed=seed)  # the same scores as its plain run
    rows = {row[0]: row for row in shen2019.sections(find_runs(tmp_path))[-1].rows}
    expected = ["+0.000, +0.000 to +0.000 in 2 runs", "cbis_ddsm, seeds 1, 2", "run"]
    assert rows["heatmap before the blocks - without"][3:] == expected


def test_label_efficiency_rows_differ_by_patients(tmp_path: Path) -> None:
    _run(tmp_path / "all", "inbreast:resnet-resnet", 0.9, data="inbreast")
    _run(tmp_path / "few", "inbreast:resnet-resnet", 0.7, data="inbreast", patients=20)
    assert _cells(tmp_path, "Resnet50, 20 patients", shen2019.ARXIV)["ours"].startswith("0.700")
    assert _cells(tmp_path, "Resnet50, all patients", shen2019.ARXIV)["ours"].startswith("0.900")
    assert _cells(tmp_path, "Resnet50, 30 patients", shen2019.ARXIV)["status"] == "not run"


def test_published_numbers_stand_in_the_papers(shared: Path) -> None:
    texts = {
        shen2019.SCIREP: (shared / "seeds" / "000_03d7bf621fe23dc1.txt").read_text(),
        shen2019.ARXIV: "\n".join(  # each of the two copies lacks something
            (shared / "seeds" / name).read_text() for name in ("002_8810c5599af5f501.txt", "003_d779424a3d08af15.txt")
        ),
    }
    tables = rows_of("shen2019")
    differences = tables.pop("Differences")
    assert sum(map(len, tables.values())) == 89
    for heading, rows in tables.items():
        text = texts[heading.split(":")[0]].replace("−", "-")
        for row in rows:
            for value in (row.published, row.second, row.epoch):
                if value not in ("", MISSING, "NA"):
                    assert row.where
                    for number in re.findall(r"[\d.]+", value):
                        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", text), (row.label, number)
    text = texts[shen2019.SCIREP].replace("−", "-")
    assert len(differences) == 12
    for difference in differences:
        assert all(number in text for number in re.findall(r"-?[\d.]+", difference.published.replace("–", " ")))


def test_the_command_and_its_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path / "runs" / "a<b>", PLAIN, 0.851)
    page = tmp_path / "tables.html"
    assert cli.main(["reproduce", "shen2019", "--runs", str(tmp_path / "runs"), "--output", str(page)]) == 0
    printed = capsys.readouterr().out
    assert f"configs/{PLAIN.replace(':', '.py:')} " not in printed  # it is run already
    assert "python launch.py --config configs/patch_vgg.py:s10 " in printed
    assert "0.851 [0.801, 0.901]" in page.read_text()
    here = str(tmp_path / "runs")  # what is started from is the run there is, else the one that the commands make
    assert f"--workdir {here}/inbreast_resnet-resnet --config.init_from='{here}/a<b>'\n" in printed
    assert f"--config.init_from={here}/patch_resnet_s10\n" in printed
    assert f"mammojax two-step --run '{here}/a<b>' --patch-run {here}/patch_resnet_s10 " in printed
    assert "a<b>" not in page.read_text()
    assert "a&lt;b&gt;" in page.read_text()
    lines = printed.partition("## To fill")[0].splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "(c) text, heatmap" in printed
    (tmp_path / "runs" / "a<b>" / "metrics.json").write_text('{"test": ')
    assert cli.main(["reproduce", "shen2019", "--runs", str(tmp_path / "runs")]) == 2
    assert "is not JSON; finish that run again" in capsys.readouterr().err
    assert cli.main(["reproduce", "shen2019", "--runs", str(tmp_path / "none")]) == 2
    assert "name the one that holds the run folders" in capsys.readouterr().err


def test_every_command_names_a_config_that_exists() -> None:
    count = 0
    for line in shen2019.commands([]):
        if match := re.match(r"python launch.py --config configs/(\w+)\.py:(\S+) ", line):
            config = configs.get(match[1], match[2])
            assert config.row.split(":", 1)[1] == match[2]
            assert settings.differences(json.loads(config.to_json_best_effort()), config.row) == []
            count += 1
    assert count > 25
