"""Follow a face by what it looked like a moment ago: hundreds of times cheaper than to detect it again."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Detection, Image

FOLLOW_PX = 20
"""Width to which a face is reduced at most twofold more than needed; small is cheap, and averages noise."""
REACH = 0.3
"""How far a face may move from one frame to the next, in its widths."""
RIM = 0.1
"""Fraction of the box at each side that is left out: there the background shows, and it does not move with the face."""


class Pyramid:
    """A gray frame, uint8 (height, width), and its halves, made when they are asked for."""

    def __init__(self, gray: Image) -> None:
        self._levels = [gray]

    def level(self, number: int) -> Image:
        """The frame, halved so many times. A pixel of it is 2 ** number pixels of the frame wide.

        Where a side is odd its last pixels are taken twice: else all of them would be a little wider.
        """
        while len(self._levels) <= number:
            finer = self._levels[-1]
            odd_rows, odd_columns = (side % 2 for side in finer.shape)
            if odd_rows or odd_columns:
                finer = cv2.copyMakeBorder(finer, 0, odd_rows, 0, odd_columns, cv2.BORDER_REPLICATE).astype(
                    np.uint8, copy=False
                )
            half_wh = (finer.shape[1] // 2, finer.shape[0] // 2)
            self._levels.append(cv2.resize(finer, half_wh, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False))
        return self._levels[number]


class Template:
    """A face as it looked in one frame, to find it by in the next.

    Args:
        frame: the frame.
        detection: the face in it.
    """

    def __init__(self, frame: Pyramid, detection: Detection) -> None:
        box = detection.box
        self._level = max(0, int(math.log2(max(1.0, box.w / FOLLOW_PX))))
        self._scale = 2.0**self._level
        self._detection = detection
        self._moved_x = self._moved_y = 0.0
        self._left = max(0, int((box.x + RIM * box.w) / self._scale))
        self._top = max(0, int((box.y + RIM * box.h) / self._scale))
        right, bottom = int((box.x + (1 - RIM) * box.w) / self._scale), int((box.y + (1 - RIM) * box.h) / self._scale)
        self._pixels = frame.level(self._level)[self._top : max(0, bottom), self._left : max(0, right)].copy()

    def find(self, frame: Pyramid, min_correlation: float) -> Detection | None:
        """Where the face is now, near where it was last; None where nothing is like it.

        Normalized cross-correlation (``TM_CCOEFF_NORMED``), so that the brightness may change.

        Args:
            frame: the next frame.
            min_correlation: smallest correlation that counts, 0-1.

        Returns:
            The detection that the template was made of, with box and landmarks moved.
        """
        image, pixels, scale = frame.level(self._level), self._pixels, self._scale
        height, width = pixels.shape
        reach = max(2, round(REACH * self._detection.box.w / scale))
        left = max(0, self._left + round(self._moved_x / scale) - reach)
        top = max(0, self._top + round(self._moved_y / scale) - reach)
        window = image[top : top + height + 2 * reach, left : left + width + 2 * reach]
        if min(height, width) < 4 or window.shape[0] < height or window.shape[1] < width:
            return None
        fit = cv2.matchTemplate(window, pixels, cv2.TM_CCOEFF_NORMED)
        _, best, _, (x, y) = cv2.minMaxLoc(fit)
        if not best >= min_correlation:
            return None
        self._moved_x = (left + x + _peak(fit[y], x) - self._left) * scale
        self._moved_y = (top + y + _peak(fit[:, x], y) - self._top) * scale
        return self._detection.scaled(1.0, self._moved_x, self._moved_y)


def _peak(values: NDArray[Any], place: int) -> float:
    """How far beside a pixel the maximum lies, -0.5 to 0.5: the top of the parabola through three values."""
    if not 0 < place < len(values) - 1:
        return 0.0
    before, here, after = (float(value) for value in values[place - 1 : place + 2])
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
