"""V4L2 cameras, such as USB webcams: how one is opened."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable

import cv2

from edge_fer.cameras import list_cameras
from edge_fer.config import CameraSettings
from edge_fer.errors import UnavailableError
from edge_fer.sources.camera import CameraSource, Capture

YUYV_PIXELS = 640 * 480
"""Up to this size uncompressed images pass through USB 2 at 30 Hz."""


def v4l2_source(
    settings: CameraSettings, video_capture: Callable[[str, int], Capture] = cv2.VideoCapture
) -> CameraSource:
    """A V4L2 camera, by number or by device path.

    Raises:
        UnavailableError: there is no such camera, or it is not to be had.
    """
    device = f"/dev/video{settings.source}" if settings.source.isdecimal() else settings.source
    return CameraSource(device, functools.partial(_open_v4l2, device, settings, video_capture), float(settings.fps))


def _open_v4l2(device: str, settings: CameraSettings, video_capture: Callable[[str, int], Capture]) -> Capture:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))  # OpenCV would not tell why it cannot
    except OSError as error:
        raise UnavailableError(_cure(device, settings.source, error)) from None
    capture = video_capture(device, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise UnavailableError(
            f"{device} cannot be used as a camera: another program holds it (`fuser -v {device}` shows which), or it "
            f"is not one. {_found()}"
        )
    small = settings.width * settings.height <= YUYV_PIXELS
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*("YUYV" if small else "MJPG")))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height)
    capture.set(cv2.CAP_PROP_FPS, settings.fps)
    # A driver may have chosen another format. Only of these two do we know how the unconverted bytes are laid out.
    chosen = int(capture.get(cv2.CAP_PROP_FOURCC))
    if chosen in (cv2.VideoWriter.fourcc(*"YUYV"), cv2.VideoWriter.fourcc(*"MJPG")):
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return capture


def _cure(device: str, source: str, error: OSError) -> str:
    if error.errno == errno.EACCES:
        return (
            f"No permission to open {device}. Run `sudo usermod -aG video $USER`, then log out and in again; "
            "a service needs SupplementaryGroups=video."
        )
    if error.errno == errno.EBUSY:
        return f"{device} is in use by another program: `fuser -v {device}` shows which. Stop it, or take another."
    name = f"camera {source} ({device})" if source.isdecimal() else f"camera {device}"
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"No {name}. {_found()}"
    return f"The {name} cannot be opened: {error.strerror}. {_found()}"


def _found() -> str:
    cameras = list_cameras()
    if not cameras:
        return "No camera was found: plug one in. A Raspberry Pi camera module is --camera picamera:0."
    there = ", ".join(f"{camera.device} ({camera.name})" for camera in cameras)
    return f"Found: {there}. A Raspberry Pi camera module is --camera picamera:0."
