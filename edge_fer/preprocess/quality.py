"""How well a face can be seen, from its crop."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_fer.core import Image, Landmarks, Quality
from edge_fer.preprocess.pose import turn_of_crop

_SECOND_DIFFERENCE = np.array([1, -2, 1], np.float32)
"""Along both axes it passes noise, and hardly any of an image's own structure (Immerkaer, Comput. Vis. Image Underst.
64, 1996, equation 2)."""
_SIGMA = math.sqrt(math.pi / 2) / 6
"""Sigma of the noise in the mean absolute output of it (the same, equation 4)."""
_ROWS = 16
"""A face is reduced to so many rows and columns, in which noise is no more, and it is the same at every size."""
_EYES, _MOUTH = slice(3, 8), slice(10, 16)
"""Where they are among the rows of a face that is framed from the brows to the chin."""


def measure_quality(tensor: Image, size_px: float, landmarks: Landmarks | None = None, margin: float = 0.0) -> Quality:
    """Size, blur, brightness, noise, the contrast of eyes and mouth, and how far the face is turned away.

    Args:
        tensor: the crop, uint8 (height, width, 1), in its own light.
        size_px: shorter side of the face's box.
        landmarks: of the face, where its detector gives them. Without them its turn is guessed from the crop.
        margin: of the crop; see ``PreprocessSpec``.
    """
    # In 16 bits, where both are exact: these filters of 8 bits stay within +-1020 and +-4080. OpenCV's sums are quicker
    # than NumPy's.
    blur = _deviation(cv2.Laplacian(tensor, cv2.CV_16S)) ** 2
    residue = cv2.sepFilter2D(tensor, cv2.CV_16S, _SECOND_DIFFERENCE, _SECOND_DIFFERENCE)
    noise = _SIGMA * cv2.norm(residue, cv2.NORM_L1) / tensor.size
    mean, deviation = cv2.meanStdDev(tensor)
    small = cv2.resize(tensor, (_ROWS, _ROWS), interpolation=cv2.INTER_AREA)
    whole = _deviation(small) + 1  # a gray level: even a flat image has finite ratios
    return Quality(
        size_px=round(size_px),
        blur=blur,
        brightness=float(mean[0, 0]) / 255,
        noise=noise / (float(deviation[0, 0]) + 1),
        eyes=_deviation(small[_EYES]) / whole,
        mouth=_deviation(small[_MOUTH]) / whole,
        turn=turn_of(landmarks) if landmarks else turn_of_crop(tensor, margin),
    )


def turn_of(landmarks: Landmarks) -> float:
    """``core.Quality.turn``; infinite where both eyes are one point, as in a profile."""
    (x, y), (other_x, other_y) = landmarks.right_eye, landmarks.left_eye
    across_x, across_y = other_x - x, other_y - y
    squared = across_x**2 + across_y**2
    if squared < 1:  # a pixel
        return math.inf
    off_x, off_y = landmarks.nose[0] - (x + other_x) / 2, landmarks.nose[1] - (y + other_y) / 2
    return abs(off_x * across_x + off_y * across_y) / squared


def _deviation(image: cv2.typing.MatLike) -> float:
    return float(cv2.meanStdDev(image)[1][0, 0])
