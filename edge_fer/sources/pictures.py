"""Images: one file, or a folder of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Frame, Image
from edge_fer.errors import DataError, InputMissingError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".bmp", ".webp", ".avif", ".tif", ".tiff"),
    *(".pgm", ".ppm", ".pbm", ".pnm", ".gif"),
)
"""Files in a folder that count as images."""

log = logging.getLogger("edge_fer")


class ImageSource:
    """An image, or all images of a folder and the folders in it, sorted by path; implements ``core.FrameSource``.

    Every frame is ``still``; its ``stream`` is the path. An image in a folder that cannot be decoded is named in the
    log and leaves a gap in ``seq``.

    Args:
        path: an image or a folder. That it exists has been checked.

    Raises:
        InputMissingError: no image in the folder.
        DataError: while iterating: the image, or every image of the folder, cannot be decoded.
    """

    fps = 1.0
    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = False
        self._files = [path]
        if path.is_dir():
            # Not rglob: it fails when a folder goes away under it.
            files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
            self._files = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
            if not self._files:
                raise InputMissingError(f"No picture in the folder {path} (looked for .jpg, .png, .webp and others).")

    def __iter__(self) -> Iterator[Frame]:
        """One frame for each image, a second apart."""
        readable = 0
        for seq, file in enumerate(self._files):
            if self._closed:
                return
            try:
                image = read_image(file)
            except DataError as error:
                if file == self._path:
                    raise
                log.warning("%s It is left out.", error)
                continue
            readable += 1
            yield _frame(image, seq, str(file))
        if not readable:
            raise DataError(f"No picture in {self._path} can be decoded: all are damaged.")

    def close(self) -> None:
        """End the iteration."""
        self._closed = True


def _frame(image: Image, seq: int, stream: str) -> Frame:
    if image.ndim == 2:
        return Frame(image, seq, float(seq), stream, still=True)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    return Frame(gray, seq, float(seq), stream, still=True, color=lambda: image)


def read_image(path: Path) -> Image:
    """Decode an image file as people see it: turned as its EXIF data say, what is transparent on white.

    Returns:
        uint8 (height, width) where the file is gray, (height, width, 3) BGR otherwise.

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        image = _imread(path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
        with path.open("rb") as file:
            is_jpeg = file.read(2) == b"\xff\xd8"
        if image is not None and not is_jpeg:
            # Only IMREAD_UNCHANGED gives transparency, but it does not turn the image: a second look is needed.
            whole = _imread(path, cv2.IMREAD_UNCHANGED)
            if whole is not None and whole.ndim == 3 and whole.shape[2] == 4:
                image = whole
    except (cv2.error, OSError):  # cv2.error: larger than OpenCV's limit, by default 2**30 pixels
        image = None
    if image is None:
        raise DataError(f"{path} cannot be decoded: the picture is damaged, or too large.")
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if image.dtype != np.uint8:
        raise DataError(f"{path} has {image.dtype} pixels. Save it with 8 or 16 bits a channel.")
    if image.ndim == 3 and image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.uint16)
        image = (image[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return image.astype(np.uint8, copy=False)


def _imread(path: Path, flags: int) -> NDArray[Any] | None:
    """``cv2.imread``, with what libjpeg and libpng print on stderr said in our words, or not at all."""
    with os.fdopen(os.memfd_create("stderr"), "w+b") as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            image = cv2.imread(str(path), flags)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        said.seek(0)
        if b"Premature end of JPEG" in said.read():
            log.warning("%s is cut short: what is missing is gray. Copy it again.", path)
    return image
