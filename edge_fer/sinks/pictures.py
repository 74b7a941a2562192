"""Annotated pictures, one file a frame."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2

from edge_fer.config import PicturesSettings
from edge_fer.core import FrameResult
from edge_fer.draw import annotate
from edge_fer.errors import OutputError
from edge_fer.events import Run
from edge_fer.files import make_folder, output_error, resolved, write_atomically

_QUALITY = 90
_OF_A_CAMERA = re.compile(r"\d{6,}\.jpg")

log = logging.getLogger("edge_fer")


class PicturesSink:
    """Writes one annotated JPEG for each frame; implements ``core.Sink``.

    A still picture keeps its name, with ``-2`` and so on where two have the same. Others are numbered by frame. A live
    camera writes into a folder of its own within, ``2`` and so on, if the folder holds pictures already, unless the run
    overwrites; all else replaces pictures of the same name.

    Pictures of a live camera are deleted when they are too many or too old, those of earlier recordings in the folder
    included. What does not have the name of such a picture is never touched.

    Args:
        folder: is made if it is not there.
        run: tells whether earlier pictures are kept.
        settings: how long pictures of a live camera are kept.
        clock: the time of day, in seconds since 1970.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, run: Run, settings: PicturesSettings | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        make_folder(folder)
        self._settings = settings or PicturesSettings()
        self._clock = clock
        self._kept = _recorded(folder) if run.live else {}
        self._live = run.live
        self._folder = _own_folder(folder) if run.keeps_earlier and any(folder.glob("*.jpg")) else folder
        self._names: set[str] = set()
        self.tick()

    def write(self, result: FrameResult) -> None:
        """Write the picture of a frame. Raises OutputError."""
        frame = result.frame
        stem = f"{frame.seq:06d}"
        if frame.still and frame.stream:
            source = Path(frame.stream)
            if resolved(source.parent) == resolved(self._folder):
                raise OutputError(f"{self._folder} holds the pictures that are read. Choose another folder for output.")
            stem = self._free_name(source.stem)
        picture = frame.picture()
        annotate(picture, result.faces)
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        # Whole or not at all; and what lies there may be a link to a picture that is read.
        path = self._folder / f"{stem}.jpg"
        write_atomically(path, data.tobytes())
        if self._live:
            self._kept.pop(path, None)  # one that was replaced is young again
            self._kept[path] = self._clock()
            self.tick()

    def close(self) -> None:
        """Nothing to do: every picture is complete."""

    def tick(self) -> None:
        """Delete what is too old, or too much; pictures grow old too while no frame comes."""
        oldest_s = self._clock() - self._settings.keep_days * 86_400
        while self._kept:
            path, since_s = next(iter(self._kept.items()))
            if len(self._kept) <= self._settings.keep and since_s >= oldest_s:
                return
            del self._kept[path]
            with suppress(OSError):  # somebody else has deleted it, or has made it his
                path.unlink()

    def _free_name(self, stem: str) -> str:
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}-{count}"
        self._names.add(name)
        return name


def _recorded(folder: Path) -> dict[Path, float]:
    """The pictures that cameras have left in a folder, each with its time, the oldest first."""
    found: list[tuple[float, Path]] = []
    for place in (folder, *(path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())):
        for path in place.glob("*.jpg"):
            with suppress(OSError):
                if _OF_A_CAMERA.fullmatch(path.name):
                    found.append((path.stat().st_mtime, path))
    return {path: since_s for since_s, path in sorted(found)}


def _own_folder(folder: Path) -> Path:
    """A new folder in one that holds the pictures of an earlier recording."""
    count = 2
    while True:
        own = folder / str(count)
        try:
            own.mkdir()
        except FileExistsError:
            count += 1
        except OSError as error:
            raise output_error(own, error) from None
        else:
            log.warning("%s holds an earlier recording. This one goes to %s.", folder, own)
            return own
