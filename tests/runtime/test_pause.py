"""Paused: cameras are truly closed, no frame is looked at, nobody is followed across it, and it goes on afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
from source_parts import LONG_S, FakeCapture, live_source, scene

from edge_fer.config import CameraSettings, Settings
from edge_fer.control import Control, State
from edge_fer.core import Frame, FrameSource, Image
from edge_fer.pipeline import Pipeline
from edge_fer.sources.live import newest_of
from edge_fer.threads import LatestFrame


class Camera:
    """A camera that is opened again and again; each capture sends the same picture for as long as it is open."""

    def __init__(self, picture: Image) -> None:
        self.picture = picture
        self.captures: list[FakeCapture] = []
        self.held = threading.Event()  # the driver comes back from a read while this is set
        self.held.set()

    def open(self) -> FakeCapture:
        camera = self

        class Capture(FakeCapture):
            def read(self) -> tuple[bool, Image | None]:
                assert camera.held.wait(LONG_S)
                return self.opened, camera.picture

        self.captures.append(Capture())
        return self.captures[-1]

    def is_open(self) -> bool:
        return any(capture.opened for capture in self.captures)


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Callable[[Camera], None]:
    """Has all pipelines of the test read this camera."""

    def act(camera: Camera) -> None:
        def open_source(settings: CameraSettings, *, later: bool = False) -> FrameSource:
            return newest_of(live_source(camera.open, name="door", later=later))

        monkeypatch.setattr("edge_fer.pipeline.open_source", open_source)

    return act


def test_a_paused_pipeline_has_closed_its_camera(
    opens: Callable[[Camera], None], demo_frames: list[Frame], tmp_path: Path
) -> None:
    camera, control, log = Camera(demo_frames[0].picture()), Control(), tmp_path / "events.jsonl"
    opens(camera)
    paused_for = 0
    frames_before = -1

    def idle() -> None:
        nonlocal paused_for, frames_before
        if control.state is State.PAUSED:
            assert not camera.is_open()
            frames_before = control.frames if paused_for == 0 else frames_before
            assert control.frames == frames_before
            paused_for += 1
            if paused_for == 3:
                control.resume()

    with Pipeline(Settings(outputs=[f"jsonl:{log}"]), idle=idle, control=control) as pipeline:
        for _ in pipeline:
            if control.frames == 3:
                control.pause()
            if control.frames == 6:
                pipeline.stop()
    assert paused_for == 3
    assert len(camera.captures) == 2
    assert control.state is State.STOPPED
    assert not camera.is_open()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    phases: dict[int, list[str]] = {}
    for event in events:
        phases.setdefault(event["track"], []).append(event["phase"])
    assert len(phases) == 4, "the two faces are two others afterwards"
    assert all(life[0] == "start" and life[-1] == "end" and life.count("end") == 1 for life in phases.values())


@pytest.mark.parametrize("way", ["paused", "lost"])
def test_faces_end_when_no_frame_comes(
    way: str, opens: Callable[[Camera], None], demo_frames: list[Frame], tmp_path: Path
) -> None:
    """At once, not with the next frame, which may come in a week: a light stays on for as long as somebody is there."""
    now_s = 0.0
    camera, control, log = Camera(demo_frames[0].picture()), Control(clock=lambda: now_s), tmp_path / "events.jsonl"
    opens(camera)

    def written() -> list[tuple[int, str]]:
        events = [json.loads(line) for line in log.read_text().splitlines()]
        return [(event["track"], event["phase"]) for event in events]

    def idle() -> None:
        nonlocal now_s
        if control.frames < 3:
            return
        if way == "lost":
            camera.held.clear()  # the driver does not come back
            now_s += 1.0
            assert now_s < 100
        if written()[-1][1] == "end":
            camera.held.set()
            pipeline.stop()

    with Pipeline(Settings(outputs=[f"jsonl:{log}"]), idle=idle, control=control) as pipeline:
        for _ in pipeline:
            if control.frames == 3 and way == "paused":
                control.pause()
    assert written()[-2:] == [(1, "end"), (2, "end")]
    assert len(written()) == 2 * control.frames + 2, "they end once"


def test_a_paused_camera_is_neither_lost_nor_hangs(caplog: pytest.LogCaptureFixture) -> None:
    class Clock:
        now_s = 1000.0

        def sleep(self, seconds: float) -> None:
            self.now_s += seconds
            stalled.append(live.give_up_if_stalled())
            if self.now_s > 1000 + 3600:
                live.switch(True)

    clock, camera, stalled = Clock(), Camera(scene(0)), list[bool]()
    live = live_source(camera.open, clock=lambda: clock.now_s, sleep=clock.sleep)
    frames = iter(live)
    assert next(frames).seq == 0
    live.switch(False)
    assert not camera.is_open()
    after = next(frames)
    assert (after.seq, round(after.time_s)) == (1, 3600)
    assert len(camera.captures) == 2
    assert live.counts["lost"] == live.counts["hung"] == 0
    assert not any(stalled)
    assert caplog.messages == ["/dev/video0 is back."]
    live.close()


def test_switched_off_and_on_in_a_hurry(caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera(scene(0))
    live = live_source(camera.open, sleep=lambda seconds: None)
    frames = iter(live)
    next(frames)
    live.switch(False)
    live.switch(True)
    assert next(frames).seq == 1
    assert live.counts["lost"] == 0
    assert [capture.opened for capture in camera.captures] == [False, True]
    live.close()


def test_a_camera_that_comes_up_while_it_is_switched_off_is_closed_again() -> None:
    camera = Camera(scene(0))
    slept: list[float] = []

    def open_slowly() -> FakeCapture:
        if len(camera.captures) == 1:
            assert live.is_open, "it is being opened"
            live.switch(False)
        return camera.open()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if not live.is_open and len(camera.captures) == 2:
            assert not camera.is_open()
            live.switch(True)

    live = live_source(open_slowly, sleep=sleep)
    frames = iter(live)
    next(frames)
    live.switch(False)
    live.switch(True)
    next(frames)
    assert [capture.opened for capture in camera.captures] == [False, False, True]
    live.close()


def test_it_says_pausing_while_a_driver_holds_the_camera(
    opens: Callable[[Camera], None], demo_frames: list[Frame]
) -> None:
    camera, control, states = Camera(demo_frames[0].picture()), Control(), list[State]()
    opens(camera)

    def idle() -> None:
        states.append(control.state)
        if states[-5:] == [State.PAUSING] * 5:
            assert camera.is_open()
            camera.held.set()
        if control.state is State.PAUSED:
            pipeline.stop()

    with Pipeline(Settings(outputs=[]), idle=idle, control=control) as pipeline:
        for _ in pipeline:
            camera.held.clear()
            control.pause()
    assert State.PAUSED in states
    assert not camera.is_open()


def test_what_begins_paused_opens_no_camera(opens: Callable[[Camera], None], demo_frames: list[Frame]) -> None:
    camera, control = Camera(demo_frames[0].picture()), Control(paused=True)
    opens(camera)
    turns = 0

    def idle() -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            assert control.state is State.PAUSED
            assert not camera.captures
            control.resume()

    with Pipeline(Settings(outputs=[]), idle=idle, control=control) as pipeline:
        for _ in pipeline:
            pipeline.stop()
    assert turns >= 3
    assert len(camera.captures) == 1


@pytest.mark.parametrize("cameras", [1, 2])
def test_a_file_is_held_where_it_is(cameras: int, tmp_path: Path, demo_frames: list[Frame]) -> None:
    sources = []
    for number in range(cameras):
        sources.append(tmp_path / f"clip{number}.avi")
        writer = cv2.VideoWriter(str(sources[-1]), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 480))
        for one in demo_frames[:6]:
            writer.write(one.picture())
        writer.release()
    control, paused_for = Control(), 0

    def idle() -> None:
        nonlocal paused_for
        if control.state is State.PAUSED:
            assert control.frames == 2
            paused_for += 1
            if paused_for == 3:
                control.resume()

    settings = Settings(cameras=[CameraSettings(str(source)) for source in sources], outputs=[])
    with Pipeline(settings, idle=idle, control=control) as pipeline:
        for _ in pipeline:
            if control.frames == 2:
                control.pause()
    assert (paused_for, control.frames) == (3, 6 * cameras)


def test_a_frame_from_before_a_pause_is_not_looked_at_after_it() -> None:
    class Paced:
        fps, live = 30.0, True
        read, asked = threading.Event(), threading.Event()

        def __iter__(self) -> Iterator[Frame]:
            yield Frame(scene(0)[..., 0], 0, 0.0, "paced")
            self.read.set()
            assert self.asked.wait(LONG_S)
            yield Frame(scene(0)[..., 0], 1, 1.0, "paced")

        def close(self) -> None:
            self.asked.set()

    source = Paced()
    latest = LatestFrame(source)
    latest.start()
    assert source.read.wait(LONG_S)
    latest.switch(False)
    latest.switch(True)
    source.asked.set()
    assert [frame.seq for frame in latest] == [1]


def test_a_paused_loop_stops_when_asked(tmp_path: Path, demo_frames: list[Frame]) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), demo_frames[0].picture())
    cv2.imwrite(str(tmp_path / "2.png"), demo_frames[0].picture())
    control = Control()

    def idle() -> None:
        if control.state is State.PAUSED:
            pipeline.stop()

    settings = Settings(camera=CameraSettings(str(tmp_path)), outputs=[])
    with Pipeline(settings, idle=idle, control=control) as pipeline:
        for _ in pipeline:
            control.pause()
    assert control.state is State.STOPPED
