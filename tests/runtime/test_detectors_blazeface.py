"""BlazeFace's anchors, decoder, suppression and windows, reckoned by hand; what is not BlazeFace is refused."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import Landmarks
from edge_fer.detection.blazeface import (
    LAYOUTS,
    BlazeFaceDetector,
    anchors_px,
    decoded,
    merged,
    sigmoid,
    windows,
)
from edge_fer.errors import DataError
from edge_fer.model.bundle import DEFAULT_MODEL
from edge_fer.model.litert import load_runtime

SHORT_RANGE, FULL_RANGE = 896, 2304
SIZES = {SHORT_RANGE: 128, FULL_RANGE: 192}
"""Side of the input by number of anchors."""


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model", struct.pack("<I", 16) + b"TFL3" + bytes(64), DEFAULT_MODEL.read_bytes()],
    ids=["empty", "text", "cut short", "another network"],
)
def test_a_file_that_is_not_blazeface_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^\S+model.tflite is not a BlazeFace model\. Get "):
        BlazeFaceDetector(path)


# --- step by step


def test_anchors_stand_in_the_middle_of_their_cells() -> None:
    # 8 pixels, 2x2 cells with one anchor each, then one cell with two. Rows first, as MediaPipe counts.
    table = [[2, 2], [6, 2], [2, 6], [6, 6], [4, 4], [4, 4]]
    assert anchors_px(8, ((2, 1), (1, 2))).tolist() == table


@pytest.mark.parametrize("count", [SHORT_RANGE, FULL_RANGE])
def test_the_layouts_have_as_many_anchors_as_the_models(count: int) -> None:
    anchors = anchors_px(SIZES[count], LAYOUTS[count].grids)
    assert anchors.shape == (count, 2)
    assert anchors.dtype == np.float32


def test_the_first_anchors_of_the_short_range_model() -> None:
    # MediaPipe's table, in shares of the input: 16x16 cells with two anchors, 8x8 with six.
    anchors = anchors_px(128, LAYOUTS[SHORT_RANGE].grids) / 128
    table = {0: (0.03125, 0.03125), 1: (0.03125, 0.03125), 2: (0.09375, 0.03125), 511: (0.96875, 0.96875)}
    table |= {512: (0.0625, 0.0625), 517: (0.0625, 0.0625), 518: (0.1875, 0.0625), 895: (0.9375, 0.9375)}
    for place, wanted in table.items():
        assert tuple(anchors[place].tolist()) == wanted


def test_boxes_are_decoded_from_their_anchors() -> None:
    raw = np.zeros((2, 16), np.float32)
    raw[0, :6] = (1.5, -2, 30, 40, 9, -9)
    raw[1, :4] = (0, 0, 10, 10)
    anchors = np.array([[4, 12], [60, 20]], np.float32)
    rows = decoded(raw, anchors)
    assert rows[:, :4].tolist() == [[5.5, 10, 30, 40], [60, 20, 10, 10]]
    assert rows[:, 4:].tolist() == [[13, 3, *[4, 12] * 5], [60, 20] * 6]  # points stand relative to the anchor too
    assert raw[0, 0] == 1.5


def test_scores_are_probabilities_even_of_huge_logits() -> None:
    with np.errstate(all="raise"):
        scores = sigmoid(np.array([0, math.log(3), -math.log(3), 1e9, -1e9], np.float32))
    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx([0.5, 0.75, 0.25, 1, 0])


def test_boxes_of_one_face_become_their_weighted_mean() -> None:
    boxes = np.array(
        [
            [10, 10, 10, 10],
            [100, 50, 20, 20],  # another face
            [12, 10, 10, 10],  # IoU with the first 80 / 120 = 0.67
            [20, 20, 10, 10],  # touches the first in a corner: IoU 0
        ],
        np.float32,
    )
    scores = np.array([0.6, 0.9, 0.2, 0.3], np.float32)
    faces, best = merged(boxes, scores, 0.3)
    # (0.6 * 10 + 0.2 * 12) / 0.8 = 10.5
    assert faces == pytest.approx(np.array([[100, 50, 20, 20], [10.5, 10, 10, 10], [20, 20, 10, 10]]))
    assert best == pytest.approx([0.9, 0.6, 0.3])


def test_boxes_are_compared_with_the_best_alone() -> None:
    # A chain: each overlaps the next by 5 / 15 = 0.33, the ends not at all. The middle one is best and takes both.
    chain = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 10, 10]], np.float32)
    assert merged(chain, np.array([0.5, 0.8, 0.5], np.float32), 0.3)[0] == pytest.approx(np.array([[5, 0, 10, 10]]))
    # An end is best: it takes the middle one, (0.8 * 0 + 0.4 * 5) / 1.2, and the other end stays.
    ends, _ = merged(chain, np.array([0.8, 0.4, 0.6], np.float32), 0.3)
    assert ends == pytest.approx(np.array([[5 / 3, 0, 10, 10], [10, 0, 10, 10]]), abs=1e-5)


def test_an_overlap_of_exactly_the_limit_is_two_faces() -> None:
    pair = np.array([[0, 0, 10, 10], [5, 0, 10, 10]], np.float32)  # IoU 50 / 150
    assert len(merged(pair, np.array([0.9, 0.8], np.float32), 50 / 150)[0]) == 2
    assert len(merged(pair, np.array([0.9, 0.8], np.float32), 0.33)[0]) == 1


def test_no_boxes_are_no_faces() -> None:
    rows, scores = merged(np.zeros((0, 16), np.float32), np.zeros(0, np.float32), 0.3)
    assert (rows.shape, scores.shape) == ((0, 16), (0,))


def test_large_faces_need_the_whole_picture_only() -> None:
    # 24 of 128 pixels are 120 of 640.
    assert list(windows((480, 640), 128, 24, 120)) == [(0, 0, 640, math.inf)]


def test_small_faces_need_smaller_windows_that_overlap() -> None:
    # The whole picture shows faces from 16 * 640 / 192 = 53 pixels; those from 40 want windows of 480, side by side.
    whole, left, right = windows((480, 640), 192, 16, 40)
    assert whole == (0, 0, 640, math.inf)
    assert left[:3] == (0, 0, 480)
    assert right[:3] == (160, 0, 480)
    assert left[3] == right[3] == pytest.approx(16 * 640 / 192)


@pytest.mark.parametrize("min_px", [24, 37.3, 40, 59.9])
def test_windows_come_to_an_end_where_sides_do_not_divide(min_px: float) -> None:
    # Faces of 40 pixels want windows of 213.33: with 214 they would be 0.1 too small, and so again with 214.
    assert len(list(islice(windows((480, 640), 128, 24, min_px), 1000))) < 100


@given(
    st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    st.sampled_from([(128, 24), (192, 16)]),
    st.floats(16, 200),
    st.data(),
)
def test_every_wanted_face_is_whole_and_large_enough_in_a_window(
    shape: tuple[int, int], network: tuple[int, int], min_px: float, data: st.DataObject
) -> None:
    size, smallest_px = network
    height, width = shape
    min_px = max(min_px, max(shape) / 60)
    if min(shape) < min_px:
        return
    face = data.draw(st.floats(min_px, min(shape)))
    x, y = data.draw(st.floats(0, width - face)), data.draw(st.floats(0, height - face))
    good = [
        side
        for left, top, side, largest_px in windows(shape, size, smallest_px, min_px)
        if left - 1 <= x
        and x + face <= left + side + 1
        and top - 1 <= y
        and y + face <= top + side + 1
        # A pixel of rounding in the side is no miss.
        and face * size / side >= smallest_px - 0.5
        and face < largest_px
    ]
    assert good


# --- the whole way, with numbers in the place of the network


Outputs = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Makes raw boxes (896, 16) and logits (896,) of the input (1, 128, 128, 3)."""


class FakeInterpreter:
    """In the place of LiteRT's with the short range model: its outputs are made by ``outputs``."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self._values: dict[int, np.ndarray] = {}

    def allocate_tensors(self) -> None:
        pass

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return []

    def get_input_details(self) -> list[dict[str, Any]]:
        return [self._tensor(0, [1, 128, 128, 3])]

    def get_output_details(self) -> list[dict[str, Any]]:
        # The scores first: the order in the file is not the same in all exports.
        shapes = {174: [1, SHORT_RANGE, 1], 175: [1, SHORT_RANGE, 16]}
        return [self._tensor(index, shape) for index, shape in shapes.items()]

    @staticmethod
    def _tensor(index: int, shape: list[int]) -> dict[str, Any]:
        return {
            "name": str(index),
            "index": index,
            "shape": np.array(shape),
            "dtype": np.float32,
            "quantization": (0.0, 0),
        }

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        assert index == 0 and value.dtype == np.float32 and value.shape == (1, 128, 128, 3)
        assert value.min() >= -1.0 and value.max() <= 1.0
        self._values[0] = value

    def invoke(self) -> None:
        boxes, logits = self._outputs(self._values[0])
        self._values[174], self._values[175] = logits[np.newaxis, :, np.newaxis], boxes[np.newaxis]

    def get_tensor(self, index: int) -> np.ndarray:
        return self._values[index]


@pytest.fixture
def detector_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Outputs], BlazeFaceDetector]:
    """Makes a detector whose network gives what is wanted."""

    def make(outputs: Outputs) -> BlazeFaceDetector:
        def interpreter(model_content: bytes, num_threads: int) -> FakeInterpreter:
            assert model_content == b"a model" and num_threads == 1
            return FakeInterpreter(outputs)

        monkeypatch.setattr("edge_fer.model.litert.load_runtime", lambda: SimpleNamespace(Interpreter=interpreter))
        (tmp_path / "model.tflite").write_bytes(b"a model")
        return BlazeFaceDetector(tmp_path / "model.tflite")

    return make


def test_the_fake_takes_and_gives_what_the_short_range_model_does(real_model: Callable[[str], Path]) -> None:
    real = load_runtime().Interpreter(model_path=str(real_model("face_detection_short_range.tflite")))
    fake = FakeInterpreter(no_box)
    for details in ("get_input_details", "get_output_details"):
        forms = [sorted((tuple(one["shape"]), one["dtype"]) for one in getattr(net, details)()) for net in (real, fake)]
        assert forms[0] == forms[1]


def no_box(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Real logits go as low, too.
    return np.zeros((SHORT_RANGE, 16), np.float32), np.full(SHORT_RANGE, -1000, np.float32)


def one_box(anchor: int, raw: tuple[float, ...], logit: float) -> Outputs:
    def outputs(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, logits = no_box(tensor)
        boxes[anchor, : len(raw)], logits[anchor] = raw, logit
        return boxes, logits

    return outputs


def test_a_box_of_the_network_becomes_one_of_the_frame(detector_of: Callable[[Outputs], BlazeFaceDetector]) -> None:
    # Anchor 518 stands at (24, 8) of 128 pixels. 320 pixels make 128: all counts 2.5 times.
    layout = LAYOUTS[SHORT_RANGE]
    points = (-16, 14, 28, 14, 6, 30, 6, 40)  # eyes, nose and mouth, relative to the anchor
    detector = detector_of(one_box(518, (6, 22, 40, 40, *points), 3.0))
    (face,) = detector.detect(np.zeros((240, 320), np.uint8), 60)
    box, side = face.box, layout.side * 100
    wanted = (75 - side / 2, 75 + layout.shift * 100 - side / 2, side, side)
    assert (box.x, box.y, box.w, box.h) == pytest.approx(wanted, abs=1e-3)
    assert face.score == pytest.approx(1 / (1 + math.exp(-3)))
    assert face.landmarks == Landmarks((20, 55), (130, 55), (75, 95), ((75, 120),))


def test_blazeface_is_content_with_less_where_a_face_is_expected(
    detector_of: Callable[[Outputs], BlazeFaceDetector],
) -> None:
    detector = detector_of(one_box(518, (6, 22, 40, 40), math.log(0.4 / 0.6)))
    gray = np.zeros((240, 320), np.uint8)
    assert detector.detect(gray, 60) == []
    assert len(detector.detect(gray, 60, expected=True)) == 1
    assert len(detector.detect(gray, 60, coarse=True)) == 1


@pytest.mark.parametrize("raw", [(0, 0, 0, 40), (0, 0, -40, 40), (0, 0, 40, -1)])
def test_a_box_without_an_area_is_none(
    detector_of: Callable[[Outputs], BlazeFaceDetector], raw: tuple[float, ...]
) -> None:
    assert detector_of(one_box(518, raw, 3.0)).detect(np.zeros((240, 320), np.uint8), 60) == []


def test_pixels_reach_the_network_in_its_upper_left_corner(detector_of: Callable[[Outputs], BlazeFaceDetector]) -> None:
    given = []

    def outputs(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given.append(tensor)
        return no_box(tensor)

    gray = np.full((128, 256), 255, np.uint8)
    gray[:, 128:] = 0
    detector_of(outputs).detect(gray, 60)
    (tensor,) = given
    assert (tensor[0, :64, :64] == 1).all()
    assert (tensor[0, :64, 64:] == -1).all()
    assert (tensor[0, 64:] == -1).all()  # what is not there is black
