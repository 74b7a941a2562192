"""Faces are turned upright by their eyes, where the model's metadata says so."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_fer
from edge_fer.core import Detection, FaceBox, Frame, Image, Landmarks
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.errors import UnavailableError
from edge_fer.model.bundle import load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from edge_fer.preprocess.alignment import (
    AS_FOUND,
    EYES,
    MOUTH,
    NOSE,
    Alignment,
    EyeFinder,
    _tilt_of,
    placement_by_points,
)
from edge_fer.preprocess.face_tensor import face_tensor
from edge_fer.recognizer import Recognizer

STRIP = cv2.imread(str(Path(edge_fer.__file__).parent / "data" / "average_faces.png"), cv2.IMREAD_GRAYSCALE)
FACES = np.stack(np.hsplit(STRIP, 7))[..., np.newaxis]
BOX = FaceBox(60, 60, 120, 120)


def tilted(face: Image, clockwise_deg: float) -> Image:
    """A 48x48 face, 120 pixels wide in the middle of a picture."""
    large = cv2.resize(cv2.copyMakeBorder(face, 24, 24, 24, 24, cv2.BORDER_REPLICATE), (240, 240))
    warp = cv2.getRotationMatrix2D((119.5, 119.5), -clockwise_deg, 1.0)
    return cv2.warpAffine(large, warp, (240, 240), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


@pytest.mark.parametrize("tilt_deg", [-15, 0, 15])
def test_the_tilt_of_faces_is_found(tilt_deg: float) -> None:
    tilts = [EyeFinder().tilt_deg(tilted(face, tilt_deg), BOX) for face in FACES[..., 0]]
    assert np.median(tilts) == pytest.approx(tilt_deg, abs=4)


def test_the_size_of_the_face_does_not_matter() -> None:
    scene = tilted(FACES[3, ..., 0], 12)
    twice = cv2.resize(scene, (480, 480), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    assert EyeFinder().tilt_deg(twice, FaceBox(120, 120, 240, 240)) == pytest.approx(
        EyeFinder().tilt_deg(scene, BOX), abs=6
    )


def test_what_lies_around_the_face_does_not_matter() -> None:
    """Each face's tilt is the same in a crowd; that it is found is asked of most, as a pixel can hide an eye."""
    found = []
    for face in FACES[..., 0]:
        alone = tilted(face, 12)[60:180, 60:180]
        crowd = np.tile(tilted(face, -12)[60:180, 60:180], (3, 3))
        crowd[120:240, 120:240] = alone
        found.append(EyeFinder().tilt_deg(alone, FaceBox(0, 0, 120, 120)))
        assert EyeFinder().tilt_deg(crowd, FaceBox(120, 120, 120, 120)) == found[-1]
    assert np.median(found) == pytest.approx(12, abs=6)


@pytest.mark.parametrize(
    ("eyes", "tilt_deg"),
    [
        ([], 0.0),
        ([(30, 40, 25)], 0.0),
        ([(30, 40, 25), (90, 40, 25)], 0.0),
        ([(90, 50, 25), (30, 40, 25)], 9.46),
        ([(30, 20, 25), (90, 70, 25)], 0.0),  # 40 degrees
        ([(50, 40, 25), (70, 45, 25)], 0.0),  # too near to each other
        ([(10, 40, 25), (40, 45, 25)], 0.0),  # both on one side
        ([(30, 40, 25), (90, 50, 25), (95, 30, 60)], 9.46),  # the most even pair
        ([(30, 40, 25), (90, 50, 25), (80, 60, 25)], 9.46),  # of two, the one about the middle
        ([(30, 40, 25), (90, 50, 20), (95, 40, 25)], 0.0),  # and of nearly the same size
        ([(30, 40, 30), (90, 50, 15)], 9.46),  # uneven, but the only one
        ([(44, 40, 25), (76, 45, 25)], 8.88),  # 0.27 of a face apart
        ([(45, 40, 25), (74, 45, 25)], 0.0),  # 0.24
        ([(19, 40, 25), (101, 50, 25)], 6.95),  # 0.68
        ([(17, 40, 25), (102, 50, 25)], 0.0),  # 0.71
        ([(30, 20, 25), (90, 61, 25)], 34.35),
        ([(30, 61, 25), (90, 20, 25)], -34.35),
        ([(30, 20, 25), (90, 63, 25)], 0.0),  # 35.6 degrees
        ([(80, 40, 25), (115, 45, 25)], 0.0),  # both on the other side
    ],
)
def test_which_eyes_make_a_pair(eyes: list[tuple[float, float, float]], tilt_deg: float) -> None:
    assert _tilt_of(eyes, 120, 35) == pytest.approx(tilt_deg, abs=0.01)


@pytest.mark.parametrize("box", [FaceBox(-500, -500, 60, 60), FaceBox(239, 239, 1, 1), FaceBox(-30, -30, 300, 300)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_without_eyes_a_face_stays_as_it_is(box: FaceBox, level: int) -> None:
    assert EyeFinder().tilt_deg(np.full((240, 240), level, np.uint8), box) == 0.0


def test_an_opencv_without_the_cascade(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cv2.data, "haarcascades", f"{tmp_path}/")
    with pytest.raises(UnavailableError, match="has no cascade for eyes"):
        EyeFinder()


@pytest.mark.parametrize("tilt_deg", [-20.0, 7.0, 20.0])
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_a_tensor_is_turned_back_by_the_tilt(tilt_deg: float, margin: float) -> None:
    upright = face_tensor(tilted(FACES[3, ..., 0], 0), BOX, (48, 48), margin)
    scene = tilted(FACES[3, ..., 0], tilt_deg)
    turned = face_tensor(scene, BOX, (48, 48), margin, tilt_deg)
    inner = np.s_[8:40, 8:40]
    assert cv2.norm(turned[inner], upright[inner], cv2.NORM_L1) / 32**2 < 4
    assert cv2.norm(face_tensor(scene, BOX, (48, 48), margin)[inner], upright[inner], cv2.NORM_L1) / 32**2 > 6


def test_where_a_turned_face_reaches_beyond_the_picture_its_edge_goes_on() -> None:
    tensor = face_tensor(np.full((50, 50), 77, np.uint8), FaceBox(30, -20, 48, 48), (48, 48), 0.2, 30.0)
    assert tensor.shape == (48, 48, 1)
    assert (tensor == 77).all()


def test_the_metadata_has_the_device_turn_faces(bundle_with: Callable[..., Path]) -> None:
    def eyes(table: dict[str, Any]) -> None:
        table["preprocess"]["alignment"] = "eyes"

    scene = cv2.resize(tilted(FACES[3, ..., 0], 12), (480, 480), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    bundle = load_bundle(bundle_with(metadata=eyes))
    assert bundle.metadata.preprocess.alignment == "eyes"
    classifier = TfliteClassifier(bundle)
    (face,) = Recognizer(CascadeDetector(), classifier).recognize(scene).faces
    tensor = face_tensor(scene, face.box, (48, 48), 0.0, EyeFinder().tilt_deg(scene, face.box))
    assert classifier.classify([tensor]) == [face.raw]
    assert classifier.classify([face_tensor(scene, face.box, (48, 48), 0.0)]) != [face.raw]


def test_in_a_stream_the_tilt_is_measured_in_every_other_frame_at_most(
    bundle_with: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[FaceBox] = []

    class Counted(EyeFinder):
        def tilt_deg(self, gray: Image, box: FaceBox) -> float:
            looks.append(box)
            return super().tilt_deg(gray, box)

    monkeypatch.setattr("edge_fer.preprocess.EyeFinder", Counted)
    path = bundle_with(metadata=lambda table: table["preprocess"].update(alignment="eyes"))
    recognizer = Recognizer(CascadeDetector(), TfliteClassifier(load_bundle(path)))
    scene = cv2.resize(tilted(FACES[3, ..., 0], 12), (480, 480), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    for seq in range(30):
        recognizer.recognize(Frame(scene, seq, seq / 30, "clip"))
    assert 10 <= len(looks) <= 16  # of 30 frames in a second, though the crop stays the same


def test_the_schema_knows_it() -> None:
    schema = json.loads((Path(edge_fer.__file__).parent / "model" / "metadata.schema.json").read_text())
    assert schema["properties"]["preprocess"]["properties"]["alignment"]["enum"] == list(get_args(Alignment))


CANONICAL = np.array([*EYES, NOSE, *MOUTH])


def marks_at(middle: tuple[float, float], side: float, tilt_deg: float) -> Landmarks:
    """The canonical points in a square of that middle, side and tilt."""
    turn = side * np.exp(1j * math.radians(tilt_deg))
    points = (CANONICAL[:, 0] - 0.5 + 1j * (CANONICAL[:, 1] - 0.5)) * turn + complex(*middle)
    right, left, nose, *mouth = ((float(point.real), float(point.imag)) for point in points)
    return Landmarks(right, left, nose, (mouth[0], mouth[1]))


@given(
    st.sampled_from(["two-points", "five-points"]),
    st.floats(-0.4, 0.4),
    st.floats(-0.4, 0.4),
    st.floats(0.55, 1.8),
    st.floats(-80, 80),
)
def test_a_square_comes_back_from_its_points(alignment: Any, x: float, y: float, size: float, tilt: float) -> None:
    box = FaceBox(100, 50, 80, 100)
    side = size * 90
    found = placement_by_points(box, marks_at((140 + 80 * x, 100 + 100 * y), side, tilt), alignment)
    if max(side / 80, side / 100) <= 2 and min(side / 80, side / 100) >= 0.5:
        assert (found.x, found.y, found.tilt_deg) == pytest.approx((x, y, tilt), abs=1e-6)
        placed = found.of(box)
        assert (placed.w, placed.h) == pytest.approx((side, side))


def test_five_points_are_fitted_by_least_squares() -> None:
    """No other square is nearer to points that tremble."""
    chance = np.random.default_rng(0)
    exact = marks_at((100, 100), 80, 10)
    moved = [
        (x + dx, y + dy)
        for (x, y), (dx, dy) in zip(
            (exact.right_eye, exact.left_eye, exact.nose, *exact.mouth),
            chance.normal(0, 3, (5, 2)).tolist(),
            strict=True,
        )
    ]
    marks = Landmarks(moved[0], moved[1], moved[2], (moved[3], moved[4]))
    box = FaceBox(60, 60, 80, 80)
    best = placement_by_points(box, marks, "five-points")

    def error(x: float, y: float, w: float, tilt: float) -> float:
        placed = marks_at((100 + 80 * x, 100 + 80 * y), 80 * w, tilt)
        points = (placed.right_eye, placed.left_eye, placed.nose, *placed.mouth)
        return sum(math.dist(one, other) ** 2 for one, other in zip(points, moved, strict=True))

    least = error(best.x, best.y, best.w, best.tilt_deg)
    for step in (-1, 1):
        assert error(best.x + 0.002 * step, best.y, best.w, best.tilt_deg) > least
        assert error(best.x, best.y + 0.002 * step, best.w, best.tilt_deg) > least
        assert error(best.x, best.y, best.w + 0.002 * step, best.tilt_deg) > least
        assert error(best.x, best.y, best.w, best.tilt_deg + 0.2 * step) > least


@pytest.mark.parametrize("alignment", ["two-points", "five-points"])
@pytest.mark.parametrize(
    "marks",
    [
        Landmarks((80, 80), (80, 80), (90, 90), ((70, 99), (95, 99))),
        Landmarks((float("nan"), 80), (99, 80), (90, 90), ((70, 99), (95, 99))),
        Landmarks((80, 80), (float("inf"), 80), (90, 90), ((70, 99), (95, 99))),
        marks_at((900, 100), 80, 0),
        marks_at((100, 100), 300, 0),
        marks_at((100, 100), 20, 0),
    ],
)
def test_landmarks_of_no_face_leave_the_box(alignment: Any, marks: Landmarks) -> None:
    assert placement_by_points(FaceBox(60, 60, 80, 80), marks, alignment) == AS_FOUND


@pytest.mark.parametrize("alignment", ["eyes", "two-points", "five-points"])
@pytest.mark.parametrize(
    "eyes",
    [((80, 80), (80, 80)), ((80.4, 80), (80, 80)), ((float("nan"), 80), (99, 80)), ((80, 80), (99, float("-inf")))],
)
def test_eyes_that_are_none_leave_the_face_as_it_was_found(alignment: Any, eyes: Any) -> None:
    preprocessor = Preprocessor(PreprocessSpec(alignment=alignment), (48, 48))
    scene, box = tilted(FACES[0, ..., 0], 0), FaceBox(60, 60, 80, 80)
    found = Detection(box, 0.9, Landmarks(*eyes, (90, 90), ((70, 99), (95, 99))))
    assert np.array_equal(preprocessor(scene, found), face_tensor(scene, box, (48, 48), 0.0))


@pytest.mark.parametrize("alignment", ["eyes", "two-points", "five-points"])
@pytest.mark.parametrize("gray", [0, 128, 255])
@pytest.mark.parametrize("place", [(0.0, 0.0), (-60.0, 20.0), (150.0, 290.0), (900.0, -900.0)])
def test_a_face_over_the_edge_of_a_flat_frame_is_flat(alignment: Any, gray: int, place: tuple[float, float]) -> None:
    """Its landmarks may lie outside the frame: the frame's edge goes on there."""
    x, y = place
    found = Detection(FaceBox(x, y, 100, 100), 0.9, marks_at((x + 50, y + 50), 100, 20))
    flat = np.full((240, 320), gray, np.uint8)
    preprocessor = Preprocessor(PreprocessSpec(alignment=alignment), (48, 48))
    assert (preprocessor(flat, found) == gray).all()


def test_which_eye_is_called_right_does_not_matter_and_a_mouth_may_be_one_point() -> None:
    box, marks = FaceBox(60, 60, 80, 80), marks_at((100, 100), 80, 5)
    swapped = Landmarks(marks.left_eye, marks.right_eye, marks.nose, marks.mouth[::-1])
    assert placement_by_points(box, swapped, "five-points") == placement_by_points(box, marks, "five-points")
    (x, y), (other_x, other_y) = marks.mouth
    middle = Landmarks(marks.right_eye, marks.left_eye, marks.nose, (((x + other_x) / 2, (y + other_y) / 2),))
    assert placement_by_points(box, middle, "five-points").tilt_deg == pytest.approx(5)


@pytest.mark.parametrize("alignment", ["two-points", "five-points"])
def test_an_aligned_face_is_the_same_wherever_its_box_is(alignment: Any) -> None:
    scene = tilted(FACES[3, ..., 0], 15)
    marks = marks_at((119.5, 119.5), 120, 15)
    preprocessor = Preprocessor(PreprocessSpec(alignment=alignment), (48, 48))
    boxes = [FaceBox(60, 60, 120, 120), FaceBox(45, 75, 130, 110)]
    one, other = (preprocessor(scene, Detection(box, 0.9, marks)) for box in boxes)
    assert np.abs(one.astype(int) - other).mean() < 2
    upright = face_tensor(tilted(FACES[3, ..., 0], 0), FaceBox(60, 60, 120, 120), (48, 48), 0.0)
    assert np.abs(one.astype(int) - upright).mean() < 4
    assert np.array_equal(
        preprocessor(scene, Detection(boxes[0])), face_tensor(scene, boxes[0], (48, 48), 0.0)
    )  # no landmarks
