"""The demo source: the same scene in every run, and truth that is true."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edge_fer.core import Expression, Frame
from edge_fer.errors import DataError
from edge_fer.sources import demo
from edge_fer.sources.demo import DemoSource


def test_every_run_gives_the_same_frames(demo_frames: list[Frame]) -> None:
    again = list(DemoSource())
    assert len(again) == len(demo_frames)
    for first, second in zip(demo_frames, again, strict=True):
        assert np.array_equal(first.gray, second.gray)
        assert (first.seq, first.time_s, first.truth) == (second.seq, second.time_s, second.truth)
    assert np.array_equal(demo_frames[100].picture(), again[100].picture())


def test_a_source_can_be_read_twice(demo_frames: list[Frame]) -> None:
    source = DemoSource()
    next(iter(source))
    assert np.array_equal(next(iter(source)).gray, demo_frames[0].gray)


def test_shape_and_length(demo_frames: list[Frame]) -> None:
    assert 14 <= len(demo_frames) / DemoSource.fps <= 17
    assert [frame.seq for frame in demo_frames] == list(range(len(demo_frames)))
    for frame in demo_frames:
        assert frame.gray.shape == (480, 640) and frame.gray.dtype == np.uint8
        assert frame.stream == "demo" and not frame.still
        assert frame.time_s == pytest.approx(frame.seq / 15)
        assert len(frame.truth) == 2


def test_each_face_holds_all_seven_expressions_and_changes_between(demo_frames: list[Frame]) -> None:
    for index in (0, 1):
        played = [frame.truth[index].expression for frame in demo_frames]
        assert set(played) == {None, *Expression} - {Expression.CONTEMPT}
        for before, after in pairwise(played):
            assert before == after or before is None or after is None, "an expression jumps to the next"


def inner_face(frame: Frame, index: int) -> np.ndarray:
    """Brows to mouth of a face where truth says it is, as it would be in 48x48."""
    box = frame.truth[index].box
    size_px = round(box.w)
    drawn = cv2.getRectSubPix(frame.gray, (size_px, size_px), (box.x + box.w / 2 - 0.5, box.y + box.h / 2 - 0.5))
    return cv2.resize(drawn, (48, 48), interpolation=cv2.INTER_AREA)[8:40, 8:40].astype(float)


def test_a_held_face_shows_its_expression(demo_frames: list[Frame]) -> None:
    """The face in the scene looks most like the average face of the expression that truth names."""
    strip = cv2.imread(str(demo._STRIP), cv2.IMREAD_GRAYSCALE)
    known = [face[8:40, 8:40].ravel() for face in np.hsplit(strip, 7)]
    checked = set()
    for frame in demo_frames[::5]:
        for index, face in enumerate(frame.truth):
            if face.expression is None:
                continue
            likeness = [np.corrcoef(inner_face(frame, index).ravel(), average)[0, 1] for average in known]
            assert demo.EXPRESSIONS[int(np.argmax(likeness))] == face.expression
            checked.add(face.expression)
    assert checked == set(demo.EXPRESSIONS)


def test_a_changing_face_lies_between_the_two(demo_frames: list[Frame]) -> None:
    """Half way it is the mean of what was held before and what will be held after."""
    for index in (0, 1):
        held = [frame.seq for frame in demo_frames if frame.truth[index].expression is not None]
        for before, after in pairwise(held):
            if after - before > 1:
                middle = inner_face(demo_frames[(before + after) // 2], index)
                mean = (inner_face(demo_frames[before], index) + inner_face(demo_frames[after], index)) / 2
                assert np.abs(middle - mean).mean() < 8


def test_faces_move_and_come_near_and_go(demo_frames: list[Frame]) -> None:
    for index in (0, 1):
        widths = [frame.truth[index].box.w for frame in demo_frames]
        assert min(widths) == pytest.approx(120, abs=3) and max(widths) == pytest.approx(240, abs=3)
        centers = np.array(
            [(f.truth[index].box.x + f.truth[index].box.w / 2, f.truth[index].box.y) for f in demo_frames]
        )
        assert np.ptp(centers[:, 0]) > 40
        assert np.abs(np.diff(centers, axis=0)).max() < 5, "a face jumps"


def test_truth_is_inside_the_frame_and_faces_never_overlap(demo_frames: list[Frame]) -> None:
    for frame in demo_frames:
        first, second = (face.box for face in frame.truth)
        for box in (first, second):
            assert box.x >= 0 and box.y >= 0 and box.x + box.w <= 640 and box.y + box.h <= 480
        assert first.iou(second) == 0


@pytest.mark.parametrize("name", ["haarcascade_frontalface_default.xml", "haarcascade_frontalface_alt2.xml"])
def test_haar_cascades_find_both_faces_where_truth_says(demo_frames: list[Frame], name: str) -> None:
    cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / name))
    sampled = demo_frames[::8]
    both = 0
    for frame in sampled:
        small = cv2.resize(frame.gray, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
        found = [demo.FaceBox(*(value / 0.6 for value in box)) for box in cascade.detectMultiScale(small, 1.1, 5)]
        both += all(any(face.box.iou(box) > 0.7 for box in found) for face in frame.truth)
    assert both >= 0.9 * len(sampled)


@pytest.mark.parametrize("index", range(7), ids=demo.EXPRESSIONS)
def test_the_haar_cascade_finds_each_average_face_alone(index: int) -> None:
    strip = cv2.imread(str(demo._STRIP), cv2.IMREAD_GRAYSCALE)
    face = cv2.resize(np.hsplit(strip, 7)[index], (240, 240), interpolation=cv2.INTER_CUBIC)
    picture = cv2.copyMakeBorder(face, 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=128)
    cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"))
    (found,) = cascade.detectMultiScale(picture, 1.1, 5)
    assert demo.FaceBox(*found).iou(demo.FaceBox(60, 60, 240, 240)) > 0.7


def test_color_is_made_when_asked_for_and_fits_the_grey(demo_frames: list[Frame]) -> None:
    frame = demo_frames[30]
    gray = frame.gray.copy()
    picture = frame.picture()
    assert picture.shape == (480, 640, 3) and picture.dtype == np.uint8
    assert np.abs(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(int) - gray).mean() < 2
    box = frame.truth[0].box
    middle = (round(box.y + box.h / 2), round(box.x + box.w / 2))
    blue, green, red = (int(value) for value in picture[middle])
    assert red > green > blue, "skin is not warm"
    picture[:] = 0
    assert np.array_equal(frame.gray, gray) and frame.picture().any()


def test_close_ends_the_iteration() -> None:
    source = DemoSource()
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


@pytest.mark.parametrize(
    "content", [None, b"no picture", cv2.imencode(".png", np.zeros((48, 96), np.uint8))[1].tobytes()]
)
def test_a_damaged_strip_is_one_clear_error(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "average_faces.png"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(demo, "_STRIP", path)
    with pytest.raises(DataError, match="install edge-fer again"):
        DemoSource()


def test_a_loop_begins_again_without_a_seam_at_the_pace_of_a_camera(
    demo_frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(demo, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append))
    source = DemoSource(loops=True)
    assert source.live
    frames = list(islice(source, len(demo_frames) + 2))
    assert sum(slept) == pytest.approx(frames[-1].time_s) == pytest.approx(frames[-1].seq / 15)
    for again, first in zip(frames[-2:], demo_frames[:2], strict=True):
        assert np.array_equal(again.gray, first.gray)
        assert [face.expression for face in again.truth] == [face.expression for face in first.truth]
