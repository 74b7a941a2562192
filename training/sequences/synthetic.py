"""Synthetic sequences: a face held, dissolved into another expression, and held, as a trembling box would show it.

There are posed sequences in number of peaks alone (CK+48), and of spontaneous ones nobody knows at which moment they
change. What is made here is no recording, and every row that rests on it says so.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Image

HZ = 30
"""Frames a second."""


def tremble(image: Image, chance: np.random.Generator) -> Image:
    """A face as a camera and a trembling box would show it: turned, scaled and shifted a little, with noise.

    Args:
        image: uint8 (height, width).
        chance: draws what is done.

    Returns:
        uint8 (height, width, 1).
    """
    height, width = image.shape
    angle_deg, scale = chance.normal(0, 1.5), 1 + chance.normal(0, 0.03)
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, scale), np.float64)
    matrix[:, 2] += chance.normal(0, 0.02 * width, 2)
    shown = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    noisy: Image = np.clip(shown + chance.normal(0, 8, shown.shape), 0, 255).astype(np.uint8)[..., np.newaxis]
    return noisy


def dissolved(before: Image, after: Image, parts: NDArray[np.float64], chance: np.random.Generator) -> list[Image]:
    """The frames of a sequence, uint8 (height, width, 1) each.

    Args:
        before: uint8 (height, width), what is shown where a part is 0.
        after: likewise where it is 1.
        parts: of ``after`` in each frame, 0-1.
        chance: draws how the box trembles.
    """
    mixed = (cv2.addWeighted(before, 1 - part, after, part, 0.0) for part in parts.tolist())
    return [tremble(image.astype(np.uint8, copy=False), chance) for image in mixed]
