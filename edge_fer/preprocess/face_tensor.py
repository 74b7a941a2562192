"""A box of a gray image, brought to the size of a model's input."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_fer.core import FaceBox, Image


def face_tensor(gray: Image, box: FaceBox, size_hw: tuple[int, int], margin: float, tilt_deg: float = 0.0) -> Image:
    """Cut a face out of a gray image and bring it to the model's size.

    Pixels are not normalized: that is the first layer of the model. Where the box reaches over the edge of the
    image, the edge pixels are repeated. Shrinking averages areas (every pixel counts, no aliasing), enlarging is
    bilinear in integer arithmetic (the same on every processor); a face that has the right size already passes
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
        smaller = height >= size_hw[0] and width >= size_hw[1]
        method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR_EXACT
        crop = cv2.resize(crop, (size_hw[1], size_hw[0]), interpolation=method).astype(np.uint8, copy=False)
    return np.ascontiguousarray(crop)[..., np.newaxis]
