"""The vocabulary: what flows from a source through the recognizer to the sinks, and who handles it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Literal, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""uint8 pixels, 0-255: (height, width) when gray, (height, width, 3) in BGR order when colored."""

Point: TypeAlias = tuple[float, float]
"""x and y in pixels."""


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
        return overlap / (self.area + other.area - overlap)

    @property
    def area(self) -> float:
        """Square pixels."""
        return self.w * self.h

    @property
    def center(self) -> Point:
        """The point in its middle."""
        return self.x + self.w / 2, self.y + self.h / 2

    def scaled(self, factor: float, left: float = 0.0, top: float = 0.0) -> FaceBox:
        """The box in another scale, after its origin was moved to (-left, -top): from a part of an image to the whole.

        Args:
            factor: pixels of the new scale in one of this.
            left: of the part, in pixels of this scale.
            top: likewise.
        """
        return FaceBox((self.x + left) * factor, (self.y + top) * factor, self.w * factor, self.h * factor)

    def clipped(self, shape_hw: tuple[int, ...]) -> FaceBox:
        """The part of it that lies in an image of that height and width; empty where none does."""
        height, width = shape_hw[:2]
        left, right = (min(max(x, 0.0), width) for x in (self.x, self.x + self.w))
        top, bottom = (min(max(y, 0.0), height) for y in (self.y, self.y + self.h))
        return FaceBox(left, top, right - left, bottom - top)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Points of a face in pixels of its frame; right and left are the person's own.

    As of ``FaceBox``, (0, 0) is the corner of the first pixel, and (0.5, 0.5) its middle.

    Attributes:
        right_eye: its middle.
        left_eye: its middle.
        nose: its tip.
        mouth: its right and left corner, or its middle alone.
    """

    right_eye: Point
    left_eye: Point
    nose: Point
    mouth: tuple[Point, ...]

    def scaled(self, factor: float, left: float = 0.0, top: float = 0.0) -> Landmarks:
        """See ``FaceBox.scaled``."""

        def moved(point: Point) -> Point:
            return (point[0] + left) * factor, (point[1] + top) * factor

        return Landmarks(
            moved(self.right_eye), moved(self.left_eye), moved(self.nose), tuple(moved(point) for point in self.mouth)
        )


@dataclass(frozen=True, slots=True)
class Detection:
    """A face that a detector found.

    Attributes:
        box: framed tightly as FER2013 frames faces: brows to chin.
        score: of the detector, 0-1; None where it gives none, as cascades do.
        landmarks: None where the detector gives none.
    """

    box: FaceBox
    score: float | None = None
    landmarks: Landmarks | None = None

    def scaled(self, factor: float, left: float = 0.0, top: float = 0.0) -> Detection:
        """See ``FaceBox.scaled``."""
        landmarks = self.landmarks and self.landmarks.scaled(factor, left, top)
        return Detection(self.box.scaled(factor, left, top), self.score, landmarks)


@dataclass(frozen=True, slots=True)
class TrueFace:
    """What a source knows to be in its frame. The expression is None where it is between two."""

    box: FaceBox
    expression: Expression | None


@dataclass(frozen=True)
class Frame:
    """One image on its way through the recognizer.

    Attributes:
        gray: uint8 (height, width). All that detector, tracker and classifier read.
        seq: number of the frame in its source, from 0. A live camera leaves gaps where frames were dropped.
        time_s: seconds since the source began: media time of a file, capture time of a camera.
        stream: the camera, clip or image file it came from. Frames with the same stream follow one another in
            time; a change of stream ends all tracks.
        still: an image that stands alone, with nothing before or after it.
        truth: the faces that the source itself drew, empty where it does not know.
        color: makes the BGR image, uint8 (height, width, 3). None where there is only gray.
        captured_s: when a camera took it, on the clock of ``time.monotonic``; where the camera does not tell, when it
            arrived. None for what is not live.
    """

    gray: Image
    seq: int
    time_s: float
    stream: str
    still: bool = False
    truth: tuple[TrueFace, ...] = ()
    color: Callable[[], Image] | None = None
    captured_s: float | None = None

    def picture(self) -> Image:
        """The frame in BGR for people to look at, uint8 (height, width, 3): a new array, free to draw on."""
        if self.color is None:
            return cv2.cvtColor(self.gray, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
        return self.color().copy()


@dataclass(frozen=True)
class Prediction:
    """Probabilities of the expressions of one face; they sum to 1, in the order of the model's labels.

    Attributes:
        probabilities: by expression.
        embedding: float32 (n,), what the model's last layer reads of the face, where its bundle has a use for it.
    """

    probabilities: Mapping[Expression, float]
    embedding: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

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
        brightness: mean gray of the face, 0-1.
        noise: sigma of the noise, as a fraction of the sigma of the face's gray levels.
        eyes: contrast of the band in which the eyes are, as a fraction of the face's; low where they are covered.
        mouth: likewise.
        turn: how far the tip of the nose is off the middle of the eyes, along the line through them, in distances of
            the eyes: 0 from the front, about 0.35 where the head is turned by 40 degrees. Where the detector gives no
            landmarks, a guess from the crop on the same scale (``preprocess.pose.turn_of_crop``).
    """

    size_px: int
    blur: float
    brightness: float
    noise: float = 0.0
    eyes: float = 1.0
    mouth: float = 1.0
    turn: float | None = None


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one frame.

    Attributes:
        track: number of the track it belongs to; never used again for another.
        phase: ``start`` in the first frame of the track, ``update`` after.
        box: where it is.
        expression: what it shows: what to display and act on. Changes only when another has been clearly more
            probable for a while.
        prediction: probabilities averaged over the track, or by the recurrent head of a bundle that has one.
        raw: those of this frame alone.
        stable_ms: for how long ``expression`` has been the same, in milliseconds of stream time.
        quality: how well the face can be seen.
        uncertain: why not to rely on the answer: "small", "dark", "turned", "blurred", "noisy", "occluded" or
            "ambiguous"; None if there is no doubt.
        crop: uint8 (height, width, 1), what the model was given when it answered ``raw``; it stays in memory.
        intensity: how strongly the face shows the expression, 0-1; None where the bundle does not tell, and
            ``affect.intensity`` has a proxy.
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
    crop: Image | None = field(default=None, compare=False, repr=False)
    intensity: float | None = None

    @property
    def confidence(self) -> float:
        """Probability of ``expression``, 0-1."""
        return self.prediction.probabilities[self.expression]


@dataclass(frozen=True, slots=True, weakref_slot=True)
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
    """Finds faces in a gray image.

    Attributes:
        slow_on_large: the time it takes grows with the image, so that a search is worth cutting into tiles.
        enough_px: width of a face that shows all that the detector uses; larger ones may be reduced to it.
    """

    slow_on_large: bool
    enough_px: float

    def detect(
        self, gray: Image, min_px: float, max_px: float = math.inf, *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        """Find the faces of an image, or of a part of one.

        Args:
            gray: uint8 (height, width); rows need not be contiguous.
            min_px: width of the smallest face to look for.
            max_px: width of the largest.
            expected: a face was just seen here: weaker evidence is enough.
            coarse: a second look follows: be quick, rather report too much than too little.

        Returns:
            Largest first.
        """
        ...


class Classifier(Protocol):
    """Tells the expression of faces."""

    def classify(self, tensors: Sequence[Image]) -> list[Prediction]:
        """One prediction for each tensor that a ``preprocess.Preprocessor`` made."""
        ...


class Sink(Protocol):
    """Takes results: a file, a screen, a broker.

    One that has a method ``tick`` too has it called after each frame, and some five times a second while none comes.
    One that has a method ``end`` is given the events of faces that end while no frame comes (``events.Run.end``).
    """

    def write(self, result: FrameResult) -> None: ...

    def close(self) -> None: ...
