"""A two-view run end to end on the phantom, patches → single view → two views, and what can be done with it."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from tensorflow_datasets.core.features import Image

import mammojax
from mammojax import cli, configs, finetune, run
from mammojax.data import dataset, phantom
from mammojax.data.pairs import Pairs
from mammojax.errors import BadCheckpoint, BadConfig
from mammojax.evaluate import compare, figures, localise, run_report, table
from mammojax.evaluate.calibration import Calibration
from mammojax.evaluate.predict import predict
from mammojax.tasks import images, pairs
from mammojax.train.checkpoint import load_best, patch_run, read_config


def tiny(name: str = "two_view") -> ConfigDict:
    """The quickstart of views with small images and a small trunk, whose steps compile in seconds."""
    config = configs.get(name, "quickstart")
    config.phantom.patients = 24
    config.data.update(size=(96, 64), patch_size=32, workers=1)
    single = config.get("single_view", config)
    parts = [config, single, single.patch] if name == "two_view" else [config, config.patch]
    for part in parts:
        part.model.update(trunk="resnet50", width=4, blocks=(1, 1, 1, 1), normalise="unit")
        part.checkpoint_steps, part.bootstrap_runs, part.gallery = 100, 20, 1
        for stage in part.stages.values():
            stage.epochs = 1
    for part in parts[:-1]:
        part.batch, part.eval_batch = 4, 4
        part.stages = ConfigDict({"stage1": part.stages.stage2})
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("views") / "two"
    config = tiny()
    config.shifts = True
    config.data.data_dir = str(workdir.parent / "data")
    run.run(config, workdir)
    return workdir


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_chain_patch_single_view_two_views(finished: Path) -> None:
    assert (finished / "single_view" / "patch" / "report.html").is_file()
    assert (finished / "report.html").is_file()
    assert patch_run(finished, "") == finished / "single_view" / "patch"
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {"val", "test", "test_flips", "test_shifts9"} <= set(metrics)
    assert (metrics["test"]["breasts"], metrics["test"]["breasts_left_out"]) == (4, 0)
    scored = rows(finished / "predictions" / "test.csv")
    assert tuple(scored[0]) == (*table.PAIR_COLUMNS, "density", "label_source")
    assert {row["views"] for row in scored} == {"CC+MLO"}
    saved = json.loads((finished / "config.json").read_text())
    assert saved["facts"]["pairs"]["test"] == [4, 0]
    patients = (finished / "train_patients.txt").read_text()
    assert patients == (finished / "single_view" / "train_patients.txt").read_text()


@pytest.mark.slow
def test_a_run_starts_with_the_trunk_of_its_single_view_run(finished: Path, tmp_path: Path) -> None:
    config = tiny()
    config.data.data_dir = str(finished.parent / "data")
    config.init_from = str(finished / "single_view")
    config.stages.stage1.update(learning_rate=0.0, fix_statistics=(".*",))
    run.run(config, tmp_path / "again")
    single, two = load_best(finished / "single_view"), load_best(tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, single["params"]["trunk"], two["params"]["trunk"])
    jax.tree.map(np.testing.assert_array_equal, single["batch_stats"]["trunk"], two["batch_stats"]["trunk"])
    config.model.width = 8
    with pytest.raises(BadConfig, match=r"config\.model\.width is 8, but the weights of"):
        run.check(config)


def test_predictions_of_files_are_those_of_the_data_set(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    breasts = Pairs(dataset.of_run(finished), "test", "views")
    for k, views in ((0, ("CC", "MLO")), (1, ("CC",))):  # of the second breast one view alone
        side = {"L": "LEFT", "R": "RIGHT"}[breasts.pairs[k].laterality]
        for view in views:
            cv2.imwrite(str(folder / f"film-{k}_{side}_{view}.png"), breasts[k]["image"][view])
    assert predict([finished], folder, tmp_path / "out", drawn="heatmap") == 0
    drawn = {path.name: cv2.imread(str(path)) for path in (tmp_path / "out" / "overlays").iterdir()}
    assert set(drawn) == {"1_CC.png", "1_MLO.png"}
    assert all((np.ptp(picture, axis=-1) > 50).any() for picture in drawn.values())  # colours over the gray
    (breast,) = rows(tmp_path / "out" / "breasts.csv")
    assert (breast["exam_id"], breast["laterality"]) == ("film_0", breasts.pairs[0].laterality)
    expected = rows(finished / "predictions" / "test.csv")[0]
    np.testing.assert_allclose(float(breast["p_malignant"]), float(expected["p_malignant"]), rtol=1e-5)
    assert breast["label"] == ""
    (rejected,) = rows(tmp_path / "out" / "rejected.csv")
    assert rejected["file"].startswith("film-1_")
    assert "needs both" in rejected["reason"]
    lines = [f"{path.name},{'MALIGNANT' if 'CC' in path.name else 'BENIGN'},p" for path in folder.glob("film-0*")]
    (folder / "manifest.csv").write_text("\n".join(["image,pathology,patient_id", *lines]) + "\n")
    assert predict([finished], folder / "manifest.csv", tmp_path / "labelled") == 0
    (labelled,) = rows(tmp_path / "labelled" / "breasts.csv")
    assert (labelled["patient_id"], labelled["label"], labelled["p_malignant"]) == ("p", "1", breast["p_malignant"])
    with pytest.raises(BadCheckpoint, match="give only such runs, or only whole-image ones"):
        predict([finished, finished / "single_view"], folder, tmp_path / "mixed")


def test_a_calibrated_run_gives_probabilities_of_breasts(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("single_view")))
    rng = np.random.default_rng(0)
    for split in ("val", "test"):
        label = rng.random(120) < 0.4
        score = 1 / (1 + np.exp(-(2 * rng.standard_normal(120) + 2 * label - 1)))
        breasts = [
            [f"{split}{k // 2}", f"{split}{k // 2}", "LR"[k % 2], "CC+MLO", int(label[k]), score[k]] for k in range(120)
        ]
        frame = pd.DataFrame(breasts, columns=list(table.PAIR_COLUMNS))
        frame.to_csv(folder / "predictions" / f"{split}_flips.csv", index=False)
    assert cli.main(["calibrate", str(folder), "--sensitivity", "0.9"]) == 0
    fitted = Calibration.load(folder)
    trained = [pair.label for pair in Pairs(dataset.of_run(finished), "train", "views").pairs]
    assert fitted.trained_prior == pytest.approx(np.mean(trained))
    breast = Pairs(dataset.of_run(finished), "test", "views")[0]
    for view, image in breast["image"].items():
        cv2.imwrite(str(tmp_path / f"film_LEFT_{view}.png"), image)
    assert predict([folder], tmp_path, tmp_path / "out", "flips") == 0
    (row,) = rows(tmp_path / "out" / "breasts.csv")
    score = float(row["p_malignant"])
    assert float(row["p_calibrated"]) == fitted.probability(np.array([score]))[0]
    assert row["decision"] == ("recall" if score >= fitted.threshold else "no recall")


def test_restored_it_takes_two_images(finished: Path) -> None:
    model = mammojax.restore(finished)
    example = Pairs(dataset.of_run(finished), "test", "views")[0]
    images = {view: image[..., 0] for view, image in example["image"].items()}
    for tta, name in (("none", "test"), ("flips", "test_flips"), ("shifts9", "test_shifts9")):
        expected = float(rows(finished / "predictions" / f"{name}.csv")[0]["p_malignant"])
        np.testing.assert_allclose(model.predict([images], tta), [expected], rtol=1e-5)
    np.testing.assert_allclose(model.predict(images), model.predict([images]))
    with pytest.raises(ValueError, match=r"a two-view network takes {'CC': image, 'MLO': image}"):
        model.predict(images["CC"])


def test_it_is_compared_by_breast_with_the_mean_of_two_views(finished: Path) -> None:
    result = compare.compare([finished / "single_view", finished])
    assert (result["unit"], result["images"]) == ("breast", 4)
    single = {
        (r["patient_id"], r["laterality"]): [] for r in rows(finished / "single_view" / "predictions" / "test.csv")
    }
    for row in rows(finished / "single_view" / "predictions" / "test.csv"):
        single[row["patient_id"], row["laterality"]].append(float(row["p_malignant"]))
    means, two = table.read_all_images([finished / "single_view", finished], "test")
    keys = zip(means.frame["patient_id"], means.frame["laterality"], strict=True)
    np.testing.assert_allclose(means.score(), [np.mean(single[key]) for key in keys])
    assert list(two.frame["patient_id"]) == list(means.frame["patient_id"])


def test_the_breasts_of_some_patients_are_chosen(finished: Path) -> None:
    data = dataset.of_run(finished)
    rows_of_split = Pairs(data, "test", "views").table
    names = [f"{row['patient_id']}\t{row['exam_id']}\t{row['laterality']}" for row in rows_of_split]
    scored = {"scores": np.arange(len(names)), "label": np.zeros(len(names)), "image_id": names}
    chosen = pairs.only(scored, data, "test", {rows_of_split[1]["patient_id"]})
    assert [rows_of_split[k]["patient_id"] for k in chosen["scores"]] == [rows_of_split[1]["patient_id"]]


def test_localise_counts_each_view(finished: Path) -> None:
    result: dict[str, Any] = localise.localise(finished, limit=1, runs=10)
    assert (result["images"], result["others"]) == (2, 2)
    assert set(result["maps"]) == {"saliency", "saliency, random weights", "heatmap", "area"}


def test_the_report_reads_each_test_mask_once(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = read_config(finished)[0], dataset.of_run(finished)
    source = Pairs(data, "test", "views")
    config.gallery = 0  # its few images are read again
    read: Counter[str] = Counter()
    maps: list[str] = []
    decode = Image.decode_example_np

    def counted(self: Image, example: bytes) -> np.ndarray:
        read[np.dtype(self.np_dtype).name] += 1
        return np.asarray(decode(self, example))

    monkeypatch.setattr(Image, "decode_example_np", counted)
    monkeypatch.setattr(run_report, "write_image_report", lambda *_, **parts: maps.extend(parts["places"]["maps"]))
    predictions = {"label": data.labels("test")[[pair.images[0] for pair in source.pairs]],
                   "scores": np.full((len(source), 2), 0.5)}  # fmt: skip
    images.write_report(config, finished, data, source, source.table, predictions, "", [])
    assert read["uint8"] == 2 * len(source)  # masks, of two views each
    assert 0 < read["uint16"] <= 2 * len(source)
    assert "heatmap" in maps


def test_a_saliency_figure_shows_both_images_of_a_breast(finished: Path) -> None:
    figure = figures.saliency(finished)
    titles = [axes.get_title() for axes in figure.axes]
    assert {title.split(":")[0] for title in titles} == {"CC", "MLO"}
    assert len(titles) % 2 == 0
    with pytest.raises(BadCheckpoint, match="is a two-view run"):
        figures.heatmaps(finished)


@pytest.mark.slow
def test_a_run_is_fine_tuned_on_other_breasts(finished: Path, tmp_path: Path) -> None:
    phantom.write_phantom(tmp_path / "films", patients=12, seed=7, image_size=(192, 128), both_breasts=True)
    data_dir, films = str(tmp_path / "data"), pd.read_csv(tmp_path / "films" / "manifest.csv", dtype=str)
    films.assign(clinic="side " + films["laterality"]).to_csv(tmp_path / "films" / "manifest.csv", index=False)
    result = finetune.finetune(finished, tmp_path / "films", tmp_path / "run", epochs=1, data_dir=data_dir)
    (row,) = result["rows"]
    tested = rows(tmp_path / "run" / "predictions" / "test_flips.csv")
    assert sum(row["n"]) == len(tested)
    assert {breast["views"] for breast in tested} == {"CC+MLO"}
    assert all(breast["clinic"] == f"side {breast['laterality']}" for breast in tested)
    assert set(table.parts(table.read_images(tmp_path / "run", "test_flips"), "clinic")) == {"side L", "side R"}
    saved, _ = read_config(tmp_path / "run")
    theirs, _ = read_config(finished)
    assert (saved.model.task, saved.init_from) == ("two_view", str(finished))
    assert saved.model.to_dict() == theirs.model.to_dict()
    assert "single_view" not in saved


def test_heads_that_are_heatmaps_are_refused() -> None:
    config = tiny()
    config.model.head = "heatmap4,max"
    with pytest.raises(BadConfig, match="a two-view network joins two"):
        run.check(config)
