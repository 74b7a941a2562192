"""Annotated pictures, one file a frame."""

from __future__ import annotations

from pathlib import Path

import cv2

from edge_fer.core import FrameResult
from edge_fer.draw import annotate
from edge_fer.errors import OutputError
from edge_fer.files import make_folder, output_error

_QUALITY = 90


class PicturesSink:
    """Writes one annotated JPEG for each frame; implements ``core.Sink``.

    A still picture keeps its name, with ``-2`` and so on where two have the same. Others are numbered by frame.

    Args:
        folder: is made if it is not there.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._folder = folder
        self._names: set[str] = set()

    def write(self, result: FrameResult) -> None:
        """Write the picture of a frame. Raises OutputError."""
        frame = result.frame
        stem = f"{frame.seq:06d}"
        if frame.still and frame.stream:
            source = Path(frame.stream)
            if source.parent.resolve() == self._folder.resolve():
                raise OutputError(f"{self._folder} holds the pictures that are read. Choose another folder for output.")
            stem = self._free_name(source.stem)
        picture = frame.picture()
        annotate(picture, result.faces)
        path = self._folder / f"{stem}.jpg"
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        try:
            path.write_bytes(data.tobytes())
        except OSError as error:
            path.unlink(missing_ok=True)  # half a picture is none
            raise output_error(path, error) from None

    def close(self) -> None:
        """Nothing to do: every picture is complete."""

    def _free_name(self, stem: str) -> str:
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}-{count}"
        self._names.add(name)
        return name
