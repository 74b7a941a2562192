"""What a device reports of faces that are cut out already, as data sets have them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Detection, Expression, FaceBox, Image
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.recognizer import Recognizer


class WholeImage:
    """A detector for images that are faces already; implements ``core.FaceDetector``.

    Args:
        margin: how far the model's crop reaches beyond the box (``PreprocessSpec``), so that it is the whole image.
    """

    slow_on_large = False
    enough_px = math.inf

    def __init__(self, margin: float) -> None:
        self._part = 1 / (1 + 2 * margin)

    def detect(
        self, gray: Image, min_px: float, max_px: float = math.inf, *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        """The one face."""
        height, width = gray.shape
        face_h, face_w = height * self._part, width * self._part
        return [Detection(FaceBox((width - face_w) / 2, (height - face_h) / 2, face_w, face_h))]


@dataclass(frozen=True)
class Reports:
    """What a device reports of n images.

    Attributes:
        labels: the expressions that it can report.
        probabilities: float32 (n, labels).
        reported: int64 (n,), indices into ``labels``.
        uncertain: bool (n,), whether it says not to rely on the answer.
    """

    labels: tuple[Expression, ...]
    probabilities: NDArray[np.float32]
    reported: NDArray[np.int64]
    uncertain: NDArray[np.bool_]


def reports_of(classifier: TfliteClassifier, images: Iterable[NDArray[np.uint8]]) -> Reports:
    """Show a ``Recognizer`` images one by one, each of which stands alone and is a face from edge to edge.

    Args:
        classifier: of the bundle that is measured; it decides as on a device.
        images: uint8 (height, width, 1) each; at least one.
    """
    margin = classifier.bundle.metadata.preprocess.margin
    recognizer = Recognizer(WholeImage(margin), classifier, min_face_px=1)
    faces = [recognizer.recognize(image[..., 0]).faces[0] for image in images]
    labels = tuple(faces[0].prediction.probabilities)
    return Reports(
        labels,
        np.array([[face.prediction.probabilities[one] for one in labels] for face in faces], np.float32),
        np.array([labels.index(face.expression) for face in faces], np.int64),
        np.array([face.uncertain is not None for face in faces], np.bool_),
    )
