"""Cameras by V4L2, and what all live ones do when they are lost."""

from __future__ import annotations

import errno
import logging
import os
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from source_parts import (
    FakeCapture,
    H,
    W,
    live_source,
    mjpg,
    scene,
    source_of,
    write_video,
    yuyv,
)

from edge_fer.cameras import Camera, Holder
from edge_fer.config import CameraSettings
from edge_fer.core import Image
from edge_fer.errors import UnavailableError
from edge_fer.sources.camera import CaptureSource
from edge_fer.sources.v4l2 import V4l2Camera


def test_the_fake_has_the_calls_of_the_real_one() -> None:
    for name in ("isOpened", "read", "get", "set", "release"):
        assert callable(getattr(cv2.VideoCapture, name))


def v4l2(tmp_path: Path, capture: FakeCapture, width: int = W, height: int = H, **more: Any) -> CaptureSource:
    """A V4L2 camera whose device node is a file that can be opened."""
    (tmp_path / "video0").touch()
    settings = CameraSettings(source=str(tmp_path / "video0"), width=width, height=height, fps=15, **more)
    return V4l2Camera(settings, lambda device, api: capture)()


def test_small_pictures_are_asked_for_uncompressed(tmp_path: Path) -> None:
    capture = FakeCapture(yuyv(scene(0)), yuyv(scene(1)))
    source = v4l2(tmp_path, capture)
    assert capture.properties == {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"YUYV"),
        cv2.CAP_PROP_FRAME_WIDTH: W,
        cv2.CAP_PROP_FRAME_HEIGHT: H,
        cv2.CAP_PROP_FPS: 15,
        cv2.CAP_PROP_CONVERT_RGB: 0,
    }
    frame = next(iter(source))
    gray = cv2.cvtColor(scene(1), cv2.COLOR_BGR2GRAY)
    assert np.abs(frame.gray.astype(int) - gray).max() <= 2  # 0-255, not the 16-235 of video
    assert frame.gray.flags.c_contiguous
    assert source.fps == 15
    source.close()


def test_large_pictures_are_asked_for_as_jpeg(tmp_path: Path) -> None:
    capture = FakeCapture(mjpg(scene(0)))
    v4l2(tmp_path, capture, 1280, 720)
    assert capture.properties[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert capture.properties[cv2.CAP_PROP_CONVERT_RGB] == 0


def test_a_driver_with_formats_of_its_own_is_left_to_opencv(tmp_path: Path) -> None:
    capture = FakeCapture(scene(0), scene(1), accepts=())
    frame = next(iter(v4l2(tmp_path, capture)))
    assert cv2.CAP_PROP_CONVERT_RGB not in capture.properties
    assert np.array_equal(frame.picture(), scene(1))


def test_a_camera_of_nv12_gives_gray_as_it_is(tmp_path: Path) -> None:
    planes = cv2.cvtColor(scene(0), cv2.COLOR_BGR2YUV_I420)
    capture = FakeCapture(planes, planes, accepts=("NV12", "MJPG"))
    frame = next(iter(v4l2(tmp_path, capture)))
    assert capture.properties[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"NV12")
    assert capture.properties[cv2.CAP_PROP_CONVERT_RGB] == 0
    assert np.abs(frame.gray.astype(int) - cv2.cvtColor(scene(0), cv2.COLOR_BGR2GRAY)).max() <= 2
    assert frame.picture().shape == (H, W, 3)


def test_a_gray_camera_is_read_as_it_is(tmp_path: Path) -> None:
    gray = scene(1)[..., 0].copy()
    capture = FakeCapture(gray, gray, accepts=("GREY",))
    frame = next(iter(v4l2(tmp_path, capture)))
    assert capture.properties[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"GREY")
    assert np.array_equal(frame.gray, gray)


def test_the_lens_and_the_exposure_are_left_alone_unless_asked(tmp_path: Path) -> None:
    asked = {cv2.CAP_PROP_AUTOFOCUS: 0, cv2.CAP_PROP_AUTO_EXPOSURE: 1, cv2.CAP_PROP_EXPOSURE: 125}
    capture = FakeCapture(yuyv(scene(0)))
    v4l2(tmp_path, capture)
    assert not capture.properties.keys() & asked.keys()
    capture = FakeCapture(yuyv(scene(0)))
    v4l2(tmp_path, capture, autofocus=False, exposure_ms=12.5)
    assert capture.properties.items() >= asked.items()


def test_a_camera_that_gives_something_else_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    v4l2(tmp_path, FakeCapture(yuyv(scene(0))))
    assert caplog.messages == []
    v4l2(tmp_path, FakeCapture(mjpg(scene(0))), 1920, 1080)
    assert caplog.messages == [
        f"{tmp_path}/video0 gives 64 x 48 pixels at 15 frames a second; asked for were 1920 x 1080 at 15."
    ]


class Slow(FakeCapture):
    """Takes no other rate than its own."""

    def set(self, propId: int, value: float) -> bool:
        return propId != cv2.CAP_PROP_FPS and super().set(propId, value)


def test_a_camera_that_is_slower_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    capture = Slow(yuyv(scene(0)))
    capture.properties[cv2.CAP_PROP_FPS] = 7.5
    assert v4l2(tmp_path, capture).fps == 7.5
    assert "at 7.5 frames a second; asked for were 64 x 48 at 15." in caplog.text


class Bus:
    """USB ports as the kernel and udev show them in a folder."""

    def __init__(self, folder: Path) -> None:
        self.dev, self.sysfs, self.links = folder / "dev", folder / "sysfs", folder / "v4l"
        for made in (self.dev, self.sysfs, self.links / "by-id", self.links / "by-path"):
            made.mkdir(parents=True)
        self.opened: list[str] = []

    def plug(self, node: str, name: str, port: int, serial: str) -> None:
        (self.dev / node).touch()
        (self.sysfs / node).mkdir()
        (self.sysfs / node / "name").write_text(name + "\n")
        for link in (self.links / "by-path" / f"usb-{port}", self.links / "by-id" / f"usb-{name}-{serial}"):
            link.unlink(missing_ok=True)
            link.symlink_to(self.dev / node)

    def unplug(self, node: str) -> None:
        (self.dev / node).unlink()
        (self.sysfs / node / "name").unlink()
        (self.sysfs / node).rmdir()
        for link in self.links.glob("*/*"):
            if not link.exists():
                link.unlink()

    def camera(self, node: str) -> V4l2Camera:
        def video_capture(device: str, api: int) -> FakeCapture:
            self.opened.append(Path(device).resolve().name)
            return FakeCapture(yuyv(scene(0)))

        settings = CameraSettings(source=str(self.dev / node), width=W, height=H)
        return V4l2Camera(settings, video_capture, self.sysfs, self.links)


@pytest.mark.parametrize(
    ("back_as", "port"),
    [("video0", 1), ("video3", 1), ("video3", 2)],
    ids=["where it was", "with another number", "at another port"],
)
def test_a_camera_that_was_unplugged_is_found_again(tmp_path: Path, back_as: str, port: int) -> None:
    bus = Bus(tmp_path)
    bus.plug("video0", "Webcam", 1, "A")
    bus.plug("video2", "Other", 3, "B")
    open_camera = bus.camera("video0")
    open_camera()
    bus.unplug("video0")
    with pytest.raises(UnavailableError, match=r"No camera .*video0"):
        open_camera()
    bus.plug(back_as, "Webcam", port, "A")
    open_camera()
    assert bus.opened == ["video0", back_as]
    bus.unplug(back_as)
    bus.plug("video7", "Webcam", 1, "A")  # and once more
    open_camera()
    assert bus.opened[-1] == "video7"


def test_another_camera_is_not_taken_for_the_one_that_was_lost(tmp_path: Path) -> None:
    bus = Bus(tmp_path)
    bus.plug("video0", "Webcam", 1, "A")
    open_camera = bus.camera("video0")
    open_camera()
    bus.unplug("video0")
    bus.plug("video0", "Other", 1, "B")
    with pytest.raises(UnavailableError, match=r"video0 is another camera now, Other instead of Webcam\."):
        open_camera()
    assert bus.opened == ["video0"]


def test_one_of_two_like_cameras_is_found_at_its_port(tmp_path: Path) -> None:
    bus = Bus(tmp_path)
    bus.plug("video0", "Webcam", 1, "")
    bus.plug("video2", "Webcam", 2, "")  # by-id is now this one's
    open_camera = bus.camera("video0")
    open_camera()
    bus.unplug("video0")
    bus.plug("video4", "Webcam", 1, "")
    open_camera()
    assert bus.opened == ["video0", "video4"]


def test_a_damaged_jpeg_is_passed_over(tmp_path: Path) -> None:
    broken = np.frombuffer(b"\xff\xd8 broken", np.uint8).reshape(1, -1)
    capture = FakeCapture(mjpg(scene(0)), mjpg(scene(1)), broken, mjpg(scene(3)))
    assert [f.seq for f in islice(v4l2(tmp_path, capture), 2)] == [0, 2]


def test_a_camera_that_sends_nothing(tmp_path: Path) -> None:
    capture = FakeCapture(None)
    with pytest.raises(UnavailableError, match="sends no picture"):
        v4l2(tmp_path, capture)
    assert not capture.opened


def test_a_camera_that_opencv_cannot_open(tmp_path: Path) -> None:
    capture = FakeCapture()
    capture.release()
    with pytest.raises(UnavailableError, match=r"held by another program .* or is none"):
        v4l2(tmp_path, capture)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), r"sudo usermod -aG video \$USER"),
        (OSError(16, "Device or resource busy"), "in use, held by another program"),
        (OSError(6, "No such device or address"), r"No camera 9 \(/dev/video9\)"),
        (OSError(5, "Input/output error"), r"camera 9 \(/dev/video9\) cannot be opened: Input/output error"),
    ],
)
def test_why_a_device_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, error: OSError, said: str) -> None:
    def refuse(*args: object) -> int:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnavailableError, match=said):
        source_of("9")


def test_who_holds_a_busy_camera_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*args: object) -> int:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "open", busy)
    holders = {"/dev/video9": (Holder(812, "rpicam-vid", ""), Holder(90, "motion", "motion.service"))}
    for held, said in (
        (holders, r"rpicam-vid \(pid 812\) and motion \(pid 90\)\. Stop"),
        ({}, "sudo edge-fer cameras"),
    ):
        monkeypatch.setattr("edge_fer.sources.v4l2.find_holders", dict(held).copy)
        with pytest.raises(UnavailableError, match=rf"/dev/video9 is in use, held by .*{said}"):
            source_of("9")


def test_a_missing_camera_names_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edge_fer.sources.v4l2.list_cameras", lambda: [Camera("/dev/video0", "HD Webcam"), Camera("/dev/video2", "Old")]
    )
    with pytest.raises(UnavailableError, match=r"No camera 99 \(/dev/video99\)\. Found: /dev/video0 \(HD Webcam\), /d"):
        source_of("99")
    with pytest.raises(UnavailableError, match=r"No camera /dev/v4l/by-id/none\. Found"):
        source_of("/dev/v4l/by-id/none")
    monkeypatch.setattr("edge_fer.sources.v4l2.list_cameras", list)
    with pytest.raises(UnavailableError, match=r"plug one in\. A Raspberry Pi camera module is --camera picamera:0"):
        source_of("99")


def test_a_lost_camera_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    gone = UnavailableError("not there")
    attempts: list[FakeCapture | UnavailableError] = [
        FakeCapture(scene(0), scene(1), scene(2), None),
        *[gone] * 8,
        FakeCapture(None),  # there again, but not yet ready
        FakeCapture(scene(0), scene(3), scene(4)),
    ]
    first = attempts[0]
    slept: list[float] = []
    pauses: list[float] = []

    def open_capture() -> FakeCapture:
        pauses.append(round(sum(slept), 1))
        slept.clear()
        capture = attempts.pop(0)
        if isinstance(capture, UnavailableError):
            raise capture
        return capture

    with caplog.at_level(logging.WARNING, "edge_fer"):
        source = live_source(open_capture, sleep=slept.append)
        frames = list(islice(source, 4))
    assert [f.seq for f in frames] == [0, 1, 2, 3]
    assert np.array_equal(frames[3].picture(), scene(4))
    assert all(later.time_s >= earlier.time_s for earlier, later in pairwise(frames))
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert [record.getMessage() for record in caplog.records] == [
        "/dev/video0 is lost. It is tried again until it is back.",
        "/dev/video0 is back.",
    ]
    assert isinstance(first, FakeCapture)
    assert not first.opened


def test_close_ends_the_pauses_of_a_lost_camera() -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            lost.close()

    lost = live_source(lambda: FakeCapture(scene(0), None), sleep=sleep)
    assert list(lost) == []
    assert len(slept) == 3


def test_close_in_a_read_leaves_the_release_to_the_reader() -> None:
    class ClosedWhileReading(FakeCapture):
        def read(self) -> tuple[bool, Image | None]:
            result = super().read()
            if self.pictures.empty():
                reader.close()
                assert self.opened  # OpenCV can crash when a capture is released under a read
            return result

    capture = ClosedWhileReading(scene(0), scene(1))
    capture.pictures.put(scene(2))
    reader = live_source(lambda: capture)
    assert len(list(reader)) <= 2
    assert not capture.opened


def test_a_real_capture_serves_as_a_camera(tmp_path: Path) -> None:
    clip = str(write_video(tmp_path / "a.avi", "MJPG", 6))
    source = live_source(lambda: cv2.VideoCapture(clip, cv2.CAP_FFMPEG), sleep=lambda seconds: None)  # type: ignore[arg-type, return-value]
    frames = list(islice(source, 12))  # its end is taken for a loss: it is opened again
    source.close()
    assert [f.seq for f in frames] == list(range(12))
    assert source.fps == pytest.approx(20.0)
