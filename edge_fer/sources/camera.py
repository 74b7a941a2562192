"""Frames of an open capture of OpenCV, whatever its pixels look like."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

import cv2
import numpy as np

from edge_fer.core import Frame, Image
from edge_fer.errors import UnavailableError

# YUYV carries 16-235 for black to white. Models are trained on 0-255, which is also what OpenCV makes of it in color.
FULL_RANGE = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)
"""For ``cv2.LUT``."""

MOST_LINES = 960
"""From so many lines on an image is halved: what remains shows faces as small as in the common 640x480."""

_REDUCED_GRAY = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_REDUCED_COLOR = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class Capture(Protocol):
    """What is used of ``cv2.VideoCapture``."""

    def isOpened(self) -> bool: ...
    def read(self) -> tuple[bool, Any]: ...
    def get(self, propId: int, /) -> float: ...
    def set(self, propId: int, value: float, /) -> bool: ...
    def release(self) -> None: ...


class Decoded(NamedTuple):
    """The gray image of a frame, uint8 (height, width), and what makes its BGR image."""

    gray: Image
    color: Callable[[], Image] | None


Decode: TypeAlias = Callable[[Image, int], Decoded | None]
"""Makes an image of what a capture read, each side divided by the second argument; None where that is damaged."""


class CaptureSource:
    """Frames of an open capture; implements ``core.FrameSource``. The iteration ends when nothing comes any more.

    Args:
        stream: its name, for frames and messages.
        capture: open. It is released with this object, also where that cannot be made.
        fps: nominal frames per second, where the camera does not tell.
        decode: makes an image of what it reads.
        full_size: keep the size of the camera's images; else large ones are reduced, see ``reduction``.
        times: ``cv2.CAP_PROP_POS_MSEC`` of the capture is when the camera took the frame, on the monotonic clock.

    Raises:
        UnavailableError: it sends no picture.
    """

    live = True

    def __init__(
        self,
        stream: str,
        capture: Capture,
        fps: float,
        *,
        decode: Decode | None = None,
        full_size: bool = False,
        times: bool = False,
    ) -> None:
        self._stream = stream
        self._capture = capture
        self._decode = decode or decode_by_shape
        self._times = times
        self._closed = False
        self._busy = False  # inside OpenCV, which must not be disturbed: releasing a capture under a read can crash
        received, raw = capture.read()
        first = self._decode(raw, 1) if received else None
        if first is None:
            capture.release()
            raise UnavailableError(
                f"{stream} is there but sends no picture. Unplug it and plug it in again, or try a smaller --width "
                "and --height. A Raspberry Pi camera module is --camera picamera:0."
            )
        height, width = first.gray.shape
        self.size_wh = (width, height)
        self._reduction = 1 if full_size else reduction(width, height)
        told = capture.get(cv2.CAP_PROP_FPS)
        self.fps = told if 0 < told <= 1000 else fps

    def __iter__(self) -> Iterator[Frame]:
        """Frames as the camera delivers them. A damaged one, which webcams send now and then, is a gap in ``seq``."""
        seq = 0
        first_s: float | None = None
        try:
            while True:
                # In this order, and in close() the other way round: either we see its mark or it sees ours.
                self._busy = True
                if self._closed:
                    return
                received, raw = self._capture.read()
                if not received:
                    return
                told_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if self._times else None
                decoded = self._decode(raw, self._reduction)
                del raw  # a large one is not kept where a small one was made of it
                self._busy = False
                if decoded is not None:
                    first_s = told_s if first_s is None else first_s
                    time_s = seq / self.fps if told_s is None or first_s is None else max(0.0, told_s - first_s)
                    yield Frame(decoded.gray, seq, time_s, self._stream, color=decoded.color, captured_s=told_s)
                    del decoded  # before the next is made
                seq += 1
        finally:
            self._busy = False
            if self._closed:
                self._capture.release()

    def close(self) -> None:
        """End the iteration and give the camera free; where a thread is reading, as soon as that returns."""
        self._closed = True
        if not self._busy:
            self._capture.release()


def reduction(width: int, height: int) -> int:
    """By what the sides of a live image are divided, 1, 2, 4 or 8, so that it keeps at least half of ``MOST_LINES``."""
    factor = 1
    while factor < 8 and min(width, height) // factor >= MOST_LINES:
        factor *= 2
    return factor


def decode_by_shape(raw: Image, factor: int) -> Decoded | None:
    """BGR, uint8 (height, width, 3); YUYV, (height, width, 2); a JPEG, (1, bytes); or gray, (height, width)."""
    if raw.ndim == 3 and raw.shape[2] == 3:
        bgr = reduced(raw, factor)
        return Decoded(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False), lambda: bgr)
    if raw.ndim == 3:  # every second byte is gray
        gray = cv2.LUT(reduced(cv2.extractChannel(raw, 0).astype(np.uint8, copy=False), factor), FULL_RANGE)
        return Decoded(gray.astype(np.uint8, copy=False), _color_of(raw, cv2.COLOR_YUV2BGR_YUYV, factor))
    if raw.shape[0] == 1:  # gray alone is the cheaper half of decoding, and a reduced one the cheapest
        decoded: Any = cv2.imdecode(raw, _REDUCED_GRAY[factor] | cv2.IMREAD_IGNORE_ORIENTATION)
        if decoded is None:
            return None
        flags = _REDUCED_COLOR[factor] | cv2.IMREAD_IGNORE_ORIENTATION
        color: Any = functools.partial(cv2.imdecode, raw, flags)
        return Decoded(decoded, color)
    return Decoded(reduced(raw, factor), None)


def decode_yuv420(raw: Image, factor: int, conversion: int = cv2.COLOR_YUV2BGR_NV12) -> Decoded:
    """Planes of limited range, uint8 (height * 3 / 2, width): the upper two thirds are gray.

    Args:
        raw: the planes.
        factor: see ``Decode``.
        conversion: OpenCV's code for the order of the two others.
    """
    gray = cv2.LUT(reduced(raw[: raw.shape[0] * 2 // 3], factor), FULL_RANGE)
    return Decoded(gray.astype(np.uint8, copy=False), _color_of(raw, conversion, factor))


def reduced(image: Image, factor: int) -> Image:
    """An image, each side divided by a whole factor; the same array where that is 1."""
    if factor == 1:
        return image
    height, width = image.shape[:2]
    size_wh = (width // factor, height // factor)
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _color_of(raw: Image, conversion: int, factor: int) -> Callable[[], Image]:
    def make() -> Image:
        return reduced(cv2.cvtColor(raw, conversion).astype(np.uint8, copy=False), factor)

    return make
