"""Videos that end: files, and what comes through a pipe or by HTTP."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Protocol

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
        self._damaged = 0
        self._alike = 0
        side_px = [capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        if side_px[0] * side_px[1] * 6 > MOST_BYTES:  # the decoder's frames and ours
            capture.release()
            raise DataError(
                f"{stream} cannot be read: {side_px[0]:.0f} x {side_px[1]:.0f} pixels take too much memory. "
                "Save it smaller."
            )
        # A file can look like a video and still hold no frame, so the first one is fetched here.
        if not capture.isOpened() or not self._grab():
            capture.release()
            raise DataError(
                f"{stream} is neither a picture nor a video that OpenCV can read. If it should be one, it is damaged "
                "or was not copied to its end."
            )
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
        seq, time_s, last = -1, -self._interval_s, b""
        try:
            while not self._closed:
                self._busy = True  # in this order, and in close() the other way round
                if self._closed or (seq >= 0 and not self._grab()):
                    break
                decoded, image = self._capture.retrieve()
                if not decoded:
                    break
                seq += 1
                sample = _sample(image)
                if self._is_unconverted(sample, last, seq + self._damaged):
                    decoded, image = self._capture.retrieve()
                    sample = _sample(image)
                last = sample
                shown_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                self._busy = False
                if seq:  # some containers carry no times, or times that go back
                    shown_s = shown_s if shown_s > time_s else time_s + self._interval_s
                time_s = max(0.0, shown_s)
                yield frame_of(image.astype(np.uint8, copy=False), seq + self._damaged, time_s, self._stream)
                del image  # before the next is made
            if not self._closed:
                self._report(seq + 1, time_s + self._interval_s)
        finally:
            self._busy = False
            if self._closed:
                self._capture.release()

    def close(self) -> None:
        """End the iteration and give the file free; where a thread is reading, as soon as that returns."""
        self._closed = True
        if not self._busy:
            self._capture.release()

    def _grab(self) -> bool:
        """Decode the next frame, past those that are damaged."""
        for failed in range(GIVE_UP_AFTER):
            if self._capture.grab():
                self._damaged += failed
                return True
            if self._closed:
                break
        return False

    def _is_unconverted(self, sample: bytes, last: bytes, number: int) -> bool:
        """Whether OpenCV said that it has read this frame and has not; then FFmpeg is read directly from here on.

        Such a frame looks like the one before, the first one black. Real ones do so too, so both are decoded again.
        """
        if sample != last and (last or any(sample)):
            return False
        self._alike += 1
        if self._path is None or self._alike not in (1, 10, 100) or isinstance(self._capture, FfmpegCapture):
            return False
        with suppress(OSError):
            direct = FfmpegCapture(native_name(self._path))
            seen = [bytes(len(sample))] * 2
            for at in range(number + 1):
                if not direct.grab() and not direct.grab():
                    break
                if at >= number - 1:
                    seen = [seen[1], _sample(direct.retrieve()[1])]
            else:
                if seen[0] != seen[1]:
                    self._capture.release()
                    self._capture = direct
                    return True
            direct.release()
        return False

    def _report(self, frames: int, end_s: float) -> None:
        if self._damaged:
            what = "1 damaged frame was" if self._damaged == 1 else f"{self._damaged} damaged frames were"
            log.warning("%s: %s left out.", self._stream, what)
        if self._alike == frames > 25 and not isinstance(self._capture, FfmpegCapture):
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


def _sample(image: Image) -> bytes:
    """A few pixels, which tell whether a frame is like another."""
    return image[::8, ::8, 1].tobytes()


def _measured_fps(path: Path) -> float:
    """The rate at which a video's first frames are shown; 0 where it does not tell."""
    capture = open_capture(native_name(path))
    try:
        times_ms = [capture.get(cv2.CAP_PROP_POS_MSEC) for _ in range(50) if capture.grab()]
    finally:
        capture.release()
    intervals_ms = [later - earlier for earlier, later in pairwise(times_ms) if later > earlier]
    return min(1000.0, 1000 / median(intervals_ms)) if intervals_ms else 0.0
