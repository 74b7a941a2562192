"""Frame in, faces and their expressions out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.config import CameraSettings, DecisionKind, DetectorKind, DetectorSettings
from edge_fer.core import Detection, Face, FaceDetector, Frame, FrameResult, Image
from edge_fer.detection import open_detector
from edge_fer.detection.schedule import FaceSearch
from edge_fer.errors import DataError
from edge_fer.model.bundle import DEFAULT_MODEL, Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.preprocess import Preprocessor
from edge_fer.preprocess.quality import measure_quality
from edge_fer.sources import open_source
from edge_fer.temporal.doubt import uncertainty
from edge_fer.temporal.smoothing import ExpressionFilter
from edge_fer.threads import OneThread
from edge_fer.tracking import Track, Tracker

SAME_CROP = 3.0
"""Mean difference of two crops, in gray levels, below which the second keeps the prediction of the first."""
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
        numbers: of the tracks; None for a count of its own, from 1.
    """

    def __init__(
        self,
        detector: FaceDetector,
        classifier: TfliteClassifier,
        *,
        min_face_px: int = 40,
        new_face_s: float = 0.3,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._detector = detector
        self._classifier = classifier
        self._min_face_px = min_face_px
        self._new_face_s = new_face_s
        self._numbers = numbers or itertools.count(1)
        self._preprocessor = Preprocessor(classifier.bundle.metadata.preprocess, classifier.size_hw)
        self._search = FaceSearch(detector, min_face_px, new_face_s)
        self._tracker = self._new_tracker()
        self._left: list[Track] = []  # of the recognizer before this
        metadata = classifier.bundle.metadata
        self._doubt = metadata.doubt if classifier.decision == "balanced" else None  # it was fitted to that rule
        labels = metadata.decision.labels if metadata.decision else ()
        self._offsets = dict(zip(labels, self._doubt.offsets, strict=True)) if self._doubt else {}
        self._stream: tuple[str, tuple[int, ...]] | None = None
        self._thread = OneThread("A Recognizer")

    @classmethod
    def load(
        cls,
        model: Path | str = DEFAULT_MODEL,
        *,
        detector: DetectorKind | FaceDetector = "auto",
        min_face_px: int = 40,
        new_face_s: float = 0.3,
        device: Literal["cpu", "edgetpu"] = "cpu",
        threads: int = 1,
        decision: DecisionKind = "balanced",
        tta: bool = False,
    ) -> Recognizer:
        """A recognizer with a model and a detector; by default those in the package.

        Args:
            model: path of a bundle, or the name of a model in the package: "nano".
            detector: "auto", "ssd", "haar" or "lbp", or a detector that is open already: the others need a file of
                yours, as in ``YuNetDetector(Path("face_detection_yunet_2023mar.onnx"))``.
            min_face_px: smallest face to look for, in pixels of the frame.
            new_face_s: within how many seconds of stream time a new face is to be found; more time costs less.
            device: where the model runs; "edgetpu" is a Coral.
            threads: CPU threads of the model.
            decision: "balanced", which supposes that all expressions are alike frequent, or "as-trained", which
                supposes the class mix of the training data.
            tta: average the logits of a face and of its mirror image; the network runs twice.

        Raises:
            EdgeFerError: the model, the detector, the runtime or OpenCV is not as it should be.
        """
        if isinstance(detector, str):
            detector = open_detector(DetectorSettings(kind=detector))
        classifier = TfliteClassifier(Bundle.load(model), threads, device, decision, tta=tta)
        return cls(detector, classifier, min_face_px=min_face_px, new_face_s=new_face_s)

    def for_another_stream(self) -> Recognizer:
        """One that follows a second camera beside this one's, in the same thread.

        It uses the same detector and model, which know nothing of streams, and no track has the number of another.
        """
        return self._sharing(self._numbers)

    def restarted(self) -> Recognizer:
        """One with the same detector and model that has seen nothing yet: its tracks begin at 1."""
        return self._sharing(None)

    def _sharing(self, numbers: Iterator[int] | None) -> Recognizer:
        return Recognizer(
            self._detector,
            self._classifier,
            min_face_px=self._min_face_px,
            new_face_s=self._new_face_s,
            numbers=numbers,
        )

    @property
    def bundle(self) -> Bundle:
        """The model in use."""
        return self._classifier.bundle

    @property
    def decision(self) -> DecisionKind:
        """The rule that answers: "as-trained" too where the model has no other."""
        return self._classifier.decision

    def stream(self, camera: str) -> Iterator[FrameResult]:
        """The results of a camera, file or folder, frame by frame, until it ends.

        Args:
            camera: what ``--camera`` takes: "0", "picamera:0", "rtsp://...", a video, an image, a folder, "demo".

        Raises:
            EdgeFerError: it cannot be opened, or broke on the way.
        """
        with closing(open_source(CameraSettings(source=camera))) as source:
            for frame in source:
                yield self.recognize(frame)

    def recognize(self, frame: Frame | Image) -> FrameResult:
        """Find the faces of a frame and tell what they express.

        Args:
            frame: a ``Frame``, or an image that stands alone: uint8 (height, width) gray or (height, width, 3) BGR,
                as ``cv2.imread`` gives it. An array is never continued: for a stream give ``Frame`` with times, or use
                ``stream``.

        Returns:
            The faces, largest first. In a stream they are followed and their predictions smoothed over time.

        Raises:
            DataError: it is no such image. The next frame is taken as if this one had not been.
            UsageError: another thread calls than the one that called first. A recognizer belongs to one thread.
        """
        self._thread.check()
        frame = _frame_of(frame)
        clock = _Stages()
        ended, self._left = self._left + self._begin(frame), []
        if frame.still:
            found: list[tuple[int | None, Detection]] = [(None, face) for face in self._search.still(frame.gray)]
        else:
            found = self._search.find(frame.gray, frame.time_s, self._tracker.known())
        clock.stop("detect")
        tracks, lost = self._tracker.update(found, frame.time_s)
        ended += lost
        clock.stop("track")
        pace_s = CLASSIFY_S * max(2, len(tracks)) / 2
        faces = [self._face(track, frame, pace_s, clock) for track in tracks]
        if frame.still:
            self._tracker.end_all()  # an image has no after: its faces have nothing to end
        faces.sort(key=lambda face: (-face.box.area, face.track))
        return FrameResult(frame, tuple(faces), tuple(track.face for track in ended if track.face), clock.ms)

    def search_within(self, new_face_s: float) -> None:
        """From now on a new face is to be found within so many seconds of stream time; more time costs less."""
        self._new_face_s = self._search.new_face_s = new_face_s

    def succeed(self, other: Recognizer) -> None:
        """Take the place of another in the middle of its stream.

        The faces of the other end before the next frame, and no track has the number of one of its.
        """
        self._numbers = other._numbers
        self._tracker = self._new_tracker()
        self._left = [*other._left, *other._tracker.end_all()]

    def _new_tracker(self) -> Tracker:
        metadata, classifier = self.bundle.metadata, self._classifier
        return Tracker(
            lambda: ExpressionFilter(metadata.smoothing, classifier.new_aggregate(), metadata.intensity), self._numbers
        )

    def end(self) -> tuple[Face, ...]:
        """End all faces now, since no frame comes; the next one is taken as the first of another stream.

        Returns:
            The faces as they were last seen. The next result has them in its ``ended`` too.
        """
        self._stream = None
        self._left += self._tracker.end_all()
        return tuple(track.face for track in self._left if track.face)

    def _begin(self, frame: Frame) -> list[Track]:
        """Start over where a frame does not continue the one before; returns the tracks that this ends."""
        stream = (frame.stream, frame.gray.shape)
        if stream == self._stream:
            return []
        self._stream = stream
        self._search.restart()
        return self._tracker.end_all()

    def _face(self, track: Track, frame: Frame, pace_s: float, clock: _Stages) -> Face:
        found = track.detection
        where = Detection(track.box, found.score, found.landmarks)  # at the steadied box
        if not 0 <= frame.time_s - track.placed_s < pace_s:
            track.placement, track.placed_s = self._preprocessor.placement(frame.gray, where), frame.time_s
        crop = self._preprocessor.cut(frame.gray, where, track.placement)
        quality = measure_quality(crop, min(track.box.w, track.box.h), found.landmarks, self._preprocessor.spec.margin)
        clock.stop("preprocess")
        if track.raw is None or _is_new(track, crop, frame.time_s, pace_s):
            tensor = self._preprocessor.normalized(crop)
            clock.stop("preprocess")
            (track.raw,) = self._classifier.classify([tensor])
            track.crop, track.classified_s = crop, frame.time_s
        clock.stop("classify")
        track.expression.update(track.raw, frame.time_s)
        expression, prediction = track.expression.expression, track.expression.prediction
        assert expression is not None and prediction is not None
        smoothing = self.bundle.metadata.smoothing
        track.face = Face(
            track=track.number,
            phase="start" if track.face is None else "update",
            box=track.box,
            expression=expression,
            prediction=prediction,
            raw=track.raw,
            stable_ms=track.expression.stable_ms,
            quality=quality,
            uncertain=uncertainty(
                prediction.probabilities[expression],
                quality,
                smoothing,
                self._doubt,
                self._offsets.get(expression, 0.0),
            ),
            crop=track.crop,
            intensity=track.expression.intensity,
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


def _frame_of(frame: Any) -> Frame:
    """A frame as it is, an image as a frame that stands alone.

    Raises:
        DataError: it is neither.
    """
    if isinstance(frame, Frame):
        if frame.gray.ndim != 2 or frame.gray.dtype != np.uint8 or frame.gray.size == 0:
            raise DataError(f"Frame.gray is {_named(frame.gray)}; it must be uint8 (height, width).")
        return frame
    if frame is None:
        raise DataError("None is no image: cv2.imread gives it for a file that it cannot read. Check the path.")
    if isinstance(frame, str | Path):
        raise DataError(f"A path is no image: read it with cv2.imread({str(frame)!r}), or use stream({str(frame)!r}).")
    if not isinstance(frame, np.ndarray):
        raise DataError(f"A {type(frame).__name__} is no image; give a uint8 array, as cv2.imread does, or a Frame.")
    if frame.dtype != np.uint8 or frame.size == 0 or frame.ndim < 2 or frame.shape[2:] not in ((), (3,)):
        raise DataError(f"The image is {_named(frame)}; it must be uint8 (height, width) or (height, width, 3).")
    if frame.ndim == 2:
        return Frame(frame, seq=0, time_s=0.0, stream="", still=True)
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    return Frame(gray, seq=0, time_s=0.0, stream="", still=True, color=lambda: frame)


def _named(array: NDArray[Any]) -> str:
    return f"{array.dtype.name} {array.shape}"


def _is_new(track: Track, crop: Image, time_s: float, pace_s: float) -> bool:
    """Whether a crop has to be classified: cheaper than the network, and the same crop has the same answer."""
    if track.crop is None:
        return True
    changed = cv2.norm(crop, track.crop, cv2.NORM_L1) / crop.size
    recent = 0 <= time_s - track.classified_s < pace_s
    return changed > (OTHER_CROP if recent else SAME_CROP)
