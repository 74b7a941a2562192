"""V4L2 cameras, such as USB webcams: what is there, and how one is opened."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import struct
from collections.abc import Callable
from pathlib import Path

import cv2

from edge_fer.config import CameraSettings
from edge_fer.errors import UnavailableError
from edge_fer.sources.camera import CameraSource, Capture

YUYV_PIXELS = 640 * 480
"""Up to this size uncompressed images pass through USB 2 at 30 Hz."""

# Nodes of the Pi's own camera pipeline: picamera2 drives them, nobody can read an image from one alone.
_PI_PIPELINE = ("bcm2835-", "unicam", "rp1-", "pispbe", "rpivid", "rpi-")


def list_cameras(sysfs: Path = Path("/sys/class/video4linux")) -> list[tuple[str, str]]:
    """Device path and name of every V4L2 camera, by number.

    Args:
        sysfs: where the kernel lists them.
    """
    nodes = sorted(sysfs.glob("video[0-9]*"), key=lambda node: int(node.name.removeprefix("video")))
    cameras = [(f"/dev/{node.name}", _name(node / "name")) for node in nodes]
    return [(device, name) for device, name in cameras if not name.startswith(_PI_PIPELINE) and _captures(device)]


def _name(file: Path) -> str:
    """A camera's name, as the camera sent it; the kernel cuts it to 31 bytes, in the middle of a letter too."""
    try:
        name = file.read_bytes().decode("utf-8", "replace")
    except OSError:  # unplugged meanwhile
        return "?"
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name.strip("\0 \n"))


def _captures(device: str) -> bool:
    """Whether a node delivers images; a webcam has a second one that does not. True where it cannot be asked."""
    answer = bytearray(104)  # struct v4l2_capability
    try:
        node = os.open(device, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(node, 0x80685600, answer)  # VIDIOC_QUERYCAP
        finally:
            os.close(node)
    except OSError:
        return True
    (capabilities,) = struct.unpack_from("<I", answer, 88)
    return bool(capabilities & 0x1001)  # V4L2_CAP_VIDEO_CAPTURE, single- or multi-planar


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
    there = ", ".join(f"{device} ({name})" for device, name in cameras)
    return f"Found: {there}. A Raspberry Pi camera module is --camera picamera:0."
