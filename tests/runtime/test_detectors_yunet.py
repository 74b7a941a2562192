"""YuNet's rows become boxes of the frame, reckoned by hand; what is not YuNet is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_fer.core import Image, Landmarks
from edge_fer.detection.yunet import YuNetDetector
from edge_fer.errors import DataError


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


class FakeYuNet:
    """In the place of ``cv2.FaceDetectorYN``: gives its ``rows`` as the real one gives what the network says."""

    rows = np.zeros((0, 15))
    seen = np.zeros(0, np.uint8)

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
        type(self).seen = picture
        rows = self.rows[self.rows[:, 14] >= self._threshold].astype(np.float32)
        return 1, rows if len(rows) else None


@pytest.fixture
def yunet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> YuNetDetector:
    monkeypatch.setattr(cv2, "FaceDetectorYN", FakeYuNet)
    (tmp_path / "model.onnx").write_bytes(b"a model")
    return YuNetDetector(tmp_path / "model.onnx")


def test_the_fake_takes_and_gives_what_yunet_does(
    scene: Image, real_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeYuNet, "rows", np.full((2, 15), 0.9))
    path = real_model("face_detection_yunet_2023mar.onnx")
    answers = []
    for kind in (cv2.FaceDetectorYN, FakeYuNet):
        net = kind.create(str(path), "", (320, 320), 0.7, 0.3)
        picture = cv2.cvtColor(scene, cv2.COLOR_GRAY2BGR)
        with pytest.raises(cv2.error):
            net.detect(picture)
        net.setInputSize((640, 480))
        status, rows = net.detect(picture)
        assert (rows[:, 14] >= 0.7).all()
        net.setScoreThreshold(0.99)
        answers.append((status, rows.shape, rows.dtype, net.detect(picture)))
    assert answers[0] == answers[1] == (1, (2, 15), np.float32, (1, None))


def test_boxes_of_yunet_become_squares_of_the_frame(yunet: YuNetDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    # Faces from 48 pixels: the picture is halved, and what is found counts double. Sides 20 and 45 have the mean 30.
    points = [12, 30, 24, 31, 18, 40, 14, 50, 23, 51]
    rows = np.array([[10, 20, 20, 45, *points, 0.9], [100, 50, 50, 50, *[0] * 10, 0.8]])
    monkeypatch.setattr(FakeYuNet, "rows", rows)
    faces = yunet.detect(np.zeros((240, 400), np.uint8), 48)
    large, small = (face.box for face in faces)
    assert (small.x, small.y, small.w, small.h) == pytest.approx((40 - 33, 85 - 33, 66, 66), abs=1e-3)
    assert (large.x, large.y, large.w, large.h) == pytest.approx((250 - 55, 150 - 55, 110, 110), abs=1e-3)
    assert [face.score for face in faces] == pytest.approx([0.8, 0.9])
    assert faces[1].landmarks == Landmarks((24, 60), (48, 62), (36, 80), ((28, 100), (46, 102)))


def test_pixels_reach_yunet_as_they_are(yunet: YuNetDetector) -> None:
    gray = np.arange(120 * 200, dtype=np.uint8).reshape(120, 200)
    yunet.detect(gray, 24)
    assert np.array_equal(FakeYuNet.seen, np.dstack([gray] * 3))
    yunet.detect(np.kron(gray, np.ones((2, 2), np.uint8)), 48)
    assert np.array_equal(FakeYuNet.seen, np.dstack([gray] * 3))


def test_yunet_is_content_with_less_where_a_face_is_expected(
    yunet: YuNetDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeYuNet, "rows", np.array([[10, 20, 50, 50, *[0] * 10, 0.6]]))
    gray = np.zeros((240, 400), np.uint8)
    assert yunet.detect(gray, 24) == []
    assert len(yunet.detect(gray, 24, expected=True)) == 1
    assert len(yunet.detect(gray, 24, coarse=True)) == 1
    assert yunet.detect(gray, 24) == []
