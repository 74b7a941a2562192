"""Events: what a result looks like to other programs. ``event.schema.json`` describes them field by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from edge_fer.core import Face, FaceBox, FrameResult, Picture
from edge_fer.temporal import intensity, valence_arousal

Event: TypeAlias = dict[str, Any]
"""One face at one moment, ready for ``json.dumps``. It holds no picture and nothing that tells who somebody is."""

EVENT_VERSION = 1
"""Grows when a field goes away or changes its meaning."""


@dataclass(frozen=True)
class RunInfo:
    """What stays the same during a run.

    Attributes:
        device: name of the board.
        model: name of the model.
        model_sha256: of its file, in hex.
        fps: nominal frames per second of the source.
        live: the source is a camera, not a file.
    """

    device: str
    model: str
    model_sha256: str
    fps: float
    live: bool


def utc_now() -> str:
    """The time of day in UTC, ISO 8601 with milliseconds and Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class EventStream:
    """Turns results into events and knows which faces are still to be ended.

    A face's life is ``start``, any number of ``update``, ``end``. The ``end`` repeats the last event of the face,
    with the time of day at which it was missed. The faces of still pictures only ``start``.

    Args:
        run: named in every event.
        now: gives the time of day, as ``utc_now`` does.
    """

    def __init__(self, run: RunInfo, now: Callable[[], str] = utc_now) -> None:
        self._run = run
        self._now = now
        self._open: dict[int, Event] = {}

    def events(self, result: FrameResult) -> list[Event]:
        """The ends of the faces that left before this frame, then one event for each face in it, largest first."""
        ts = self._now()
        events = [self._end(face.track, ts) for face in result.ended if face.track in self._open]
        for face in result.faces:
            event = self._event(face, result, ts)
            events.append(event)
            if not result.frame.still:
                self._open[face.track] = event
        return events

    def closing(self) -> list[Event]:
        """The ends of all faces that are still there when the stream stops. A second call gives none."""
        ts = self._now()
        return [self._end(track, ts) for track in list(self._open)]

    def _end(self, track: int, ts: str) -> Event:
        return {**self._open.pop(track), "phase": "end", "ts": ts}

    def _event(self, face: Face, result: FrameResult, ts: str) -> Event:
        frame, prediction, quality = result.frame, face.prediction, face.quality
        valence, arousal = valence_arousal(prediction)
        return {
            "v": EVENT_VERSION,
            "type": "expression",
            "phase": face.phase,
            "ts": ts,
            "device": self._run.device,
            "camera": frame.stream,
            "seq": frame.seq,
            "time_s": round(frame.time_s, 3),
            "track": face.track,
            "box": _share(face.box, frame.gray),
            "expression": face.expression.value,
            "confidence": round(face.confidence, 4),
            "uncertain": face.uncertain,
            "probabilities": {label.value: round(p, 4) for label, p in prediction.probabilities.items()},
            "raw": face.raw.expression.value,
            "intensity": round(intensity(prediction, face.expression), 4),
            "valence": round(valence, 4),
            "arousal": round(arousal, 4),
            "stable_ms": round(face.stable_ms, 1),
            "quality": {
                "size_px": quality.size_px,
                "blur": round(quality.blur, 1),
                "brightness": round(quality.brightness, 4),
            },
            "latency_ms": {stage: round(ms, 1) for stage, ms in result.latency_ms.items()},
            "model": {"name": self._run.model, "sha256": self._run.model_sha256},
        }


def _share(box: FaceBox, gray: Picture) -> list[float]:
    """The part of the box that lies in the picture, [x, y, w, h] as shares of its width and height."""
    height, width = gray.shape
    # The edges are rounded, not the sizes, so that x + w never passes 1.
    left, right = (round(min(max(x / width, 0.0), 1.0), 4) for x in (box.x, box.x + box.w))
    top, bottom = (round(min(max(y / height, 0.0), 1.0), 4) for y in (box.y, box.y + box.h))
    return [left, top, round(right - left, 4), round(bottom - top, 4)]
