"""Sources: what all promise, what each does with its own files and devices, and what people are told."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
import queue
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_fer.config import CameraSettings
from edge_fer.core import Frame, FrameSource, Image
from edge_fer.errors import DataError, InputMissingError, UnavailableError, UsageError
from edge_fer.sources import open_source
from edge_fer.sources.camera import CameraSource
from edge_fer.sources.network import network_source
from edge_fer.sources.v4l2 import list_cameras, v4l2_source
from edge_fer.threads import LatestFrame

W, H = 64, 48
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


def grays(source: FrameSource) -> list[Image]:
    return [frame.gray for frame in source]


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


def fake_camera(encode: Callable[[Image], Image]) -> CameraSource:
    capture = EndlessCapture(encode)
    return CameraSource("/dev/video0", lambda: capture, fps=30.0)


# --- what every source promises ---------------------------------------------------------------------------------


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


# --- pictures ---------------------------------------------------------------------------------------------------


def test_a_picture_stands_alone(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), scene(3))
    source = source_of(tmp_path / "a.png")
    (frame,) = source
    assert frame.still
    assert (frame.seq, frame.time_s, frame.stream) == (0, 0.0, str(tmp_path / "a.png"))
    assert (source.fps, source.live) == (1.0, False)
    assert np.array_equal(frame.picture(), scene(3))
    assert np.array_equal(frame.gray, cv2.cvtColor(scene(3), cv2.COLOR_BGR2GRAY))


def test_a_folder_is_read_in_order_with_the_folders_in_it(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("c.png", "b/a.JPG", "a 2.png", "naïve 日本.bmp"):
        assert cv2.imwrite(str(tmp_path / name), scene(0))
    (tmp_path / "notes.txt").write_text("not a picture")
    frames = list(source_of(tmp_path))
    assert [f.stream for f in frames] == [
        str(tmp_path / name) for name in ("a 2.png", "b/a.JPG", "c.png", "naïve 日本.bmp")
    ]
    assert [(f.seq, f.time_s) for f in frames] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_damaged_picture_in_a_folder_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), scene(0))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with caplog.at_level(logging.WARNING, "edge_fer"):
        assert [f.seq for f in source_of(tmp_path)] == [0, 2]
    assert [record.name for record in caplog.records] == ["edge_fer"]
    assert str(tmp_path / "b.png") in caplog.text


def test_a_folder_of_damaged_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    (tmp_path / "b.jpg").write_text("no")
    with pytest.raises(DataError, match=r"No picture in .* can be decoded: all are damaged"):
        list(source_of(tmp_path))


@pytest.mark.parametrize("leave", ["nothing.txt", "inner/"])
def test_a_folder_without_pictures(tmp_path: Path, leave: str) -> None:
    (tmp_path / leave).mkdir() if leave.endswith("/") else (tmp_path / leave).write_text("x")
    with pytest.raises(InputMissingError, match="No picture in the folder"):
        source_of(tmp_path)


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


@pytest.mark.parametrize(
    ("data", "bgr"),
    [
        pytest.param(png(1, 1, 8, 0, b"\x80"), [[[128] * 3]], id="1x1"),
        pytest.param(png(2, 1, 8, 3, b"\0\1", PLTE=RED_BLUE), [[[0, 0, 255], [255, 0, 0]]], id="palette"),
        pytest.param(
            png(2, 1, 8, 3, b"\0\1", PLTE=RED_BLUE, tRNS=b"\0\xff"), [[[255] * 3, [255, 0, 0]]], id="clear-palette"
        ),
        pytest.param(png(2, 1, 8, 4, b"\x0a\0\x0a\xff"), [[[255] * 3, [10] * 3]], id="gray-with-alpha"),
        pytest.param(png(1, 1, 8, 6, b"\xff\0\0\x80"), [[[127, 127, 255]]], id="half-clear-red"),
        pytest.param(png(1, 1, 16, 6, b"\xff\xff\0\0\0\0\x80\x80"), [[[127, 127, 255]]], id="16-bit-with-alpha"),
        pytest.param(png(3, 1, 16, 0, b"\0\0\xc0\xc0\xff\xff"), [[[0] * 3, [192] * 3, [255] * 3]], id="16-bit-gray"),
        pytest.param(png(2, 1, 1, 0, b"\x40"), [[[0] * 3, [255] * 3]], id="1-bit"),
        pytest.param(png(2, 1, 8, 0, b"\5\6", eXIf=TURN_RIGHT), [[[5] * 3], [[6] * 3]], id="rotated"),
    ],
)
def test_kinds_of_png(tmp_path: Path, data: bytes, bgr: list[Any]) -> None:
    (tmp_path / "a.png").write_bytes(data)
    (frame,) = source_of(tmp_path / "a.png")
    assert frame.picture().tolist() == bgr
    assert frame.gray.shape == np.shape(bgr)[:2]


def test_a_photo_is_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", scene(0))[1].tobytes()
    exif = b"Exif\0\0" + TURN_RIGHT
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    (frame,) = source_of(tmp_path / "a.jpg")
    upright = cv2.rotate(scene(0), cv2.ROTATE_90_CLOCKWISE)
    assert frame.gray.shape == upright.shape[:2]
    assert np.abs(frame.picture().astype(int) - upright).mean() < 5


def test_a_grey_picture_needs_no_color(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), scene(0)[..., 1])
    (frame,) = source_of(tmp_path / "a.jpg")
    assert frame.color is None


def test_a_photo_of_20_megapixels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((4000, 5000), 77, np.uint8))
    (frame,) = source_of(tmp_path / "a.jpg")
    assert frame.gray.shape == (4000, 5000)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(8, 8, 8, 0, bytes(8))[:50], id="cut"),
        pytest.param(png(40_000, 40_000, 8, 0, b""), id="beyond-the-size-limit"),
    ],
)
def test_a_picture_that_cannot_be_decoded(tmp_path: Path, capfd: pytest.CaptureFixture[str], data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        list(source_of(tmp_path / "a.png"))
    assert capfd.readouterr() == ("", "")  # libpng keeps silent


def test_a_photo_that_was_cut_short_is_read_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (H, W, 3)).astype(np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, "edge_fer"):
        (frame,) = source_of(tmp_path / "a.jpg")
    assert frame.gray.shape == (H, W)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'a.jpg'} is cut short: what is missing is gray. Copy it again."
    ]
    assert "Premature" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["locked", "locked.png"])
def test_what_may_not_be_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    Path("locked").mkdir(mode=0o300)
    cv2.imwrite("locked.png", scene(0))
    Path("locked.png").chmod(0o200)
    with nobody(), pytest.raises(InputMissingError, match=f"^{name} cannot be read: Permission denied"):
        source_of(name)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tiff"), np.full((4, 4), 0.5, np.float32))
    with pytest.raises(DataError, match="float32 pixels"):
        list(source_of(tmp_path / "a.tiff"))


# --- videos -----------------------------------------------------------------------------------------------------


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


# --- cameras ----------------------------------------------------------------------------------------------------


def test_the_fake_has_the_calls_of_the_real_one() -> None:
    for name in ("isOpened", "read", "get", "set", "release"):
        assert callable(getattr(cv2.VideoCapture, name))


def v4l2(tmp_path: Path, capture: FakeCapture, width: int = W, height: int = H) -> CameraSource:
    """A V4L2 camera whose device node is a file that can be opened."""
    (tmp_path / "video0").touch()
    settings = CameraSettings(source=str(tmp_path / "video0"), width=width, height=height, fps=15)
    return v4l2_source(settings, lambda device, api: capture)


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
    with pytest.raises(UnavailableError, match=r"another program holds it .* or it is not one"):
        v4l2(tmp_path, capture)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), r"sudo usermod -aG video \$USER"),
        (OSError(16, "Device or resource busy"), "in use by another program"),
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


def test_a_missing_camera_names_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edge_fer.sources.v4l2.list_cameras", lambda: [("/dev/video0", "HD Webcam"), ("/dev/video2", "Old")]
    )
    with pytest.raises(UnavailableError, match=r"No camera 99 \(/dev/video99\)\. Found: /dev/video0 \(HD Webcam\), /d"):
        source_of("99")
    with pytest.raises(UnavailableError, match=r"No camera /dev/v4l/by-id/none\. Found"):
        source_of("/dev/v4l/by-id/none")
    monkeypatch.setattr("edge_fer.sources.v4l2.list_cameras", list)
    with pytest.raises(UnavailableError, match=r"plug one in\. A Raspberry Pi camera module is --camera picamera:0"):
        source_of("99")


def test_list_cameras_reads_the_names_and_leaves_out_the_pis_pipeline(tmp_path: Path) -> None:
    names = {"video911": "HD Webcam\n", "video903": "Old: Webcam\n", "video910": "bcm2835-isp\n", "v4l-subdev0": "imx"}
    for node, name in names.items():
        (tmp_path / node).mkdir()
        (tmp_path / node / "name").write_text(name)
    assert list_cameras(tmp_path) == [("/dev/video903", "Old: Webcam"), ("/dev/video911", "HD Webcam")]
    assert list_cameras(tmp_path / "nothing") == []


@pytest.mark.parametrize(("capabilities", "listed"), [(0x04200001, True), (0x04201000, True), (0x04A00000, False)])
def test_list_cameras_leaves_out_the_metadata_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: int, listed: bool
) -> None:
    (tmp_path / "video0").mkdir()
    (tmp_path / "video0" / "name").write_text("HD Webcam\n")
    monkeypatch.setattr(os, "open", lambda *_: 99)
    monkeypatch.setattr(os, "close", lambda _: None)

    def query(node: int, request: int, answer: bytearray) -> int:
        assert request == 0x80685600
        struct.pack_into("<16s32s32s3I", answer, 0, b"uvcvideo", b"HD Webcam", b"usb", 0, 0x84A00001, capabilities)
        return 0

    monkeypatch.setattr("fcntl.ioctl", query)
    assert bool(list_cameras(tmp_path)) is listed


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

    with caplog.at_level(logging.INFO, "edge_fer"):
        source = CameraSource("/dev/video0", open_capture, fps=30.0, sleep=slept.append)
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

    lost = CameraSource("/dev/video0", lambda: FakeCapture(scene(0), None), fps=30.0, sleep=sleep)
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
    reader = CameraSource("/dev/video0", lambda: capture, fps=30.0)
    assert len(list(reader)) <= 2
    assert not capture.opened


def test_a_real_capture_serves_as_a_camera(tmp_path: Path) -> None:
    clip = str(write_video(tmp_path / "a.avi", "MJPG", 6))
    source = CameraSource("clip", lambda: cv2.VideoCapture(clip, cv2.CAP_FFMPEG), fps=30.0, sleep=lambda seconds: None)
    frames = list(islice(source, 12))  # its end is taken for a loss: it is opened again
    source.close()
    assert [f.seq for f in frames] == list(range(12))
    assert source.fps == pytest.approx(20.0)


def test_secrets_of_a_network_camera_stay_out_of_frames_and_messages() -> None:
    calls: list[tuple[Any, ...]] = []

    def video_capture(*args: Any) -> FakeCapture:
        calls.append(args)
        return FakeCapture(scene(0), scene(1))

    url = "rtsp://me:secret@10.0.0.7:554/live?token=secret#secret"
    source = network_source(CameraSettings(source=url), video_capture)
    assert calls[0][:2] == (url, cv2.CAP_FFMPEG)
    assert next(iter(source)).stream == "rtsp://10.0.0.7:554/live"

    def refuse(*args: Any) -> FakeCapture:
        capture = FakeCapture()
        capture.release()
        return capture

    with pytest.raises(UnavailableError) as caught:
        network_source(CameraSettings(source=url), refuse)
    assert "secret" not in str(caught.value)


def test_live_sources_are_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_fer.sources.v4l2.v4l2_source", lambda settings: fake_camera(yuyv))
    monkeypatch.setattr("edge_fer.sources.network.network_source", lambda settings: fake_camera(np.copy))
    for name in ("0", "/dev/video0", "rtsp://host/live", "http://host/live.mjpg"):
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
