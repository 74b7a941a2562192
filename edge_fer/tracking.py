"""Tracks: which face of this frame is which face of the last. Where it was, never who it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_fer.core import Face, FaceBox, Picture, Prediction
from edge_fer.search import KnownFace
from edge_fer.temporal import ExpressionFilter

MIN_IOU = 0.2
"""Overlap with where a face was expected that makes a box the same face."""
MAX_GAP_S = 0.5
"""A face that was not seen for longer has left. Shorter gaps are blinks of the detector, or hands before the face."""


class BoxFilter:
    """Steadies a box that trembles without lagging behind one that moves.

    The One Euro filter (Casiez et al., CHI 2012): a low-pass whose cut-off rises with speed. Centre and width are
    filtered; speed is in widths of the box per second, so that near and far faces are treated alike.
    """

    still_hz = 2.0
    rise_hz = 4.0
    speed_hz = 2.0

    def __init__(self) -> None:
        self._state: tuple[float, ...] = ()
        self._speed: tuple[float, ...] = ()
        self._time_s = 0.0

    def update(self, box: FaceBox, time_s: float) -> FaceBox:
        """The steadied box at a time, in seconds; time that does not advance changes nothing but the newest box."""
        new = (box.x + box.w / 2, box.y + box.h / 2, box.w)
        step_s = time_s - self._time_s
        self._time_s = time_s
        if not self._state or step_s <= 0:
            self._state, self._speed = new, (0.0, 0.0, 0.0)
        else:
            speeds, state = [], []
            for old, fresh, speed in zip(self._state, new, self._speed, strict=True):
                speed += _share(self.speed_hz, step_s) * ((fresh - old) / (step_s * box.w) - speed)
                speeds.append(speed)
                state.append(old + _share(self.still_hz + self.rise_hz * abs(speed), step_s) * (fresh - old))
            self._state, self._speed = tuple(state), tuple(speeds)
        x, y, width = self._state
        height = width * box.h / box.w
        return FaceBox(x - width / 2, y - height / 2, width, height)


def _share(cutoff_hz: float, step_s: float) -> float:
    """How much of the new value a low-pass takes over in a step (Casiez et al., eq. 4 and 5)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff_hz * step_s))


@dataclass(slots=True, eq=False)
class Track:
    """One face over time.

    Attributes:
        number: of the track.
        expression: what it showed over time.
        box: where it was last seen, steadied.
        seen_s: when.
        misses: in how many frames it was not found since.
        tensor: the crop that was last classified, None before the first.
        classified_s: when that was.
        tilt_deg: of the face when it was last measured, where the model wants it upright.
        tilted_s: when that was.
        raw: its prediction.
        face: as last reported, None before the first.
    """

    number: int
    expression: ExpressionFilter
    box: FaceBox
    seen_s: float
    misses: int = 0
    tensor: Picture | None = None
    classified_s: float = 0.0
    tilt_deg: float = 0.0
    tilted_s: float = -math.inf
    raw: Prediction | None = None
    face: Face | None = None
    filter: BoxFilter = field(default_factory=BoxFilter)


class Tracker:
    """Links the boxes of successive frames. Numbers start at 1 and are never used again.

    Args:
        new_filter: makes the expression filter of a new track.
    """

    def __init__(self, new_filter: Callable[[], ExpressionFilter]) -> None:
        self._new_filter = new_filter
        self._tracks: list[Track] = []
        self._next_number = 1

    def known(self) -> list[KnownFace]:
        """The faces to look for in the next frame, longest known first."""
        return [KnownFace(track.number, track.box, track.misses) for track in self._tracks]

    def update(self, boxes: Sequence[FaceBox], time_s: float) -> tuple[list[Track], list[Track]]:
        """Take the boxes of one frame.

        Args:
            boxes: the faces found, no two of one face.
            time_s: time of the frame.

        Returns:
            The track of each box, in the same order, and the tracks that ended.
        """
        matches = assign(boxes, [track.box for track in self._tracks])
        for track in self._tracks:
            track.misses += 1
        current = []
        for index, box in enumerate(boxes):
            if index in matches:
                track = self._tracks[matches[index]]
            else:
                track = Track(self._next_number, self._new_filter(), box, time_s)
                self._next_number += 1
                self._tracks.append(track)
            track.box, track.seen_s, track.misses = track.filter.update(box, time_s), time_s, 0
            current.append(track)
        # abs: should time run backwards by more than a gap, the old faces are as gone as after one.
        ended = [track for track in self._tracks if abs(time_s - track.seen_s) > MAX_GAP_S]
        self._tracks = [track for track in self._tracks if track not in ended]
        return current, ended

    def end_all(self) -> list[Track]:
        """End all tracks, as before a new stream."""
        ended, self._tracks = self._tracks, []
        return ended


def assign(boxes: Sequence[FaceBox], tracks: Sequence[FaceBox]) -> dict[int, int]:
    """Pair boxes with tracks so that the sum of overlaps is largest; pairs below ``MIN_IOU`` stay apart.

    The Hungarian method with potentials (Kuhn 1955; Jonker & Volgenant 1987), O(n^3): a millisecond for ten faces.

    Returns:
        Index of the track by index of the box.
    """
    if not boxes or not tracks:
        return {}
    size = max(len(boxes), len(tracks))
    cost = [[0.0] * size for _ in range(size)]  # rows and columns that stand for nobody cost nothing
    for row, box in enumerate(boxes):
        for column, track in enumerate(tracks):
            overlap = box.iou(track)
            cost[row][column] = -overlap if overlap >= MIN_IOU else 0.0
    row_potential, column_potential = [0.0] * size, [0.0] * (size + 1)
    row_of = [-1] * (size + 1)  # the row that each column is paired with; the last column is where a new row waits
    for new_row in range(size):
        row_of[size] = new_row
        column = size
        shortest, came_from, done = [math.inf] * size, [size] * size, [False] * (size + 1)
        while row_of[column] != -1:
            done[column] = True
            row = row_of[column]
            step, nearest = math.inf, size
            for other in range(size):
                if not done[other]:
                    slack = cost[row][other] - row_potential[row] - column_potential[other]
                    if slack < shortest[other]:
                        shortest[other], came_from[other] = slack, column
                    if shortest[other] < step:
                        step, nearest = shortest[other], other
            for other in range(size + 1):
                if done[other]:
                    row_potential[row_of[other]] += step
                    column_potential[other] -= step
                elif other < size:
                    shortest[other] -= step
            column = nearest
        while column != size:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    return {
        row_of[column]: column
        for column in range(len(tracks))
        if row_of[column] < len(boxes) and cost[row_of[column]][column] < 0
    }
