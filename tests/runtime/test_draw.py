"""Boxes and labels on pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from story import predict

from edge_fer.core import Expression, Face, FaceBox, Prediction, Quality
from edge_fer.draw import COLORS, annotate


@pytest.mark.parametrize("expression", list(Expression))
def test_boxes_have_the_color_of_their_expression(expression: Expression) -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    box = FaceBox(200, 150, 160, 160)
    prediction = Prediction({label: float(label == expression) for label in Expression})
    annotate(
        picture, [Face(1, "start", box, prediction.expression, prediction, prediction, 0.0, Quality(160, 1.0, 0.5))]
    )
    red, green, blue = bytes.fromhex(COLORS[expression][1:])
    for y, x in ((150, 280), (310, 280), (230, 200), (230, 360)):
        assert picture[y, x].tolist() == [blue, green, red]
    assert not picture[160:300, 210:350].any()  # the face itself stays free


def test_faces_keep_their_colors_apart() -> None:
    assert len(set(COLORS.values())) == len(COLORS) == len(Expression)


def test_a_label_goes_where_no_other_face_is() -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    prediction = predict(Expression.ANGER)
    boxes = [FaceBox(300, 200, 60, 60), FaceBox(380, 150, 60, 60), FaceBox(380, 250, 60, 60)]
    quality = Quality(60, 1.0, 0.5)
    annotate(
        picture,
        [Face(1, "start", box, prediction.expression, prediction, prediction, 0.0, quality) for box in boxes],
    )
    assert picture[180:190, 250:290].any()  # above the first face, and to the left of it
    for box in boxes:
        assert not picture[int(box.y) + 6 : int(box.y) + 54, int(box.x) + 6 : int(box.x) + 54].any()


@given(
    size_hw=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    boxes=st.lists(st.tuples(*[st.floats(-400, 400)] * 2, *[st.floats(0.1, 400)] * 2), max_size=4),
)
def test_any_box_can_be_drawn_on_any_picture(size_hw: tuple[int, int], boxes: list[tuple[float, ...]]) -> None:
    picture = np.zeros((*size_hw, 3), np.uint8)
    prediction = predict(Expression.ANGER)
    quality = Quality(1, 1.0, 0.5)
    annotate(
        picture,
        [Face(9, "start", FaceBox(*box), prediction.expression, prediction, prediction, 0.0, quality) for box in boxes],
    )
    assert picture.shape == (*size_hw, 3)
