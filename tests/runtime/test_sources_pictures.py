"""Images: one file, a moving one, or a folder of files."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from source_parts import OLD_OPENCV, H, W, exif, png, scene, source_of, write_video

from edge_fer.core import Image
from edge_fer.errors import DataError, InputMissingError
from edge_fer.sources.header import read_header
from edge_fer.sources.pictures import check_size, read_image


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
        pytest.param(png(2, 1, 8, 0, b"\5\6", eXIf=exif(6)), [[[5] * 3], [[6] * 3]], id="rotated"),
    ],
)
def test_kinds_of_png(tmp_path: Path, data: bytes, bgr: list[Any]) -> None:
    (tmp_path / "a.png").write_bytes(data)
    (frame,) = source_of(tmp_path / "a.png")
    assert frame.picture().tolist() == bgr
    assert frame.gray.shape == np.shape(bgr)[:2]


def test_a_photo_is_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", scene(0))[1].tobytes()
    app1 = b"Exif\0\0" + exif(6)
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + jpeg[2:])
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


GRAYS = [0, 1, 2, 3]
"""Thirds of white."""


def netpbm(kind: str, white: int, channels: int = 1, tuple_type: str = "") -> bytes:
    """A Netpbm file, byte by byte, four pixels wide: OpenCV writes no other white than the largest of a type."""
    values = [gray * white // 3 for gray in GRAYS for _ in range(channels)]
    if channels in (2, 4):
        values[channels - 1 :: channels] = [white] * 4
    raster = b"".join(value.to_bytes(2 if white > 255 else 1, "big") for value in values)
    if kind in ("P2", "P3"):
        raster = " ".join(map(str, values)).encode() + b"\n"
    if kind == "P7":
        head = f"WIDTH 4\nHEIGHT 1\nDEPTH {channels}\nMAXVAL {white}\nTUPLTYPE {tuple_type}\nENDHDR\n"
        return b"P7\n# by hand\n" + head.encode() + raster
    return f"{kind}\n# by hand\n4 1\n{white}\n".encode() + raster


@pytest.mark.parametrize("white", [3, 99, 255, 300, 4095, 65535])
@pytest.mark.parametrize(
    ("kind", "channels", "tuple_type"),
    [
        *[("P2", 1, ""), ("P5", 1, ""), ("P3", 3, ""), ("P6", 3, "")],
        *[("P7", 1, "GRAYSCALE"), ("P7", 2, "GRAYSCALE_ALPHA"), ("P7", 3, "RGB"), ("P7", 4, "RGB_ALPHA")],
    ],
)
def test_white_is_what_a_netpbm_file_says(
    tmp_path: Path, kind: str, white: int, channels: int, tuple_type: str
) -> None:
    (tmp_path / "a.pnm").write_bytes(netpbm(kind, white, channels, tuple_type))
    (frame,) = source_of(tmp_path / "a.pnm")
    assert frame.gray[0].tolist() == pytest.approx([85 * gray for gray in GRAYS], abs=1)
    assert (frame.color is None) == (channels < 3)


@pytest.mark.parametrize("data", [b"P4\n4 1\n\x50", b"P1\n4 1\n0101\n"])
def test_bits_have_white(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pbm").write_bytes(data)
    assert read_image(tmp_path / "a.pbm").tolist() == [[255, 0, 255, 0]]


def test_what_is_transparent_in_gray_is_white(tmp_path: Path) -> None:
    data = netpbm("P7", 255, 2, "GRAYSCALE_ALPHA")
    (tmp_path / "a.pam").write_bytes(data[:-8] + bytes([0, 0, 0, 255, 100, 0, 100, 255]))
    assert read_image(tmp_path / "a.pam").tolist() == [[255, 0, 255, 100]]


def test_a_pam_that_opencv_misreads_is_refused_and_the_files_after_it_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.pam").write_bytes(netpbm("P7", 1, 1, "BLACKANDWHITE"))
    (tmp_path / "b.pam").write_bytes(netpbm("P7", 255, 5, "FIVE"))
    (tmp_path / "c.png").write_bytes(cv2.imencode(".png", scene(0))[1].tobytes())
    assert [Path(frame.stream).name for frame in source_of(tmp_path)] == ["c.png"]
    assert [message.partition("a.pam")[2] or message.partition("b.pam")[2] for message in caplog.messages] == [
        " is a PAM of black and white alone, which OpenCV misreads. Save it as PNG. It is left out.",
        " cannot be decoded: the picture is damaged, or too large. It is left out.",
    ]


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tiff"), np.full((4, 4), 0.5, np.float32))
    with pytest.raises(DataError, match="float32 pixels"):
        list(source_of(tmp_path / "a.tiff"))


def test_more_channels_than_colors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "a.tiff"), scene(0))
    monkeypatch.setattr(cv2, "imread", lambda *_: np.zeros((H, W, 5), np.uint16))  # of a satellite, for instance
    with pytest.raises(DataError, match=r"5 channels\. Save it in gray or in color"):
        list(source_of(tmp_path / "a.tiff"))


WRITABLE = {
    suffix
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".gif", ".ras")
    if cv2.haveImageWriter(f"a{suffix}")
}


# --- upright ----------------------------------------------------------------------------------------------------

UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40 + 20
# How an upright image is stored for each orientation of EXIF.
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT),
    7: np.rot90(UPRIGHT, 2).T,
    8: np.rot90(UPRIGHT, -1),
}


def lying_png(stored: Image, orientation: int, alpha: bool) -> bytes:
    height, width = stored.shape
    pixels = np.stack([stored, np.full_like(stored, 255)], axis=-1) if alpha else stored
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    whole = png(width, height, 8, 4 if alpha else 0, b"", eXIf=exif(orientation))
    at = whole.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return whole[:at] + chunk + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def lying_webp(stored: Image, orientation: int, alpha: bool) -> bytes:
    image = np.dstack([stored] * 3 + [np.full_like(stored, 255)])
    image[0, 0, 3] = 254 if alpha else 255  # else OpenCV writes none
    simple = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    at = simple.index(b"VP8L")
    (length,) = struct.unpack_from("<I", simple, at + 4)
    picture = simple[at : at + 8 + length + length % 2]
    height, width = stored.shape
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    data = exif(orientation)
    chunks = b"VP8X" + struct.pack("<IB3x", 10, 0x18 if alpha else 0x08) + size + picture
    chunks += b"EXIF" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def lying_tiff(stored: Image, orientation: int, order: str) -> bytes:
    height, width = stored.shape
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 274: orientation, 277: 1, 278: height}
    tags[279] = stored.size
    entries = b"".join(
        struct.pack(order + "HHI", tag, 3, 1) + struct.pack(order + "H2x", value) for tag, value in tags.items()
    )
    mark = {"<": b"II", ">": b"MM"}[order]
    head = mark + struct.pack(order + "HI", 42, 8 + stored.size)
    return head + stored.tobytes() + struct.pack(order + "H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.png", functools.partial(lying_png, alpha=False)),
        ("alpha.png", functools.partial(lying_png, alpha=True)),
        ("a.webp", functools.partial(lying_webp, alpha=False)),
        ("alpha.webp", functools.partial(lying_webp, alpha=True)),
        ("intel.tif", functools.partial(lying_tiff, order="<")),
        ("motorola.tif", functools.partial(lying_tiff, order=">")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_stand_upright(tmp_path: Path, name: str, make: Callable[..., bytes], orientation: int) -> None:
    (tmp_path / name).write_bytes(make(np.ascontiguousarray(STORED[orientation]), orientation))
    (frame,) = source_of(tmp_path / name)
    assert frame.gray.shape == UPRIGHT.shape
    assert np.abs(frame.gray.astype(int) - UPRIGHT).max() <= 1


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff\xfe.png", b"\xe4\xb8.webp", b"a:b.png", b"-.bmp", b"%d.tiff"])
def test_any_bytes_make_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    suffix = name[name.index(b".") :].decode()
    (tmp_path / os.fsdecode(name)).write_bytes(cv2.imencode(suffix, scene(0))[1].tobytes())
    if OLD_OPENCV and "\udc80" < max(os.fsdecode(name)) < "\ue000":
        with pytest.raises(DataError, match=r"takes only UTF-8\. Rename it"):
            list(source_of(tmp_path / os.fsdecode(name)))
        return
    (frame,) = source_of(tmp_path / os.fsdecode(name))
    assert frame.gray.shape == (H, W)
    assert [frame.stream for frame in source_of(tmp_path)] == [str(tmp_path / os.fsdecode(name))]
    monkeypatch.chdir(tmp_path)
    assert len(list(source_of("./" + os.fsdecode(name)))) == 1


def test_a_python_that_knows_only_ascii(tmp_path: Path) -> None:
    folder = tmp_path / "ä 表情"
    folder.mkdir()
    (folder / "ü.jpg").write_bytes(cv2.imencode(".jpg", scene(0))[1].tobytes())
    write_video(tmp_path / "a.avi", "MJPG", 3).rename(folder / "ü.avi")
    code = "import sys; from edge_fer import open_source; from edge_fer.config import CameraSettings\n"
    code += "print(sum(1 for _ in open_source(CameraSettings(source=sys.argv[1]))))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, folder], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["4"], done.stderr


# --- animations and folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(WRITABLE & {".png", ".webp", ".avif", ".gif"}))
def test_all_frames_of_an_animation(tmp_path: Path, suffix: str) -> None:
    animation = cv2.Animation()
    animation.frames = [scene(n) for n in range(20)]
    animation.durations = [100] * 20
    assert cv2.imwriteanimation(str(tmp_path / f"a{suffix}"), animation)
    source = source_of(tmp_path / f"a{suffix}")
    frames = list(source)
    assert source.fps == pytest.approx(10)
    assert not source.live
    assert [f.seq for f in frames] == list(range(20))
    assert [f.time_s for f in frames] == pytest.approx([n / 10 for n in range(20)])
    assert not any(f.still for f in frames)
    means = [f.gray.mean() for f in frames]
    assert all(later > earlier for earlier, later in pairwise(means))


def test_a_damaged_animation(tmp_path: Path) -> None:
    animation = cv2.Animation()
    animation.frames = [scene(n) for n in range(3)]
    animation.durations = [100] * 3
    cv2.imwriteanimation(str(tmp_path / "a.webp"), animation)
    (tmp_path / "a.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:60])
    with pytest.raises(DataError, match="cannot be decoded"):
        list(source_of(tmp_path / "a.webp"))


def test_a_folder_shows_all_that_can_be_read_singly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jpeg = cv2.imencode(".jpg", scene(0))[1].tobytes()
    for name in ("a.jfif", "b.JFIF", "c", "d.jpg_large"):
        (tmp_path / name).write_bytes(jpeg)
    write_video(tmp_path / "e.avi", "MJPG", 3)
    (tmp_path / "f.dib").write_bytes(cv2.imencode(".bmp", scene(0))[1].tobytes())
    os.mkfifo(tmp_path / "g.jpg")
    (tmp_path / "h.txt").write_text("no picture")
    (tmp_path / "i.heic").write_text("no picture")
    os.mkfifo(tmp_path / "j")
    with caplog.at_level(logging.WARNING, "edge_fer"):
        frames = list(source_of(tmp_path))
    assert [Path(f.stream).name for f in frames] == ["a.jfif", "b.JFIF", "c", "d.jpg_large", *["e.avi"] * 3, "f.dib"]
    assert [f.seq for f in frames] == list(range(8))
    assert all(later.time_s > earlier.time_s for earlier, later in pairwise(frames))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "g.jpg is neither a file nor a folder" in said[0]
    assert "i.heic is neither a picture nor a video" in said[1]


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    nobody: Callable[[], AbstractContextManager[None]],
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    Path("all/locked").mkdir(parents=True)
    cv2.imwrite("all/a.png", scene(0))
    Path("all/locked").chmod(0o300)
    with nobody():
        assert len(list(source_of("all"))) == 1
    assert caplog.messages == ["all/locked cannot be read: Permission denied. It is left out."]


# --- size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(WRITABLE))
@pytest.mark.parametrize("size_wh", [(64, 48), (301, 35)])
def test_the_size_is_known_before_anything_is_decoded(tmp_path: Path, suffix: str, size_wh: tuple[int, int]) -> None:
    image = cv2.resize(scene(3), size_wh)
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), image[..., 0] if suffix == ".pgm" else image)
    header = read_header(tmp_path / f"a{suffix}")
    assert (header.width, header.height) == size_wh
    assert not header.moving or suffix == ".gif"


BOMBS = {
    "a.png": png(30_000, 29_000, 8, 2, b""),
    "b.bmp": b"BM" + bytes(16) + struct.pack("<ii", 30_000, -29_000) + struct.pack("<HHI", 1, 24, 0) + bytes(64),
    "c.ppm": b"P6 # so large\n30000 29000 255\n",
    "d.tif": lying_tiff(np.zeros((1, 1), np.uint8), 1, "<")
    .replace(struct.pack("<HHIH", 257, 3, 1, 1), struct.pack("<HHIH", 257, 3, 1, 65_000))
    .replace(struct.pack("<HHIH", 256, 3, 1, 1), struct.pack("<HHIH", 256, 3, 1, 65_000)),
    "e.webp": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (15_999).to_bytes(3, "little") * 2 + bytes(99),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_unpacks_to_gigabytes_is_refused_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_bytes(BOMBS[name])
    monkeypatch.setattr(cv2, "imread", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match=r"cannot be decoded: \d+ x \d+ pixels of this kind take too much memory"):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("most_bytes", "shape"), [(1.6e6, (480, 640)), (1.5e6, (240, 320)), (1e5, (120, 160)), (3e4, (60, 80))]
)
@pytest.mark.parametrize("gray", [True, False])
def test_a_photo_too_large_is_reduced_while_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: float, shape: tuple[int, int], gray: bool
) -> None:
    image = cv2.resize(scene(2), (640, 480))
    cv2.imwrite(str(tmp_path / "a.jpg"), image[..., 1] if gray else image)
    monkeypatch.setattr("edge_fer.sources.pictures.MOST_BYTES", most_bytes)
    (frame,) = source_of(tmp_path / "a.jpg")
    assert frame.gray.shape == shape
    assert (frame.color is None) == gray


@pytest.mark.parametrize(
    ("name", "depth"), [("a.tif", 1), ("a16.tif", 2), ("a16.png", 2), ("a.png", 1), ("g16.tif", 2)]
)
def test_sixteen_bits_count_twice(tmp_path: Path, name: str, depth: int) -> None:
    image = scene(0)[..., 0] if name[0] == "g" else scene(0)
    cv2.imwrite(str(tmp_path / name), image.astype(np.uint16) if depth == 2 else image)
    assert read_header(tmp_path / name).depth == depth


def test_a_progressive_photo_takes_memory_for_the_whole(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), scene(0), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    header = read_header(tmp_path / "a.jpg")
    assert header.whole_bytes == 2 * W * H * 1.5  # half as wide and half as high in color
    with pytest.raises(DataError, match="too much memory"):
        check_size(Path("a.jpg"), dataclasses.replace(header, width=12_000, height=9_000, whole_bytes=324_000_000))


# --- JPEG after JPEG --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mjpeg", "a", "a:b.mjpg", *([] if OLD_OPENCV else ["a.jpg"])])
def test_jpegs_one_after_the_other_are_a_video(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"".join(cv2.imencode(".jpg", scene(n))[1].tobytes() for n in range(12)))
    frames = list(source_of(tmp_path / name))
    assert [f.seq for f in frames] == list(range(12))
    assert all(later.gray.mean() > earlier.gray.mean() for earlier, later in pairwise(frames))


@pytest.mark.parametrize("kind", ["preview", "pair", "one"])
def test_a_photo_with_others_in_its_file_stays_a_photo(tmp_path: Path, kind: str) -> None:
    first = cv2.imencode(".jpg", scene(0))[1].tobytes()
    second = cv2.imencode(".jpg", scene(1)[::2, ::2])[1].tobytes()
    if kind == "pair":  # Multi-Picture Format
        first = first[:2] + b"\xff\xe2\0\x08MPF\0xx" + first[2:]
        second = cv2.imencode(".jpg", scene(1))[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(first + (b"" if kind == "one" else second))
    (frame,) = source_of(tmp_path / "a.jpg")
    assert frame.still
