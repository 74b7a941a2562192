"""How a face in a frame becomes what a model sees: one ``Preprocessor``, made from the model's metadata.

Training, evaluation, export, benchmarks and the device all use it; nobody else crops, turns or resizes a face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_fer.core import Detection, FaceBox, Image, Landmarks
from edge_fer.preprocess.alignment import (
    AS_FOUND,
    Alignment,
    EyeFinder,
    Placement,
    placement_by_eyes,
    placement_by_points,
)
from edge_fer.preprocess.face_tensor import face_tensor
from edge_fer.preprocess.illumination import Illumination, normalized_illumination

PREPROCESS_VERSION = 1
"""Grows whenever a ``Preprocessor`` gives other pixels than before. A model's metadata has the one it was made with."""


@dataclass(frozen=True)
class PreprocessSpec:
    """How a model wants its faces: a part of its metadata.

    Attributes:
        margin: how far beyond the detector's box the crop reaches, as a fraction of the box's sides.
        alignment: how a face is turned and placed before it is cut out.
        illumination: what is done to the light of a crop, in this order.
        version: ``PREPROCESS_VERSION`` at export.
    """

    margin: float = 0.0
    alignment: Alignment = "none"
    illumination: tuple[Illumination, ...] = ()
    version: int = PREPROCESS_VERSION


class Preprocessor:
    """Cuts faces out of frames for one model.

    Args:
        spec: from the model's metadata.
        size_hw: height and width of the model's input.

    Raises:
        UnavailableError: faces are to be turned upright, and this OpenCV has no cascade for eyes.
    """

    def __init__(self, spec: PreprocessSpec, size_hw: tuple[int, int]) -> None:
        self.spec = spec
        self.size_hw = size_hw
        self._eyes = EyeFinder() if spec.alignment == "eyes" else None

    def __call__(self, gray: Image, detection: Detection, placement: Placement | None = None) -> Image:
        """The tensor of a face: ``cut`` and ``normalized``.

        Args:
            gray: uint8 (height, width).
            detection: the face in it.
            placement: of the face in its box, where it is known already; None has it measured.

        Returns:
            uint8 (*size_hw, 1), 0-255.
        """
        return self.normalized(self.cut(gray, detection, placement))

    def cut(self, gray: Image, detection: Detection, placement: Placement | None = None) -> Image:
        """A face in its own light, by which its quality is measured; see ``__call__``."""
        if placement is None:
            placement = self.placement(gray, detection)
        return face_tensor(gray, placement.of(detection.box), self.size_hw, self.spec.margin, placement.tilt_deg)

    def normalized(self, cut: Image) -> Image:
        """What the model sees of a face that was cut out: uint8 (height, width, 1) -> the same."""
        return normalized_illumination(cut[..., 0], self.spec.illumination)[..., np.newaxis]

    def placement(self, gray: Image, detection: Detection) -> Placement:
        """How a face lies in its box, as far as the model wants to know.

        By the detector's landmarks where it has any. Without them, a face that is to be turned upright has its eyes
        searched, and one that is to be brought to canonical points stays as it was found.
        """
        landmarks = detection.landmarks
        if self._eyes is None:
            if self.spec.alignment == "none" or landmarks is None:
                return AS_FOUND
            return placement_by_points(detection.box, landmarks, self.spec.alignment)
        if landmarks is not None:
            return placement_by_eyes(landmarks)
        return Placement(tilt_deg=self._eyes.tilt_deg(gray, detection.box))

    def framed(self, image: Image, landmarks: Landmarks | None = None) -> Image:
        """``cut`` from an image that is a crop already, as data sets have them: as if a detector had framed it so.

        Args:
            image: uint8 (height, width), which reaches beyond the face by the margin.
            landmarks: that the detector would have marked, in pixels of the image.

        Returns:
            uint8 (*size_hw, 1), 0-255.
        """
        height, width = image.shape
        face_h, face_w = height / (1 + 2 * self.spec.margin), width / (1 + 2 * self.spec.margin)
        box = FaceBox((width - face_w) / 2, (height - face_h) / 2, face_w, face_h)
        return self.cut(image, Detection(box, None, landmarks))

    def crop(self, image: Image, landmarks: Landmarks | None = None) -> Image:
        """The tensor of an image that is a crop already; see ``framed``."""
        return self.normalized(self.framed(image, landmarks))

    def crops(self, images: Image, landmarks: Sequence[Landmarks | None] | None = None) -> Image:
        """``crop`` of many: uint8 (n, height, width, 1), with n landmarks or none -> uint8 (n, *size_hw, 1)."""
        marks = [None] * len(images) if landmarks is None else landmarks
        return np.stack([self.crop(image[..., 0], one) for image, one in zip(images, marks, strict=True)])
