"""Images: a file with one, or with one that moves."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Frame, Image
from edge_fer.errors import DataError
from edge_fer.files import native_name
from edge_fer.sources.header import Header, read_header

MOST_BYTES = 130_000_000
"""What an image may take while it is decoded: with the rest of edge-fer it stays within the 256 MB of the service."""

log = logging.getLogger("edge_fer")


class ImageSource:
    """An image that stands alone; implements ``core.FrameSource``. Its frame is ``still``, its ``stream`` the path.

    Args:
        path: an image. That it exists has been checked.

    Raises:
        DataError: while iterating: the image cannot be decoded.
    """

    fps = 1.0
    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        """The one frame."""
        if not self._closed:
            yield dataclasses.replace(frame_of(read_image(self._path), 0, 0.0, str(self._path)), still=True)

    def close(self) -> None:
        """End the iteration."""
        self._closed = True


class AnimationSource:
    """All frames of an animated PNG, WebP or AVIF; implements ``core.FrameSource``.

    Args:
        path: the file. That it exists has been checked.
        header: what it says of itself.

    Raises:
        DataError: it cannot be decoded.
    """

    live = False

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._closed = False
        check_size(path, header)
        # A few at a time: OpenCV would hold all of them.
        self._chunk = max(1, min(16, MOST_BYTES // 4 // max(1, 4 * header.width * header.height)))
        first = self._read(0)
        if not first:
            raise DataError(f"{path} cannot be decoded: the picture is damaged.")
        self.fps = min(1000.0, max(1.0, 1 / float(np.median([shown_s for _, shown_s in first]))))

    def __iter__(self) -> Iterator[Frame]:
        """Every frame at the time it is shown at."""
        seq, time_s = 0, 0.0
        while not self._closed and (some := self._read(seq)):
            for image, shown_s in some:
                if self._closed:
                    return
                yield frame_of(on_white(image), seq, time_s, str(self._path))
                seq, time_s = seq + 1, time_s + shown_s
            if len(some) < self._chunk:
                return

    def close(self) -> None:
        """End the iteration."""
        self._closed = True

    def _read(self, start: int) -> list[tuple[Any, float]]:
        """Some frames from that one on, each with the seconds for which it is shown."""
        try:
            with _stderr_taken():
                read, animation = cv2.imreadanimation(native_name(self._path), start, self._chunk)
        except cv2.error:
            return []
        # As browsers have it: who gives no time means a tenth of a second.
        durations = [ms / 1000 if ms > 0 else 0.1 for ms in map(float, animation.durations)]
        return list(zip(animation.frames, durations, strict=False)) if read else []


def frame_of(image: Image, seq: int, time_s: float, stream: str) -> Frame:
    """A frame of an image, uint8 (height, width) or (height, width, 3) BGR."""
    if image.ndim == 2:
        return Frame(image, seq, time_s, stream)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    return Frame(gray, seq, time_s, stream, color=lambda: image)


def check_size(path: Path, header: Header) -> int:
    """By how much each side of an image has to be reduced while it is decoded: 1, 2, 4 or 8; only JPEG can be.

    Raises:
        DataError: it would still take too much memory.
    """
    for reduction in (1, 2, 4, 8) if header.kind == "jpeg" else (1,):
        if header.bytes_to_decode(reduction) <= MOST_BYTES:
            return reduction
    raise DataError(
        f"{path} cannot be decoded: {header.width} x {header.height} pixels of this kind take too much memory. "
        "Save it smaller."
    )


def read_image(path: Path) -> Image:
    """Decode an image file as people see it: turned as its EXIF data say, what is transparent on white.

    A JPEG that is too large is reduced on the way.

    Returns:
        uint8 (height, width) where the file is gray, (height, width, 3) BGR otherwise.

    Raises:
        DataError: it cannot be decoded.
    """
    image = None
    try:
        header = read_header(path)
        reduction = check_size(path, header)
        # OpenCV turns a JPEG itself. Elsewhere it does so only where it drops what is transparent.
        reduced = {1: 0, 2: 16, 4: 32, 8: 64}[reduction]  # cv2.IMREAD_REDUCED_GRAYSCALE_2 and so on
        kinds = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
        if header.kind == "heic":
            image = _read_heic(path, header)
        elif header.kind == "pam" and header.white == 1:
            raise DataError(f"{path} is a PAM of black and white alone, which OpenCV misreads. Save it as PNG.")
        elif header.kind == "tiff" and header.orientation > 4:
            image = _read_lying_tiff(path, header)
        else:
            image = _imread(path, kinds | reduced if header.kind == "jpeg" else cv2.IMREAD_UNCHANGED)
    except (cv2.error, OSError):  # cv2.error: larger than OpenCV's limit, by default 2**30 pixels
        image = None
    if image is None:
        raise DataError(f"{path} cannot be decoded: the picture is damaged, or too large.")
    if header.kind != "tiff" or header.orientation > 4:  # of TIFF, OpenCV does the others
        image = _upright(image, header.orientation)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path} has {image.dtype} pixels. Save it with 8 or 16 bits a channel.")
    if channels > 4:
        raise DataError(f"{path} has {channels} channels. Save it in gray or in color.")
    white = header.white or np.iinfo(image.dtype).max
    if white != 255:
        image = cv2.convertScaleAbs(image, alpha=255 / white)
    return on_white(image)


def on_white(image: NDArray[Any]) -> Image:
    """An image without its transparency, if it has any: uint8 (height, width, 4) -> (height, width, 3), 2 -> gray."""
    if image.ndim == 2 or image.shape[2] not in (2, 4):
        return image.astype(np.uint8, copy=False)
    blended = np.empty((*image.shape[:2], image.shape[2] - 1), np.uint8)
    for top in range(0, len(image), 64):  # a few rows at a time, since 16 bits take twice the memory
        rows = image[top : top + 64]
        alpha = rows[..., -1:].astype(np.uint16)
        blended[top : top + 64] = (rows[..., :-1] * alpha + 255 * (255 - alpha) + 127) // 255
    return blended if blended.shape[2] == 3 else blended[..., 0]


def _upright(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo what EXIF's orientation says of how an image is stored."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _read_lying_tiff(path: Path, header: Header) -> NDArray[Any] | None:
    """A TIFF that stands on its side, as it is stored: OpenCV reads none that says so."""
    data = np.fromfile(path, np.uint8)
    data[header.orientation_at : header.orientation_at + 2] = [1, 0] if data[0] == ord("I") else [0, 1]
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def _read_heic(path: Path, header: Header) -> NDArray[Any] | None:
    """A HEIC photo as it is stored, by FFmpeg, which knows only the parts that it may be put together of."""
    capture = cv2.VideoCapture(native_name(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    try:
        read, image = capture.read()
    finally:
        capture.release()
    if read and image.shape[:2] != (header.height, header.width):
        raise DataError(
            f"{path} is made of tiles, as iPhones do, and OpenCV reads only one of them. Save it as JPEG: "
            f"`heif-convert {path.name} photo.jpg`."
        )
    return image if read else None


def _imread(path: Path, flags: int) -> NDArray[Any] | None:
    with _stderr_taken() as said:
        image = cv2.imread(native_name(path), flags)
    if b"Premature end of JPEG" in said.getvalue():
        log.warning("%s is cut short: what is missing is gray. Copy it again.", path)
    return image


@contextmanager
def _stderr_taken() -> Iterator[BytesIO]:
    """What libjpeg and libpng print on stderr meanwhile, to be said in our words, or not at all."""
    taken = BytesIO()
    with os.fdopen(os.memfd_create("stderr"), "w+b") as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield taken
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            taken.write(said.read())
