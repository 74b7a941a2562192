"""Video streams from the network."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import cv2

from edge_fer.config import CameraSettings
from edge_fer.errors import UnavailableError
from edge_fer.sources.camera import CameraSource, Capture

NETWORK_TIMEOUT_MS = 10_000


def network_source(
    settings: CameraSettings, video_capture: Callable[[str, int, list[int]], Capture] = cv2.VideoCapture
) -> CameraSource:
    """A stream from the network, by URL. Its name leaves out what may be secret: user, password and query.

    Raises:
        UnavailableError: nothing comes from there within ten seconds.
    """
    url = urlsplit(settings.source)
    stream = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()
    timeouts = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS),
    ]

    def open_capture() -> Capture:
        capture = video_capture(settings.source, cv2.CAP_FFMPEG, timeouts)
        if not capture.isOpened():
            raise UnavailableError(
                f"No video comes from {stream}. Check the address, the network, and that user and password are right."
            )
        return capture

    return CameraSource(stream, open_capture, float(settings.fps))
