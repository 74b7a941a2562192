"""Our own detector: its numbers become boxes, reckoned by hand; boxes that are one face; windows; what is refused."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.cli import main
from edge_fer.core import FaceBox, Frame, Image, Landmarks
from edge_fer.detection import ssd
from edge_fer.detection.ssd import SsdDetector, cells, decoded, sigmoid, suppressed, windows
from edge_fer.errors import BundleError
from edge_fer.model.bundle import BUNDLES, DETECTORS, Bundle
from edge_fer.model.selftest import SelfTest
from edge_fer.model.spec import DetectorSpec
from edge_fer.preprocess.quality import turn_of
from edge_fer.recognizer import Recognizer

Call = Callable[..., Any]


def rows(*faces: tuple[float, ...]) -> np.ndarray:
    return np.array(faces, np.float32).reshape(-1, 4)


def test_cells_lie_row_by_row_and_grid_by_grid() -> None:
    centers, strides = cells((240, 320))  # 240 counts as 256
    assert len(centers) == 32 * 40 + 16 * 20 + 8 * 10
    assert centers[[0, 1, 40]].tolist() == [[4, 4], [12, 4], [4, 12]]
    assert centers[[1280, -1]].tolist() == [[8, 8], [304, 240]]
    assert strides[[0, 1279, 1280, 1600]].tolist() == [8, 8, 16, 32]


def test_numbers_of_a_cell_become_a_box_and_points() -> None:
    boxes = np.array([[0.5, -0.25, np.log(2), np.log(3)]], np.float32)
    points = np.array([[0, 0, 1, 0, 0.5, 0.5, -1, 2, 1, 2]], np.float32)
    found = decoded(boxes, points, np.array([[40, 24]], np.float32), np.array([16], np.float32))
    assert found[0] == pytest.approx([48, 20, 32, 48, 40, 24, 56, 24, 48, 32, 24, 56, 56, 56])


def test_scores_of_any_logit() -> None:
    found = sigmoid(np.array([-1000, 0, 1000], np.float32))
    assert found[0] < 1e-30 and found[1] == 0.5 and found[2] == 1


def test_of_boxes_that_overlap_the_best_is_left() -> None:
    # Sides of 10; the second overlaps the first by 8 of 12, the third by 5 of 15, the fourth not at all.
    faces = rows((0, 0, 10, 10), (2, 0, 10, 10), (5, 0, 10, 10), (30, 0, 10, 10))
    scores = np.array([0.9, 0.95, 0.8, 0.5], np.float32)
    left, best = suppressed(faces, scores, 0.4)
    assert left.tolist() == faces[[1, 3]].tolist() and best == pytest.approx([0.95, 0.5])
    left, _ = suppressed(faces, scores, 0.6)
    assert left.tolist() == faces[[1, 2, 3]].tolist()
    assert suppressed(faces[:0], scores[:0], 0.4)[0].shape == (0, 4)


face = st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(1, 50), st.floats(1, 50), st.floats(0.1, 0.9))


@settings(max_examples=100, deadline=None)
@given(st.lists(face, max_size=12), st.floats(0.1, 0.9))
def test_no_two_boxes_that_are_left_overlap_and_none_is_lost_for_nothing(
    faces: list[tuple[float, ...]], min_iou: float
) -> None:
    given_rows, scores = rows(*(one[:4] for one in faces)), np.array([one[4] for one in faces], np.float32)
    left, best = suppressed(given_rows, scores, min_iou)

    def box(row: np.ndarray) -> FaceBox:
        x, y, w, h = (float(one) for one in row)
        return FaceBox(x - w / 2, y - h / 2, w, h)

    for one, other in itertools.combinations(left, 2):
        assert box(one).iou(box(other)) <= min_iou + 1e-4
    assert list(best) == sorted(best, reverse=True)
    for row, score in zip(given_rows, scores, strict=True):
        near = [one for one, its in zip(left, best, strict=True) if its >= score]
        assert any(np.array_equal(row, one) or box(row).iou(box(one)) > min_iou - 1e-4 for one in near)


@settings(max_examples=100, deadline=None)
@given(st.tuples(st.integers(8, 2000), st.integers(8, 2000)), st.floats(0.2, 1.0))
def test_windows_cover_the_image_at_the_wanted_scale(shape: tuple[int, int], scale: float) -> None:
    parts = list(windows(shape, (240, 320), scale))
    assert parts[0][:4] == (0, 0, shape[1], shape[0])
    height, width = parts[-1][3] - parts[-1][1], parts[-1][2] - parts[-1][0]
    last = [one for one in parts[1:] if (one[3] - one[1], one[2] - one[0]) == (height, width)]
    reached = min(1.0, 240 / shape[0], 320 / shape[1])
    assert reached >= scale or len(parts) > 1
    if len(parts) > 1:
        covered = np.zeros(shape, bool)
        for left, top, right, bottom, _ in last:
            assert 0 <= left < right <= shape[1] and 0 <= top < bottom <= shape[0]
            assert min(240 / (bottom - top), 320 / (right - left)) >= scale * 0.99
            covered[top:bottom, left:right] = True
        assert covered.all()


# --- with the package's networks


def test_a_face_that_two_windows_see_is_one(demo_frames: list[Frame]) -> None:
    small = SsdDetector([DETECTORS / "face-160x120.tflite"])
    for frame in demo_frames[::40]:
        found = small.detect(frame.gray, 40)  # 640x480 through 160x120: in windows
        assert len(found) == 2
        assert all(max(one.box.iou(true.box) for one in found) > 0.6 for true in frame.truth)


def test_both_sizes_find_alike(demo_frames: list[Frame]) -> None:
    large, small = (SsdDetector([DETECTORS / f"face-{size}.tflite"]) for size in ("320x240", "160x120"))
    frame = demo_frames[0]
    ours, theirs = large.detect(frame.gray, 60), small.detect(frame.gray, 60)
    assert len(ours) == len(theirs) == 2
    # The two are nearly equally large, so that either may be the first.
    assert all(max(one.box.iou(other.box) for other in theirs) > 0.7 for one in ours)


def test_the_smallest_network_that_shows_the_face_takes_it(
    demo_frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, taken = SsdDetector(), []
    run = ssd.SizedNetwork.run

    def noted(self: ssd.SizedNetwork, part: Image, min_score: float) -> Any:
        taken.append(self.size_hw)
        return run(self, part, min_score)

    monkeypatch.setattr(ssd.SizedNetwork, "run", noted)
    gray = demo_frames[0].gray
    detector.detect(gray[:100, :100], 40)
    detector.detect(gray, 20 * detector.enough_px)
    detector.detect(gray, 640 / 320 * detector.enough_px)
    assert taken == [(120, 160), (120, 160), (240, 320)]


class FakeNetwork:
    """Finds what it is told to, in pixels of the input."""

    size_hw = (120, 160)
    cells = 1

    def __init__(self, row: list[float], score: float) -> None:
        self._row, self._score = row, score

    def fits(self, shape_hw: tuple[int, ...]) -> float:
        return 1.0

    def run(self, part: Image, min_score: float) -> tuple[np.ndarray, np.ndarray]:
        kept = self._score > min_score
        return np.array([self._row], np.float32)[:kept], np.array([self._score], np.float32)[:kept]


def detect_row(monkeypatch: pytest.MonkeyPatch, row: list[float], score: float = 0.9, **how: bool) -> list[Any]:
    detector = SsdDetector()
    monkeypatch.setattr(detector, "_networks", [FakeNetwork(row, score)])
    return detector.detect(np.zeros((120, 160), np.uint8), 20, **how)


def test_boxes_become_squares_as_haar_frames_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = detect_row(monkeypatch, [80, 60, 32, 50, 70, 50, 90, 50, 80, 60, 72, 70, 88, 70])
    side = DetectorSpec().side * 40
    assert (one.box.x, one.box.y, one.box.w, one.box.h) == pytest.approx((80 - side / 2, 60 - side / 2, side, side))
    assert one.landmarks == Landmarks((70, 50), (90, 50), (80, 60), ((72, 70), (88, 70)))
    assert one.score == pytest.approx(0.9)


def test_landmarks_beyond_the_edge_are_where_the_face_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = detect_row(monkeypatch, [5, 60, 32, 50, -5, 50, 15, 50, 5, 60, -3, 70, 13, 70])
    assert one.landmarks is not None and one.landmarks.right_eye == (-5, 50)
    assert one.box.x < 0


def test_eyes_that_are_one_point_give_no_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    for apart, there in ((0.0, False), (1.9, False), (2.4, True)):
        points = [80, 50, 80 + apart, 50, 80, 60, 80, 70, 80, 70]
        (one,) = detect_row(monkeypatch, [80, 60, 32, 50, *points])
        assert (one.landmarks is not None) == there
        assert one.landmarks is None or np.isfinite(turn_of(one.landmarks))


def test_less_is_enough_where_a_face_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Bundle.load("face-320x240", "detector").metadata.detector
    assert spec is not None
    row, score = [80, 60, 32, 50, *range(10)], (spec.min_score + spec.min_score_weak) / 2
    assert detect_row(monkeypatch, row, score) == []
    assert len(detect_row(monkeypatch, row, score, expected=True)) == 1
    assert len(detect_row(monkeypatch, row, score, coarse=True)) == 1


# --- bundles


@pytest.mark.parametrize("size", ["320x240", "160x120"])
def test_the_package_s_bundles_are_small_and_good(size: str, call: Call) -> None:
    path = DETECTORS / f"face-{size}.tflite"
    assert path.stat().st_size <= 150_000
    done = call(main, "models", "verify", f"face-{size}")
    assert done.code == 0 and "is good" in done.out
    assert f"face-{size}" in call(main, "models").out
    assert "min_score" in call(main, "models", "show", f"face-{size}").out
    assert Bundle.load(path, "detector").is_packaged


def test_one_set_of_weights_serves_both_sizes() -> None:
    large, small = (Bundle.load(f"face-{size}", "detector") for size in ("320x240", "160x120"))
    assert large.metadata.detector == small.metadata.detector
    assert large.metadata.facts["parameters"] == small.metadata.facts["parameters"]


def test_one_kind_of_bundle_is_not_taken_for_the_other(call: Call, photo: Path) -> None:
    with pytest.raises(BundleError, match=r"nano\.tflite tells expressions and finds no faces: name it with --model"):
        SsdDetector(["nano"])
    with pytest.raises(BundleError, match=r"\.tflite finds faces and tells no expressions: name it with --detector-m"):
        Bundle.load("face-320x240")
    for arguments in (
        ["--model", "face-320x240"],
        ["--detector", "ssd", "--detector-model", str(BUNDLES / "nano.tflite")],
    ):
        done = call(main, "run", "--camera", photo, *arguments)
        assert done.code == 65
        assert done.err.count("\n") == 1 and "Traceback" not in done.err


def changed(path: Path, **changes: Any) -> Path:
    """A copy of the small bundle with parts changed."""
    bundle = Bundle.load("face-160x120", "detector")
    dataclasses.replace(bundle, **changes).write(path)
    return path


def test_a_graph_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    detector, nano = Bundle.load("face-160x120", "detector"), Bundle.load("nano")
    path = tmp_path / "wrong.tflite"
    Bundle.new(nano.model, detector.metadata, nano.selftest).write(path)
    with pytest.raises(BundleError, match=r"wrong\.tflite does not take one gray image and give scores, boxes and"):
        SsdDetector([path])


def test_a_self_test_that_fails_is_refused(tmp_path: Path) -> None:
    selftest = Bundle.load("face-160x120", "detector").selftest
    off = changed(tmp_path / "off.tflite", selftest=dataclasses.replace(selftest, outputs=selftest.outputs // 2))
    with pytest.raises(BundleError, match=r"off\.tflite fails its self-test on this device"):
        SsdDetector([off])
    other = SelfTest(selftest.inputs[:, :60], selftest.outputs)
    with pytest.raises(BundleError, match="has a self-test of another shape than its model"):
        SsdDetector([changed(tmp_path / "shape.tflite", selftest=other)])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"detector": None}, "a detector has a part `detector`"),
        ({"kind": "classifier"}, "a detector has a part `detector`"),
        ({"detector": DetectorSpec(min_score=0.0)}, "detector.min_score must be 0.001 to 0.999, not 0.0"),
        ({"detector": DetectorSpec(side=float("nan"))}, "detector.side must be 0.1 to 10, not nan"),
        (
            {"heads": Bundle.load("nano").metadata.heads},
            "a detector has no heads, decision, doubt",
        ),
    ],
)
def test_metadata_of_a_detector_is_checked(tmp_path: Path, metadata: dict[str, Any], message: str) -> None:
    bundle = Bundle.load("face-160x120", "detector").with_metadata(**metadata)
    path = bundle.write(tmp_path / "wrong.tflite").path
    assert path
    with pytest.raises(BundleError, match=message):
        Bundle.load(path, None)


def test_a_stream_finds_its_faces_and_keeps_them(demo_frames: list[Frame]) -> None:
    recognizer = Recognizer.load("nano", detector="ssd")
    results = [recognizer.recognize(frame) for frame in demo_frames[:60]]
    assert [len(result.faces) for result in results] == [2] * 60
    assert {face.track for result in results for face in result.faces} == {1, 2}


@pytest.mark.parametrize("turn_deg", [-30, -15, 15, 30])
def test_tilted_faces_are_found(demo_frames: list[Frame], turn_deg: float) -> None:
    frame = demo_frames[0]
    turn = cv2.getRotationMatrix2D((320, 240), turn_deg, 0.75)
    tilted = cv2.warpAffine(frame.gray, turn, (640, 480), borderValue=128.0).astype(np.uint8)
    boxes = [one.box for one in SsdDetector().detect(tilted, 40)]
    assert len(boxes) == 2
    for face in (true.box for true in frame.truth):
        x, y = turn[:, :2] @ (face.x + face.w / 2, face.y + face.h / 2) + turn[:, 2]
        side = 0.75 * face.w
        assert max(box.iou(FaceBox(x - side / 2, y - side / 2, side, side)) for box in boxes) > 0.6
