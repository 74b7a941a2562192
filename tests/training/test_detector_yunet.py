"""YuNet's weights in our network: it finds what YuNet finds in gray, and what is not YuNet is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import real_models

from edge_fer.core import Frame
from edge_fer.errors import DataError, InputMissingError
from training.detector import yunet
from training.detector.assignment import cells, decode
from training.detector.network import build

MODEL = real_models.FOLDER / "face_detection_yunet_2023mar.onnx"


@pytest.mark.skipif(not MODEL.exists(), reason="`make real-models` fetches YuNet")
def test_it_finds_what_yunet_finds_in_gray(demo_frames: list[Frame]) -> None:
    shown = [cv2.resize(frame.gray, (320, 256), interpolation=cv2.INTER_AREA) for frame in demo_frames[20:100:20]]
    images = np.stack(shown)[..., np.newaxis].astype(np.float32)
    network = build()
    yunet.load(network, MODEL, images)
    scores, boxes, points = (np.asarray(one) for one in network(images, training=False))
    found, found_points = (np.asarray(one) for one in decode(boxes, points, *cells(256, 320)))
    theirs = cv2.FaceDetectorYN.create(str(MODEL), "", (320, 256), score_threshold=0.8)
    compared = 0
    for gray, score, box, marks in zip(shown, scores[..., 0], found, found_points, strict=True):
        _, rows = theirs.detect(cv2.merge([gray] * 3))
        for row in rows if rows is not None else ():
            compared += 1
            left, top, width, height = row[:4]
            # Their best cell is one of ours that are sure too. Their grids are doubled otherwise.
            off = np.abs(box - (left, top, left + width, top + height)).max(axis=1) / np.sqrt(width * height)
            near = np.where(score > 0, off, np.inf).argmin()
            assert score[near] > 0 and off[near] < 0.2
            assert np.abs(marks[near] - row[4:14].reshape(5, 2)).max() < 0.2 * np.sqrt(width * height)
    assert compared >= 4


@pytest.mark.skipif(not MODEL.exists(), reason="`make real-models` fetches YuNet")
def test_normalization_changes_nothing_at_first() -> None:
    images = np.random.default_rng(0).uniform(0, 255, (4, 64, 96, 1)).astype(np.float32)
    network = build()
    yunet.load(network, MODEL, images)
    for trained, used in zip(network(images, training=True), network(images, training=False), strict=True):
        assert np.asarray(trained) == pytest.approx(np.asarray(used), abs=1e-3)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert min(float(np.min(norm.moving_variance)) for norm in norms) >= 0


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(1000)])
def test_a_file_that_is_not_yunet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model.onnx is not the YuNet that this network is made like"):
        yunet.load(build(), path, np.zeros((1, 32, 32, 1), np.float32))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="`make real-models` fetches face_detection"):
        yunet.load(build(), tmp_path / "model.onnx", np.zeros((1, 32, 32, 1), np.float32))
