"""The vocabulary: what flows from a source through the recognizer to the sinks, and who handles it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Picture: TypeAlias = NDArray[np.uint8]
"""uint8 pixels, 0-255: (height, width) when grey, (height, width, 3) in BGR order when coloured."""


class Expression(StrEnum):
    """What a face shows. FER+ has all eight, FER2013 all but contempt."""

    NEUTRAL = "neutral"
    HAPPINESS = "happiness"
    SURPRISE = "surprise"
    SADNESS = "sadness"
    ANGER = "anger"
    DISGUST = "disgust"
    FEAR = "fear"
    CONTEMPT = "contempt"


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A rectangle in pixels of its frame; it may reach over the frame's edge."""

    x: float
    y: float
    w: float
    h: float

    def iou(self, other: FaceBox) -> float:
        """Intersection over union with another box, 0-1."""
        overlap_w = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        overlap_h = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        if overlap_w <= 0 or overlap_h <= 0:
            return 0.0
        overlap = overlap_w * overlap_h
        return overlap / (self.w * self.h + other.w * other.h - overlap)


@dataclass(frozen=True, slots=True)
class TrueFace:
    """What a source knows to be in its frame. The expression is None where it is between two."""

    box: FaceBox
    expression: Expression | None


@dataclass(frozen=True)
class Frame:
    """One picture on its way through the recognizer.

    Attributes:
        gray: uint8 (height, width). All that detector, tracker and classifier read.
        seq: number of the frame in its source, from 0. A live camera leaves gaps where frames were dropped.
        time_s: seconds since the source began: media time of a file, capture time of a camera.
        stream: the camera, clip or picture it came from. Frames with the same stream follow one another in
            time; a change of stream ends all tracks.
        still: a picture that stands alone, with nothing before or after it.
        truth: the faces that the source itself drew, empty where it does not know.
        color: makes the BGR picture, uint8 (height, width, 3). None where there is only grey.
    """

    gray: Picture
    seq: int
    time_s: float
    stream: str
    still: bool = False
    truth: tuple[TrueFace, ...] = ()
    color: Callable[[], Picture] | None = None

    def picture(self) -> Picture:
        """The frame in BGR for people to look at, uint8 (height, width, 3): a new array, free to draw on."""
        if self.color is None:
            return cv2.cvtColor(self.gray, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
        return self.color().copy()


@dataclass(frozen=True)
class Prediction:
    """Probabilities of the expressions of one face; they sum to 1, in the order of the model's labels."""

    probabilities: Mapping[Expression, float]

    @cached_property
    def expression(self) -> Expression:
        """The most probable expression."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def confidence(self) -> float:
        """Probability of ``expression``, 0-1."""
        return self.probabilities[self.expression]


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a face can be seen.

    Attributes:
        size_px: shorter side of the face's box.
        blur: variance of the Laplacian of the face as the model sees it; low is blurred.
        brightness: mean grey of the face, 0-1.
    """

    size_px: int
    blur: float
    brightness: float


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one frame.

    Attributes:
        track: number of the track it belongs to; never used again for another.
        phase: ``start`` in the first frame of the track, ``update`` after.
        box: where it is.
        expression: what it shows: what to display and act on. Changes only when another has been clearly more
            probable for a while.
        prediction: probabilities averaged over the track.
        raw: those of this frame alone.
        stable_ms: for how long ``expression`` has been the same, in milliseconds of stream time.
        quality: how well the face can be seen.
        uncertain: why not to rely on the answer: "small", "dark", "blurred" or "ambiguous"; None if there is no doubt.
    """

    track: int
    phase: Literal["start", "update"]
    box: FaceBox
    expression: Expression
    prediction: Prediction
    raw: Prediction
    stable_ms: float
    quality: Quality
    uncertain: str | None = None

    @property
    def confidence(self) -> float:
        """Probability of ``expression``, 0-1."""
        return self.prediction.probabilities[self.expression]


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What was found in one frame.

    Attributes:
        frame: the frame.
        faces: the faces in it, largest first.
        ended: faces whose track ended before this frame, as they were last seen.
        latency_ms: wall time of each stage: ``detect``, ``preprocess``, ``classify``, ``track``.
    """

    frame: Frame
    faces: tuple[Face, ...]
    ended: tuple[Face, ...]
    latency_ms: Mapping[str, float]


class FrameSource(Protocol):
    """Where frames come from. Iterating ends when there are no more; ``close`` may be called at any time.

    Attributes:
        fps: nominal frames per second of stream time.
        live: the world does not wait: when the reader is slow, old frames are dropped, not queued.
    """

    fps: float
    live: bool

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None: ...


class FaceDetector(Protocol):
    """Finds faces in a grey picture.

    Attributes:
        slow_on_large: the time it takes grows with the picture, so that a search is worth cutting into slices.
        enough_px: width of a face that shows all that the detector uses; larger ones may be reduced to it.
    """

    slow_on_large: bool
    enough_px: float

    def detect(
        self, gray: Picture, min_px: float, max_px: float = math.inf, *, expected: bool = False, rough: bool = False
    ) -> list[FaceBox]:
        """Find the faces of a picture, or of a part of one.

        Args:
            gray: uint8 (height, width); rows need not be contiguous.
            min_px: width of the smallest face to look for.
            max_px: width of the largest.
            expected: a face was just seen here: weaker evidence is enough.
            rough: a second look follows: be quick, rather report too much than too little.

        Returns:
            Largest first, framed tightly as FER2013 frames faces: brows to chin.
        """
        ...


class Classifier(Protocol):
    """Tells the expression of faces."""

    def classify(self, tensors: Sequence[Picture]) -> list[Prediction]:
        """One prediction for each tensor that ``preprocess.face_tensor`` made."""
        ...


class Sink(Protocol):
    """Takes results: a file, a screen, a broker."""

    def write(self, result: FrameResult) -> None: ...

    def close(self) -> None: ...
