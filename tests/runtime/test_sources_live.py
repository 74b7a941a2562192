"""Cameras over days: lost and found again, hanging, with wrong clocks, upside down; several at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_parts import LONG_S, EndlessCapture, FakeCapture, H, W, live_source, mjpg, scene, yuyv

from edge_fer.config import CameraSettings
from edge_fer.core import Frame, FrameSource, Image
from edge_fer.errors import UnavailableError
from edge_fer.sources.camera import CaptureSource, decode_by_shape, decode_yuv420, reduction
from edge_fer.sources.live import LiveSource, newest_of
from edge_fer.sources.mounting import upright
from edge_fer.threads import MOST_HANGING, LatestFrame, SeveralSources


class Hanging(FakeCapture):
    """A driver that does not come back from a read once its pictures are used up, until the test lets it."""

    def __init__(self, *pictures: Image | None) -> None:
        super().__init__(*pictures)
        self.hangs = threading.Event()
        self.go_on = threading.Event()

    def read(self) -> tuple[bool, Image | None]:
        if not self.pictures.empty():
            return super().read()
        self.hangs.set()
        self.go_on.wait(LONG_S)
        return True, scene(29)

    def release(self) -> None:
        assert not self.hangs.is_set() or self.go_on.is_set(), "released under a read: OpenCV can crash"
        super().release()


class Clock:
    """Moved by the test, and by what sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_a_camera_that_hangs_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    hanging, clock = Hanging(scene(0), scene(1)), Clock()
    captures: list[FakeCapture] = [hanging, FakeCapture(scene(0), scene(2), scene(3))]
    live = live_source(lambda: captures.pop(0), clock=clock, sleep=clock.sleep)
    latest = newest_of(live)
    frames = iter(latest)
    assert np.array_equal(next(frames).picture(), scene(1))
    assert hanging.hangs.wait(LONG_S)
    clock.now_s += 60
    frame = next(frames)
    while not np.array_equal(frame.picture(), scene(3)):  # scene(2) may have been replaced before it was read
        assert np.array_equal(frame.picture(), scene(2))
        frame = next(frames)
    assert frame.seq == 2
    assert frame.time_s >= 60
    assert latest.counts["hung"] == 1
    assert [record.getMessage() for record in caplog.records] == [
        "/dev/video0 hangs. It is opened again.",
        "/dev/video0 is back.",
    ]
    thread = latest._threads[0]
    hanging.go_on.set()
    thread.join(LONG_S)
    assert not thread.is_alive()
    assert not hanging.opened, "the one that hung gives the camera free when it comes back"
    assert latest.counts["frames"] == 3, "and its frame is nobody's"
    latest.close()


def test_threads_that_hang_do_not_become_ever_more() -> None:
    clock = Clock()
    captures = [Hanging(scene(0)) for _ in range(2 * MOST_HANGING)]
    left = iter(captures)
    latest = newest_of(live_source(lambda: next(left), clock=clock, sleep=clock.sleep))
    latest.start()
    for number in range(MOST_HANGING + 1):
        assert captures[number].hangs.wait(LONG_S)
        clock.now_s += 60
        latest.watch()
    latest.watch()
    assert latest.counts["hung"] == MOST_HANGING
    assert not captures[MOST_HANGING + 1].hangs.is_set()
    assert next(left) is captures[MOST_HANGING + 1], "no other was opened"
    for capture in captures:
        capture.go_on.set()
    latest.close()


def test_a_camera_that_waits_to_be_opened_does_not_hang() -> None:
    clock = Clock()
    attempts: list[FakeCapture | UnavailableError] = [FakeCapture(scene(0), scene(1), None)]
    attempts += [UnavailableError("gone")] * 20 + [FakeCapture(scene(0), scene(2))]  # minutes

    def open_capture() -> FakeCapture:
        attempt = attempts.pop(0)
        if isinstance(attempt, UnavailableError):
            raise attempt
        return attempt

    live = live_source(
        open_capture, clock=clock, sleep=lambda s: (clock.sleep(s), stalled.append(live.give_up_if_stalled()))
    )
    stalled: list[bool] = []
    assert len(list(islice(live, 2))) == 2
    assert clock.now_s > 1300
    assert not any(stalled)


@pytest.mark.parametrize(
    ("told_ms", "age_s"),
    [
        (999_960.0, 0.04),
        (1_000_000.0, 0.0),
        (964_000_000.0, 0.0),  # ten days ahead
        (1_000_000.0 - 36_000_000.0, 0.0),  # ten hours ago
        (0.0, 0.0),  # the driver does not tell
        (float("nan"), 0.0),
    ],
)
def test_only_a_time_that_can_be_right_is_taken(told_ms: float, age_s: float) -> None:
    clock, capture = Clock(), EndlessCapture(np.copy)
    capture.properties[cv2.CAP_PROP_POS_MSEC] = told_ms
    live = LiveSource("cam", lambda: CaptureSource("cam", capture, 30.0, times=True), CameraSettings(), clock=clock)
    frame = next(iter(live))
    assert frame.captured_s == pytest.approx(1000 - age_s)
    assert frame.time_s == 0.0


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=20))
def test_times_never_go_back(told_s: list[float]) -> None:
    class Told:
        fps, live = 30.0, True

        def __iter__(self) -> Iterator[Frame]:
            for seq, captured_s in enumerate(told_s):
                clock.now_s += 0.03
                yield Frame(scene(0)[..., 0], seq, 0.0, "cam", captured_s=captured_s)
            live.close()

        def close(self) -> None:
            pass

    clock = Clock()
    live = LiveSource("cam", Told, CameraSettings(), clock=clock, sleep=clock.sleep)
    times_s = [frame.time_s for frame in live]
    assert len(times_s) == len(told_s)
    assert times_s == sorted(times_s) and times_s[0] == 0


def test_pauses_differ_by_up_to_a_quarter() -> None:
    slept: list[float] = []

    def pause_s(jitter: float) -> float:
        captures = [FakeCapture(scene(0), scene(1), None), FakeCapture(scene(0), scene(2))]
        live = LiveSource(
            "cam",
            lambda: CaptureSource("cam", captures.pop(0), 30.0),
            CameraSettings(),
            sleep=slept.append,
            jitter=lambda: jitter,
        )
        slept.clear()
        assert len(list(islice(live, 2))) == 2
        return round(sum(slept), 1)

    assert (pause_s(0.0), pause_s(0.5), pause_s(0.999)) == (0.4, 0.5, 0.6)


def test_a_camera_that_comes_and_goes_is_left_alone_ever_longer() -> None:
    clock, slept = Clock(), []

    def sleep(seconds: float) -> None:
        slept[-1] += seconds
        clock.sleep(seconds)

    def open_capture() -> FakeCapture:
        slept.append(0.0)
        return FakeCapture(scene(0), scene(1), None)

    live = live_source(open_capture, clock=clock, sleep=sleep)
    frames = iter(live)
    for _ in range(4):
        next(frames)
    assert [round(pause, 1) for pause in slept] == [0.5, 1, 2, 0]
    clock.now_s += 100  # now it stays for a while
    next(frames)
    assert round(slept[-2], 1) == 0.5
    assert live.counts == {"frames": 5, "damaged": 0, "lost": 4, "hung": 0}


def test_a_camera_that_is_not_there_yet(caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[FakeCapture | None] = [None, None, FakeCapture(scene(0), scene(1))]

    def open_capture() -> FakeCapture:
        capture = attempts.pop(0)
        if capture is None:
            raise UnavailableError("No camera.")
        return capture

    with caplog.at_level(logging.INFO, "edge_fer"):
        live = live_source(open_capture, later=True, sleep=lambda seconds: None)
        assert len(attempts) == 3
        assert live.fps == 30
        assert np.array_equal(next(iter(live)).picture(), scene(1))
    assert [record.getMessage() for record in caplog.records] == ["No camera.", "/dev/video0 is there."]


def test_damaged_frames_are_counted() -> None:
    broken = np.frombuffer(b"\xff\xd8 broken", np.uint8).reshape(1, -1)
    live = live_source(lambda: FakeCapture(mjpg(scene(0)), mjpg(scene(1)), broken, broken, mjpg(scene(2))))
    assert [frame.seq for frame in islice(live, 2)] == [0, 3]
    assert live.counts["damaged"] == 2


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
@pytest.mark.parametrize("encode", [np.copy, yuyv])
def test_a_camera_that_is_not_mounted_upright(rotation: int, flip: str, encode: Callable[[Image], Image]) -> None:
    capture = FakeCapture(encode(scene(0)), encode(scene(1)))
    frame = next(iter(live_source(lambda: capture, rotation=rotation, flip=flip)))
    turned = np.rot90(scene(1), -rotation // 90)
    turned = {"none": turned, "horizontal": turned[:, ::-1], "vertical": turned[::-1]}[flip]
    assert np.abs(frame.picture().astype(int) - turned).max() <= 12  # YUYV shares its colors
    assert np.abs(frame.gray.astype(int) - cv2.cvtColor(turned.copy(), cv2.COLOR_BGR2GRAY)).max() <= 2


def test_a_name_from_the_configuration_cannot_write_on_the_terminal() -> None:
    live = live_source(lambda: FakeCapture(scene(0), scene(1)), name="\x1b[31mdoor\n\u202eü")
    assert live.stream == "\\x1b[31mdoor\\n\\u202eü"
    assert next(iter(live)).stream == live.stream


def test_upright_takes_gray_and_color() -> None:
    assert upright(scene(0)[..., 0], 90, "none").shape == (W, H)
    assert upright(scene(0), 270, "vertical").shape == (W, H, 3)


@pytest.mark.parametrize(
    ("width", "height", "factor"),
    [(640, 480, 1), (1280, 720, 1), (1920, 1080, 2), (1080, 1920, 2), (3840, 2160, 4), (16_384, 16_384, 8), (2, 2, 1)],
)
def test_large_images_are_reduced(width: int, height: int, factor: int) -> None:
    assert reduction(width, height) == factor


def nv12(bgr: Image) -> Image:
    planes = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    u, v = planes[H : H + H // 4].reshape(-1), planes[H + H // 4 :].reshape(-1)
    return np.vstack([planes[:H], np.stack([u, v], -1).reshape(H // 2, W)]).astype(np.uint8)


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("encode", [np.copy, yuyv, mjpg, nv12, lambda bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)])
def test_what_is_reduced_is_the_same_scene(encode: Callable[[Image], Image], factor: int) -> None:
    decoded = (decode_yuv420 if encode is nv12 else decode_by_shape)(encode(scene(3)), factor)
    assert decoded is not None
    small = cv2.resize(scene(3), (W // factor, H // factor), interpolation=cv2.INTER_AREA)
    assert decoded.gray.shape == small.shape[:2]
    assert decoded.gray.dtype == np.uint8 and decoded.gray.flags.c_contiguous
    assert np.abs(decoded.gray.astype(int) - cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)).max() <= 4
    if decoded.color is not None:
        assert decoded.color().shape == small.shape
        assert np.abs(decoded.color().astype(int) - small).mean() <= 4


# --- several at once


class Listed:
    """The frames of a list, then perhaps an error."""

    live, fps = False, 10.0

    def __init__(self, name: str, frames: int, error: Exception | None = None) -> None:
        self.name, self.frames, self.error, self.closed = name, frames, error, False

    def __iter__(self) -> Iterator[Frame]:
        for seq in range(self.frames):
            yield Frame(scene(seq)[..., 0].copy(), seq, seq / 10, self.name)
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed = True


def test_no_frame_of_several_files_is_lost_and_they_take_turns() -> None:
    sources = [Listed("a", 30), Listed("b", 10), Listed("c", 0)]
    with closing(SeveralSources(sources)) as several:
        got = [(place, frame.stream, frame.seq) for place, frame in several]
    assert sorted(got) == [(0, "a", seq) for seq in range(30)] + [(1, "b", seq) for seq in range(10)]
    for name in "ab":
        assert [seq for _, stream, seq in got if stream == name] == sorted(seq for _, s, seq in got if s == name)
    assert all(source.closed for source in sources)


def test_one_that_breaks_leaves_the_others_running(caplog: pytest.LogCaptureFixture) -> None:
    sources = [Listed("a", 2, UnavailableError("a broke.")), Listed("b", 20), Listed("c", 1, ValueError("c broke."))]
    got: list[int] = []
    with pytest.raises((UnavailableError, ValueError), match="broke"):
        got.extend(place for place, _ in SeveralSources(sources))
    assert (got.count(0), got.count(1), got.count(2)) == (2, 20, 1)
    assert sorted(record.getMessage() for record in caplog.records) == ["a broke.", "c broke."]


def test_one_that_is_lost_leaves_the_others_running() -> None:
    first = [FakeCapture(scene(0), scene(1), None)]

    def open_first() -> FakeCapture:
        if first:
            return first.pop()
        raise UnavailableError("gone")

    other = EndlessCapture(np.copy)
    lost = live_source(open_first, sleep=lambda seconds: None)
    several = SeveralSources([newest_of(lost), newest_of(live_source(lambda: other))])
    seen: list[int] = []
    for place, _ in several:
        seen.append(place)
        if lost.counts["lost"] and seen.count(1) > 50:
            break
    several.close()
    assert not other.opened


def test_one_that_hangs_is_noticed_though_the_other_never_rests() -> None:
    hanging, clock = Hanging(scene(0), scene(1)), Clock()
    captures: list[FakeCapture] = [hanging, EndlessCapture(np.copy)]
    live = live_source(lambda: captures.pop(0), clock=clock, sleep=clock.sleep)
    several = SeveralSources([newest_of(live), Listed("b", 1_000_000)])
    places: list[int] = []
    for place, _ in several:
        places.append(place)
        if hanging.hangs.is_set() and not live.counts["hung"]:
            clock.now_s += 60
        if live.counts["frames"] > 1:
            break
    hanging.go_on.set()
    several.close()
    assert live.counts["hung"] == 1
    assert places.count(1) < 1_000_000


def test_close_wakes_a_reader_of_several() -> None:
    hanging = [Hanging(scene(0)), Hanging(scene(0))]
    several = SeveralSources([newest_of(live_source(lambda one=one: one)) for one in hanging])  # type: ignore[misc]
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.extend(place for place, _ in several), daemon=True)
    reader.start()
    assert all(one.hangs.wait(LONG_S) for one in hanging)
    for one in hanging:
        one.go_on.set()
    several.close()
    reader.join(LONG_S)
    assert not reader.is_alive()


def test_the_same_source_serves_alone_and_among_others() -> None:
    def read(*sources: FrameSource) -> list[Any]:
        return list(SeveralSources(sources))

    assert len(read(Listed("a", 3))) == 3
    assert len(read(LatestFrame(Listed("a", 3), drops=False), Listed("b", 3))) == 6


def test_close_while_a_camera_is_opened(caplog: pytest.LogCaptureFixture) -> None:
    opening, go_on = threading.Event(), threading.Event()
    capture = FakeCapture(scene(0), scene(1))

    def open_capture() -> FakeCapture:
        opening.set()
        go_on.wait(LONG_S)
        return capture

    latest = newest_of(live_source(open_capture, later=True, sleep=lambda seconds: None))
    latest.start()
    assert opening.wait(LONG_S)
    closer = threading.Thread(target=latest.close, daemon=True)
    closer.start()
    while not latest.is_over():
        closer.join(0.01)
    go_on.set()
    closer.join(LONG_S)
    assert list(latest) == []
    assert not capture.opened
    assert caplog.messages == []


def test_it_has_the_rate_that_the_camera_tells() -> None:
    capture = EndlessCapture(np.copy)
    capture.properties[cv2.CAP_PROP_FPS] = 7.5
    assert live_source(lambda: capture, fps=30).fps == 7.5


def test_only_the_newest_iteration_gets_frames() -> None:
    capture = EndlessCapture(np.copy)
    live = live_source(lambda: capture)
    first, second = iter(live), iter(live)
    assert [next(first).seq, next(first).seq] == [0, 1]
    assert next(second).seq == 2
    assert list(first) == []
    assert capture.opened, "the second goes on with it"
    next(second)
