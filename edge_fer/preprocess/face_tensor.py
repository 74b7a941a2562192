"""A box of a gray image, brought to the size of a model's input."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import FaceBox, Image


def face_tensor(gray: Image, box: FaceBox, size_hw: tuple[int, int], margin: float, tilt_deg: float = 0.0) -> Image:
    """Cut a face out of a gray image and bring it to the model's size.

    Pixels are not normalized: that is the first layer of the model. Where the box reaches over the edge of the
    image, the edge pixels are repeated. Shrinking averages areas (every pixel counts, no aliasing), enlarging is
    bilinear; both are exact, and so the same on every processor. A face that has the right size already passes
    unchanged.

    Args:
        gray: uint8 (height, width).
        box: the face, in pixels of ``gray``.
        size_hw: height and width of the tensor.
        margin: widens the box by this fraction of its width and height on every side.
        tilt_deg: of the face, clockwise as seen; it is turned back by it about its middle.

    Returns:
        uint8 (height, width, 1), 0-255.
    """
    top, left = math.floor(box.y - margin * box.h + 0.5), math.floor(box.x - margin * box.w + 0.5)
    height = max(1, math.floor(box.h * (1 + 2 * margin) + 0.5))
    width = max(1, math.floor(box.w * (1 + 2 * margin) + 0.5))
    if tilt_deg:
        warp = cv2.getRotationMatrix2D((left + (width - 1) / 2, top + (height - 1) / 2), tilt_deg, 1.0)
        warp[:, 2] -= (left, top)
        turned = cv2.warpAffine(gray, warp, (width, height), borderMode=cv2.BORDER_REPLICATE)
        return face_tensor(turned.astype(np.uint8, copy=False), FaceBox(0, 0, width, height), size_hw, margin=0)
    crop = gray[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
    if crop.shape != (height, width):
        # np.take with mode="clip" repeats the edge, and serves a box wholly outside as well.
        crop = gray.take(np.arange(top, top + height), axis=0, mode="clip")
        crop = crop.take(np.arange(left, left + width), axis=1, mode="clip")
    if crop.shape != size_hw:
        if height >= size_hw[0] and width >= size_hw[1]:
            crop = _area_means(crop, size_hw)
        else:
            wanted = (size_hw[1], size_hw[0])
            crop = cv2.resize(crop, wanted, interpolation=cv2.INTER_LINEAR_EXACT).astype(np.uint8, copy=False)
    return np.ascontiguousarray(crop)[..., np.newaxis]


def _area_means(image: Image, size_hw: tuple[int, int]) -> Image:
    """Shrink an image: each new pixel is the mean of the area that it covers, rounded half to even.

    OpenCV's INTER_AREA is the same but for the last digits of its sums, which hang on the processor: x86-64 and arm64
    differed by one in a pixel of fifty thousand (docs/adr/0026). A summed-area table (Crow, "Summed-area tables for
    texture mapping", SIGGRAPH 1984) is a whole number everywhere, also between pixels once it is multiplied by the new
    size, and float64 holds whole numbers exactly.

    Args:
        image: uint8 (height, width), at least as large as ``size_hw``.
        size_hw: height and width of the result.
    """
    # Half the memory where the sum of all pixels allows it.
    depth = cv2.CV_32S if image.size <= (2**31 - 1) // 255 else cv2.CV_64F
    sums = cv2.integral(image, sdepth=depth)
    above, below, part = _edges(image.shape[0], size_hw[0])
    rows = sums[above] * (size_hw[0] - part[:, np.newaxis]) + sums[below] * part[:, np.newaxis]
    left, right, part = _edges(image.shape[1], size_hw[1])
    corners = rows[:, left] * (size_hw[1] - part) + rows[:, right] * part
    totals = np.diff(np.diff(corners, axis=0), axis=1)
    return np.rint(totals / image.size).astype(np.uint8)


@lru_cache(maxsize=256)  # sides of boxes come again and again
def _edges(length: int, cells: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Where edges of equal cells fall: the pixel edge before and behind each, and ``cells`` times how far between."""
    at = np.arange(cells + 1) * length
    before = at // cells
    return before, np.minimum(before + 1, length), (at % cells).astype(np.float64)
