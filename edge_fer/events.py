"""Events: what a result looks like to other programs. ``event.schema.json`` describes them field by field."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias
from weakref import ReferenceType, ref

from edge_fer.compound import compound_of
from edge_fer.config import DecisionKind
from edge_fer.control import Control
from edge_fer.core import Face, FaceBox, FrameResult, Image
from edge_fer.files import shown
from edge_fer.temporal.affect import intensity, valence_arousal

Event: TypeAlias = dict[str, Any]
"""One face at one moment, ready for ``json.dumps``. It holds no image and nothing that tells who somebody is."""

EVENT_VERSION = 1
"""Grows when a field goes away or changes its meaning."""


_MOST_SHOWN = 1000
_MOST_TURN = 10.0
"""A profile's eyes may be one point, and JSON has no infinity."""


def utc_now() -> str:
    """The time of day in UTC, ISO 8601 with milliseconds and Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Run:
    """One run of a source through a model: names itself in events, and makes each result's events once for all sinks.

    A face's life is ``start``, any number of ``update``, ``end``. The ``end`` repeats the last event of the face,
    with the time of day at which it was missed. The faces of still images only ``start``.

    Args:
        device: name of the board; "" for the host name.
        model: name of the model.
        model_sha256: of its FlatBuffer, in hex.
        decision: the rule by which its answers are made of its logits.
        compound: whether events say which two expressions a face shows at once.
        fps: nominal frames per second of the source.
        live: the source is a camera, not a file. What an earlier run wrote is kept: text files are continued, videos
            and folders of pictures get a number.
        overwrite: it is replaced all the same.
        now: gives the time of day, as ``utc_now`` does.
        clock: of ``Frame.captured_s``.
        control: what sinks may ask of the loop, and what it tells of itself; None for one that no loop heeds.

    Attributes:
        device: see above.
        live: see above.
        control: see above.
    """

    def __init__(
        self,
        device: str = "",
        model: str = "",
        model_sha256: str = "",
        *,
        decision: DecisionKind = "balanced",
        compound: bool = False,
        fps: float = 30.0,
        live: bool = False,
        overwrite: bool = False,
        now: Callable[[], str] = utc_now,
        clock: Callable[[], float] = time.monotonic,
        control: Control | None = None,
    ) -> None:
        self.control = control or Control()
        self.device = shown(device) or platform.node()
        self.model = model
        self.model_sha256 = model_sha256
        self.decision = decision
        self.compound = compound
        self.fps = fps
        self.live = live
        self.keeps_earlier = live and not overwrite
        self._now = now
        self._clock = clock
        self._open: dict[int, Event] = {}
        # A weak reference: the frame of the last result must not outlive the loop's.
        self._latest: ReferenceType[FrameResult] | None = None
        self._events: list[Event] = []
        self._ends: list[Event] | None = None

    def to_events(self, result: FrameResult) -> list[Event]:
        """The ends of the faces that left before this frame, then one event for each face in it, largest first.

        The same list for every sink that asks about the latest result; an older one is not asked about again.
        """
        if self._latest is None or self._latest() is not result:
            self._latest = ref(result)
            self._events = self._made(result)
        return self._events

    def end(self, faces: Iterable[Face]) -> list[Event]:
        """The ends of faces that left while no frame comes; none of one that has ended."""
        return self._ends_of(faces, self._now())

    def to_ends(self) -> list[Event]:
        """The ends of all faces that are still there when the run stops, the same for every sink."""
        if self._ends is None:
            ts = self._now()
            self._ends = [self._end(track, ts) for track in list(self._open)]
        return self._ends

    def _made(self, result: FrameResult) -> list[Event]:
        ts = self._now()
        events = self._ends_of(result.ended, ts)
        for face in result.faces:
            event = self._event(face, result, ts)
            events.append(event)
            if not result.frame.still:
                self._open[face.track] = event
        return events

    def _ends_of(self, faces: Iterable[Face], ts: str) -> list[Event]:
        return [self._end(face.track, ts) for face in faces if face.track in self._open]

    def _end(self, track: int, ts: str) -> Event:
        return {**self._open.pop(track), "phase": "end", "ts": ts}

    def _event(self, face: Face, result: FrameResult, ts: str) -> Event:
        frame, prediction, quality = result.frame, face.prediction, face.quality
        latency_ms = dict(result.latency_ms)
        if frame.captured_s is not None:
            latency_ms["since_capture"] = max(0.0, (self._clock() - frame.captured_s) * 1000)
        valence, arousal = valence_arousal(prediction)
        return {
            "v": EVENT_VERSION,
            "type": "expression",
            "phase": face.phase,
            "ts": ts,
            "device": self.device,
            "camera": shown(frame.stream),
            "seq": frame.seq,
            "time_s": round(frame.time_s, 3),
            "track": face.track,
            "box": _relative(face.box, frame.gray),
            "expression": face.expression.value,
            "confidence": round(face.confidence, 4),
            "uncertain": face.uncertain,
            **({"compound": compound_of(prediction.probabilities)} if self.compound else {}),
            "probabilities": {label.value: round(p, 4) for label, p in prediction.probabilities.items()},
            "raw": face.raw.expression.value,
            "intensity": round(intensity(prediction, face.expression) if face.intensity is None else face.intensity, 4),
            "valence": round(valence, 4),
            "arousal": round(arousal, 4),
            "stable_ms": round(face.stable_ms, 1),
            "quality": {
                "size_px": quality.size_px,
                "blur": round(quality.blur, 1),
                "brightness": round(quality.brightness, 4),
                "noise": round(quality.noise, 3),
                "eyes": round(quality.eyes, 3),
                "mouth": round(quality.mouth, 3),
                "turn": None if quality.turn is None else round(min(quality.turn, _MOST_TURN), 3),
            },
            "latency_ms": {stage: round(ms, 1) for stage, ms in latency_ms.items()},
            "model": {"name": self.model, "sha256": self.model_sha256, "decision": self.decision},
        }


class Changes:
    """Tells which events are worth a message: a face that comes or goes, or shows another expression."""

    def __init__(self) -> None:
        self._shown: dict[int, str] = {}

    def of(self, events: Iterable[Event]) -> list[Event]:
        """Those of these events that are."""
        return [event for event in events if self._is_one(event)]

    def _is_one(self, event: Event) -> bool:
        track, expression, phase = event["track"], event["expression"], event["phase"]
        if phase == "end":
            self._shown.pop(track, None)
            return True
        if phase == "update" and self._shown.get(track) == expression:
            return False
        self._shown[track] = expression
        if len(self._shown) > _MOST_SHOWN:
            del self._shown[next(iter(self._shown))]  # the faces of still images never end
        return True


def to_events(results: Iterable[FrameResult], run: Run | None = None) -> Iterator[Event]:
    """The events of a stream of results, the ends of its last faces included.

    Args:
        results: as ``Recognizer.stream`` gives them.
        run: what they say of the run; None names the device alone.
    """
    run = run or Run()
    for result in results:
        yield from run.to_events(result)
    yield from run.to_ends()


def _relative(box: FaceBox, gray: Image) -> list[float]:
    """The part of the box that lies in the image, [x, y, w, h] as fractions of its width and height."""
    height, width = gray.shape
    # The edges are rounded, not the sizes, so that x + w never passes 1.
    left, right = (round(min(max(x / width, 0.0), 1.0), 4) for x in (box.x, box.x + box.w))
    top, bottom = (round(min(max(y / height, 0.0), 1.0), 4) for y in (box.y, box.y + box.h))
    return [left, top, round(right - left, 4), round(bottom - top, 4)]
