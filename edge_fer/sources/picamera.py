"""The camera on a Raspberry Pi's ribbon cable, by way of picamera2."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from edge_fer.config import CameraSettings
from edge_fer.core import Frame, Image
from edge_fer.errors import UnavailableError
from edge_fer.sources.camera import reduction

STALL_S = 5.0
"""Without a frame for this long the camera counts as lost. libcamera reports a dead ribbon cable, but delivers nothing
and would let us wait for ever."""

log = logging.getLogger("edge_fer")


class PicameraSource:
    """Frames of a Pi camera; implements ``core.FrameSource``.

    Only one stream is asked for, YUV420: its first plane is the gray image, so nothing is converted on the way to
    the recognizer. Color is made of the other two planes when somebody asks for it.

    Args:
        number: which camera, from 0, as ``rpicam-hello --list-cameras`` counts them.
        settings: size, frame rate, focus and exposure that the camera is asked for. It may give another size: see
            ``Frame.gray``.

    Raises:
        UnavailableError: picamera2 is not installed, there is no such camera, or it cannot be started. While
            iterating: the camera has sent nothing for ``STALL_S`` seconds.
    """

    live = True

    def __init__(self, number: int, settings: CameraSettings) -> None:
        try:
            from libcamera import ColorSpace, controls
            from picamera2 import Picamera2
        except ImportError:
            raise UnavailableError(
                "picamera2 is not installed here: run `sudo apt install python3-picamera2`, then create the virtual "
                "environment again with `python3 -m venv --system-site-packages` so that it can see it."
            ) from None
        except ValueError as error:  # a module of picamera2 was built for another NumPy (Bookworm: 1, ours: 2)
            raise UnavailableError(
                f"picamera2 does not fit the NumPy of this environment ({error}). "
                "Run `pip install --force-reinstall --no-deps simplejpeg` in it, or use Raspberry Pi OS Trixie."
            ) from None

        found = Picamera2.global_camera_info()
        if not 0 <= number < len(found):
            there = ", ".join(f"picamera:{n} ({info.get('Model', info['Id'])})" for n, info in enumerate(found))
            raise UnavailableError(
                f"There is no picamera:{number}. Found: {there or 'none; check both ends of the ribbon cable'}."
            )

        # The image processor scales for nothing, and sees the whole scene whatever the size.
        factor = 1 if settings.full_size else reduction(settings.width, settings.height)
        asked_wh = (settings.width // factor, settings.height // factor)
        self.fps = float(settings.fps)
        self._stream = f"picamera:{number}"
        self._closed = False
        self._camera: Any = None
        try:
            self._camera = Picamera2(number)
            self._camera.configure(
                self._camera.create_video_configuration(
                    main={"format": "YUV420", "size": asked_wh},
                    # Full range, 0-255. The default for video is 16-235: a grayer gray than models are trained on.
                    colour_space=ColorSpace.Sycc(),
                    buffer_count=4,
                    controls={"FrameRate": settings.fps},
                )
            )
            self._camera.set_controls(_controls(controls, settings, self._camera.camera_controls))
            self._camera.start()
        except (RuntimeError, OSError) as error:
            if self._camera is not None:
                self._camera.close()
            raise UnavailableError(
                f"picamera:{number} cannot be started ({str(error).rstrip('.')}). Another program may hold it: "
                "`sudo fuser -v /dev/media*` shows which."
            ) from None
        self._size_wh: tuple[int, int] = self._camera.camera_configuration()["main"]["size"]
        if self._size_wh != asked_wh:
            log.warning("%s gives %d x %d pixels; asked for were %d x %d.", self._stream, *self._size_wh, *asked_wh)

    def __iter__(self) -> Iterator[Frame]:
        """Frames as the camera delivers them, until ``close``. ``Frame.time_s`` is the sensor's own time."""
        width, height = self._size_wh
        seq, first_ns = 0, None
        while not self._closed:
            try:
                with self._camera.captured_request(wait=STALL_S) as request:
                    yuv: Image = request.make_array("main")  # a copy: the buffer goes back to the camera
                    time_ns = request.get_metadata().get("SensorTimestamp") or time.monotonic_ns()
            except Exception as error:
                # close() may pull the camera away from under a waiting thread; what that raises depends on where.
                if self._closed:
                    return
                if isinstance(error, TimeoutError):
                    raise UnavailableError(
                        f"{self._stream} has sent nothing for {STALL_S:g} seconds. Check its ribbon cable."
                    ) from None
                if isinstance(error, RuntimeError | OSError):
                    raise UnavailableError(f"{self._stream} is lost ({str(error).rstrip('.')}).") from None
                raise
            first_ns = time_ns if first_ns is None else first_ns
            yield Frame(
                gray=yuv[:height, :width],
                seq=seq,
                time_s=(time_ns - first_ns) / 1e9,
                stream=self._stream,
                color=functools.partial(_color, yuv, width, height),
                captured_s=time_ns / 1e9,
            )
            seq += 1

    def close(self) -> None:
        """Stop the camera and give it free; a thread that waits for a frame ends its iteration."""
        if not self._closed:
            self._closed = True
            # First: a thread that waits for the next frame would wait for ever, and a stalled camera never stop.
            self._camera.cancel_all_and_flush()
            self._camera.close()


def _controls(controls: Any, settings: CameraSettings, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a camera is to do, of what it can.

    Args:
        controls: libcamera's module of that name.
        settings: what is wanted.
        known: what this camera has: the lens of many does not move.
    """
    wanted: dict[str, Any] = {}
    if "AfMode" in known:
        modes = controls.AfModeEnum
        wanted["AfMode"] = modes.Continuous if settings.autofocus else modes.Manual
    if settings.exposure_ms and "ExposureTime" in known:
        wanted |= {"AeEnable": False, "ExposureTime": round(settings.exposure_ms * 1000)}
    return wanted


def _color(yuv: Image, width: int, height: int) -> Image:
    """BGR, uint8 (height, width, 3), of a full-range YUV420 array, uint8 (height * 3 / 2, stride).

    ``cv2.COLOR_YUV2BGR_I420`` will not do: it takes the padding of wide rows for image, and the range for 16-235.
    """
    stride = yuv.shape[1]
    # A row of U or V is half as long as one of Y, padding included, so one row of the array holds two of them.
    u, v = yuv[height:].reshape(2, height // 2, stride // 2)[:, :, : width // 2]
    chroma = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR_EXACT) for plane in (v, u)]
    bgr = cv2.cvtColor(cv2.merge([yuv[:height, :width], *chroma]), cv2.COLOR_YCrCb2BGR)
    return bgr.astype(np.uint8, copy=False)
