"""Video files."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from source_parts import (
    FakeCapture,
    scene,
    source_of,
    write_video,
)

from edge_fer.core import Frame, Image
from edge_fer.errors import DataError


@pytest.mark.parametrize(
    ("name", "fourcc"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.mkv", "MJPG"), ("a.mkv", "mp4v")]
)
def test_every_frame_of_a_video_in_order_and_on_time(tmp_path: Path, name: str, fourcc: str) -> None:
    source = source_of(write_video(tmp_path / name, fourcc, 30))
    frames = list(source)
    assert source.fps == pytest.approx(20.0)
    assert not source.live
    assert [f.seq for f in frames] == list(range(30))
    assert [f.time_s for f in frames] == pytest.approx([n / 20 for n in range(30)], abs=1e-3)
    assert {f.stream for f in frames} == {str(tmp_path / name)}
    assert not any(f.still for f in frames)
    for n, frame in enumerate(frames):
        assert frame.gray.mean() == pytest.approx(scene(0).dot([0.114, 0.587, 0.299]).mean() + 6 * n, abs=2.9)


class FakeVideo(FakeCapture):
    """A video file: pictures with the times that its container gives."""

    def __init__(self, *times_ms: float, fps: float = 10.0) -> None:
        super().__init__()
        self.times_ms = list(times_ms)
        self.properties = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: len(times_ms)}

    def grab(self) -> bool:
        if self.times_ms:
            self.properties[cv2.CAP_PROP_POS_MSEC] = self.times_ms.pop(0)
            return True
        return False

    def retrieve(self) -> tuple[bool, Image]:
        return True, scene(0)


@pytest.mark.parametrize(
    ("times_ms", "times_s"),
    [
        pytest.param([0, 40, 240, 250], [0, 0.04, 0.24, 0.25], id="varying"),
        pytest.param([0, 0, 0, 0], [0, 0.1, 0.2, 0.3], id="none"),
        pytest.param([0, 100, 50, 300], [0, 0.1, 0.2, 0.3], id="back"),
        pytest.param([-30, 70, 170, 270], [0, 0.07, 0.17, 0.27], id="before-the-beginning"),
    ],
)
def test_times_come_from_the_container_where_they_make_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times_ms: list[float], times_s: list[float]
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeVideo(*times_ms))
    (tmp_path / "a.mp4").write_bytes(b"the fake does not look")
    assert [f.time_s for f in source_of(tmp_path / "a.mp4")] == pytest.approx(times_s)


@pytest.mark.parametrize("fps", [0.0, float("nan"), 90_000.0])
def test_a_senseless_frame_rate_becomes_25(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fps: float) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeVideo(0, 40, fps=fps))
    (tmp_path / "a.mp4").write_bytes(b"the fake does not look")
    source = source_of(tmp_path / "a.mp4")
    assert source.fps == 25.0
    assert len(list(source)) == 2


@pytest.mark.parametrize(("name", "fourcc"), [("a.avi", "MJPG"), ("a.mkv", "mp4v")])
def test_a_cut_video_gives_what_it_has_then_says_so(tmp_path: Path, name: str, fourcc: str) -> None:
    whole = write_video(tmp_path / name, fourcc, 60).read_bytes()
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(whole[: len(whole) // 2])
    seen: list[Frame] = []
    with pytest.raises(DataError, match=r"ends after \d+ of about 60 frames: the file is cut short") as caught:
        seen.extend(source_of(cut))  # extend keeps what came before the error
    assert 10 < len(seen) < 50
    assert f"after {len(seen)} of" in str(caught.value)


def test_a_cut_video_that_was_closed_early_is_no_error(tmp_path: Path) -> None:
    source = source_of(write_video(tmp_path / "a.avi", "MJPG", 60))
    frames = iter(source)
    next(frames)
    source.close()
    assert list(frames) == []


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.mp4", b"just text\n" * 50), ("a.jpg", b"just text\n" * 50), ("a", b"\x00\x01\x02" * 999), ("a.mp4", b"")],
    ids=["text.mp4", "text.jpg", "bytes", "empty"],
)
def test_neither_picture_nor_video(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match="is neither a picture nor a video that OpenCV can read"):
        source_of(tmp_path / name)
    assert capfd.readouterr() == ("", "")  # FFmpeg and OpenCV keep silent


def test_a_cut_mp4_without_its_index_cannot_be_opened(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "a.mp4", "mp4v", 60)
    data = path.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not copied to its end"):
        source_of(path)
    assert capfd.readouterr() == ("", "")
