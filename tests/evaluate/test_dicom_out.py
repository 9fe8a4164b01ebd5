"""`mammojax predict --format dicom`: pydicom and highdicom read it back, and nobody is named unless asked for."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mammojax import cli
from mammojax.evaluate import dicom_out, table
from tests import untrained

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: `pip install 'mammojax[dicom-out]'`")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A mammogram with everything that a header says of a person."""
    pixels = np.random.default_rng(0).integers(0, 4096, (160, 120), np.uint16)
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID, data.Modality = "1.2.840.10008.5.1.4.1.1.1.2", "MG"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Doe^Jane", "MRN7", "19500102", "F"
    data.StudyDate, data.StudyTime, data.AccessionNumber, data.StudyID = "20200304", "101112", "ACC9", "S1"
    data.StudyDescription, data.ReferringPhysicianName = "Screening Doe", "House^G"
    data.ImageLaterality, data.ViewPosition, data.PatientOrientation = "L", "CC", ["A", "R"]
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = pixels.tobytes()
    (tmp_path / "in").mkdir()
    data.save_as(tmp_path / "in" / "film.dcm", enforce_file_format=True)
    return tmp_path / "in"


def _predict(run: Path, source: Path, out: Path, *more: str) -> int:
    command = ["predict", "--run", str(run), "--input", str(source), "--output", str(out), "--format", "dicom"]
    return cli.main([*command, *more])


def _referenced(report: pydicom.Dataset) -> str:
    """The UID of the mammogram that a report is of."""
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    (image,) = series.ReferencedSOPSequence
    return image.ReferencedSOPInstanceUID


def test_overlay_and_report_are_read_back(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = untrained.whole(tmp_path / "run")
    for out, more in (("out", ()), ("again", ()), ("kept", ("--keep-identity",))):
        if out == "again":  # the same key gives the same ids
            (tmp_path / out).mkdir()
            (tmp_path / out / ".id_key").write_bytes((tmp_path / "out" / ".id_key").read_bytes())
        assert _predict(run, film, tmp_path / out, *more) == 0
    score = float(table.read_csv(tmp_path / "out" / "predictions.csv")["p_malignant"][0])
    picture = pydicom.dcmread(tmp_path / "out" / "dicom" / "1_overlay.dcm")
    assert picture.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    colours = picture.pixel_array[-160:]  # below the strip of text
    assert colours.shape == (160, 120, 3)
    stored = pydicom.dcmread(film / "film.dcm").pixel_array
    assert np.corrcoef(colours[..., 2].ravel(), stored.ravel())[0, 1] > 0.5  # turned or moved it would be 0
    assert picture.pixel_array[:-160].max() == 255
    report = highdicom.sr.srread(tmp_path / "out" / "dicom" / "1_report.dcm")
    (whole,) = report.content.get_image_measurement_groups()
    (measured,) = whole.get_measurements()
    assert measured.name.meaning == "Probability of cancer"
    assert measured.value == pytest.approx(100 * score, rel=1e-5)
    (place,) = report.content.get_planar_roi_measurement_groups()
    outline = place.roi.value
    assert outline.shape[1] == 2
    assert (outline >= 0).all()
    assert (outline.max(axis=0) < (120, 160)).all()
    (highest,) = place.get_measurements()
    assert 0 < highest.value <= 100
    again = highdicom.sr.srread(tmp_path / "again" / "dicom" / "1_report.dcm")
    kept = highdicom.sr.srread(tmp_path / "kept" / "dicom" / "1_report.dcm")
    assert (report.PatientID, report.StudyInstanceUID) == (again.PatientID, again.StudyInstanceUID)
    assert report.StudyInstanceUID == picture.StudyInstanceUID != "1.2.3.1"
    assert (kept.PatientName, kept.PatientID, kept.StudyInstanceUID) == ("Doe^Jane", "MRN7", "1.2.3.1")
    assert _referenced(report) == _referenced(again) != "1.2.3.3"
    assert _referenced(kept) == "1.2.3.3"
    assert (kept.StudyDate, kept.AccessionNumber) == ("20200304", "ACC9")
    for made in (tmp_path / "out" / "dicom").iterdir():
        contents = made.read_bytes()
        for secret in (b"Doe", b"MRN7", b"19500102", b"20200304", b"ACC9", b"House", b"1.2.3.", b"film"):
            assert secret not in contents, (made.name, secret)
        assert b"Research use only" in contents
        assert pydicom.dcmread(made).PatientIdentityRemoved == "YES"


def test_what_cannot_be_written_is_said(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = untrained.whole(tmp_path / "run")
    command = ["predict", "--run", str(run), "--input", str(film), "--output", str(tmp_path / "o"), "--keep-identity"]
    assert cli.main(command) == 2
    assert "--keep-identity is of --format dicom" in capsys.readouterr().err
    assert _predict(untrained.pairs(tmp_path / "pairs"), film, tmp_path / "o") == 2
    assert "has no heatmap" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_runs_of_several_views_report_the_breast_s_score_for_each_image(film: Path, tmp_path: Path) -> None:
    header = pydicom.dcmread(film / "film.dcm")
    for view, uid in (("MLO", "1.2.3.4"), ("CC", "1.2.3.3")):
        header.ViewPosition, header.SOPInstanceUID = view, uid
        header.save_as(film / f"{view}.dcm", enforce_file_format=True)
    (film / "film.dcm").unlink()
    pairs = untrained.pairs(tmp_path / "pairs")
    shutil.copytree(untrained.whole(tmp_path / "whole") / "patch", pairs / "patch")
    kinds = {"pairs": (pairs, ["1_CC", "1_MLO"]), "exams": (untrained.exams(tmp_path / "e"), ["1_L-CC", "1_L-MLO"])}
    for name, (run, images) in kinds.items():
        out = tmp_path / name
        assert _predict(run, film, out) == 0
        score = float(table.read_csv(out / "breasts.csv")["p_malignant"][0])
        pictures = [f"{image}_overlay.dcm" for image in images] * (name == "pairs")  # these exams have no heatmaps
        reports = [f"{image}_report.dcm" for image in images]
        assert sorted(path.name for path in (out / "dicom").iterdir()) == sorted([*pictures, *reports])
        for file in reports:
            report = highdicom.sr.srread(out / "dicom" / file)
            (whole,) = report.content.get_image_measurement_groups()
            assert whole.tracking_identifier == "breast"
            assert whole.get_measurements()[0].value == pytest.approx(100 * score, rel=1e-5)
            assert len(report.content.get_planar_roi_measurement_groups()) == (name == "pairs")
            assert report.PatientID not in ("", "MRN7")


def test_the_region_is_the_part_around_the_highest_value() -> None:
    whole = np.zeros((50, 40), np.float32)
    whole[10:20, 5:15], whole[12, 7], whole[30:45, 20:35] = 0.6, 0.9, 0.5
    outline = dicom_out.region(whole)
    assert outline is not None
    assert outline.min(axis=0).tolist() == [5, 10]
    assert outline.max(axis=0).tolist() == [14, 19]
    assert (outline[0] == outline[-1]).all()
    assert dicom_out.region(np.zeros((5, 5), np.float32)) is None
