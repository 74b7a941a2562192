"""Cameras over days: opened again when they are lost, turned upright, with times that can be relied on."""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

from edge_fer.config import CameraSettings
from edge_fer.core import Frame, FrameSource
from edge_fer.errors import UnavailableError, printable
from edge_fer.sources.mounting import mounted
from edge_fer.threads import LatestFrame

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STALL_S = 15.0
"""A camera that shows no sign of life for so long hangs: drivers and networks give up sooner."""
OLDEST_S = 2.0
"""A camera that says a frame is older has another clock."""

log = logging.getLogger("edge_fer")


class LiveSource:
    """A camera that is opened again when it is lost; implements ``core.FrameSource``.

    It is tried again after pauses of 0.5, 1, 2, ... at most 30 seconds, each longer or shorter by up to a quarter, so
    that cameras that were lost together do not come back together. ``seq`` and ``time_s`` go on. The log says once that
    it is lost and once that it is back.

    Iterating anew goes on with the stream; from then on an earlier iteration, which may hang in a driver, gives nothing
    more.

    Args:
        stream: its name, for frames and messages.
        open_camera: opens it: a source that ends, or raises UnavailableError, when the camera is lost.
        settings: nominal rate, and how the camera is mounted.
        later: do not open it now, but when it is iterated, as soon as it is there.
        stall_s: see ``STALL_S``.
        sleep: waits for some seconds.
        clock: as ``time.monotonic``.
        jitter: a number from 0 to 1, each time another.

    Attributes:
        stream: its name: that of the settings, or else the one given.
        counts: frames by what became of them, ``frames`` delivered and ``damaged``, and how often the camera was
            ``lost`` and how often it ``hung``.

    Raises:
        UnavailableError: it cannot be opened, or sends no picture.
    """

    live = True

    def __init__(
        self,
        stream: str,
        open_camera: Callable[[], FrameSource],
        settings: CameraSettings,
        *,
        later: bool = False,
        stall_s: float = STALL_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.fps = float(settings.fps)
        self.counts: Counter[str] = Counter(frames=0, damaged=0, lost=0, hung=0)
        self.stream = printable(settings.name or stream)
        self._open_camera = open_camera
        self._settings = settings
        self._stall_s = stall_s
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter
        self._closed = False
        self._turn = 0  # of the iteration that counts
        self._seq = 0
        self._start_s: float | None = None
        self._last_s = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._alive_s = self._back_s = clock()
        self._camera: FrameSource | None = None
        self._hanging: FrameSource | None = None
        self._off = False
        self._switched_off: FrameSource | None = None  # was closed on purpose
        self._opening: set[int] = set()  # turns
        self._reason = ""
        if not later:
            self._camera = open_camera()
            self.fps = self._camera.fps

    def __iter__(self) -> Iterator[Frame]:
        """Frames as the camera delivers them, until ``close``."""
        self._turn += 1
        turn, camera = self._turn, self._camera
        self._alive_s = self._clock()
        hanging, self._hanging = self._hanging, None
        if hanging is not None:
            hanging.close()  # here, where it may take its time
        try:
            while camera is not None or (camera := self._again(turn)) is not None:
                yield from self._frames(camera, turn)
                if self._is_over(turn):
                    return
                camera.close()
                on_purpose = self._off or camera is self._switched_off
                camera = self._camera = None
                if not on_purpose:
                    self.counts["lost"] += 1
                    log.warning("%s is lost. It is tried again until it is back.", self.stream)
        finally:
            # Given up, or closed; but not where a newer iteration goes on with it.
            if camera is not None and (self._closed or camera is not self._camera):
                camera.close()

    def close(self) -> None:
        """End the iteration and give the camera free."""
        self._closed = True
        if (camera := self._camera) is not None:
            camera.close()

    def switch(self, on: bool) -> None:
        """Close the camera, or have it opened again. The stream goes on: only its count and its time tell of the gap.

        The thread that iterates does it, as soon as the driver lets it; ``is_open`` says when it is done.
        """
        self._off = not on
        if self._off and (camera := self._camera) is not None:
            self._switched_off = camera
            camera.close()

    @property
    def is_open(self) -> bool:
        """Whether the camera is open, is being opened, or hangs while it is."""
        return bool(self._opening) or self._camera is not None or self._hanging is not None

    def give_up_if_stalled(self) -> bool:
        """Whether it hangs. If so, whoever iterates it counts no more: iterate it anew, in another thread."""
        if self._closed or self._clock() - self._alive_s <= self._stall_s:
            return False
        self._turn += 1
        self.counts["hung"] += 1
        self._alive_s = self._clock()
        log.warning("%s hangs. It is opened again.", self.stream)
        self._hanging, self._camera = self._camera or self._hanging, None
        return True

    def _is_over(self, turn: int) -> bool:
        return self._closed or turn != self._turn

    def _frames(self, camera: FrameSource, turn: int) -> Iterator[Frame]:
        """The frames of an open camera, in the stream's own count and time."""
        first_seq, last = self._seq, -1
        try:
            for frame in camera:
                if self._is_over(turn) or self._off:
                    return
                arrived_s = self._alive_s = self._clock()
                told_s = frame.captured_s
                # Not after it arrived, not long before, and never back.
                plausible = told_s is not None and arrived_s - OLDEST_S <= told_s <= arrived_s
                self._last_s = max(self._last_s, told_s if plausible and told_s is not None else arrived_s)
                self._start_s = self._last_s if self._start_s is None else self._start_s
                self.counts["frames"] += 1
                self.counts["damaged"] += frame.seq - last - 1
                last, self._seq = frame.seq, first_seq + frame.seq + 1
                yield dataclasses.replace(
                    mounted(frame, self._settings),
                    seq=first_seq + frame.seq,
                    time_s=self._last_s - self._start_s,
                    stream=self.stream,
                    captured_s=self._last_s,
                )
                del frame  # its images, before the camera makes the next
        except UnavailableError as error:
            if not self._is_over(turn):
                self._say(error)

    def _say(self, reason: UnavailableError) -> None:
        """Tell those who asked for more, once, why it is not there."""
        if str(reason) != self._reason:
            self._reason = str(reason)
            log.info("%s", reason)

    def _again(self, turn: int) -> FrameSource | None:
        """The camera, as soon as it can be opened again; None when this iteration is over."""
        if self._clock() - self._back_s > LONGEST_PAUSE_S:  # else it comes and goes
            self._pause_s = FIRST_PAUSE_S
        while self._waited(turn):
            self._opening.add(turn)
            try:
                camera = self._open_camera()
                if self._is_over(turn):  # in close() the other way round
                    camera.close()
                    return None
                self._camera = camera
                if self._closed or self._off:  # likewise in switch()
                    camera.close()
                    self._camera = None
                    continue
            except UnavailableError as error:
                self._say(error)
                continue
            finally:
                self._opening.discard(turn)
            self._alive_s = self._back_s = self._clock()
            log.warning("%s is %s.", self.stream, "there" if self._start_s is None else "back")
            return camera
        return None

    def _waited(self, turn: int) -> bool:
        """Wait before the next try to open it, and as long as it is off; False when this iteration is over."""
        slices = round(self._pause_s * (0.75 + 0.5 * self._jitter()) / 0.1)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        while not self._is_over(turn):
            self._alive_s = self._clock()
            if self._off:  # it is opened at once when it is switched on
                slices, self._pause_s = 0, FIRST_PAUSE_S
            elif slices <= 0:
                return True
            slices -= 1
            self._sleep(0.1)  # in slices, so that close() need not wait for the end of it
        return False


def newest_of(camera: LiveSource) -> LatestFrame:
    """The newest frame of a camera, which is read in a thread of its own and watched."""
    return LatestFrame(
        camera,
        name=camera.stream,
        counts=camera.counts,
        give_up_if_stalled=camera.give_up_if_stalled,
        switch=camera.switch,
        is_open=lambda: camera.is_open,
    )
