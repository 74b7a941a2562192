"""Frames as the settings of their camera want them: turned upright, and by its name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import cv2
import numpy as np

from edge_fer.config import CameraSettings
from edge_fer.core import Frame, FrameSource, Image


class MountedSource:
    """What moves and is no ``LiveSource``, named and turned as its settings say; implements ``core.FrameSource``.

    An image that stands alone stays as it is: its stream is its path, which tells it from the next, and its file says
    how it stands.

    Args:
        source: is read and closed through this.
        settings: name, rotation and flip.
    """

    def __init__(self, source: FrameSource, settings: CameraSettings) -> None:
        self.fps = source.fps
        self.live = source.live
        self._source = source
        self._settings = settings

    def __iter__(self) -> Iterator[Frame]:
        """The frames of the source, in its count and time."""
        for frame in self._source:
            yield frame if frame.still else self._mounted(frame)
            del frame  # its images, before the source makes the next

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _mounted(self, frame: Frame) -> Frame:
        return dataclasses.replace(mounted(frame, self._settings), stream=self._settings.name or frame.stream)


def as_set(source: FrameSource, settings: CameraSettings) -> FrameSource:
    """A source whose frames are named and turned as the settings say; itself where they say nothing."""
    if not settings.name and _is_upright(settings):
        return source
    return MountedSource(source, settings)


def mounted(frame: Frame, settings: CameraSettings) -> Frame:
    """A frame as it would be from a camera that is mounted upright."""
    if _is_upright(settings):
        return frame
    turn = functools.partial(upright, rotation=settings.rotation, flip=settings.flip)
    make = frame.color
    return dataclasses.replace(frame, gray=turn(frame.gray), color=None if make is None else lambda: turn(make()))


def upright(image: Image, rotation: int, flip: str) -> Image:
    """An image of a camera that is not mounted upright, or looks into a mirror, as people want to see it.

    Args:
        image: uint8 (height, width) or (height, width, 3).
        rotation: degrees clockwise by which the image is turned: 0, 90, 180 or 270.
        flip: "none", "horizontal" (left and right are exchanged) or "vertical"; after the rotation.
    """
    codes = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    if rotation in codes:
        image = cv2.rotate(image, codes[rotation]).astype(np.uint8, copy=False)
    if flip != "none":
        image = cv2.flip(image, 1 if flip == "horizontal" else 0).astype(np.uint8, copy=False)
    return image


def _is_upright(settings: CameraSettings) -> bool:
    return settings.rotation == 0 and settings.flip == "none"
