"""The public API, as a person would guess it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import edge_fer
from edge_fer import Recognizer, annotate, load_bundle, open_sink, open_source, to_events
from edge_fer.config import CameraSettings
from edge_fer.core import Image
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.errors import ConfigError, DataError, EdgeFerError, InputMissingError, UsageError


def test_every_public_name_is_there_and_shown() -> None:
    assert set(edge_fer.__all__) <= set(dir(edge_fer))
    for name in edge_fer.__all__:
        assert getattr(edge_fer, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Emotion'"):
        _ = edge_fer.Emotion  # type: ignore[attr-defined]


def test_a_stream_by_the_words_of_the_command_line(tmp_path: Path) -> None:
    sink = open_sink(f"jsonl:{tmp_path / 'events.jsonl'}")
    expressions = []
    for result in Recognizer.load("nano").stream("demo"):
        sink.write(result)
        expressions += [face.expression for face in result.faces]
        if result.frame.seq == 5:
            break
    sink.close()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["expression"] for event in events if event["phase"] != "end"] == expressions
    assert {event["phase"] for event in events} == {"start", "update", "end"}


def test_a_stream_closes_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(CameraSettings(source="demo"))
    monkeypatch.setattr("edge_fer.recognizer.open_source", lambda settings: source)
    stream = Recognizer.load().stream("demo")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert list(source) == []


def test_a_stream_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        next(Recognizer.load().stream(str(tmp_path / "none.mp4")))


def test_one_image(scene: Image) -> None:
    recognizer = Recognizer.load("nano", detector=CascadeDetector(), min_face_px=60)
    result = recognizer.recognize(scene)
    assert len(result.faces) == 2
    assert [event["phase"] for event in to_events([result])] == ["start", "start"]
    picture = result.frame.picture()
    annotate(picture, result.faces)
    assert not np.array_equal(picture, result.frame.picture())
    # An array stands alone: the same again is a still image again, with new tracks.
    again = recognizer.recognize(scene)
    assert {face.track for face in again.faces}.isdisjoint(face.track for face in result.faces)


def test_faces_that_are_too_small_are_not_looked_for(scene: Image) -> None:
    assert Recognizer.load("nano", min_face_px=400).recognize(scene).faces == ()


@pytest.mark.parametrize("name", ["nano", "accurate", Path("nano")])
def test_bundles_go_by_their_names(name: str | Path) -> None:
    assert load_bundle(name).metadata.name == str(name)


def test_a_detector_that_needs_a_file_says_so() -> None:
    with pytest.raises(ConfigError, match="needs a model"):
        Recognizer.load(detector="yunet")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "cv2.imread gives it for a file that it cannot read"),
        ("photo.jpg", r"cv2\.imread\('photo.jpg'\)"),
        (Path("photo.jpg"), "A path is no image"),
        ([[1, 2], [3, 4]], "A list is no image"),
        (np.zeros((480, 640, 3), np.float32), r"The image is float32 \(480, 640, 3\); it must be uint8"),
    ],
    ids=["None", "text", "path", "list", "float"],
)
def test_what_is_no_image_is_called_by_its_name(image: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Recognizer.load("nano").recognize(image)  # type: ignore[arg-type]


def test_an_image_that_cannot_be_read_by_opencv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Check the path"):
        Recognizer.load("nano").recognize(cv2.imread(str(tmp_path / "none.jpg")))  # type: ignore[arg-type]


def test_a_recognizer_belongs_to_one_thread(scene: Image) -> None:
    recognizer = Recognizer.load("nano")
    recognizer.recognize(scene)
    errors: list[EdgeFerError] = []

    def call() -> None:
        try:
            recognizer.recognize(scene)
        except EdgeFerError as error:
            errors.append(error)

    thread = threading.Thread(target=call, name="second")
    thread.start()
    thread.join()
    (error,) = errors
    assert isinstance(error, UsageError)
    assert "MainThread" in str(error) and "'second'" in str(error)
    assert len(recognizer.recognize(scene).faces) == 2
