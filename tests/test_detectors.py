"""Detectors find the faces that are there, with the real cascade."""

import cv2
import numpy as np
import pytest

from edge_fer.core import Frame
from edge_fer.detectors.haar import HaarDetector
from edge_fer.errors import UnavailableError


def test_both_faces_of_the_demo_are_found(demo_frames: list[Frame]) -> None:
    detector = HaarDetector()
    for frame in demo_frames[::40]:
        boxes = detector.detect(frame.gray)
        for face in frame.truth:
            assert max(box.iou(face.box) for box in boxes) > 0.5


def test_largest_first(demo_frames: list[Frame]) -> None:
    areas = [box.w * box.h for box in HaarDetector().detect(demo_frames[0].gray)]
    assert len(areas) == 2
    assert areas == sorted(areas, reverse=True)


def test_smaller_faces_than_wanted_are_not_reported(demo_frames: list[Frame]) -> None:
    frame = demo_frames[60]
    smaller, larger = sorted(face.box.w for face in frame.truth)
    assert smaller < 0.9 * larger
    assert len(HaarDetector(min_face_px=int((smaller + larger) / 2)).detect(frame.gray)) == 1


def test_a_large_photo_is_searched_at_its_own_scale(demo_frames: list[Frame]) -> None:
    frame = demo_frames[0]
    large = cv2.resize(frame.gray, None, fx=8, fy=8).astype(np.uint8)  # 20 megapixels
    assert len(HaarDetector().detect(large)) == 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (19, 19), (480, 640)])
@pytest.mark.parametrize("value", [0, 255])
def test_empty_pictures_have_no_faces(shape: tuple[int, int], value: int) -> None:
    assert HaarDetector().detect(np.full(shape, value, np.uint8)) == []


def test_an_opencv_without_cascades_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV 5 has no class; its contrib build has the class, and loads an empty cascade without a word."""
    with monkeypatch.context() as patch:
        patch.delattr(cv2, "CascadeClassifier")
        with pytest.raises(UnavailableError, match="pip install 'opencv-python-headless"):
            HaarDetector()
    monkeypatch.setattr(cv2.data, "haarcascades", "/nowhere/")
    with pytest.raises(UnavailableError, match="pip install 'opencv-python-headless"):
        HaarDetector()
