"""Published one-view and two-view files as run folders: strict, with their preprocessing, DICOM and PNG alike."""

import csv
import json
import os
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pydicom
import pytest
from ml_collections import ConfigDict
from pydicom.dataset import FileMetaDataset

import mammojax
from mammojax import cli, configs, convert, run, train_patients
from mammojax.errors import BadCheckpoint, BadConfig
from mammojax.evaluate.predict import predict
from mammojax.models import classifiers
from mammojax.models.published import FOLDER
from mammojax.train.checkpoint import read_config
from tests import petrini_files

PAIR = "Calc-Test_P_00127_RIGHT"
TWO_VIEWS = {
    "2024-10-01-14h36m_50ep_best_model_AUC_08643_Best_2-Views-CBIS-EFB3-CVUBP.pt": 0.1214,
    "2024-08-07-18h35m_50ep_best_model_AUC_08655_ConvNext_VinDr_Collab.pt": 0.7873,
}
"""The probability of malignancy of the right breast of P_00127, as the authors' README gave it."""


@pytest.fixture(scope="module")
def two_view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("petrini")
    petrini_files.write(folder / "net.safetensors", "efficientnet_b0", "two_view")
    contents = convert.petrini(folder / "net.safetensors", folder / "run")
    assert contents.startswith("network of two views on efficientnet_b0, as published for CBIS-DDSM, official training")
    assert "under several names" in contents
    assert "not used: 1 tensors of the single-view head" in contents
    return folder / "run"


@pytest.fixture(scope="module")
def images(shared: Path) -> dict[str, np.ndarray]:
    """Both views of a real breast, uint16 [1152, 896]."""
    folder = shared / "golden" / "petrini" / "images"
    return {v: cv2.imread(str(folder / f"{PAIR}_{v}.png"), cv2.IMREAD_UNCHANGED) for v in ("CC", "MLO")}


def write_dicom(path: Path, pixels: np.ndarray, view: str) -> None:
    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.3"
    header.PatientID, header.StudyInstanceUID, header.Modality = "nobody", "1.2", "MG"
    header.ImageLaterality, header.ViewPosition = "R", view
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 0
    header.add_new("PixelData", "OW", pixels.tobytes())
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    header.save_as(path, enforce_file_format=True)


def score(two_view: Path, folder: Path) -> float:
    assert predict([two_view], folder, folder.parent / f"{folder.name}_out") == 0
    with (folder.parent / f"{folder.name}_out" / "breasts.csv").open() as file:
        (row,) = csv.DictReader(file)
    return float(row["p_malignant"])


@pytest.mark.slow
def test_a_mammogram_scores_alike_as_dicom_and_as_png(
    two_view: Path, images: dict[str, np.ndarray], tmp_path: Path
) -> None:
    for folder in ("png", "dicom", "large", "small"):
        (tmp_path / folder).mkdir()
    for view, pixels in images.items():
        cv2.imwrite(str(tmp_path / "png" / f"{PAIR}_{view}.png"), pixels)
        write_dicom(tmp_path / "dicom" / f"{view}.dcm", pixels, view)
        detector = cv2.resize(pixels, (2080, 2700), interpolation=cv2.INTER_CUBIC)
        write_dicom(tmp_path / "large" / f"{view}.dcm", detector, view)
        small = cv2.resize(detector, (896, 1152), interpolation=cv2.INTER_AREA)  # as the published images were made
        cv2.imwrite(str(tmp_path / "small" / f"{PAIR}_{view}.png"), small)
    png, dicom, large, small_png = (score(two_view, tmp_path / name) for name in ("png", "dicom", "large", "small"))
    assert abs(png - dicom) < 1e-6
    assert abs(large - small_png) < 1e-3
    assert 0 < png < 1

    model = mammojax.restore(two_view)
    network = classifiers.build(model.config.model)
    x = {
        v: jnp.asarray((i.astype(np.float32) - 13369) / 65535)[None, :, :, None].repeat(3, -1)
        for v, i in images.items()
    }
    logits, _ = jax.jit(network.apply)(model.variables, x)
    np.testing.assert_allclose(png, jax.nn.softmax(logits)[0, 1], atol=1e-5)


def test_the_preprocessing_stands_in_the_run(two_view: Path) -> None:
    config, facts = read_config(two_view)
    assert (config.model.normalise, config.model.task, config.model.pair) == ("unit", "two_view", "views")
    assert (facts["mean"] * 257, facts["framing"]["size"], facts["framing"]["crop"]) == (13369, [1152, 896], "none")


def test_a_run_starts_from_it_but_not_on_its_own_patients(two_view: Path) -> None:
    config = configs.get("two_view", "2022")
    config.init_from, config.model.width = str(two_view), 8
    config.data.update(source="films", name="manifest", split="all")
    run.check(config)
    config.model.width = 32
    with pytest.raises(BadConfig, match=r"config\.model\.width is 32, but the weights of"):
        run.check(config)
    whole = configs.get("whole_resnet", "mbconv,mbconv")
    whole.init_from, whole.data.source = str(two_view), "films"
    with pytest.raises(BadConfig, match='is a run of task "two_view"'):
        run.check(whole)

    class Prepared:
        def table(self, split: str) -> list[dict[str, str]]:
            return []

    train_patients.refuse([two_view], config, Prepared())
    config.data.name = "cbis_ddsm"
    with pytest.raises(BadCheckpoint, match="have learned from the official training patients of this data set"):
        train_patients.refuse([two_view], config, Prepared())


def test_a_whole_image_run_adopts_the_scale_of_its_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    petrini_files.write(tmp_path / "net.safetensors", "efficientnet_b3", "whole")
    assert cli.main(["convert", "petrini", str(tmp_path / "net.safetensors"), "--out", str(tmp_path / "run")]) == 0
    assert "network of one view on efficientnet_b3" in capsys.readouterr().out
    whole = configs.get("whole_resnet", "mbconv,mbconv")
    whole.model.update(trunk="efficientnet_b3", width=8)
    whole.init_from, whole.data.source = str(tmp_path / "run"), "films"
    settled: ConfigDict = run.check(whole)
    assert (settled.model.normalise, settled.model.padding, settled.model.bn_epsilon) == ("unit", "symmetric", 1e-5)
    assert "adopts from" in capsys.readouterr().out


def test_what_is_no_such_file_is_refused(two_view: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.pt").write_bytes(b"no weights")
    assert cli.main(["convert", "petrini", str(tmp_path / "net.pt"), "--out", str(tmp_path / "run")]) == 2
    assert "net.pt" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    before = json.loads((two_view / "config.json").read_text())
    with pytest.raises(BadCheckpoint, match="is a run folder already"):
        convert.petrini(two_view.parent / "net.safetensors", two_view)
    assert json.loads((two_view / "config.json").read_text()) == before


@pytest.mark.slow
@pytest.mark.parametrize(("file", "probability"), TWO_VIEWS.items())
def test_the_published_values(file: str, probability: float, images: dict[str, np.ndarray], tmp_path: Path) -> None:
    weights = Path(os.environ.get(FOLDER, "")) / file
    if not os.environ.get(FOLDER) or not weights.is_file():
        pytest.skip(f"{FOLDER} names no folder with {file}")
    convert.petrini(weights, tmp_path / "run")
    np.testing.assert_allclose(mammojax.restore(tmp_path / "run").predict(images), [probability], atol=1e-4)
