"""The detector's losses against closed forms, and its assignment against toy cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from datasets.boxes import BACKGROUND, FACE, IGNORED
from edge_fer.detection import ssd
from training.detector import assignment
from training.detector.assignment import Truth, assign, bce_loss, cells, decode, eiou_loss, iou, losses, smooth_l1_loss

SIDE = 64
CENTERS, STRIDES = cells(SIDE, SIDE)


def value(tensor: object) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32)


def truth(kinds: list[int], rows: list[tuple[float, ...]], points: float | None = None) -> Truth:
    marks = np.zeros((1, len(rows), 5, 2), np.float32)
    if points is not None:
        marks += points
    return Truth(
        kinds=np.array([kinds], np.int32),
        boxes=boxes(*rows)[None],
        points=marks,
        has_points=np.full((1, len(rows)), float(points is not None), np.float32),
    )


def outputs_for(rows: list[tuple[float, ...]], score: float = 5.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a network says that finds these boxes in all cells whose center lies in one, and nothing else."""
    scores = np.full((1, len(STRIDES), 1), -score, np.float32)
    found = np.zeros((1, len(STRIDES), 4), np.float32)
    for left, top, right, bottom in rows:
        inside = ((left, top) < CENTERS).all(axis=1) & ((right, bottom) > CENTERS).all(axis=1)
        scores[0, inside] = score
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        found[0, inside, :2] = ((middle - CENTERS) / STRIDES[:, None])[inside]
        found[0, inside, 2:] = np.log(np.array([right - left, bottom - top]) / STRIDES[:, None])[inside]
    return scores, found, np.zeros((1, len(STRIDES), 10), np.float32)


def test_cells_are_those_of_the_device() -> None:
    for size_hw in ((64, 64), (240, 320), (120, 160), (96, 32)):
        for ours, devices in zip(cells(*size_hw), ssd.cells(size_hw), strict=True):
            assert np.array_equal(ours, devices)
    assert len(CENTERS) == 8 * 8 + 4 * 4 + 2 * 2
    assert CENTERS[0].tolist() == [4, 4] and CENTERS[-1].tolist() == [48, 48]


def test_numbers_are_read_as_on_the_device() -> None:
    rng = np.random.default_rng(0)
    raw, points = (rng.normal(0, 1, (1, len(STRIDES), n)).astype(np.float32) for n in (4, 10))
    found, marks = (value(one)[0] for one in decode(raw, points, CENTERS, STRIDES))
    rows = ssd.decoded(raw[0], points[0], CENTERS, STRIDES)
    assert found[:, :2] == pytest.approx(rows[:, :2] - rows[:, 2:4] / 2, abs=1e-3)
    assert found[:, 2:] == pytest.approx(rows[:, :2] + rows[:, 2:4] / 2, abs=1e-3)
    assert marks.reshape(-1, 10) == pytest.approx(rows[:, 4:], abs=1e-3)


def test_iou_and_eiou_in_closed_form() -> None:
    # 10x10 boxes, one shifted by 5: overlap 50 of 150; the enclosing box is 15x10.
    one, other = boxes((0, 0, 10, 10)), boxes((5, 0, 15, 10))
    assert value(iou(one, other)) == pytest.approx([1 / 3])
    assert value(eiou_loss(one, other)) == pytest.approx([1 - 1 / 3 + 25 / (15**2 + 10**2)], rel=1e-4)
    # The same center, half the width: overlap 50 of 100; the difference of the widths is 5 of 10.
    narrow = boxes((2.5, 0, 7.5, 10))
    assert value(eiou_loss(one, narrow)) == pytest.approx([1 - 0.5 + 0.25], rel=1e-4)
    # Apart: no overlap, and yet a slope.
    far = boxes((20, 0, 30, 10))
    assert value(eiou_loss(one, far)) == pytest.approx([1 + 400 / (900 + 100)], rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 50), min_size=4, max_size=4), st.lists(st.floats(1, 50), min_size=4, max_size=4))
def test_eiou_is_zero_for_the_same_box_alone(corner: list[float], size: list[float]) -> None:
    one = boxes((corner[0], corner[1], corner[0] + size[0], corner[1] + size[1]))
    other = boxes((corner[2], corner[3], corner[2] + size[2], corner[3] + size[3]))
    assert value(eiou_loss(one, one)) == pytest.approx([0.0], abs=1e-4)
    loss, overlap = float(value(eiou_loss(one, other))[0]), float(value(iou(one, other))[0])
    assert 1 - overlap - 1e-4 <= loss <= 1 - overlap + 3 + 1e-4


@pytest.mark.parametrize("logit", [-3.0, 0.0, 2.0])
@pytest.mark.parametrize("wanted", [0.0, 1.0])
def test_cross_entropy_in_closed_form(logit: float, wanted: float) -> None:
    score = 1 / (1 + math.exp(-logit))
    expected = -math.log(score if wanted else 1 - score)
    assert float(value(bce_loss(np.float32(logit), wanted))) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_of_large_logits_is_finite() -> None:
    assert value(bce_loss(np.array([-1e4, 1e4], np.float32), np.array([1.0, 0.0], np.float32))) == pytest.approx(1e4)


def test_smooth_l1_in_closed_form() -> None:
    found = value(smooth_l1_loss(np.array([0, 0.05, -0.1, 0.2, -2], np.float32), 0.1))
    assert found == pytest.approx([0, 0.05**2 / 0.2, 0.05, 0.15, 1.95])


def test_a_face_takes_as_many_cells_as_its_overlaps_add_up_to() -> None:
    rows = [(16.0, 16.0, 48.0, 48.0)]
    scores, found, points = outputs_for(rows)
    decoded = decode(found, points, CENTERS, STRIDES)[0]
    (assigned,) = value(assign(scores[..., 0], decoded, truth([FACE], rows), CENTERS, STRIDES))
    # Sixteen cells of stride 8, four of 16, none of 32 lie inside and overlap wholly: ten is the most. Those cost
    # alike, so that all of them are taken.
    near = (np.abs(CENTERS - 32) < 2.5 * STRIDES[:, None]).all(axis=1)
    inside = (np.abs(CENTERS - 32) < 16).all(axis=1)
    assert set(np.flatnonzero(assigned == 0)) <= set(np.flatnonzero(near & inside))
    assert (assigned == 0).sum() >= 10
    assert (assigned[~inside] == -1).all()


def test_a_face_that_nothing_overlaps_takes_the_cheapest_cell_alone() -> None:
    rows = [(17.0, 17.0, 23.0, 23.0)]
    scores = np.full((1, len(STRIDES)), -3.0, np.float32)
    tiny = np.zeros((1, len(STRIDES), 4), np.float32)
    tiny[..., 2:] = -4.0  # boxes of nearly no size
    decoded = decode(tiny, np.zeros((1, len(STRIDES), 10), np.float32), CENTERS, STRIDES)[0]
    (assigned,) = value(assign(scores, decoded, truth([FACE], rows), CENTERS, STRIDES))
    (cell,) = np.flatnonzero(assigned == 0)
    assert CENTERS[cell].tolist() == [20, 20]  # the one cell of stride 8 that lies in it


def test_a_cell_that_two_faces_want_goes_to_the_better() -> None:
    rows = [(8.0, 8.0, 40.0, 40.0), (20.0, 8.0, 52.0, 40.0)]
    scores, found, points = outputs_for(rows)  # in cells of both: the second
    decoded = decode(found, points, CENTERS, STRIDES)[0]
    (assigned,) = value(assign(scores[..., 0], decoded, truth([FACE, FACE], rows), CENTERS, STRIDES))
    between = (CENTERS > (20, 8)).all(axis=1) & (CENTERS < (40, 40)).all(axis=1) & (assigned >= 0)
    assert between.any() and (assigned[between] == 1).all()
    assert (assigned == 0).sum() >= 1
    assert set(assigned) == {-1, 0, 1}


@pytest.mark.parametrize("kind", [BACKGROUND, IGNORED])
def test_what_is_no_face_takes_no_cell(kind: int) -> None:
    rows = [(16.0, 16.0, 48.0, 48.0)]
    scores, found, points = outputs_for(rows)
    decoded = decode(found, points, CENTERS, STRIDES)[0]
    assert (value(assign(scores[..., 0], decoded, truth([kind], rows), CENTERS, STRIDES)) == -1).all()


def test_a_network_that_finds_all_loses_next_to_nothing_and_one_that_is_wrong_loses() -> None:
    rows = [(16.0, 16.0, 48.0, 48.0)]
    scores, found, points = outputs_for(rows, score=20.0)
    marks = np.full((1, 1, 5, 2), 32.0)
    points = ((marks[:, 0] - CENTERS[:, None]) / STRIDES[:, None, None]).reshape(1, -1, 10).astype(np.float32)
    right = truth([FACE], rows, 32.0)
    score, box, point = (float(value(one)) for one in losses((scores, found, points), right, CENTERS, STRIDES))
    assert box == pytest.approx(0, abs=1e-3) and point == pytest.approx(0, abs=1e-3)
    # The landmarks 3.2 pixels off in x: a tenth of the face's side, the loss in closed form.
    points[0, :, ::2] += 3.2 / STRIDES[:, None]
    _, _, point = (float(value(one)) for one in losses((scores, found, points), right, CENTERS, STRIDES))
    expected = assignment.POINTS_WEIGHT * (0.1 - assignment.SMOOTH / 2) / 2
    assert point == pytest.approx(expected, rel=1e-3)
    missed = losses((-scores, found, points), right, CENTERS, STRIDES)
    assert float(value(missed[0])) > score + 10


def test_ignored_regions_and_unknown_landmarks_cost_nothing() -> None:
    rows = [(16.0, 16.0, 48.0, 48.0)]
    outputs = outputs_for(rows)
    ignored, _, _ = (float(value(one)) for one in losses(outputs, truth([IGNORED], rows), CENTERS, STRIDES))
    background, _, _ = (float(value(one)) for one in losses(outputs, truth([BACKGROUND], rows), CENTERS, STRIDES))
    assert ignored < 1 < background
    _, _, points = losses(outputs, truth([FACE], rows), CENTERS, STRIDES)
    assert float(value(points)) == 0
