"""Our own detector: a single-shot int8 network of three grids, run by LiteRT like the expression model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Detection, FaceBox, Image, Landmarks
from edge_fer.errors import BundleError, InputMissingError
from edge_fer.model.bundle import DETECTORS, Bundle
from edge_fer.model.litert import Network
from edge_fer.model.opening import open_network

Floats = NDArray[np.float32]

STRIDES = (8, 16, 32)
"""Pixels of the input between the cells of each grid."""
POINTS = 5
"""Of a face: right eye, left eye, tip of the nose, right and left corner of the mouth."""
GRAY = 128
"""Beside the image, where it does not fill the input."""
CUT = 0.4
"""Of a face's sides to either side of its center must lie in a window: else it is cut."""
MAX_LOG = 6.0
"""Of a box's sides in strides; more is no box."""
MAX_LOGIT = 80.0
"""Scores are clipped here: beyond, float32 overflows in the sigmoid."""
LEAST_EYES = 0.05
"""Eyes that are nearer to each other, in widths of the face, are one point: the head shows its profile, and nothing can
be told from where they are."""


class SsdDetector:
    """The package's own face detector; implements ``core.FaceDetector``.

    Its networks differ in the size of their input and share their weights. The smallest that shows the smallest wanted
    face takes the image; what is too large for all of them is looked at whole, then in overlapping windows.

    Boxes frame faces from hairline to chin and ear to ear, as YuNet's do, by which it was trained: a square about the
    same center, with ``DetectorSpec.side`` times the geometric mean of the sides, frames them as the Haar cascade does.

    Landmarks are where the face has them, be that beyond the image's edge; a face whose eyes are one point
    (``LEAST_EYES``) has none.

    Args:
        models: bundles of the kind "detector", of one training; by default those in the package.

    Raises:
        InputMissingError: no such file.
        BundleError: it is no bundle of a face detector, is damaged or fails its self-test.
        UnavailableError: no TensorFlow Lite runtime is installed.
    """

    slow_on_large = False

    def __init__(self, models: Sequence[Path | str] = ()) -> None:
        bundles = [Bundle.load(model, "detector") for model in models or sorted(DETECTORS.glob("*.tflite"))]
        if not bundles:
            raise InputMissingError(f"There is no face detector in {DETECTORS}: install edge-fer again.")
        self._networks = sorted(map(_opened, bundles), key=lambda one: one.cells)
        spec = bundles[0].metadata.detector
        assert spec is not None, "a bundle of this kind has one"
        self._spec = spec
        self.enough_px = spec.smallest_px

    def detect(
        self, gray: Image, min_px: float, max_px: float = math.inf, *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        """See ``core.FaceDetector``."""
        if min(gray.shape) < min_px:
            return []
        spec = self._spec
        min_score = spec.min_score_weak if expected or coarse else spec.min_score
        scale = min(1.0, spec.smallest_px / min_px)  # smaller ones need not be seen
        network = next((one for one in self._networks if one.fits(gray.shape) >= scale), self._networks[-1])
        rows, scores = [], []
        for left, top, right, bottom, largest_px in windows(gray.shape, network.size_hw, scale):
            found, score = network.run(gray[top:bottom, left:right], min_score)
            found += np.array([left, top, 0, 0, *[left, top] * POINTS], np.float32)
            # What a window cuts, a neighbor has whole.
            low, high = found[:, :2] - CUT * found[:, 2:4], found[:, :2] + CUT * found[:, 2:4]
            cut = ((low < (left, top)) & (np.array((left, top)) > 0)) | (
                (high > (right, bottom)) & (np.array((right, bottom)) < gray.shape[::-1])
            )
            kept = (found[:, 2] < largest_px) & ~cut.any(axis=1)
            rows.append(found[kept])
            scores.append(score[kept])
        detections = []
        for row, score in zip(*suppressed(np.concatenate(rows), np.concatenate(scores), spec.min_iou), strict=True):
            detection = _detection(row.tolist(), float(score), spec.side)
            if min_px <= detection.box.w <= max_px:
                detections.append(detection)
        return sorted(detections, key=lambda one: (-one.box.area, one.box.x, one.box.y))


class SizedNetwork:
    """One network, for one size of input.

    Args:
        network: the graph in the runtime.
        name: of the bundle, for messages.

    Attributes:
        size_hw: of its input.
        cells: how many it has.

    Raises:
        BundleError: it is no such graph.
    """

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        try:
            (source,), outputs = network.inputs, network.outputs
            order = {output.shape[-1]: place for place, output in enumerate(outputs)}
            self._places = [order[values] for values in (1, 4, 2 * POINTS)]
            self._outputs = [outputs[place] for place in self._places]
            _, height, width, channels = source.shape
        except (ValueError, KeyError, IndexError):
            usable = False
        else:
            self.size_hw = (height, width)
            self._centers, self._strides = cells(self.size_hw)
            self._source = source
            self.cells = len(self._centers)
            shapes = [(1, self.cells, values) for values in (1, 4, 2 * POINTS)]
            usable = [one.shape for one in self._outputs] == shapes and channels == 1
        if not usable:
            raise BundleError(
                f"{name} does not take one gray image and give scores, boxes and five landmarks for the cells of "
                "three grids. Export it again."
            )

    def fits(self, shape_hw: tuple[int, ...]) -> float:
        """The scale at which an image of that height and width just fits."""
        return min(side / long for side, long in zip(self.size_hw, shape_hw, strict=True))

    def run(self, part: Image, min_score: float) -> tuple[Floats, Floats]:
        """Rows (n, 14) of center, width, height and points in pixels of the part, and scores (n,), above a score."""
        scale = min(1.0, self.fits(part.shape))
        height, width = (max(1, round(side * scale)) for side in part.shape)
        tensor = np.full((1, *self.size_hw, 1), GRAY, self._source.dtype)
        small = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else part
        tensor[0, :height, :width, 0] = small
        raw = self._network.run(tensor)
        scores, boxes, points = (
            one.real(raw[place][0]) for one, place in zip(self._outputs, self._places, strict=True)
        )
        score = sigmoid(scores[:, 0])
        kept = score > min_score
        rows = decoded(boxes[kept], points[kept], self._centers[kept], self._strides[kept])
        ratio = np.array([part.shape[1] / width, part.shape[0] / height], np.float32)
        return rows * np.tile(ratio, 2 + POINTS), score[kept]


def _opened(bundle: Bundle) -> SizedNetwork:
    """The network of a bundle, after its self-test."""
    network = open_network(bundle)
    sized = SizedNetwork(network, str(bundle))
    if network.inputs[0].dtype != np.uint8:
        raise BundleError(f"{bundle} takes {np.dtype(network.inputs[0].dtype).name}; edge-fer feeds uint8.")
    bundle.selftest.check(network, str(bundle))
    return sized


def cells(size_hw: tuple[int, int]) -> tuple[Floats, Floats]:
    """Centers (n, 2) and strides (n,) of all cells in pixels of the input, grid by grid and row by row.

    The grids reach over the input to the next multiple of the largest stride.
    """
    rows, columns = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in size_hw)
    centers, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[stride / 2 : rows : stride, stride / 2 : columns : stride]
        centers.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full(x.size, stride))
    return np.concatenate(centers).astype(np.float32), np.concatenate(strides).astype(np.float32)


def decoded(boxes: Floats, points: Floats, centers: Floats, strides: Floats) -> Floats:
    """Rows (n, 14) of center x, y, width, height and five points in pixels of the input.

    Args:
        boxes: (n, 4): offset of the center in strides, and logs of the sides in strides.
        points: (n, 10): offsets of x and y of each in strides.
        centers: of the cells, (n, 2).
        strides: of the cells, (n,).
    """
    unit = strides[:, np.newaxis]
    middle = centers + boxes[:, :2] * unit
    sides = np.exp(np.clip(boxes[:, 2:], -MAX_LOG, MAX_LOG)) * unit
    return np.concatenate([middle, sides, np.tile(centers, POINTS) + points * unit], axis=1).astype(np.float32)


def sigmoid(logits: Floats) -> Floats:
    """Scores, 0-1, of logits that may be very large."""
    clipped: Floats = np.clip(logits, -MAX_LOGIT, MAX_LOGIT).astype(np.float32)
    return np.float32(1) / (np.float32(1) + np.exp(-clipped))


def suppressed(rows: Floats, scores: Floats, min_iou: float) -> tuple[Floats, Floats]:
    """Non-maximum suppression: of rows that overlap, the one with the best score is left.

    Args:
        rows: (n, k) of center x, y, width, height, and what goes with them.
        scores: (n,).
        min_iou: boxes that overlap a better one by more are of the same face.

    Returns:
        Rows and scores that are left, best first; of equal ones the first.
    """
    centers, sides = rows[:, :2], rows[:, 2:4]
    low, high, areas = centers - sides / 2, centers + sides / 2, sides.prod(axis=1)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        overlap = (np.minimum(high[left], high[best]) - np.maximum(low[left], low[best])).clip(min=0).prod(axis=1)
        left = left[overlap <= min_iou * (areas[left] + areas[best] - overlap)]
    return rows[kept], scores[kept]


def windows(
    shape_hw: tuple[int, ...], size_hw: tuple[int, int], scale: float
) -> Iterator[tuple[int, int, int, int, float]]:
    """Parts of an image to look into, until one shows it at ``scale``.

    First the whole image; where that is too small in the input, parts of it too, ever smaller. They overlap by a third
    of their shorter side, and faces that do not fit there are left to the level before.

    Args:
        shape_hw: of the image.
        size_hw: of the network's input.
        scale: pixels of the input for one of the image, at most 1, from which all wanted faces are seen.

    Yields:
        Left, top, right and bottom in pixels, and the width of a face from which it is left to the level before.
    """
    height, width = shape_hw
    now = min(1.0, *(size / side for size, side in zip(size_hw, shape_hw, strict=True)))
    yield 0, 0, width, height, math.inf
    while now < scale:
        now = min(scale, 2 * now)
        rows, columns = (min(side, math.floor(size / now)) for size, side in zip(size_hw, shape_hw, strict=True))
        overlap = min(rows, columns) // 3
        for top in _starts(height, rows, overlap):
            for left in _starts(width, columns, overlap):
                yield left, top, left + columns, top + rows, overlap


def _starts(length: int, part: int, overlap: int) -> list[int]:
    """Where parts begin, evenly spread, to cover ``length``."""
    if part >= length:
        return [0]
    count = math.ceil((length - overlap) / (part - overlap))
    return [round(place * (length - part) / (count - 1)) for place in range(count)]


def _detection(row: Sequence[float], score: float, side: float) -> Detection:
    """A row of ``decoded`` as a detection; see ``SsdDetector``."""
    x, y, w, h, *points = row
    square = side * math.sqrt(w * h)
    right_eye, left_eye, nose, *mouth = zip(points[::2], points[1::2], strict=True)
    landmarks = Landmarks(right_eye, left_eye, nose, tuple(mouth))
    apart = math.dist(right_eye, left_eye) >= LEAST_EYES * square
    return Detection(FaceBox(x - square / 2, y - square / 2, square, square), score, landmarks if apart else None)
