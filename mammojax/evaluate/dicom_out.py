"""A mammogram's score and heatmap as DICOM: a Secondary Capture of the overlay, a TID 1500 report of score and region.

Both are de-identified unless the identity is kept: the patient's name and dates are empty, ids are keyed hashes, and
so are the UIDs, the same in every prediction with the same key. highdicom writes them (Bridge et al. 2022).
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mammojax.data.identity import hashed
from mammojax.errors import BadCheckpoint
from mammojax.evaluate import overlays, provenance

LONGEST = 2048  # pixels of the longer side of a Secondary Capture's mammogram, at most
REGION = 0.5  # of the map's highest value: the region reaches down to it
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "IssuerOfPatientID")
_STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName")
_IMAGE = ("Laterality", "ImageLaterality", "ViewPosition", "PatientOrientation", "BurnedInAnnotation")


@dataclass(frozen=True)
class DicomWriter:
    """Writes the DICOMs of one prediction.

    Attributes:
        folder: OUTPUT/dicom.
        origin: `provenance.of_run` of the first run; several are named in `runs`.
        runs: their folders' names.
        key: of the hashes.
        keep_identity: copy the patient, the study and the UIDs of the mammogram, for a site's own archive.
    """

    folder: Path
    origin: Mapping[str, Any]
    runs: Sequence[str]
    key: bytes
    keep_identity: bool = False

    @classmethod
    def of(
        cls, folder: Path, origins: Sequence[Mapping[str, Any]], key: bytes, keep_identity: bool
    ) -> "DicomWriter":  # fmt: skip
        """The writer of the predictions of runs of these `provenance.of_run`; makes the folder.

        Raises:
            BadCheckpoint: highdicom is not installed.
        """
        try:
            import highdicom  # noqa: F401
        except ModuleNotFoundError:
            raise BadCheckpoint("--format dicom needs highdicom: pip install 'mammojax[dicom-out]'.") from None
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, origins[0], [origin["run"] for origin in origins], key, keep_identity)

    def write(
        self, source: Path, name: str, pixels: np.ndarray, whole: np.ndarray | None, p: float, side: str,
        of: str = "whole image",
    ) -> None:  # fmt: skip
        """Write <name>_overlay.dcm and <name>_report.dcm; without a heatmap the report alone, without a region.

        A de-identified picture of a mammogram whose header says that names are burned in would show them: of that only
        the report is written.

        Args:
            source: the mammogram's file.
            name: of the files.
            pixels: uint16 [H, W], as stored.
            whole: its heatmap, float32 [H, W], 0 … 1, or None.
            p: the malignant probability.
            side: "L", "R" or "".
            of: what `p` is of: "whole image" or, where several views give one score, "breast".

        A picture that is no DICOM has no study to belong to; nothing is written of it.
        """
        if not pydicom.misc.is_dicom(source):
            return
        reference = self._reference(pydicom.dcmread(source, stop_before_pixels=True), pixels.shape)
        if whole is not None and (self.keep_identity or reference.get("BurnedInAnnotation") != "YES"):
            self._overlay(reference, pixels, whole, p, of).save_as(self.folder / f"{name}_overlay.dcm")
        self._report(reference, whole, p, side, of).save_as(self.folder / f"{name}_report.dcm")

    @property
    def _words(self) -> str:
        return f"{', '.join(self.runs)}; config {self.origin['config_sha256'][:12]}; {provenance.USE}"

    def _reference(self, header: Dataset, size: tuple[int, int]) -> Dataset:
        """The mammogram's header as the new objects may know it."""
        own = Dataset()
        own.file_meta = FileMetaDataset()
        own.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for field in (*_PATIENT, *_STUDY):
            setattr(own, field, (header.get(field) or "") if self.keep_identity else "")
        for field in _IMAGE:
            if header.get(field):
                setattr(own, field, header.get(field))
        for field in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(own, field, self._uid(str(header.get(field) or "")))
        if not self.keep_identity:
            own.PatientID = hashed(str(header.get("PatientID") or ""), self.key)
            own.PatientIdentityRemoved = "YES"
            own.DeidentificationMethod = "mammojax: new header; keyed hashes for ids and UIDs"
        own.SOPClassUID = header.SOPClassUID
        own.Modality = header.get("Modality") or "MG"
        own.Rows, own.Columns = size
        return own

    def _uid(self, uid: str) -> str:
        """The UID, or a keyed hash of it as a UID of the kind 2.25 (ISO/IEC 9834-8)."""
        if not uid:
            return str(generate_uid())
        if self.keep_identity:
            return uid
        digest = hmac.new(self.key, uid.encode(), hashlib.sha256).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"

    def _overlay(self, reference: Dataset, pixels: np.ndarray, whole: np.ndarray, p: float, of: str) -> Dataset:
        """The mammogram under its heatmap, in colour, with the score and the use written into it."""
        import highdicom

        score = f"p(malignant){' of the breast' if of == 'breast' else ''} {p:.2f}"
        picture = highdicom.sc.SCImage.from_ref_dataset(
            reference, painted(pixels, whole, [score, *self._words.split("; ")]),
            photometric_interpretation="RGB", bits_allocated=8, coordinate_system="PATIENT",
            series_instance_uid=generate_uid(), series_number=901, sop_instance_uid=generate_uid(), instance_number=1,
            manufacturer="mammojax", patient_orientation=_orientation(reference),
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )  # fmt: skip
        return self._described(picture, reference, "Heatmap, research use only")

    def _report(self, reference: Dataset, whole: np.ndarray | None, p: float, side: str, of: str) -> Dataset:
        """A TID 1500 report: the image's score, and the region where the heatmap is highest with its highest value."""
        from highdicom import sr

        algorithm = sr.AlgorithmIdentification(
            name=f"mammojax {', '.join(self.runs)}",
            version=f"config {self.origin['config_sha256'][:12]}",
            parameters=[self.origin["model"], f"learned from {', '.join(self.origin['trained_on'])}", provenance.USE],
        )
        laterality = {"L": codes.SCT.Left, "R": codes.SCT.Right}.get(side)
        breast = sr.FindingSite(codes.SCT.Breast, laterality=laterality)
        uids = (reference.SOPClassUID, reference.SOPInstanceUID)

        def probability(value: float) -> Any:
            return sr.Measurement(name=codes.DCM.ProbabilityOfCancer, value=100 * value, unit=codes.UCUM.Percent)

        groups: list[Any] = [
            sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier=of),
                measurements=[probability(p)],
                source_images=[sr.SourceImageForMeasurementGroup(*uids)],
                algorithm_id=algorithm,
                finding_sites=[breast],
            )
        ]
        if whole is not None and (outline := region(whole)) is not None:
            highest = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier="highest place of the map"),
                referenced_region=sr.ImageRegion("POLYLINE", outline, sr.SourceImageForRegion(*uids)),
                finding_type=codes.DCM.SelectedRegion,
                measurements=[probability(float(whole.max()))],
                algorithm_id=algorithm,
                finding_sites=[breast],
            )
            groups.append(highest)
        device = sr.DeviceObserverIdentifyingAttributes(
            uid=generate_uid(entropy_srcs=["mammojax", self.origin["config_sha256"]]), name="mammojax",
            manufacturer_name="mammojax", model_name=self._words,
        )  # fmt: skip
        observer = sr.ObserverContext(codes.DCM.Device, device)
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=observer),
            procedure_reported=codes.SCT.Mammography,
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        report = sr.ComprehensiveSR(
            evidence=[reference], content=content[0], series_instance_uid=generate_uid(), series_number=902,
            sop_instance_uid=generate_uid(), instance_number=1, manufacturer="mammojax", is_complete=False,
            is_verified=False,
        )  # fmt: skip
        return self._described(report, reference, "Score and region, research use only")

    def _described(self, made: Dataset, reference: Dataset, words: str) -> Dataset:
        made.SeriesDescription = words
        made.SoftwareVersions = f"mammojax {self.origin['mammojax']}"
        made.ImageComments = self._words
        made.StudyDescription = reference.StudyDescription
        if not self.keep_identity:
            made.PatientIdentityRemoved = "YES"
            made.DeidentificationMethod = reference.DeidentificationMethod
        return made


def _orientation(reference: Dataset) -> tuple[str, str]:
    """The patient's orientation in the picture; a mammogram without one is taken to hang as most do."""
    stored = [str(word) for word in reference.get("PatientOrientation") or []]
    return (stored[0], stored[1]) if len(stored) == 2 else ("A", "F")


def region(whole: np.ndarray) -> np.ndarray | None:
    """The outline of the place where a map [H, W] is highest: the part around it that reaches half its value.

    Returns:
        Closed polygon float64 [N, 2] of (column, row), None for a map that is 0 or the same everywhere.
    """
    highest = float(whole.max())
    if highest <= 0 or whole.min() == highest:
        return None
    _, parts = cv2.connectedComponents((whole >= REGION * highest).astype(np.uint8))
    row, column = divmod(int(whole.argmax()), whole.shape[1])
    part = parts == parts[row, column]
    contours, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(contours, key=cv2.contourArea)[:, 0].astype(np.float64)
    return np.concatenate([outline, outline[:1]])


def painted(pixels: np.ndarray, whole: np.ndarray, lines: list[str]) -> np.ndarray:
    """The mammogram uint16 [H, W] under its map [H, W], see `overlays.blended`, text above: uint8 [h, w, 3]."""
    picture = overlays.blended(pixels, whole, LONGEST)
    width = picture.shape[1]
    letters = max(0.3, width / 1400)
    strip = np.zeros((round((len(lines) + 0.5) * 34 * letters), width, 3), np.uint8)  # above, to hide no tissue
    for k, line in enumerate(lines):
        at = (round(12 * letters), round((k + 1) * 34 * letters))
        cv2.putText(strip, line, at, cv2.FONT_HERSHEY_SIMPLEX, letters, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])
