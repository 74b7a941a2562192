"""An annotated video."""

from __future__ import annotations

import errno
import logging
import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from edge_fer.core import FrameResult, Image
from edge_fer.draw import annotate
from edge_fer.errors import OutputError, UsageError
from edge_fer.events import Run
from edge_fer.files import make_folder, mode_of, next_free, output_error
from edge_fer.threads import PipeToFile

_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_LONGEST_HOLD_S = 2.0
_LEAST_ROOM = 1 << 20
"""With less a disk counts as full for an .avi: FFmpeg writes up to 256 kB at a time, and the index at the end."""
_BRANDS = b"isom\0\0\2\0iso2mp41"
"""What an .mp4 says it is, instead of ISMV, which some players do not know. The fragments are those of any MP4."""

log = logging.getLogger("edge_fer")


class VideoSink:
    """Writes an annotated video; implements ``core.Sink``.

    The video has the nominal rate of the source and keeps the time of the stream: a picture is shown until the next
    one, for 2 s at most, and left out where two fall into the same moment. Its size is that of the first frame;
    others are fitted into it.

    An .mp4 is written in fragments of a frame each: it can be played up to the last of them whatever ends the process.

    Args:
        path: ends in .mp4 or .avi. What is there is replaced; a live camera takes another name, ``annotated-2.mp4`` and
            so on, unless the run overwrites.
        run: gives the frame rate, and tells whether an earlier video is kept.

    Raises:
        UsageError: the file has another ending.
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, run: Run) -> None:
        if path.suffix.lower() not in _CODECS:
            raise UsageError(f"A video ends in .mp4 or .avi, and '{path}' does not: write video:annotated.mp4.")
        make_folder(path.parent)
        if stat.S_ISFIFO(mode_of(path)):
            raise OutputError(f"{path} is a pipe, and a video needs a file. Give it another name.")
        self._path = next_free(path) if run.keeps_earlier and mode_of(path) else path
        if self._path != path:
            log.warning("%s holds an earlier recording. This one goes to %s.", path, self._path)
        try:
            self._file = self._path.open("x+b" if run.keeps_earlier and self._path != path else "w+b", buffering=0)
        except OSError as error:
            raise output_error(self._path, error) from None
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong with a file is said here, in one sentence
        # MPEG-4 counts at most 65535 ticks a second, so the rate must not have many digits.
        self._fps = round(run.fps, 2)
        self._writer: cv2.VideoWriter | None = None
        self._pipe: PipeToFile | None = None
        self._size_wh = (0, 0)
        self._shown: Image | None = None
        self._stream: str | None = None
        self._start_s = 0.0
        self._count = 0
        self._failed = False
        self._check_s = 0.0

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
        self._check()

    def close(self) -> None:
        """Finish the file. Raises OutputError if it could not be written in full, but not again after ``write`` did."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.release()
                if self._pipe is not None:
                    self._pipe.join()
                    if self._pipe.error is not None:
                        with suppress(OSError):  # the disk may be gone
                            os.ftruncate(self._file.fileno(), _end_of_fragments(self._file.fileno()))
                if not self._failed:
                    self._check()
                    self._finish()
            elif self._count == 0 and not self._file.closed and stat.S_ISREG(mode_of(self._path)):
                self._path.unlink(missing_ok=True)
        finally:
            self._file.close()

    def _open(self) -> cv2.VideoWriter:
        is_mp4 = self._path.suffix.lower() == ".mp4"
        # FFmpeg takes the format from a name, and says nothing of a write that fails. So it gets a name of ours that is
        # plain ASCII (one that is not UTF-8 crashes OpenCV) and leads to the open file; for .mp4 through a pipe, whose
        # other end hears of errors. The name says ISMV: an MP4 in fragments, for which OpenCV has no option.
        try:
            with tempfile.TemporaryDirectory(prefix="edge-fer-") as folder:
                name = Path(folder, "video.ismv" if is_mp4 else "video.avi")
                if is_mp4:
                    os.mkfifo(name)
                    pipe = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
                else:
                    name.symlink_to(f"/proc/self/fd/{self._file.fileno()}")
                place = os.open(folder, os.O_RDONLY)
                codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
                url = f"/proc/self/fd/{place}/{name.name}"
                writer = cv2.VideoWriter(url, cv2.CAP_FFMPEG, codec, self._fps, self._size_wh)
                os.close(place)
        except OSError as error:
            raise output_error(self._path, error) from None
        if is_mp4 and writer.isOpened():
            os.set_blocking(pipe, True)
            self._pipe = PipeToFile(pipe, self._file)
        elif is_mp4:
            os.close(pipe)
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

    def _check(self) -> None:
        """Raise OutputError if the file cannot take more."""
        error = self._pipe.error if self._pipe is not None else None
        if self._pipe is None and time.monotonic() >= self._check_s:
            self._check_s = time.monotonic() + 1
            error = _full(self._file.fileno())
        if error is not None:
            self._failed = True
            raise output_error(self._path, error)

    def _finish(self) -> None:
        if self._pipe is not None:
            if stat.S_ISREG(mode_of(self._path)):
                os.pwrite(self._file.fileno(), _BRANDS, 8)
            return
        # An .avi that was cut short states no frames, or more than there are: read the last.
        clip = cv2.VideoCapture(f"/proc/self/fd/{self._file.fileno()}", cv2.CAP_FFMPEG)
        stated = clip.get(cv2.CAP_PROP_FRAME_COUNT)
        clip.set(cv2.CAP_PROP_POS_FRAMES, self._count - 1)
        whole = stated >= self._count and clip.read()[0]
        clip.release()
        if not whole:
            raise OutputError(f"{self._path} could not be written in full. Make room on the disk, and try again.")


def _end_of_fragments(file: int) -> int:
    """Where the last whole fragment of an .mp4 ends. The rest of what a full disk took would show as damaged."""
    size = os.fstat(file).st_size
    place = end = 0
    while place + 8 <= size:  # an .mp4 is a row of boxes: 4 bytes of length, 4 of kind, what it holds
        head = os.pread(file, 8, place)
        length = int.from_bytes(head[:4], "big")
        place += length
        if length < 8 or place > size:
            break
        if head[4:] != b"moof":  # it tells where the images in the box after it are
            end = place
    return end


def _full(file: int) -> OSError | None:
    """Why an open file cannot grow; None where it can, or where the system does not tell."""
    try:
        disk = os.fstatvfs(file)
    except OSError as error:
        return error
    room = (disk.f_bfree if os.geteuid() == 0 else disk.f_bavail) * disk.f_frsize
    if disk.f_blocks and room < _LEAST_ROOM:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


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
