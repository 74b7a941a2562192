"""Video files."""

from __future__ import annotations

import functools
import logging
import os
import re
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from source_parts import OLD_OPENCV, FakeCapture, H, W, scene, source_of, write_video

from edge_fer.core import Frame, Image
from edge_fer.errors import DataError
from edge_fer.sources.ffmpeg import FfmpegCapture
from edge_fer.sources.whole import is_cut


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


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [b"caf\xe9.mp4", b"\xff\xfe.avi", b"2026-11-14T22:57:44+02:00.mp4", b"http:x.mkv", b"concat:a.avi", b"file:a.avi"],
)
@pytest.mark.parametrize("form", ["absolute", "relative", "dotted"])
def test_any_bytes_make_the_name_of_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes, form: str
) -> None:
    text = os.fsdecode(name)
    write_video(tmp_path / f"a{Path(text).suffix}", "mp4v", 3).rename(tmp_path / text)
    monkeypatch.chdir(tmp_path)
    if OLD_OPENCV and "\udc80" < max(text) < "\ue000":
        with pytest.raises(DataError, match=r"takes only UTF-8\. Rename it"):
            source_of(tmp_path / text)
        return
    path = {"absolute": str(tmp_path / text), "relative": text, "dotted": f"./{text}"}[form]
    assert len(list(source_of(path))) == 3


# --- rates and lengths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true_fps", [0.001, 0.5, 1, 7.5, 15, 29.97, 60, 240, 1000])
@pytest.mark.parametrize("told_fps", [0.0, 1000.0, 60_000.0, 90_000.0])
def test_a_rate_that_the_container_makes_up_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, true_fps: float, told_fps: float
) -> None:
    times_ms = [n * 1000 / true_fps for n in range(9)]
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeVideo(*times_ms, fps=told_fps))
    (tmp_path / "a.webm").write_bytes(b"the fake does not look")
    source = source_of(tmp_path / "a.webm")
    assert source.fps == pytest.approx(max(1.0, true_fps))
    assert [f.time_s for f in source] == pytest.approx([ms / 1000 for ms in times_ms])


@pytest.mark.parametrize("fps", [0.001, 0.02, 0.5, 1, 24, 120])
def test_a_rate_that_makes_sense_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fps: float) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeVideo(0, 0, 0, fps=fps))
    (tmp_path / "a.webm").write_bytes(b"the fake does not look")
    source = source_of(tmp_path / "a.webm")
    assert source.fps == max(1.0, fps)
    assert [f.time_s for f in source] == pytest.approx([0, 1 / fps, 2 / fps])


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi"])
def test_a_video_that_states_more_than_its_pictures_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # As where the sound goes on, or the last picture is held.
    write_video(tmp_path / name, "mp4v", 12)
    fake = FakeVideo(*range(0, 1200, 100))
    fake.properties[cv2.CAP_PROP_FRAME_COUNT] = 500
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: fake)
    assert len(list(source_of(tmp_path / name))) == 12


def boxes(*named: tuple[bytes, int]) -> bytes:
    return b"".join(struct.pack(">I", 8 + length) + name + bytes(length) for name, length in named)


def element(name: bytes, data: bytes, length: int | None = None) -> bytes:
    """Of Matroska; a length of -1 is not known."""
    if length == -1:
        return name + b"\x01" + b"\xff" * 7 + data
    return name + struct.pack(">Q", (1 << 56) | len(data)) + data


SEGMENT, CLUSTER, BLOCK = b"\x18S\x80g", b"\x1fC\xb6u", b"\xa3"
MATROSKA = element(b"\x1aE\xdf\xa3", bytes(30))
CLUSTERS = element(CLUSTER, element(BLOCK, bytes(900))) * 3
WHOLE = {
    "fast start": boxes((b"ftyp", 24), (b"moov", 500), (b"mdat", 4000)),
    "fragments": boxes((b"ftyp", 24), (b"moov", 500), *[(b"moof", 90), (b"mdat", 900)] * 4),
    "large box": boxes((b"ftyp", 24)) + struct.pack(">I4sQ", 1, b"mdat", 16 + 4000) + bytes(4000),
    "AVI": b"RIFF" + struct.pack("<I", 4004) + b"AVI " + bytes(4000),
    "OpenDML": (b"RIFF" + struct.pack("<I", 2004) + b"AVI " + bytes(2000)) * 2,
    "Matroska": MATROSKA + element(SEGMENT, CLUSTERS),
    "Matroska, live": MATROSKA + element(SEGMENT, CLUSTERS, -1),
    "FLV": b"FLV\x01\x05\0\0\0\x09\0\0\0\0" + (b"\x09\0\x01\x90" + bytes(407) + struct.pack(">I", 411)) * 9,
    "GIF": b"GIF89a" + bytes(4000) + b";",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_is_cut_is_told_from_a_whole_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(WHOLE[name])
    assert not is_cut(path)
    for share in range(2, 20):
        path.write_bytes(WHOLE[name][: len(WHOLE[name]) * share // 20 - 3])
        assert is_cut(path), share


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"RIFF" + bytes(4) + b"AVI " + bytes(4000), id="AVI-never-finished"),
        pytest.param(MATROSKA + element(SEGMENT, element(CLUSTER, bytes(900), -1), -1), id="WebM-of-a-browser"),
        pytest.param(
            boxes((b"ftyp", 24), (b"moov", 500)) + struct.pack(">I", 0) + b"mdat" + bytes(900), id="to-the-end"
        ),
        pytest.param(boxes((b"ftyp", 24), (b"mdat", 500)) + b"a trailer of the camera's own", id="trailer"),
        pytest.param(b"\0\0\0\1\x67" + bytes(900), id="H.264"),
    ],
)
def test_a_file_that_does_not_say_where_it_ends_is_not_called_cut(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    assert not is_cut(tmp_path / "a")


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [[5], [5, 6], [3, 9, 15], [1], [*range(4, 18)]])
def test_damaged_frames_are_passed_over_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: list[int]
) -> None:
    data = bytearray(write_video(tmp_path / "a.avi", "MJPG", 20).read_bytes())
    starts = [found.start() for found in re.finditer(rb"00dc....\xff\xd8", data, re.DOTALL)]
    assert len(starts) == 20
    for number in damaged:
        (length,) = struct.unpack_from("<I", data, starts[number] + 4)
        data[starts[number] + 8 : starts[number] + 8 + length] = bytes(length)
    (tmp_path / "a.avi").write_bytes(data)
    with caplog.at_level(logging.WARNING, "edge_fer"):
        frames = list(source_of(tmp_path / "a.avi"))
    assert [f.seq for f in frames] == [n for n in range(20) if n not in damaged]
    assert [f.time_s for f in frames] == pytest.approx([f.seq / 20 for f in frames], abs=1e-3)
    what = "1 damaged frame was" if len(damaged) == 1 else f"{len(damaged)} damaged frames were"
    assert caplog.messages == [f"{tmp_path / 'a.avi'}: {what} left out."]


# --- what OpenCV cannot convert ---------------------------------------------------------------------------------


def write_y4m(path: Path, interlaced: str, frames: int, black: int = 0, more: str = "") -> Path:
    """A video without compression that says of itself whether it is interlaced (t) or not (p)."""
    data = f"YUV4MPEG2 W{W} H{H} F20:1 I{interlaced} A1:1 C420jpeg{more}\n".encode()
    for n in range(frames):
        image = scene(n) if n >= black else np.zeros_like(scene(0))
        data += b"FRAME\n" + cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420).tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["t", "p"])
@pytest.mark.parametrize("black", [0, 1, 3])
def test_an_interlaced_video_is_read_like_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, black: int
) -> None:
    frames = list(source_of(write_y4m(tmp_path / "a.y4m", kind, 14, black)))
    assert [f.seq for f in frames] == list(range(14))
    assert [f.time_s for f in frames] == pytest.approx([n / 20 for n in range(14)], abs=1e-3)
    for n, frame in enumerate(frames):
        shown = scene(n) if n >= black else np.zeros_like(scene(0))
        assert np.abs(frame.picture().astype(int) - shown).mean() < 20
        assert frame.gray.shape == (H, W)
    means = [f.gray.mean() for f in frames[black:]]
    assert all(later - earlier > 2 for earlier, later in pairwise(means))
    assert not caplog.messages


def test_opencv_still_cannot_convert_interlaced_frames(tmp_path: Path) -> None:
    # When this fails, edge_fer/sources/ffmpeg.py can go.
    capture = cv2.VideoCapture(str(write_y4m(tmp_path / "a.y4m", "t", 3)), cv2.CAP_FFMPEG)
    (read, image), (read_again, another) = capture.read(), capture.read()
    assert read
    assert read_again
    assert np.array_equal(image, another) != OLD_OPENCV


@pytest.mark.parametrize(("name", "fourcc"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.mkv", "mp4v")])
def test_ffmpeg_gives_what_opencv_gives(tmp_path: Path, name: str, fourcc: str) -> None:
    path = write_video(tmp_path / name, fourcc, 12)
    if OLD_OPENCV:
        with pytest.raises(OSError, match="cannot be called directly"):
            FfmpegCapture(os.fsencode(path))
        return
    direct, usual = FfmpegCapture(os.fsencode(path)), cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    for _ in range(12):
        assert direct.grab()
        assert usual.grab()
        assert direct.get(cv2.CAP_PROP_POS_MSEC) == pytest.approx(usual.get(cv2.CAP_PROP_POS_MSEC))
        assert np.abs(direct.retrieve()[1].astype(int) - usual.retrieve()[1]).max() <= 8
    assert direct.read() == (False, None)
    direct.release()
    assert not direct.isOpened()
    assert direct.read() == (False, None)
    direct.release()


TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
"""The display matrix of a phone's video, by degrees clockwise."""


def turned(path: Path, degrees: int) -> Path:
    """An .mp4 that says of itself that it is to be turned, as phones write them."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 44
    a, b, c, d = (one << 16 for one in TURNS[degrees])
    struct.pack_into(">5i", data, at, a, b, 0, c, d)
    path.write_bytes(data)
    return path


def colored(path: Path, matrix: int, full: bool, transfer: int = 1) -> Path:
    """An .mp4 that says by which matrix and range it is colored, where it said its bit rate."""
    data = path.read_bytes()
    assert data.count(b"btrt") == 1
    at = data.find(b"btrt")
    color = b"colrnclx" + struct.pack(">HHHB", matrix, transfer, matrix, full << 7) + b"\0"
    path.write_bytes(data[:at] + color + data[at + 16 :])
    return path


def write_still(path: Path, frames: int = 6) -> Path:
    """A video in which nothing moves, as cameras of a fixed rate write it in poor light."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (W, H))
    image = np.zeros((H, W, 3), np.uint8)
    image[: H // 3, : W // 2] = 230, 40, 60  # no two corners are alike
    image[H // 3 :, W // 2 :] = 90, 220, 200
    for _ in range(frames):
        writer.write(image)
    writer.release()
    return path


@pytest.mark.parametrize(
    "change",
    [
        *[functools.partial(turned, degrees=degrees) for degrees in TURNS],
        *[functools.partial(colored, matrix=matrix, full=full) for matrix in (1, 6) for full in (False, True)],
    ],
    ids=lambda change: " ".join(f"{key} {value}" for key, value in change.keywords.items()),
)
def test_frames_that_repeat_are_those_that_opencv_gives(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    path = change(write_still(tmp_path / "a.mp4"))
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    expected = capture.read()[1]
    unchanged = cv2.VideoCapture(str(write_still(tmp_path / "b.mp4")), cv2.CAP_FFMPEG).read()[1]
    assert not np.array_equal(expected, unchanged) or "matrix" in change.keywords or OLD_OPENCV
    if not OLD_OPENCV:
        direct = FfmpegCapture(os.fsencode(path), int(capture.get(cv2.CAP_PROP_ORIENTATION_META)))
        assert np.abs(direct.read()[1].astype(int) - expected).max() <= 2
        direct.release()
    source = source_of(path)
    for frame in source:
        assert np.array_equal(frame.picture(), expected)
    assert not isinstance(source._capture, FfmpegCapture)  # type: ignore[attr-defined]


def test_the_colors_of_hdr_are_left_to_opencv(tmp_path: Path) -> None:
    path = colored(write_still(tmp_path / "a.mp4"), matrix=9, full=False, transfer=18)  # BT.2020 and HLG, as of phones
    expected = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG).read()[1]
    if not OLD_OPENCV:
        assert np.abs(FfmpegCapture(os.fsencode(path)).read()[1].astype(int) - expected).mean() > 8
    assert all(np.array_equal(frame.picture(), expected) for frame in source_of(path))


def test_an_interlaced_video_of_full_range_keeps_its_contrast(tmp_path: Path) -> None:
    full, limited = (
        [frame.gray.mean() for frame in source_of(write_y4m(tmp_path / f"{kind}.y4m", "t", 14, more=more))]
        for kind, more in (("full", " XCOLORRANGE=FULL"), ("limited", ""))
    )
    for one, other in zip(full, limited, strict=True):
        # The old one takes all for 16-235.
        assert one == pytest.approx(other if OLD_OPENCV else 16 + other * 219 / 255, abs=2)


def test_ffmpeg_refuses_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(OSError, match="cannot be"):
        FfmpegCapture(os.fsencode(tmp_path / "a.mp4"))
    with pytest.raises(OSError, match="cannot be"):
        FfmpegCapture(os.fsencode(tmp_path / "nothing.mp4"))


def test_without_ffmpeg_a_video_that_cannot_be_converted_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_fer.sources.ffmpeg.functions", lambda: None)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeVideo(*range(0, 3000, 100)))
    monkeypatch.setattr(FakeVideo, "retrieve", lambda self: (True, np.zeros((H, W, 3), np.uint8)))
    (tmp_path / "a.mp4").write_bytes(b"the fake does not look")
    assert len(list(source_of(tmp_path / "a.mp4"))) == 30
    assert len(caplog.messages) == 1
    assert "shows one picture from its beginning to its end" in caplog.messages[0]


def test_a_video_too_large_to_decode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeVideo(0, 40)
    fake.properties |= {cv2.CAP_PROP_FRAME_WIDTH: 16_000, cv2.CAP_PROP_FRAME_HEIGHT: 9000}
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: fake)
    (tmp_path / "a.mp4").write_bytes(b"the fake does not look")
    with pytest.raises(DataError, match="16000 x 9000 pixels take too much memory"):
        source_of(tmp_path / "a.mp4")
    assert not fake.opened
