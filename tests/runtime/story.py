"""A few results, as the recognizer gives them, for tests of what takes them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from edge_fer.core import Expression, Face, FaceBox, Frame, FrameResult, Prediction, Quality, TrueFace
from edge_fer.events import Run


def predict(expression: Expression, confidence: float = 0.79) -> Prediction:
    """As the seven-class model does: it knows no contempt."""
    labels = [label for label in Expression if label != Expression.CONTEMPT]
    rest = (1 - confidence) / (len(labels) - 1)
    return Prediction({label: confidence if label == expression else rest for label in labels})


def a_face(track: int = 1, expression: Expression = Expression.HAPPINESS, phase: str = "update", x: float = 30) -> Face:
    prediction = predict(expression)
    box = FaceBox(x, 25.0, 60.0, 60.0)
    return Face(track, phase, box, expression, prediction, prediction, 400.0, Quality(60, 41.0, 0.5))  # type: ignore[arg-type]


def a_result(
    seq: int = 0,
    *faces: Face,
    time_s: float | None = None,
    stream: str = "clip",
    still: bool = False,
    ended: tuple[Face, ...] = (),
    truth: tuple[TrueFace, ...] = (),
    gray: int = 128,
    size_wh: tuple[int, int] = (160, 120),
) -> FrameResult:
    picture = np.full((size_wh[1], size_wh[0]), gray, np.uint8)
    frame = Frame(picture, seq, seq / 10 if time_s is None else time_s, stream, still, truth)
    return FrameResult(frame, faces, ended, {"detect": 20.0 + seq, "classify": 0.5})


def a_run(live: bool = False) -> Run:
    return Run("pi", "compact", "ab" * 32, fps=10.0, live=live)


def a_story() -> list[FrameResult]:
    """Nobody, a face, two faces, one of them gone."""
    return [
        a_result(0),
        a_result(1, a_face(1, phase="start")),
        a_result(2, a_face(1), a_face(2, Expression.FEAR, "start", x=95)),
        a_result(3, a_face(2, Expression.FEAR), ended=(a_face(1),)),
    ]


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """The kernel refuses to write files beyond it, in the middle of a write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def frames_of(path: str) -> list[np.ndarray]:
    clip, frames = cv2.VideoCapture(path), []
    while True:
        ok, frame = clip.read()
        if not ok:
            return frames
        frames.append(frame)
