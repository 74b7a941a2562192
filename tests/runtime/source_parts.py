"""Parts for tests of the sources: scenes, files byte by byte, and a fake of OpenCV's capture."""

from __future__ import annotations

import http.server
import itertools
import os
import queue
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_fer.config import CameraSettings
from edge_fer.core import FrameSource, Image
from edge_fer.sources import open_source
from edge_fer.sources.camera import CaptureSource
from edge_fer.sources.live import LiveSource

W, H = 64, 48
MJPEG_FPS = 30
# 4.11, of 32-bit boards: it takes no bytes for a name and no options for FFmpeg, and converts interlaced frames.
OLD_OPENCV = tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 13)
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg asks only once, which may be for a file to write

LONG_S = 20.0  # only reached when the code under test hangs


def scene(n: int) -> Image:
    """Smooth, colored, and brighter with n, so that every codec keeps it apart from its neighbors."""
    y, x = np.mgrid[0:H, 0:W]
    return (np.stack([10 + 0 * x, 10 + x // 2, 20 + y], axis=-1) + 6 * n).clip(0, 255).astype(np.uint8)


def write_video(path: Path, fourcc: str, frames: int, fps: float = 20.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), fps, (W, H))
    assert writer.isOpened()
    for n in range(frames):
        writer.write(scene(n))
    writer.release()
    return path


def source_of(path: Path | str) -> FrameSource:
    return open_source(CameraSettings(source=str(path)))


class FakeCapture:
    """Has the calls of ``cv2.VideoCapture`` that a camera needs; delivers what the test has queued."""

    def __init__(self, *pictures: Image | None, accepts: tuple[str, ...] = ("YUYV", "MJPG")) -> None:
        self.pictures: queue.Queue[Image | None] = queue.Queue()
        for picture in pictures:
            self.pictures.put(picture)
        self.accepts = [cv2.VideoWriter.fourcc(*name) for name in accepts]
        self.properties: dict[int, float] = {cv2.CAP_PROP_FPS: 30.0}
        self.opened = True

    def isOpened(self) -> bool:
        return self.opened

    def read(self) -> tuple[bool, Image | None]:
        if not self.opened:
            return False, None
        picture = self.pictures.get(timeout=LONG_S)
        return picture is not None, picture

    def get(self, propId: int) -> float:
        return self.properties.get(propId, 0.0)

    def set(self, propId: int, value: float) -> bool:
        if propId == cv2.CAP_PROP_FOURCC and value not in self.accepts:
            return False
        self.properties[propId] = value
        return True

    def release(self) -> None:
        self.opened = False


def yuyv(bgr: Image) -> Image:
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_YUYV).astype(np.uint8, copy=False)


def mjpg(bgr: Image) -> Image:
    return cv2.imencode(".jpg", bgr)[1].reshape(1, -1)


class EndlessCapture(FakeCapture):
    """Always has another picture."""

    def __init__(self, encode: Callable[[Image], Image]) -> None:
        super().__init__()
        self.number = itertools.count()
        self.encode = encode

    def read(self) -> tuple[bool, Image | None]:
        return self.opened, self.encode(scene(next(self.number) % 30))


def fake_camera(encode: Callable[[Image], Image]) -> LiveSource:
    capture = EndlessCapture(encode)
    return live_source(lambda: capture)


def live_source(open_capture: Callable[[], FakeCapture], **settings: Any) -> LiveSource:
    """A camera whose captures the test opens; the pauses between are those of ``LiveSource``, without jitter."""
    options = {name: settings.pop(name) for name in ("sleep", "clock", "stall_s", "later") if name in settings}
    return LiveSource(
        "/dev/video0",
        lambda: CaptureSource("/dev/video0", open_capture(), 30.0),
        CameraSettings(**settings),
        jitter=lambda: 0.5,
        **options,
    )


def png(width: int, height: int, depth: int, kind: int, row: bytes, **chunks: bytes) -> bytes:
    """A PNG file, byte by byte: OpenCV writes no palettes, no gray with alpha and no rotation."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    extra = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    body = zlib.compress((b"\0" + row) * min(height, 8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


TURN_RIGHT = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # EXIF orientation 6
RED_BLUE = bytes([255, 0, 0, 0, 0, 255])


def exif(orientation: int) -> bytes:
    """EXIF data of one entry; orientation 6 is a photo to be turned right."""
    return b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + bytes(7)


class Mjpeg:
    """A camera with HTTP: JPEG after JPEG, as MIME parts, at its own pace."""

    def __init__(self, port: int, user: str = "") -> None:
        pictures = [cv2.imencode(".jpg", cv2.resize(scene(n), (320, 240)))[1].tobytes() for n in range(30)]
        ended = self.ended = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                if user and self.headers.get("Authorization") != user:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with suppress(OSError):
                    for count in range(100_000):
                        picture = pictures[count % len(pictures)]
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                        self.wfile.write(head.encode() + picture + b"\r\n")
                        if ended.wait(1 / MJPEG_FPS):
                            return

        http.server.ThreadingHTTPServer.daemon_threads = True
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
