"""Where a head looks: yaw, pitch and roll from five landmarks, and how far a face is turned from its crop alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Image, Landmarks

FACE_MM: NDArray[np.float64] = np.array(
    [[-31.5, 0.0, 0.0], [31.5, 0.0, 0.0], [0.0, 36.3, -28.0], [-24.9, 64.2, -5.0], [24.9, 64.2, -5.0]]
)
"""A generic face seen from the front, in millimeters: the eye at the left of the image, the other one, the tip of the
nose, the mouth's corners; x to the right, y down, z away from the camera. Widths and heights are those of
``alignment.EYES`` and its neighbors, with 63 mm from eye to eye; depths are those of an average head."""
TURN_OF_45_DEG = 28.0 / 63.0
"""``core.Quality.turn`` of a head that is turned by 45 degrees: it is this times the tangent of the yaw."""
SIDE = 24
"""Of the reduced crop that ``turn_of_crop`` looks at."""


@dataclass(frozen=True, slots=True)
class Pose:
    """How a head is turned, in degrees; 0 where it looks into the camera.

    Attributes:
        yaw_deg: about its vertical axis; positive where the nose points to the right of the image.
        pitch_deg: up and down; positive where it looks down.
        roll_deg: in the plane of the image, clockwise as seen.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


def pose_of(landmarks: Landmarks) -> Pose | None:
    """Pose from orthography and scaling.

    Far from the camera a face is seen as a scaled parallel projection: the landmarks are, but for a shift, the points
    of the generic face times the first two rows of a rotation times a scale. The six numbers are solved by least
    squares with the pseudo-inverse of the face (DeMenthon & Davis, IJCV 15, 1995, section 4: POS), and the nearest rows
    that are orthogonal and alike long give the rotation.

    Args:
        landmarks: of a face. Right and left are taken as seen.

    Returns:
        None where they have no two corners of the mouth, are no numbers, or make no face.
    """
    eyes, mouth = sorted((landmarks.right_eye, landmarks.left_eye)), sorted(landmarks.mouth)
    if len(mouth) != 2:
        return None
    points = np.array([*eyes, landmarks.nose, *mouth], np.float64)
    if not np.isfinite(points).all() or math.dist(*eyes) < 1:
        return None
    rows = _INVERSE @ (points - points.mean(axis=0))  # (3, 2): a column for each row of the projection
    left, lengths, right = np.linalg.svd(rows.T, full_matrices=False)
    if lengths[1] < 1e-6 * lengths[0]:
        return None
    first, second = left @ right
    third = np.cross(first, second)
    # The rotation is Rz(roll) Ry(-yaw) Rx(pitch): roll is what a turned camera would do.
    yaw = math.asin(float(np.clip(third[0], -1, 1)))
    pitch = math.atan2(third[1], third[2])
    roll = math.atan2(second[0], first[0])
    return Pose(*(math.degrees(angle) for angle in (yaw, pitch, roll)))


_INVERSE: NDArray[np.float64] = np.linalg.pinv(FACE_MM - FACE_MM.mean(axis=0))


def rotation(pose: Pose) -> NDArray[np.float64]:
    """Rz(roll) Ry(-yaw) Rx(pitch), (3, 3): points of a face that looks into the camera -> the same, turned."""
    yaw, pitch, roll = (math.radians(angle) for angle in (-pose.yaw_deg, pose.pitch_deg, pose.roll_deg))
    about_z = [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]
    about_y = [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
    about_x = [[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]]
    return np.asarray(np.array(about_z) @ np.array(about_y) @ np.array(about_x))


def turn_of_crop(crop: Image, margin: float = 0.0, weights: Mapping[str, NDArray[Any]] | None = None) -> float:
    """How far a face is turned away, from its crop: a rough guess where a detector gives no landmarks.

    A layer of a few units sees the crop and its mirror image, and the difference is the answer: a face that is its own
    mirror image is not turned. ``training.turn`` has trained it, and scaled it to the limit of ``core.Quality.turn``:
    above that it is as rarely wrong about a face that looks ahead, but finds half of those that are turned by 30
    degrees alone. Below it says little.

    Args:
        crop: uint8 (height, width, 1) in its own light.
        margin: how far it reaches beyond what FER2013 frames, as a fraction of that.
        weights: as in edge_fer/data/turn.npz, which is the default.
    """
    if weights is None:
        weights = _weights()
    top, left = (round(side * margin / (1 + 2 * margin)) for side in crop.shape[:2])
    small = reduced(crop[top : crop.shape[0] - top, left : crop.shape[1] - left, 0])
    both = np.stack([small.ravel(), small[:, ::-1].ravel()])
    units = np.maximum(both @ weights["kernel"] * weights["scale"] + weights["bias"], 0)
    return abs(float((units[0] - units[1]) @ weights["last"]))


def reduced(image: Image) -> NDArray[np.float32]:
    """An image in ``SIDE`` rows and columns, of mean 0 and standard deviation 1, or less where it is nearly flat."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return np.asarray(small / (small.std() + 4), np.float32)  # four gray levels


@cache
def _weights() -> dict[str, NDArray[Any]]:
    with np.load(Path(__file__).parents[1] / "data" / "turn.npz") as file:
        return {name: file[name].astype(np.float32) for name in file.files}
