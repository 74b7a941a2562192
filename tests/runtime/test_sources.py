"""Sources: what all promise, and which one a name opens."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from source_parts import (
    H,
    W,
    fake_camera,
    mjpg,
    scene,
    source_of,
    write_video,
    yuyv,
)

from edge_fer.core import FrameSource
from edge_fer.errors import DataError, InputMissingError, UsageError
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
    "demo": make_demo,
}


@pytest.fixture(params=MAKERS, ids=lambda name: name.replace(" ", "_"))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FrameSource]:
    made = MAKERS[request.param](tmp_path)
    yield made
    made.close()


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
    cv2.rectangle(picture, (0, 0), (W, H), (0, 0, 0), -1)
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
