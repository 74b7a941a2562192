"""Where frames come from: one small class a file, chosen here."""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import cv2

from edge_fer.address import printable, split_address
from edge_fer.config import CameraSettings
from edge_fer.core import FrameSource
from edge_fer.errors import DataError, InputMissingError, UsageError
from edge_fer.files import native_name
from edge_fer.sources.header import jpeg_follows, read_header
from edge_fer.sources.mounting import as_set


def open_source(settings: CameraSettings, *, later: bool = False) -> FrameSource:
    """Open what ``--camera`` names.

    ``0`` or ``/dev/...`` is a V4L2 camera, ``picamera:0`` a Pi camera module, ``rpicam:0`` the same by way of
    rpicam-vid, ``rtsp://...`` or ``http://...`` a network stream, ``-`` a video from standard input,
    ``pipe:640x480@30`` frames of pixels from there, ``demo`` the scene that comes with edge-fer, ``demo:loop`` that
    scene again and again. All else is a path: a folder of images and videos, an image or a video, told by its
    content. ``./demo`` is a file of that name.

    Cameras and network streams drop frames when the reader is slow. The others never do. All that moves has the name of
    the settings, if they have one, followed by the path in a folder, and is turned as they say, but for the demo. An
    image keeps its path.

    Args:
        settings: the name, and what a camera is asked for.
        later: a camera or a network stream is not opened now, but when it is iterated, as soon as it is there.

    Raises:
        UnavailableError: the camera is not there, is held by another program, or sends nothing.
        InputMissingError: there is no such file, nothing to read in the folder, or nothing from standard input.
        DataError: the file is neither an image nor a video.
        UsageError: the name is empty, or is not what its beginning promises.
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
    if name in ("demo", "demo:loop"):
        return _open_demo(settings)
    if name.partition(":")[0] in ("picamera", "rpicam"):
        return _open_ribbon(name, settings, later)
    if name.startswith("pipe:"):
        from edge_fer.sources.pipe import raw_source

        return raw_source(settings)
    if name in ("-", "/dev/stdin"):
        return _open_stdin(settings)
    scheme, rest = split_address(name) or ("", "")
    if scheme and scheme != "file":
        from edge_fer.sources.network import network_source

        return network_source(settings, later=later)
    if scheme:  # three slashes and a path; between two of them the name of this machine
        name = unquote(rest.removeprefix("localhost"))
    elif name.isdecimal() or _is_device(name):
        from edge_fer.sources.live import LiveSource, newest_of
        from edge_fer.sources.v4l2 import V4l2Camera

        camera = V4l2Camera(settings)
        return newest_of(LiveSource(camera.device, camera, settings, later=later))
    path = os.path.expanduser(name)  # noqa: PTH111 - pathlib's fails where there is no such user
    return _open_path(Path(path), settings)


def _open_demo(settings: CameraSettings) -> FrameSource:
    from edge_fer.sources.demo import DemoSource
    from edge_fer.threads import LatestFrame

    # It is drawn upright, however the camera is mounted that it stands for.
    settings = dataclasses.replace(settings, rotation=0, flip="none")
    if settings.source == "demo":
        return as_set(DemoSource(), settings)
    return LatestFrame(as_set(DemoSource(loops=True), settings), name=settings.name or "demo")


def _open_ribbon(name: str, settings: CameraSettings, later: bool) -> FrameSource:
    from edge_fer.sources.live import LiveSource, newest_of

    way, _, number = name.partition(":")
    number = number or "0"
    if not number.isdecimal():
        raise UsageError(f"{name} is not a Pi camera. Write {way}:0 for the first one, {way}:1 for the next.")
    open_camera: Callable[[], FrameSource]
    if way == "picamera":
        from edge_fer.sources.picamera import PicameraSource

        open_camera = functools.partial(PicameraSource, int(number), settings)
    else:
        from edge_fer.sources.rpicam import RpicamSource

        open_camera = functools.partial(RpicamSource, int(number), settings)
    return newest_of(LiveSource(f"{way}:{int(number)}", open_camera, settings, later=later))


def _open_stdin(settings: CameraSettings) -> FrameSource:
    from edge_fer.sources.pipe import stdin_source
    from edge_fer.threads import LatestFrame

    stdin = Path("/dev/stdin")
    if stdin.is_file() or stdin.is_dir():
        return _open_path(stdin, settings)
    # In a thread, since Python hears no signal while OpenCV waits for the pipe.
    return LatestFrame(as_set(stdin_source(settings), settings), drops=False)


def _is_device(name: str) -> bool:
    """Whether it stands where devices do and is not a file or a pipe, as /dev/shm/clip.mp4 and /dev/stdin may be."""
    if not name.startswith("/dev/"):
        return False
    path = Path(name)
    return not (path.is_file() or path.is_dir() or path.is_fifo())


def _open_path(path: Path, settings: CameraSettings) -> FrameSource:
    """A file or a folder; what moves is named and turned as the settings say, in a folder with its path in there."""
    from edge_fer.sources.folder import FolderSource
    from edge_fer.sources.pictures import AnimationSource, ImageSource
    from edge_fer.sources.video import open_video

    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
        elif stat.S_ISDIR(mode):
            os.scandir(path).close()
    except FileNotFoundError:
        raise InputMissingError(f"There is no file or folder {printable(str(path))}.") from None
    except OSError as error:
        raise InputMissingError(f"{printable(str(path))} cannot be read: {error.strerror}.") from None
    if stat.S_ISDIR(mode):

        def open_file(file: Path) -> FrameSource:
            name = str(Path(settings.name, file.relative_to(path))) if settings.name else ""
            return _open_path(file, dataclasses.replace(settings, name=name))

        return FolderSource(path, open_file)
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is neither a file nor a folder. A pipe is read with `--camera - < {path}`.")
    header = read_header(path)
    # FFmpeg would read an image as a video of one frame, so images are asked for first. A GIF is a video that
    # OpenCV can read as an image as well, its first.
    if header.kind == "gif":
        return as_set(open_video(path), settings)
    if header.kind == "jpeg" and jpeg_follows(path):
        return as_set(open_video(path, input_format="mjpeg"), settings)
    if header.moving:
        return as_set(AnimationSource(path, header), settings)
    if header.kind == "heic" or cv2.haveImageReader(native_name(path)):
        return ImageSource(path)
    return as_set(open_video(path), settings)
