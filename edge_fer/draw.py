"""Annotations for people: boxes, expressions and probabilities drawn on a picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Expression, Face, FaceBox, Image

COLORS = {
    Expression.NEUTRAL: "#d0d0d0",
    Expression.HAPPINESS: "#f0e442",
    Expression.SURPRISE: "#e69f00",
    Expression.SADNESS: "#56b4e9",
    Expression.ANGER: "#e8601c",
    Expression.DISGUST: "#2cb58a",
    Expression.FEAR: "#cc79a7",
    Expression.CONTEMPT: "#8f8cd6",
}
"""After Okabe and Ito: the color-blind can tell them apart. All are light enough for dark text and dark grounds."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DARK = (32, 28, 24)
_LIGHT = (244, 244, 244)
_SOFT = (196, 196, 196)
_GROOVE = (90, 86, 82)


def annotate(picture: Image, faces: Sequence[Face]) -> None:
    """Draw faces on a picture: box, number, expression and confidence, and bars where there is room for them.

    Args:
        picture: uint8 (height, width, 3), BGR; is drawn on.
        faces: largest first, with boxes in pixels of the picture.
    """
    size_wh = picture.shape[1], picture.shape[0]
    taken = [face.box for face in faces]
    labels = []
    for face in faces:
        label = _label_place(face, size_wh, taken)
        labels.append(label)
        taken += [label] if label else []
    for face, label in reversed(list(zip(faces, labels, strict=True))):  # the largest is on top
        _draw_outline(picture, face, _unit(face, size_wh))
        if label:
            _draw_label(picture, face, label, _unit(face, size_wh))
    for face in faces:
        panel = _bars_place(face, size_wh, taken)
        if panel:
            _draw_bars(picture, face, panel, _unit(face, size_wh))
            taken.append(panel)


def _unit(face: Face, size_wh: tuple[int, int]) -> float:
    """Scale of all that is drawn for a face: 1 in a VGA picture, less for a face that is smaller than its label."""
    unit = max(0.6, min(size_wh) / 480)
    return unit * min(1.0, max(0.75, face.box.w / (140 * unit)))


def _label_place(face: Face, size_wh: tuple[int, int], taken: Sequence[FaceBox]) -> FaceBox | None:
    """Above the box, below it or inside, where least else is. None if the picture is too small for it."""
    unit, box = _unit(face, size_wh), face.box
    number, text = caption(face)
    w, h = _text_w(number + text, unit) + 26 * unit, 25 * unit
    gap = 5 * unit
    lowest, rightmost = size_wh[1] - h, size_wh[0] - w
    flush_left, flush_right = (min(max(x, 0), rightmost) for x in (box.x, box.x + box.w - w))
    places = [
        FaceBox(x, y, w, h)
        for y in (box.y - gap - h, box.y + box.h + gap, min(max(box.y + gap, 0), lowest))
        for x in (flush_left, flush_right)
    ]
    inside = [place for place in places if _is_inside(place, size_wh)]
    return min(inside, key=lambda place: sum(place.iou(other) for other in taken), default=None)


def _bars_place(face: Face, size_wh: tuple[int, int], taken: Sequence[FaceBox]) -> FaceBox | None:
    """Right of the box, left or below, where nothing else is. None if there is no room or the face is smaller."""
    unit, box = _unit(face, size_wh), face.box
    gap = 8 * unit
    w, h = 148 * unit, (14 * len(face.prediction.probabilities) + 12) * unit
    if h > box.h:
        return None
    y = min(max(box.y, gap), size_wh[1] - gap - h)
    places = [
        FaceBox(box.x + box.w + gap, y, w, h),
        FaceBox(box.x - gap - w, y, w, h),
        FaceBox(max(box.x, gap), box.y + box.h + gap, w, h),
    ]
    return next((place for place in places if _is_inside(place, size_wh) and not _overlaps(place, taken)), None)


def _is_inside(place: FaceBox, size_wh: tuple[int, int]) -> bool:
    return min(place.x, place.y) >= 0 and place.x + place.w <= size_wh[0] and place.y + place.h <= size_wh[1]


def _overlaps(place: FaceBox, taken: Sequence[FaceBox]) -> bool:
    return any(place.iou(other) > 0 for other in taken)


def caption(face: Face) -> tuple[str, str]:
    """What stands at a face: the number of its track, and its expression with the confidence."""
    return str(face.track), f"{face.expression} {face.confidence * 100:.0f} %"


def _draw_outline(picture: Image, face: Face, unit: float) -> None:
    thickness = max(2, round(2 * unit))
    corners = _rounded(face.box, 0.08 * min(face.box.w, face.box.h))
    cv2.polylines(picture, [corners], True, _DARK, thickness + max(2, round(2 * unit)), cv2.LINE_AA)
    cv2.polylines(picture, [corners], True, _bgr(face.expression), thickness, cv2.LINE_AA)


def _draw_label(picture: Image, face: Face, label: FaceBox, unit: float) -> None:
    """Two chips: the number of the track, and what the face shows."""
    number, text = caption(face)
    split = _text_w(number, unit) + 12 * unit
    radius = 6 * unit
    _fill(picture, label, radius, _DARK)
    chip = FaceBox(label.x + split, label.y, label.w - split, label.h)
    _fill(picture, chip, radius, _bgr(face.expression))
    baseline = label.y + 18 * unit
    _write(picture, number, label.x + 6 * unit, baseline, 0.55 * unit, _LIGHT)
    _write(picture, text, chip.x + 7 * unit, baseline, 0.55 * unit, _DARK)


def _draw_bars(picture: Image, face: Face, panel: FaceBox, unit: float) -> None:
    rows, columns = slice(int(panel.y), int(panel.y + panel.h) + 2), slice(int(panel.x), int(panel.x + panel.w) + 2)
    before = picture[rows, columns].copy()
    _fill(picture, panel, 6 * unit, _DARK)
    picture[rows, columns] = cv2.addWeighted(picture[rows, columns], 0.72, before, 0.28, 0)
    for row, (expression, probability) in enumerate(face.prediction.probabilities.items()):
        middle = panel.y + (13 + 14 * row) * unit
        color = _bgr(expression)
        ink = color if expression == face.expression else _SOFT
        _write(picture, expression, panel.x + 8 * unit, middle + 4 * unit, 0.36 * unit, ink)
        groove = FaceBox(panel.x + 76 * unit, middle - 3 * unit, 64 * unit, 6 * unit)
        _fill(picture, groove, 3 * unit, _GROOVE)
        if probability >= 0.01:
            bar = FaceBox(groove.x, groove.y, max(probability * groove.w, 3 * unit), groove.h)
            _fill(picture, bar, 3 * unit, color)


def _fill(picture: Image, box: FaceBox, radius: float, color: tuple[int, int, int]) -> None:
    cv2.fillPoly(picture, [_rounded(box, radius)], color, cv2.LINE_AA)


def _rounded(box: FaceBox, radius: float) -> NDArray[np.int32]:
    """Outline of a box with round corners, int32 (n, 1, 2)."""
    radius = min(radius, box.w / 2, box.h / 2)
    angles = np.linspace(0, np.pi / 2, 8)
    arc = np.stack((np.cos(angles), np.sin(angles)), axis=1) * radius
    left, top, right, bottom = box.x + radius, box.y + radius, box.x + box.w - radius, box.y + box.h - radius
    corners = (
        arc + np.array((right, bottom)),
        arc[::-1] * (-1, 1) + np.array((left, bottom)),
        -arc + np.array((left, top)),
        arc[::-1] * (1, -1) + np.array((right, top)),
    )
    outline: NDArray[np.int32] = np.rint(np.concatenate(corners)).astype(np.int32).reshape(-1, 1, 2)
    return outline


def _text_w(text: str, unit: float) -> int:
    """Width of a label's text in pixels."""
    return cv2.getTextSize(text, _FONT, 0.55 * unit, _weight(0.55 * unit))[0][0]


def _write(picture: Image, text: str, x: float, baseline: float, scale: float, color: tuple[int, int, int]) -> None:
    cv2.putText(picture, text, (round(x), round(baseline)), _FONT, scale, color, _weight(scale), cv2.LINE_AA)


def _weight(scale: float) -> int:
    return max(1, round(1.6 * scale))


def _bgr(expression: Expression) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(COLORS[expression][1:])
    return blue, green, red
