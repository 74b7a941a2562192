"""Frame in, faces and their expressions out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import DEFAULT_MODEL, Bundle, load_bundle
from edge_fer.classifier import TfliteClassifier
from edge_fer.core import Face, FaceDetector, Frame, FrameResult, Picture, Quality
from edge_fer.detectors.haar import HaarDetector
from edge_fer.errors import DataError
from edge_fer.eyes import EyeTilt
from edge_fer.preprocess import face_tensor
from edge_fer.search import FaceSearch
from edge_fer.temporal import ExpressionFilter, doubt
from edge_fer.tracking import Track, Tracker

SAME_CROP = 3.0
"""Mean difference of two crops, in grey levels, below which the second keeps the prediction of the first."""
OTHER_CROP = 8.0
"""One from which the second is classified at once: so much changes with an expression that is cut to another."""
CLASSIFY_S = 0.06
"""Between the two, a face is classified this often: the answer is a mean over more time than that. Each face beyond the
second adds half of it, so that a group costs the network hardly more than a couple."""


class Recognizer:
    """Finds, follows and classifies the faces of one stream of frames after another.

    Args:
        detector: finds faces.
        classifier: tells their expressions; its bundle says how faces are cut out and answers smoothed.
        min_face_px: smallest face to look for, in pixels of the frame.
        new_face_s: within how many seconds of stream time a new face is to be found; more time costs less.
    """

    def __init__(
        self, detector: FaceDetector, classifier: TfliteClassifier, *, min_face_px: int = 40, new_face_s: float = 0.5
    ) -> None:
        self._classifier = classifier
        self._tilt = EyeTilt() if classifier.bundle.card.align == "eyes" else None
        self._search = FaceSearch(detector, min_face_px, new_face_s)
        self._tracker = Tracker(lambda: ExpressionFilter(self.bundle.card.smoothing))
        self._stream: tuple[str, tuple[int, ...]] | None = None

    @classmethod
    def load(cls, model: Path | str = DEFAULT_MODEL, *, device: str = "cpu", threads: int = 1) -> Recognizer:
        """A recognizer with the Haar detector and a model; by default the one in the package.

        Raises:
            EdgeFerError: the model, the runtime or OpenCV is not as it should be.
        """
        return cls(HaarDetector(), TfliteClassifier(load_bundle(Path(model)), threads, device))

    @property
    def bundle(self) -> Bundle:
        """The model in use."""
        return self._classifier.bundle

    def recognize(self, frame: Frame | Picture) -> FrameResult:
        """Find the faces of a frame and tell what they express.

        Args:
            frame: a ``Frame``, or a picture that stands alone: uint8 (height, width) grey or (height, width, 3) BGR,
                as ``cv2.imread`` gives it.

        Returns:
            The faces, largest first. In a stream they are followed and their predictions smoothed over time.

        Raises:
            DataError: it is no such picture. The next frame is taken as if this one had not been.
        """
        if isinstance(frame, np.ndarray):
            frame = _still_frame(frame)
        elif frame.gray.ndim != 2 or frame.gray.dtype != np.uint8 or frame.gray.size == 0:
            raise DataError(f"Frame.gray is {_named(frame.gray)}; it must be uint8 (height, width).")
        clock = _Stages()
        ended = self._begin(frame)
        if frame.still:
            boxes = self._search.still(frame.gray)
        else:
            boxes = self._search.find(frame.gray, frame.time_s, self._tracker.known())
        clock.stop("detect")
        tracks, lost = self._tracker.update(boxes, frame.time_s)
        ended += lost
        clock.stop("track")
        pace_s = CLASSIFY_S * max(2, len(tracks)) / 2
        faces = [self._face(track, frame, pace_s, clock) for track in tracks]
        if frame.still:
            self._tracker.end_all()  # a picture has no after: its faces have nothing to end
        faces.sort(key=lambda face: (-face.box.w * face.box.h, face.track))
        return FrameResult(frame, tuple(faces), tuple(track.face for track in ended if track.face), clock.ms)

    def _begin(self, frame: Frame) -> list[Track]:
        """Start over where a frame does not continue the one before; returns the tracks that this ends."""
        stream = (frame.stream, frame.gray.shape)
        if stream == self._stream:
            return []
        self._stream = stream
        self._search.restart()
        return self._tracker.end_all()

    def _face(self, track: Track, frame: Frame, pace_s: float, clock: _Stages) -> Face:
        card = self.bundle.card
        if self._tilt and not 0 <= frame.time_s - track.tilted_s < pace_s:
            track.tilt_deg, track.tilted_s = self._tilt(frame.gray, track.box), frame.time_s
        tensor = face_tensor(frame.gray, track.box, self._classifier.size_hw, card.margin, track.tilt_deg)
        quality = _quality(tensor, min(track.box.w, track.box.h))
        clock.stop("preprocess")
        if track.raw is None or _news(track, tensor, frame.time_s, pace_s):
            (track.raw,) = self._classifier.classify([tensor])
            track.tensor, track.classified_s = tensor, frame.time_s
        clock.stop("classify")
        track.expression.update(track.raw, frame.time_s)
        expression, prediction = track.expression.expression, track.expression.prediction
        assert expression is not None and prediction is not None
        track.face = Face(
            track=track.number,
            phase="start" if track.face is None else "update",
            box=track.box,
            expression=expression,
            prediction=prediction,
            raw=track.raw,
            stable_ms=track.expression.stable_ms,
            quality=quality,
            uncertain=doubt(prediction.probabilities[expression], quality, card.smoothing),
        )
        clock.stop("track")
        return track.face


class _Stages:
    """Wall time by stage, in milliseconds."""

    def __init__(self) -> None:
        self.ms = {"detect": 0.0, "preprocess": 0.0, "classify": 0.0, "track": 0.0}
        self._since = time.perf_counter()

    def stop(self, stage: str) -> None:
        """What has passed since the last stop belongs to this stage."""
        now = time.perf_counter()
        self.ms[stage] += (now - self._since) * 1000
        self._since = now


def _still_frame(picture: Picture) -> Frame:
    if picture.dtype != np.uint8 or picture.size == 0 or picture.ndim < 2 or picture.shape[2:] not in ((), (3,)):
        raise DataError(f"The picture is {_named(picture)}; it must be uint8 (height, width) or (height, width, 3).")
    if picture.ndim == 2:
        return Frame(picture, seq=0, time_s=0.0, stream="", still=True)
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    return Frame(gray, seq=0, time_s=0.0, stream="", still=True, color=lambda: picture)


def _named(array: NDArray[Any]) -> str:
    return f"{array.dtype.name} {array.shape}"


def _news(track: Track, tensor: Picture, time_s: float, pace_s: float) -> bool:
    """Whether a crop has to be classified: cheaper than the network, and the same picture has the same answer."""
    if track.tensor is None:
        return True
    changed = cv2.norm(tensor, track.tensor, cv2.NORM_L1) / tensor.size
    recent = 0 <= time_s - track.classified_s < pace_s
    return changed > (OTHER_CROP if recent else SAME_CROP)


def _quality(tensor: Picture, size_px: float) -> Quality:
    # In 16 bits, where it is exact: the Laplacian of 8 bits is within +-1020. OpenCV's mean is quicker than NumPy's.
    _, deviation = cv2.meanStdDev(cv2.Laplacian(tensor, cv2.CV_16S))
    return Quality(round(size_px), float(deviation[0, 0]) ** 2, cv2.mean(tensor)[0] / 255)
