from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_fer.events
from edge_fer.core import Expression, Face, FaceBox, Frame, FrameResult, Prediction, Quality
from edge_fer.events import Run, to_events, utc_now
from edge_fer.recognizer import Recognizer

SCHEMA = json.loads((Path(edge_fer.events.__file__).parent / "event.schema.json").read_text(encoding="utf-8"))
HAPPY = Prediction({Expression.NEUTRAL: 0.123456, Expression.HAPPINESS: 0.826544, Expression.FEAR: 0.05})
AFRAID = Prediction({Expression.NEUTRAL: 0.1, Expression.HAPPINESS: 0.2, Expression.FEAR: 0.7})


def a_run(now: Callable[[], str] = utc_now) -> Run:
    return Run("pi-kitchen", "compact", "0123456789abcdef" * 4, fps=10.0, now=now)


def a_frame(seq: int = 0, stream: str = "clip", still: bool = False) -> Frame:
    return Frame(np.zeros((100, 200), np.uint8), seq, seq / 10, stream, still)


def a_face(track: int = 1, phase: str = "start", box: FaceBox = FaceBox(20, 10, 50, 40)) -> Face:  # noqa: B008
    return Face(track, phase, box, Expression.HAPPINESS, HAPPY, AFRAID, 1234.56, Quality(40, 41.2345, 0.47123))  # type: ignore[arg-type]


def a_result(frame: Frame, *faces: Face, ended: tuple[Face, ...] = ()) -> FrameResult:
    return FrameResult(frame, faces, ended, {"detect": 12.345, "preprocess": 0.06, "classify": 0.4321, "track": 0.0})


def test_real_events_fit_the_schema(demo_frames: list[Frame]) -> None:
    """Two faces that come, change and leave, through the real recognizer."""
    recognizer, run, events = Recognizer.load(), a_run(), []
    for frame in demo_frames[:40]:
        events += run.to_events(recognizer.recognize(frame))
    empty = np.zeros_like(demo_frames[0].gray)
    for seq in range(40, 60):
        events += run.to_events(recognizer.recognize(Frame(empty, seq, seq / 15, "demo")))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    lives: dict[int, list[str]] = {}
    for event in events:
        validator.validate(json.loads(json.dumps(event)))
        lives.setdefault(event["track"], []).append(event["phase"])
    assert len(lives) == 2
    for phases in lives.values():
        assert phases == ["start"] + ["update"] * (len(phases) - 2) + ["end"]


@pytest.mark.parametrize("path", [(), ("quality",), ("model",), ("latency_ms",), ("probabilities",)])
def test_the_schema_lets_nothing_else_in(path: tuple[str, ...]) -> None:
    event = a_run().to_events(a_result(a_frame(), a_face()))[0]
    inner = event
    for key in path:
        inner = inner[key]
    inner["picture"] = "iVBORw0KGgo="
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event, SCHEMA)


def test_the_schema_knows_all_expressions() -> None:
    assert SCHEMA["$defs"]["expression"]["enum"] == [expression.value for expression in Expression]


def test_an_event_in_full() -> None:
    run = a_run(lambda: "2026-11-24T03:58:16.615Z")
    assert run.to_events(a_result(a_frame(7), a_face())) == [
        {
            "v": 1,
            "type": "expression",
            "phase": "start",
            "ts": "2026-11-24T03:58:16.615Z",
            "device": "pi-kitchen",
            "camera": "clip",
            "seq": 7,
            "time_s": 0.7,
            "track": 1,
            "box": [0.1, 0.1, 0.25, 0.4],
            "expression": "happiness",
            "confidence": 0.8265,
            "uncertain": None,
            "probabilities": {"neutral": 0.1235, "happiness": 0.8265, "fear": 0.05},
            "raw": "fear",
            "intensity": 0.87,
            "valence": 0.7139,
            "arousal": 0.3706,
            "stable_ms": 1234.6,
            "quality": {
                "size_px": 40,
                "blur": 41.2,
                "brightness": 0.4712,
                "noise": 0.0,
                "eyes": 1.0,
                "mouth": 1.0,
                "turn": None,
            },
            "latency_ms": {"detect": 12.3, "preprocess": 0.1, "classify": 0.4, "track": 0.0},
            "model": {"name": "compact", "sha256": "0123456789abcdef" * 4, "decision": "balanced"},
        }
    ]


def test_numbers_have_the_digits_that_mean_something() -> None:
    frame = Frame(np.zeros((300, 700), np.uint8), 0, 1 / 7, "clip")
    (event,) = a_run().to_events(a_result(frame, a_face(box=FaceBox(100, 100, 100, 100))))
    assert event["time_s"] == 0.143
    assert event["box"] == [0.1429, 0.3333, 0.1428, 0.3334]  # edges at 1/7, 2/7, 1/3 and 2/3


def test_an_end_tells_of_the_frame_in_which_the_face_was_last_seen() -> None:
    times = iter(["first", "second"])
    run = a_run(lambda: next(times))
    (start,) = run.to_events(a_result(a_frame(3, "clip"), a_face()))
    (end,) = run.to_events(a_result(a_frame(0, "next clip"), ended=(a_face(),)))
    assert end == {**start, "phase": "end", "ts": "second"}


def test_closing_ends_what_is_open_once() -> None:
    run = a_run()
    run.to_events(a_result(a_frame(0), a_face(1), a_face(2)))
    run.to_events(a_result(a_frame(1), a_face(2, "update"), ended=(a_face(1),)))
    assert [(event["track"], event["phase"]) for event in run.to_ends()] == [(2, "end")]
    assert run.to_ends() is run.to_ends()  # every sink writes the same ones


def test_all_who_ask_about_a_result_get_the_same_events() -> None:
    times = iter(["first", "second"])
    run = a_run(lambda: next(times))
    one, other = a_result(a_frame(0), a_face()), a_result(a_frame(1), a_face(phase="update"))
    assert run.to_events(one) is run.to_events(one)
    assert [event["ts"] for event in (*run.to_events(one), *run.to_events(other))] == ["first", "second"]


def test_the_events_of_a_stream_end_with_its_faces() -> None:
    results = [a_result(a_frame(0), a_face()), a_result(a_frame(1), a_face(phase="update"))]
    assert [event["phase"] for event in to_events(results)] == ["start", "update", "end"]


def test_faces_of_still_pictures_only_start() -> None:
    run = a_run()
    events = run.to_events(a_result(a_frame(still=True), a_face(1), a_face(2)))
    assert [event["phase"] for event in events] == ["start", "start"]
    assert run.to_ends() == []


def test_a_face_that_was_never_reported_does_not_end() -> None:
    assert a_run().to_events(a_result(a_frame(), ended=(a_face(9),))) == []


def test_the_time_of_day_is_now_in_utc() -> None:
    before = datetime.now(UTC)
    ts = a_run().to_events(a_result(a_frame(), a_face()))[0]["ts"]
    assert ts.endswith("Z")
    parsed = datetime.fromisoformat(ts)
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= parsed <= datetime.now(UTC)


lengths = st.floats(-500, 500, allow_nan=False)


@given(x=lengths, y=lengths, w=st.floats(0, 1000), h=st.floats(0, 1000))
def test_boxes_stay_inside_the_frame(x: float, y: float, w: float, h: float) -> None:
    left, top, width, height = a_run().to_events(a_result(a_frame(), a_face(box=FaceBox(x, y, w, h))))[0]["box"]
    assert min(left, top, width, height) >= 0
    assert round(left + width, 4) <= 1
    assert round(top + height, 4) <= 1
    assert left == pytest.approx(min(max(x / 200, 0), 1), abs=6e-5)
    assert top + height == pytest.approx(min(max((y + h) / 100, 0), 1), abs=1.1e-4)
