"""Sources: what all promise, and which one a name opens."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from picamera_parts import install_picamera2
from source_parts import (
    EndlessCapture,
    FakeCapture,
    H,
    W,
    fake_camera,
    live_source,
    mjpg,
    scene,
    source_of,
    write_video,
    yuyv,
)

from edge_fer.config import CameraSettings
from edge_fer.core import FrameSource, Image
from edge_fer.errors import DataError, InputMissingError, UsageError
from edge_fer.sources.live import OLDEST_S, LiveSource, newest_of
from edge_fer.sources.network import network_source
from edge_fer.sources.v4l2 import V4l2Camera
from edge_fer.threads import LatestFrame


def make_picture(folder: Path) -> FrameSource:
    cv2.imwrite(str(folder / "a.png"), scene(0))
    return source_of(folder / "a.png")


def make_grey_picture(folder: Path) -> FrameSource:
    cv2.imwrite(str(folder / "a.png"), scene(0)[..., 1])
    return source_of(folder / "a.png")


def make_folder(folder: Path) -> FrameSource:
    for n in range(5):
        cv2.imwrite(str(folder / f"{n}.jpg"), scene(n))
    return source_of(folder)


def make_video(folder: Path) -> FrameSource:
    return source_of(write_video(folder / "clip.mp4", "mp4v", 12))


def make_demo(folder: Path) -> FrameSource:
    if importlib.util.find_spec("edge_fer.sources.demo") is None:
        pytest.skip("there is no demo source yet")
    return source_of("demo")


MAKERS: dict[str, Callable[[Path], FrameSource]] = {
    "picture": make_picture,
    "gray picture": make_grey_picture,
    "folder": make_folder,
    "video": make_video,
    "camera, BGR": lambda folder: fake_camera(np.copy),
    "camera, YUYV": lambda folder: fake_camera(yuyv),
    "camera, MJPG": lambda folder: fake_camera(mjpg),
    "camera, gray": lambda folder: fake_camera(lambda bgr: bgr[..., 1].copy()),
    "camera in a thread": lambda folder: LatestFrame(fake_camera(yuyv)),
    "camera, upside down": lambda folder: live_source(lambda: EndlessCapture(yuyv), rotation=90, flip="horizontal"),
    "camera by V4L2": lambda folder: make_v4l2(folder, yuyv),
    "large camera by V4L2": lambda folder: make_v4l2(folder, lambda bgr: mjpg(cv2.resize(bgr, (1280, 960)))),
    "picamera": lambda folder: source_of("picamera:0"),
    "pipe": lambda folder: make_pipe(folder),
    "network stream": lambda folder: network_source(CameraSettings("rtsp://10.0.0.7/live"), endless),
    "network picture": lambda folder: network_source(CameraSettings("http://10.0.0.7/a.jpg"), one_by_one, no_sleep),
    "demo": make_demo,
}


def make_v4l2(folder: Path, encode: Callable[[Image], Image]) -> FrameSource:
    (folder / "video0").touch()
    settings = CameraSettings(str(folder / "video0"))
    camera = V4l2Camera(settings, lambda device, api: EndlessCapture(encode), folder, folder)
    return newest_of(LiveSource(camera.device, camera, settings))


def make_pipe(folder: Path) -> FrameSource:
    planes = [cv2.cvtColor(scene(n), cv2.COLOR_BGR2YUV_I420).tobytes() for n in range(12)]
    (folder / "raw").write_bytes(b"".join(planes))
    return source_of(f"pipe:{W}x{H}@30:{folder}/raw")


def endless(*_: object) -> EndlessCapture:
    return EndlessCapture(np.copy)


def one_by_one(*_: object) -> FakeCapture:
    return FakeCapture(scene(0), None)


def no_sleep(seconds: float) -> None:
    pass


@pytest.fixture(params=MAKERS, ids=lambda name: name.replace(" ", "_"))
def make(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], FrameSource]]:
    """Opens the source, again and again; what is open at the end is closed."""
    install_picamera2(monkeypatch).stride_for = {640: 640}
    made: list[FrameSource] = []

    def act() -> FrameSource:
        made.append(MAKERS[request.param](tmp_path))
        return made[-1]

    yield act
    for source in made:
        source.close()


@pytest.fixture
def source(make: Callable[[], FrameSource]) -> FrameSource:
    return make()


def test_it_can_be_opened_again(make: Callable[[], FrameSource]) -> None:
    for _ in range(3):
        source = make()
        frame = next(iter(source))
        assert source.live or (frame.seq, frame.time_s) == (0, 0.0)  # a live one may have gone on
        source.close()


def test_a_live_frame_tells_when_it_was_captured(source: FrameSource) -> None:
    before_s = time.monotonic()
    captured_s = [frame.captured_s for frame in islice(source, 3)]
    if source.live:
        for one_s in captured_s:
            assert one_s is not None and before_s - OLDEST_S <= one_s <= time.monotonic()


def test_frames_keep_the_contract(source: FrameSource) -> None:
    assert source.fps > 0
    frames = list(islice(source, 10))
    assert frames
    for frame in frames:
        assert frame.gray.dtype == np.uint8
        assert frame.gray.ndim == 2
        assert frame.stream
        assert frame.time_s >= 0
    for earlier, later in pairwise(frames):
        assert later.seq > earlier.seq
        assert later.time_s >= earlier.time_s


def test_pictures_are_bgr_and_free_to_draw_on(source: FrameSource) -> None:
    frame = next(iter(source))
    picture = frame.picture()
    assert picture.dtype == np.uint8
    assert picture.shape == (*frame.gray.shape, 3)
    again = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    assert np.abs(again.astype(int) - frame.gray).mean() < 8  # color and gray are the same scene
    gray = frame.gray.copy()
    picture[:] = 0
    assert np.array_equal(frame.gray, gray)
    assert not np.array_equal(frame.picture(), picture)


def test_a_frame_stays_as_it_was_while_others_follow(source: FrameSource) -> None:
    kept = [(f, f.gray.copy(), f.picture()) for f in islice(source, 10)]
    for frame, gray, picture in kept:
        assert np.array_equal(frame.gray, gray)
        assert np.array_equal(frame.picture(), picture)


def test_iteration_ends_after_close(source: FrameSource) -> None:
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []
    assert list(source) == []


def test_close_before_iterating(source: FrameSource) -> None:
    source.close()
    assert list(source) == []


def test_content_counts_more_than_the_name(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), scene(0))
    (tmp_path / "a.png").rename(tmp_path / "photo")
    assert [f.still for f in source_of(tmp_path / "photo")] == [True]
    write_video(tmp_path / "a.avi", "MJPG", 3).rename(tmp_path / "clip.jpg")
    assert [f.still for f in source_of(tmp_path / "clip.jpg")] == [False] * 3


def test_missing_and_odd_paths(tmp_path: Path) -> None:
    for nothing in (tmp_path / "nothing.mp4", "~nobody-has-this-name/clip.mp4"):
        with pytest.raises(InputMissingError, match="There is no file or folder"):
            source_of(nothing)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputMissingError, match="cannot be read: Not a directory"):
        source_of(tmp_path / "file" / "a.png")
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        source_of(tmp_path / "pipe.mp4")


def test_live_sources_are_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_fer.sources.v4l2.V4l2Camera.__call__", lambda camera: fake_camera(yuyv))
    for name in ("0", "/dev/video0"):
        source = source_of(name)
        assert isinstance(source, LatestFrame)
        assert source.live
        source.close()


def test_a_camera_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="name of the camera is empty"):
        source_of("")


def test_a_pi_camera_wants_a_number() -> None:
    with pytest.raises(UsageError, match="Write picamera:0"):
        source_of("picamera:front")
