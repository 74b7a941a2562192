"""Annotated pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from story import a_face, a_result, a_run, file_size_limit

from edge_fer.config import PicturesSettings
from edge_fer.errors import OutputError
from edge_fer.events import Run
from edge_fer.sinks import open_sink
from edge_fer.sinks.pictures import PicturesSink


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_pictures_are_named_after_their_source_or_frame() -> None:
    sink = open_sink("pictures:out", a_run())
    for stream in ("a/one.png", "b/one.jpg", "b/one-2.jpg", "a/two.png"):
        sink.write(a_result(0, stream=stream, still=True))
    sink.write(a_result(123, a_face()))
    sink.close()
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "000123.jpg",
        "one-2-2.jpg",
        "one-2.jpg",
        "one.jpg",
        "two.jpg",
    ]
    picture = cv2.imread("out/000123.jpg")
    assert picture.shape == (120, 160, 3)
    assert np.ptp(picture.astype(int), axis=2).max() > 60  # the gray frame has got color


def test_pictures_do_not_replace_their_sources() -> None:
    Path("photos").mkdir()
    Path("photos/one.jpg").write_bytes(b"precious")
    sink = open_sink("pictures:photos", a_run())
    with pytest.raises(OutputError, match="Choose another folder"):
        sink.write(a_result(0, stream="photos/../photos/one.jpg", still=True))
    sink.close()
    assert Path("photos/one.jpg").read_bytes() == b"precious"


def test_no_half_picture_remains() -> None:
    sink = open_sink("pictures:out", a_run())
    with file_size_limit(100), pytest.raises(OutputError, match=r"out/000001\.jpg"):
        sink.write(a_result(1, a_face()))
    assert list(Path("out").iterdir()) == []


def test_a_camera_never_mixes_two_recordings(caplog: pytest.LogCaptureFixture) -> None:
    def record(run: Run, frames: int) -> None:
        sink = open_sink("pictures:out", run)
        for seq in range(frames):
            sink.write(a_result(seq))
        sink.close()

    for frames in (4, 3, 2):
        record(a_run(live=True), frames)
    names = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.jpg"))
    first = [f"{seq:06d}.jpg" for seq in range(4)]
    assert names == [*first, *(f"2/{name}" for name in first[:3]), *(f"3/{name}" for name in first[:2])]
    assert "This one goes to out/3." in caplog.text
    record(Run(live=True, overwrite=True), 1)
    record(a_run(), 1)
    assert len(list(Path("out").rglob("*.jpg"))) == 9


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_what_a_link_in_the_folder_leads_to_is_left_alone(link: Callable[..., None], tmp_path: Path) -> None:
    Path("precious.jpg").write_bytes(b"precious")
    Path("out").mkdir()
    link(tmp_path / "precious.jpg", "out/one.jpg")
    sink = open_sink("pictures:out", a_run())
    sink.write(a_result(0, stream="photos/one.png", still=True))
    sink.close()
    assert Path("precious.jpg").read_bytes() == b"precious"
    assert Path("out/one.jpg").read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize("stem", ["a" * 251, "表" * 83 + "aa", "caf\udce9"])
def test_names_of_any_length_and_bytes(stem: str) -> None:
    sink = open_sink("pictures:out", a_run())
    sink.write(a_result(0, stream=f"photos/{stem}.png", still=True))
    sink.close()
    assert [path.name for path in Path("out").iterdir()] == [f"{stem}.jpg"]


def names(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.jpg"))


def test_a_camera_keeps_the_newest_pictures() -> None:
    Path("out/2").mkdir(parents=True)
    for name, since_s in (("000001.jpg", 10), ("2/000001.jpg", 20), ("2/000002.jpg", 30), ("holiday.jpg", 5)):
        Path("out", name).touch()
        os.utime(Path("out", name), (since_s, since_s))
    Path("out/3.jpg").mkdir()
    sink = PicturesSink(Path("out"), a_run(live=True), PicturesSettings(keep=3), clock=lambda: 100.0)
    assert names("out") == ["000001.jpg", "2/000001.jpg", "2/000002.jpg", "3.jpg", "holiday.jpg"]
    sink.write(a_result(0, stream="cam"))
    assert names("out") == ["2/000001.jpg", "2/000002.jpg", "3.jpg", "3/000000.jpg", "holiday.jpg"]
    for seq in range(1, 10):
        sink.write(a_result(seq, stream="cam"))
    assert names("out") == ["3.jpg", "3/000007.jpg", "3/000008.jpg", "3/000009.jpg", "holiday.jpg"]


def test_a_camera_keeps_pictures_for_some_days() -> None:
    now_s = 0.0
    sink = PicturesSink(Path("out"), a_run(live=True), PicturesSettings(keep_days=2), clock=lambda: now_s)
    for seq in range(6):
        now_s = seq * 86_400.0
        sink.write(a_result(seq, stream="cam"))
    assert names("out") == ["000003.jpg", "000004.jpg", "000005.jpg"]


def test_a_picture_that_is_replaced_is_young_again() -> None:
    run = Run(live=True, overwrite=True)
    for _ in range(2):
        sink = PicturesSink(Path("out"), run, PicturesSettings(keep=2), clock=lambda: 1e12)
        for seq in range(2):
            sink.write(a_result(seq, stream="cam"))
        assert names("out") == ["000000.jpg", "000001.jpg"]


def test_pictures_of_a_camera_that_is_away_are_deleted_all_the_same() -> None:
    Path("out").mkdir()
    for day in (1, 3):
        Path(f"out/{day:06d}.jpg").write_bytes(b"")
        os.utime(f"out/{day:06d}.jpg", (day * 86_400.0,) * 2)
    now_s = 4 * 86_400.0
    sink = PicturesSink(Path("out"), a_run(live=True), PicturesSettings(keep_days=2), clock=lambda: now_s)
    assert sorted(path.name for path in Path("out").glob("*.jpg")) == ["000003.jpg"], "at the start"
    now_s = 6 * 86_400.0
    sink.tick()
    assert not [*Path("out").glob("*.jpg")]


def test_what_is_no_camera_keeps_all() -> None:
    sink = PicturesSink(Path("out"), a_run(), PicturesSettings(keep=1, keep_days=0.001), clock=lambda: 1e12)
    for seq in range(3):
        sink.write(a_result(seq))
    assert len(names("out")) == 3


def test_pictures_that_somebody_deleted_are_no_trouble() -> None:
    sink = PicturesSink(Path("out"), a_run(live=True), PicturesSettings(keep=1))
    for seq in range(4):
        sink.write(a_result(seq, stream="cam"))
        Path("out", f"{seq:06d}.jpg").unlink()
