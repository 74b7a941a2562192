"""What others may ask of the loop while it runs, and what it tells of itself: between sinks, signals and the loop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_fer.sinks.delivery import Delivery


class State(StrEnum):
    """What the loop does. ``STATUS=`` of the service, ``/readyz`` and MQTT say it in this word."""

    STARTING = "starting"
    """It begins, or goes on after a pause, and no frame has come yet."""
    WAITING = "waiting"
    """No camera sends a frame: none is there, or it is being opened."""
    RECOGNIZING = "recognizing"
    PAUSING = "pausing"
    """It was paused, and a camera is not closed yet."""
    PAUSED = "paused"
    """It was paused, and all cameras are closed."""
    STOPPED = "stopped"


class Control:
    """One for each pipeline, made by it and shared with its sinks (``Run.control``).

    Any thread and any signal handler may call; the loop sees to it within a fifth of a second. Nothing here waits and
    nothing needs a lock: each value is written whole.

    Args:
        paused: whether it begins paused.
        clock: as ``time.monotonic``.

    Attributes:
        state: what the loop does now, written by the loop alone.
        reason: why ``state`` is what it is, a sentence for people; "" where nothing needs to be said.
        effort: how the governor has slowed it down, and why; "" where it has not.
        frames: how many frames were processed.
        last_frame_s: when the last one was, on the clock; None before the first.
        alive_s: when the loop last came round, with a frame or without; None before it began.
        cameras: what became of the frames of each live camera, by name: ``late``, ``damaged``, and how often it was
            ``lost``.
        deliveries: the queues of outputs in the network, by the name of the receiver, without its secrets.
    """

    def __init__(self, paused: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = State.STARTING
        self.reason = ""
        self.effort = ""
        self.frames = 0
        self.last_frame_s: float | None = None
        self.alive_s: float | None = None
        self.cameras: dict[str, Counter[str]] = {}
        self.deliveries: dict[str, Delivery[Any]] = {}
        self.clock = clock
        self._paused = paused

    def own_name(self, receiver: str) -> str:
        """A name for one more of ``deliveries``: of its receiver, numbered where there is one of that name.

        What tells two receivers on one host apart may be secret, and is not shown.
        """
        name, count = receiver, 1
        while name in self.deliveries:
            count += 1
            name = f"{receiver} #{count}"
        return name

    @property
    def paused(self) -> bool:
        """Whether somebody wants it paused. That it is, and all cameras are closed, is told by ``state``."""
        return self._paused

    def pause(self) -> None:
        """Close the cameras and look at no frame until ``resume``."""
        self._paused = True

    def resume(self) -> None:
        """Open the cameras again."""
        self._paused = False
