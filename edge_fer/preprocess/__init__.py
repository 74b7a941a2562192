"""How a face in a frame becomes what a model sees: one ``Preprocessor``, made from the model's metadata.

Training, evaluation, export, benchmarks and the device all use it; nobody else crops, turns or resizes a face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_fer.core import Detection, FaceBox, Image
from edge_fer.preprocess.alignment import Alignment, EyeFinder
from edge_fer.preprocess.face_tensor import face_tensor

PREPROCESS_VERSION = 1
"""Grows whenever a ``Preprocessor`` gives other pixels than before. A model's metadata has the one it was made with."""


@dataclass(frozen=True)
class PreprocessSpec:
    """How a model wants its faces: a part of its metadata.

    Attributes:
        margin: how far beyond the detector's box the crop reaches, as a fraction of the box's sides.
        alignment: how a face is turned before it is cut out.
        version: ``PREPROCESS_VERSION`` at export.
    """

    margin: float = 0.0
    alignment: Alignment = "none"
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

    def __call__(self, gray: Image, detection: Detection, tilt_deg: float | None = None) -> Image:
        """The tensor of a face.

        Args:
            gray: uint8 (height, width).
            detection: the face in it.
            tilt_deg: of the face, where it is known already; None has it measured where the model wants it.

        Returns:
            uint8 (*size_hw, 1), 0-255.
        """
        if tilt_deg is None:
            tilt_deg = self.tilt_deg(gray, detection)
        return face_tensor(gray, detection.box, self.size_hw, self.spec.margin, tilt_deg)

    def tilt_deg(self, gray: Image, detection: Detection) -> float:
        """Degrees by which a face has to be turned back, clockwise as seen; 0 where the model does not want it.

        By the detector's landmarks where it has any, else by a search for the eyes.
        """
        if self._eyes is None:
            return 0.0
        if detection.landmarks is not None:
            left, right = sorted((detection.landmarks.right_eye, detection.landmarks.left_eye))
            return math.degrees(math.atan2(right[1] - left[1], right[0] - left[0]))
        return self._eyes.tilt_deg(gray, detection.box)

    def crop(self, image: Image) -> Image:
        """The tensor of an image that is a crop already, as data sets have them: as if a detector had framed it so.

        Args:
            image: uint8 (height, width), which reaches beyond the face by the margin.

        Returns:
            uint8 (*size_hw, 1), 0-255.
        """
        height, width = image.shape
        face_h, face_w = height / (1 + 2 * self.spec.margin), width / (1 + 2 * self.spec.margin)
        return self(image, Detection(FaceBox((width - face_w) / 2, (height - face_h) / 2, face_w, face_h)))

    def crops(self, images: Image) -> Image:
        """``crop`` of many: uint8 (n, height, width, 1) -> uint8 (n, *size_hw, 1)."""
        return np.stack([self.crop(image[..., 0]) for image in images])
