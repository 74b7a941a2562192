"""Where to look for faces in a stream, and when: the policy that keeps a frame cheap.

Searching a whole 640x480 frame costs a Haar cascade fifty times what the network costs. So

* a face that was just seen is followed by its picture, which costs next to nothing, and confirmed by the detector a
  few times a second, in a window around it and at its size. A face that is missed is looked for in a wider window;
* the rest of the frame is searched in slices, a few in each frame, so that all of it has had its turn within
  ``new_face_s`` and no single frame pays for all;
* a slice in which nothing has moved since its last turn is passed over.

The same frames give the same answers: nothing depends on the clock or on chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge_fer.core import FaceBox, FaceDetector, Picture
from edge_fer.likeness import Likeness, Pyramid

WINDOW = 1.7
"""Side of the window around a known face, in widths of the face."""
WIDER = 0.5
"""What a miss adds to it,"""
MISSES = 2
"""up to so many: a face that jumped further is found by the slices."""
SIZES = 1.3
"""A known face may have become larger or smaller by this factor."""
FINE = 1.8
"""By this factor a candidate of a slice may be larger than the face. It also makes the face so large in the picture
that a cascade looks at every pixel of it, as in a search of the whole frame."""
BAND = 1.2**3
"""Largest over smallest face of a slice: three steps of a rough search; the next band goes on from there. As long as
faces are less than twice its window, a cascade looks at every other pixel, and above at each: four times as dear."""
TILE_FACES_WH = (7, 6)
"""Size of a tile in widths of its smallest face, before neighbours overlap by a largest face."""
BLOCK_PX = 16
"""Movement is looked for in the means of blocks of this size."""
MOVED = 5
"""Change of such a mean, in grey levels, that counts as movement. Noise of sigma 8 changes it by less than 2."""
MOVED_SHARE = 0.25
"""How much of the area of a slice's smallest face must have moved, all within that of its largest: a hand's twitch
brings no large face, nor do leaves all over the frame."""
CONFIRM_S = 0.2
"""A face is followed by its picture for so long before the detector looks again."""
DOUBT_S = 0.5
"""A face that the detector does not confirm is followed for so long: it may have turned away or be half hidden."""
ALIKE, ALIKE_IN_DOUBT = 0.8, 0.9
"""Correlation with its picture that makes it the same face; more is asked where the detector says no."""
REST = 0.6
"""Share of ``new_face_s`` that a slice rests after its turn, when the passing over of others brings it round sooner."""
RECHECK_S = 2.0
"""A slice is searched again after so long even if nothing moved: a detector may miss a face that sits still."""
SAME_FACE = 0.5
"""Overlap, as a share of the smaller box, from which two boxes are one face."""


@dataclass(frozen=True, slots=True)
class KnownFace:
    """A face of the frames before.

    Attributes:
        key: tells it from the others, the same in every frame.
        box: where it is expected now.
        misses: in how many frames it was looked for in vain since it was last seen.
    """

    key: int
    box: FaceBox
    misses: int


@dataclass(slots=True)
class _Confirmed:
    """What a face looked like when the detector last saw it, when that was, and when the detector last looked."""

    likeness: Likeness
    confirmed_s: float
    looked_s: float


@dataclass(slots=True)
class _Slice:
    """A part of the frame and a range of sizes.

    Attributes:
        turn_s: when it last had its turn, searched or passed over.
        seen: the block means that were searched last.
        seen_s: when all of it was searched last.
    """

    left: int
    top: int
    right: int
    bottom: int
    min_px: float
    max_px: float
    turn_s: float = -math.inf
    seen: Picture | None = None
    seen_s: float = -math.inf


class FaceSearch:
    """Finds the faces of a stream's frames, one frame after another.

    Args:
        detector: looks into the windows and slices.
        min_face_px: smallest face to look for, in pixels of the frame.
        new_face_s: within how many seconds of stream time a new face is to be found.
    """

    def __init__(self, detector: FaceDetector, min_face_px: int, new_face_s: float) -> None:
        self._detector = detector
        self._min_face_px = min_face_px
        self._new_face_s = new_face_s
        self.restart()

    def restart(self) -> None:
        """Forget the stream: the next frame is the first of another, and is searched whole."""
        self._frame = Pyramid(np.zeros((1, 1), np.uint8))
        self._slices: list[_Slice] = []
        self._confirmed: dict[int, _Confirmed] = {}
        self._next = 0
        self._turns = 0
        self._due = 0.0
        self._time_s = 0.0

    def still(self, gray: Picture) -> list[FaceBox]:
        """All faces of a picture that stands alone, uint8 (height, width), largest first."""
        return self._detector.detect(gray, self._smallest_px(gray))

    def find(self, gray: Picture, time_s: float, known: Sequence[KnownFace]) -> list[FaceBox]:
        """The faces of the next frame: the known ones that are still there, and new ones as their slices' turns come.

        Args:
            gray: uint8 (height, width), of the same size as before; ``restart`` comes before another.
            time_s: stream time of the frame.
            known: faces that are expected.

        Returns:
            No two of one face.
        """
        self._frame = Pyramid(gray)
        found: list[FaceBox] = []
        for face in known:
            _add(found, self._again(face, time_s))
        for key in self._confirmed.keys() - {face.key for face in known}:
            del self._confirmed[key]
        for box in self._sweep(time_s, found):
            # A second look, with the face in the middle and at its own size, gives the same box as later frames will,
            # and sorts out what only looked like a face between two others.
            _add(found, self._near(KnownFace(0, box, 0), expected=False))
        return found

    def _again(self, face: KnownFace, time_s: float) -> list[FaceBox]:
        """A known face in this frame: by its likeness, or where that is not enough by the detector."""
        known = self._confirmed.get(face.key)
        if known is not None and 0 <= time_s - known.looked_s < CONFIRM_S:
            box = known.likeness.find(self._frame, ALIKE)
            if box is not None:
                return [box]
        boxes = self._near(face)
        if boxes:
            self._confirmed[face.key] = _Confirmed(Likeness(self._frame, boxes[0]), time_s, time_s)
        elif known is not None and 0 <= time_s - known.confirmed_s < DOUBT_S:
            known.looked_s = time_s
            box = known.likeness.find(self._frame, ALIKE_IN_DOUBT)
            return [] if box is None else [box]
        return boxes

    def _near(self, face: KnownFace, *, expected: bool = True) -> list[FaceBox]:
        """Faces in the window around a face, best overlap first. With every miss it is wider, and searched faster."""
        faces = self._window(face.box, min(face.misses, MISSES), expected=expected)
        if not faces and expected and face.misses == 0:
            faces = self._window(face.box, 1, expected=True)
        return sorted(faces, key=lambda one: -one.iou(face.box))

    def _window(self, box: FaceBox, misses: int, *, expected: bool) -> list[FaceBox]:
        spread = SIZES * (1 + 0.1 * misses)
        half = (WINDOW + WIDER * misses) * box.w / 2
        window = _Slice(
            left=int(box.x + box.w / 2 - half),
            top=int(box.y + box.h / 2 - half),
            right=int(box.x + box.w / 2 + half),
            bottom=int(box.y + box.h / 2 + half),
            min_px=max(box.w / (spread if expected else FINE), 0.8 * self._smallest_px(self._frame.level(0))),
            max_px=box.w * spread,
        )
        return self._look(window, expected=expected, rough=misses > 1)

    def _sweep(self, time_s: float, taken: Sequence[FaceBox]) -> list[FaceBox]:
        """Faces in the slices whose turn it is, where no face is known."""
        gray = self._frame.level(0)
        if not self._slices:
            self._slices = _slices(gray.shape, self._smallest_px(gray), whole=not self._detector.slow_on_large)
        count = len(self._slices)
        step_s = min(max(0.0, time_s - self._time_s), self._new_face_s)
        self._time_s = time_s
        # The first frame of a stream is searched whole: people look at the first second.
        first = self._turns == 0
        self._due = count if first else min(count, self._due + count * step_s / self._new_face_s)
        blocks, news = self._blocks(taken)
        found = []
        for _ in range(count):
            if self._due < 1:
                break
            part = self._slices[self._next]
            if not first and 0 <= time_s - part.turn_s < REST * self._new_face_s:
                break
            part.turn_s = time_s
            self._next = (self._next + 1) % count
            self._turns += 1
            moved = self._moved(part, blocks, news, time_s)
            if moved is not None:
                self._due -= 1
                found += self._look(moved, taken, rough=True)
        # What was passed over was free, and must not be saved up for one dear frame.
        self._due = min(self._due, 1.0)
        return found

    def _look(
        self, part: _Slice, taken: Sequence[FaceBox] = (), *, expected: bool = False, rough: bool = False
    ) -> list[FaceBox]:
        """Faces in a part of the frame, looked for in the coarsest picture that still shows the smallest of them."""
        level = 0
        while part.min_px / 2 ** (level + 1) >= self._detector.enough_px:
            level += 1
        scale = 2.0**level
        left, top, right, bottom = (
            max(0, int(side / scale)) for side in (part.left, part.top, part.right, part.bottom)
        )
        pixels = self._frame.level(level)[top:bottom, left:right]
        if pixels.size == 0:
            return []
        if taken:
            # Faces that are known are painted over: there is no other behind them, and nothing is dearer to search.
            pixels = pixels.copy()
            for box in taken:
                x, y = int(box.x / scale) - left, int(box.y / scale) - top
                pixels[max(0, y) : max(0, y + int(box.h / scale)), max(0, x) : max(0, x + int(box.w / scale))] = 128
        faces = self._detector.detect(pixels, part.min_px / scale, part.max_px / scale, expected=expected, rough=rough)
        return [FaceBox((f.x + left) * scale, (f.y + top) * scale, f.w * scale, f.h * scale) for f in faces]

    def _blocks(self, taken: Sequence[FaceBox]) -> tuple[Picture, Picture]:
        """Means of blocks, uint8 (height / 16, width / 16), and which tell news: 0 around known faces, else 1."""
        quarter = self._frame.level(2)
        rows, columns = (max(1, side * 4 // BLOCK_PX) for side in quarter.shape)
        # Whole blocks alone: what is left at the edges is less than half a face, and means of fractions are dear.
        whole = quarter[: rows * BLOCK_PX // 4, : columns * BLOCK_PX // 4]
        blocks = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        news = np.ones_like(blocks)
        for box in taken:
            left, top = int((box.x - 0.25 * box.w) / BLOCK_PX), int((box.y - 0.25 * box.h) / BLOCK_PX)
            right, bottom = int((box.x + 1.25 * box.w) / BLOCK_PX) + 1, int((box.y + 1.25 * box.h) / BLOCK_PX) + 1
            news[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 0
        return blocks, news

    def _moved(self, part: _Slice, blocks: Picture, news: Picture, time_s: float) -> _Slice | None:
        """What of a slice must be searched now: where enough moved since its last turn, or None."""
        first_row, first_column = part.top // BLOCK_PX, part.left // BLOCK_PX
        place = (slice(first_row, -(-part.bottom // BLOCK_PX)), slice(first_column, -(-part.right // BLOCK_PX)))
        now, news = blocks[place], news[place]
        if part.seen is None or now.size == 0 or not 0 <= time_s - part.seen_s < RECHECK_S:
            part.seen, part.seen_s = now * news, time_s
            return part
        changed = cv2.absdiff(now, part.seen) >= MOVED
        moved = changed * news
        largest_px = min(part.max_px, min(now.shape) * BLOCK_PX)  # of a whole frame, max_px is infinite
        face_blocks = max(1, math.ceil(largest_px / BLOCK_PX))
        around = cv2.boxFilter(
            moved, cv2.CV_16U, (face_blocks, face_blocks), normalize=False, borderType=cv2.BORDER_CONSTANT
        )
        enough = around >= max(1, MOVED_SHARE * (part.min_px / BLOCK_PX) ** 2)
        came = enough & (moved > 0)
        y, x = np.flatnonzero(came.any(axis=1)), np.flatnonzero(came.any(axis=0))
        if not y.size:
            return None
        # What changed by less keeps its old value, so that slow changes add up and are seen in the end.
        np.copyto(part.seen, now, where=came)
        # The middle of a face that came here is where something moved.
        reach = largest_px / 2
        return _Slice(
            left=max(part.left, int((first_column + x[0]) * BLOCK_PX - reach)),
            top=max(part.top, int((first_row + y[0]) * BLOCK_PX - reach)),
            right=min(part.right, int((first_column + x[-1] + 1) * BLOCK_PX + reach)),
            bottom=min(part.bottom, int((first_row + y[-1] + 1) * BLOCK_PX + reach)),
            min_px=part.min_px,
            max_px=part.max_px,
        )

    def _smallest_px(self, gray: Picture) -> float:
        # A twentieth of the shorter side: else a photo of 20 megapixels would take a minute.
        shorter: int = min(gray.shape)
        return max(self._min_face_px, shorter / 20)


def _add(found: list[FaceBox], candidates: Sequence[FaceBox]) -> None:
    """Add the first candidate that is no face found already."""
    for box in candidates:
        if all(_overlap(box, other) < SAME_FACE for other in found):
            found.append(box)
            return


def _overlap(one: FaceBox, other: FaceBox) -> float:
    """Share of the smaller box that lies in the other, 0-1: a face within a face is none."""
    iou = one.iou(other)
    areas = one.w * one.h, other.w * other.h
    return iou * sum(areas) / (1 + iou) / min(areas)


def _slices(shape: tuple[int, ...], smallest_px: float, *, whole: bool) -> list[_Slice]:
    """Tiles of the frame for each band of sizes. Neighbours share a largest face, so that none falls between."""
    height, width = shape
    if whole:
        return [_Slice(0, 0, width, height, smallest_px, math.inf)]
    slices = []
    low = smallest_px
    while low < min(shape):
        high = low * BAND
        columns = max(1, round(width / (TILE_FACES_WH[0] * low)))
        rows = max(1, round(height / (TILE_FACES_WH[1] * low)))
        for row in range(rows):
            for column in range(columns):
                slices.append(
                    _Slice(
                        left=max(0, int(column * width / columns - high / 2)),
                        top=max(0, int(row * height / rows - high / 2)),
                        right=min(width, int((column + 1) * width / columns + high / 2)),
                        bottom=min(height, int((row + 1) * height / rows + high / 2)),
                        min_px=low,
                        max_px=high,
                    )
                )
        low = high
    return slices[::-1]  # large faces first: they are cheap to find, and most likely meant
