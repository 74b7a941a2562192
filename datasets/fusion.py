"""Several detectors combined, offline: what they say of one face, and of all faces in an image.

Fusing the boxes of detectors that miss different faces is what the survey (Li & Deng, arXiv 1804.08348, section 3.1.1)
reports of cascaded and combined detectors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal, TypeAlias

from edge_fer.core import Detection, FaceBox, FaceDetector, Image, Landmarks, Point

Fusion: TypeAlias = Literal["best", "vote", "mean"]

SAME_FACE = 0.4
"""IoU from which two detections are of one face."""


def fused(found: Sequence[Detection | None], how: Fusion) -> Detection | None:
    """What several detectors say of one face.

    Args:
        found: by each of them; None where it found none.
        how: "best" takes the highest score (one without a score counts as 0.5; of equals, the first); "vote" the
            median of the largest group that agrees, if that is at least half of the detectors; "mean" the mean of that
            group, however small. Landmarks are those of detections that mark both corners of the mouth, where any does:
            "best" takes those of the highest score among them.
    """
    faces = [one for one in found if one is not None]
    if not faces:
        return None
    if how == "best":
        ranked = sorted(faces, key=lambda one: 0.5 if one.score is None else one.score, reverse=True)
        of_it = (one for one in ranked if one.box.iou(ranked[0].box) >= SAME_FACE)
        marked = [one.landmarks for one in of_it if _is_marked(one)]
        return dataclasses.replace(ranked[0], landmarks=marked[0] if marked else ranked[0].landmarks)
    groups = [[one for one in faces if one.box.iou(center.box) >= SAME_FACE] for center in faces]
    group = max(groups, key=len)
    if how == "vote" and 2 * len(group) < len(found):
        return None
    middle: Callable[[Sequence[float]], float] = median if how == "vote" else lambda values: sum(values) / len(values)
    box = FaceBox(*(middle([getattr(one.box, name) for one in group]) for name in ("x", "y", "w", "h")))
    scores = [one.score for one in group if one.score is not None]
    marked = [one.landmarks for one in group if _is_marked(one)]
    return Detection(box, middle(scores) if scores else None, _middle_of(marked, middle))


def _is_marked(face: Detection) -> bool:
    return face.landmarks is not None and len(face.landmarks.mouth) == 2


def _middle_of(marked: Sequence[Landmarks | None], middle: Callable[[Sequence[float]], float]) -> Landmarks | None:
    if not marked:
        return None
    tables = [points_of(one) for one in marked if one]
    first, second, nose, right, left = (
        (middle([table[place][0] for table in tables]), middle([table[place][1] for table in tables]))
        for place in range(5)
    )
    return Landmarks(first, second, nose, (right, left))


def points_of(marks: Landmarks) -> tuple[Point, ...]:
    """Right eye, left eye, nose, and what there is of the mouth."""
    return marks.right_eye, marks.left_eye, marks.nose, *marks.mouth


class FusedDetector:
    """Several detectors as one; implements ``core.FaceDetector``.

    From the highest score down, each detection takes from every other detector the one that overlaps it most; what they
    say of that face together is ``fused``.

    Args:
        detectors: at least one.
        how: see ``fused``. "best" and "mean" report what any of them found, "vote" what at least half of them did.
    """

    slow_on_large = True

    def __init__(self, detectors: Sequence[FaceDetector], how: Fusion) -> None:
        self._detectors, self._how = detectors, how
        self.enough_px = max(one.enough_px for one in detectors)

    def detect(
        self, gray: Image, min_px: float, max_px: float = math.inf, *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        """See ``core.FaceDetector``."""
        left = [list(one.detect(gray, min_px, max_px, expected=expected, coarse=coarse)) for one in self._detectors]
        found = []
        while any(left):
            first = fused([one for part in left for one in part], "best")
            assert first is not None, "something is left"
            group = [max(part, key=lambda one: one.box.iou(first.box), default=None) for part in left]
            group = [one if one is not None and one.box.iou(first.box) >= SAME_FACE else None for one in group]
            # Other boxes of the same face go with it: a detector says each face once.
            left = [[one for one in part if one.box.iou(first.box) < SAME_FACE] for part in left]
            face = fused(group, self._how)
            if face is not None:
                found.append(face)
        return sorted(found, key=lambda one: -one.box.area)
