"""Faces that are no clean crops: corrupted images, and faces pasted into scenes for a detector to find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets import SIDE
from edge_fer.core import FaceBox, FaceDetector, Image
from edge_fer.preprocess import Preprocessor

Faces: TypeAlias = NDArray[np.uint8]
"""uint8 (n, 48, 48, 1)."""
Corruption: TypeAlias = Callable[[Faces], Faces]

SCENE_HW = (240, 320)
FACE_SIDES_PX = (64, 96, 160)
TILTS_DEG = (0.0, -10.0, 10.0)
SAME_FACE = 0.4
"""IoU from which a box that was found is the face that was drawn."""


def _each(corrupt: Callable[[Image], NDArray[np.generic]]) -> Corruption:
    def corrupted(faces: Faces) -> Faces:
        return np.stack([corrupt(face[..., 0]) for face in faces]).astype(np.uint8)[..., np.newaxis]

    return corrupted


def _blur(sigma_px: float) -> Corruption:
    return _each(lambda face: cv2.GaussianBlur(face, (0, 0), sigma_px))


def _noise(sigma: float) -> Corruption:
    def corrupted(faces: Faces) -> Faces:
        noise = np.random.default_rng(0).normal(0, sigma, faces.shape)
        return np.clip(np.rint(faces + noise), 0, 255).astype(np.uint8)

    return corrupted


def _low_light(gain: float, sigma: float) -> Corruption:
    """A short exposure: less light, and the noise of the sensor weighs more."""
    return lambda faces: _noise(sigma)(np.rint(faces * gain).astype(np.uint8))


def _gamma(exponent: float) -> Corruption:
    table = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return lambda faces: table[faces]


def _jpeg(quality: int) -> Corruption:
    def corrupt(face: Image) -> NDArray[np.generic]:
        _, data = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        assert decoded is not None, "OpenCV reads the JPEG that it wrote"
        return decoded

    return _each(corrupt)


def _covered(first_row: int, last_row: int) -> Corruption:
    def corrupted(faces: Faces) -> Faces:
        faces = faces.copy()
        faces[:, first_row:last_row, 4:-4] = faces.mean(axis=(1, 2, 3), keepdims=True).astype(np.uint8)
        return faces

    return corrupted


def _smaller(side_px: int) -> Corruption:
    def corrupt(face: Image) -> NDArray[np.generic]:
        small = cv2.resize(face, (side_px, side_px), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)

    return _each(corrupt)


@dataclass(frozen=True, eq=False)
class Warp:
    """A corruption that moves the face, and its landmarks with it.

    Attributes:
        matrix: float64 (2, 3), from where a point of the face is to where it comes to be.
    """

    matrix: NDArray[np.float64]

    def __call__(self, faces: Faces) -> Faces:
        """See ``Corruption``."""
        return _each(lambda face: cv2.warpAffine(face, self.matrix, face.shape[::-1], borderMode=cv2.BORDER_REPLICATE))(
            faces
        )


def landmarks_after(corruption: Corruption, points: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Where landmarks (n, 10) are after a corruption; None where there are none."""
    if points is None or not isinstance(corruption, Warp):
        return points
    turn, shift = corruption.matrix[:, :2], corruption.matrix[:, 2]
    # A matrix of OpenCV moves the middles of pixels, which are whole numbers there.
    return ((points.reshape(-1, 5, 2) - 0.5) @ turn.T + shift + 0.5).reshape(-1, 10).astype(np.float32)


def _rotation(middle: float, degrees: float, scale: float) -> NDArray[np.float64]:
    return np.asarray(cv2.getRotationMatrix2D((middle, middle), degrees, scale), np.float64)


def _tilted(degrees: float) -> Warp:
    return Warp(_rotation((SIDE - 1) / 2, degrees, 1.0))


def _framed(right: float, down: float, zoom: float) -> Warp:
    """As a detector frames a face whose box is off, in fractions of its side."""
    frame = _rotation((SIDE - 1) / 2, 0.0, zoom)
    frame[:, 2] -= (right * SIDE, down * SIDE)
    return Warp(frame)


FRAMINGS: dict[str, tuple[Corruption, ...]] = {
    "mirror image": (Warp(np.array([[-1.0, 0.0, SIDE - 1], [0.0, 1.0, 0.0]])),),
    "box off by 10 % of its side": tuple(
        _framed(right, down, 1.0) for right, down in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1))
    ),
    "box larger or smaller by 10 %": (_framed(0, 0, 1 / 1.1), _framed(0, 0, 1 / 0.9)),
}
"""Views of a face that should change no answer, by what they are called."""

CORRUPTIONS: dict[str, Corruption] = {
    "blur, sigma 1 px": _blur(1.0),
    "blur, sigma 2 px": _blur(2.0),
    "noise, sigma 10": _noise(10),
    "noise, sigma 25": _noise(25),
    "low light: a fifth, noise 4": _low_light(0.2, 4),
    "gamma 0.5": _gamma(0.5),
    "gamma 2": _gamma(2.0),
    "JPEG, quality 20": _jpeg(20),
    "eyes covered": _covered(12, 22),
    "mouth covered": _covered(32, 46),
    "24 px wide": _smaller(24),
    "16 px wide": _smaller(16),
    "tilted by 15 degrees": _tilted(15),
    "tilted by 30 degrees": _tilted(30),
}
"""By what is done to 48x48 faces. Those with chance in them have a seed of their own: the same in every run."""


def side_light(faces: Faces, darkest: float = 0.15) -> Faces:
    """Light from one side that falls off by the same factor from column to column, to ``darkest`` at the other edge.

    Every second face is lit from the left.
    """
    falling = (darkest ** (np.arange(faces.shape[2]) / (faces.shape[2] - 1)))[:, np.newaxis]
    lit = faces.copy()
    for first, light in ((0, falling), (1, falling[::-1])):
        lit[first::2] = np.rint(faces[first::2] * light).astype(np.uint8)
    return lit


LIGHTS: dict[str, Corruption] = {
    "low light": CORRUPTIONS["low light: a fifth, noise 4"],
    "side light": side_light,
    "gamma 0.5": CORRUPTIONS["gamma 0.5"],
    "gamma 2": CORRUPTIONS["gamma 2"],
}
"""What light does to faces, for what is done against it before the network."""


@dataclass(frozen=True)
class Scene:
    """A face pasted into an image.

    Attributes:
        gray: uint8 ``SCENE_HW``.
        box: where the face is.
    """

    gray: Image
    box: FaceBox


def scenes(faces: Faces, side_px: int, tilt_deg: float, seed: int) -> Iterator[Scene]:
    """Paste each face somewhere into a textured background, its edge blended in.

    Args:
        faces: uint8 (n, 48, 48, 1).
        side_px: width of the face in the scene.
        tilt_deg: how far it is turned, counter-clockwise.
        seed: of backgrounds and places.
    """
    random = np.random.default_rng(seed)
    height, width = SCENE_HW
    border = max(2, side_px // 12)
    # The crop is whole in the scene: it goes on as its mirror image, and fades into the background out there.
    around = 2 * border
    mask = np.zeros((side_px + 2 * around, side_px + 2 * around), np.float32)
    mask[border:-border, border:-border] = 1
    mask = cv2.GaussianBlur(mask, (0, 0), border / 2).astype(np.float32, copy=False)
    for face in faces[..., 0]:
        texture = random.normal(0, 1, (height // 8, width // 8)).astype(np.float32)
        background = 120 + 35 * cv2.resize(texture, (width, height), interpolation=cv2.INTER_CUBIC)
        background += random.normal(0, 3, (height, width)).astype(np.float32)
        x, y = (int(random.integers(side_px // 8, length - side_px * 9 // 8)) for length in (width, height))
        center = (x + side_px / 2 - 0.5, y + side_px / 2 - 0.5)
        scale = side_px / SIDE
        warp = _rotation((SIDE - 1) / 2, tilt_deg, scale)
        warp[:, 2] += np.array(center) - (SIDE - 1) / 2
        middle = (side_px - 1) / 2 + around
        whole = _rotation(middle, tilt_deg, 1.0)
        whole[:, 2] += np.array(center) - middle
        drawn = cv2.warpAffine(face, warp, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        alpha = cv2.warpAffine(mask, whole, (width, height))
        gray = np.clip(alpha * drawn + (1 - alpha) * background, 0, 255).astype(np.uint8)
        yield Scene(gray, FaceBox(x, y, side_px, side_px))


def found_tensors(detector: FaceDetector, drawn: Iterator[Scene], preprocessor: Preprocessor) -> list[Image | None]:
    """What the model gets to see of each scene through a detector; None where the face was not found.

    Args:
        detector: finds faces.
        drawn: the scenes.
        preprocessor: of the model.
    """
    tensors: list[Image | None] = []
    for scene in drawn:
        detections = detector.detect(scene.gray, 40.0)
        best = max(detections, key=lambda one: one.box.iou(scene.box), default=None)
        found = best is not None and best.box.iou(scene.box) >= SAME_FACE
        tensors.append(preprocessor(scene.gray, best) if best and found else None)
    return tensors
