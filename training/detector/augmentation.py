"""Images for training, composed of photos: mosaics, faces of all sizes, turned, mirrored, in bad light, with noise.

Backend-neutral, and a function of photos and random numbers alone, so that it runs inside a compiled training program
and gives the same on each backend. B is the batch; an image is a mosaic of four photos (Bochkovskiy et al.,
arXiv 2004.10934), or shows one. In each, one face is brought to a size drawn evenly on a log scale, as in data-anchor
sampling (Tang et al., arXiv 1803.07737).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from datasets.boxes import BACKGROUND, FACE, IGNORED, POINTS
from training.detector.assignment import Truth
from training.detector.photos import LONGEST_PX, MOST_FACES, Packed

TILES = 4
DRAWS = 8 * TILES + 12
"""Random numbers for an image, uniform in 0-1; each of its pixels takes a normal one too."""
MOST_TRUTHS = 64
"""Boxes of an image that are kept, faces before ignored regions."""


@dataclass(frozen=True)
class Augmentation:
    """How much of everything.

    Attributes:
        mosaic: fraction of the images that are made of four photos.
        smallest_px: face at least so large, as the geometric mean of its sides, is to be found; smaller ones are
            ignored regions.
        small_px: smallest size that a chosen face is brought to.
        max_turn: degrees, to either side.
        max_scale: of a photo: beyond, it is only blurred.
        min_scale: below, faces lie in little but gray.
        min_visible: fraction of a face that lies in its tile; with less it is an ignored region.
        gamma: sigma of the log of the exponent.
        contrast: the range is divided by up to this factor, or multiplied by up to its root.
        gradient: of light across the image, at most.
        noise: sigma at most, where 1 is black to white.
        blur: fraction of the images that are blurred.
        behind: fraction of the images that have an empty photo, not plain gray, where no other lies.
    """

    mosaic: float = 0.6
    smallest_px: float = 8.0
    small_px: float = 10.0
    max_turn: float = 30.0
    max_scale: float = 2.0
    min_scale: float = 0.2
    min_visible: float = 0.5
    gamma: float = 0.4
    contrast: float = 2.0
    gradient: float = 0.5
    noise: float = 0.08
    blur: float = 0.15
    behind: float = 0.7


def compose(photos: Packed, draws: Any, noise: Any, options: Augmentation) -> tuple[Any, Truth]:
    """A batch of images, and what is in them.

    Args:
        photos: all of them, with arrays of the backend.
        draws: (B, DRAWS), uniform in 0-1.
        noise: (B, side, side), normal with sigma 1.
        options: see ``Augmentation``.

    Returns:
        Images float32 (B, side, side, 1), 0-255 in whole numbers, and their truth.
    """
    side = noise.shape[1]
    tile = ops.reshape(draws[:, : 8 * TILES], (-1, TILES, 8))
    whole = draws[:, 8 * TILES :]
    # Where the four tiles meet; the first covers an image of one photo.
    middle = ops.where(whole[:, :1] < options.mosaic, side * (0.3 + 0.4 * whole[:, 1:3]), float(side))
    zero, full = ops.zeros_like(middle[:, 0]), ops.full_like(middle[:, 0], side)
    x, y = middle[:, 0], middle[:, 1]
    corners = ops.stack(
        [
            ops.stack(corner, axis=-1)
            for corner in ((zero, zero, x, y), (x, zero, full, y), (zero, y, x, full), (x, y, full, full))
        ],
        axis=1,
    )  # (B, 4, 4): left, top, right, bottom

    count = photos.sizes_wh.shape[0]
    photo = ops.minimum(ops.cast(tile[..., 0] * count, "int32"), count - 1)
    turn, shift = _placement(photos, photo, corners, tile, options)
    images = _sampled(photos, photo, turn, shift, middle, side, whole, options)
    return _lit(images, noise, whole, options), _truth(photos, photo, turn, shift, corners, options)


def _placement(photos: Packed, photo: Any, corners: Any, draws: Any, options: Augmentation) -> tuple[Any, Any]:
    """How each photo lies in its tile: image = turn @ photo + shift; turn (B, 4, 2, 2), shift (B, 4, 2)."""
    kinds, boxes = ops.take(photos.kinds, photo, axis=0), ops.take(photos.boxes, photo, axis=0)
    is_face = ops.cast(kinds == FACE, "float32")
    faces = ops.sum(is_face, axis=-1)
    # One of its faces: the first at which the running count passes the draw.
    passed = ops.cumsum(is_face, axis=-1) > (draws[..., 1] * faces)[..., None]
    chosen = ops.argmax(ops.cast(passed, "int32"), axis=-1)
    box = ops.take_along_axis(boxes, chosen[..., None, None], axis=2)[..., 0, :]
    size = ops.take(photos.sizes_wh, photo, axis=0)
    has_face = faces > 0
    sides_wh = corners[..., 2:] - corners[..., :2]
    shortest = ops.maximum(ops.min(sides_wh, axis=-1), 16.0)
    largest = ops.maximum(0.9 * shortest, options.small_px * 1.5)
    wanted_px = options.small_px * (largest / options.small_px) ** draws[..., 2]
    face_px = ops.sqrt(ops.maximum(box[..., 2] * box[..., 3], 1.0))
    scale = ops.where(has_face, wanted_px / face_px, 0.4 * 4.0 ** draws[..., 2])
    scale = ops.clip(scale, options.min_scale, options.max_scale)
    angle = math.radians(options.max_turn) * (2 * draws[..., 3] - 1)
    # Half of the photos stay nearly upright, as most faces are.
    angle = ops.where(draws[..., 4] < 0.5, 0.2 * angle, angle)
    mirror = ops.where(draws[..., 5] < 0.5, -1.0, 1.0)
    cosine, sine = scale * ops.cos(angle), scale * ops.sin(angle)
    turn = ops.stack(
        [ops.stack([mirror * cosine, -sine], axis=-1), ops.stack([mirror * sine, cosine], axis=-1)], axis=-2
    )
    # The middle of the face, or some place of a photo without, comes to some place of the tile where it has room.
    source = ops.where(has_face[..., None], box[..., :2] + box[..., 2:] / 2, size * draws[..., 6:8])
    room = ops.minimum(0.5, ops.where(has_face, 0.55 * scale * face_px, 0.0) / shortest)[..., None]
    target = corners[..., :2] + sides_wh * (room + (1 - 2 * room) * draws[..., 6:8])
    return turn, target - _turned(turn, source)


def _sampled(
    photos: Packed, photo: Any, turn: Any, shift: Any, middle: Any, side: int, draws: Any, options: Augmentation
) -> Any:
    """The images (B, side, side), 0-1: each pixel from its photo, or where that does not reach from what is behind."""
    batch = draws.shape[0]
    if photos.empty.shape[0]:
        empty = photos.empty.shape[0]
        behind = ops.take(photos.empty, ops.minimum(ops.cast(draws[:, 10] * empty, "int32"), empty - 1), axis=0)
        # It covers the image.
        zoom = side / ops.min(ops.take(photos.sizes_wh, behind, axis=0), axis=-1) * (1 + draws[:, 11])
        photo = ops.concatenate([photo, behind[:, None]], axis=1)
        unturned = zoom[:, None, None, None] * np.eye(2, dtype=np.float32)
        turn = ops.concatenate([turn, ops.broadcast_to(unturned, (batch, 1, 2, 2))], axis=1)
        shift = ops.concatenate([shift, ops.zeros((batch, 1, 2))], axis=1)
    table = _mapping(photos, photo, turn, shift)
    places = np.arange(side, dtype=np.float32) + 0.5
    across = ops.cast(places[None, None, :] >= middle[:, 0, None, None], "int32")
    down = ops.cast(places[None, :, None] >= middle[:, 1, None, None], "int32")
    which = ops.reshape(across + 2 * down, (-1, side * side))  # (B, pixels): its tile
    number = ops.arange(side * side, dtype="int32")[None]
    grid_x = ops.cast(number % side, "float32") + 0.5
    grid_y = ops.cast(number // side, "float32") + 0.5

    def places_of(of_pixel: Any) -> tuple[Any, Any, Any]:
        x = of_pixel[..., 0] * grid_x + of_pixel[..., 1] * grid_y + of_pixel[..., 4]
        y = of_pixel[..., 2] * grid_x + of_pixel[..., 3] * grid_y + of_pixel[..., 5]
        inside = (x > -0.5) & (x < of_pixel[..., 6] - 0.5) & (y > -0.5) & (y < of_pixel[..., 7] - 0.5)
        return x, y, inside

    of_pixel = ops.take_along_axis(table, which[..., None], axis=1)
    x, y, inside = places_of(of_pixel)
    start = ops.take_along_axis(photo, which, axis=1)
    if photos.empty.shape[0]:
        x_behind, y_behind, _ = places_of(table[:, TILES:])
        shown = draws[:, 2:3] < options.behind
        swap = ~inside & shown
        x, y = ops.where(swap, x_behind, x), ops.where(swap, y_behind, y)
        of_pixel = ops.where(swap[..., None], table[:, TILES:], of_pixel)
        start = ops.where(swap, photo[:, TILES:], start)
        inside = inside | shown
    x = ops.clip(x, 0.0, of_pixel[..., 6] - 1.0)
    y = ops.clip(y, 0.0, of_pixel[..., 7] - 1.0)
    x0, y0 = ops.floor(x), ops.floor(y)
    x1, y1 = ops.minimum(x0 + 1, of_pixel[..., 6] - 1.0), ops.minimum(y0 + 1, of_pixel[..., 7] - 1.0)
    atlas = ops.reshape(photos.atlas, (-1,))
    rows, columns = photos.atlas.shape[1:]

    def pixel(x: Any, y: Any) -> Any:
        row, column = ops.cast(y + of_pixel[..., 9], "int32"), ops.cast(x + of_pixel[..., 8], "int32")
        return ops.cast(ops.take(atlas, (start * rows + row) * columns + column, axis=0), "float32")

    right, bottom = x - x0, y - y0
    above = pixel(x0, y0) * (1 - right) + pixel(x1, y0) * right
    below = pixel(x0, y1) * (1 - right) + pixel(x1, y1) * right
    gray = ops.where(draws[:, 3:4] < 0.5, 128.0, 255 * draws[:, 4:5])  # often as the device fills up
    return ops.reshape(ops.where(inside, above * (1 - bottom) + below * bottom, gray), (-1, side, side)) / 255


def _mapping(photos: Packed, photo: Any, turn: Any, shift: Any) -> Any:
    """Where each pixel of the image lies in the atlas: (B, tiles, 10).

    Four numbers of a matrix and two of a shift from image to photo, at the size in the atlas that is nearest above the
    wanted one; width and height of the photo at that size; left and top of it in the atlas.
    """
    determinant = turn[..., 0, 0] * turn[..., 1, 1] - turn[..., 0, 1] * turn[..., 1, 0]
    adjugate = [turn[..., 1, 1], -turn[..., 0, 1], -turn[..., 1, 0], turn[..., 0, 0]]
    inverse = ops.stack(adjugate, axis=-1) / determinant[..., None]
    x, y = shift[..., 0], shift[..., 1]
    back = -ops.stack([inverse[..., 0] * x + inverse[..., 1] * y, inverse[..., 2] * x + inverse[..., 3] * y], axis=-1)
    level = ops.clip(ops.floor(-0.5 * ops.log2(ops.abs(determinant)) + 0.3), 0.0, 2.0)
    factor = 2.0 ** -level[..., None]
    left, top = ops.where(level > 0, float(LONGEST_PX), 0.0), ops.where(level > 1, float(LONGEST_PX // 2), 0.0)
    size = ops.take(photos.sizes_wh, photo, axis=0)
    return ops.concatenate(
        [inverse * factor, back * factor - 0.5, size * factor, ops.stack([left, top], axis=-1)], axis=-1
    )


def _lit(images: Any, noise: Any, draws: Any, options: Augmentation) -> Any:
    """Images (B, side, side), 0-1, blurred, in another light and with noise: (B, side, side, 1), 0-255."""
    side = images.shape[1]
    draws = draws[:, :, None, None]
    padded = ops.pad(images, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    blurred = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9
    images = ops.where(draws[:, 5] < options.blur, blurred, images)
    # A triangular distribution has the bell's shape, and two draws are enough for it.
    images = ops.maximum(images, 1e-4) ** ops.exp(options.gamma * 2.4 * (draws[:, 6] + draws[:, 7] - 1))
    factor = options.contrast ** (draws[:, 8] * 1.5 - 1)
    ramp = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    light = (
        (2 * draws[:, 4] - 1) * ramp[None, None, :] + (2 * draws[:, 7] - 1) * ramp[None, :, None]
    ) * options.gradient
    images = (images - 0.5) * factor + 0.5 + light * draws[:, 9]
    images += noise * options.noise * draws[:, 9] ** 2
    return ops.round(ops.clip(images, 0.0, 1.0) * 255)[..., None]


def _truth(photos: Packed, photo: Any, turn: Any, shift: Any, corners: Any, options: Augmentation) -> Truth:
    """What is in the images: the photos' faces at their places, those that are cut or tiny as ignored regions."""
    kinds = ops.take(photos.kinds, photo, axis=0)  # (B, 4, faces)
    boxes, points = ops.take(photos.boxes, photo, axis=0), ops.take(photos.points, photo, axis=0)
    has_points = ops.take(photos.has_points, photo, axis=0)
    middle = _turned(turn[:, :, None], boxes[..., :2] + boxes[..., 2:] / 2) + shift[:, :, None]
    # A face is about an ellipse: this is the box around it when it is turned.
    half = ops.sqrt(_turned(turn[:, :, None] ** 2, (boxes[..., 2:] / 2) ** 2))
    found = ops.concatenate([middle - half, middle + half], axis=-1)
    points = _turned(turn[:, :, None, None], points) + shift[:, :, None, None]
    mirrored = (turn[..., 0, 0] * turn[..., 1, 1] < turn[..., 0, 1] * turn[..., 1, 0])[..., None, None, None]
    points = ops.where(mirrored, ops.take(points, np.array([1, 0, 2, 4, 3]), axis=3), points)

    low = ops.maximum(found[..., :2], corners[:, :, None, :2])
    high = ops.minimum(found[..., 2:], corners[:, :, None, 2:])
    seen = ops.prod(ops.maximum(high - low, 0.0), axis=-1) / ops.maximum(ops.prod(2 * half, axis=-1), 1e-6)
    size = 2 * ops.sqrt(ops.prod(half, axis=-1))
    clear = (seen >= options.min_visible) & (size >= options.smallest_px)
    kinds = ops.where((kinds == FACE) & ~clear, IGNORED, kinds)
    kinds = ops.where(seen > 0.05, kinds, BACKGROUND)
    # What is ignored in one photo must not reach into its neighbor.
    ignored = ops.concatenate([low, high], axis=-1)
    found = ops.where((kinds == IGNORED)[..., None], ignored, found)

    # Faces first, then ignored regions, as far as there is room. Not by sorting: see ``assignment._largest``.
    total = TILES * MOST_FACES
    kinds = ops.reshape(kinds, (-1, total))
    is_face, is_ignored = (ops.cast(kinds == kind, "int32") for kind in (FACE, IGNORED))
    place = ops.cumsum(is_face, axis=1) * is_face
    place += (ops.sum(is_face, axis=1, keepdims=True) + ops.cumsum(is_ignored, axis=1)) * is_ignored  # from 1; else 0
    at_place = place[:, None, :] == np.arange(1, MOST_TRUTHS + 1)[:, None]
    kept = ops.argmax(ops.cast(at_place, "int32"), axis=-1)
    filled = ops.any(at_place, axis=-1)
    return Truth(
        kinds=ops.where(filled, ops.take_along_axis(kinds, kept, axis=1), BACKGROUND),
        boxes=ops.take_along_axis(ops.reshape(found, (-1, total, 4)), kept[..., None], axis=1),
        points=ops.take_along_axis(ops.reshape(points, (-1, total, POINTS, 2)), kept[..., None, None], axis=1),
        has_points=ops.take_along_axis(ops.reshape(has_points, (-1, total)), kept, axis=1),
    )


def _turned(turn: Any, points: Any) -> Any:
    """turn (..., 2, 2) @ points (..., 2), which are broadcast."""
    x, y = points[..., 0], points[..., 1]
    return ops.stack([turn[..., 0, 0] * x + turn[..., 0, 1] * y, turn[..., 1, 0] * x + turn[..., 1, 1] * y], axis=-1)
