"""An annotated video."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from edge_fer.core import FrameResult, Image
from edge_fer.draw import annotate
from edge_fer.errors import OutputError, UsageError
from edge_fer.events import Run
from edge_fer.files import make_folder, output_error

_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_LONGEST_HOLD_S = 2.0


class VideoSink:
    """Writes an annotated video; implements ``core.Sink``.

    The video has the nominal rate of the source and keeps the time of the stream: a picture is shown until the next
    one, for 2 s at most, and left out where two fall into the same moment. Its size is that of the first frame;
    others are fitted into it.

    Args:
        path: ends in .mp4 or .avi; is replaced.
        run: gives the frame rate.

    Raises:
        UsageError: the file has another ending.
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, run: Run) -> None:
        if path.suffix.lower() not in _CODECS:
            raise UsageError(f"A video ends in .mp4 or .avi, and '{path}' does not: write video:annotated.mp4.")
        make_folder(path.parent)
        try:
            path.open("wb").close()
        except OSError as error:
            raise output_error(path, error) from None
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong with a file is said here, in one sentence
        self._path = path
        # MPEG-4 counts at most 65535 ticks a second, so the rate must not have many digits.
        self._fps = round(run.fps, 2)
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self._shown: Image | None = None
        self._stream: str | None = None
        self._start_s = 0.0
        self._count = 0

    def write(self, result: FrameResult) -> None:
        """Add the picture of a frame. Raises OutputError."""
        frame = result.frame
        if frame.stream != self._stream:
            self._stream = frame.stream
            self._start_s = frame.time_s - self._count / self._fps
        place = round((frame.time_s - self._start_s) * self._fps)
        if place < self._count:
            return
        held = place - self._count
        longest = round(_LONGEST_HOLD_S * self._fps)
        if held > longest:
            self._start_s += (held - longest) / self._fps
        for _ in range(min(held, longest)):
            self._put()
        picture = frame.picture()
        annotate(picture, result.faces)
        if self._writer is None:
            height, width = frame.gray.shape
            self._size_wh = (max(2, width - width % 2), max(2, height - height % 2))
            self._writer = self._open()
        self._shown = _fitted(picture, self._size_wh)
        self._put()

    def close(self) -> None:
        """Finish the file. Raises OutputError if it cannot be played, as when the disk is full."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.release()
            if not self._is_complete():  # the writer says nothing of failed writes
                raise OutputError(f"{self._path} could not be written in full. Make room on the disk, and try again.")
        elif self._count == 0:
            self._path.unlink(missing_ok=True)

    def _open(self) -> cv2.VideoWriter:
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
        # An absolute path, because FFmpeg takes "a:b.mp4" for a protocol; and FFmpeg, because OpenCV takes "%d" for
        # a series of pictures.
        path = str(self._path.absolute())
        writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, codec, self._fps, self._size_wh)
        if not writer.isOpened():
            width, height = self._size_wh
            raise OutputError(
                f"OpenCV cannot write {self._path} with {width} x {height} pixels at {self._fps:g} frames a second. "
                "Try a name that ends in .avi."
            )
        return writer

    def _put(self) -> None:
        if self._writer is not None and self._shown is not None:
            self._writer.write(self._shown)
            self._count += 1

    def _is_complete(self) -> bool:
        clip = cv2.VideoCapture(str(self._path.absolute()), cv2.CAP_FFMPEG)
        try:
            # An .avi that was cut short states no frames, and an .mp4 may state more than there are: read the last.
            stated = clip.get(cv2.CAP_PROP_FRAME_COUNT)
            clip.set(cv2.CAP_PROP_POS_FRAMES, self._count - 1)
            return stated >= self._count and clip.read()[0]
        finally:
            clip.release()


def _fitted(picture: Image, size_wh: tuple[int, int]) -> Image:
    """The picture, uint8 (height, width, 3), centered on a black one of another size and made as large as it can be."""
    height, width = picture.shape[:2]
    if (width, height) == size_wh:
        return picture
    scale = min(size_wh[0] / width, size_wh[1] / height)
    inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size_wh[0] - inner_w) // 2, (size_wh[1] - inner_h) // 2
    fitted = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    fitted[top : top + inner_h, left : left + inner_w] = cv2.resize(
        picture, (inner_w, inner_h), interpolation=cv2.INTER_AREA
    )
    return fitted
