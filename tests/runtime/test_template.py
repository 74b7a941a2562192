"""A face is found again by its template."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.core import Detection, FaceBox, Image
from edge_fer.detection.template import Pyramid, Template

CHANCE = np.random.default_rng(4)
TEXTURE = cv2.GaussianBlur(CHANCE.integers(0, 256, (400, 500)).astype(np.uint8), (0, 0), 6)
TEXTURE = cv2.normalize(TEXTURE, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
BOX = FaceBox(200, 150, 90, 90)


def moved(dx: float, dy: float) -> Image:
    return cv2.warpAffine(TEXTURE, np.float32([[1, 0, dx], [0, 1, dy]]), (500, 400)).astype(np.uint8)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (8, -12), (-20, 3), (2.5, 7.5)])
def test_a_face_that_moved_is_found_to_a_pixel_or_two(dx: float, dy: float) -> None:
    found = Template(Pyramid(TEXTURE), Detection(BOX)).find(Pyramid(moved(dx, dy)), 0.8)
    assert found is not None
    assert (found.box.x, found.box.y) == pytest.approx((BOX.x + dx, BOX.y + dy), abs=1.5)
    assert (found.box.w, found.box.h) == (BOX.w, BOX.h)


def test_it_is_followed_step_by_step() -> None:
    template = Template(Pyramid(TEXTURE), Detection(BOX))
    for step in range(1, 8):
        found = template.find(Pyramid(moved(15 * step, 0)), 0.8)
        assert found is not None
    assert found.box.x == pytest.approx(BOX.x + 105, abs=2)


def test_another_brightness_is_the_same_face() -> None:
    darker = (TEXTURE * 0.6).astype(np.uint8)
    assert Template(Pyramid(TEXTURE), Detection(BOX)).find(Pyramid(darker), 0.9) is not None


def test_something_else_is_not() -> None:
    other = np.ascontiguousarray(TEXTURE[::-1, ::-1])
    assert Template(Pyramid(TEXTURE), Detection(BOX)).find(Pyramid(other), 0.8) is None
    assert Template(Pyramid(TEXTURE), Detection(BOX)).find(Pyramid(np.zeros_like(TEXTURE)), 0.8) is None


sides = st.floats(1, 300)
places = st.floats(-200, 600)


@settings(max_examples=50, deadline=None)
@given(st.builds(FaceBox, places, places, sides, sides))
def test_any_box_is_answered(box: FaceBox) -> None:
    found = Template(Pyramid(TEXTURE), Detection(box)).find(Pyramid(TEXTURE), 0.8)
    assert found is None or found.box.iou(box) > 0.5
