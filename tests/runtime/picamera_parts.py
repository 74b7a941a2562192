"""A fake with the calls, names and buffer handling of picamera2 0.3."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

SYCC = object()


def smooth_scene(width: int, height: int, step: int) -> np.ndarray:
    """A BGR picture with a smooth color in every corner, another for every step."""
    y, x = np.mgrid[0:height, 0:width]
    red = 40 + 150 * x / width + 10 * (step % 5)
    return np.dstack([60 + 120 * y / height, 200 - 100 * x / width, red]).astype(np.uint8)


def packed(bgr: np.ndarray, stride: int) -> np.ndarray:
    """The picture as an ISP leaves it in memory: Y, U, V one after another, rows padded with rubbish, full range."""
    height, width = bgr.shape[:2]
    y, cr, cb = cv2.split(cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb))
    buffer = np.full(stride * height * 3 // 2, 255, np.uint8)
    buffer[: stride * height].reshape(height, stride)[:, :width] = y
    chroma = buffer[stride * height :].reshape(2, height // 2, stride // 2)
    for plane, full in zip(chroma, (cb, cr), strict=True):
        plane[:, : width // 2] = cv2.resize(full, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return buffer


class FakeRequest:
    """A CompletedRequest: readable until it is released, which gives its buffer to the next frame."""

    def __init__(self, camera: FakePicamera2, buffer: np.ndarray, metadata: dict[str, Any]) -> None:
        self.camera, self.buffer, self.metadata, self.released = camera, buffer, metadata, False

    def make_array(self, name: str) -> np.ndarray:
        assert not self.released, "read after release"
        config = self.camera.config[name]
        return self.buffer.copy().reshape(config["size"][1] * 3 // 2, config["stride"])

    def get_metadata(self) -> dict[str, Any]:
        assert not self.released, "read after release"
        return self.metadata

    def release(self) -> None:
        assert not self.released, "released twice"
        self.released = True
        self.buffer[:] = 0


class FakePicamera2:
    """picamera2.Picamera2 as far as it is used; class attributes say how the camera behaves."""

    infos: tuple[dict[str, Any], ...] = ({"Model": "imx708", "Id": "/base/soc/i2c0mux/i2c@1/imx708@1a"},)
    open_error: str = ""
    start_error: str = ""
    stalls_after: int = 10**6
    timestamps: bool = True
    given_size: tuple[int, int] | None = None
    stride_for: dict[int, int] = {90: 128, 320: 320}  # noqa: RUF012
    camera_controls: dict[str, Any] = {"ExposureTime": (1, 66666, 20000)}  # noqa: RUF012
    made: list[FakePicamera2]

    @classmethod
    def global_camera_info(cls) -> list[dict[str, Any]]:
        return list(cls.infos)

    def __init__(self, camera_num: int = 0) -> None:
        if self.open_error:
            raise RuntimeError(self.open_error)
        self.requests: list[FakeRequest] = []
        self.started = self.closed = False
        self.waiting: Future[None] | None = None
        self.waits = threading.Event()
        self.controls: dict[str, Any] = {}
        self.made.append(self)

    def create_video_configuration(
        self,
        main: dict[str, Any],
        lores: dict[str, Any] | None = None,
        colour_space: object = None,
        buffer_count: int = 6,
        controls: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        width, height = main["size"]
        main = main | {"size": (width - width % 2, height - height % 2)}
        return {"main": main, "lores": lores, "colour_space": colour_space, "controls": controls}

    def configure(self, config: dict[str, Any]) -> None:
        main = config["main"]
        size = self.given_size or main["size"]
        self.config = config | {"main": main | {"size": size, "stride": self.stride_for[size[0]]}}

    def camera_configuration(self) -> dict[str, Any]:
        return self.config

    def set_controls(self, controls: dict[str, Any]) -> None:
        assert controls.keys() <= self.camera_controls.keys() | {"AeEnable"}, "the real one raises"
        self.controls |= controls

    def start(self) -> None:
        if self.start_error:
            raise RuntimeError(self.start_error)
        self.started = True

    @contextlib.contextmanager
    def captured_request(self, wait: float | None = None) -> Iterator[FakeRequest]:
        assert self.started
        step = len(self.requests)
        if step >= self.stalls_after:
            self.waiting = Future()
            self.waits.set()
            self.waiting.result(timeout=wait)
        width, height = self.config["main"]["size"]
        metadata = {"SensorTimestamp": 5_000_000_000 + step * 40_000_000} if self.timestamps else {}
        buffer = packed(smooth_scene(width, height, step), self.config["main"]["stride"])
        self.requests.append(FakeRequest(self, buffer, metadata))
        try:
            yield self.requests[-1]
        finally:
            self.requests[-1].release()

    def cancel_all_and_flush(self) -> None:
        if self.waiting is not None:
            self.waiting.set_exception(CancelledError())

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.started, self.closed = False, True


def install_picamera2(monkeypatch: pytest.MonkeyPatch) -> type[FakePicamera2]:
    """Put the fake in the place of picamera2, a class of its own."""
    kind = type("Fake", (FakePicamera2,), {"made": []})
    module = ModuleType("picamera2")
    module.Picamera2 = kind  # type: ignore[attr-defined]
    libcamera = ModuleType("libcamera")
    libcamera.ColorSpace = SimpleNamespace(Sycc=lambda: SYCC)  # type: ignore[attr-defined]
    modes = SimpleNamespace(Manual=0, Auto=1, Continuous=2)
    libcamera.controls = SimpleNamespace(AfModeEnum=modes)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    return kind
