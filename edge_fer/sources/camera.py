"""Frames of a live capture of OpenCV, which is opened again when it is lost."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np

from edge_fer.core import Frame, Image
from edge_fer.errors import UnavailableError

LONGEST_PAUSE_S = 30.0

# YUYV carries 16-235 for black to white. Models are trained on 0-255, which is also what OpenCV makes of it in color.
FULL_RANGE = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)
"""For ``cv2.LUT``."""

log = logging.getLogger("edge_fer")


class Capture(Protocol):
    """What is used of ``cv2.VideoCapture``."""

    def isOpened(self) -> bool: ...
    def read(self) -> tuple[bool, Any]: ...
    def get(self, propId: int, /) -> float: ...
    def set(self, propId: int, value: float, /) -> bool: ...
    def release(self) -> None: ...


class CameraSource:
    """Frames of a camera through OpenCV; implements ``core.FrameSource``.

    A camera that is lost on the way is opened again, after pauses of 0.5, 1, 2, ... at most 30 seconds. ``seq`` and
    ``time_s`` go on. The log says once that it is lost and once that it is back.

    Args:
        stream: its name, for frames and messages.
        open_capture: opens it, or raises UnavailableError.
        fps: nominal frames per second, where the camera does not tell.
        sleep: waits for some seconds.

    Raises:
        UnavailableError: it cannot be opened, or sends no picture.
    """

    live = True

    def __init__(
        self,
        stream: str,
        open_capture: Callable[[], Capture],
        fps: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stream = stream
        self._open_capture = open_capture
        self._sleep = sleep
        self._closed = False
        self._busy = False  # inside OpenCV, which must not be disturbed: releasing a capture under a read can crash
        self._capture = self._connect()
        self._start_s = time.monotonic()
        told = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = told if 0 < told <= 1000 else fps

    def __iter__(self) -> Iterator[Frame]:
        """Frames as the camera delivers them, until ``close``."""
        seq = 0
        try:
            while True:
                # In this order, and in close() the other way round: either we see its mark or it sees ours.
                self._busy = True
                if self._closed:
                    return
                received, raw = self._capture.read()
                time_s = time.monotonic() - self._start_s
                if not received:
                    self._reconnect()
                    continue
                frame = _frame(raw, seq, time_s, self._stream)
                self._busy = False
                seq += 1
                if frame is not None:
                    yield frame
        finally:
            self._busy = False
            if self._closed:
                self._capture.release()

    def close(self) -> None:
        """End the iteration and give the camera free; where a thread is reading, as soon as that returns."""
        self._closed = True
        if not self._busy:
            self._capture.release()

    def _connect(self) -> Capture:
        capture = self._open_capture()
        received, raw = capture.read()
        if received and _frame(raw, 0, 0.0, self._stream) is not None:
            return capture
        capture.release()
        raise UnavailableError(
            f"{self._stream} is there but sends no picture. Unplug it and plug it in again, or try a smaller --width "
            "and --height. A Raspberry Pi camera module is --camera picamera:0."
        )

    def _reconnect(self) -> None:
        log.warning("%s is lost. It is tried again until it is back.", self._stream)
        self._capture.release()
        pause_s = 0.5
        while True:
            for _ in range(round(pause_s / 0.1)):  # in slices, so that close() need not wait for the end of it
                if self._closed:
                    return
                self._sleep(0.1)
            try:
                self._capture = self._connect()
            except UnavailableError:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                log.warning("%s is back.", self._stream)
                return


def _frame(raw: Image, seq: int, time_s: float, stream: str) -> Frame | None:
    """A frame of what a capture read; None where that is a damaged JPEG, which webcams send now and then."""
    color: Any = None  # cv2's types are wider than what comes
    if raw.ndim == 3 and raw.shape[2] == 3:  # BGR
        gray = cv2.cvtColor(raw, cv2.COLOR_BGR2GRAY)
        color = functools.partial(np.asarray, raw)
    elif raw.ndim == 3:  # YUYV, uint8 (height, width, 2): every second byte is gray
        gray = cv2.LUT(cv2.extractChannel(raw, 0), FULL_RANGE)
        color = functools.partial(cv2.cvtColor, raw, cv2.COLOR_YUV2BGR_YUYV)
    elif raw.shape[0] == 1:  # MJPG, uint8 (1, bytes): gray alone is the cheaper half of decoding
        decoded = cv2.imdecode(raw, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if decoded is None:
            return None
        gray = decoded
        color = functools.partial(cv2.imdecode, raw, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    else:  # a gray camera
        gray = raw
    return Frame(gray.astype(np.uint8, copy=False), seq, time_s, stream, color=color)
