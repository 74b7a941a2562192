"""Every setting of a camera at every source: it holds, or docs/cameras.md says that it does not."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from picamera_parts import install_picamera2
from source_parts import OLD_OPENCV, FakeCapture, H, W, mjpg, scene, write_video

from edge_fer.config import CameraSettings
from edge_fer.core import Frame, FrameSource
from edge_fer.sources import open_source
from edge_fer.sources.live import LiveSource
from edge_fer.sources.mounting import upright
from edge_fer.sources.network import network_source
from edge_fer.sources.v4l2 import V4l2Camera
from edge_fer.sources.video import VideoSource, open_capture

Open = Callable[[Path, CameraSettings], FrameSource]

SIDEWAYS = CameraSettings(name="door", rotation=90, flip="vertical")
"""Settings with which no pixel is where it was."""


def of_file(name: str, write: Callable[[Path], object]) -> Open:
    """Opens a file that is written before; "." is its folder."""

    def act(folder: Path, settings: CameraSettings) -> FrameSource:
        (folder / "clips").mkdir(exist_ok=True)
        write(folder / "clips" / (name if name != "." else "a.avi"))
        return open_source(dataclasses.replace(settings, source=str(folder / "clips" / name)))

    return act


def v4l2(folder: Path, settings: CameraSettings) -> FrameSource:
    (folder / "video0").touch()
    frames = [cv2.resize(scene(n), (settings.width, settings.height)) for n in (0, 0)]
    camera = V4l2Camera(
        dataclasses.replace(settings, source=str(folder / "video0")), lambda *_: FakeCapture(*map(mjpg, frames))
    )
    return LiveSource(camera.device, camera, settings)


def network(folder: Path, settings: CameraSettings) -> FrameSource:
    size_wh = (settings.width, settings.height)
    capture = FakeCapture(*(cv2.resize(scene(0), size_wh) for _ in range(2)))
    return network_source(dataclasses.replace(settings, source="rtsp://10.0.0.7/live"), lambda *_: capture)


def network_video(folder: Path, settings: CameraSettings) -> FrameSource:
    video = open_capture(str(write_video(folder / "a.avi", "MJPG", 3)))
    return network_source(dataclasses.replace(settings, source="http://10.0.0.7/a.avi"), lambda *_: video)


def stdin(folder: Path, settings: CameraSettings) -> FrameSource:
    path = write_video(folder / "a.avi", "MJPG", 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "edge_fer.sources.pipe.stdin_source", lambda settings: VideoSource("stdin", open_capture(str(path)))
        )
        return open_source(dataclasses.replace(settings, source="-"))


def pipe(folder: Path, settings: CameraSettings) -> FrameSource:
    planes = cv2.cvtColor(cv2.resize(scene(0), (settings.width, settings.height)), cv2.COLOR_BGR2YUV_I420)
    (folder / "raw").write_bytes(planes.tobytes() * 2)
    name = f"pipe:{settings.width}x{settings.height}@30:{folder / 'raw'}"
    return open_source(dataclasses.replace(settings, source=name))


def rpicam(folder: Path, settings: CameraSettings) -> FrameSource:
    """The program is a script that gives one picture again and again."""
    planes = cv2.cvtColor(cv2.resize(scene(0), (settings.width, settings.height)), cv2.COLOR_BGR2YUV_I420)
    (folder / "raw").write_bytes(planes.tobytes())
    program = folder / "rpicam-vid"
    program.write_text(f"#!/bin/sh\nwhile cat {folder}/raw; do :; done\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return open_source(dataclasses.replace(settings, source="rpicam:0"))


def picamera(folder: Path, settings: CameraSettings) -> FrameSource:
    return open_source(dataclasses.replace(settings, source="picamera:0"))


def demo(folder: Path, settings: CameraSettings) -> FrameSource:
    return open_source(dataclasses.replace(settings, source="demo"))


def write_animation(path: Path) -> None:
    animation = cv2.Animation()
    animation.frames, animation.durations = [scene(n) for n in range(3)], [100] * 3
    assert cv2.imwriteanimation(str(path), animation)


def write_jpegs(path: Path) -> None:
    path.write_bytes(b"".join(cv2.imencode(".jpg", scene(n))[1].tobytes() for n in range(3)))


CAMERAS: dict[str, Open] = {"v4l2": v4l2, "network": network, "pipe": pipe, "picamera": picamera, "rpicam": rpicam}
VIDEOS: dict[str, Open] = {
    "stdin": stdin,
    "network video": network_video,
    "video": of_file("a.avi", lambda path: write_video(path, "MJPG", 3)),
    "animation": of_file("a.webp", write_animation),
    **({} if OLD_OPENCV else {"GIF": of_file("a.gif", write_animation)}),  # which it does not write
    "JPEGs": of_file("a.mjpeg", write_jpegs),
    "folder": of_file(".", lambda path: write_video(path, "MJPG", 3)),
}


@pytest.fixture(autouse=True)
def fake_picamera(monkeypatch: pytest.MonkeyPatch) -> None:
    install_picamera2(monkeypatch).stride_for = {W: W, 640: 640, 1280: 1280}


def first_of(open_it: Open, folder: Path, settings: CameraSettings) -> Frame:
    with closing(open_it(folder, settings)) as source:
        return next(iter(source))


@pytest.mark.parametrize("name", [*CAMERAS, *VIDEOS])
def test_what_moves_is_turned_and_has_its_name(tmp_path: Path, name: str) -> None:
    open_it = (CAMERAS | VIDEOS)[name]
    small = {"width": W, "height": H}
    plain = first_of(open_it, tmp_path, CameraSettings(**small))
    turned = first_of(open_it, tmp_path, dataclasses.replace(SIDEWAYS, **small))
    for one, other in ((turned.gray, plain.gray), (turned.picture(), plain.picture())):
        assert one.shape[:2] == (W, H)
        # A camera that is read in a thread may have gone on, to a picture that is brighter as a whole.
        change = one.astype(int) - upright(other, 90, "vertical")
        assert np.abs(change - change.mean(axis=(0, 1))).max() <= 4
    assert plain.stream
    # In a folder the name alone would be that of several, and a track has to end where its file does.
    assert turned.stream == ("door/a.avi" if name == "folder" else "door")


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("full_size", [False, True])
def test_a_live_image_of_960_lines_is_halved_unless_it_is_to_be_whole(
    tmp_path: Path, name: str, full_size: bool
) -> None:
    settings = CameraSettings(width=1280, height=960, full_size=full_size)
    assert first_of(CAMERAS[name], tmp_path, settings).gray.shape == ((960, 1280) if full_size else (480, 640))


def test_the_files_of_a_folder_keep_apart_under_one_name(tmp_path: Path) -> None:
    for place in ("b/1.avi", "a/1.avi", "c.avi"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write_video(tmp_path / place, "MJPG", 2)
    cv2.imwrite(str(tmp_path / "d.png"), scene(0))
    frames = list(open_source(CameraSettings(str(tmp_path), name="door")))
    streams = ["door/a/1.avi", "door/b/1.avi", "door/c.avi"]
    assert [frame.stream for frame in frames] == [*(one for one in streams for _ in range(2)), f"{tmp_path}/d.png"]


def test_an_image_keeps_its_path_and_stands_as_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), scene(0))
    (frame,) = open_source(dataclasses.replace(SIDEWAYS, source=str(path)))
    assert frame.stream == str(path)
    assert np.array_equal(frame.picture(), scene(0))


def test_the_demo_is_upright_and_has_its_name(tmp_path: Path) -> None:
    plain, named = (first_of(demo, tmp_path, settings) for settings in (CameraSettings(), SIDEWAYS))
    assert np.array_equal(named.gray, plain.gray)
    assert (plain.stream, named.stream) == ("demo", "door")
    assert named.truth == plain.truth
