"""Photos packed for the training: all in one array, with the boxes of their faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.boxes import POINTS, Photo
from edge_fer.errors import DataError

LONGEST_PX = 320
"""Longer side of a packed photo at most: where training takes its faces from."""
MOST_FACES = 48
"""Of a photo. Those with more are left out: a face without a label would count as background."""
MOST_PHOTOS = (1 << 31) // (LONGEST_PX * LONGEST_PX * 3 // 2)
"""Pixels are numbered by 32 bits."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Photos as the training takes them: all in one array, each with its halves and quarters.

    Attributes:
        atlas: uint8 (n, LONGEST_PX, LONGEST_PX * 3 // 2). A photo lies at the left top, half of its size beside it at
            column ``LONGEST_PX``, a quarter of its size below that at row ``LONGEST_PX // 2``.
        sizes_wh: float32 (n, 2), of each photo in pixels.
        kinds: int32 (n, MOST_FACES).
        boxes: float32 (n, MOST_FACES, 4), left, top, width, height.
        points: float32 (n, MOST_FACES, 5, 2), 0 where nobody knows them.
        has_points: float32 (n, MOST_FACES).
        empty: int32 (m,), the numbers of photos without any box: what lies behind other photos; may be none.
    """

    atlas: NDArray[np.uint8]
    sizes_wh: NDArray[np.float32]
    kinds: NDArray[np.int32]
    boxes: NDArray[np.float32]
    points: NDArray[np.float32]
    has_points: NDArray[np.float32]
    empty: NDArray[np.int32]


def pack(photos: Sequence[Photo]) -> Packed:
    """Read, reduce and lay out photos; those with more than ``MOST_FACES`` boxes are left out.

    Raises:
        DataError: a photo cannot be read, or there is none, or none is left.
    """
    if not photos:
        raise DataError("There is no photo to train on: one in ten is held out, and no other is there. Give more.")
    photos = [photo for photo in photos if len(photo.kinds) <= MOST_FACES][:MOST_PHOTOS]
    if not photos:
        raise DataError(f"All photos have more than {MOST_FACES} boxes: none is left to train on.")
    count, half = len(photos), LONGEST_PX // 2
    packed = Packed(
        atlas=np.zeros((count, LONGEST_PX, LONGEST_PX + half), np.uint8),
        sizes_wh=np.zeros((count, 2), np.float32),
        kinds=np.zeros((count, MOST_FACES), np.int32),
        boxes=np.zeros((count, MOST_FACES, 4), np.float32),
        points=np.zeros((count, MOST_FACES, POINTS, 2), np.float32),
        has_points=np.zeros((count, MOST_FACES), np.float32),
        empty=np.array([at for at, photo in enumerate(photos) if not len(photo.kinds)], np.int32),
    )
    for at, photo in enumerate(photos):
        gray = photo.read()
        scale = min(1.0, LONGEST_PX / max(gray.shape))
        # Whole multiples of four, so that halves and quarters lie exactly over it.
        height, width = (max(4, round(side * scale / 4) * 4) for side in gray.shape)
        ratio = np.array([width, height], np.float32) / gray.shape[::-1]
        for level, corner in enumerate(((0, 0), (0, LONGEST_PX), (half, LONGEST_PX))):
            size_wh = (width >> level, height >> level)
            small = cv2.resize(gray, size_wh, interpolation=cv2.INTER_AREA)
            packed.atlas[at, corner[0] : corner[0] + size_wh[1], corner[1] : corner[1] + size_wh[0]] = small
        faces = len(photo.kinds)
        packed.sizes_wh[at] = width, height
        packed.kinds[at, :faces] = photo.kinds
        packed.boxes[at, :faces] = photo.boxes * np.tile(ratio, 2)
        packed.points[at, :faces] = np.nan_to_num(photo.points) * ratio
        packed.has_points[at, :faces] = ~np.isnan(photo.points).any(axis=(1, 2))
    return packed
