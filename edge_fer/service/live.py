"""What clients watch: the newest of each camera, and the streams of events and pictures."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from edge_fer.board import read_health, resident_bytes
from edge_fer.control import Control, State
from edge_fer.core import Face, Frame, FrameResult, Image
from edge_fer.events import Event, Run
from edge_fer.files import shown
from edge_fer.service.http import Channel
from edge_fer.version import __version__

EVENTS_HZ = 10.0
"""So often a stream tells where a face is, at most; what begins, changes or ends is told at once."""
VIDEO_HZ = 10.0
"""Pictures a second, at most."""
STATUS_S = 2.0
"""So often a stream says how the service is."""
BOUNDARY = "edge-fer-frame"
_JPEG_QUALITY = 80
_RATE_FRAMES = 30
_SILENT_S = 3.0

Call = Callable[..., None]


class Camera:
    """What is known of one camera. Written by the loop, read by the server: each value is replaced whole.

    Args:
        name: as events call it.

    Attributes:
        name: see above.
        faces: by track: the last event, and the crop that the model saw, uint8 (height, width, 1).
        frame: facts of the last frame, ready for JSON.
        video: who watches its pictures.
        stills: who waits for one picture.
        told_s: when a stream was last told of its faces.
        pictured_s: when its last picture was made.
        is_encoding: one is on its way.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.faces: dict[int, tuple[Event, Image | None]] = {}
        self.frame: dict[str, Any] = {}
        self.video = Channel()
        self.stills = Channel(once=True)
        self.told_s = self.pictured_s = float("-inf")
        self.is_encoding = False
        self._times_s: deque[float] = deque(maxlen=_RATE_FRAMES)

    def count(self, now_s: float) -> float:
        """A frame has come; returns frames per second."""
        self._times_s.append(now_s)
        return self.fps(now_s)

    def fps(self, now_s: float) -> float:
        """Frames per second in the last seconds."""
        times_s = [time_s for time_s in list(self._times_s) if now_s - time_s <= _SILENT_S]
        return (len(times_s) - 1) / max(times_s[-1] - times_s[0], 1e-3) if len(times_s) > 1 else 0.0


class Live:
    """Takes results in the loop's thread, and serves them in the server's.

    Args:
        run: makes the events, and knows the loop.
        show_video: pictures may be seen. Without it none is made, not even in memory.
        call: lets the server's thread call a function.
        clock: as ``time.monotonic``, of ``Frame.captured_s``.

    Attributes:
        cameras: by name, in the order of their first frames.
        events: who watches the events.
        show_video: see above.
    """

    def __init__(self, run: Run, show_video: bool, call: Call, clock: Callable[[], float] = time.monotonic) -> None:
        self.cameras: dict[str, Camera] = {}
        self.events = Channel()
        self.show_video = show_video
        self._run = run
        self._call = call
        self._clock = clock
        self._started_s = clock()
        self._last_state: State | None = None

    @property
    def watchers(self) -> int:
        """How many see pictures."""
        return sum(len(camera.video) + len(camera.stills) for camera in list(self.cameras.values()))

    @property
    def left_out(self) -> int:
        """How often a slow client was not sent something."""
        return self.events.left_out + sum(camera.video.left_out for camera in list(self.cameras.values()))

    # In the loop's thread.

    def see(self, result: FrameResult, events: Sequence[Event]) -> None:
        """Take a frame.

        Args:
            result: of it.
            events: what ``Run.to_events`` made of it.
        """
        now_s, frame = self._clock(), result.frame
        name = camera_of(frame)
        if frame.still:
            events = [{**event, "camera": name} for event in events]
        camera = self.cameras.get(name)
        if camera is None:
            # Replaced whole: the server may be going through it.
            camera = Camera(name)
            self.cameras = {**self.cameras, name: camera}
        known = camera.faces
        camera.faces = _faces(result.faces, events)
        height, width = frame.gray.shape
        captured_s = frame.captured_s
        camera.frame = {
            "camera": name,
            "seq": frame.seq,
            "time_s": round(frame.time_s, 3),
            "width": width,
            "height": height,
            "faces": len(result.faces),
            "fps": round(camera.count(now_s), 1),
            "since_capture_ms": None if captured_s is None else round(max(0.0, now_s - captured_s) * 1000, 1),
            "latency_ms": {stage: round(ms, 1) for stage, ms in result.latency_ms.items()},
        }
        if self.events.members and (now_s - camera.told_s >= 1 / EVENTS_HZ or _is_news(events, known)):
            camera.told_s = now_s
            self._call(self._tell, list(events), camera.frame)
        is_due = camera.stills.members or (camera.video.members and now_s - camera.pictured_s >= 1 / VIDEO_HZ)
        if self.show_video and is_due and not camera.is_encoding:
            camera.is_encoding, camera.pictured_s = True, now_s
            self._call(self._show, camera, frame.picture())

    def end(self, events: Sequence[Event]) -> None:
        """Faces have left while no frame comes."""
        gone = {event["track"] for event in events}
        for camera in self.cameras.values():
            camera.faces = {track: face for track, face in camera.faces.items() if track not in gone}
        self._call(self._tell, list(events), None)

    def stop(self) -> None:
        """The run is over."""
        self._call(self._tell_status)

    # In the server's thread.

    def _tell(self, events: Sequence[Event], frame: Mapping[str, Any] | None) -> None:
        parts = [sse("expression", event) for event in events]
        self.events.publish("".join([*parts, sse("frame", frame)] if frame else parts).encode())

    def _show(self, camera: Camera, picture: Image) -> None:
        encoded, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        camera.is_encoding = False
        if encoded:
            data = jpeg.tobytes()
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            camera.video.publish(head.encode() + data + b"\r\n")
            camera.stills.publish(data)

    def tick(self) -> None:
        """Tell the streams how the service is; called every ``STATUS_S``, and when somebody has paused it."""
        state = self._run.control.state
        if state is not self._last_state:
            self._last_state = state
            if state in (State.PAUSED, State.PAUSING):
                for camera in self.cameras.values():
                    camera.faces = {}
        if self.events.members:
            self._tell_status()

    def _tell_status(self) -> None:
        self.events.publish(sse("status", self.state()).encode())

    def greeting(self) -> bytes:
        """What a stream of events begins with: how long to wait before it is opened again, the state, the faces."""
        state = self.state()
        faces = "".join(sse("expression", event) for event in state.pop("faces"))
        return f"retry: 2000\n\n{sse('status', state)}{faces}".encode()

    def state(self) -> dict[str, Any]:
        """All that is known now, ready for JSON: ``openapi.json`` describes it."""
        control, now_s, cameras = self._run.control, self._clock(), list(self.cameras.values())
        cameras += [Camera(name) for name in control.cameras if name not in self.cameras]
        return {
            "v": 1,
            "device": self._run.device,
            "version": __version__,
            "state": control.state.value,
            "reason": control.reason,
            "effort": control.effort,
            "enabled": not control.paused,
            "video": self.show_video,
            "uptime_s": round(now_s - self._started_s, 1),
            "model": {"name": self._run.model, "sha256": self._run.model_sha256, "decision": self._run.decision},
            "cameras": [_described(camera, control, now_s) for camera in cameras],
            "faces": [event for camera in cameras for event, _ in camera.faces.values()],
            "board": board(),
            "sinks": [
                {"name": name, "reached": one.reached, "waiting": one.waiting, **one.counts}
                for name, one in control.deliveries.items()
            ],
        }

    def crop(self, track: int) -> bytes | None:
        """The crop of a face that the model saw last, as PNG; None where there is no such face."""
        for camera in self.cameras.values():
            _, crop = camera.faces.get(track, (None, None))
            if crop is not None:
                return cv2.imencode(".png", crop)[1].tobytes()
        return None


def camera_of(frame: Frame) -> str:
    """What the camera of a frame is called here: the pictures of a folder are one, or each would be another."""
    return shown(str(Path(frame.stream).parent) if frame.still else frame.stream)


def sse(name: str, data: Mapping[str, Any]) -> str:
    """One event of a stream of events (server-sent events, HTML standard)."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def board() -> dict[str, Any]:
    """Heat, throttling, memory and load of the board."""
    health = read_health()
    return {
        "temperature_c": health["temperature_c"],
        "throttled": health["throttled"],
        "rss_mb": round(resident_bytes() / 1e6, 1),
        "load": round(os.getloadavg()[0], 2),
    }


def _faces(faces: Sequence[Face], events: Sequence[Event]) -> dict[int, tuple[Event, Image | None]]:
    """Events and crops of the faces of a frame: their events are the last of its, in the same order."""
    own = events[len(events) - len(faces) :]
    return {face.track: (event, face.crop) for face, event in zip(faces, own, strict=True)}


def _is_news(events: Sequence[Event], known: Mapping[int, tuple[Event, Image | None]]) -> bool:
    """Whether a face has come or gone, or shows another expression."""
    for event in events:
        before = known.get(event["track"])
        if event["phase"] != "update" or before is None or before[0]["expression"] != event["expression"]:
            return True
    return False


def _described(camera: Camera, control: Control, now_s: float) -> dict[str, Any]:
    counts: Mapping[str, int] = control.cameras.get(camera.name, {})
    return {
        "name": camera.name,
        **{key: camera.frame.get(key) for key in ("width", "height", "seq", "since_capture_ms", "latency_ms")},
        "fps": round(camera.fps(now_s), 1),
        "dropped": {reason: counts.get(reason, 0) for reason in ("late", "damaged")},
        "lost": counts.get("lost", 0),
    }
