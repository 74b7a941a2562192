"""Frontalization: a turned face comes back, and what is hidden comes from the other side."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from datasets.frontalization import SIDE_MM, depth_mm, frontalized, landmarks_of_turned, surface, turned
from edge_fer.core import Landmarks
from edge_fer.preprocess.alignment import EYES, MOUTH, NOSE
from edge_fer.preprocess.pose import FACE_MM, Pose, pose_of
from edge_fer.sources.demo import average_faces

FACE = average_faces()[0].astype(np.uint8)
MIDDLE = slice(12, 36)
"""Columns that are face and no background."""


def alike(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one[:, MIDDLE].ravel().astype(float), other[:, MIDDLE].ravel().astype(float))[0, 1])


def test_the_head_passes_through_the_landmarks() -> None:
    assert np.allclose(depth_mm(FACE_MM[:, 0], FACE_MM[:, 1]), FACE_MM[:, 2], atol=0.3)


def test_its_surface_is_framed_as_a_crop() -> None:
    fractions = FACE_MM[:, :2] / SIDE_MM + (0.5, EYES[0][1])
    assert np.allclose(fractions, [*EYES, NOSE, *MOUTH], atol=0.002)
    points = surface(48)
    assert points.shape == (48, 48, 3)
    assert points[0, 0, 0] == pytest.approx(-SIDE_MM / 2, abs=SIDE_MM / 48)
    assert np.allclose(points[..., 2], points[:, ::-1, 2])


def test_a_face_that_looks_ahead_stays_as_it_is() -> None:
    ahead = Pose(0, 0, 0)
    assert np.abs(turned(FACE, ahead).astype(int) - FACE).mean() < 3
    front = frontalized(FACE, landmarks_of_turned(48, ahead))
    assert front is not None
    assert np.abs(front.astype(int) - FACE).mean() < 3


@pytest.mark.parametrize("yaw", [-40, -20, 20, 40])
def test_a_turned_face_comes_back(yaw: float) -> None:
    pose = Pose(yaw, 0, 0)
    away = turned(FACE, pose)
    landmarks = landmarks_of_turned(48, pose)
    found = pose_of(landmarks)
    assert found is not None
    assert found.yaw_deg == pytest.approx(yaw, abs=0.1)
    front = frontalized(away, landmarks)
    assert front is not None
    assert alike(front, FACE) > max(0.9, alike(away, FACE))


def test_symmetry_fills_the_far_side() -> None:
    """On the far side, what is left of the image is smeared: with the near side's it is more like the face."""
    pose = Pose(45, 0, 0)
    away, landmarks = turned(FACE, pose), landmarks_of_turned(48, pose)
    with_it, without = (frontalized(away, landmarks, symmetry=one) for one in (True, False))
    assert with_it is not None
    assert without is not None
    far = np.s_[8:44, 28:40]
    assert np.abs(with_it[far].astype(int) - FACE[far]).mean() < np.abs(without[far].astype(int) - FACE[far]).mean()
    near = np.s_[8:44, 8:20]
    assert np.abs(with_it[near].astype(int) - without[near]).mean() < 3


def test_it_is_cut_out_of_a_larger_image_at_any_size_and_tilt() -> None:
    scene = cv2.copyMakeBorder(cv2.resize(FACE, (150, 150)), 60, 60, 80, 80, cv2.BORDER_REPLICATE).astype(np.uint8)
    points = np.array([*EYES, NOSE, *MOUTH]) * 150 - 0.5 + (80, 60)
    tilt = cv2.getRotationMatrix2D((155, 135), -20, 1.0)
    scene = cv2.warpAffine(scene, tilt, scene.shape[::-1], borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
    right, left, nose, *mouth = (tuple(one) for one in (points @ tilt[:, :2].T + tilt[:, 2] + 0.5).tolist())
    front = frontalized(scene, Landmarks(right, left, nose, tuple(mouth)), side=64)
    assert front is not None
    assert front.shape == (64, 64)
    assert alike(cv2.resize(front, (48, 48), interpolation=cv2.INTER_AREA), FACE) > 0.95


@pytest.mark.parametrize("gray", [0, 128, 255])
def test_flat_images_stay_flat(gray: int) -> None:
    flat = np.full((48, 48), gray, np.uint8)
    assert (frontalized(flat, landmarks_of_turned(48, Pose(35, 5, 5))) == gray).all()
    assert (turned(flat, Pose(35, 5, 5)) == gray).all()


def test_landmarks_outside_the_image_take_its_edge_and_those_of_no_face_give_none() -> None:
    far = landmarks_of_turned(48, Pose(10, 0, 0)).scaled(1.0, 500, 500)
    front = frontalized(FACE, far)
    assert front is not None
    assert np.unique(front).size == 1
    assert frontalized(FACE, Landmarks((5, 5), (5, 5), (5, 9), ((3, 12), (7, 12)))) is None
