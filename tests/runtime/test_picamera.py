"""PicameraSource against a fake with the calls, names and buffer handling of picamera2 0.3."""

from __future__ import annotations

import dataclasses
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from picamera_parts import SYCC, FakePicamera2, install_picamera2, smooth_scene

from edge_fer.config import CameraSettings
from edge_fer.errors import UnavailableError
from edge_fer.sources import picamera
from edge_fer.sources.picamera import PicameraSource


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakePicamera2]:
    """The fake, installed as picamera2; a class of its own for every test."""
    return install_picamera2(monkeypatch)


PADDED = CameraSettings(width=90, height=60, fps=25)


def test_gray_is_the_picture_without_the_padding(fake: type[FakePicamera2]) -> None:
    source = PicameraSource(0, PADDED)
    frames = iter(source)
    for step in range(3):
        gray = next(frames).gray
        assert gray.shape == (60, 90) and gray.dtype == np.uint8
        np.testing.assert_array_equal(gray, cv2.cvtColor(smooth_scene(90, 60, step), cv2.COLOR_BGR2YCrCb)[..., 0])
    source.close()


@pytest.mark.parametrize(("width", "height"), [(90, 60), (90, 62), (320, 240)])
def test_color_is_the_picture_long_after_the_buffer_went_back(
    fake: type[FakePicamera2], width: int, height: int
) -> None:
    source = PicameraSource(0, CameraSettings(width=width, height=height))
    frames = iter(source)
    kept = [next(frames) for _ in range(3)]
    source.close()
    for step, frame in enumerate(kept):
        difference = np.abs(frame.picture().astype(int) - smooth_scene(width, height, step))
        assert difference.max() <= 6, f"frame {step}"


def test_every_buffer_goes_back_before_the_frame_is_used(fake: type[FakePicamera2]) -> None:
    source = PicameraSource(0, PADDED)
    frames = iter(source)
    for _ in range(3):
        next(frames)
        assert all(request.released for request in fake.made[0].requests)
    assert len(fake.made[0].requests) == 3


def test_asks_for_one_full_range_yuv_stream(fake: type[FakePicamera2]) -> None:
    PicameraSource(0, PADDED)
    config = fake.made[0].config
    assert config["main"]["format"] == "YUV420"
    assert config["lores"] is None
    assert config["colour_space"] is SYCC
    assert config["controls"] == {"FrameRate": 25}


@pytest.mark.parametrize(
    ("known", "settings", "asked"),
    [
        (("AfMode", "ExposureTime"), {}, {"AfMode": 2}),
        (
            ("AfMode", "ExposureTime"),
            {"autofocus": False, "exposure_ms": 12.5},
            {"AfMode": 0, "AeEnable": False, "ExposureTime": 12500},
        ),
        (("ExposureTime",), {"autofocus": False}, {}),
        ((), {"exposure_ms": 5.0}, {}),
    ],
)
def test_asks_for_what_the_camera_can(
    fake: type[FakePicamera2], known: tuple[str, ...], settings: dict[str, Any], asked: dict[str, Any]
) -> None:
    fake.camera_controls = dict.fromkeys(known)
    PicameraSource(0, dataclasses.replace(PADDED, **settings))
    assert fake.made[0].controls == asked


@pytest.mark.parametrize(("full_size", "asked"), [(False, (960, 540)), (True, (1920, 1080))])
def test_a_large_picture_is_reduced_by_the_camera(
    fake: type[FakePicamera2], full_size: bool, asked: tuple[int, int]
) -> None:
    fake.stride_for = {960: 960, 1920: 1920}
    source = PicameraSource(0, CameraSettings(width=1920, height=1080, full_size=full_size))
    assert fake.made[0].config["main"]["size"] == asked
    assert next(iter(source)).gray.shape == asked[::-1]


def test_what_breaks_on_the_way_counts_as_lost(fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch) -> None:
    frames = iter(PicameraSource(0, PADDED))
    next(frames)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Camera frontend has timed out!")

    monkeypatch.setattr(fake, "captured_request", broken)
    with pytest.raises(UnavailableError, match=r"picamera:0 is lost \(Camera frontend has timed out!\)\."):
        next(frames)


def test_takes_the_size_that_the_camera_gives(fake: type[FakePicamera2]) -> None:
    fake.given_size = (320, 240)
    source = PicameraSource(0, CameraSettings(width=333, height=250))
    assert next(iter(source)).gray.shape == (240, 320)


def test_numbers_times_and_names_frames(fake: type[FakePicamera2]) -> None:
    source = PicameraSource(0, PADDED)
    frames = iter(source)
    first, second = next(frames), next(frames)
    assert (first.seq, second.seq) == (0, 1)
    assert (first.time_s, second.time_s) == (0.0, pytest.approx(0.04))
    assert first.stream == second.stream == "picamera:0"
    assert source.live and source.fps == 25.0


def test_time_runs_without_a_sensor_timestamp(fake: type[FakePicamera2]) -> None:
    fake.timestamps = False
    frames = iter(PicameraSource(0, PADDED))
    first, second = next(frames), next(frames)
    assert first.time_s == 0.0 < second.time_s


def test_close_ends_the_iteration_and_may_be_called_twice(fake: type[FakePicamera2]) -> None:
    source = PicameraSource(0, PADDED)
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert next(frames, None) is None
    assert list(source) == []
    assert fake.made[0].closed


def test_close_frees_a_thread_that_waits_for_a_frame(
    fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picamera, "STALL_S", 600.0)
    fake.stalls_after = 1
    source = PicameraSource(0, PADDED)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(frame.seq for frame in source), daemon=True)
    thread.start()
    assert fake.made[0].waits.wait(10)
    source.close()
    thread.join(10)
    assert not thread.is_alive()
    assert seen == [0]


def test_a_camera_that_sends_nothing_is_unavailable(fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picamera, "STALL_S", 0.01)
    fake.stalls_after = 1
    source = PicameraSource(0, PADDED)
    frames = iter(source)
    next(frames)
    with pytest.raises(UnavailableError, match=r"picamera:0 has sent nothing.*ribbon cable"):
        next(frames)
    source.close()


def test_an_unknown_number_lists_the_cameras(fake: type[FakePicamera2]) -> None:
    with pytest.raises(UnavailableError, match=r"no picamera:1\. Found: picamera:0 \(imx708\)\."):
        PicameraSource(1, PADDED)
    fake.infos = ()
    with pytest.raises(UnavailableError, match="Found: none; check both ends"):
        PicameraSource(0, PADDED)


def test_a_camera_in_use_names_the_likely_cause(fake: type[FakePicamera2]) -> None:
    fake.open_error = "Camera __init__ sequence did not complete."
    with pytest.raises(UnavailableError, match=r"did not complete\). Another program may hold it.*fuser"):
        PicameraSource(0, PADDED)


def test_a_camera_that_does_not_start_is_closed_again(fake: type[FakePicamera2]) -> None:
    fake.start_error = "Failed to start camera: Device or resource busy"
    with pytest.raises(UnavailableError, match="resource busy"):
        PicameraSource(0, PADDED)
    assert fake.made[0].closed


def test_without_picamera2_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    monkeypatch.setitem(sys.modules, "libcamera", None)
    with pytest.raises(UnavailableError, match=r"apt install python3-picamera2.*--system-site-packages"):
        PicameraSource(0, PADDED)


def test_a_picamera2_for_another_numpy_names_the_cure(
    fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "picamera2.py").write_text("raise ValueError('numpy.dtype size changed')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "picamera2")
    with pytest.raises(UnavailableError, match=r"size changed.*--force-reinstall --no-deps simplejpeg"):
        PicameraSource(0, PADDED)
