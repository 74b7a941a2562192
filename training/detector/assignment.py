"""Cells and faces: what a cell's numbers mean, which cells are to find which face, and what they lose.

Backend-neutral, whole batches at once. B is the batch, N the number of cells, G the most faces of an image. Boxes are
(left, top, right, bottom) and points (x, y), float32, in pixels of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from datasets.boxes import FACE, IGNORED, POINTS
from training.detector.network import STRIDES

RADIUS = 2.5
"""Cells so near to the middle of a face, in strides, are candidates for it, beside those inside its box."""
MOST_CELLS = 10
"""Of a face: the sum of so many best overlaps says how many cells are to find it."""
IOU_COST = 3.0
"""Weight of the overlap against the score in the cost of a pair."""
OUTSIDE_COST = 1e5
"""For a cell that is not both in the box and near its middle: taken only where there is no other."""

BOX_WEIGHT, SCORE_WEIGHT, POINTS_WEIGHT = 5.0, 1.0, 10.0
SMOOTH = 0.05
"""Error of a landmark, in face widths, up to which the loss is quadratic."""


@dataclass(frozen=True)
class Truth:
    """What is in the images of a batch, arrays of the backend.

    Attributes:
        kinds: int32 (B, G), ``BACKGROUND`` and the like of ``datasets.boxes``.
        boxes: (B, G, 4).
        points: (B, G, 5, 2), in the order of ``datasets.boxes.POINTS``.
        has_points: float32 (B, G), 0 where nobody knows the landmarks.
    """

    kinds: Any
    boxes: Any
    points: Any
    has_points: Any


def cells(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centers (N, 2) and strides (N,) of all cells in pixels, in the order of the network's outputs.

    Args:
        height: of the input in pixels; sides count up to the next multiple of 32.
        width: likewise.
    """
    rows, columns = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in (height, width))
    centers, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[stride / 2 : rows : stride, stride / 2 : columns : stride]
        centers.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full(x.size, stride))
    return np.concatenate(centers).astype(np.float32), np.concatenate(strides).astype(np.float32)


def decode(boxes: Any, points: Any, centers: NDArray[np.float32], strides: NDArray[np.float32]) -> tuple[Any, Any]:
    """What a cell's numbers mean: the offset of the box's center and of each landmark in strides, the log of its sides.

    Args:
        boxes: (B, N, 4) as the network gives them: x, y, log width, log height.
        points: (B, N, 10): x and y of each.
        centers: of the cells, see ``cells``.
        strides: likewise.

    Returns:
        Boxes (B, N, 4) and points (B, N, 5, 2) in pixels.
    """
    unit = strides[:, None]
    middle = centers + boxes[..., :2] * unit
    half = ops.exp(ops.clip(boxes[..., 2:], -4.0, 4.0)) * unit / 2
    offsets = ops.reshape(points, (-1, len(strides), POINTS, 2))
    return ops.concatenate([middle - half, middle + half], axis=-1), centers[:, None] + offsets * unit[:, None]


def iou(one: Any, other: Any) -> Any:
    """Intersection over union of boxes (..., 4) and (..., 4), which are broadcast."""
    overlap, union, _ = _overlap(one, other)
    return overlap / union


def eiou_loss(found: Any, wanted: Any) -> Any:
    """Efficient IoU loss (Zhang et al., arXiv 2101.08158) of boxes (..., 4).

    1 - IoU, plus the squared distance of the centers over that of the enclosing box's diagonal, plus the squared
    differences of width and height over those of the enclosing box.
    """
    overlap, union, enclosing = _overlap(found, wanted)
    distance = (found[..., :2] + found[..., 2:] - wanted[..., :2] - wanted[..., 2:]) / 2
    difference = (found[..., 2:] - found[..., :2]) - (wanted[..., 2:] - wanted[..., :2])
    squared = enclosing**2 + 1e-7
    return (
        1
        - overlap / union
        + ops.sum(distance**2, axis=-1) / ops.sum(squared, axis=-1)
        + ops.sum(difference**2 / squared, axis=-1)
    )


def bce_loss(logits: Any, wanted: Any) -> Any:
    """Binary cross-entropy of logits, element by element; neither end overflows."""
    return ops.relu(logits) - logits * wanted + ops.log1p(ops.exp(-ops.abs(logits)))


def smooth_l1_loss(difference: Any, smooth: float = SMOOTH) -> Any:
    """|d| - smooth / 2 beyond ``smooth``, d^2 / (2 smooth) within (Girshick, arXiv 1504.08083)."""
    size = ops.abs(difference)
    return ops.where(size < smooth, size**2 / (2 * smooth), size - smooth / 2)


def assign(logits: Any, found: Any, truth: Truth, centers: NDArray[np.float32], strides: NDArray[np.float32]) -> Any:
    """Which face each cell is to find, by what the network finds now: SimOTA (Ge et al., arXiv 2107.08430, 2.3).

    Each face takes the cells that cost least, where the cost of a pair is the cell's cross-entropy plus the negative
    log of the overlap; how many is the sum of its ten best overlaps, at least one. A cell that two faces want goes to
    the one that costs less.

    Args:
        logits: of the scores, (B, N).
        found: decoded boxes, (B, N, 4).
        truth: of the batch.
        centers: of the cells, see ``cells``.
        strides: likewise.

    Returns:
        int32 (B, N): the number of the face, or -1.
    """
    x, y = centers[:, :1], centers[:, 1:]
    left, top, right, bottom = (truth.boxes[:, None, :, side] for side in range(4))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    reach = RADIUS * strides[:, None]
    near = (ops.abs(x - (left + right) / 2) < reach) & (ops.abs(y - (top + bottom) / 2) < reach)
    is_face = (truth.kinds == FACE)[:, None]
    candidate = (inside | near) & is_face
    overlap = ops.where(candidate, iou(found[:, :, None], truth.boxes[:, None]), 0.0)
    cost = bce_loss(logits, 1.0)[:, :, None] - IOU_COST * ops.log(overlap + 1e-8)
    cost += OUTSIDE_COST * ops.cast(~(inside & near), "float32")
    cost = ops.where(candidate, cost, 1e9)
    most = min(MOST_CELLS, len(strides))
    count = ops.cast(ops.clip(ops.floor(ops.sum(_largest(overlap, most), axis=-1)), 1, most), "int32")
    limit = -ops.take_along_axis(_largest(-cost, most), count[..., None] - 1, axis=-1)[..., 0]
    cost = ops.where((cost <= limit[:, None]) & candidate, cost, 1e9)
    taken = ops.min(cost, axis=-1) < 1e9
    return ops.where(taken, ops.cast(ops.argmin(cost, axis=-1), "int32"), -1)


def _largest(values: Any, count: int) -> Any:
    """The largest values of (B, N, G) along its middle axis, falling: (B, G, count).

    By one maximum after the other: a sort takes XLA a minute to compile for a GPU.
    """
    found, place = [], np.arange(values.shape[1])[None, :, None]
    for _ in range(count):
        found.append(ops.max(values, axis=1))
        values = ops.where(ops.argmax(values, axis=1)[:, None] == place, -1e10, values)
    return ops.stack(found, axis=-1)


def losses(
    outputs: Any, truth: Truth, centers: NDArray[np.float32], strides: NDArray[np.float32]
) -> tuple[Any, Any, Any]:
    """What the network's outputs lose, for each cell that is to find a face.

    Cells in ignored regions that are to find none do not count.

    Args:
        outputs: scores, boxes and points as the network gives them.
        truth: of the batch.
        centers: of the cells, see ``cells``.
        strides: likewise.

    Returns:
        Losses of scores, boxes and points with their weights, scalars.
    """
    scores, boxes, points = outputs
    logits = scores[..., 0]
    found, found_points = decode(boxes, points, centers, strides)
    assigned = ops.stop_gradient(assign(ops.stop_gradient(logits), ops.stop_gradient(found), truth, centers, strides))
    positive = ops.cast(assigned >= 0, "float32")
    face = ops.maximum(assigned, 0)
    count = ops.maximum(ops.sum(positive), 1.0)

    x, y = centers[:, :1], centers[:, 1:]
    left, top, right, bottom = (truth.boxes[:, None, :, side] for side in range(4))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    ignored = ops.any(inside & (truth.kinds == IGNORED)[:, None], axis=-1)
    counted = ops.where(ignored, positive, 1.0)
    score_loss = ops.sum(bce_loss(logits, positive) * counted) / count

    wanted = ops.take_along_axis(truth.boxes, face[..., None], axis=1)
    box_loss = ops.sum(eiou_loss(found, wanted) * positive) / count

    wanted_points = ops.take_along_axis(truth.points, face[..., None, None], axis=1)
    has_points = ops.take_along_axis(truth.has_points, face, axis=1) * positive
    side = ops.sqrt((wanted[..., 2] - wanted[..., 0]) * (wanted[..., 3] - wanted[..., 1]) + 1e-6)
    error = smooth_l1_loss((found_points - wanted_points) / side[..., None, None])
    points_loss = ops.sum(ops.mean(error, axis=(2, 3)) * has_points) / ops.maximum(ops.sum(has_points), 1.0)
    return SCORE_WEIGHT * score_loss, BOX_WEIGHT * box_loss, POINTS_WEIGHT * points_loss


def _overlap(one: Any, other: Any) -> tuple[Any, Any, Any]:
    """Areas of intersection and union, and width and height (..., 2) of the box that encloses both."""
    sides = ops.maximum(ops.minimum(one[..., 2:], other[..., 2:]) - ops.maximum(one[..., :2], other[..., :2]), 0.0)
    overlap = sides[..., 0] * sides[..., 1]
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (one, other)]
    enclosing = ops.maximum(one[..., 2:], other[..., 2:]) - ops.minimum(one[..., :2], other[..., :2])
    return overlap, areas[0] + areas[1] - overlap + 1e-7, enclosing
