"""V4L2 cameras, such as USB webcams: how one is opened, and found again."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import cv2

from edge_fer.cameras import SYSFS, find_holders, list_cameras, read_name, stable_names
from edge_fer.config import CameraSettings
from edge_fer.errors import UnavailableError
from edge_fer.sources.camera import Capture, CaptureSource, Decode, decode_yuv420

YUYV_PIXELS = 640 * 480
"""Up to this size uncompressed images pass through USB 2 at 30 Hz."""
_EXPOSURE_BY_HAND = 1  # V4L2_EXPOSURE_MANUAL

log = logging.getLogger("edge_fer")


class V4l2Camera:
    """Opens a V4L2 camera, and finds it again under whatever number it comes back.

    Args:
        settings: its number or path, and what it is asked for.
        video_capture: as ``cv2.VideoCapture``.
        sysfs: where the kernel lists the cameras.
        links: where udev keeps their lasting names.
    """

    def __init__(
        self,
        settings: CameraSettings,
        video_capture: Callable[[str, int], Capture] = cv2.VideoCapture,
        sysfs: Path = SYSFS,
        links: Path = Path("/dev/v4l"),
    ) -> None:
        self.device = f"/dev/video{settings.source}" if settings.source.isdecimal() else settings.source
        self._settings = settings
        self._video_capture = video_capture
        self._sysfs = sysfs
        self._links = links
        self._known: tuple[str, list[str]] | None = None  # its name, and the lasting ones

    def __call__(self) -> CaptureSource:
        """Open it.

        Raises:
            UnavailableError: there is no such camera, or it is not to be had.
        """
        device = self._device_now()
        source = _open_v4l2(device, self.device, self._settings, self._video_capture)
        self._known = self._name_of(device), stable_names(device, self._links)
        return source

    def _device_now(self) -> str:
        """Where the camera is: at its port, or else by its own name, or else where it was, if none other is there."""
        if self._known is None:
            return self.device
        name, links = self._known
        places = [*links, self.device]
        there = [place for place in places if os.path.exists(place)]  # noqa: PTH110
        same = [place for place in there if self._name_of(place) == name]
        if there and not same:
            raise UnavailableError(f"{self.device} is another camera now, {self._name_of(there[0])} instead of {name}.")
        return same[0] if same else self.device

    def _name_of(self, device: str) -> str:
        return read_name(self._sysfs / Path(device).resolve().name / "name")


def _open_v4l2(
    device: str, name: str, settings: CameraSettings, video_capture: Callable[[str, int], Capture]
) -> CaptureSource:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))  # OpenCV would not tell why it cannot
    except OSError as error:
        raise UnavailableError(_cure(device, settings.source, error)) from None
    capture = video_capture(device, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise UnavailableError(f"{device} cannot be used as a camera: it is {_held(device)}, or is none. {_found()}")
    try:
        decode = _ask(capture, settings)
        source = CaptureSource(
            name, capture, float(settings.fps), decode=decode, full_size=settings.full_size, times=True
        )
    except BaseException:
        capture.release()
        raise
    _report(name, source, settings)
    return source


def _ask(capture: Capture, settings: CameraSettings) -> Decode | None:
    """Ask a camera for what settings say; returns how its images are decoded, None for by their shape."""
    small = settings.width * settings.height <= YUYV_PIXELS
    # What holds gray as it is costs nothing to decode; large images of it do not pass through USB 2.
    for fourcc in ("YUYV", "NV12", "GREY", "MJPG") if small else ("MJPG", "YUYV", "NV12", "GREY"):
        if capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc)):
            break
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height)
    capture.set(cv2.CAP_PROP_FPS, settings.fps)
    if not settings.autofocus:
        capture.set(cv2.CAP_PROP_AUTOFOCUS, 0)
    if settings.exposure_ms:
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _EXPOSURE_BY_HAND)
        capture.set(cv2.CAP_PROP_EXPOSURE, max(1, round(settings.exposure_ms * 10)))  # V4L2 counts 100 microseconds
    # A driver may have chosen another format. Only of these do we know how the unconverted bytes are laid out.
    chosen = _letters(capture.get(cv2.CAP_PROP_FOURCC))
    if chosen in ("YUYV", "MJPG", "NV12", "GREY"):
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return decode_yuv420 if chosen == "NV12" else None


def _letters(fourcc: float) -> str:
    return int(fourcc).to_bytes(4, "little", signed=False).decode("latin-1") if 0 <= fourcc < 1 << 32 else ""


def _report(name: str, source: CaptureSource, settings: CameraSettings) -> None:
    """Say so where a camera gives something else than it was asked for."""
    width, height = source.size_wh
    if (width, height) == (settings.width, settings.height) and round(source.fps) >= settings.fps:
        return
    log.warning(
        "%s gives %d x %d pixels at %g frames a second; asked for were %d x %d at %d.",
        *(name, width, height, round(source.fps, 1), settings.width, settings.height, settings.fps),
    )


def _cure(device: str, source: str, error: OSError) -> str:
    if error.errno == errno.EACCES:
        return (
            f"No permission to open {device}. Run `sudo usermod -aG video $USER`, then log out and in again; "
            "a service needs SupplementaryGroups=video."
        )
    if error.errno == errno.EBUSY:
        return f"{device} is in use, {_held(device)}. Stop that, or take another."
    name = f"camera {source} ({device})" if source.isdecimal() else f"camera {device}"
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"No {name}. {_found()}"
    return f"The {name} cannot be opened: {error.strerror}. {_found()}"


def _held(device: str) -> str:
    """Who holds a camera, as far as this user may see."""
    holders = find_holders().get(str(Path(device).resolve()), ())
    if not holders:
        return "held by another program (`sudo edge-fer cameras` shows which)"
    return f"held by {' and '.join(f'{one.program} (pid {one.pid})' for one in holders)}"


def _found() -> str:
    cameras = list_cameras()
    if not cameras:
        return "No camera was found: plug one in. A Raspberry Pi camera module is --camera picamera:0."
    there = ", ".join(f"{camera.device} ({camera.name})" for camera in cameras)
    return f"Found: {there}. A Raspberry Pi camera module is --camera picamera:0."
