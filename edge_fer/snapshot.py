"""One picture of a camera, with the boxes that the detector sees and the crops that the model saw."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from edge_fer.config import Settings
from edge_fer.core import Face, Frame, FrameSource, Image
from edge_fer.draw import annotate
from edge_fer.errors import OutputError, UnavailableError
from edge_fer.files import make_folder, next_free, write_atomically
from edge_fer.pipeline import build_recognizer
from edge_fer.sources import open_source
from edge_fer.threads import call_aside

SETTLE_S = 1.0
"""A camera sets its exposure in its first second."""
CELL_PX = 192
"""Side of a crop in the picture: 48 pixels, four times as large."""

_DARK, _LIGHT = (32, 28, 24), (244, 244, 244)
_GAP = 12
_CAPTION = 22


class Snapshot(NamedTuple):
    """What one frame showed.

    Attributes:
        frame: as the camera gave it.
        faces: as the detector finds them in this frame alone; largest first.
        crops: uint8 (height, width, 1), the tensor of each face that the model was given.
    """

    frame: Frame
    faces: tuple[Face, ...]
    crops: tuple[Image, ...]


def take_snapshot(settings: Settings) -> Snapshot:
    """Open the camera of the settings, let it settle, and recognize one frame as a picture that stands alone.

    Raises:
        EdgeFerError: the camera, the model or the detector is not as it should be.
    """
    recognizer = build_recognizer(settings)
    # Aside: this thread goes on hearing Ctrl-C while a camera does not answer.
    with closing(call_aside(lambda: open_source(settings.camera))) as source:
        frame = _settled(source)
    result = recognizer.recognize(dataclasses.replace(frame, still=True))
    crops = tuple(face.crop for face in result.faces if face.crop is not None)
    return Snapshot(frame, result.faces, crops)


def _settled(source: FrameSource) -> Frame:
    """The first frame after ``SETTLE_S``; of what ends before, and of what is no camera, the first of all."""
    first: Frame | None = None
    for frame in source:
        if first is None:
            first = frame
        if not source.live or frame.time_s - first.time_s >= SETTLE_S:
            return frame
    if first is None:
        raise UnavailableError("The camera has sent nothing. Try it with `edge-fer run`.")
    return first


def compose(snapshot: Snapshot) -> Image:
    """The frame with its boxes, and beside it the crops, enlarged with every pixel to be seen.

    Returns:
        BGR, uint8 (height, width, 3).
    """
    picture = snapshot.frame.picture()
    annotate(picture, snapshot.faces)
    if not snapshot.crops:
        return picture
    rows = max(1, (picture.shape[0] - _GAP) // (CELL_PX + _CAPTION + _GAP))
    columns = -(-len(snapshot.crops) // rows)
    height = max(picture.shape[0], CELL_PX + _CAPTION + 2 * _GAP)
    whole = np.full((height, picture.shape[1] + columns * (CELL_PX + _GAP) + _GAP, 3), _DARK, np.uint8)
    whole[: picture.shape[0], : picture.shape[1]] = picture
    for place, (face, crop) in enumerate(zip(snapshot.faces, snapshot.crops, strict=True)):
        column, row = divmod(place, rows)
        left = picture.shape[1] + _GAP + column * (CELL_PX + _GAP)
        top = _GAP + row * (CELL_PX + _CAPTION + _GAP)
        large = cv2.resize(crop[..., 0], (CELL_PX, CELL_PX), interpolation=cv2.INTER_NEAREST)
        whole[top : top + CELL_PX, left : left + CELL_PX] = large[..., np.newaxis]
        caption = f"{face.track}: {crop.shape[1]}x{crop.shape[0]}, as the model saw it"
        cv2.putText(whole, caption, (left, top + CELL_PX + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.38, _LIGHT, 1, cv2.LINE_AA)
    return whole


def write_picture(picture: Image, path: Path) -> Path:
    """Write a picture in the format of its name, beside one that is there already.

    Returns:
        Where it is: ``snapshot.png``, else ``snapshot-2.png``, ...

    Raises:
        OutputError: OpenCV writes no such format, or the place cannot be written.
    """
    make_folder(path.parent)
    try:
        encoded, data = cv2.imencode(path.suffix or ".", picture)
    except cv2.error:
        encoded = False
    if not encoded:
        raise OutputError(f"{path} is no name for a picture: let it end in .png or .jpg.")
    free = next_free(path)
    write_atomically(free, data.tobytes())
    return free


def why_no_face(frame: Frame, min_face_px: int) -> str:
    """What a person can do where no face was found."""
    brightness, contrast = float(frame.gray.mean()) / 255, float(frame.gray.std()) / 255
    if contrast < 0.02:
        shade = "black" if brightness < 0.1 else "of one gray"
        return f"The picture is all {shade}: look for a lens cap, a closed shutter, or another camera in the list."
    if brightness < 0.15:
        return f"The picture is dark (brightness {brightness:.2f} of 1): more light, or a longer exposure."
    return (
        f"Faces are found from the front, upright and at least {min_face_px} pixels wide: come nearer, or turn the "
        "camera upright."
    )
