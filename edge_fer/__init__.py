"""Facial-expression recognition for small boards: a face in, an expression out.

import cv2
from edge_fer import Recognizer

for face in Recognizer.load().recognize(cv2.imread("photo.jpg")).faces:
    print(face.box, face.expression, face.confidence)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge_fer.version import __version__

if TYPE_CHECKING:
    from edge_fer.bundle import load_bundle
    from edge_fer.classifier import TfliteClassifier
    from edge_fer.core import Expression, Face, FaceBox, Frame, FrameResult, Prediction
    from edge_fer.detectors.haar import HaarDetector
    from edge_fer.errors import EdgeFerError
    from edge_fer.recognizer import Recognizer

__all__ = [
    "EdgeFerError",
    "Expression",
    "Face",
    "FaceBox",
    "Frame",
    "FrameResult",
    "HaarDetector",
    "Prediction",
    "Recognizer",
    "TfliteClassifier",
    "__version__",
    "load_bundle",
]

_HOMES = {
    "EdgeFerError": "errors",
    "Expression": "core",
    "Face": "core",
    "FaceBox": "core",
    "Frame": "core",
    "FrameResult": "core",
    "HaarDetector": "detectors.haar",
    "Prediction": "core",
    "Recognizer": "recognizer",
    "TfliteClassifier": "classifier",
    "load_bundle": "bundle",
}


def __getattr__(name: str) -> Any:
    # Names are imported when they are asked for, so that the command line answers before OpenCV is loaded.
    if name in _HOMES:
        return getattr(import_module(f"edge_fer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edge_fer' has no attribute {name!r}")
