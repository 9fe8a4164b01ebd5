"""Exams of a prepared data set: labels by breast, what an epoch holds, windows, heatmap channels, patches."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammojax.data import dataset, exams, pipeline
from mammojax.data.breast import Crop, crop
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.data.window import best_centre
from mammojax.errors import BadDataset
from mammojax.vocabulary import BIRADS, VIEWS

SIZES = {"CC": (120, 80), "MLO": (128, 80)}
MANIFEST = """image,patient_id,exam_id,laterality,view,pathology,mask,birads,biopsied,visible,split,vendor
{0}_L_CC.png,p0,e0,L,CC,MALIGNANT,m.png,0,,1,train,A
{0}_L_CC.png,p0,e0,L,CC,BENIGN,,0,,0,train,
{0}_L_MLO.png,p0,e0,L,MLO,NORMAL,,0,,,train,A
{0}_R_CC.png,p0,e0,R,CC,NORMAL,,2,,,train,A
{0}_R_MLO.png,p0,e0,R,MLO,NORMAL,,2,,,train,A
{0}_R_MLO2.png,p0,e0,R,MLO,NORMAL,,2,,,train,A
{1}_L_CC.png,p1,e1,L,CC,NORMAL,,1,,,train,B
{1}_R_CC.png,p1,e1,R,CC,NORMAL,,1,,,train,B
{1}_L_MLO.png,p1,e1,L,MLO,NORMAL,,1,,,train,B
{1}_R_MLO.png,p1,e1,R,MLO,NORMAL,,1,,,train,B
{2}_L_CC.png,p2,e2,L,CC,,,4,1,,train,B
{2}_R_CC.png,p2,e2,R,CC,NORMAL,,1,,,train,B
{3}_L_CC.png,p3,e3,L,CC,NORMAL,,1,,,val,B
{4}_L_CC.png,+p4,=e4,L,CC,NORMAL,,1,,,test,B
"""


def _breast(seed: int, faces_right: bool) -> np.ndarray:
    y, x = np.mgrid[:140, :100]
    rng = np.random.default_rng(seed)
    pixels = np.where(np.hypot((y - 70) / 60, x / 80) < 1, rng.integers(9000, 20000, (140, 100)), 0).astype(np.uint16)
    return pixels if faces_right else np.ascontiguousarray(pixels[:, ::-1])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dataset.Prepared:
    folder = tmp_path_factory.mktemp("exams")
    text = MANIFEST.format(*"abcde")
    for k, row in enumerate(csv.DictReader(text.splitlines())):
        cv2.imwrite(str(folder / row["image"]), _breast(k, row["laterality"] == "L"))
    mask = np.zeros((140, 100), np.uint8)
    mask[60:70, 30:50] = 255
    cv2.imwrite(str(folder / "m.png"), mask)
    (folder / "manifest.csv").write_text(text)
    (path,) = prepare(Recipe("manifest", "exams", folder / "data", folder, iterations=4))
    return dataset.Prepared(path)


def test_ids_that_are_formulas_are_texts_in_the_index(data: dataset.Prepared) -> None:
    assert "test,e_L_CC.png,'+p4,'=e4,L,CC" in (data.path / "index.csv").read_text()
    (exam,) = exams.exams_of(data, "test")
    assert (exam.patient_id, exam.exam_id) == ("+p4", "=e4")


def test_labels_of_breasts_are_any_row_of_theirs(data: dataset.Prepared) -> None:
    e0, e1, e2 = exams.exams_of(data, "train")
    assert e0.label.tolist() == [1, 0, 1, 0]  # benign and malignant in the left breast
    assert {view: len(rows) for view, rows in e0.images.items()} == {"L-CC": 1, "L-MLO": 1, "R-CC": 1, "R-MLO": 2}
    assert (e0.biopsied("L"), e0.biopsied("R")) == (True, False)  # its labels say so
    assert e1.label.tolist() == [0, 0, 0, 0]
    assert e2.label.tolist() == [-1, 0, -1, 0]  # an empty pathology is unknown, not normal
    assert e2.biopsied("L")  # its column says so
    assert [BIRADS[e.birads] if e.birads >= 0 else None for e in (e0, e1, e2)] == ["0", "1", None]
    assert e0.columns["L"]["vendor"] == "A"
    assert data.facts["findings"]["train"] == {
        "malignant": {"visible": 1, "occult": 0}, "benign": {"visible": 0, "occult": 1}
    }  # fmt: skip


def test_exams_that_are_all_alike_or_a_split_without_any_are_refused(data: dataset.Prepared) -> None:
    e0, e1, _ = exams.exams_of(data, "train")
    exams.refuse_one_class([e0, e1], data, "cancer", ("CC", "MLO"))
    with pytest.raises(BadDataset, match="the 2 training exams have the same four labels"):
        exams.refuse_one_class([e1, e1], data, "cancer", ("CC", "MLO"))
    with pytest.raises(BadDataset, match="the 1 training exams have one BI-RADS category"):
        exams.refuse_one_class([e1], data, "birads", ("CC", "MLO"))
    with pytest.raises(BadDataset, match=r"exams of the val split 1 have a label .* an image of MLO"):
        exams.refuse_one_class([e0, e1], data, "cancer", ("MLO",))


def test_images_face_right_with_their_masks(data: dataset.Prepared) -> None:
    source, table = data.source("train"), data.table("train")
    for index, row in enumerate(table):
        image = source[index]["image"][..., 0]
        half = image.shape[1] // 2
        assert (image[:, :half] > 0).mean() > (image[:, half:] > 0).mean(), row["image"]
    index = next(k for k, row in enumerate(table) if row["image"] == "a_L_CC.png")
    marked = source[index]["masks"][..., 0]
    assert set(np.unique(marked)) == {0, 2}
    assert (marked == 2).sum() == 200


class FortyExams:
    """Made-up facts of 40 exams of which the first `biopsied` were biopsied; no images."""

    facts = {"crop": {"threshold": 0}}  # noqa: RUF012

    def __init__(self, biopsied: int) -> None:
        self._rows = []
        for k in range(40):
            facts = {"benign": int(k < biopsied), "malignant": 0, "reach": 60, "lowest": 90, "columns": {"birads": "1"}}
            for view in VIEWS:
                names = (f"{k}_{view}", f"p{k}", f"e{k}", view[0], view[2:])
                self._rows.append(dict(zip(dataset.COLUMNS, (*names, "0"), strict=True)) | {"facts": json.dumps(facts)})

    def table(self, split: str) -> list[dict[str, str]]:
        return self._rows

    def source(self, split: str, masks: bool = True) -> list[dict[str, np.ndarray]]:
        return []

    def windows(self, batch: int, target: str = "cancer") -> exams.Windows:
        return exams.Windows(
            self, SIZES, target=target, angles=("CC", "MLO"), noise=2, batch=batch, epochs=30, seed=1  # type: ignore[arg-type]
        )  # fmt: skip


def test_an_epoch_is_all_biopsied_exams_and_as_many_others() -> None:
    """Wu et al., section IV-A.1, on made-up facts of 40 exams of which 6 were biopsied."""
    windows = FortyExams(6).windows(batch=4)
    assert windows.per_epoch == 12
    drawn: set[int] = set()
    orders = [windows.chosen(epoch).tolist() for epoch in range(30)]
    for order in orders:
        assert sorted(k for k in order if k < 6) == list(range(6))
        assert len({k for k in order if k >= 6}) == 6
        drawn |= set(order)
    assert len(drawn) == 40  # every other exam comes sooner or later
    assert orders[0] != orders[1]
    assert FortyExams(6).windows(batch=4).chosen(7).tolist() == orders[7]


@pytest.mark.parametrize("batch", [5, 7, 16])
def test_the_last_batch_of_an_epoch_is_filled_with_exams_without_a_biopsy(batch: int) -> None:
    """6 biopsied and 6 other exams are no multiple of the batch: none of the 12 is dropped, others are added."""
    windows = FortyExams(6).windows(batch=batch)
    assert windows.per_epoch == {5: 15, 7: 14, 16: 16}[batch]
    for epoch in range(30):
        order = windows.chosen(epoch).tolist()
        assert len(order) == windows.per_epoch
        assert set(range(6)) <= set(order)
        assert len(set(order)) == len(order)
        assert sum(k >= 6 for k in order) == windows.per_epoch - 6


@pytest.mark.parametrize(("biopsied", "target"), [(30, "cancer"), (40, "cancer"), (6, "birads")])
def test_the_last_batch_of_an_epoch_repeats_exams_where_there_are_no_others(biopsied: int, target: str) -> None:
    """All 40 exams are in the epoch; 48 is the next multiple of 12, so 8 are there twice."""
    windows = FortyExams(biopsied).windows(batch=12, target=target)
    assert windows.per_epoch == 48
    twice = [np.flatnonzero(np.bincount(windows.chosen(epoch), minlength=40) == 2).tolist() for epoch in range(30)]
    assert all(set(windows.chosen(epoch).tolist()) == set(range(40)) for epoch in range(30))
    assert all(len(repeated) == 8 for repeated in twice)
    assert twice[0] != twice[1]


def test_windows_are_their_number_s_alone(data: dataset.Prepared) -> None:
    def windows(target: str = "cancer", noise: int = 4) -> exams.Windows:
        return exams.Windows(
            data, SIZES, target=target, angles=("CC", "MLO"), noise=noise, batch=2, epochs=3, seed=0
        )  # fmt: skip

    training = windows()
    assert [e.exam_id for e in training.exams] == ["e0", "e1"]
    assert training.left_out == 1
    late = training[5]
    np.testing.assert_array_equal(windows()[5]["image"]["L-CC"], late["image"]["L-CC"])
    assert {view: x.shape for view, x in late["image"].items()} == {view: (*SIZES[view[2:]], 1) for view in VIEWS}
    assert abs(late["image"]["R-CC"].mean()) < 1e-5
    assert late["label"].dtype == np.int32
    same = [k for k in range(6) if training[k]["image_id"] == late["image_id"]]
    assert len(same) == 3  # an epoch has it once
    assert not np.array_equal(training[same[0]]["image"]["L-CC"], training[same[1]]["image"]["L-CC"])
    assert sorted(int(windows("birads")[k]["label"][0]) for k in (0, 1)) == [0, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_the_windows_in_order_whatever_the_workers(data: dataset.Prepared, workers: int) -> None:
    windows = exams.Windows(
        data, SIZES, target="cancer", angles=("CC", "MLO"), noise=4, batch=2, epochs=3, seed=0
    )  # fmt: skip
    batches = pipeline.exam_batches(windows, batch=2, workers=workers)
    assert batches.steps_per_epoch == 1
    next(batches)
    state = batches.get_state()
    later = pipeline.exam_batches(windows, batch=2, workers=workers)
    later.set_state(state)
    for stream in (batches, later):
        batch = next(stream)
        assert batch["image_id"] == [windows[2]["image_id"], windows[3]["image_id"]]
        np.testing.assert_array_equal(batch["image"]["R-MLO"][1], windows[3]["image"]["R-MLO"])
        assert batch["label"].shape == (2, 4)
        stream.close()


def _film(background: float) -> np.ndarray:
    """`_breast` on a background, 0 … 1, and the armpit's tissue above it."""
    return (background * 65535 + (0.8 - background) * _breast(1, True)).astype(np.uint16)


def test_each_image_is_prepared_by_its_own_background(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the crop took for tissue is recorded, and taken by the window's centre and the patch sampler too."""
    rows = ["image,patient_id,exam_id,laterality,view,pathology,split"]
    levels = {"a": 0.0, "b": 0.1, "c": 0.2}
    for name, level in levels.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), _film(level))
        rows.append(f"{name}.png,p{name},e{name},L,CC,NORMAL,train")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    recipe = Recipe("manifest", "exams", tmp_path / "data", tmp_path, iterations=4, patch_size=8)
    whole, patches = prepare(recipe, ("exams", "exam_patches"))
    assert "keeps" not in capsys.readouterr().err
    data = dataset.Prepared(whole)
    assert data.facts["crop"] == {"threshold": None, "iterations": 4}
    size = {"CC": (60, 40)}
    for index, (row, level) in enumerate(zip(data.table("train"), levels.values(), strict=True)):
        threshold = json.loads(row["facts"])["threshold"]
        assert threshold == pytest.approx(level * 65535, abs=1500)
        breast_crop = crop(_film(level), True, threshold, 4)
        pixels = breast_crop.image(_film(level))
        assert pixels.shape[0] < 135
        np.testing.assert_array_equal(exams.Images(data, "train", size).pixels(index), pixels)
        assert exams.Images(data, "train", size).view(index).centre == best_centre(
            pixels, breast_crop, "CC", size["CC"]
        )
    for example in dataset.Prepared(patches).source("train"):
        level = levels[example["image_id"].decode()[0]]
        assert example["image"].max() > level * 65535 + 2000  # none of background alone
    (wide,) = prepare(replace(recipe, threshold=0))
    assert dataset.Prepared(wide).facts["crop"]["threshold"] == 0
    printed = capsys.readouterr().err
    assert "b.png: the crop keeps 100% of the image (tissue: above 0)" in printed
    assert "a.png" not in printed


def test_a_data_set_of_one_threshold_for_all_is_read_as_before() -> None:
    """Its images' facts do not repeat the threshold."""
    pixels = _film(0.2)
    pixels[:60, 80:] = 20000  # tissue beside the upper half only

    class Data:
        facts = {"crop": {"threshold": 14000, "iterations": 4}}  # noqa: RUF012

        def table(self, split: str) -> list[dict[str, str]]:
            facts = {"reach": 80, "lowest": 130}
            return [dict.fromkeys(dataset.COLUMNS, "") | {"view": "CC", "facts": json.dumps(facts)}]

        def source(self, split: str, masks: bool = True) -> list[dict[str, np.ndarray]]:
            return [{"image": pixels[..., None]}]

    size = (60, 100)
    points = ((0, 140, 0, 100), ((0, 0), 80), (130, (0, 0)), 0)
    (centre,) = {exams.Images(Data(), "train", {"CC": size}).view(0).centre}  # type: ignore[arg-type]
    assert centre == best_centre(pixels, Crop(*points, threshold=14000), "CC", size)
    assert centre != best_centre(pixels, Crop(*points), "CC", size)


def test_heatmap_channels_come_in_the_order_asked_for(data: dataset.Prepared, tmp_path: Path) -> None:
    images = exams.Images(data, "train", SIZES)
    shape = images.pixels(0).shape
    heatmaps = np.random.default_rng(0).random((*shape, 2), np.float32)
    (tmp_path / "train").mkdir()
    exams.write_heatmaps(tmp_path / "train" / "0.png", heatmaps)
    assert np.abs(exams.read_heatmaps(tmp_path / "train" / "0.png") - heatmaps).max() <= 1 / 131070 + 1e-7
    view = exams.Images(data, "train", SIZES, (tmp_path, [1, 0])).view(0)
    for k, channel in enumerate((images.pixels(0), *np.moveaxis(heatmaps[..., ::-1] * 65535, -1, 0))):
        np.testing.assert_allclose(view.channels[k], channel, atol=0.51)
    with pytest.raises(BadDataset, match="heatmaps"):
        exams.Images(data, "train", SIZES, (tmp_path, [0, 1])).view(1)
