"""Boxes, frames and predictions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import Expression, FaceBox, Frame, Prediction

sides = st.floats(1, 500)
places = st.floats(-200, 800)
boxes = st.builds(FaceBox, places, places, sides, sides)


def test_iou_of_known_boxes() -> None:
    box = FaceBox(0, 0, 10, 10)
    assert box.iou(box) == 1
    assert box.iou(FaceBox(5, 0, 10, 10)) == 50 / 150
    assert box.iou(FaceBox(10, 0, 10, 10)) == 0  # they touch
    assert box.iou(FaceBox(2, 2, 5, 5)) == 0.25


@given(boxes, boxes)
def test_iou_is_symmetric_and_a_share(one: FaceBox, other: FaceBox) -> None:
    assert one.iou(other) == other.iou(one)
    assert 0 <= one.iou(other) <= 1 + 1e-9


def test_a_grey_frame_has_a_picture_that_may_be_drawn_on() -> None:
    gray = np.full((4, 6), 7, np.uint8)
    picture = Frame(gray, 0, 0.0, "x").picture()
    assert picture.shape == (4, 6, 3)
    picture[:] = 0
    assert (gray == 7).all()


def test_a_colored_frame_gives_a_copy() -> None:
    color = np.full((4, 6, 3), 9, np.uint8)
    picture = Frame(color[..., 0], 0, 0.0, "x", color=lambda: color).picture()
    picture[:] = 0
    assert (color == 9).all()


def test_the_expression_is_the_most_probable_one() -> None:
    prediction = Prediction({Expression.FEAR: 0.2, Expression.ANGER: 0.7, Expression.NEUTRAL: 0.1})
    assert prediction.expression is Expression.ANGER
    assert prediction.confidence == 0.7
