"""All detectors keep one contract, and each keeps what its file promises.

Haar and LBP run their real cascades. The networks of YuNet and BlazeFace do not ship: in their place stand fakes that
take and give what the real ones do. A fake looks at the pixels it was given with a cascade, and reports the faces in
the network's own terms, so that wrong pixels, a wrong scale or a wrong decoder make it miss.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.config import DetectorSettings
from edge_fer.core import FaceBox, FaceDetector, Frame, Image
from edge_fer.detection import LBP_CASCADE, blazeface, open_detector
from edge_fer.detection.blazeface import (
    LAYOUTS,
    BlazeFaceDetector,
    anchors_px,
    decoded,
    merged,
    sigmoid,
    windows,
)
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.detection.yunet import YuNetDetector
from edge_fer.errors import ConfigError, DataError, InputMissingError, UnavailableError
from edge_fer.model.bundle import DEFAULT_MODEL

SHORT_RANGE, FULL_RANGE = 896, 2304
SIZES = {SHORT_RANGE: 128, FULL_RANGE: 192}
"""Side of the input by number of anchors."""


def seen_by_the_fake(gray: Image, enlarged: int) -> list[tuple[float, float, float]]:
    """Centre x, y and width of the faces in a network's input."""
    large = cv2.resize(gray, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC)
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    found = cascade.detectMultiScale(large, 1.1, 4, minSize=(50, 50))
    return [((x + w / 2) / enlarged, (y + h / 2) / enlarged, w / enlarged) for x, y, w, h in found]


class FakeYuNet:
    """In the place of ``cv2.FaceDetectorYN``. ``rows`` are reported instead of what is seen, where they are given."""

    rows: np.ndarray | None = None

    def __init__(self, input_size: tuple[int, int], score_threshold: float) -> None:
        self._size_wh, self._threshold = input_size, score_threshold

    @classmethod
    def create(
        cls, model: str, config: str, input_size: tuple[int, int], score_threshold: float, nms_threshold: float
    ) -> FakeYuNet:
        assert Path(model).is_file() and config == "" and 0 < nms_threshold < 1
        return cls(input_size, score_threshold)

    def setInputSize(self, size: tuple[int, int]) -> None:  # OpenCV's name
        self._size_wh = size

    def setScoreThreshold(self, threshold: float) -> None:
        self._threshold = threshold

    def detect(self, picture: Image) -> tuple[int, np.ndarray | None]:
        if picture.shape != (self._size_wh[1], self._size_wh[0], 3):
            raise cv2.error("Size does not match. Call setInputSize(size) if input size does not match the preset size")
        rows = self.rows
        if rows is None:
            # Wider than high by a third: the area is that of a Haar box less 1.1 a side.
            sides = [
                (x, y, w / 1.1 * 0.75**0.5, w / 1.1 / 0.75**0.5) for x, y, w in seen_by_the_fake(picture[..., 0], 2)
            ]
            rows = np.array([[x - w / 2, y - h / 2, w, h, *[0] * 10, 0.9] for x, y, w, h in sides]).reshape(-1, 15)
        rows = rows[rows[:, 14] >= self._threshold].astype(np.float32)
        return 1, rows if len(rows) else None


class FakeInterpreter:
    """In the place of LiteRT's, for a BlazeFace of so many anchors."""

    def __init__(self, anchors: int, outputs: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None) -> None:
        self._layout, self._size = LAYOUTS[anchors], SIZES[anchors]
        self._anchors = anchors_px(self._size, self._layout.grids)
        self._outputs = outputs or self._look
        self._values: dict[int, np.ndarray] = {}

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 0, "shape": np.array([1, self._size, self._size, 3]), "dtype": np.float32}]

    def get_output_details(self) -> list[dict[str, Any]]:
        # The scores first: the order in the file is not the same in all exports.
        count = len(self._anchors)
        shapes = {174: [1, count, 1], 175: [1, count, 16]}
        return [{"index": index, "shape": np.array(shape), "dtype": np.float32} for index, shape in shapes.items()]

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        assert index == 0 and value.dtype == np.float32 and value.shape == (1, self._size, self._size, 3)
        assert value.min() >= -1.0 and value.max() <= 1.0
        self._values[0] = value

    def invoke(self) -> None:
        boxes, logits = self._outputs(self._values[0])
        self._values[174], self._values[175] = logits[np.newaxis, :, np.newaxis], boxes[np.newaxis]

    def get_tensor(self, index: int) -> np.ndarray:
        return self._values[index]

    def _look(self, tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gray = np.rint((tensor[0, :, :, 0] + 1) * 127.5).astype(np.uint8)
        boxes = np.zeros((len(self._anchors), 16), np.float32)
        logits = np.full(len(self._anchors), -1000, np.float32)  # real ones go that low, too
        for x, y, w in seen_by_the_fake(gray, 3):
            side = w / self._layout.side
            y -= self._layout.shift * side
            near = np.argsort(np.hypot(*(self._anchors - (x, y)).T), kind="stable")[:3]
            boxes[near, :4] = np.column_stack([(x, y) - self._anchors[near], np.full((3, 2), side)])
            logits[near] = (3, 2, 1)
        return boxes, logits


@pytest.fixture
def runtime_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a fake BlazeFace of so many anchors in the place of the runtime."""

    def put(anchors: int, outputs: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None) -> None:
        def interpreter(model_content: bytes, num_threads: int) -> FakeInterpreter:
            assert model_content and num_threads == 1
            return FakeInterpreter(anchors, outputs)

        monkeypatch.setattr(blazeface, "load_runtime", lambda: SimpleNamespace(Interpreter=interpreter))

    return put


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that a fake takes for its model."""
    path = tmp_path / "model"
    path.write_bytes(b"a model")
    return path


# --- the contract


@pytest.fixture(params=["haar", "lbp", "yunet", "blazeface short range", "blazeface full range"])
def detector(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, runtime_of: Callable[..., None], model: Path
) -> FaceDetector:
    kind = request.param
    match kind.split()[0]:
        case "haar":
            return open_detector(DetectorSettings(kind="haar"))
        case "lbp":
            if not LBP_CASCADE.is_file():
                pytest.skip("OpenCV's LBP cascades are not installed here")
            return open_detector(DetectorSettings(kind="lbp"))
        case "yunet":
            monkeypatch.setattr(cv2, "FaceDetectorYN", FakeYuNet)
            return open_detector(DetectorSettings(kind="yunet", model=str(model)))
        case _:
            runtime_of(SHORT_RANGE if kind.endswith("short range") else FULL_RANGE)
            return open_detector(DetectorSettings(kind="blazeface", model=str(model)))


def test_both_faces_of_the_demo_are_found_and_framed_alike(detector: FaceDetector, demo_frames: list[Frame]) -> None:
    for frame in demo_frames[::40]:
        boxes = detector.detect(frame.gray, 60)
        for face in frame.truth:
            assert max(box.iou(face.box) for box in boxes) > 0.6


def test_largest_first(detector: FaceDetector, scene: Image) -> None:
    areas = [box.w * box.h for box in detector.detect(scene, 60)]
    assert len(areas) >= 2
    assert areas == sorted(areas, reverse=True)


def test_only_faces_of_the_wanted_sizes_are_reported(detector: FaceDetector, demo_frames: list[Frame]) -> None:
    frame = demo_frames[60]
    smaller, larger = sorted((face.box for face in frame.truth), key=lambda box: box.w)
    between = (smaller.w + larger.w) / 2
    assert smaller.w < 0.9 * larger.w
    for limits, wanted in (((between, math.inf), larger), ((60, between), smaller)):
        boxes = detector.detect(frame.gray, *limits)
        assert max(box.iou(wanted) for box in boxes) > 0.6
        assert all(0.98 * limits[0] <= box.w <= 1.02 * limits[1] for box in boxes)  # cascades count in whole pixels
    assert detector.detect(frame.gray, 400) == []


def test_small_faces_are_found_where_they_are(detector: FaceDetector, demo_frames: list[Frame]) -> None:
    frame = demo_frames[0]
    canvas = np.full((480, 640), 128, np.uint8)
    canvas[220:400, 340:580] = cv2.resize(frame.gray, (240, 180), interpolation=cv2.INTER_AREA)
    boxes = detector.detect(canvas, 35)
    scale = 180 / 480
    for face in (true.box for true in frame.truth):
        small = FaceBox(340 + face.x * scale, 220 + face.y * scale, face.w * scale, face.h * scale)
        assert max(box.iou(small) for box in boxes) > 0.6


def test_a_part_of_a_picture_is_a_picture_and_is_left_as_it_was(
    detector: FaceDetector, demo_frames: list[Frame]
) -> None:
    frame = demo_frames[0]
    face = frame.truth[0].box
    left, top = int(face.x - 0.4 * face.w), int(face.y - 0.4 * face.h)
    part = frame.gray[top : top + int(1.8 * face.h), left : left + int(1.8 * face.w)]
    assert not part.flags.c_contiguous
    before = part.copy()
    (box,) = detector.detect(part, 0.7 * face.w)
    assert FaceBox(box.x + left, box.y + top, box.w, box.h).iou(face) > 0.6
    assert np.array_equal(part, before)


def test_every_call_stands_alone(detector: FaceDetector, scene: Image) -> None:
    first = detector.detect(scene, 60)
    detector.detect(scene[:200, :300], 40, 80, expected=True)
    detector.detect(scene, 60, rough=True)
    assert detector.detect(scene, 60) == first


@pytest.mark.parametrize("how", ["expected", "rough"])
def test_weaker_evidence_is_enough_where_a_face_is_expected_or_looked_at_again(
    detector: FaceDetector, demo_frames: list[Frame], how: str
) -> None:
    for frame in demo_frames[::40]:
        boxes = detector.detect(frame.gray, 60, **{how: True})
        assert all(max(box.iou(face.box) for box in boxes) > 0.5 for face in frame.truth)


def test_a_large_photo_is_searched_at_the_scale_of_its_faces(detector: FaceDetector, demo_frames: list[Frame]) -> None:
    frame = demo_frames[0]
    large = cv2.resize(frame.gray, None, fx=8, fy=8).astype(np.uint8)  # 20 megapixels
    boxes = [FaceBox(box.x / 8, box.y / 8, box.w / 8, box.h / 8) for box in detector.detect(large, 8 * 60)]
    assert len(boxes) == 2
    assert all(max(box.iou(face.box) for box in boxes) > 0.6 for face in frame.truth)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (900, 3), (19, 19), (480, 640)])
@pytest.mark.parametrize("value", [0, 255])
def test_empty_pictures_of_any_shape_have_no_faces(detector: FaceDetector, shape: tuple[int, int], value: int) -> None:
    for flags in ({}, {"expected": True}, {"rough": True}):
        assert detector.detect(np.full(shape, value, np.uint8), 40, **flags) == []


def test_it_says_how_to_be_used(detector: FaceDetector) -> None:
    assert isinstance(detector.slow_on_large, bool)
    assert 16 <= detector.enough_px <= 64


# --- Haar and LBP


def test_an_opencv_without_cascades_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV 5 has no class; its contrib build has the class, and loads an empty cascade without a word."""
    with monkeypatch.context() as patch:
        patch.delattr(cv2, "CascadeClassifier")
        with pytest.raises(UnavailableError, match="pip install 'opencv-python-headless"):
            CascadeDetector()
    monkeypatch.setattr(cv2.data, "haarcascades", "/nowhere/")
    with pytest.raises(UnavailableError, match="pip install 'opencv-python-headless"):
        CascadeDetector()


@pytest.mark.parametrize("content", ["", "no XML", "<?xml version='1.0'?><opencv_storage><a>1</a></opencv_storage>"])
def test_a_file_that_is_no_cascade_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cascade.xml"
    path.write_text(content)
    with pytest.raises(DataError, match=r"^\S+cascade.xml is not a cascade of OpenCV\. Get "):
        CascadeDetector(path)


def test_lbp_without_its_cascade_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edge_fer.detection.LBP_CASCADE", tmp_path / "none.xml")
    with pytest.raises(UnavailableError, match="sudo apt install opencv-data"):
        open_detector(DetectorSettings(kind="lbp"))


# --- models that must be named


@pytest.mark.parametrize("kind", ["yunet", "blazeface"])
def test_a_network_without_a_model_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigError, match=f"^The detector {kind} needs a model: get .*--detector-model"):
        open_detector(DetectorSettings(kind=kind))


@pytest.mark.parametrize("kind", ["haar", "lbp", "yunet", "blazeface"])
def test_a_model_that_is_not_there_is_refused(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(InputMissingError, match=r"none\b.*Check --detector-model\.$"):
        open_detector(DetectorSettings(kind=kind, model=str(tmp_path / "none")))


def onnx_of_one_relu() -> bytes:
    """A whole ONNX file that OpenCV reads, and that is not YuNet: one Relu from ``input`` to ``y``."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    def number(place: int, value: int) -> bytes:
        return bytes([place << 3, value])

    def value_info(name: bytes) -> bytes:
        shape = b"".join(field(1, number(1, side)) for side in (1, 3, 64, 64))
        return field(1, name) + field(2, field(1, number(1, 1) + field(2, shape)))

    node = field(1, b"input") + field(2, b"y") + field(3, b"r") + field(4, b"Relu")
    graph = field(1, node) + field(2, b"g") + field(11, value_info(b"input")) + field(12, value_info(b"y"))
    return number(1, 8) + field(7, graph) + field(8, number(2, 13))


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(1000), onnx_of_one_relu()])
def test_a_file_that_is_not_yunet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^\S+model.onnx is not YuNet, or was cut short\. Get "):
        YuNetDetector(path)


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


# --- YuNet


@pytest.fixture
def yunet(monkeypatch: pytest.MonkeyPatch, model: Path) -> YuNetDetector:
    monkeypatch.setattr(cv2, "FaceDetectorYN", FakeYuNet)
    return YuNetDetector(model)


def test_boxes_of_yunet_become_squares_of_the_frame(yunet: YuNetDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    # Faces from 48 pixels: the picture is halved, and what is found counts double. Sides 20 and 45 have the mean 30.
    rows = np.array([[10, 20, 20, 45, *[0] * 10, 0.9], [100, 50, 50, 50, *[0] * 10, 0.8]])
    monkeypatch.setattr(FakeYuNet, "rows", rows)
    large, small = yunet.detect(np.zeros((240, 400), np.uint8), 48)
    assert (small.x, small.y, small.w, small.h) == pytest.approx((40 - 33, 85 - 33, 66, 66), abs=1e-3)
    assert (large.x, large.y, large.w, large.h) == pytest.approx((250 - 55, 150 - 55, 110, 110), abs=1e-3)


def test_yunet_is_content_with_less_where_a_face_is_expected(
    yunet: YuNetDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeYuNet, "rows", np.array([[10, 20, 50, 50, *[0] * 10, 0.6]]))
    gray = np.zeros((240, 400), np.uint8)
    assert yunet.detect(gray, 24) == []
    assert len(yunet.detect(gray, 24, expected=True)) == 1
    assert len(yunet.detect(gray, 24, rough=True)) == 1
    assert yunet.detect(gray, 24) == []


# --- BlazeFace: by hand


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
    raw[0, :6] = (1.5, -2, 30, 40, 99, 99)
    raw[1, :4] = (0, 0, 10, 10)
    anchors = np.array([[4, 12], [60, 20]], np.float32)
    assert decoded(raw, anchors).tolist() == [[5.5, 10, 30, 40], [60, 20, 10, 10]]
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
    faces = merged(boxes, scores, 0.3)
    # (0.6 * 10 + 0.2 * 12) / 0.8 = 10.5
    assert faces == pytest.approx(np.array([[100, 50, 20, 20], [10.5, 10, 10, 10], [20, 20, 10, 10]]))


def test_boxes_are_compared_with_the_best_alone() -> None:
    # A chain: each overlaps the next by 5 / 15 = 0.33, the ends not at all. The middle one is best and takes both.
    chain = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 10, 10]], np.float32)
    assert merged(chain, np.array([0.5, 0.8, 0.5], np.float32), 0.3) == pytest.approx(np.array([[5, 0, 10, 10]]))
    # An end is best: it takes the middle one, (0.8 * 0 + 0.4 * 5) / 1.2, and the other end stays.
    ends = merged(chain, np.array([0.8, 0.4, 0.6], np.float32), 0.3)
    assert ends == pytest.approx(np.array([[5 / 3, 0, 10, 10], [10, 0, 10, 10]]), abs=1e-5)


def test_an_overlap_of_exactly_the_limit_is_two_faces() -> None:
    pair = np.array([[0, 0, 10, 10], [5, 0, 10, 10]], np.float32)  # IoU 50 / 150
    assert len(merged(pair, np.array([0.9, 0.8], np.float32), 50 / 150)) == 2
    assert len(merged(pair, np.array([0.9, 0.8], np.float32), 0.33)) == 1


def test_no_boxes_are_no_faces() -> None:
    assert merged(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.3).shape == (0, 4)


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


# --- BlazeFace: the whole way


def one_box(anchor: int, raw: tuple[float, ...], logit: float) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    def outputs(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, logits = np.zeros((SHORT_RANGE, 16), np.float32), np.full(SHORT_RANGE, -99, np.float32)
        boxes[anchor, :4], logits[anchor] = raw, logit
        return boxes, logits

    return outputs


def test_a_box_of_the_network_becomes_one_of_the_frame(runtime_of: Callable[..., None], model: Path) -> None:
    # Anchor 518 stands at (24, 8) of 128 pixels. 320 pixels make 128: all counts 2.5 times.
    runtime_of(SHORT_RANGE, one_box(518, (6, 22, 40, 40), 3.0))
    layout = LAYOUTS[SHORT_RANGE]
    (box,) = BlazeFaceDetector(model).detect(np.zeros((240, 320), np.uint8), 60)
    side = layout.side * 100
    wanted = (75 - side / 2, 75 + layout.shift * 100 - side / 2, side, side)
    assert (box.x, box.y, box.w, box.h) == pytest.approx(wanted, abs=1e-3)


def test_blazeface_is_content_with_less_where_a_face_is_expected(runtime_of: Callable[..., None], model: Path) -> None:
    runtime_of(SHORT_RANGE, one_box(518, (6, 22, 40, 40), math.log(0.4 / 0.6)))
    detector, gray = BlazeFaceDetector(model), np.zeros((240, 320), np.uint8)
    assert detector.detect(gray, 60) == []
    assert len(detector.detect(gray, 60, expected=True)) == 1
    assert len(detector.detect(gray, 60, rough=True)) == 1


@pytest.mark.parametrize("raw", [(0, 0, 0, 40), (0, 0, -40, 40), (0, 0, 40, -1)])
def test_a_box_without_an_area_is_none(runtime_of: Callable[..., None], model: Path, raw: tuple[float, ...]) -> None:
    runtime_of(SHORT_RANGE, one_box(518, raw, 3.0))
    assert BlazeFaceDetector(model).detect(np.zeros((240, 320), np.uint8), 60) == []


def test_pixels_reach_the_network_in_its_upper_left_corner(runtime_of: Callable[..., None], model: Path) -> None:
    given = []

    def outputs(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given.append(tensor)
        return np.zeros((SHORT_RANGE, 16), np.float32), np.full(SHORT_RANGE, -99, np.float32)

    runtime_of(SHORT_RANGE, outputs)
    gray = np.full((128, 256), 255, np.uint8)
    gray[:, 128:] = 0
    BlazeFaceDetector(model).detect(gray, 60)
    (tensor,) = given
    assert (tensor[0, :64, :64] == 1).all()
    assert (tensor[0, :64, 64:] == -1).all()
    assert (tensor[0, 64:] == -1).all()  # what is not there is black
