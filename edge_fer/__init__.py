"""Facial-expression recognition for small boards: a face in, an expression out.

from edge_fer import Recognizer

for result in Recognizer.load("nano").stream("0"):  # any --camera
    for face in result.faces:
        print(face.box, face.expression, face.confidence)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge_fer.version import __version__

if TYPE_CHECKING:
    from edge_fer.core import Detection, Expression, Face, FaceBox, Frame, FrameResult, Landmarks, Prediction
    from edge_fer.detection.cascade import CascadeDetector
    from edge_fer.draw import annotate
    from edge_fer.errors import EdgeFerError
    from edge_fer.events import Run, to_events
    from edge_fer.model.bundle import Bundle, load_bundle
    from edge_fer.model.classifier import TfliteClassifier
    from edge_fer.recognizer import Recognizer
    from edge_fer.sinks import open_sink
    from edge_fer.sources import open_source

__all__ = [
    "Bundle",
    "CascadeDetector",
    "Detection",
    "EdgeFerError",
    "Expression",
    "Face",
    "FaceBox",
    "Frame",
    "FrameResult",
    "Landmarks",
    "Prediction",
    "Recognizer",
    "Run",
    "TfliteClassifier",
    "__version__",
    "annotate",
    "load_bundle",
    "open_sink",
    "open_source",
    "to_events",
]

_HOMES = {
    "Bundle": "model.bundle",
    "CascadeDetector": "detection.cascade",
    "Detection": "core",
    "EdgeFerError": "errors",
    "Expression": "core",
    "Face": "core",
    "FaceBox": "core",
    "Frame": "core",
    "FrameResult": "core",
    "Landmarks": "core",
    "Prediction": "core",
    "Recognizer": "recognizer",
    "Run": "events",
    "TfliteClassifier": "model.classifier",
    "annotate": "draw",
    "load_bundle": "model.bundle",
    "open_sink": "sinks",
    "open_source": "sources",
    "to_events": "events",
}


def __getattr__(name: str) -> Any:
    # Names are imported when they are asked for, so that the command line answers before OpenCV is loaded.
    if name in _HOMES:
        return getattr(import_module(f"edge_fer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edge_fer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
