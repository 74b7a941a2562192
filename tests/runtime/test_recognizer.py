"""Frame in, faces out: the real detector, model and tracker together."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_fer.core import Detection, FaceBox, Frame, Image
from edge_fer.detection.schedule import KnownFace
from edge_fer.errors import DataError
from edge_fer.model.bundle import load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.preprocess.quality import measure_quality
from edge_fer.recognizer import Recognizer, _is_new, _Stages
from edge_fer.temporal.smoothing import ExpressionFilter, Smoothing
from edge_fer.tracking import Track


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.load()


def test_most_faces_of_the_demo_are_right(demo_frames: list[Frame]) -> None:
    recognizer = Recognizer.load()
    right = known = 0
    for frame in demo_frames:
        faces = recognizer.recognize(frame).faces
        for true in frame.truth:
            if true.expression is not None:
                known += 1
                nearest = max(faces, key=lambda face, true=true: face.box.iou(true.box), default=None)
                right += nearest is not None and nearest.expression == true.expression
    assert known > 200
    assert right / known > 0.8  # the present model calls fear of one face sadness


def test_tracks_follow_the_two_faces(demo_frames: list[Frame]) -> None:
    recognizer = Recognizer.load()
    results = [recognizer.recognize(frame) for frame in demo_frames[:60]]
    assert [face.phase for face in results[0].faces] == ["start", "start"]
    assert {face.track for result in results for face in result.faces} == {1, 2}
    assert all(result.latency_ms.keys() == {"detect", "preprocess", "classify", "track"} for result in results)


def test_a_picture_may_be_grey_or_bgr(recognizer: Recognizer, scene: Image) -> None:
    gray = recognizer.recognize(scene).faces
    bgr = recognizer.recognize(cv2.cvtColor(scene, cv2.COLOR_GRAY2BGR).astype(np.uint8)).faces
    assert [face.box for face in gray] == [face.box for face in bgr]
    assert len(gray) == 2


def test_pictures_are_not_smoothed_over(recognizer: Recognizer, scene: Image) -> None:
    first = recognizer.recognize(scene)
    second = recognizer.recognize(scene)
    assert {face.phase for face in (*first.faces, *second.faces)} == {"start"}
    assert second.ended == ()
    assert not {face.track for face in first.faces} & {face.track for face in second.faces}


def test_a_new_stream_ends_the_tracks_of_the_old(scene: Image) -> None:
    recognizer = Recognizer.load()
    first = recognizer.recognize(Frame(scene, 0, 0.0, "one"))
    second = recognizer.recognize(Frame(scene, 1, 0.1, "two"))
    assert {face.track for face in second.ended} == {face.track for face in first.faces}
    assert {face.phase for face in second.faces} == {"start"}


def test_frames_may_change_their_size_in_mid_stream(demo_frames: list[Frame]) -> None:
    recognizer = Recognizer.load()
    frame = demo_frames[0]
    first = recognizer.recognize(frame)
    half = Frame(cv2.resize(frame.gray, (320, 240)).astype(np.uint8), 1, 0.1, frame.stream)
    second = recognizer.recognize(half)
    assert {face.track for face in second.ended} == {face.track for face in first.faces}
    assert len(second.faces) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((480, 640, 3), np.uint8),
        np.zeros((480, 640), np.float32),
        np.zeros((0, 640), np.uint8),
        np.zeros((480, 0), np.uint8),
        np.zeros(640, np.uint8),
    ],
    ids=["color", "float", "no rows", "no columns", "one row"],
)
def test_a_frame_that_is_not_grey_is_refused_and_the_next_one_goes_on(
    demo_frames: list[Frame], wrong: np.ndarray
) -> None:
    recognizer = Recognizer.load()
    first = recognizer.recognize(demo_frames[0])
    with pytest.raises(DataError, match=r"^Frame.gray is \w+ \(.*\); it must be uint8 \(height, width\)\.$"):
        recognizer.recognize(Frame(wrong, 1, 1 / 15, demo_frames[0].stream))
    after = recognizer.recognize(demo_frames[1])
    assert {face.track for face in after.faces} == {face.track for face in first.faces}


@pytest.mark.parametrize("shape", [(480, 640, 4), (480, 640, 1), (480, 640, 2), (0, 0, 3), (3,), (2, 480, 640, 3)])
def test_an_array_that_is_no_picture_is_refused(recognizer: Recognizer, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"^The image is uint8 \(.*\); it must be "):
        recognizer.recognize(np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=r"^The image is float64 "):
        recognizer.recognize(np.zeros((480, 640)))


@pytest.mark.parametrize("value", [0, 255])
def test_a_stream_may_turn_black_or_white(demo_frames: list[Frame], value: int) -> None:
    recognizer = Recognizer.load()
    seen = recognizer.recognize(demo_frames[0]).faces
    blank = np.full_like(demo_frames[0].gray, value)
    results = [recognizer.recognize(Frame(blank, seq, seq / 15, demo_frames[0].stream)) for seq in range(1, 12)]
    assert all(result.faces == () for result in results)
    assert {face.track for result in results for face in result.ended} == {face.track for face in seen}
    again = [
        recognizer.recognize(dataclasses.replace(frame, seq=12 + frame.seq, time_s=0.8 + frame.time_s))
        for frame in demo_frames[:12]
    ]
    assert len(again[-1].faces) == 2
    assert not {face.track for face in again[-1].faces} & {face.track for face in seen}


def test_a_stream_may_shrink_to_a_pixel_and_grow_again(demo_frames: list[Frame]) -> None:
    recognizer = Recognizer.load()
    stream = demo_frames[0].stream
    recognizer.recognize(demo_frames[0])
    for seq, shape in enumerate([(1, 1), (1, 1), (1, 640), (480, 1), (2, 2)], 1):
        assert recognizer.recognize(Frame(np.full(shape, 9, np.uint8), seq, seq / 15, stream)).faces == ()
    assert len(recognizer.recognize(dataclasses.replace(demo_frames[0], seq=6, time_s=0.4)).faces) == 2


def test_a_source_that_stalls_goes_on_where_it_is(demo_frames: list[Frame]) -> None:
    recognizer = Recognizer.load()
    before = [recognizer.recognize(frame) for frame in demo_frames[:5]][-1]
    late = [recognizer.recognize(dataclasses.replace(frame, time_s=frame.time_s + 60)) for frame in demo_frames[5:20]]
    assert all(len(result.faces) == 2 for result in late)
    assert {face.track for face in late[-1].faces} == {face.track for face in before.faces}
    assert len({face.track for result in late for face in (*result.faces, *result.ended)}) == 2


def test_duplicates_of_a_frame_change_nothing(demo_frames: list[Frame]) -> None:
    recognizer = Recognizer.load()
    first = recognizer.recognize(demo_frames[0])
    for _ in range(5):
        again = recognizer.recognize(demo_frames[0])
    before = {face.track: face.expression for face in first.faces}
    assert {face.track: face.expression for face in again.faces} == before
    assert {face.stable_ms for face in again.faces} == {0.0}


def test_time_may_run_backwards(demo_frames: list[Frame]) -> None:
    recognizer = Recognizer.load()
    for frame in (*demo_frames[:10], *demo_frames[5:0:-1], *demo_frames[:10]):
        result = recognizer.recognize(frame)
    assert len(result.faces) == 2


def test_a_frame_of_eight_thousand_pixels(demo_frames: list[Frame]) -> None:
    recognizer = Recognizer.load()
    for seq, frame in enumerate(demo_frames[:3]):
        large = cv2.resize(frame.gray, (7680, 5760)).astype(np.uint8)
        faces = recognizer.recognize(Frame(large, seq, seq / 15, "large")).faces
        assert sorted(face.track for face in faces) == [1, 2]


def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[Recognizer, list[int]]:
    """A recognizer, and a list that grows by one with each question to its network."""
    recognizer, asked = Recognizer.load(), list[int]()
    classify = recognizer._classifier.classify
    monkeypatch.setattr(recognizer._classifier, "classify", lambda tensors: asked.append(1) or classify(tensors))
    return recognizer, asked


def test_a_face_that_hardly_changes_keeps_its_prediction(
    demo_frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer, asked = counted(monkeypatch)
    gray = demo_frames[0].gray
    for seq in range(30):
        recognizer.recognize(Frame(gray, seq, seq / 30, "still"))
    assert 2 <= len(asked) <= 25  # of 60: again only while the steadied box still settles


def test_a_moving_face_is_not_classified_in_every_frame_but_another_expression_at_once(
    demo_frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer, asked = counted(monkeypatch)
    moving = [demo_frames[count // 2 * 2] for count in range(30)]  # two steps of the demo, then as long still
    for seq, frame in enumerate(moving):
        recognizer.recognize(Frame(frame.gray, seq, seq / 60, "moving"))
    assert len(asked) < 30  # of 60
    last = moving[-1]
    other = last.gray.copy()
    for true in last.truth:
        x, y, w, h = (round(side) for side in (true.box.x, true.box.y, true.box.w, true.box.h))
        other[y + h // 2 : y + h, x : x + w] //= 2  # the lower half of each face in shadow
    asked.clear()
    recognizer.recognize(Frame(other, 30, 30 / 60, "moving"))
    assert len(asked) == 2


def test_four_faces_ask_the_network_seldom(demo_frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer, asked = counted(monkeypatch)
    for seq in range(40):
        gray = np.hstack([demo_frames[80 + seq // 2].gray] * 2)
        assert len(recognizer.recognize(Frame(gray, seq, seq / 30, "group")).faces) == 4
    assert len(asked) < 64  # of 160; 41 to 57, by detector and stretch of the demo


@pytest.mark.parametrize("shape", [(1, 1), (480, 640), (1, 3000), (3000, 2)])
@pytest.mark.parametrize("value", [0, 255])
def test_pictures_without_a_face(recognizer: Recognizer, shape: tuple[int, int], value: int) -> None:
    assert recognizer.recognize(np.full(shape, value, np.uint8)).faces == ()


def test_quality_says_how_well_a_face_is_seen(recognizer: Recognizer, scene: Image) -> None:
    (sharp, *_) = recognizer.recognize(scene).faces
    (blurred, *_) = recognizer.recognize(cv2.GaussianBlur(scene, (0, 0), 5)).faces
    assert blurred.quality.blur < 0.7 * sharp.quality.blur
    assert 0.2 < sharp.quality.brightness < 0.8
    assert sharp.quality.size_px == round(min(sharp.box.w, sharp.box.h))


def test_the_example_in_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scene: Image
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    cv2.imwrite(str(tmp_path / "photo.jpg"), scene)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("changed", "after_s", "asked"),
    [
        (0, 1.0, False),
        (3, 1.0, False),  # sensor noise
        (4, 1.0, True),
        (4, 0.061, True),
        (4, 0.05, False),  # asked a moment ago
        (8, 0.05, False),
        (9, 0.05, True),  # but now it shows something else
        (9, 0.0, True),
        (4, 0.0, False),
        (4, -0.01, True),  # time ran backwards
    ],
)
def test_the_network_is_asked_where_enough_changed_for_the_time_that_passed(
    changed: int, after_s: float, asked: bool
) -> None:
    box = FaceBox(0, 0, 48, 48)
    track = Track(KnownFace(1, box), ExpressionFilter(Smoothing()), Detection(box), 5.0)
    tensor = np.random.default_rng(0).integers(20, 200, (48, 48, 1)).astype(np.uint8)
    assert _is_new(track, tensor, 5.0 + after_s, 0.06)  # nothing to compare with
    track.crop, track.classified_s = tensor, 5.0
    other = (tensor + np.where(np.arange(48) % 2, changed, -changed).reshape(48, 1, 1)).astype(np.uint8)
    assert _is_new(track, other, 5.0 + after_s, 0.06) == asked


class Boxes:
    """A detector that finds the same boxes in every picture."""

    slow_on_large = False
    enough_px = 28.0

    def __init__(self, *boxes: FaceBox) -> None:
        self.boxes = list(boxes)

    def detect(self, gray: Image, *_: object, **__: object) -> list[Detection]:
        return [Detection(box) for box in self.boxes]


def test_the_largest_face_comes_first_and_its_size_is_its_shorter_side(scene: Image) -> None:
    small, flat, tall = FaceBox(10, 10, 60, 60), FaceBox(200, 10, 130, 40), FaceBox(400, 10, 42, 125)
    same = FaceBox(10, 300, 60, 60)
    recognizer = Recognizer(Boxes(small, flat, tall, same), TfliteClassifier(load_bundle()))
    faces = recognizer.recognize(scene).faces
    assert [face.box for face in faces] == [tall, flat, small, same]
    assert [face.track for face in faces] == [3, 2, 1, 4]
    assert [face.quality.size_px for face in faces] == [42, 40, 60, 60]


def test_quality_follows_its_definition() -> None:
    tensor = np.random.default_rng(0).integers(0, 256, (48, 48, 1)).astype(np.uint8)
    around = np.pad(tensor[..., 0].astype(float), 1, mode="reflect")
    laplacian = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:] - 4 * around[1:-1, 1:-1]
    quality = measure_quality(tensor, 51.6)
    assert quality.blur == pytest.approx(laplacian.var())
    assert quality.brightness == pytest.approx(tensor.mean() / 255)
    assert quality.size_px == 52


def test_a_stage_is_given_the_time_since_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 10.002, 10.005, 10.005, 10.012])
    monkeypatch.setattr("edge_fer.recognizer.time.perf_counter", lambda: next(times))
    clock = _Stages()
    for stage in ("detect", "track", "classify", "track"):
        clock.stop(stage)
    assert clock.ms == pytest.approx({"detect": 2.0, "preprocess": 0.0, "classify": 0.0, "track": 10.0})


def test_a_face_that_always_moves_is_classified_when_its_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer, asked = counted(monkeypatch)
    recognizer._search.find = lambda *_: [(None, Detection(FaceBox(100, 100, 96, 96)))]  # type: ignore[method-assign]
    for seq in range(60):
        gray = np.full((480, 640), 100 + 5 * (seq % 2), np.uint8)  # more than noise, less than another expression
        recognizer.recognize(Frame(gray, seq, seq / 60, "moving"))
    # Of 60 frames a second each fifth: the first that differs after 0.06 s.
    assert len(asked) == 12


def test_a_face_keeps_its_number_over_half_its_width(recognizer: Recognizer) -> None:
    detector = Boxes(FaceBox(100, 100, 100, 100))
    mover = Recognizer(detector, TfliteClassifier(recognizer.bundle))
    gray = np.random.default_rng(0).integers(0, 255, (480, 640)).astype(np.uint8)
    tracks = []
    for seq in range(6):
        detector.boxes = [FaceBox(100 + 50 * seq, 100, 100, 100)]
        frame = Frame(gray, seq, seq / 15, "walker")
        mover._search.find = lambda *_: [(None, Detection(box)) for box in detector.boxes]  # type: ignore[method-assign]
        tracks += [face.track for face in mover.recognize(frame).faces]
    assert tracks == [1] * 6
