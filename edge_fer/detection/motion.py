"""What moved: means of blocks of a frame, compared with those that were searched last."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from edge_fer.core import FaceBox, Image
from edge_fer.detection.template import Pyramid
from edge_fer.detection.tiles import Region, Tile

BLOCK_PX = 16
"""Side of a block."""
MIN_CHANGE = 5
"""Change of a block's mean, in gray levels, that counts as movement. Noise of sigma 8 changes it by less than 2."""
MIN_MOVED = 0.25
"""How much of the area of a tile's smallest face must have moved, all within that of its largest: a hand's twitch
brings no large face, nor do leaves all over the frame."""
RECHECK_S = 2.0
"""A tile is searched again after so long even if nothing moved: a detector may miss a face that sits still."""


def block_means(frame: Pyramid) -> Image:
    """Mean of each block of a frame, uint8 (height / 16, width / 16)."""
    quarter = frame.level(2)
    rows, columns = (max(1, side * 4 // BLOCK_PX) for side in quarter.shape)
    # Whole blocks alone: what is left at the edges is less than half a face, and means of fractions are dear.
    whole = quarter[: rows * BLOCK_PX // 4, : columns * BLOCK_PX // 4]
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def motion_mask(blocks: Image, known: Sequence[FaceBox]) -> Image:
    """Which blocks count, uint8 of the shape of ``blocks``: 0 around known faces, which move anyway, else 1."""
    mask = np.ones_like(blocks)
    for box in known:
        left, top = int((box.x - 0.25 * box.w) / BLOCK_PX), int((box.y - 0.25 * box.h) / BLOCK_PX)
        right, bottom = int((box.x + 1.25 * box.w) / BLOCK_PX) + 1, int((box.y + 1.25 * box.h) / BLOCK_PX) + 1
        mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 0
    return mask


def moved_region(tile: Tile, blocks: Image, mask: Image, time_s: float) -> Region | None:
    """What of a tile must be searched now, or None; the tile remembers it as searched.

    Args:
        tile: whose slot it is.
        blocks: see ``block_means``.
        mask: see ``motion_mask``.
        time_s: stream time of the frame.

    Returns:
        The places where enough moved since the tile's last search, half a largest face around them included. The whole
        tile where it was not searched before, or not for ``RECHECK_S``.
    """
    region = tile.region
    first_row, first_column = region.top // BLOCK_PX, region.left // BLOCK_PX
    place = (slice(first_row, -(-region.bottom // BLOCK_PX)), slice(first_column, -(-region.right // BLOCK_PX)))
    now, mask = blocks[place], mask[place]
    if tile.seen is None or now.size == 0 or not 0 <= time_s - tile.seen_s < RECHECK_S:
        tile.seen, tile.seen_s = now * mask, time_s
        return region
    moved = (cv2.absdiff(now, tile.seen) >= MIN_CHANGE) * mask
    largest_px = min(region.max_px, min(now.shape) * BLOCK_PX)  # of a whole frame, max_px is infinite
    face_blocks = max(1, math.ceil(largest_px / BLOCK_PX))
    around = cv2.boxFilter(
        moved, cv2.CV_16U, (face_blocks, face_blocks), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    enough = around >= max(1, MIN_MOVED * (region.min_px / BLOCK_PX) ** 2)
    came = enough & (moved > 0)
    y, x = np.flatnonzero(came.any(axis=1)), np.flatnonzero(came.any(axis=0))
    if not y.size:
        return None
    # What changed by less keeps its old value, so that slow changes add up and are seen in the end.
    np.copyto(tile.seen, now, where=came)
    # The middle of a face that came here is where something moved.
    reach = largest_px / 2
    return Region(
        left=max(region.left, int((first_column + x[0]) * BLOCK_PX - reach)),
        top=max(region.top, int((first_row + y[0]) * BLOCK_PX - reach)),
        right=min(region.right, int((first_column + x[-1] + 1) * BLOCK_PX + reach)),
        bottom=min(region.bottom, int((first_row + y[-1] + 1) * BLOCK_PX + reach)),
        min_px=region.min_px,
        max_px=region.max_px,
    )
