"""OpenCV's Haar cascade: the detector that needs nothing but OpenCV."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np

from edge_fer.core import Detection, FaceBox, Image
from edge_fer.errors import DataError, UnavailableError
from edge_fer.files import native_name, read_file
from edge_fer.model.bundle import MOST_BYTES
from edge_fer.model.trial import why_it_dies

_CASCADE = "haarcascade_frontalface_default.xml"
_DEBIAN = Path("/usr/share/opencv4")
"""Where opencv-data puts cascades. OpenCV believes every number in such a file, and reads where it says."""

_TRIAL = """
import sys
import cv2
from edge_fer.model.trial import limit_memory
from edge_fer.sources.demo import DemoSource
limit_memory()
name = sys.stdin.buffer.read()
try:
    name = name.decode()
except UnicodeDecodeError:
    pass  # OpenCV takes such a name as bytes alone
cascade = cv2.CascadeClassifier(name)
gray = next(iter(DemoSource())).gray
for image in (gray, 255 - gray, gray[::3, ::3].copy()):
    cascade.detectMultiScale(image, 1.1, 1)
"""


class CascadeDetector:
    """OpenCV's cascade of Haar features (Viola & Jones, CVPR 2001); implements ``core.FaceDetector``.

    The image is first reduced until the smallest wanted face has 28 pixels. The cascade's window has 24, but right
    at that size it misses many. Searching is where most of the time goes, so it counts.

    Args:
        cascade: the XML of another cascade for upright faces, of Haar or LBP features (Liao et al., ICB 2007); None for
            OpenCV's default.

    Raises:
        UnavailableError: this OpenCV has no Haar cascades.
        InputMissingError: there is no such file.
        DataError: it is not a cascade.
    """

    slow_on_large = True
    scale_factor, scale_factor_coarse = 1.1, 1.2
    min_neighbors, min_neighbors_expected, min_neighbors_coarse = 5, 2, 1

    def __init__(self, cascade: Path | None = None) -> None:
        if cascade:
            read_file(cascade, MOST_BYTES, "cascade", "Check --detector-model.")
        if cascade and _DEBIAN not in cascade.parents and (reason := why_it_dies(_TRIAL, os.fsencode(cascade))):
            raise DataError(
                f"{cascade} cannot be used: in a process of its own it {reason}. Get lbpcascade_frontalface.xml of "
                "OpenCV 4."
            )
        # OpenCV 5 lacks the class or the files; a cascade that did not load finds nothing and says nothing.
        try:
            folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]  # the stubs do not know it
            self._cascade = cv2.CascadeClassifier(native_name(cascade or folder / _CASCADE))
            usable = not self._cascade.empty()
        except (AttributeError, SystemError, cv2.error):
            usable = False
        if not usable and cascade and hasattr(cv2, "CascadeClassifier"):
            raise DataError(f"{cascade} is not a cascade of OpenCV. Get lbpcascade_frontalface.xml of OpenCV 4.")
        if not usable:
            raise UnavailableError(
                f"OpenCV {cv2.__version__} has no Haar cascade: run `pip install 'opencv-python-headless>=4.13,<5'`."
            )
        self.enough_px = self._cascade.getOriginalWindowSize()[0] * 7 / 6

    def detect(
        self, gray: Image, min_px: float, max_px: float = math.inf, *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        """See ``core.FaceDetector``."""
        height, width = gray.shape
        reduction = max(1.0, min_px / self.enough_px)
        size_wh = (round(width / reduction), round(height / reduction))
        smallest, largest = int(min_px / reduction), int(min(max_px, height, width) / reduction)
        if min(size_wh) < smallest or largest < smallest:
            return []
        # Averaging areas is ten times slower, and needed only where bilinear would leave pixels out. INTER_LINEAR gives
        # other pixels on other processors, and even in the two wheels of OpenCV for aarch64.
        method = cv2.INTER_AREA if reduction > 2 else cv2.INTER_LINEAR_EXACT
        reduced = cv2.resize(gray, size_wh, interpolation=method) if reduction > 1 else gray
        neighbors = self.min_neighbors_expected if expected else self.min_neighbors
        if coarse:
            neighbors = self.min_neighbors_coarse
        found = self._cascade.detectMultiScale(
            reduced,
            self.scale_factor_coarse if coarse else self.scale_factor,
            neighbors,
            minSize=(smallest, smallest),
            maxSize=(largest, largest),
        )
        x_scale, y_scale = width / size_wh[0], height / size_wh[1]
        # Lists of Python's numbers: with those of NumPy, all that is reckoned from the boxes would be slower.
        boxes = [FaceBox(x * x_scale, y * y_scale, w * x_scale, h * y_scale) for x, y, w, h in np.array(found).tolist()]
        return [Detection(box) for box in sorted(boxes, key=lambda box: (-box.w * box.h, box.x, box.y))]
