"""A scene that needs no camera: two average faces that move and change their expression.

The faces are means of many images (``python -m training.average_faces`` makes them), so they show expressions and
nobody. The source knows what it drew, so every frame carries its truth.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Expression, FaceBox, Frame, Image, TrueFace
from edge_fer.errors import DataError

EXPRESSIONS = (
    Expression.NEUTRAL,
    Expression.HAPPINESS,
    Expression.SURPRISE,
    Expression.SADNESS,
    Expression.ANGER,
    Expression.DISGUST,
    Expression.FEAR,
)
"""The faces of ``data/average_faces.png`` from left to right: all that FER2013 has."""

_STRIP = Path(__file__).parent.parent / "data" / "average_faces.png"
_SIDE_PX = 48
_SCENE_WH = (640, 480)
_HOLD_FRAMES, _MORPH_FRAMES = 25, 10
_FRAMES = len(EXPRESSIONS) * (_HOLD_FRAMES + _MORPH_FRAMES)

# A portrait is painted once with a face of this width, and scaled into each frame.
_FACE_PX = 192
_PORTRAIT_WH = (round(2.3 * _FACE_PX), round(3.1 * _FACE_PX))
_FACE_LEFT, _FACE_TOP = (_PORTRAIT_WH[0] - _FACE_PX) // 2, round(0.3 * _FACE_PX)
_FACE_ROWS, _FACE_COLUMNS = slice(_FACE_TOP, _FACE_TOP + _FACE_PX), slice(_FACE_LEFT, _FACE_LEFT + _FACE_PX)


def average_faces() -> list[Image]:
    """One face for each of ``EXPRESSIONS``, uint8 (48, 48).

    Raises:
        DataError: their file is missing or damaged.
    """
    strip = cv2.imread(str(_STRIP), cv2.IMREAD_GRAYSCALE)
    if strip is None or strip.shape != (_SIDE_PX, _SIDE_PX * len(EXPRESSIONS)):
        raise DataError(f"{_STRIP} is missing or damaged: install edge-fer again.")
    return np.hsplit(strip, len(EXPRESSIONS))


@dataclass(frozen=True)
class _Person:
    """Looks and part of one face. Colors are (Y, Cr, Cb), 0-255; hair sizes are in face widths."""

    hair: tuple[int, int, int]
    skin: tuple[int, int, int]
    clothes: tuple[int, int, int]
    hair_width: float
    hair_length: float
    order: tuple[int, ...]  # indices into EXPRESSIONS
    delay: int  # frames by which the changes come earlier, so that the two do not change together
    x_px: float
    phase: float  # radians


_PEOPLE = (
    _Person((44, 134, 122), (150, 148, 112), (84, 116, 142), 0.44, 0.0, (0, 1, 2, 3, 4, 5, 6), 0, 188, 0.0),
    _Person((58, 142, 116), (150, 146, 114), (120, 146, 112), 0.52, 0.55, (1, 6, 0, 4, 2, 3, 5), 17, 452, math.pi),
)


@dataclass(frozen=True)
class _Pose:
    """Where a face is in one frame: center, width and tilt."""

    x_px: float
    y_px: float
    size_px: float
    tilt_deg: float


@dataclass(frozen=True)
class _Portrait:
    """A person from hair to chest, still without a face.

    Attributes:
        luma: uint8 (height, width).
        chroma: uint8 (height, width, 2), Cr and Cb.
        alpha: float32 (height, width), 1 where the person hides the backdrop.
        face_alpha: float32 (_FACE_PX, _FACE_PX), 1 where the face hides the bare skin.
    """

    luma: Image
    chroma: Image
    alpha: NDArray[np.float32]
    face_alpha: NDArray[np.float32]


class DemoSource:
    """Two average faces on a quiet backdrop, 640x480, 16 s, the same in every run; implements ``core.FrameSource``.

    Each holds an expression for 1.7 s and turns into the next in 0.7 s; each shows all seven. ``Frame.truth`` has the
    boxes as a Haar detector frames them, and the expressions while they are held. The color is made when asked for.

    Args:
        loops: begin again at the end, without a seam, and keep to the pace of a camera: for a burn-in.

    Raises:
        DataError: the file with the faces is missing or damaged.
    """

    fps = 15.0

    def __init__(self, loops: bool = False) -> None:
        self.live = loops
        self._faces = [face.astype(np.float32) for face in average_faces()]
        self._backdrop_luma, self._backdrop_chroma = _backdrop()
        self._portraits = [_portrait(person) for person in _PEOPLE]
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        since_s = time.monotonic()
        for seq in itertools.count() if self.live else range(_FRAMES):
            if self.live:
                time.sleep(max(0.0, since_s + seq / self.fps - time.monotonic()))
            if self._closed:
                return
            poses = [_pose(person, seq) for person in _PEOPLE]
            truth = []
            faces = []
            for person, pose in zip(_PEOPLE, poses, strict=True):
                now, then, blend = _part(person, seq)
                faces.append(self._faces[now] * np.float32(1 - blend) + self._faces[then] * np.float32(blend))
                half_px = pose.size_px / 2
                box = FaceBox(pose.x_px - half_px, pose.y_px - half_px, pose.size_px, pose.size_px)
                truth.append(TrueFace(box, None if blend else EXPRESSIONS[now]))
            gray = self._backdrop_luma.copy()
            for index in _far_to_near(poses):
                portrait = self._portraits[index]
                _paste(_with_face(portrait, faces[index]), portrait.alpha, poses[index], gray)
            yield Frame(gray, seq, seq / self.fps, "demo", truth=tuple(truth), color=partial(self._color, gray, poses))

    def close(self) -> None:
        """End the iteration."""
        self._closed = True

    def _color(self, gray: Image, poses: Sequence[_Pose]) -> Image:
        chroma = self._backdrop_chroma.copy()
        for index in _far_to_near(poses):
            _paste(self._portraits[index].chroma, self._portraits[index].alpha, poses[index], chroma)
        return cv2.cvtColor(np.dstack([gray, chroma]), cv2.COLOR_YCrCb2BGR).astype(np.uint8, copy=False)


def _pose(person: _Person, seq: int) -> _Pose:
    # Whole turns of a circle: the scene ends as it begins. The phases of the two are opposite: one comes near while
    # the other goes, so that they have room side by side.
    turn = 2 * math.pi * seq / _FRAMES
    return _Pose(
        person.x_px + 30 * math.sin(2 * turn + person.phase),
        222 + 18 * math.sin(3 * turn + person.phase),
        180 + 60 * math.sin(turn + person.phase),
        3 * math.sin(4 * turn + person.phase),
    )


def _part(person: _Person, seq: int) -> tuple[int, int, float]:
    """Index of the face that is shown, of the one that it turns into, and how far it has turned: 0 while held."""
    step, frame = divmod(seq + person.delay, _HOLD_FRAMES + _MORPH_FRAMES)
    now, then = (person.order[index % len(person.order)] for index in (step, step + 1))
    return now, then, max(0, frame - _HOLD_FRAMES + 1) / (_MORPH_FRAMES + 1)


def _far_to_near(poses: Sequence[_Pose]) -> list[int]:
    return sorted(range(len(poses)), key=lambda index: poses[index].size_px)


def _with_face(portrait: _Portrait, face: NDArray[np.float32]) -> Image:
    large = cv2.resize(face, (_FACE_PX, _FACE_PX), interpolation=cv2.INTER_CUBIC)
    luma = portrait.luma.copy()
    spot = luma[_FACE_ROWS, _FACE_COLUMNS]
    spot[:] = np.clip(spot + (large - spot) * portrait.face_alpha, 0, 255)
    return luma


def _paste(image: Image, alpha: NDArray[np.float32], pose: _Pose, canvas: Image) -> None:
    """Blend a portrait into the canvas, which has as many channels; touch only where the portrait can reach."""
    scale = pose.size_px / _FACE_PX
    # OpenCV counts from the center of the first pixel, boxes from its edge: hence the halves.
    center_x, center_y = _FACE_LEFT + _FACE_PX / 2 - 0.5, _FACE_TOP + _FACE_PX / 2 - 0.5
    reach_px = 0.55 * scale * _PORTRAIT_WH[0]
    left, right = max(0, math.floor(pose.x_px - reach_px)), min(_SCENE_WH[0], math.ceil(pose.x_px + reach_px))
    top = max(0, math.floor(pose.y_px - 0.9 * pose.size_px))
    matrix = cv2.getRotationMatrix2D((center_x, center_y), pose.tilt_deg, scale)
    matrix[0, 2] += pose.x_px - 0.5 - center_x - left
    matrix[1, 2] += pose.y_px - 0.5 - center_y - top
    region = canvas[top:, left:right]
    size_wh = (region.shape[1], region.shape[0])
    front = cv2.warpAffine(image, matrix, size_wh)
    opacity = cv2.warpAffine(alpha, matrix, size_wh)
    region[:] = cv2.blendLinear(front, region, opacity, 1 - opacity)


def _backdrop() -> tuple[Image, Image]:
    """A plastered wall in soft light: luma uint8 (480, 640), chroma uint8 (480, 640, 2)."""
    width, height = _SCENE_WH
    x = np.linspace(-1, 1, width)
    y = np.linspace(-1, 1, height)[:, np.newaxis]
    grain = np.random.default_rng(seed=7).integers(-128, 128, (height, width)).astype(np.float64)
    plaster = 0.8 * cv2.GaussianBlur(grain, (0, 0), 5) + 0.12 * cv2.GaussianBlur(grain, (0, 0), 1)
    luma = 104 + 34 * np.exp(-((x + 0.25) ** 2) - (y + 0.5) ** 2) - 22 * y + plaster
    chroma = np.full((height, width, 2), (122, 130), np.uint8)
    return np.clip(np.rint(luma), 0, 255).astype(np.uint8), chroma


def _portrait(person: _Person) -> _Portrait:
    width, height = _PORTRAIT_WH
    # The unit is the width of the face, the origin its center, y points down.
    x = (np.arange(width) + 0.5 - width / 2) / _FACE_PX
    y = ((np.arange(height) + 0.5 - _FACE_TOP) / _FACE_PX - 0.5)[:, np.newaxis]

    def oval(center_y: float, radius_x: float, radius_y: float, feather: float, power: float) -> NDArray[np.float32]:
        """1 inside an ellipse (power 2) or a squarer shape (above 2), 0 outside, a soft edge between."""
        radius = (np.abs(x / radius_x) ** power + np.abs((y - center_y) / radius_y) ** power) ** (1 / power)
        edge = np.clip(0.5 + (1 - radius) * min(radius_x, radius_y) / feather, 0, 1)
        return (edge * edge * (3 - 2 * edge)).astype(np.float32)

    hair = oval(-0.16 + person.hair_length / 2, person.hair_width, 0.54 + person.hair_length / 2, 0.05, 2.3)
    neck = oval(0.5, 0.2, 0.5, 0.06, 3)
    collar = oval(0.5, 0.27, 0.34, 0.04, 2)
    clothes = oval(2.1, 0.95, 1.42, 0.03, 2.7) * (1 - collar)
    head = oval(0.02, 0.38, 0.53, 0.09, 2.2)
    in_shadow = (0.62 * person.skin[0], *person.skin[1:])
    image = np.zeros((height, width, 3), np.float32)
    alpha = np.zeros((height, width), np.float32)
    for mask, color in ((hair, person.hair), (neck, in_shadow), (clothes, person.clothes), (head, person.skin)):
        # What nothing has covered yet takes the color whole: soft edges would let the black below shine through.
        cover = np.where(alpha > 0, mask, 1)[..., np.newaxis]
        image += (np.array(color, np.float32) - image) * cover
        alpha = np.maximum(alpha, mask)
    image[..., 0] *= 1 - 0.1 * x - 0.08 * y  # light from the upper left
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    face_alpha = oval(0.0, 0.4, 0.46, 0.12, 2.3)[_FACE_ROWS, _FACE_COLUMNS]
    return _Portrait(pixels[..., 0].copy(), pixels[..., 1:].copy(), alpha, face_alpha)
