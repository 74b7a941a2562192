"""Tracks: which face of this frame is which face of the last. Where it was, never who it is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edge_fer.core import Detection, Face, FaceBox, Image, Prediction
from edge_fer.detection.schedule import MIN_IOU, KnownFace
from edge_fer.preprocess.alignment import AS_FOUND, Placement
from edge_fer.temporal.smoothing import ExpressionFilter

MAX_GAP_S = 0.5
"""A face that was not seen for longer has left. Shorter gaps are blinks of the detector, or hands before the face."""


class BoxFilter:
    """Steadies a box that trembles without lagging behind one that moves.

    The One Euro filter (Casiez et al., CHI 2012): a low-pass whose cut-off rises with speed. Center and width are
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
                speed += _weight(self.speed_hz, step_s) * ((fresh - old) / (step_s * box.w) - speed)
                speeds.append(speed)
                state.append(old + _weight(self.still_hz + self.rise_hz * abs(speed), step_s) * (fresh - old))
            self._state, self._speed = tuple(state), tuple(speeds)
        x, y, width = self._state
        height = width * box.h / box.w
        return FaceBox(x - width / 2, y - height / 2, width, height)


def _weight(cutoff_hz: float, step_s: float) -> float:
    """How much of the new value a low-pass takes over in a step (Casiez et al., eq. 4 and 5)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff_hz * step_s))


@dataclass(slots=True, eq=False)
class Track:
    """One face over time: all that is remembered of it from frame to frame.

    Attributes:
        known: what the search needs to find it again: its number, where it was last seen, steadied, its template.
        expression: what it showed over time.
        detection: as last found; its box is not steadied.
        seen_s: when it was last seen.
        crop: the crop that was last classified, None before the first.
        classified_s: when that was.
        placement: of the face in its box when it was last measured, as far as the model wants to know.
        placed_s: when that was.
        raw: its prediction.
        face: as last reported, None before the first.
        filter: steadies its box.
    """

    known: KnownFace
    expression: ExpressionFilter
    detection: Detection
    seen_s: float
    crop: Image | None = None
    classified_s: float = 0.0
    placement: Placement = AS_FOUND
    placed_s: float = -math.inf
    raw: Prediction | None = None
    face: Face | None = None
    filter: BoxFilter = field(default_factory=BoxFilter)

    @property
    def number(self) -> int:
        """Of the track; never used again for another."""
        return self.known.key

    @property
    def box(self) -> FaceBox:
        """Where it was last seen, steadied."""
        return self.known.box


class Tracker:
    """Links the detections of successive frames. Numbers start at 1 and are never used again.

    Args:
        new_filter: makes the expression filter of a new track.
        numbers: of the tracks; another tracker may take of them too.
    """

    def __init__(self, new_filter: Callable[[], ExpressionFilter], numbers: Iterator[int] | None = None) -> None:
        self._new_filter = new_filter
        self._tracks: list[Track] = []
        self._numbers = numbers or itertools.count(1)

    def known(self) -> list[KnownFace]:
        """The faces to look for in the next frame, longest known first."""
        return [track.known for track in self._tracks]

    def update(self, found: Sequence[tuple[int | None, Detection]], time_s: float) -> tuple[list[Track], list[Track]]:
        """Take the faces of one frame.

        Args:
            found: the faces, no two of one face, each with the number of its track where the search knows it.
            time_s: time of the frame.

        Returns:
            The track of each face, in the same order, and the tracks that ended.
        """
        by_number = {track.number: track for track in self._tracks}
        matches = {place: by_number.pop(key) for place, (key, _) in enumerate(found) if key is not None}
        rest = {place: detection.box for place, (key, detection) in enumerate(found) if key is None}
        matches |= _matched(rest, list(by_number.values()))
        for track in self._tracks:
            track.known.misses += 1
        current = []
        for place, (_, detection) in enumerate(found):
            track = matches.get(place) or self._new_track(detection, time_s)
            track.known.box = track.filter.update(detection.box, time_s)
            track.detection, track.seen_s, track.known.misses = detection, time_s, 0
            current.append(track)
        # abs: should time run backwards by more than a gap, the old faces are as gone as after one.
        ended = [track for track in self._tracks if abs(time_s - track.seen_s) > MAX_GAP_S]
        self._tracks = [track for track in self._tracks if track not in ended]
        return current, ended

    def end_all(self) -> list[Track]:
        """End all tracks, as before a new stream."""
        ended, self._tracks = self._tracks, []
        return ended

    def _new_track(self, detection: Detection, time_s: float) -> Track:
        track = Track(KnownFace(next(self._numbers), detection.box), self._new_filter(), detection, time_s)
        self._tracks.append(track)
        return track


def _matched(boxes: Mapping[int, FaceBox], tracks: Sequence[Track]) -> dict[int, Track]:
    """Boxes of which the search knew no track, paired greedily with the tracks that are left, best overlap first.

    Greedy as in SORT's successors (norfair): faces that stand apart have one choice, and those that do not came with
    a key.

    Returns:
        The track by the key of the box; pairs that overlap by less than ``MIN_IOU`` stay apart.
    """
    pairs = [(box.iou(track.box), place, track) for place, box in boxes.items() for track in tracks]
    matches: dict[int, Track] = {}
    for overlap, place, track in sorted(pairs, key=lambda pair: -pair[0]):
        if overlap >= MIN_IOU and place not in matches and track not in matches.values():
            matches[place] = track
    return matches
