"""Video from the network: streams, files that end, and single images that are asked for again and again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import cv2

from edge_fer.address import printable, split_address, usable
from edge_fer.config import CameraSettings
from edge_fer.core import FrameSource
from edge_fer.errors import UnavailableError, UsageError
from edge_fer.sources.camera import Capture, CaptureSource
from edge_fer.sources.live import LiveSource, newest_of
from edge_fer.sources.mounting import as_set
from edge_fer.sources.video import VideoCapture, VideoSource, ffmpeg_options

NETWORK_TIMEOUT_MS = 10_000
STALL_S = 2 * NETWORK_TIMEOUT_MS / 1000 + 5
"""FFmpeg gives up sooner, if it does: opening and the first frame take the timeout each."""
SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "rtmpt", "srt", "udp", "tcp", "rtp")
_JPEG = cv2.VideoWriter.fourcc(*"MJPG")
ALIKE = 300
"""So many frames that do not differ in one pixel come from no camera."""

log = logging.getLogger("edge_fer")


def network_source(
    settings: CameraSettings,
    video_capture: Callable[[str, int, list[int]], VideoCapture] = cv2.VideoCapture,
    sleep: Callable[[float], None] = time.sleep,
    *,
    later: bool = False,
) -> FrameSource:
    """What comes from an address: a live stream, a video that ends, or an image that is asked for at the asked rate.

    The name of it, in frames and messages, leaves out what may be secret.

    Args:
        settings: the address, the rate of an image, and what else live images take.
        video_capture: as ``cv2.VideoCapture``.
        sleep: waits for some seconds.
        later: do not connect now; what is there is taken for a live stream or an image, as soon as it is.

    Raises:
        UsageError: nobody reads such addresses.
        UnavailableError: nothing comes from there within ten seconds.
    """
    stream = printable(settings.source.strip())
    scheme, rest = split_address(settings.source) or ("", "")
    if scheme not in SCHEMES:
        raise UsageError(f"{scheme}:// is not read. Cameras send by rtsp, http, rtmp, srt, udp, tcp or rtp.")
    if not rest.strip("/"):
        raise UsageError(f"{scheme}:// lacks the name of a host: write {scheme}://192.168.1.20/...")
    address = usable(scheme, rest)
    timeouts = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS),
        *(cv2.CAP_PROP_N_THREADS, 1),  # each thread of the decoder keeps a frame of its own
    ]

    def open_capture() -> VideoCapture:
        # Else FFmpeg asks the server to close the connection, goes on using it, and reads nothing of an .mp4.
        options = {"multiple_requests": "1"} if scheme in ("http", "https") else {}
        with ffmpeg_options(**options):
            capture = video_capture(address, cv2.CAP_FFMPEG, timeouts)
        if not capture.isOpened():
            srt = " The FFmpeg that comes with OpenCV reads no srt; rtsp it does." if scheme == "srt" else ""
            raise UnavailableError(
                f"No video comes from {stream}. Check the address, the network, and that user and password are right."
                + srt
            )
        return capture

    def open_live() -> Capture:
        capture = opened.pop() if opened else open_capture()
        if capture.get(cv2.CAP_PROP_FOURCC) == _JPEG:
            capture.set(
                cv2.CAP_PROP_FORMAT, -1
            )  # as they come: gray and small is decoded sooner than whole and colored
        return capture

    fps = float(settings.fps)
    opened = [] if later else [open_capture()]

    if scheme in ("http", "https") and opened and opened[0].get(cv2.CAP_PROP_FRAME_COUNT) > 1:
        return as_set(VideoSource(settings.name or stream, opened[0]), settings)

    def open_camera() -> CaptureSource:
        capture = open_live()
        if scheme in ("http", "https") and capture.read()[0] and not capture.read()[0]:
            capture.release()  # one image, and the connection ends
            capture = _Snapshots(open_live, fps, sleep)
        else:
            capture = _Watched(capture, stream)
        return CaptureSource(stream, capture, fps, full_size=settings.full_size)

    return newest_of(LiveSource(stream, open_camera, settings, later=later, stall_s=STALL_S, sleep=sleep))


class _Snapshots:
    """An address that gives one image for each connection, with the calls of ``cv2.VideoCapture``."""

    def __init__(self, open_capture: Callable[[], Capture], fps: float, sleep: Callable[[float], None]) -> None:
        self._open_capture = open_capture
        self._interval_s = 1 / fps
        self._sleep = sleep
        self._due_s = time.monotonic()

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, Any]:
        now_s = time.monotonic()
        self._sleep(max(0.0, self._due_s - now_s))
        self._due_s = max(self._due_s, now_s) + self._interval_s
        try:
            capture = self._open_capture()
        except UnavailableError:
            return False, None
        try:
            return capture.read()
        finally:
            capture.release()

    def get(self, property_id: int) -> float:
        return 1 / self._interval_s if property_id == cv2.CAP_PROP_FPS else 0.0

    def set(self, property_id: int, value: float) -> bool:
        return False

    def release(self) -> None:
        pass


class _Watched:
    """A capture that says once when it sends nothing but one picture, as OpenCV does with what it cannot convert."""

    def __init__(self, capture: Capture, stream: str) -> None:
        self._capture = capture
        self._stream = stream
        self._last = b""
        self._alike = 0
        self.isOpened, self.get, self.set, self.release = capture.isOpened, capture.get, capture.set, capture.release

    def read(self) -> tuple[bool, Any]:
        read, image = self._capture.read()
        if read and self._alike < ALIKE:
            sample = image[:, ::8].tobytes() if image.shape[0] == 1 else image[::8, ::8].tobytes()
            self._alike = self._alike + 1 if sample == self._last else 0
            self._last = sample
            if self._alike == ALIKE:
                log.warning(
                    "%s sends the same picture again and again. If it is interlaced, OpenCV cannot convert it: set the "
                    "camera to a progressive mode.",
                    self._stream,
                )
        return read, image
