"""MediaPipe's BlazeFace: a single-shot detector of a few milliseconds, run by LiteRT like the expression model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Detection, FaceBox, Image, Landmarks
from edge_fer.errors import BundleError, DataError
from edge_fer.files import read_file
from edge_fer.model.bundle import MOST_BYTES, sha256
from edge_fer.model.litert import Network, why_it_kills

Floats = NDArray[np.float32]

POINTS = 6
"""Of a face: right eye, left eye, nose, mouth, right and left ear."""
MAX_LOGIT = 80.0
"""Scores are clipped here: beyond, float32 overflows in the sigmoid."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What differs between the models of the family.

    Attributes:
        grids: cells along a side, and anchors in each cell, in the order of the outputs.
        smallest_px: face that is found nearly always, in pixels of the network's input.
        side: side of a Haar box of the same face, in sides of the network's box.
        shift: how much lower the center of the Haar box is, in sides of the network's box.
    """

    grids: tuple[tuple[int, int], ...]
    smallest_px: int
    side: float
    shift: float


# side and shift are medians over photos, clips, FER2013 and the demo; single sets differ by up to 0.04 and 0.06.
KNOWN = {
    "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    "671dd2f9ed11a78436fc21cc42357a803dfc6f73e9fb86541be942d5716c2dce",
}
"""SHA-256 of MediaPipe's files: short, full and sparse full range. Any other is first tried in a child process."""

LAYOUTS = {
    896: Layout(((16, 2), (8, 6)), 24, 1.16, -0.14),  # short range: strides 8 and 16, 16, 16
    2304: Layout(((48, 1),), 16, 1.11, -0.07),  # full range: stride 4
}
"""By number of anchors. Grids as in MediaPipe's ssd_anchors_calculator with the options of either model."""


class BlazeFaceDetector:
    """BlazeFace (Bazarevsky et al., arXiv 1907.05047), short or full range; implements ``core.FaceDetector``.

    Its input is small. Faces that it would miss in the whole image are looked for in overlapping windows.

    Args:
        model: MediaPipe's face_detection_short_range.tflite or face_detection_full_range.tflite.

    Raises:
        InputMissingError: no such file.
        DataError: it is not such a model.
        UnavailableError: no TensorFlow Lite runtime is installed.
    """

    slow_on_large = False
    enough_px = 48.0
    min_score = 0.5
    min_score_weak = 0.3
    min_iou = 0.3

    def __init__(self, model: Path) -> None:
        content = read_file(model, MOST_BYTES, "face detector", "Check --detector-model.")
        if sha256(content) not in KNOWN and (reason := why_it_kills(content)):
            raise DataError(f"{model} cannot be used: in a process of its own it {reason}. Get MediaPipe's.")
        try:
            self._network = Network(content)
            (source,) = self._network.inputs
            outputs = self._network.outputs
            # The boxes have sixteen values an anchor, the scores one.
            self._boxes, self._scores = sorted(range(2), key=lambda index: -outputs[index].shape[-1])
            anchors, self._size = outputs[self._boxes].shape[1], source.shape[1]
            self._layout = LAYOUTS[anchors]
            shapes = [source.shape, outputs[self._boxes].shape, outputs[self._scores].shape]
            usable = shapes == [(1, self._size, self._size, 3), (1, anchors, 16), (1, anchors, 1)]
        except (BundleError, ValueError, KeyError, IndexError):
            usable = False
        if not usable or source.dtype != np.float32:
            raise DataError(
                f"{model} is not a BlazeFace model. Get MediaPipe's face_detection_short_range.tflite or "
                "face_detection_full_range.tflite."
            )
        self._anchors = anchors_px(self._size, self._layout.grids)

    def detect(
        self, gray: Image, min_px: float, max_px: float = math.inf, *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        """See ``core.FaceDetector``."""
        if min(gray.shape) < min_px:
            return []
        min_score = self.min_score_weak if expected or coarse else self.min_score
        boxes, scores = [], []
        for left, top, side, largest_px in windows(gray.shape, self._size, self._layout.smallest_px, min_px):
            found, score = self._run(gray[top : top + side, left : left + side], side)
            kept = (score > min_score) & (found[:, 2:4].min(axis=1) > 0) & (found[:, 2] < largest_px)
            origin = np.array([left, top, 0, 0, *[left, top] * POINTS], np.float32)
            boxes.append(found[kept] + origin)
            scores.append(score[kept])
        detections = []
        rows, best_scores = merged(np.concatenate(boxes), np.concatenate(scores), self.min_iou)
        for (x, y, w, _, *points), score in zip(rows.tolist(), best_scores.tolist(), strict=True):
            side = self._layout.side * w
            if min_px <= side <= max_px:
                box = FaceBox(x - side / 2, y + self._layout.shift * w - side / 2, side, side)
                right_eye, left_eye, nose, mouth = zip(points[:8:2], points[1:8:2], strict=True)
                detections.append(Detection(box, score, Landmarks(right_eye, left_eye, nose, (mouth,))))
        return sorted(detections, key=lambda one: (-one.box.area, one.box.x, one.box.y))

    def _run(self, part: Image, side: int) -> tuple[Floats, Floats]:
        """Rows (n, 16) of ``decoded`` in pixels of the part, and scores (n,), of all anchors.

        The part is at most ``side`` high and wide, and stands in the upper left corner of the input.
        """
        size, scale = self._size, self._size / side
        wh = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        tensor = np.full((size, size), -1.0, np.float32)
        tensor[: wh[1], : wh[0]] = cv2.resize(
            part, wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR_EXACT
        )
        tensor[: wh[1], : wh[0]] *= 1 / 127.5
        tensor[: wh[1], : wh[0]] -= 1
        outputs = self._network.run(np.repeat(tensor[np.newaxis, :, :, np.newaxis], 3, axis=3))
        rows = decoded(outputs[self._boxes][0], self._anchors)
        return rows / np.float32(scale), sigmoid(outputs[self._scores][0, :, 0])


def anchors_px(size: int, grids: tuple[tuple[int, int], ...]) -> Floats:
    """Centers of the anchors, float32 (n, 2) of x, y in pixels of an input of ``size`` pixels; see ``Layout.grids``."""
    parts = []
    for cells, each in grids:
        y, x = np.mgrid[:cells, :cells]
        centers = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) * size / cells
        parts.append(np.repeat(centers, each, axis=0))
    return np.concatenate(parts).astype(np.float32)


def decoded(raw: Floats, anchors: Floats) -> Floats:
    """Boxes and points, float32 (n, 16), in pixels of the input.

    Args:
        raw: (n, 16): center of the box relative to the anchor, its width and height, and six points relative to the
            anchor: right eye, left eye, nose, mouth, right and left ear.
        anchors: (n, 2).
    """
    rows = raw.copy()
    rows[:, :2] += anchors
    rows[:, 4:] += np.tile(anchors, POINTS)
    return rows


def sigmoid(logits: Floats) -> Floats:
    """Scores, 0-1, of logits that may be very large."""
    clipped: Floats = np.clip(logits, -MAX_LOGIT, MAX_LOGIT).astype(np.float32)
    return np.float32(1) / (np.float32(1) + np.exp(-clipped))


def merged(rows: Floats, scores: Floats, min_iou: float) -> tuple[Floats, Floats]:
    """Weighted non-maximum suppression: each face's rows become their mean, weighted by score (arXiv 1907.05047, 3.4).

    Args:
        rows: (n, k) of center x, y, width, height, and anything else that can be averaged.
        scores: (n,).
        min_iou: boxes that overlap the best one by more are of the same face.

    Returns:
        Rows (faces, k), the face with the best score first, and these scores (faces,).
    """
    centers, sizes = rows[:, :2], rows[:, 2:4]
    low, high = centers - sizes / 2, centers + sizes / 2
    areas = sizes.prod(axis=1)
    left = np.argsort(-scores, kind="stable")
    means, best_scores = [], []
    while left.size:
        best = left[0]
        overlap = (np.minimum(high[left], high[best]) - np.maximum(low[left], low[best])).clip(min=0).prod(axis=1)
        same = overlap > min_iou * (areas[left] + areas[best] - overlap)
        same[0] = True
        means.append(np.average(rows[left[same]], axis=0, weights=scores[left[same]]))
        best_scores.append(scores[best])
        left = left[~same]
    return np.array(means, np.float32).reshape(-1, rows.shape[1]), np.array(best_scores, np.float32)


def windows(
    shape: tuple[int, ...], size: int, smallest_px: int, min_px: float
) -> Iterator[tuple[int, int, int, float]]:
    """Squares of the image to look into, until faces of ``min_px`` are large enough in one of them.

    First the whole image; then, where faces are too small in that, smaller squares. They overlap by the largest face
    that the level before may have missed, so that each is whole in one of them.

    Args:
        shape: height and width of the image.
        size: side of the network's input.
        smallest_px: smallest face that the network finds in its input.
        min_px: smallest wanted face, in pixels of the image.

    Yields:
        Left, top and side in pixels, and the width of a face from which it is left to the level before.
    """
    height, width = shape
    side, overlap = max(height, width), math.inf
    last_side = max(1, math.floor(min_px * size / smallest_px))
    while True:
        for top in _starts(height, side, overlap):
            for left in _starts(width, side, overlap):
                yield left, top, side, overlap
        if side <= last_side:
            return
        overlap = smallest_px * side / size
        side = max(last_side, math.ceil(2 * overlap))


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Where windows of ``side`` begin, evenly spread, to cover ``length``."""
    if side >= length:
        return [0]
    count = math.ceil((length - overlap) / (side - overlap))
    return [round(place * (length - side) / (count - 1)) for place in range(count)]
