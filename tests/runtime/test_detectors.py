"""All detectors keep one contract, with the real cascades and networks; what is refused, and why.

The networks of YuNet and BlazeFace do not ship: `make test` fetches them (tests/real_models.py).
"""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_fer.config import DetectorSettings
from edge_fer.core import FaceBox, FaceDetector, Frame, Image
from edge_fer.detection import LBP_CASCADE, open_detector
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.detection.ssd import SsdDetector
from edge_fer.errors import (
    BundleError,
    ConfigError,
    DataError,
    EdgeFerError,
    InputMissingError,
    UnavailableError,
)
from edge_fer.model.bundle import DETECTORS


def found(detector: FaceDetector, gray: Image, *limits_px: float, **how: bool) -> list[FaceBox]:
    return [detection.box for detection in detector.detect(gray, *limits_px, **how)]


# --- the contract


@pytest.fixture(
    params=[
        "haar",
        "lbp",
        "ssd",
        "yunet",
        "blazeface short range",
        "blazeface full range",
        "blazeface full range sparse",
    ]
)
def detector(request: pytest.FixtureRequest, real_model: Callable[[str], Path]) -> FaceDetector:
    kind, _, which = request.param.partition(" ")
    match kind:
        case "haar":
            return open_detector(DetectorSettings(kind="haar"))
        case "lbp":
            if not LBP_CASCADE.is_file():
                pytest.skip("OpenCV's LBP cascade is not installed")
            return open_detector(DetectorSettings(kind="lbp"))
        case "ssd":
            return open_detector(DetectorSettings(kind="ssd"))
        case "yunet":
            model = real_model("face_detection_yunet_2023mar.onnx")
            return open_detector(DetectorSettings(kind="yunet", model=str(model)))
        case _:
            model = real_model(f"face_detection_{which.replace(' ', '_')}.tflite")
            return open_detector(DetectorSettings(kind="blazeface", model=str(model)))


def test_both_faces_of_the_demo_are_found_and_framed_alike(detector: FaceDetector, demo_frames: list[Frame]) -> None:
    off = []
    for frame in demo_frames[::20]:
        boxes = found(detector, frame.gray, 60)
        assert len(boxes) == 2
        for face in (true.box for true in frame.truth):
            box = max(boxes, key=face.iou)
            assert box.iou(face) > 0.7
            shift_x, shift_y = box.x + box.w / 2 - face.x - face.w / 2, box.y + box.h / 2 - face.y - face.h / 2
            off.append((box.w / face.w - 1, shift_x / face.w, shift_y / face.w))
    # Single boxes tremble; all together they frame a face as the Haar cascade does, for which the models are trained.
    assert np.abs(np.median(off, axis=0)).max() < 0.05


def test_scores_and_landmarks_are_handed_on_where_the_detector_has_them(
    detector: FaceDetector, demo_frames: list[Frame]
) -> None:
    for detection in detector.detect(demo_frames[0].gray, 60):
        if isinstance(detector, CascadeDetector):
            assert (detection.score, detection.landmarks) == (None, None)
            continue
        assert detection.score is not None and 0.5 <= detection.score <= 1
        assert detection.landmarks is not None
        box, points = detection.box, detection.landmarks
        # The drawn faces stand nearly upright: the person's right eye is on the left, eyes above nose above mouth.
        shares = [((x - box.x) / box.w, (y - box.y) / box.h) for x, y in (points.right_eye, points.left_eye)]
        assert shares[0] == pytest.approx((0.28, 0.3), abs=0.2)
        assert shares[1] == pytest.approx((0.72, 0.3), abs=0.2)
        mouth_y = np.mean([y for _, y in points.mouth])
        assert points.right_eye[1] < points.nose[1] < mouth_y < box.y + 1.1 * box.h


def test_largest_first(detector: FaceDetector, scene: Image) -> None:
    areas = [box.w * box.h for box in found(detector, scene, 60)]
    assert len(areas) >= 2
    assert areas == sorted(areas, reverse=True)


def test_only_faces_of_the_wanted_sizes_are_reported(detector: FaceDetector, demo_frames: list[Frame]) -> None:
    frame = demo_frames[60]
    smaller, larger = sorted((face.box for face in frame.truth), key=lambda box: box.w)
    between = (smaller.w + larger.w) / 2
    assert smaller.w < 0.9 * larger.w
    for limits, wanted in (((between, math.inf), larger), ((60, between), smaller)):
        boxes = found(detector, frame.gray, *limits)
        assert max(box.iou(wanted) for box in boxes) > 0.6
        assert all(0.98 * limits[0] <= box.w <= 1.02 * limits[1] for box in boxes)  # cascades count in whole pixels
    assert found(detector, frame.gray, 400) == []


def test_small_faces_are_found_where_they_are(detector: FaceDetector, demo_frames: list[Frame]) -> None:
    frame = demo_frames[0]
    canvas = np.full((480, 640), 128, np.uint8)
    canvas[220:400, 340:580] = cv2.resize(frame.gray, (240, 180), interpolation=cv2.INTER_AREA)
    boxes = found(detector, canvas, 35)
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
    (box,) = found(detector, part, 0.7 * face.w)
    assert FaceBox(box.x + left, box.y + top, box.w, box.h).iou(face) > 0.6
    assert np.array_equal(part, before)


def test_every_call_stands_alone(detector: FaceDetector, scene: Image) -> None:
    first = found(detector, scene, 60)
    found(detector, scene[:200, :300], 40, 80, expected=True)
    found(detector, scene, 60, coarse=True)
    assert found(detector, scene, 60) == first


@pytest.mark.parametrize("how", ["expected", "coarse"])
def test_weaker_evidence_is_enough_where_a_face_is_expected_or_looked_at_again(
    detector: FaceDetector, demo_frames: list[Frame], how: str
) -> None:
    for frame in demo_frames[::40]:
        boxes = found(detector, frame.gray, 60, **{how: True})
        assert all(max(box.iou(face.box) for box in boxes) > 0.5 for face in frame.truth)


def test_a_large_photo_is_searched_at_the_scale_of_its_faces(detector: FaceDetector, demo_frames: list[Frame]) -> None:
    frame = demo_frames[0]
    large = cv2.resize(frame.gray, None, fx=8, fy=8).astype(np.uint8)  # 20 megapixels
    boxes = [FaceBox(box.x / 8, box.y / 8, box.w / 8, box.h / 8) for box in found(detector, large, 8 * 60)]
    assert len(boxes) == 2
    assert all(max(box.iou(face.box) for box in boxes) > 0.6 for face in frame.truth)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (900, 3), (19, 19), (480, 640)])
@pytest.mark.parametrize("value", [0, 255])
def test_empty_pictures_of_any_shape_have_no_faces(detector: FaceDetector, shape: tuple[int, int], value: int) -> None:
    for flags in ({}, {"expected": True}, {"coarse": True}):
        assert found(detector, np.full(shape, value, np.uint8), 40, **flags) == []


def test_it_says_how_to_be_used(detector: FaceDetector) -> None:
    assert isinstance(detector.slow_on_large, bool)
    assert 12 <= detector.enough_px <= 64


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


# --- auto


@pytest.mark.parametrize("damaged", [True, False])
def test_auto_falls_back_to_haar(
    damaged: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(open_detector(DetectorSettings()), SsdDetector)
    assert not caplog.messages
    if damaged:
        (tmp_path / "face.tflite").write_bytes(b"TFL3 no more")
    monkeypatch.setattr("edge_fer.detection.ssd.DETECTORS", tmp_path)
    assert isinstance(open_detector(DetectorSettings()), CascadeDetector)
    (said,) = caplog.messages
    assert said.endswith("Until then faces are looked for with OpenCV's Haar cascade, which finds fewer.")
    with pytest.raises(BundleError if damaged else InputMissingError):
        open_detector(DetectorSettings(kind="ssd"))


def test_auto_goes_by_the_ending_of_a_model(tmp_path: Path) -> None:
    cascade = Path(cv2.data.haarcascades, "haarcascade_frontalface_alt2.xml")
    assert isinstance(open_detector(DetectorSettings(model=str(cascade))), CascadeDetector)
    assert isinstance(open_detector(DetectorSettings(model=str(next(DETECTORS.glob("*.tflite"))))), SsdDetector)
    (tmp_path / "face.onnx").write_bytes(b"none")
    with pytest.raises(DataError, match="YuNet"):
        open_detector(DetectorSettings(model=str(tmp_path / "face.onnx")))


# --- models that must be named


@pytest.mark.parametrize("kind", ["yunet", "blazeface"])
def test_a_network_without_a_model_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigError, match=f"^The detector {kind} needs a model: get .*--detector-model"):
        open_detector(DetectorSettings(kind=kind))


@pytest.mark.parametrize("kind", ["haar", "lbp", "yunet", "blazeface"])
def test_a_model_that_is_not_there_is_refused(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(InputMissingError, match=r"none\b.*Check --detector-model\.$"):
        open_detector(DetectorSettings(kind=kind, model=str(tmp_path / "none")))


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputMissingError, match=f"No model {tmp_path}/none"):
        open_detector(DetectorSettings(model="~/none.tflite"))
    for kind in ("ssd", "haar", "yunet"):
        with pytest.raises(InputMissingError, match="~nobody-has-this-name/x"):
            open_detector(DetectorSettings(kind=kind, model="~nobody-has-this-name/x"))  # type: ignore[arg-type]


# --- models that somebody edited


def edited(folder: Path, *changes: tuple[str, str]) -> Path:
    """OpenCV's own cascade with some of its text replaced, each once."""
    text = (Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml").read_text()  # type: ignore[attr-defined]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "edited.xml"
    path.write_text(text)
    return path


def test_a_cascade_that_kills_opencv_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, ("0 -1 0 ", "0 -1 99999999 "))
    with pytest.raises(DataError, match=r"in a process of its own it crashes \(SIGSEGV\)"):
        CascadeDetector(path)


def test_another_cascade_is_tried_and_works(tmp_path: Path, scene: Image) -> None:
    assert len(CascadeDetector(edited(tmp_path)).detect(scene, 40)) == 2


@pytest.mark.parametrize("seed", range(4))
def test_a_cascade_with_wild_numbers_is_refused_or_runs(tmp_path: Path, scene: Image, seed: int) -> None:
    chance = random.Random(seed)
    path = edited(tmp_path)
    text = path.read_text()
    for found in sorted(
        chance.sample(list(re.finditer(r"(?<=[ >])-?\d+(?=[ .<])", text)), 5), key=lambda m: -m.start()
    ):
        text = text[: found.start()] + str(chance.choice([-1, 0, 10**6, 2**31 - 1])) + text[found.end() :]
    path.write_text(text)
    try:
        CascadeDetector(path).detect(scene, 40)
    except EdgeFerError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("kind", ["haar", "yunet", "blazeface"])
@pytest.mark.parametrize("what", ["pipe", "device", "folder", "text", "huge"])
def test_what_is_no_model_of_a_detector_is_refused(tmp_path: Path, kind: Any, what: str) -> None:
    path = tmp_path / "model"
    match what:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/zero")
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("hello")
        case "huge":
            with path.open("wb") as file:
                file.truncate(3 << 30)
    with pytest.raises(DataError):
        open_detector(DetectorSettings(kind=kind, model=str(path)))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("yunet", "face_detection_yunet_2023mar.onnx"), ("blazeface", "face_detection_short_range.tflite")],
)
def test_a_network_that_was_edited_is_tried_first(
    tmp_path: Path, real_model: Any, monkeypatch: pytest.MonkeyPatch, kind: Any, name: str
) -> None:
    tried: list[Any] = []
    for place in ("yunet.why_it_dies", "blazeface.why_it_kills"):
        monkeypatch.setattr(f"edge_fer.detection.{place}", lambda *given: tried.append(given) or "crashes (SIGSEGV)")
    open_detector(DetectorSettings(kind=kind, model=str(real_model(name))))
    assert not tried
    path = tmp_path / name
    path.write_bytes(real_model(name).read_bytes() + b"x")
    with pytest.raises(DataError, match="in a process of its own it crashes"):
        open_detector(DetectorSettings(kind=kind, model=str(path)))
    assert len(tried) == 1
