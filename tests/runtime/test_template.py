"""A face is found again by its template."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.core import Detection, FaceBox, Image
from edge_fer.detection.template import Pyramid, Template, _peak

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


def test_it_is_followed_downwards_and_back() -> None:
    template = Template(Pyramid(TEXTURE), Detection(BOX))
    for dy in (20, 40, 60, 80, 60, 40, 20, 0, -20):
        found = template.find(Pyramid(moved(0, dy)), 0.8)
        assert found is not None
        assert (found.box.x, found.box.y) == pytest.approx((BOX.x, BOX.y + dy), abs=2)


@pytest.mark.parametrize(("x", "y"), [(-9, -9), (0, 0), (419, 319)])
def test_a_face_at_the_edge_is_found_where_it_is(x: float, y: float) -> None:
    found = Template(Pyramid(TEXTURE), Detection(FaceBox(x, y, 90, 90))).find(Pyramid(TEXTURE), 0.99)
    assert found is not None
    assert (found.box.x, found.box.y) == pytest.approx((x, y), abs=0.5)


def test_another_brightness_is_the_same_face() -> None:
    darker = (TEXTURE * 0.6).astype(np.uint8)
    assert Template(Pyramid(TEXTURE), Detection(BOX)).find(Pyramid(darker), 0.9) is not None


def test_something_else_is_not() -> None:
    other = np.ascontiguousarray(TEXTURE[::-1, ::-1])
    assert Template(Pyramid(TEXTURE), Detection(BOX)).find(Pyramid(other), 0.8) is None
    assert Template(Pyramid(TEXTURE), Detection(BOX)).find(Pyramid(np.zeros_like(TEXTURE)), 0.8) is None


@pytest.mark.parametrize(("dx", "dy"), [(0, 24), (24, 0), (-24, -24)])
def test_it_reaches_a_quarter_of_a_width_in_a_frame(dx: int, dy: int) -> None:
    found = Template(Pyramid(TEXTURE), Detection(BOX)).find(Pyramid(moved(dx, dy)), 0.8)
    assert found is not None
    assert (found.box.x, found.box.y) == pytest.approx((BOX.x + dx, BOX.y + dy), abs=1.5)


@pytest.mark.parametrize(("dx", "dy"), [(0, 45), (45, 0), (-45, 45)])
def test_what_is_half_a_width_away_is_left_to_the_detector(dx: int, dy: int) -> None:
    assert Template(Pyramid(TEXTURE), Detection(BOX)).find(Pyramid(moved(dx, dy)), 0.8) is None


@pytest.mark.parametrize("width", [20, 30, 39, 41, 60, 79, 81, 150, 160, 300])
def test_a_face_is_followed_at_twenty_to_forty_pixels(width: int) -> None:
    pixels = Template(Pyramid(TEXTURE), Detection(FaceBox(50, 50, width, width)))._pixels
    assert 20 * 0.8 - 1 <= pixels.shape[0] == pixels.shape[1] <= 40 * 0.8 + 1


def test_what_lies_behind_a_face_does_not_matter() -> None:
    after = np.full_like(TEXTURE, 200)
    after[156:232, 208:284] = TEXTURE[156:232, 208:284]  # behind the rest of the box is something else now
    found = Template(Pyramid(TEXTURE), Detection(BOX)).find(Pyramid(after), 0.97)
    assert found is not None
    assert (found.box.x, found.box.y) == pytest.approx((BOX.x, BOX.y), abs=1.5)


@pytest.mark.parametrize(("side", "followed"), [(4, False), (6, True)])
def test_a_face_of_a_few_pixels_is_left_to_the_detector(side: int, followed: bool) -> None:
    gray = np.random.default_rng(1).integers(0, 256, (60, 60)).astype(np.uint8)
    template = Template(Pyramid(gray), Detection(FaceBox(30, 30, side, side)))
    assert (template.find(Pyramid(gray), 0.8) is not None) == followed
    assert (template.find(Pyramid(np.roll(gray, 2, axis=(0, 1))), 0.8) is not None) == followed


@pytest.mark.parametrize(
    ("values", "place", "beside"),
    [
        ([0.5, 1.0, 0.5], 1, 0.0),
        ([1.0, 1.0, 0.0], 1, -0.5),
        ([0.0, 1.0, 1.0], 1, 0.5),
        ([0.0, 9.0, 0.0, 4.0, 2.0], 3, 1 / 6),  # 0.5 * (0 - 2) / (0 - 8 + 2)
        ([0.7, 0.7, 0.7], 1, 0.0),
        ([1.0, 0.5, 0.2], 0, 0.0),
        ([0.2, 0.5, 1.0], 2, 0.0),
    ],
)
def test_the_peak_is_the_top_of_a_parabola(values: list[float], place: int, beside: float) -> None:
    assert _peak(np.array(values), place) == pytest.approx(beside)


def test_a_pyramid_halves_by_means() -> None:
    gray = np.array([[0, 4, 10, 20, 99], [8, 12, 30, 40, 99], [1, 1, 3, 3, 99], [1, 1, 3, 3, 99]], np.uint8)
    pyramid = Pyramid(gray)
    assert pyramid.level(0) is gray
    assert [pyramid.level(number).shape for number in (3, 2, 1)] == [(1, 1), (1, 2), (2, 3)]
    assert pyramid.level(1).tolist() == [[6, 25, 99], [1, 3, 99]]
    even = Pyramid(np.ascontiguousarray(gray[:, :4]))
    assert even.level(1).tolist() == [[6, 25], [1, 3]]


@pytest.mark.parametrize("side", [64, 65, 66, 67, 71, 127])
def test_a_pixel_of_a_half_is_as_wide_as_those_it_is_made_of(side: int) -> None:
    """Whatever the side: else what a half shows far from the first pixel would be taken for something further in."""
    ramp = np.tile(np.arange(side, dtype=np.uint8), (4, 1))
    pyramid = Pyramid(ramp)
    for number in (1, 2, 3):
        first = np.arange(side // 2**number) * 2**number
        assert np.abs(pyramid.level(number)[0, : len(first)] - (first + (2**number - 1) / 2)).max() <= 1.5


sides = st.floats(1, 300)
places = st.floats(-200, 600)


@settings(max_examples=50, deadline=None)
@given(st.builds(FaceBox, places, places, sides, sides))
def test_any_box_is_answered(box: FaceBox) -> None:
    found = Template(Pyramid(TEXTURE), Detection(box)).find(Pyramid(TEXTURE), 0.8)
    assert found is None or found.box.iou(box) > 0.5
