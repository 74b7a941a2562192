"""How well a face can be seen, from its crop."""

from __future__ import annotations

import cv2

from edge_fer.core import Image, Quality


def measure_quality(tensor: Image, size_px: float) -> Quality:
    """Size, blur and brightness of a face.

    Args:
        tensor: the crop, uint8 (height, width, 1), as the model sees it.
        size_px: shorter side of the face's box.
    """
    # In 16 bits, where it is exact: the Laplacian of 8 bits is within +-1020. OpenCV's mean is quicker than NumPy's.
    _, deviation = cv2.meanStdDev(cv2.Laplacian(tensor, cv2.CV_16S))
    return Quality(round(size_px), float(deviation[0, 0]) ** 2, cv2.mean(tensor)[0] / 255)
