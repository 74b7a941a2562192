"""Video that another program writes, as ``rpicam-vid -o -`` does."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import select
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edge_fer.config import CameraSettings
from edge_fer.core import Frame, FrameSource, Image
from edge_fer.errors import DataError, InputMissingError, UsageError
from edge_fer.files import output_error
from edge_fer.sources.camera import decode_yuv420, reduction
from edge_fer.sources.mounting import as_set
from edge_fer.sources.video import VideoSource, open_capture

_RAW = re.compile(r"pipe:(\d{1,5})x(\d{1,5})@(\d{1,4}(?:\.\d+)?)(?::(.+))?", re.DOTALL)
_MOST_PX = 16_384
_WAKE_S = 0.2
"""How long a read waits before it looks whether it was closed."""

log = logging.getLogger("edge_fer")


class RawSource:
    """Frames without any container, YUV420 planes one after the other; implements ``core.FrameSource``.

    Black and white are 16 and 235 in them, as in all video, rows have no padding, and one second has ``fps`` frames.

    Args:
        stream: for frames and messages.
        file: a file descriptor, which is closed with this object.
        size_wh: pixels of a frame, even numbers.
        fps: frames per second.
        full_size: keep the size of the frames; else large ones are reduced, see ``camera.reduction``.
    """

    live = False

    def __init__(
        self, stream: str, file: int, size_wh: tuple[int, int], fps: float, *, full_size: bool = False
    ) -> None:
        self.fps = fps
        self._reduction = 1 if full_size else reduction(*size_wh)
        self._stream = stream
        self._file = file
        self._size_wh = size_wh
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        """Every frame. Raises DataError where there is not even one."""
        width, height = self._size_wh
        seq = 0
        while not self._closed:
            yuv: Image = np.empty((height * 3 // 2, width), np.uint8)
            got = self._fill(yuv.data.cast("B"))
            if self._closed:
                return
            if got < yuv.size:
                self._report(seq, got, yuv.size)
                return
            captured_s = time.monotonic()
            gray, color = decode_yuv420(yuv, self._reduction, cv2.COLOR_YUV2BGR_I420)
            yield Frame(gray, seq, seq / self.fps, self._stream, color=color, captured_s=captured_s)
            del yuv, gray, color  # before the next is made
            seq += 1

    def close(self) -> None:
        """End the iteration; where it is waiting for data, within a moment."""
        if not self._closed:
            self._closed = True
            if self._file > 2:
                os.close(self._file)

    def _fill(self, into: memoryview) -> int:
        """Read until the buffer is full, the writer has left or ``close``; returns how many bytes were read."""
        done = 0
        while done < len(into) and not self._closed:
            try:
                if not select.select([self._file], [], [], _WAKE_S)[0] or self._closed:
                    continue
                got = os.readv(self._file, [into[done:]])
            except OSError:
                if self._closed:  # by a signal handler, meanwhile
                    break
                raise
            if not got:
                break
            done += got
        return done

    def _report(self, frames: int, left: int, wanted: int) -> None:
        width, height = self._size_wh
        if not frames:
            raise DataError(
                f"{self._stream} ended after {left} bytes; a frame of {width} x {height} pixels has {wanted}. Check "
                "the size, and what writes into the pipe."
            )
        if left:
            log.warning("%s ended in the middle of a frame. Is %d x %d its size?", self._stream, width, height)


def raw_source(settings: CameraSettings) -> FrameSource:
    """What ``pipe:WxH@HZ[:PATH]`` names: a named pipe or a file, or else standard input.

    Raises:
        UsageError: it is written wrongly.
        InputMissingError: there is nothing to read.
    """
    found = _RAW.fullmatch(settings.source)
    width, height, fps = (int(found[1]), int(found[2]), float(found[3])) if found else (0, 0, 0.0)
    if not found or not 0 < fps <= 1000 or any(not 2 <= px <= _MOST_PX or px % 2 for px in (width, height)):
        raise UsageError(
            f"{settings.source} is not a pipe: write pipe:640x480@30 for YUV420 frames of that size, in even numbers, "
            "and rate from standard input, or pipe:640x480@30:PATH for those of a named pipe."
        )
    if not found[4]:
        _check_stdin()
        return as_set(RawSource("stdin", 0, (width, height), fps, full_size=settings.full_size), settings)
    path = Path(os.path.expanduser(found[4]))  # noqa: PTH111 - pathlib's fails where there is no such user
    try:
        # Without O_NONBLOCK a named pipe is open only when its writer comes.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InputMissingError(f"{path} cannot be read: {error.strerror}.") from None
    if stat.S_ISDIR(os.fstat(file).st_mode):
        os.close(file)
        raise InputMissingError(f"{path} is a folder, not a pipe.")
    return as_set(RawSource(str(path), file, (width, height), fps, full_size=settings.full_size), settings)


def stdin_source(settings: CameraSettings) -> VideoSource:
    """A video from standard input, in any format that can be read from beginning to end.

    Raises:
        InputMissingError: there is nothing to read.
        DataError: it is not such a video.
        OutputError: it must be copied into the folder for temporary files, and cannot be.
    """
    _check_stdin()
    if _has_index_at_end(_peek(256)):
        return _copied_source()
    try:
        # A video without times, as H.264 or MJPEG alone, has the asked rate.
        return VideoSource("stdin", open_capture("pipe:0", framerate=str(settings.fps)), fps=float(settings.fps))
    except DataError:
        raise DataError(
            "What comes from standard input is neither a picture nor a video. Planes of pixels are --camera "
            "pipe:640x480@30, with their size and rate."
        ) from None


def _copied_source() -> VideoSource:
    """A video from standard input of which all is needed before its beginning can be read."""
    place = "a temporary file"
    try:
        place = f"to {tempfile.gettempdir()}, the folder for temporary files (TMPDIR)"
        with tempfile.NamedTemporaryFile(prefix="edge-fer-") as copy:
            with open(0, "rb", closefd=False) as stdin:
                shutil.copyfileobj(stdin, copy)
            copy.flush()
            return VideoSource("stdin", open_capture(copy.name))  # it lives on while it is open
    except OSError as error:
        raise output_error(place, error) from None


def _peek(size: int) -> bytes:
    """What comes next from standard input, without taking it; b"" where it is no pipe."""
    out, into = os.pipe()
    try:
        copied = ctypes.CDLL(None).tee(0, into, size, 0)
        return os.read(out, size) if copied > 0 else b""
    finally:
        os.close(out)
        os.close(into)


def _has_index_at_end(head: bytes) -> bool:
    """Whether an .mp4 or .mov has its pictures before the index, without which they cannot be read."""
    at = 0
    while head[at + 4 : at + 8] in (b"ftyp", b"free", b"wide", b"skip"):
        at += max(8, int.from_bytes(head[at : at + 4], "big"))
    return head[at + 4 : at + 8] == b"mdat"


def _check_stdin() -> None:
    try:
        if os.isatty(0):
            raise InputMissingError(
                "Nothing comes from standard input: `rpicam-vid -t 0 -o - | edge-fer run --camera -` reads a pipe."
            )
        os.fstat(0)
    except OSError:
        raise InputMissingError("Standard input is closed: there is nothing to read.") from None
