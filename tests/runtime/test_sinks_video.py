"""Annotated videos."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from story import a_result, a_run, file_size_limit, frames_of

from edge_fer.core import Frame, FrameResult
from edge_fer.errors import OutputError
from edge_fer.events import Run
from edge_fer.sinks import open_sink


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "100%d a:b.mp4"])
def test_video_keeps_the_time_of_the_stream(name: str) -> None:
    sink = open_sink(f"video:{name}", a_run())
    # Two frames in one moment, then a gap of three, then the next frame in time.
    for time_s, gray in ((5.0, 20), (5.1, 60), (5.12, 255), (5.2, 100), (5.6, 160), (5.7, 220)):
        sink.write(a_result(0, time_s=time_s, gray=gray))
    sink.close()
    shades = [round(frame.mean() / 20) * 20 for frame in frames_of(name)]
    assert shades == [20, 60, 100, 100, 100, 100, 160, 220]
    assert cv2.VideoCapture(str(Path(name).absolute()), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FPS) == pytest.approx(10)


def test_video_does_not_hold_a_picture_for_hours() -> None:
    sink = open_sink("video:a.mp4", a_run())
    for time_s, gray in ((0.0, 40), (7200.0, 200), (7200.2, 120)):
        sink.write(a_result(0, time_s=time_s, gray=gray))
    sink.close()
    shades = [round(frame.mean() / 20) * 20 for frame in frames_of("a.mp4")]
    assert shades == [40] * 21 + [200, 200, 120]


def test_video_of_several_streams_and_sizes() -> None:
    sink = open_sink("video:a.mp4", a_run())
    sink.write(a_result(0, gray=200, size_wh=(161, 121)))
    sink.write(a_result(0, gray=200, size_wh=(60, 240), stream="tall"))
    sink.write(a_result(0, gray=200, size_wh=(320, 40), stream="wide"))
    sink.close()
    first, tall, wide = (frame[..., 0] > 100 for frame in frames_of("a.mp4"))
    assert first.shape == (120, 160)
    assert first.all()
    assert tall[:, 68:92].all()
    assert not tall[:, :60].any() and not tall[:, 100:].any()
    assert wide[54:66].all()
    assert not wide[:44].any() and not wide[76:].any()


def test_video_at_a_rate_that_mpeg4_cannot_count() -> None:
    run = Run("pi", "compact", "ab" * 32, fps=143.8561)
    sink = open_sink("video:a.mp4", run)
    for seq in range(30):
        sink.write(a_result(seq, time_s=seq / run.fps))
    sink.close()
    assert len(frames_of("a.mp4")) == 30


def test_video_too_large_for_mpeg4() -> None:
    sink = open_sink("video:a.mp4", a_run())
    with pytest.raises(OutputError, match=r"9000 x 16 pixels .* \.avi"):
        sink.write(a_result(0, size_wh=(9000, 16)))
    sink.close()


def whole_boxes(name: str) -> list[bytes]:
    """The kinds of the boxes that are in an .mp4 in full: "mdat" holds the images of a fragment."""
    data, place, kinds = Path(name).read_bytes(), 0, []
    while place + 8 <= len(data) and place + int.from_bytes(data[place : place + 4], "big") <= len(data):
        kinds.append(data[place + 4 : place + 8])
        place += max(8, int.from_bytes(data[place : place + 4], "big"))
    return kinds


def test_an_mp4_can_be_played_before_it_is_closed() -> None:
    sink = open_sink("video:a.mp4", a_run())
    for seq in range(40):
        sink.write(a_result(seq, gray=100 + seq))
    deadline = time.monotonic() + 60
    while (boxes := whole_boxes("a.mp4")).count(b"mdat") < 2 and time.monotonic() < deadline:
        os.sched_yield()  # another thread writes it, and FFmpeg when it likes
    assert boxes.count(b"mdat") >= 2
    Path("killed.mp4").write_bytes(Path("a.mp4").read_bytes())
    sink.close()
    assert 2 <= len(frames_of("killed.mp4")) < 40
    assert len(frames_of("a.mp4")) == 40
    assert Path("a.mp4").read_bytes()[4:12] == b"ftypisom"


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.MP4"])
@pytest.mark.parametrize("folder", ["caf\udce9", "\u8868\u60c5 \u00fc", "a:b%d", "."])
def test_a_video_in_a_folder_of_any_name(folder: str, name: str) -> None:
    path = Path(folder, "\udcff" + name)
    sink = open_sink(f"video:{path}", a_run())
    for seq in range(15):
        sink.write(a_result(seq))
    sink.close()
    path.rename("plain" + path.suffix)
    assert len(frames_of("plain" + path.suffix)) == 15


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_camera_never_overwrites_a_video(suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    def record(run: Run, frames: int) -> None:
        sink = open_sink(f"video:a{suffix}", run)
        for seq in range(frames):
            sink.write(a_result(seq))
        sink.close()

    for frames in (5, 6, 7):
        record(a_run(live=True), frames)
    assert {path.name: len(frames_of(path.name)) for path in Path().iterdir()} == {
        f"a{suffix}": 5,
        f"a-2{suffix}": 6,
        f"a-3{suffix}": 7,
    }
    assert f"This one goes to a-3{suffix}." in caplog.text
    record(Run(fps=10.0, live=True, overwrite=True), 8)
    record(Run(fps=10.0), 9)
    assert len(frames_of(f"a{suffix}")) == 9
    assert len(list(Path().iterdir())) == 3


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_full_disk_is_noticed_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (60, 120, 160)).astype(np.uint8)
    sink = open_sink(f"video:{name}", a_run())
    if name == "a.avi":
        real = os.fstatvfs(1)
        full = os.statvfs_result((*real[:3], 10, 10, *real[5:]))
        monkeypatch.setattr("edge_fer.sinks.video.os.fstatvfs", lambda file: full)
    written = 0
    with file_size_limit(60_000), pytest.raises(OutputError, match=f"^Cannot write {name}: .*\\. [A-Z].*\\.$"):
        for seq, gray in enumerate(noise):
            sink.write(FrameResult(Frame(gray, seq, seq / 10, "clip"), (), (), {}))
            written = seq
    sink.close()
    assert written < 59
    frames = frames_of(name)
    assert len(frames) >= 1
    if name == "a.mp4":
        assert cv2.VideoCapture(name).get(cv2.CAP_PROP_FRAME_COUNT) == len(frames)


def test_a_pipe_is_no_place_for_a_video() -> None:
    os.mkfifo("a.mp4")
    with pytest.raises(OutputError, match=r"a\.mp4 is a pipe, and a video needs a file"):
        open_sink("video:a.mp4", a_run())
