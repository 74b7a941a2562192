"""Where a face really lies in its detector's box: turned upright by its eyes, or brought to canonical points.

A similarity transform from a frame to a crop is a square that is moved, scaled and turned: a ``Placement``. It is
measured now and then, moves with the box in between, and ``face_tensor`` cuts it out.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2

from edge_fer.core import FaceBox, Image, Landmarks, Point
from edge_fer.errors import UnavailableError

Alignment: TypeAlias = Literal["none", "eyes", "two-points", "five-points"]
"""How faces are cut out: by their box; turned upright by their eyes; or with the eyes, or eyes, nose and mouth, at the
canonical points, where the detector gives landmarks. A model's metadata says which."""

BY_POINTS: tuple[Alignment, ...] = ("two-points", "five-points")
"""Those that want a detector with landmarks."""
EYES: tuple[Point, ...] = ((0.323, 0.4), (0.677, 0.4))
NOSE: Point = (0.5, 0.604)
MOUTH: tuple[Point, ...] = ((0.36, 0.761), (0.64, 0.761))
"""Canonical points, in fractions of a crop without margin: medians over FER2013's Training faces as YuNet marks them,
made symmetric. A crop by its box and an aligned one then show the same part of a face."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A square or rectangle in terms of a box, and its tilt.

    Attributes:
        x: from the middle of the box to its middle, in widths of the box.
        y: likewise, in heights of the box.
        w: its width, in widths of the box.
        h: its height, in heights of the box.
        tilt_deg: clockwise as seen.
    """

    x: float = 0.0
    y: float = 0.0
    w: float = 1.0
    h: float = 1.0
    tilt_deg: float = 0.0

    def of(self, box: FaceBox) -> FaceBox:
        """Where it is for a box, not yet tilted."""
        width, height = self.w * box.w, self.h * box.h
        x, y = box.center
        return FaceBox(x + self.x * box.w - width / 2, y + self.y * box.h - height / 2, width, height)


AS_FOUND = Placement()
"""The box itself."""
LARGEST_CHANGE = 2.0
"""A face that is by this factor larger or smaller than its box, or whose middle lies outside it, has landmarks that
cannot be right: it is cut out by its box."""


def placement_by_points(box: FaceBox, landmarks: Landmarks, alignment: Alignment) -> Placement:
    """The square whose canonical points are nearest to a face's landmarks, by least squares.

    It is the similarity transform of Umeyama, IEEE Trans. PAMI 13, 1991, equations 40 to 43, which in two dimensions is
    the complex number that multiplies one set of centered points to come nearest to the other. Right and left are taken
    as seen, whatever a detector calls them.

    Args:
        box: of the face.
        landmarks: of it. Those whose mouth is a single point have four.
        alignment: "two-points" or "five-points".

    Returns:
        ``AS_FOUND`` where the landmarks make no face: eyes in one point, points that are no numbers or far from the
        box.
    """
    first, second = sorted((landmarks.right_eye, landmarks.left_eye))
    points, canonical = [first, second], list(EYES)
    if alignment == "five-points":
        mouth = sorted(landmarks.mouth)
        points += [landmarks.nose, *mouth]
        canonical += [NOSE, *(MOUTH if len(mouth) == 2 else [(0.5, MOUTH[0][1])] * len(mouth))]
    if not all(math.isfinite(number) for point in points for number in point) or math.dist(first, second) < 1:
        return AS_FOUND
    turn, middle = _similarity(canonical, points)
    side, center = abs(turn), box.center
    shift = ((middle.real - center[0]) / box.w, (middle.imag - center[1]) / box.h)
    placement = Placement(*shift, side / box.w, side / box.h, math.degrees(cmath.phase(turn)))
    near = max(map(abs, shift)) <= 0.5
    alike = all(1 / LARGEST_CHANGE <= one <= LARGEST_CHANGE for one in (placement.w, placement.h))
    return placement if near and alike else AS_FOUND


def placement_by_eyes(landmarks: Landmarks) -> Placement:
    """The box itself, turned upright; ``AS_FOUND`` where the eyes are one point or no numbers."""
    first, second = sorted((landmarks.right_eye, landmarks.left_eye))
    across = complex(*second) - complex(*first)
    if not cmath.isfinite(across) or abs(across) < 1:
        return AS_FOUND
    return Placement(tilt_deg=math.degrees(cmath.phase(across)))


def _similarity(canonical: Sequence[Point], points: Sequence[Point]) -> tuple[complex, complex]:
    """Side and tilt of the square as one complex number, and its middle."""
    fractions = [complex(x - 0.5, y - 0.5) for x, y in canonical]
    seen = [complex(*point) for point in points]
    mean, of_seen = sum(fractions) / len(fractions), sum(seen) / len(seen)
    centered = [one - mean for one in fractions]
    turn = sum(one.conjugate() * (there - of_seen) for one, there in zip(centered, seen, strict=True))
    turn /= sum(abs(one) ** 2 for one in centered)
    return turn, of_seen - turn * mean


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
