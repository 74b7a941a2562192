"""The parts of a frame that are searched one after another: tiles for each band of face sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_fer.core import Image

BAND = 1.2**3
"""Largest over smallest face of a tile: three steps of a coarse search; the next band goes on from there. As long as
faces are less than twice its window, a cascade looks at every other pixel, and above at each: four times as dear."""
TILE_FACES_WH = (7, 6)
"""Size of a tile in widths of its smallest face, before neighbors overlap by a largest face."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the frame in pixels, and the widths of the faces that are looked for in it."""

    left: int
    top: int
    right: int
    bottom: int
    min_px: float
    max_px: float


@dataclass(slots=True)
class Tile:
    """A region that is searched again and again.

    Attributes:
        region: what it covers.
        slot_s: when it last had its slot, searched or passed over.
        seen: the block means that were searched last.
        seen_s: when all of it was searched last.
    """

    region: Region
    slot_s: float = -math.inf
    seen: Image | None = None
    seen_s: float = -math.inf


def tiles_of(shape_hw: tuple[int, ...], smallest_px: float, *, whole: bool) -> list[Tile]:
    """The tiles of a frame, those for large faces first: they are cheap to find, and most likely meant.

    Args:
        shape_hw: height and width of the frame.
        smallest_px: width of the smallest wanted face.
        whole: one tile for all, for a detector that does not get slower with the size of the image.

    Returns:
        Tiles of which neighbors share a largest face, so that none falls between.
    """
    height, width = shape_hw
    if whole:
        return [Tile(Region(0, 0, width, height, smallest_px, math.inf))]
    tiles = []
    low = smallest_px
    while low < min(shape_hw):
        high = low * BAND
        columns = max(1, round(width / (TILE_FACES_WH[0] * low)))
        rows = max(1, round(height / (TILE_FACES_WH[1] * low)))
        for row in range(rows):
            for column in range(columns):
                region = Region(
                    left=max(0, int(column * width / columns - high / 2)),
                    top=max(0, int(row * height / rows - high / 2)),
                    right=min(width, int((column + 1) * width / columns + high / 2)),
                    bottom=min(height, int((row + 1) * height / rows + high / 2)),
                    min_px=low,
                    max_px=high,
                )
                tiles.append(Tile(region))
        low = high
    return tiles[::-1]
