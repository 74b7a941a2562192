"""Recorded events, as results again: what ``edge-fer replay`` gives to outputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import numpy as np

from edge_fer.core import Expression, Face, FaceBox, Frame, FrameResult, Image, Prediction, Quality
from edge_fer.errors import DataError
from edge_fer.events import EVENT_VERSION, Event, Run

SIZE_WH = (640, 480)
"""Of the empty frame that recorded boxes are drawn into: an event tells shares of its frame alone."""
_LONGEST = 1 << 16
_GRAY = 40


@dataclass(frozen=True, slots=True)
class RecordedResult(FrameResult):
    """A result that is made of events.

    Attributes:
        events: as they were recorded.
        due_s: when, in seconds since the recording began: time of its camera, so that a clip that was read faster than
            it plays is replayed at its own pace.
    """

    events: tuple[Event, ...] = ()
    due_s: float = 0.0


class RecordedRun(Run):
    """A run whose events are those of the recording, unchanged; faces that it leaves open end with its last event."""

    def __init__(self) -> None:
        self._last_ts = ""
        super().__init__(now=lambda: self._last_ts)

    def _made(self, result: FrameResult) -> list[Event]:
        assert isinstance(result, RecordedResult)
        for event in result.events:
            self._last_ts = event["ts"]
            if event["phase"] == "end":
                self._open.pop(event["track"], None)
            else:
                if event["phase"] == "update":  # faces of still images only start, and do not end
                    self._open[event["track"]] = event
                self.device = event["device"]
                self.model, self.model_sha256 = event["model"]["name"], event["model"]["sha256"]
                self.decision = event["model"]["decision"]
        return list(result.events)


def read_results(lines: Iterable[str], name: str) -> Iterator[RecordedResult]:
    """The results of JSON Lines, one for each frame with events.

    A last line that was cut off, as by a loss of power, is left out.

    Args:
        lines: with their ends.
        name: of the file, for messages.

    Raises:
        DataError: names the line that is no event.
    """
    pace = _Pace()
    empty: Image = np.full(SIZE_WH[::-1], _GRAY, np.uint8)
    group: list[Event] = []
    for event in _events(lines, name):
        if group and not _is_of_one_frame(group, event):
            yield _result(group, pace, empty)
            group = []
        group.append(event)
    if group:
        yield _result(group, pace, empty)


def _events(lines: Iterable[str], name: str) -> Iterator[Event]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if len(line) > _LONGEST:
                raise ValueError("it is too long")
            event = json.loads(line, parse_constant=_refuse)
            if not isinstance(event, dict):
                raise ValueError("it is no object")
            if event.get("type", "expression") != "expression":
                continue
            _check(event)
        except KeyError as error:
            raise DataError(
                f"{name}, line {number}: it is no event of edge-fer: {error.args[0]!r} is missing."
            ) from None
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            if not line.endswith("\n") and isinstance(error, json.JSONDecodeError):
                return
            raise DataError(f"{name}, line {number}: it is no event of edge-fer: {error}.") from None
        yield event


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _check(event: Event) -> None:
    """Raises KeyError, TypeError, AttributeError or ValueError where an event cannot be shown."""
    if event["v"] != EVENT_VERSION:
        raise ValueError(f"version {event['v']!r} is not {EVENT_VERSION}")
    if event["phase"] not in ("start", "update", "end"):
        raise ValueError(f"phase {event['phase']!r}")
    datetime.fromisoformat(event["ts"])
    for key in ("device", "camera"):
        if not isinstance(event[key], str):
            raise TypeError(f"{key} is no text")
    for key in ("name", "sha256", "decision"):
        if not isinstance(event["model"][key], str):
            raise TypeError(f"model.{key} is no text")
    if type(event["track"]) is not int or type(event["seq"]) is not int or event["track"] < 1 or event["seq"] < 0:
        raise TypeError("track or seq is no number of a face or frame")
    if len(event["box"]) != 4 or not all(0 <= one <= 1 for one in event["box"]):
        raise ValueError(f"box {event['box']!r}")
    _face(event)


def _is_of_one_frame(group: list[Event], event: Event) -> bool:
    """Whether an event was made with those before it: at the same moment, and of the same frame or a face's end."""
    first = group[0]
    if event["ts"] != first["ts"] or event["phase"] == "end":
        return bool(event["ts"] == first["ts"] and all(one["phase"] == "end" for one in group))
    shown = [one for one in group if one["phase"] != "end"]
    return all((one["camera"], one["seq"]) == (event["camera"], event["seq"]) for one in shown)


class _Pace:
    """When results are due: by the time of their frames; by the time of day where nothing else tells."""

    def __init__(self) -> None:
        self._due_s = 0.0
        self._day_s: float | None = None
        self._offsets_s: dict[str, float] = {}
        self._times_s: dict[str, float] = {}

    def of(self, group: list[Event]) -> float:
        """Seconds since the recording began; they do not fall."""
        day_s = datetime.fromisoformat(group[0]["ts"]).timestamp()
        by_day_s = self._due_s + max(0.0, day_s - (day_s if self._day_s is None else self._day_s))
        self._day_s = day_s
        last = group[-1]
        camera, time_s = last["camera"], float(last["time_s"])
        if last["phase"] == "end":
            self._due_s = by_day_s
        else:
            if time_s < self._times_s.get(camera, float("inf")):  # its first frame, or that of another run
                self._offsets_s[camera] = by_day_s - time_s
            self._times_s[camera] = time_s
            self._due_s = max(self._due_s, time_s + self._offsets_s[camera])
        return self._due_s


def _result(group: list[Event], pace: _Pace, empty: Image) -> RecordedResult:
    last = group[-1]
    frame = Frame(empty, last["seq"], float(last["time_s"]), last["camera"])
    faces = tuple(_face(event) for event in group if event["phase"] != "end")
    ended = tuple(_face(event) for event in group if event["phase"] == "end")
    return RecordedResult(frame, faces, ended, dict(last["latency_ms"]), tuple(group), pace.of(group))


def _face(event: Event) -> Face:
    width, height = SIZE_WH
    x, y, w, h = event["box"]
    probabilities = {Expression(name): float(share) for name, share in event["probabilities"].items()}
    expression, raw = Expression(event["expression"]), Expression(event["raw"])
    prediction = Prediction(probabilities)
    quality: dict[str, Any] = event["quality"]
    if expression not in probabilities:
        raise ValueError(f"there is no probability of {expression}")
    for ms in event["latency_ms"].values():
        float(ms)
    float(event["time_s"])
    return Face(
        track=event["track"],
        phase="start" if event["phase"] == "start" else "update",
        box=FaceBox(x * width, y * height, w * width, h * height),
        expression=expression,
        prediction=prediction,
        raw=prediction if raw is prediction.expression else Prediction({raw: 1.0}),
        stable_ms=float(event["stable_ms"]),
        quality=Quality(int(quality["size_px"]), float(quality["blur"]), float(quality["brightness"])),
        uncertain=event["uncertain"],
    )
