"""The pictures and DICOMs that `mammojax predict` writes of each image, whichever process or worker scores it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mammojax import processes
from mammojax.data.identity import id_key
from mammojax.evaluate import overlays, parts
from mammojax.evaluate.dicom_out import DicomWriter

_FILES = ("overlays/{}%s.png", "dicom/{}%s_overlay.dcm", "dicom/{}%s_report.dcm")


@dataclass(frozen=True)
class Pictures:
    """What is drawn, and where; pickled for Beam's workers.

    Attributes:
        folder: OUTPUT/.parts, from which `place` moves files as soon as their row is known.
        drawn: of `overlays.KINDS`; "": no overlays.
        dicoms: the writer of DICOMs; None: there are none.
        origins: `provenance.of_run` of each run.
    """

    folder: Path
    drawn: str
    dicoms: DicomWriter | None
    origins: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, output: Path, drawn: str, dicom: str, origins: Sequence[Mapping[str, Any]]) -> "Pictures":
        """The pictures of a prediction into OUTPUT; `dicom` is "", "deidentified" or "keep".

        Raises:
            BadCheckpoint: see `DicomWriter.of`.
        """
        folder = output / parts.FOLDER
        with processes.in_turn():  # the first makes the key
            dicoms = DicomWriter.of(folder / "dicom", origins, id_key(output), dicom == "keep") if dicom else None
        return cls(folder, drawn, dicoms, origins)

    def write(
        self, path: Path, name: str, pixels: np.ndarray, maps: Mapping[str, np.ndarray], p: float, side: str,
        of: str = "whole image",
    ) -> None:  # fmt: skip
        """Write what is wanted of an image.

        Args:
            path: of the image.
            name: of the files: the position of its item, and what tells it from the item's other images.
            pixels: uint16 [H, W], as stored.
            maps: float32 [H, W] by kind, see `overlays.mean_map`.
            p, side, of: see `DicomWriter.write`.
        """
        if self.drawn in maps:
            overlays.save(self.folder, name, pixels, maps[self.drawn], p, self.origins, self.drawn, of)
        if self.dicoms:
            self.dicoms.write(path, name, pixels, maps.get("heatmap"), p, side, of)

    def place(self, output: Path, position: int, row: int, images: Sequence[str] = ("",)) -> None:
        """Move the files of an item to OUTPUT, named by its row; `images` are the parts of their names behind it."""
        if self.drawn or self.dicoms:
            for image in images:
                for file in _FILES:
                    parts.place(output, file % image, position, row)


def kinds(drawn: str, dicom: str) -> tuple[str, ...]:
    """The maps that are needed, of `overlays.KINDS`: DICOMs have the heatmap."""
    return tuple(kind for kind in overlays.KINDS if kind == drawn or (kind == "heatmap" and dicom))
