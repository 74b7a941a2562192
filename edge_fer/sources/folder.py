"""All images and videos of a folder."""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from edge_fer.core import Frame, FrameSource
from edge_fer.errors import DataError, EdgeFerError, InputMissingError
from edge_fer.files import native_name

STILL_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".jp2", ".j2k", ".png", ".bmp", ".dib"),
    *(".webp", ".avif", ".heic", ".heif", ".hif", ".tif", ".tiff", ".pgm", ".ppm", ".pbm", ".pnm", ".pam", ".tga"),
    *(".ico", ".pcx", ".ras", ".sr"),
}
"""Files in a folder that should be images: those that are not are named."""
MOVING_SUFFIXES = {
    *(".gif", ".apng", ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".vob", ".ts"),
    *(".mts", ".m2ts", ".dv", ".wmv", ".flv", ".ogv", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc"),
}
"""Likewise, videos and animations."""

log = logging.getLogger("edge_fer")


class FolderSource:
    """All images and videos of a folder and the folders in it, sorted by path; implements ``core.FrameSource``.

    What cannot be read is named in the log; a file leaves a gap in ``seq``. A file that neither is called nor looks
    like an image is passed over, and so are links to folders.

    Args:
        folder: that it exists has been checked.
        open_file: opens one of the files.

    Raises:
        InputMissingError: nothing to read in the folder.
        DataError: while iterating: nothing in the folder can be decoded.
    """

    live = False

    def __init__(self, folder: Path, open_file: Callable[[Path], FrameSource]) -> None:
        self._folder = folder
        self._open_file = open_file
        self._closed = False
        self._current: FrameSource | None = None
        # Not rglob: it fails when a folder goes away under it.
        walk = os.walk(folder, onerror=_name_folder)
        self._files = sorted(Path(above, name) for above, _, names in walk for name in names)
        if not any(map(is_candidate, self._files)):
            raise InputMissingError(f"No picture in the folder {folder} (looked for .jpg, .png, .webp and others).")
        self.fps = 25.0 if any(file.suffix.lower() in MOVING_SUFFIXES for file in self._files) else 1.0

    def __iter__(self) -> Iterator[Frame]:
        """The frames of each file; images are a second apart."""
        readable = 0
        next_seq, next_s = 0, 0.0
        for file in filter(is_candidate, self._files):
            if self._closed:
                return
            seq, time_s = next_seq, next_s
            next_seq, next_s = seq + 1, time_s + 1
            frames = 0
            try:
                self._current = self._open_file(file)
                for frame in self._current:
                    frames += 1
                    next_seq, next_s = seq + frame.seq + 1, time_s + frame.time_s + 1
                    yield dataclasses.replace(frame, seq=seq + frame.seq, time_s=time_s + frame.time_s)
            except EdgeFerError as error:
                log.warning("%s It is left out." if not frames else "%s", error)
            finally:
                if self._current is not None:
                    self._current.close()
            readable += frames > 0
        if not readable and not self._closed:
            raise DataError(f"No picture in {self._folder} can be decoded: all are damaged.")

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        if self._current is not None:
            self._current.close()


def _name_folder(error: OSError) -> None:
    """Say which folder cannot be read."""
    log.warning("%s cannot be read: %s. It is left out.", error.filename, error.strerror)


def is_candidate(file: Path) -> bool:
    """Whether a file is called, or looks, like an image or a video."""
    if file.suffix.lower() in STILL_SUFFIXES | MOVING_SUFFIXES:
        return True
    try:
        return stat.S_ISREG(file.stat().st_mode) and cv2.haveImageReader(native_name(file))
    except OSError:
        return False
