"""Where frames come from: one small class a file, chosen here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2

from edge_fer.config import CameraSettings
from edge_fer.core import FrameSource
from edge_fer.errors import DataError, InputMissingError, UsageError


def open_source(settings: CameraSettings) -> FrameSource:
    """Open what ``--camera`` names.

    ``0`` or ``/dev/...`` is a V4L2 camera, ``picamera:0`` a Pi camera module, ``rtsp://...`` or ``http://...`` a
    network stream, ``demo`` the scene that comes with edge-fer. All else is a path: a folder of images, an image
    or a video, told by its content. ``./demo`` is a file of that name.

    Cameras and network streams drop frames when the reader is slow. The others never do.

    Raises:
        UnavailableError: the camera is not there, is held by another program, or sends nothing.
        InputMissingError: there is no such file, or no image in the folder.
        DataError: the file is neither an image nor a video.
        UsageError: the name is empty, or ``picamera:`` is not followed by a number.
    """
    # OpenCV and FFmpeg talk on stderr about what we say ourselves, in words for people. Who sets the variables wins.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV moved the function between the versions that we run on (4.11 of the legacy set, 4.13 and later).
        set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
        set_level(2)  # errors

    name = settings.source
    if not name:
        raise UsageError("The name of the camera is empty. Write 0 for the first one, or demo to try things out.")
    if name == "demo":
        from edge_fer.sources.demo import DemoSource

        return DemoSource()
    if name.partition(":")[0] == "picamera":
        from edge_fer.sources.picamera import PicameraSource
        from edge_fer.threads import LatestFrame

        number = name.removeprefix("picamera").removeprefix(":") or "0"
        if not number.isdecimal():
            raise UsageError(f"{name} is not a Pi camera. Write picamera:0 for the first one, picamera:1 for the next.")
        return LatestFrame(PicameraSource(int(number), settings))
    if name.isdecimal() or name.startswith("/dev/"):
        from edge_fer.sources.v4l2 import v4l2_source
        from edge_fer.threads import LatestFrame

        return LatestFrame(v4l2_source(settings))
    if name.startswith(("rtsp://", "rtsps://", "http://", "https://")):
        from edge_fer.sources.network import network_source
        from edge_fer.threads import LatestFrame

        return LatestFrame(network_source(settings))
    return _open_path(Path(os.path.expanduser(name)))  # noqa: PTH111 - pathlib's fails where there is no such user


def _open_path(path: Path) -> FrameSource:
    from edge_fer.sources.pictures import ImageSource
    from edge_fer.sources.video import VideoSource

    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
        elif stat.S_ISDIR(mode):
            os.scandir(path).close()
    except FileNotFoundError:
        raise InputMissingError(f"There is no file or folder {path}.") from None
    except OSError as error:
        raise InputMissingError(f"{path} cannot be read: {error.strerror}.") from None
    if stat.S_ISDIR(mode):
        return ImageSource(path)
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is neither a file nor a folder.")
    # FFmpeg would read an image as a video of one frame, so images are asked for first. A GIF is a video that
    # OpenCV can read as an image as well, its first.
    if path.suffix.lower() != ".gif" and cv2.haveImageReader(str(path)):
        return ImageSource(path)
    return VideoSource(path)
