"""A lesion's outline as one cell of a manifest: "box 10 20 110 220", "polygon 10 20 110 20 60 90", "circle 60 40 15".

Numbers are pixels of the stored image, x to the right and y down from its top left corner, separated by spaces: a box
is xmin ymin xmax ymax, a polygon x y of each point, a circle x y radius.
"""

import math
import re
from collections.abc import Sequence

Points = tuple[tuple[float, float], ...]
"""(x, y) of each corner."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WRONG = 'write "box xmin ymin xmax ymax", "polygon x1 y1 x2 y2 …" or "circle x y radius", in pixels'


def parse(cell: str) -> Points:
    """The points of an outline, () for an empty cell; a circle has 64, a polygon may have one or two.

    Raises:
        ValueError: the cell is no outline; the text says what to write.
    """
    kind, *words = cell.replace(",", " ").split() or [""]
    if not kind:
        return ()
    if not all(_NUMBER.fullmatch(word) for word in words):
        raise ValueError(_WRONG)
    numbers = [float(word) for word in words]
    if kind.lower() == "box" and len(numbers) == 4:
        return box(*numbers)
    if kind.lower() == "circle" and len(numbers) == 3 and numbers[2] > 0:
        return circle(*numbers)
    if kind.lower() == "polygon" and numbers and len(numbers) % 2 == 0:
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))
    raise ValueError(_WRONG)


def box(xmin: float, ymin: float, xmax: float, ymax: float) -> Points:
    """The corners of a box; opposite corners may come in any order."""
    (left, right), (top, bottom) = sorted((xmin, xmax)), sorted((ymin, ymax))
    return (left, top), (right, top), (right, bottom), (left, bottom)


def circle(x: float, y: float, radius: float) -> Points:
    """64 points of a circle."""
    angles = [2 * math.pi * k / 64 for k in range(64)]
    return tuple((x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles)


def text(points: Sequence[tuple[float, float]]) -> str:
    """The cell that `parse` reads as these points, to a hundredth of a pixel; "" for no points."""
    if not points:
        return ""
    if len(points) == 4 and tuple(points) == box(*points[0], *points[2]):
        return "box " + _numbers((points[0], points[2]))
    return "polygon " + _numbers(points)


def _numbers(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{round(value, 2):.10g}" for point in points for value in point)
