"""A face turned to the front, or away from it, by a generic 3-D head: for data sets, training views and measurements.

Effective face frontalization (Hassner, Harel, Paz & Enbar, CVPR 2015): one head for everybody, of whose surface each
point of a frontal view knows its depth. The landmarks say how it is seen in an image; each pixel of the frontal view is
fetched from where its point is seen, and what is hidden there from the other side of the face (soft symmetry). Nothing
of it runs on a device.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Image, Landmarks
from edge_fer.preprocess.alignment import EYES
from edge_fer.preprocess.pose import FACE_MM, Pose, pose_of, rotation

SIDE_MM = 63.0 / (EYES[1][0] - EYES[0][0])
"""Side of a crop without margin: its eyes are 63 mm apart."""
LOOK_UP = 6
"""The view is rendered from the surface at so many points a pixel, along each side."""


def depth_mm(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Depth of the generic head's surface: 0 at the pupils, less toward the camera.

    An ellipsoid of 150 x 230 x 180 mm, whose front lies at the root of the nose's tip, and the nose on it. It passes
    through ``pose.FACE_MM``. Beyond the ellipsoid's rim a flat background goes on from it.

    Args:
        x: to the right of the middle between the pupils, in mm, any shape.
        y: below it.
    """
    inside = np.clip(1 - (x / 75) ** 2 - ((y - 35) / 115) ** 2, 0.12, 1)
    head = 90 * (1 - np.sqrt(inside)) - _AT_PUPILS
    bridge = (
        np.clip((y + 2) / 38, 0, 1)
        * np.exp(-((x / 8.5) ** 2))
        * np.where(y > 36.3, np.exp(-(((y - 36.3) / 7) ** 2)), 1)
    )
    return np.asarray(head - _NOSE * bridge)


_AT_PUPILS = float(90 * (1 - np.sqrt(1 - (31.5 / 75) ** 2 - (35 / 115) ** 2)))
_NOSE = float(-FACE_MM[2, 2] - _AT_PUPILS)
"""What the nose stands out from the ellipsoid."""


def surface(points: int) -> NDArray[np.float64]:
    """The head's surface seen from the front, in a crop without margin: (points, points, 3), mm as ``FACE_MM``."""
    fractions = (np.arange(points) + 0.5) / points
    x, y = np.meshgrid((fractions - 0.5) * SIDE_MM, (fractions - EYES[0][1]) * SIDE_MM)
    return np.stack([x, y, depth_mm(x, y)], axis=-1)


def frontalized(gray: Image, landmarks: Landmarks, side: int = 48, symmetry: bool = True) -> Image | None:
    """A face as if it looked into the camera: uint8 (side, side), framed as FER2013 frames faces.

    Args:
        gray: uint8 (height, width).
        landmarks: of the face in it, with both corners of the mouth.
        side: of the result.
        symmetry: fill what is hidden from the other side of the face.

    Returns:
        None where the landmarks make no face, see ``pose.pose_of``.
    """
    pose = pose_of(landmarks)
    if pose is None:
        return None
    points = np.array([*sorted((landmarks.right_eye, landmarks.left_eye)), landmarks.nose, *sorted(landmarks.mouth)])
    turn = rotation(pose)[:2]
    model = FACE_MM @ turn.T
    off, seen = model - model.mean(axis=0), points - points.mean(axis=0)
    scale = float((off * seen).sum() / (off**2).sum())
    if scale <= 0:
        return None
    places = scale * (surface(side) @ turn.T - model.mean(axis=0)) + points.mean(axis=0)
    view = _sampled(gray, places)
    if symmetry:
        hidden = _hidden(places, scale * SIDE_MM / side)
        # What is hidden on both sides stays as it is.
        weight = hidden * (1 - hidden[:, ::-1])
        view = (1 - weight) * view + weight * view[:, ::-1]
    return np.clip(np.rint(view), 0, 255).astype(np.uint8)


def turned(face: Image, pose: Pose) -> Image:
    """A frontal face as it would be seen with the head turned: uint8, the same size, for tests and training views.

    Args:
        face: uint8 (side, side), framed as FER2013 frames faces, looking into the camera.
        pose: of the head.
    """
    side = face.shape[0]
    fine = side * LOOK_UP
    points = surface(fine)
    texture = cv2.resize(face, (fine, fine), interpolation=cv2.INTER_CUBIC).ravel()
    seen = points @ rotation(pose).T
    # The middle of eyes, nose and mouth stays where it was.
    shift = FACE_MM[:, :2].mean(axis=0) - (FACE_MM @ rotation(pose).T)[:, :2].mean(axis=0)
    columns = ((seen[..., 0] + shift[0]) / SIDE_MM + 0.5) * 2 * side
    rows = ((seen[..., 1] + shift[1]) / SIDE_MM + EYES[0][1]) * 2 * side
    order = np.argsort(-seen[..., 2].ravel(), kind="stable")  # the nearest is painted last
    rows, columns = (np.rint(one).astype(np.int64).ravel()[order] for one in (rows - 0.5, columns - 0.5))
    inside = (rows >= 0) & (rows < 2 * side) & (columns >= 0) & (columns < 2 * side)
    canvas = np.zeros((2 * side, 2 * side), np.uint8)
    empty = np.full((2 * side, 2 * side), 255, np.uint8)
    canvas[rows[inside], columns[inside]] = texture[order][inside]
    empty[rows[inside], columns[inside]] = 0
    # Holes and what lies behind the head take the nearest pixel.
    _, nearest = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colors = np.zeros(nearest.max() + 1, np.uint8)
    colors[nearest[empty == 0]] = canvas[empty == 0]
    whole = colors[nearest]
    return np.asarray(cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def landmarks_of_turned(side: int, pose: Pose) -> Landmarks:
    """Where ``turned`` has the landmarks of the generic head, in pixels."""
    seen = (FACE_MM @ rotation(pose).T)[:, :2]
    seen += FACE_MM[:, :2].mean(axis=0) - seen.mean(axis=0)
    points = (seen / SIDE_MM + (0.5, EYES[0][1])) * side
    right, left, nose, *mouth = ((float(x), float(y)) for x, y in points)
    return Landmarks(right, left, nose, (mouth[0], mouth[1]))


def _sampled(gray: Image, places: NDArray[np.float64]) -> NDArray[np.float64]:
    # For OpenCV the middle of a pixel is a whole number.
    columns, rows = (np.ascontiguousarray(places[..., axis] - 0.5, np.float32) for axis in (0, 1))
    image = gray.astype(np.float32)
    view = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(view, np.float64)


def _hidden(places: NDArray[np.float64], pixel: float) -> NDArray[np.float64]:
    """How far each pixel of the frontal view is hidden in the image, 0-1 (Hassner et al., section 3.2).

    Where the surface turns away from the camera, many pixels of the frontal view are fetched from one place of the
    image: the more, the less it shows of them. A pixel that has its place for itself is seen.

    Args:
        places: in the image, (side, side, 2).
        pixel: of the image, for one of a frontal view at the same scale.
    """
    step = max(pixel, 1e-6)
    cells = np.floor((places - places.reshape(-1, 2).min(axis=0)) / step).astype(np.int64)
    width = int(cells[..., 0].max()) + 1
    numbers = (cells[..., 1] * width + cells[..., 0]).ravel()
    crowd = np.bincount(numbers)[numbers].reshape(places.shape[:2]).astype(np.float64)
    # The width of a pixel's place, too: behind the nose the order of the places is turned around.
    forward = np.gradient(places[..., 0], axis=1) / step
    hidden = np.maximum(1 - np.exp(-np.maximum(crowd - 1.5, 0)), np.clip(1 - 2.5 * forward, 0, 1))
    return np.asarray(cv2.GaussianBlur(hidden, (0, 0), places.shape[0] / 24))
