"""The camera on a Raspberry Pi's ribbon cable, by way of rpicam-vid: for where picamera2 is not to be had."""

from __future__ import annotations

import array
import fcntl
import logging
import os
import select
import subprocess
import tempfile
import termios
from collections.abc import Iterator
from contextlib import suppress

from edge_fer.config import CameraSettings
from edge_fer.core import Frame
from edge_fer.errors import DataError, UnavailableError
from edge_fer.sources.pipe import RawSource

FIRST_S = 10.0
"""How long rpicam-vid may take to its first frame."""

_ROW_PX = 64
"""libcamera pads the rows of a picture, and rpicam-vid writes them as they are; multiples of this need no padding."""

log = logging.getLogger("edge_fer")


class RpicamSource:
    """Frames of a Pi camera that the program rpicam-vid reads; implements ``core.FrameSource``.

    The program is a part of Raspberry Pi OS and needs no Python, so it does not matter which NumPy is installed.

    Args:
        number: which camera, from 0, as ``rpicam-vid --list-cameras`` counts them.
        settings: size, frame rate, focus and exposure that the camera is asked for; the width is rounded down to a
            multiple of 64, the height to an even number.
        first_s: how long the first frame may take.

    Raises:
        UnavailableError: rpicam-vid is not installed, or no frame comes from it. While iterating: it has ended.
    """

    live = True

    def __init__(self, number: int, settings: CameraSettings, first_s: float = FIRST_S) -> None:
        self.fps = float(settings.fps)
        self._stream = f"rpicam:{number}"
        self._closed = False
        width, height = max(_ROW_PX, settings.width // _ROW_PX * _ROW_PX), max(2, settings.height // 2 * 2)
        command = ["rpicam-vid", "--camera", str(number), "--width", str(width), "--height", str(height)]
        command += ["--framerate", str(settings.fps), "--codec", "yuv420", "--timeout", "0", "--nopreview"]
        if not settings.autofocus:  # else the lens moves all the time, where it can
            command += ["--autofocus-mode", "manual"]
        if settings.exposure_ms:
            command += ["--shutter", str(round(settings.exposure_ms * 1000))]  # microseconds
        # In a file, since nobody reads a pipe while frames come.
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        frames, into = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*command, "--verbose", "0", "--output", "-"],
                stdin=subprocess.DEVNULL,
                stdout=into,
                stderr=self._messages,
            )
        except OSError as error:
            os.close(frames)
            self._messages.close()
            raise UnavailableError(
                f"rpicam-vid cannot be started ({error.strerror}): run `sudo apt install rpicam-apps-lite`."
            ) from None
        finally:
            os.close(into)
        self._source = RawSource(self._stream, frames, (width, height), self.fps, full_size=settings.full_size)
        try:
            if not select.select([frames], [], [], first_s)[0]:
                raise UnavailableError(
                    f"{self._stream} has sent nothing for {first_s:g} seconds. Check its ribbon cable."
                )
            if not _waiting_bytes(frames):  # its end
                raise self._lost()
        except BaseException:
            self.close()
            raise
        asked_wh = (settings.width, settings.height)
        if asked_wh != (width, height):
            log.warning("%s gives %d x %d pixels; asked for were %d x %d.", self._stream, width, height, *asked_wh)

    def __iter__(self) -> Iterator[Frame]:
        """Every frame, until ``close``. Raises UnavailableError where rpicam-vid ends."""
        with suppress(DataError):  # it ended before the first frame was whole
            yield from self._source
        if not self._closed:
            raise self._lost()

    def close(self) -> None:
        """End the iteration and rpicam-vid."""
        if not self._closed:
            self._closed = True
            self._process.kill()
            self._process.wait()
            self._source.close()
            self._messages.close()

    def _lost(self) -> UnavailableError:
        """Why there are no frames, in the last words of rpicam-vid."""
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").split("\n")
        said = next((line.strip(" *.") for line in reversed(lines) if line.strip()), "it said nothing")
        return UnavailableError(
            f"rpicam-vid gives no frames of {self._stream} ({said}). `rpicam-hello --list-cameras` shows the cameras; "
            "check both ends of the ribbon cable."
        )


def _waiting_bytes(pipe: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]
