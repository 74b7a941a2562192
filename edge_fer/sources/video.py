"""Videos that end: files, and what comes through a pipe or by HTTP."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from edge_fer.core import Frame, Image
from edge_fer.errors import DataError
from edge_fer.files import native_name
from edge_fer.sources.camera import Capture
from edge_fer.sources.ffmpeg import FfmpegCapture
from edge_fer.sources.pictures import MOST_BYTES, frame_of
from edge_fer.sources.whole import is_cut

DEFAULT_FPS = 25.0
"""Where a video does not tell."""
GIVE_UP_AFTER = 1000
"""Damaged frames in a row after which a video is taken to have ended."""
WITNESSES = 3
"""So often it is asked whether frames that look alike are."""
_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"

log = logging.getLogger("edge_fer")


class VideoCapture(Capture, Protocol):
    """What more is used of it for videos."""

    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...


@contextmanager
def ffmpeg_options(**options: str) -> Iterator[None]:
    """Options of FFmpeg's readers for what is opened meanwhile. An environment variable is the only way to them.

    Who has set the variable wins.
    """
    if not options or _OPTIONS in os.environ:
        yield
        return
    os.environ[_OPTIONS] = "|".join(f"{key};{value}" for key, value in options.items())
    try:
        yield
    finally:
        del os.environ[_OPTIONS]


def open_capture(name: Any, **options: str) -> VideoCapture:
    """Open a video by FFmpeg.

    Args:
        name: as ``files.native_name`` gives it.
        options: see ``ffmpeg_options``.
    """
    with ffmpeg_options(**options):
        # Each thread of the decoder keeps a frame of its own, and FFmpeg would take one for each core.
        return cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])


class _Decoded(NamedTuple):
    """A frame and when it is shown; the sample of its pixels tells whether another is like it."""

    number: int
    shown_s: float
    image: Image
    sample: bytes


class VideoSource:
    """The frames of a video, every one; implements ``core.FrameSource``. It can be iterated once.

    A damaged frame leaves a gap in ``seq``; how many there were is said at the end.

    Args:
        stream: its name, for frames and messages.
        capture: the video, opened.
        path: its file; None where it is none, so that it can be read only once.
        fps: nominal frames per second where the video does not tell.

    Raises:
        DataError: it is not a video. While iterating: it breaks off early.
    """

    live = False

    def __init__(self, stream: str, capture: VideoCapture, path: Path | None = None, fps: float = DEFAULT_FPS) -> None:
        self._stream = stream
        self._path = path
        self._capture = capture
        self._closed = False
        self._busy = False  # inside OpenCV, which must not be disturbed: see CameraSource
        self._number = -1  # of the last frame, damaged ones included
        self._alike = 0  # frames that look like the one before
        self._last_sample = b""
        self._witness: FfmpegCapture | None = None
        self._witness_sample = b""
        self._witnesses = 0
        side_px = [capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        if side_px[0] * side_px[1] * 6 > MOST_BYTES:  # the decoder's frames and ours
            capture.release()
            raise DataError(
                f"{stream} cannot be read: {side_px[0]:.0f} x {side_px[1]:.0f} pixels take too much memory. "
                "Save it smaller."
            )
        # A file can look like a video and still hold no frame, so the first one is fetched here.
        first = self._decode() if capture.isOpened() else None
        if first is None:
            capture.release()
            raise DataError(
                f"{stream} is neither a picture nor a video that OpenCV can read. If it should be one, it is damaged "
                "or was not copied to its end."
            )
        self._ahead = deque([first])
        self._looked_ahead = False
        told = capture.get(cv2.CAP_PROP_FPS)
        # What the video says of itself; 0 or less where it does not know, like a recording that was never finished.
        self._frames_stated = capture.get(cv2.CAP_PROP_FRAME_COUNT) if 0 < told <= 1000 else 0.0
        if not 0 < told <= 120:  # some containers give the clock's ticks for the rate of the pictures
            told = _measured_fps(path) if path else 0.0
        self._interval_s = 1 / (told or fps)
        # What is slower than one frame a second is drawn and written as if it were one.
        self.fps = max(1.0, 1 / self._interval_s)

    def __iter__(self) -> Iterator[Frame]:
        """Every frame in turn. ``Frame.time_s`` is the time it is shown at, so a varying frame rate is kept."""
        frames, last, time_s = 0, 0, 0.0
        try:
            while (decoded := self._next()) is not None:
                shown_s = decoded.shown_s
                if frames:  # some containers carry no times, or times that go back
                    shown_s = shown_s if shown_s > time_s else time_s + self._interval_s
                time_s = max(0.0, shown_s)
                frames, last = frames + 1, decoded.number
                yield frame_of(decoded.image.astype(np.uint8, copy=False), decoded.number, time_s, self._stream)
                del decoded  # before the next is made
            if not self._closed:
                self._report(frames, last, time_s + self._interval_s)
        finally:
            self._busy = False
            if self._closed:
                self._capture.release()

    def close(self) -> None:
        """End the iteration and give the file free; where a thread is reading, as soon as that returns."""
        self._closed = True
        if not self._busy:
            self._capture.release()

    def _next(self) -> _Decoded | None:
        self._busy = True  # in this order, and in close() the other way round
        if self._closed:
            return None
        if not self._looked_ahead:
            # What OpenCV gives for a first frame that it did not convert may be anything: the second one tells.
            self._looked_ahead = True
            if second := self._decode():
                self._ahead.append(second)
        decoded = self._ahead.popleft() if self._ahead else self._decode()
        self._busy = False
        return decoded

    def _decode(self) -> _Decoded | None:
        """The next frame, past those that are damaged."""
        self._number += 1
        given_up = self._number + GIVE_UP_AFTER
        while not self._capture.grab():
            self._number += 1
            if self._closed or self._number == given_up:
                return None
        decoded = _taken(self._capture, self._number)
        if decoded is None:
            return None
        if decoded.sample == self._last_sample:
            self._alike += 1
            decoded = self._witnessed(decoded)
        elif self._witness:
            self._witness.release()
            self._witness = None
        self._last_sample = decoded.sample
        return decoded

    def _witnessed(self, decoded: _Decoded) -> _Decoded:
        """A frame that looks like the one before, or, where OpenCV only said that it has read it, the true one.

        Real ones may look alike too, so FFmpeg is asked as well as long as they do. If it gives others, it is read
        directly from here on.
        """
        if self._path is None or isinstance(self._capture, FfmpegCapture):
            return decoded
        before = None
        if self._witness is None:
            if self._witnesses == WITNESSES:
                return decoded
            self._witnesses += 1
            try:
                rotation = int(self._capture.get(cv2.CAP_PROP_ORIENTATION_META))
                self._witness = FfmpegCapture(native_name(self._path), rotation)
            except OSError:
                return decoded
            for number in range(decoded.number):
                if self._witness.grab() and number == decoded.number - 1:
                    before = _taken(self._witness, number)
            self._witness_sample = before.sample if before else b""
        after = _taken(self._witness, decoded.number) if self._witness.grab() else None
        if not after or (after.sample == self._witness_sample and not _differs(decoded, after)):
            return decoded
        self._capture.release()
        self._capture, self._witness = self._witness, None
        if self._ahead and before:  # the first frame, which nobody has seen yet
            self._ahead[0] = before
        return after

    def _report(self, frames: int, last: int, end_s: float) -> None:
        if damaged := last + 1 - frames:
            what = "1 damaged frame was" if damaged == 1 else f"{damaged} damaged frames were"
            log.warning("%s: %s left out.", self._stream, what)
        if frames > 25 and self._alike == frames - 1 and not isinstance(self._capture, FfmpegCapture):
            log.warning(
                "%s shows one picture from its beginning to its end. If it should not, OpenCV cannot convert it, as it "
                "may be with interlaced video: `ffmpeg -i IN -vf yadif OUT.mp4` makes one that it can.",
                self._stream,
            )
        if is_cut(self._path) if self._path else self._is_short(end_s):
            of = f"{frames} of about {self._frames_stated:.0f}" if self._frames_stated > frames else f"{frames}"
            raise DataError(
                f"{self._stream} ends after {of} frames: the file is cut short. The results up to there are complete."
            )

    def _is_short(self, end_s: float) -> bool:
        """Whether a video that is not a file breaks off: all that can be told is the length that it states."""
        stated_s = self._frames_stated * self._interval_s
        return stated_s - end_s > max(0.5, 0.05 * stated_s)


def open_video(path: Path, **options: str) -> VideoSource:
    """A video file that is known to exist.

    Raises:
        DataError: it is not a video.
    """
    return VideoSource(str(path), open_capture(native_name(path), **options), path)


def _taken(capture: VideoCapture, number: int) -> _Decoded | None:
    """The frame that was grabbed."""
    decoded, image = capture.retrieve()
    if not decoded:
        return None
    return _Decoded(number, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, image, image[::8, ::8, 1].tobytes())


def _differs(decoded: _Decoded, other: _Decoded) -> bool:
    """Whether two readings of a frame are too far apart for different arithmetic."""
    pixels, others = (np.frombuffer(one.sample, np.uint8).astype(np.float64) for one in (decoded, other))
    if pixels.size != others.size:
        return True
    if np.abs(pixels - others).mean() <= 8:
        return False
    # Colors of HDR, which OpenCV brings to those of screens, are still the same picture.
    together = ((pixels - pixels.mean()) * (others - others.mean())).mean()
    return bool(together <= 0.5 * pixels.std() * others.std())


def _measured_fps(path: Path) -> float:
    """The rate at which a video's first frames are shown; 0 where it does not tell."""
    capture = open_capture(native_name(path))
    try:
        times_ms = [capture.get(cv2.CAP_PROP_POS_MSEC) for _ in range(50) if capture.grab()]
    finally:
        capture.release()
    intervals_ms = [later - earlier for earlier, later in pairwise(times_ms) if later > earlier]
    return min(1000.0, 1000 / float(np.median(intervals_ms))) if intervals_ms else 0.0
