"""Pose from landmarks: a projected face gives back its angles."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import Image, Landmarks
from edge_fer.preprocess.pose import FACE_MM, Pose, pose_of, rotation, turn_of_crop
from edge_fer.preprocess.quality import measure_quality, turn_of
from edge_fer.sources.demo import average_faces
from edge_fer.temporal.smoothing import Smoothing


def seen(pose: Pose, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Landmarks:
    points = scale * (FACE_MM @ rotation(pose).T)[:, :2] + shift
    right, left, nose, *mouth = ((float(x), float(y)) for x, y in points)
    return Landmarks(right, left, nose, (mouth[0], mouth[1]))


@given(
    st.floats(-60, 60),
    st.floats(-40, 40),
    st.floats(-50, 50),
    st.floats(0.2, 20),
    st.tuples(*[st.floats(-999, 999)] * 2),
)
def test_the_angles_of_a_projected_face_come_back(
    yaw: float, pitch: float, roll: float, scale: float, shift: tuple[float, float]
) -> None:
    pose = pose_of(seen(Pose(yaw, pitch, roll), scale, shift))
    if pose is None:  # so turned and tilted that the eyes are a pixel apart or have changed sides
        assert scale < 1
        return
    eyes = (FACE_MM @ rotation(Pose(yaw, pitch, roll)).T)[:2, 0]
    mouth = (FACE_MM @ rotation(Pose(yaw, pitch, roll)).T)[3:, 0]
    if eyes[0] < eyes[1] and mouth[0] < mouth[1]:
        assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == pytest.approx((yaw, pitch, roll), abs=1e-4)


def test_signs_are_as_seen() -> None:
    front = pose_of(seen(Pose(0, 0, 0)))
    assert front is not None
    assert (front.yaw_deg, front.pitch_deg, front.roll_deg) == pytest.approx((0, 0, 0), abs=1e-9)
    to_the_right, down, tilted = seen(Pose(30, 0, 0)), seen(Pose(0, 20, 0)), seen(Pose(0, 0, 15))
    assert to_the_right.nose[0] > FACE_MM[2, 0]
    assert down.nose[1] > FACE_MM[2, 1] * math.cos(math.radians(20))
    assert tilted.left_eye[1] > tilted.right_eye[1]  # clockwise as seen: the eye on the right sinks


@pytest.mark.parametrize("distance_mm", [400, 1000])
@pytest.mark.parametrize("yaw", [-40, 0, 25])
def test_a_camera_near_by_costs_a_few_degrees(distance_mm: float, yaw: float) -> None:
    """Perspective is not in the model: at 40 cm it costs up to 8 degrees."""
    points = FACE_MM @ rotation(Pose(yaw, 10, 5)).T
    points = 600 * points[:, :2] / (points[:, 2:] + distance_mm)
    right, left, nose, *mouth = ((float(x), float(y)) for x, y in points)
    pose = pose_of(Landmarks(right, left, nose, (mouth[0], mouth[1])))
    assert pose is not None
    assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == pytest.approx((yaw, 10, 5), abs=3200 / distance_mm)


def test_a_pixel_of_trembling_costs_a_few_degrees() -> None:
    chance = np.random.default_rng(0)
    off = []
    for _ in range(200):
        points = 2 * (FACE_MM @ rotation(Pose(20, 0, 0)).T)[:, :2] + chance.normal(0, 2, (5, 2))
        right, left, nose, *mouth = ((float(x), float(y)) for x, y in points)
        pose = pose_of(Landmarks(right, left, nose, (mouth[0], mouth[1])))
        assert pose is not None
        off.append(abs(pose.yaw_deg - 20))
    assert np.median(off) < 4


def test_a_detector_that_calls_left_right_changes_nothing() -> None:
    one = seen(Pose(12, 5, -8))
    other = Landmarks(one.left_eye, one.right_eye, one.nose, one.mouth[::-1])
    assert pose_of(one) == pose_of(other)


@pytest.mark.parametrize(
    "landmarks",
    [
        Landmarks((5, 5), (5, 5), (5, 9), ((3, 12), (7, 12))),
        Landmarks((5, 5), (9, 5), (7, 9), ((7, 12),)),
        Landmarks((5, 5), (float("nan"), 5), (7, 9), ((3, 12), (7, 12))),
        Landmarks((5, 5), (9, float("inf")), (7, 9), ((3, 12), (7, 12))),
        Landmarks((1, 5), (9, 5), (5, 5), ((3, 5), (7, 5))),
    ],
)
def test_what_makes_no_face_has_no_pose(landmarks: Landmarks) -> None:
    assert pose_of(landmarks) is None


FACES = average_faces()


def crop_of(face: Image) -> Image:
    return face[..., np.newaxis].astype(np.uint8)


def test_faces_that_look_ahead_are_not_turned_and_a_mirror_changes_nothing() -> None:
    limit = Smoothing().max_turn
    for face in FACES:
        ahead = turn_of_crop(crop_of(face))
        assert ahead < limit / 3  # average faces are symmetric
        assert ahead == pytest.approx(turn_of_crop(crop_of(face[:, ::-1])), abs=1e-3)


def test_one_half_of_a_face_is_turned() -> None:
    """A face whose far half is squeezed to a strip, as a camera sees it from the side."""
    turns = []
    for face in FACES:
        near, far = face[:, :24], cv2.resize(face[:, 24:], (10, 48), interpolation=cv2.INTER_AREA)
        side = cv2.resize(np.hstack([near, far, np.full((48, 14), face.mean(), np.uint8)]), (48, 48))
        turns.append(turn_of_crop(crop_of(side)))
    assert np.median(turns) > 3 * np.median([turn_of_crop(crop_of(face)) for face in FACES])


@pytest.mark.parametrize("gray", [0, 128, 255])
def test_a_flat_crop_is_not_turned(gray: int) -> None:
    assert turn_of_crop(np.full((48, 48, 1), gray, np.uint8)) == 0


def test_no_gain_turns_a_face() -> None:
    side = np.hstack([FACES[0][:, 10:], FACES[0][:, 38:]])[:, :48]
    assert turn_of_crop(crop_of(side // 2)) == pytest.approx(turn_of_crop(crop_of(side)), rel=0.15)


def test_a_margin_is_left_out() -> None:
    face = np.roll(FACES[0], 5, axis=1)
    wide = cv2.copyMakeBorder(face, 12, 12, 12, 12, cv2.BORDER_CONSTANT, value=0)
    assert turn_of_crop(crop_of(wide), margin=0.25) == pytest.approx(turn_of_crop(crop_of(face)), abs=1e-6)


def test_quality_takes_landmarks_before_the_crop() -> None:
    face = crop_of(FACES[0])
    turned = seen(Pose(45, 0, 0))
    assert measure_quality(face, 48, turned).turn == pytest.approx(turn_of(turned))
    assert measure_quality(face, 48).turn == turn_of_crop(face)
