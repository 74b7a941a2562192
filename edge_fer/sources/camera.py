"""Cameras that OpenCV reads: V4L2 devices (USB webcams) and network streams."""

from __future__ import annotations

import errno
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

import cv2
import numpy as np

from edge_fer.config import CameraSettings
from edge_fer.core import Frame, Picture
from edge_fer.errors import UnavailableError
from edge_fer.sources import list_cameras

NETWORK_TIMEOUT_MS = 10_000
LONGEST_PAUSE_S = 30.0
YUYV_PIXELS = 640 * 480
"""Up to this size uncompressed pictures pass through USB 2 at 30 Hz."""

# YUYV carries 16-235 for black to white. Models are trained on 0-255, which is also what OpenCV makes of it in colour.
_FULL_RANGE = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)

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


def _frame(raw: Picture, seq: int, time_s: float, stream: str) -> Frame | None:
    """A frame of what a capture read; None where that is a damaged JPEG, which webcams send now and then."""
    color: Any = None  # cv2's types are wider than what comes
    if raw.ndim == 3 and raw.shape[2] == 3:  # BGR
        gray = cv2.cvtColor(raw, cv2.COLOR_BGR2GRAY)
        color = functools.partial(np.asarray, raw)
    elif raw.ndim == 3:  # YUYV, uint8 (height, width, 2): every second byte is grey
        gray = cv2.LUT(cv2.extractChannel(raw, 0), _FULL_RANGE)
        color = functools.partial(cv2.cvtColor, raw, cv2.COLOR_YUV2BGR_YUYV)
    elif raw.shape[0] == 1:  # MJPG, uint8 (1, bytes): grey alone is the cheaper half of decoding
        decoded = cv2.imdecode(raw, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if decoded is None:
            return None
        gray = decoded
        color = functools.partial(cv2.imdecode, raw, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    else:  # a grey camera
        gray = raw
    return Frame(gray.astype(np.uint8, copy=False), seq, time_s, stream, color=color)


def v4l2_source(
    settings: CameraSettings, video_capture: Callable[[str, int], Capture] = cv2.VideoCapture
) -> CameraSource:
    """A V4L2 camera, by number or by device path.

    Raises:
        UnavailableError: there is no such camera, or it is not to be had.
    """
    device = f"/dev/video{settings.source}" if settings.source.isdecimal() else settings.source
    return CameraSource(device, functools.partial(_open_v4l2, device, settings, video_capture), float(settings.fps))


def _open_v4l2(device: str, settings: CameraSettings, video_capture: Callable[[str, int], Capture]) -> Capture:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))  # OpenCV would not tell why it cannot
    except OSError as error:
        raise UnavailableError(_cure(device, settings.source, error)) from None
    capture = video_capture(device, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise UnavailableError(
            f"{device} cannot be used as a camera: another program holds it (`fuser -v {device}` shows which), or it "
            f"is not one. {_found()}"
        )
    small = settings.width * settings.height <= YUYV_PIXELS
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*("YUYV" if small else "MJPG")))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height)
    capture.set(cv2.CAP_PROP_FPS, settings.fps)
    # A driver may have chosen another format. Only of these two do we know how the unconverted bytes are laid out.
    chosen = int(capture.get(cv2.CAP_PROP_FOURCC))
    if chosen in (cv2.VideoWriter.fourcc(*"YUYV"), cv2.VideoWriter.fourcc(*"MJPG")):
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return capture


def _cure(device: str, source: str, error: OSError) -> str:
    if error.errno == errno.EACCES:
        return (
            f"No permission to open {device}. Run `sudo usermod -aG video $USER`, then log out and in again; "
            "a service needs SupplementaryGroups=video."
        )
    if error.errno == errno.EBUSY:
        return f"{device} is in use by another program: `fuser -v {device}` shows which. Stop it, or take another."
    name = f"camera {source} ({device})" if source.isdecimal() else f"camera {device}"
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"No {name}. {_found()}"
    return f"The {name} cannot be opened: {error.strerror}. {_found()}"


def _found() -> str:
    cameras = list_cameras()
    if not cameras:
        return "No camera was found: plug one in. A Raspberry Pi camera module is --camera picamera:0."
    there = ", ".join(f"{device} ({name})" for device, name in cameras)
    return f"Found: {there}. A Raspberry Pi camera module is --camera picamera:0."


def network_source(
    settings: CameraSettings, video_capture: Callable[[str, int, list[int]], Capture] = cv2.VideoCapture
) -> CameraSource:
    """A stream from the network, by URL. Its name leaves out what may be secret: user, password and query.

    Raises:
        UnavailableError: nothing comes from there within ten seconds.
    """
    url = urlsplit(settings.source)
    stream = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()
    timeouts = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS),
    ]

    def open_capture() -> Capture:
        capture = video_capture(settings.source, cv2.CAP_FFMPEG, timeouts)
        if not capture.isOpened():
            raise UnavailableError(
                f"No video comes from {stream}. Check the address, the network, and that user and password are right."
            )
        return capture

    return CameraSource(stream, open_capture, float(settings.fps))
