"""Recorded events, given to outputs again: unchanged, at their pace, and refused where they are none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from story import a_face, a_result, a_run, a_story

from edge_fer.cli import main, replay
from edge_fer.control import Control, State
from edge_fer.core import FrameResult
from edge_fer.errors import DataError
from edge_fer.events import Event, Run
from edge_fer.recording import RecordedRun, read_results
from edge_fer.sinks import open_sink

Call = Callable[..., Any]


def record(path: Path, results: list[FrameResult], run: Run | None = None) -> list[str]:
    sink = open_sink(f"jsonl:{path}", run or a_run())
    for result in results:
        sink.write(FrameResult(result.frame, result.faces, result.ended, {**STAGES, **result.latency_ms}))
    sink.close()
    return path.read_text().splitlines(keepends=True)


STAGES = {"detect": 1.0, "preprocess": 0.5, "classify": 2.0, "track": 0.1}


def story(path: Path) -> list[str]:
    """A recording in which no two frames were made in the same millisecond."""
    moments = iter(range(100))
    return record(path, a_story(), Run("pi", "compact", "ab" * 32, now=lambda: moment(next(moments))))


def moment(ms: int) -> str:
    return f"2026-11-27T10:00:{ms // 10:02}.{ms % 10}00Z"


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_fer.config.default_files", list)


# What comes out


def test_a_recording_comes_out_as_it_went_in(tmp_path: Path, call: Call) -> None:
    call(main, "run", "--camera", "demo", "--output", f"jsonl:{tmp_path / 'a'}")
    done = call(main, "replay", "--fast", tmp_path / "a", "--output", f"jsonl:{tmp_path / 'b'}")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_still_images_have_no_end(tmp_path: Path, call: Call) -> None:
    stills = [
        a_result(0, a_face(1, phase="start"), still=True),
        a_result(0, a_face(2, phase="start"), still=True, stream="b"),
    ]
    lines = record(tmp_path / "a", stills)
    call(main, "replay", "--fast", tmp_path / "a", "--output", f"jsonl:{tmp_path / 'b'}")
    assert (tmp_path / "b").read_text() == "".join(lines)


def test_faces_that_were_cut_off_end(tmp_path: Path, call: Call) -> None:
    lines = story(tmp_path / "a")
    (tmp_path / "a").write_text("".join(lines[:2]) + lines[2][:99])
    call(main, "replay", "--fast", tmp_path / "a", "--output", f"jsonl:{tmp_path / 'b'}")
    events = [json.loads(line) for line in (tmp_path / "b").read_text().splitlines()]
    assert [(one["phase"], one["track"]) for one in events] == [("start", 1), ("update", 1), ("end", 1)]
    assert events[2]["ts"] == events[1]["ts"]


def test_results_are_what_was_recorded(tmp_path: Path) -> None:
    results = list(read_results(story(tmp_path / "a"), "a"))
    told = [([face.track for face in one.faces], [face.track for face in one.ended]) for one in results]
    assert told == [([1], []), ([1, 2], []), ([2], [1]), ([], [2])]
    (face, *_), original = results[1].faces, a_story()[2].faces[0]
    assert (face.expression, face.phase, face.stable_ms) == (original.expression, original.phase, original.stable_ms)
    assert face.confidence == pytest.approx(original.confidence, abs=1e-4)
    assert (face.box.w / 640, face.box.h / 480) == pytest.approx((60 / 160, 60 / 120))
    assert results[1].latency_ms == {"detect": 22.0, "preprocess": 0.5, "classify": 0.5, "track": 0.1}


def test_the_run_says_what_the_recording_says(tmp_path: Path) -> None:
    run = RecordedRun()
    (first, *_) = read_results(story(tmp_path / "a"), "a")
    run.to_events(first)
    assert (run.device, run.model, run.model_sha256, run.decision) == ("pi", "compact", "ab" * 32, "balanced")


def test_other_outputs(tmp_path: Path, call: Call) -> None:
    story(tmp_path / "a")
    outputs = [f"csv:{tmp_path / 'a.csv'}", f"pictures:{tmp_path / 'p'}", "terminal"]
    done = call(main, "replay", "--fast", tmp_path / "a", *(f"--output={one}" for one in outputs))
    assert done.code == 0
    assert "face 1  happiness 79 %" in done.out
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 5
    assert all(cv2.imread(str(path)).shape == (480, 640, 3) for path in (tmp_path / "p").iterdir())


def test_from_standard_input(tmp_path: Path) -> None:
    lines = story(tmp_path / "a")
    command = [sys.executable, "-m", "edge_fer", "replay", "--fast", "-", "--output", "jsonl:-"]
    done = subprocess.run(command, input="".join(lines), capture_output=True, text=True, check=True)
    assert done.stdout == "".join(lines)


# Its pace


def due(*events: tuple[str, float, str, str, int]) -> list[float]:
    """When results are due whose events have this time of day, time, camera, phase and track."""
    lines = []
    for ts, time_s, camera, phase, track in events:
        (event,) = a_run().to_events(a_result(round(time_s * 10), a_face(track), time_s=time_s, stream=camera))
        event = {**event, "ts": ts, "phase": phase, "latency_ms": STAGES}
        lines.append(json.dumps(event) + "\n")
    return [round(result.due_s, 3) for result in read_results(lines, "a")]


def test_a_clip_is_replayed_as_it_plays_not_as_it_was_read() -> None:
    assert due(
        (moment(0), 2.0, "clip", "start", 1),
        (moment(1), 3.0, "clip", "update", 1),
        (moment(2), 5.5, "clip", "update", 1),
    ) == [0, 1, 3.5]


def test_a_face_ends_when_it_was_missed() -> None:
    assert due(
        (moment(0), 0.0, "clip", "start", 1),
        (moment(10), 1.0, "clip", "update", 1),
        (moment(15), 1.0, "clip", "end", 1),
    ) == [0, 1, 1.5]


def test_several_cameras_and_runs_keep_their_distance() -> None:
    assert due(
        (moment(0), 700.0, "a", "start", 1),
        (moment(20), 5.0, "b", "start", 2),
        (moment(30), 703.0, "a", "update", 1),
        (moment(40), 7.0, "b", "update", 2),
        (moment(90), 0.0, "a", "start", 3),  # another run
        (moment(5), 0.5, "a", "update", 3),  # a clock that was set back
    ) == [0, 2, 3, 4, 9, 9.5]


def test_it_waits_until_an_event_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, control = [100.0], Control()
    monkeypatch.setattr(replay.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(replay.time, "sleep", lambda pause_s: now_s.__setitem__(0, now_s[0] + pause_s))
    ticks: list[float] = []
    waiting = replay._Waiting(control, fast=False, ticks=[lambda: ticks.append(now_s[0])])
    assert waiting.until(1.5)
    assert len(ticks) == 9  # five a second
    assert now_s[0] == pytest.approx(101.5)
    assert control.state is State.RECOGNIZING
    waiting.stop()
    assert not waiting.until(99.0)
    assert now_s[0] == pytest.approx(101.5)


def test_a_pause_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, control, states = [100.0], Control(), []

    def sleep(pause_s: float) -> None:
        now_s[0] += pause_s
        states.append(control.state)
        if now_s[0] > 102.9:
            control.resume()

    monkeypatch.setattr(replay.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(replay.time, "sleep", sleep)
    waiting = replay._Waiting(control, fast=False)
    control.pause()
    assert waiting.until(1.0)
    assert now_s[0] == pytest.approx(104.0)
    assert states[0] is State.PAUSED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well(tmp_path: Path, number: int) -> None:
    lines = story(tmp_path / "a")
    late = json.loads(lines[-1]) | {"phase": "update", "time_s": 9999.0, "seq": 99990, "ts": "2026-11-27T13:00:00.000Z"}
    (tmp_path / "a").write_text("".join(lines) + json.dumps(late) + "\n")
    command = [sys.executable, "-m", "edge_fer", "replay", str(tmp_path / "a"), "--output", "jsonl:-"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout
    for _ in lines:
        child.stdout.readline()
    os.kill(child.pid, number)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (0, "", "")


# What is none


def event_with(**changes: Any) -> str:
    (event,) = a_run().to_events(a_result(0, a_face()))
    event = {**event, "latency_ms": STAGES, **changes}
    return json.dumps({key: value for key, value in event.items() if value is not ...})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "it is no object"),
        ("1", "it is no object"),
        ("[" * 100_000, "it is too long"),
        ("[" * 60_000, "recursion"),
        ("{}", "'v' is missing"),
        (event_with(v=2), "version 2 is not 1"),
        (event_with(v=...), "'v' is missing"),
        (event_with(phase="middle"), "phase 'middle'"),
        (event_with(ts="yesterday"), "Invalid isoformat"),
        (event_with(ts=5), "argument must be str"),
        (event_with(device=1), "device is no text"),
        (event_with(model={"name": 1, "sha256": "", "decision": ""}), "model.name is no text"),
        (event_with(model="x"), "indices must be"),
        (event_with(track=0), "track or seq"),
        (event_with(track=True), "track or seq"),
        (event_with(seq=-1), "track or seq"),
        (event_with(box=[0, 0, 1]), "box"),
        (event_with(box=[0, 0, 1, 2]), "box"),
        (event_with(box=5), "has no len"),
        (event_with(expression="joy"), "'joy' is not a valid Expression"),
        (event_with(raw=""), "is not a valid Expression"),
        (event_with(expression="contempt"), "no probability of contempt"),
        (event_with(probabilities={"happiness": "high"}), "could not convert"),
        (event_with(probabilities=[]), "no attribute"),
        (event_with(quality={}), "'size_px' is missing"),
        (event_with(latency_ms={"detect": "long"}), "could not convert"),
        (event_with(time_s=None), "must be a string or a real number"),
        (event_with(stable_ms=float("nan")), "NaN is no number of JSON"),
    ],
)
def test_what_is_no_event_is_65_with_its_line(tmp_path: Path, call: Call, line: str, why: str) -> None:
    lines = story(tmp_path / "a")
    (tmp_path / "a").write_text(f"{lines[0]}\n{line}\n{lines[1]}")
    with pytest.raises(DataError, match="line 3: it is no event of edge-fer") as raised:
        list(read_results((tmp_path / "a").read_text().splitlines(keepends=True), "a"))
    assert why in str(raised.value)
    done = call(main, "replay", "--fast", tmp_path / "a", "--output", f"jsonl:{tmp_path / 'b'}")
    assert (done.code, done.err.count("\n")) == (65, 1)


def test_events_of_a_kind_to_come_are_left_out(tmp_path: Path) -> None:
    lines = story(tmp_path / "a")
    assert len(list(read_results([*lines, '{"v":7,"type":"rule"}\n'], "a"))) == 4


def test_an_empty_recording_is_nothing(tmp_path: Path, call: Call) -> None:
    (tmp_path / "a").write_text("")
    assert call(main, "replay", tmp_path / "a").code == 0


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("none", 66, "Cannot read none: No such file or directory. Give what jsonl:PATH has written."),
        (".", 66, "Is a directory"),
        ("binary/below", 66, "Not a directory"),
        ("a" * 5000, 66, "File name too long"),
        ("binary", 65, "is no text"),
    ],
)
def test_what_is_no_recording(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, name: str, code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("binary").write_bytes(b"\x1f\x8b\xff\x00")
    done = call(main, "replay", name, "--output", "jsonl:b")
    assert (done.code, done.err.count("\n"), says in done.err) == (code, 1, True)
    assert not Path("b").exists()


def test_the_recording_is_not_replaced(tmp_path: Path, call: Call) -> None:
    lines = story(tmp_path / "a")
    done = call(main, "replay", tmp_path / "a", "--output", f"jsonl:{tmp_path / 'a'}")
    assert (done.code, "would replace the file that is read" in done.err) == (2, True)
    assert (tmp_path / "a").read_text() == "".join(lines)


def test_events_are_those_of_the_type(tmp_path: Path) -> None:
    events: list[Event] = [event for result in read_results(story(tmp_path / "a"), "a") for event in result.events]
    assert "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events) == (tmp_path / "a").read_text()
