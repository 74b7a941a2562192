"""What the device sees and does now, in one flat table: the state that MQTT publishes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from edge_fer.board import BOARD, BoardFiles, read_health
from edge_fer.control import Control, State
from edge_fer.core import FrameResult
from edge_fer.events import Event, utc_now

HEALTH_S = 10.0
"""How often temperature and throttling are read."""
STALE_S = 5.0
"""The faces of a camera that has sent nothing for longer are seen no more."""
RATE_S = 2.0
"""Time over which rates are means."""
CLEARLY_LARGER = 1.3
"""By this factor another face must be wider to speak in place of the one that did."""


class Summary:
    """What the device sees and does now, in one flat table.

    Where several faces are seen, by whatever cameras, the largest one speaks, until another is clearly larger.

    Args:
        control: of the loop.
        board: tells temperature and throttling.
        clock: seconds that only grow.
    """

    def __init__(
        self, control: Control, board: BoardFiles = BOARD, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._control = control
        self._board = board
        self._clock = clock
        self._faces: dict[str, tuple[float, list[Event]]] = {}
        self._speaker = -1  # number of its track
        self._since_s = clock()
        self._frames = 0
        self._took_ms = 0.0
        self._fps = self._inference_ms = 0.0
        self._health: dict[str, Any] = {}
        self._health_s = float("-inf")

    def add(self, result: FrameResult, events: Sequence[Event]) -> None:
        """Take the result of a frame and its events."""
        faces = [event for event in events if event["phase"] != "end"]
        now_s = self._clock()
        # Made anew, as other threads read it; streams that are over are left out.
        others = {name: seen for name, seen in self._faces.items() if seen[0] >= now_s - STALE_S}
        self._faces = {**others, result.frame.stream: (now_s, faces)}
        self._speaker = self._next_speaker(self._seen())
        self._frames += 1
        self._took_ms += sum(result.latency_ms.values())
        passed_s = self._clock() - self._since_s
        if passed_s >= RATE_S:
            self._fps, self._inference_ms = self._frames / passed_s, self._took_ms / self._frames
            self._since_s, self._frames, self._took_ms = self._clock(), 0, 0.0

    @property
    def confidence(self) -> float | None:
        """Of the largest face; None without one."""
        largest = self._largest()
        return None if largest is None else float(largest["confidence"])

    def is_other(self, published: dict[str, Any]) -> bool:
        """Whether what people act on has changed."""
        largest, control = self._largest(), self._control
        return (
            published.get("state") != control.state
            or published.get("faces") != len(self._seen())
            or published.get("expression") != (largest and largest["expression"])
            or published.get("uncertain") != (largest and largest["uncertain"])
            or published.get("reason") != (control.reason or None)
            or published.get("effort") != (control.effort or None)
        )

    def now(self) -> dict[str, Any]:
        """The table; null where there is nothing to say."""
        if self._clock() - self._health_s >= HEALTH_S:
            self._health_s, self._health = self._clock(), read_health(self._board)
        largest, control = self._largest() or {}, self._control
        recognizes = control.state is State.RECOGNIZING
        throttled = self._health.get("throttled")
        return {
            "ts": utc_now(),
            "state": control.state.value,
            "reason": control.reason or None,
            "effort": control.effort or None,
            "faces": len(self._seen()),
            **{key: largest.get(key) for key in ("camera", "expression", "confidence", "uncertain")},
            **{key: largest.get(key) for key in ("intensity", "valence", "arousal")},
            "fps": round(self._fps, 1) if recognizes else 0.0,
            "inference_ms": round(self._inference_ms, 1) if recognizes else None,
            "temperature_c": self._health.get("temperature_c"),
            "throttled": None if throttled is None else any("since boot" not in one for one in throttled),
        }

    def flat(self, state: dict[str, Any]) -> dict[str, Any]:
        """The table for platforms that keep numbers: with the probabilities, and without nested tables."""
        largest = self._largest() or {}
        return {**state, **{f"p_{name}": p for name, p in largest.get("probabilities", {}).items()}}

    def _seen(self) -> list[Event]:
        """The faces of all cameras; none of one that has sent no frame lately, or while it does not recognize."""
        if self._control.state is not State.RECOGNIZING:
            return []
        since_s = self._clock() - STALE_S
        return [face for seen_s, faces in self._faces.values() if seen_s >= since_s for face in faces]

    def _next_speaker(self, faces: Sequence[Event]) -> int:
        sizes = {face["track"]: face["quality"]["size_px"] for face in faces}
        largest = max(sizes, key=sizes.__getitem__, default=-1)
        stays = sizes.get(self._speaker, 0) * CLEARLY_LARGER >= sizes.get(largest, 0)
        return self._speaker if sizes and stays else largest

    def _largest(self) -> Event | None:
        """The face that speaks; None where none is seen."""
        faces = self._seen()
        return next((face for face in faces if face["track"] == self._speaker), faces[0] if faces else None)
