"""Several detectors combined: of one face, and of all faces in an image."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.fusion import FusedDetector, fused
from edge_fer.core import Detection, FaceBox, Image, Landmarks

MARKS = Landmarks((70.0, 80.0), (110.0, 80.0), (90.0, 105.0), ((75.0, 130.0), (105.0, 130.0)))


def at(x: float, score: float | None = None, marks: Landmarks | None = MARKS) -> Detection:
    return Detection(FaceBox(x, 50, 80, 90), score, marks and marks.scaled(1.0, x - 50, 0.0))


def test_the_best_has_the_highest_score() -> None:
    assert fused([at(50, 0.6), at(52, 0.9), None], "best") == at(52, 0.9)
    assert fused([at(50), at(52, 0.4)], "best") == at(50)  # one without a score counts as 0.5
    assert fused([at(50, 0.7), at(52, 0.7)], "best") == at(50, 0.7)


def test_a_vote_is_the_median_of_those_who_agree() -> None:
    found = fused([at(50, 0.6), at(54, 0.9), at(51, 0.8), at(300, 0.99)], "vote")
    assert found == at(51, 0.8)
    assert fused([at(50, 0.9), None, None], "vote") is None
    assert fused([at(50, 0.9), None], "vote") == at(50, 0.9)
    assert fused([at(50, 0.9), at(300, 0.9), at(600, 0.9)], "vote") is None


def test_a_mean_is_of_the_largest_group() -> None:
    assert fused([at(50, 0.6), at(54, 0.8), at(300, 1.0)], "mean") == at(52, pytest.approx(0.7))
    assert fused([at(50, 0.6), None, None, None], "mean") == at(50, 0.6)


@given(st.lists(st.one_of(st.none(), st.integers(0, 400)), max_size=5), st.sampled_from(["best", "vote", "mean"]))
def test_any_findings_can_be_fused(places: list[int | None], how: Any) -> None:
    found = fused([None if x is None else at(float(x), 0.5) for x in places], how)
    assert found is None or min(x for x in places if x is not None) <= found.box.x <= max(x or 0 for x in places)
    if all(x is None for x in places):
        assert found is None


def test_who_has_no_landmarks_counts_for_the_box_alone() -> None:
    found = fused([at(50, 0.6, None), at(54, 0.8)], "mean")
    assert found is not None
    assert found.box.x == 52
    assert found.landmarks == at(54).landmarks
    assert fused([at(50, 0.6, None)], "mean") == at(50, 0.6, None)


def test_the_best_box_takes_the_best_landmarks_that_there_are_of_it() -> None:
    """Haar has neither score nor landmarks, an aligner no score; BlazeFace marks the mouth by one point."""
    one_mouth = dataclasses.replace(MARKS, mouth=((90.0, 130.0),))
    for best in (None, one_mouth):
        found = fused([at(50, None, best), at(54, None), at(52, 0.4)], "best")
        assert found == dataclasses.replace(at(50), landmarks=at(54).landmarks)
    assert fused([at(50, 0.6, one_mouth)], "best") == at(50, 0.6, one_mouth)
    # Another face's are not of it.
    assert fused([at(50, 0.6, None), at(300, 0.5)], "best") == at(50, 0.6, None)


class Finds:
    """A detector that has its answer."""

    slow_on_large = False

    def __init__(self, *faces: Detection, enough_px: float = 24.0) -> None:
        self.faces, self.enough_px = list(faces), enough_px

    def detect(self, gray: Image, min_px: float, max_px: float = math.inf, **options: Any) -> list[Detection]:
        return [one for one in self.faces if min_px <= one.box.w <= max_px]


NOWHERE = np.zeros((8, 8), np.uint8)


def test_all_faces_of_an_image_are_fused() -> None:
    detectors = [Finds(at(50, 0.6), at(300, 0.9)), Finds(at(54, 0.8), enough_px=40), Finds(at(52, 0.7), at(600, 0.7))]
    both: Any = {how: FusedDetector(detectors, how) for how in ("best", "vote", "mean")}  # type: ignore[arg-type]
    assert both["best"].enough_px == 40
    places = {how: sorted(one.box.x for one in detector.detect(NOWHERE, 20)) for how, detector in both.items()}
    assert places == {"best": [54, 300, 600], "vote": [52], "mean": [pytest.approx(52), 300, 600]}
    assert both["best"].detect(NOWHERE, 100) == []


def test_a_detector_says_each_face_once() -> None:
    fused_one = FusedDetector([Finds(at(50, 0.9), at(55, 0.8)), Finds(at(52, 0.7))], "mean")
    assert [one.box.x for one in fused_one.detect(NOWHERE, 20)] == [51]


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1)), max_size=4), min_size=1, max_size=4),
    st.sampled_from(["best", "vote", "mean"]),
)
def test_any_faces_of_any_detectors_can_be_fused(parts: list[list[tuple[int, float]]], how: Any) -> None:
    detectors: list[Any] = [Finds(*(at(float(x), score) for x, score in part)) for part in parts]
    found = FusedDetector(detectors, how).detect(NOWHERE, 20)
    assert len(found) <= sum(map(len, parts))
    assert bool(found) == any(parts) or how == "vote"
