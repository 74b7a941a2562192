"""YuNet: a small network for faces of all sizes and poses, run by OpenCV."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np

from edge_fer.core import Detection, FaceBox, Image, Landmarks
from edge_fer.errors import DataError
from edge_fer.files import native_name, read_file
from edge_fer.model.bundle import MOST_BYTES, sha256
from edge_fer.model.trial import why_it_dies

KNOWN = {"8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"}
"""SHA-256 of the file of OpenCV's model zoo. Any other is first tried in a child process."""

_TRIAL = """
import sys
import cv2, numpy as np
from edge_fer.model.trial import limit_memory
limit_memory()
name = sys.stdin.buffer.read()
try:
    name = name.decode()
except UnicodeDecodeError:
    pass  # OpenCV takes such a name as bytes alone
net = cv2.FaceDetectorYN.create(name, "", (320, 320))
net.detect(np.zeros((320, 320, 3), np.uint8))
"""


class YuNetDetector:
    """YuNet (Wu et al., Machine Intelligence Research 2023) in ``cv2``; implements ``core.FaceDetector``.

    The image is first reduced until the smallest wanted face has 24 pixels: the time goes with the area.

    YuNet frames faces from hairline to chin and ear to ear. A square about the same center, with ``side`` times the
    geometric mean of the sides, frames them as the Haar cascade does: 1.08-1.11 on photos, clips, FER2013 and the demo
    (medians; +-4 % within the demo), with the centers within 2 % of a height.

    Args:
        model: face_detection_yunet_2023mar.onnx of OpenCV's model zoo.

    Raises:
        InputMissingError: no such file.
        DataError: OpenCV cannot run it as YuNet.
    """

    slow_on_large = False
    enough_px = 24.0
    min_score = 0.7
    min_score_weak = 0.5
    min_iou = 0.3
    side = 1.1

    def __init__(self, model: Path) -> None:
        content = read_file(model, MOST_BYTES, "face detector", "Check --detector-model.")
        if sha256(content) not in KNOWN and (reason := why_it_dies(_TRIAL, os.fsencode(model))):
            raise DataError(
                f"{model} cannot be used: in a process of its own it {reason}. Get face_detection_yunet_2023mar.onnx "
                "of OpenCV's model zoo."
            )
        try:
            self._net = cv2.FaceDetectorYN.create(native_name(model), "", (320, 320), self.min_score, self.min_iou)
            self.detect(np.zeros((64, 64), np.uint8), self.enough_px)  # another network fails only when it runs
        except cv2.error:
            raise DataError(
                f"{model} is not YuNet, or was cut short. Get face_detection_yunet_2023mar.onnx of OpenCV's model zoo."
            ) from None

    def detect(
        self, gray: Image, min_px: float, max_px: float = math.inf, *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        """See ``core.FaceDetector``."""
        height, width = gray.shape
        if min(height, width) < min_px:
            return []
        reduction = max(1.0, min_px / self.enough_px)
        size_wh = (round(width / reduction), round(height / reduction))
        reduced = cv2.resize(gray, size_wh, interpolation=cv2.INTER_AREA) if reduction > 1 else gray
        self._net.setInputSize(size_wh)
        self._net.setScoreThreshold(self.min_score_weak if expected or coarse else self.min_score)
        _, found = self._net.detect(cv2.cvtColor(reduced, cv2.COLOR_GRAY2BGR))
        if found is None:
            return []
        scale = np.array([width / size_wh[0], height / size_wh[1]])
        corners, sizes = found[:, :2] * scale, found[:, 2:4] * scale
        # Right eye, left eye, nose, right and left corner of the mouth; the score comes last.
        points = (found[:, 4:14].reshape(-1, 5, 2) * scale).tolist()
        detections = []
        for (x, y), side, (right_eye, left_eye, nose, *mouth), score in zip(
            corners + sizes / 2, self.side * np.sqrt(sizes.prod(axis=1)), points, found[:, 14].tolist(), strict=True
        ):
            if min_px <= side <= max_px:
                box = FaceBox(float(x - side / 2), float(y - side / 2), float(side), float(side))
                landmarks = Landmarks(tuple(right_eye), tuple(left_eye), tuple(nose), tuple(map(tuple, mouth)))
                detections.append(Detection(box, score, landmarks))
        return sorted(detections, key=lambda one: (-one.box.area, one.box.x, one.box.y))
