"""A mammogram as tiles of a pyramid, rendered with a window of its 16-bit values."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from mammojax.data.breast import breast_mask, chest_side

SIDE = 512  # pixels of a tile
BLACK, WHITE = 0, 65535


@dataclass(frozen=True)
class Pyramid:
    """Every size of a mammogram that a viewer asks for.

    Attributes:
        levels: uint16 [H, W], each half the next one's size, the last as stored; the first fits into a tile.
    """

    levels: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, pixels: np.ndarray) -> "Pyramid":
        """The pyramid of pixels uint16 [H, W]; smaller levels are averages."""
        levels = [pixels]
        while max(levels[-1].shape) > SIDE:
            height, width = ((side + 1) // 2 for side in levels[-1].shape)
            levels.append(np.asarray(cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_AREA)))
        return cls(tuple(reversed(levels)))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) as stored."""
        height, width = self.levels[-1].shape
        return height, width

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(level.nbytes for level in self.levels)

    def tile(self, level: int, column: int, row: int, low: int = BLACK, high: int = WHITE) -> bytes:
        """A tile as PNG, uint8, at most SIDE × SIDE.

        Args:
            level: 0, the smallest, … len(levels) - 1.
            column, row: its place, from 0.
            low, high: the values that become black and white; low above high inverts.

        Raises:
            KeyError: there is no such tile.
        """
        if not (0 <= level < len(self.levels) and column >= 0 and row >= 0):
            raise KeyError(level)
        part = self.levels[level][row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        if not part.size:
            raise KeyError((column, row))
        return png(windowed(part, low, high))

    @cached_property
    def breast(self) -> np.ndarray:
        """The breast in the smallest level, bool [h, w]."""
        return breast_mask(self.levels[0])

    @cached_property
    def chest(self) -> str:
        """The side of the chest wall, "left" or "right"."""
        return chest_side(self.breast)

    @cached_property
    def window(self) -> tuple[int, int]:
        """The values between which the breast's gray lies: its 1st and 99.7th percentile."""
        values = self.levels[0][self.breast] if self.breast.any() else self.levels[0]
        low, high = np.percentile(values, [1, 99.7])
        return int(low), max(int(high), int(low) + 1)


def windowed(pixels: np.ndarray, low: int, high: int) -> np.ndarray:
    """Pixels uint16 [H, W] as uint8: `low` becomes 0, `high` 255, linear between; low above high inverts."""
    span = float(high - low) or 1.0
    return np.clip((pixels.astype(np.float32) - low) * (255 / span) + 0.5, 0, 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W] or BGRA [H, W, 4] as PNG, fast rather than small."""
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ValueError("OpenCV could not write a PNG")
    return bytes(data)
