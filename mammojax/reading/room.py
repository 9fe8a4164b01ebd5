"""What the page of the reading room asks for: its worklist, images, heatmaps, predictions, and what a reader marks.

In a blind reading nothing leaves the room that says more than the pixels do: no label, score, outline, heatmap, name or
id; exams come in an order drawn for the reader.
"""

import random
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mammojax.data.examples import read_lesion
from mammojax.data.manifest import Image
from mammojax.errors import BadCheckpoint, BadMammogram, UserError
from mammojax.evaluate import overlays
from mammojax.evaluate.predictor import ImagePredictor, read
from mammojax.reading import tiles
from mammojax.reading.marks import FILE, READS, TAGS, Marks
from mammojax.reading.tiles import Pyramid
from mammojax.reading.worklist import Scored, Worklist, breast_of, exam_of

MEMORY = 2**30  # bytes of decoded images that are kept
HEAT_SIDE = 1024  # pixels of a heatmap's longer side
CORNERS = 0.5  # pixels by which an outline may differ from its mask's border


class Forbidden(UserError):
    """A request that this reading room does not serve."""


class Room:
    """The state behind the page; its methods may be called from several threads.

    Attributes:
        worklist: what is shown.
        blind: the reader of a blind reading, or "".
    """

    def __init__(
        self, worklist: Worklist, run: Path | None = None, marks: Marks | None = None, blind: str = ""
    ) -> None:
        """A reading room.

        Args:
            worklist: what to show.
            run: a whole-image run, for heatmaps and dropped files; it is loaded when first asked.
            marks: where marks are kept; None: nothing can be marked.
            blind: the reader's name, which needs `marks`.
        """
        if blind:  # an order that follows from nothing but the reader's name
            order = random.Random(blind).sample(range(len(worklist.images)), len(worklist.images))  # noqa: S311
            images, scored = [worklist.images[k] for k in order], [worklist.scored[k] for k in order]
            worklist = Worklist(worklist.name, images, scored, worklist.by_breast, rejected=worklist.rejected)
        self.worklist, self.blind = worklist, blind
        self._run, self._marks = (None if blind else run), marks
        self._network: tuple[ImagePredictor, overlays.Map | None] | None = None
        self._dropped: list[tuple[Pyramid, Scored]] = []
        self._pyramids: OrderedDict[int, Pyramid] = OrderedDict()
        self._lock, self._network_lock = threading.Lock(), threading.Lock()

    def overview(self) -> dict[str, Any]:
        """The worklist, the measures at each threshold and what may be done, as JSON-able values."""
        cases = list(enumerate(self.worklist.cases))
        if self.blind:
            cases = [(k, case) for k, case in cases if any(self._readable(index) for index in case)]
        return {
            "name": "" if self.blind else self.worklist.name,
            "blind": bool(self.blind),
            "mark": self._marks is not None,
            "predict": self._run is not None,
            "by_breast": self.worklist.by_breast,
            "tags": TAGS,
            "rejected": len(self.worklist.rejected),
            "operating": None if self.blind else self.worklist.operating(),
            "cases": [self._case(place, number, case) for place, (number, case) in enumerate(cases)],
        }

    def _case(self, place: int, number: int, indices: list[int]) -> dict[str, Any]:
        images = [self._facts(index) for index in indices]
        if self.blind:
            read_already = self._marks.of_reader(self.blind) if self._marks else {}
            sides = sorted({self.worklist.images[k].laterality for k in indices if self._readable(k)}, reverse=True)
            reads = {side: read_already.get((exam_of(self.worklist.images[indices[0]]), side)) for side in sides}
            return {"id": number, "name": f"exam {place + 1}", "images": images, "reads": reads}
        first = self.worklist.images[indices[0]]
        return {"id": number, "name": exam_of(first) or first.image, "patient": first.patient_id, "images": images}

    def _readable(self, index: int) -> bool:
        """Whether an image is of a known side of a known exam, so that a reading of it can be compared."""
        image = self.worklist.images[index]
        return image.laterality in ("L", "R") and bool(exam_of(image))

    def _facts(self, index: int) -> dict[str, Any]:
        image, scored = self.worklist.images[index], self.worklist.scored[index]
        shown = {"id": index, "laterality": image.laterality, "view": image.view}
        if self.blind:
            return shown
        mark = self._marks.images.get(image.image) if self._marks else None
        return shown | {
            "name": image.image,
            "class": image.pathology.lower() or {1: "malignant", 0: "not malignant"}.get(scored.label, ""),
            "label": scored.label,
            "score": float(scored.score) if np.isfinite(scored.score) else None,
            "tags": mark["tags"].split("; ") if mark and mark["tags"] else [],
            "comment": mark["comment"] if mark else "",
        }

    def image(self, index: int) -> dict[str, Any]:
        """What a viewer needs of an image: its size, its window, whether it hangs mirrored, its outlines.

        Raises:
            KeyError: there is no such image. BadMammogram: its file cannot be read.
        """
        pyramid, image = self._pyramid(index), self._image(index)
        hung = {"L": "left", "R": "right"}.get(image.laterality, "")  # the side of the chest wall, breasts back to back
        height, width = pyramid.shape
        low, high = pyramid.window
        return {
            "id": index, "height": height, "width": width, "levels": len(pyramid.levels), "side": tiles.SIDE,
            "low": low, "high": high, "mirrored": bool(hung) and bool(pyramid.breast.any()) and pyramid.chest != hung,
            "outlines": [] if self.blind else _outlines(image, pyramid.shape),
        }  # fmt: skip

    def tile(self, index: int, level: int, column: int, row: int, low: int, high: int) -> bytes:
        """A tile of an image as PNG, see `Pyramid.tile`."""
        return self._pyramid(index).tile(level, column, row, low, high)

    def heat(self, index: int) -> bytes:
        """What the run takes for malignant in an image, as a PNG with transparency, HEAT_SIDE pixels long.

        Raises:
            KeyError: there is no such image. Forbidden: there is no run. BadCheckpoint: the run has no heatmap.
        """
        pixels = self._pyramid(index).levels[-1]
        with self._network_lock:
            network, map_ = self._restored()
            if map_ is None:
                raise BadCheckpoint("this run has no heatmap, and the patch run that it started from is not there.")
            place = overlays.placed(network, pixels)
            heat = overlays.mean_map([place], [place.image(pixels)], [map_])
        scale = min(1.0, HEAT_SIDE / max(heat.shape))
        size = [max(1, round(side * scale)) for side in heat.shape[::-1]]
        picture = overlays.coloured(cv2.resize(heat, size, interpolation=cv2.INTER_AREA))
        return tiles.png(cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA))

    def predict(self, file: bytes) -> dict[str, Any]:
        """Score a file's bytes with the run, and keep its pixels, not the file, until the room closes.

        Returns:
            {"id", "score", "laterality", "view"} of the new image.

        Raises:
            Forbidden: there is no run. BadMammogram: the file cannot be used.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "the file"
            path.write_bytes(file)
            mammogram = read(path)
        with self._network_lock:
            network, _ = self._restored()
            p = float(network.predict([mammogram.pixels])[0])
        with self._lock:
            self._dropped.append((Pyramid.of(mammogram.pixels), Scored(-1, p)))
            index = len(self.worklist.images) + len(self._dropped) - 1
        return {"id": index, "score": p, "laterality": mammogram.laterality, "view": mammogram.view}

    def mark(self, index: int, tags: list[str], comment: str) -> None:
        """Note tags and a comment of an image, see `Marks.mark`."""
        if self._marks is None or self.blind:
            raise Forbidden("nothing can be marked here; start it with --mark FOLDER.")
        image, scored = self.worklist.images[index], self.worklist.scored[index]
        facts = {column: getattr(image, column) for column in ("image", "patient_id", "exam_id", "laterality", "view")}
        facts["label"] = str(scored.label) if scored.label >= 0 else ""
        facts["p_malignant"] = repr(float(scored.score)) if np.isfinite(scored.score) else ""
        with self._lock:
            self._marks.mark(facts, tags, comment)

    def read(self, index: int, p: float) -> None:
        """Note the reader's probability of malignancy of an image's breast."""
        if self._marks is None or not self.blind:
            raise Forbidden("this is no blind reading; start it with --blind NAME --mark FOLDER.")
        with self._lock:
            self._marks.read(self.blind, *breast_of(self.worklist.images[index]), p)

    def csv(self, name: str) -> bytes:
        """marks.csv or readers.csv."""
        if self._marks is None or name not in (FILE, READS) or (name == FILE) == bool(self.blind):
            raise KeyError(name)
        with self._lock:
            return self._marks.csv(name)

    def _image(self, index: int) -> Image:
        images = self.worklist.images
        if not 0 <= index < len(images) + len(self._dropped):
            raise KeyError(index)
        return images[index] if index < len(images) else Image("a dropped file", Path(), "")

    def _pyramid(self, index: int) -> Pyramid:
        image = self._image(index)
        if index >= len(self.worklist.images):
            return self._dropped[index - len(self.worklist.images)][0]
        with self._lock:  # one thread decodes, the others wait for what it has
            if index not in self._pyramids:
                try:
                    self._pyramids[index] = Pyramid.of(read(image.path).pixels)
                except BadMammogram as error:
                    raise BadMammogram(str(error).replace(image.path.name, "the file")) from None
                while len(self._pyramids) > 1 and sum(p.nbytes for p in self._pyramids.values()) > MEMORY:
                    self._pyramids.popitem(last=False)
            self._pyramids.move_to_end(index)
            return self._pyramids[index]

    def _restored(self) -> tuple[ImagePredictor, overlays.Map | None]:
        """The run's network, and its heatmap if it has one."""
        if self._run is None:
            raise Forbidden("there is no whole-image run here; start it with --run RUN.")
        if self._network is None:
            network = ImagePredictor.restore(self._run)
            try:
                self._network = network, overlays.map_of(self._run, network)
            except BadCheckpoint:
                self._network = network, None
        return self._network


def _outlines(image: Image, shape: tuple[int, int]) -> list[dict[str, Any]]:
    """{"class", "points": [[x, y], …]} of each region of each lesion, in pixels of the stored image."""
    result = []
    for lesion in image.lesions:
        if lesion.mask is None and not lesion.outline:
            continue
        mask = read_lesion(lesion, shape, image.image, [])
        if mask is None:
            continue
        binary = (mask > 0).astype(np.uint8)
        if binary.shape != shape:
            binary = np.asarray(cv2.resize(binary, shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
        for contour in cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            points = cv2.approxPolyDP(contour, CORNERS, True)[:, 0]
            result.append({"class": lesion.pathology.lower(), "points": points.tolist()})
    return result
