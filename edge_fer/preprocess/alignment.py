"""How far a face is tilted, by its eyes: for a model that wants faces upright and a detector without landmarks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, TypeAlias

import cv2

from edge_fer.core import FaceBox, Image
from edge_fer.errors import UnavailableError

Alignment: TypeAlias = Literal["none", "eyes"]
"""How faces are turned before they are cut out: not at all, or upright by their eyes. A model's metadata says which."""


class EyeFinder:
    """Finds the eyes of a face by OpenCV's Haar cascade for eyes.

    Raises:
        UnavailableError: this OpenCV has no such cascade.
    """

    face_px = 120
    """A face is brought to this width first: the cascade's window is 20 pixels, and an eye is a sixth of a face. The
    cost is the same for all faces then, and a training image is looked at as a frame is."""
    max_tilt_deg = 35.0
    """A pair of eyes that is tilted by more is no pair; nor does the face detector find such faces."""

    def __init__(self) -> None:
        try:
            folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]  # the stubs do not know it
            self._cascade = cv2.CascadeClassifier(str(folder / "haarcascade_eye.xml"))
            usable = not self._cascade.empty()
        except (AttributeError, SystemError, cv2.error):
            usable = False
        if not usable:
            raise UnavailableError(
                f"OpenCV {cv2.__version__} has no cascade for eyes, which this model needs: run `pip install "
                "'opencv-python-headless>=4.13,<5'`, or use a model without alignment."
            )

    def tilt_deg(self, gray: Image, box: FaceBox) -> float:
        """Degrees by which a face is tilted, clockwise as seen; 0 where no two eyes make a pair.

        Args:
            gray: uint8 (height, width).
            box: the face in it.
        """
        top, bottom = max(0, round(box.y)), max(0, round(box.y + 0.65 * box.h))
        left, right = max(0, round(box.x)), max(0, round(box.x + box.w))
        upper = gray[top:bottom, left:right]
        scale = self.face_px / box.w
        size_wh = round(upper.shape[1] * scale), round(upper.shape[0] * scale)
        if min(*upper.shape, *size_wh) < 1:
            return 0.0
        enlarged = cv2.resize(upper, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        side = self.face_px // 6
        found = self._cascade.detectMultiScale(enlarged, 1.1, 3, minSize=(side, side), maxSize=(3 * side, 3 * side))
        return _tilt_of([(x + w / 2, y + h / 2, w) for x, y, w, h in found], self.face_px, self.max_tilt_deg)


def _tilt_of(eyes: list[tuple[float, float, float]], face_px: float, max_deg: float) -> float:
    """Tilt of the most even pair among (center x, center y, width) in pixels of a face; 0 without any."""
    best, best_unevenness = 0.0, math.inf
    for x, y, side in eyes:
        for other_x, other_y, other_side in eyes:
            apart = (other_x - x) / face_px
            if not (x < face_px / 2 < other_x and 0.25 < apart < 0.7):
                continue
            angle = math.degrees(math.atan2(other_y - y, other_x - x))
            unevenness = abs(math.log(side / other_side)) + abs((x + other_x) / face_px - 1)
            if abs(angle) <= max_deg and unevenness < best_unevenness:
                best, best_unevenness = angle, unevenness
    return best
