"""Landmarks: five of any scheme, files of other programs, several detectors combined."""

from __future__ import annotations

import dataclasses
import math
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets import landmarks
from datasets.landmarks import DlibShape, Mesh, Mtcnn, enlarged, find, five_of, main, open_finder, read_points
from datasets.landmarks_file import marks_of
from edge_fer.core import Detection, FaceBox, Image, Landmarks
from edge_fer.errors import DataError, InputMissingError, UnavailableError, UsageError
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from edge_fer.sources.demo import average_faces

MARKS = Landmarks((70.0, 80.0), (110.0, 80.0), (90.0, 105.0), ((75.0, 130.0), (105.0, 130.0)))
BOX = FaceBox(50, 50, 80, 90)


def points_of(count: int) -> NDArray[np.float64]:
    """Points of a scheme whose five are those of MARKS; all others lie far away."""
    points = np.full((count, 2), 999.0)
    *eyes, nose, right, left = landmarks.POINTS[count]
    for around, eye in zip(eyes, (MARKS.right_eye, MARKS.left_eye), strict=True):
        for number, place in enumerate(around):
            angle = 2 * math.pi * number / len(around)
            points[place] = eye[0] + 4 * math.cos(angle), eye[1] + 2 * math.sin(angle)
        if len(around) == 1:
            points[around[0]] = eye
    points[nose], points[right], points[left] = MARKS.nose, *MARKS.mouth
    return points


@pytest.mark.parametrize("count", [5, 49, 66, 68, 468])
def test_five_of_any_scheme(count: int) -> None:
    found = five_of(points_of(count))
    assert np.allclose([*found.right_eye, *found.left_eye, *found.nose], [70, 80, 110, 80, 90, 105])
    assert found.mouth == MARKS.mouth


def test_49_and_66_are_68_with_some_left_out() -> None:
    """IntraFace has no outline of the face (17) and no inner corners of the mouth; DRMF lacks the latter alone."""
    whole = np.random.default_rng(0).uniform(0, 200, (68, 2))
    without = np.delete(whole, (60, 64), axis=0)
    assert five_of(whole) == five_of(without) == five_of(without[17:])


@pytest.mark.parametrize("points", [np.zeros((67, 2)), np.zeros((68, 3)), np.full((5, 2), np.nan), np.zeros((0, 2))])
def test_what_is_no_scheme_is_refused(points: NDArray[np.float64]) -> None:
    with pytest.raises(DataError, match="no landmarks that are known"):
        five_of(points)


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    points = points_of(49)
    plain, commas, pts = tmp_path / "a.txt", tmp_path / "b.csv", tmp_path / "c.pts"
    plain.write_text("\n".join(f"{x} {y}" for x, y in points) + "\n")
    commas.write_text("\n".join(f"{x}, {y}" for x, y in points))
    body = "\n".join(f"{x + 1} {y + 1}" for x, y in points)
    pts.write_text(f"version: 1\nn_points: 49\n{{\n{body}\n}}\n")
    for path in (plain, commas, pts):
        assert np.allclose(read_points(path), points + 0.5)


@pytest.mark.parametrize(
    "text", ["1 2\n3\n", "a b\n", "1 2\n3 4\n", "", "version: 1\n{\n1 2\n", "1 2 3\n" * 5, "nan 2\n" * 5]
)
def test_files_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pts"
    path.write_text(text)
    with pytest.raises(DataError):
        read_points(path)
    with pytest.raises(InputMissingError):
        read_points(tmp_path / "missing.pts")


class Fake:
    """Finds every face but each third one, a few pixels off."""

    slow_on_large, enough_px = False, 24.0

    def __init__(self, shift: float, misses: int) -> None:
        self.shift, self.misses, self.calls = shift, misses, 0

    def detect(self, gray: Image, min_px: float, max_px: float = math.inf, **options: Any) -> list[Detection]:
        self.calls += 1
        if self.misses and self.calls % self.misses == 0:
            return []
        return [Detection(FaceBox(60, 60, 120, 120), 0.8, MARKS.scaled(1.0, self.shift, 0.0))]


def test_faces_of_a_set_are_found_and_misses_counted() -> None:
    images = np.stack(average_faces()[:6])[..., np.newaxis].astype(np.uint8)
    finders: Any = {"one": Fake(0.0, 3), "other": Fake(4.0, 0)}
    points, accounts = find(images, finders, "mean")
    assert {name: one.missed for name, one in accounts.items()} == {"one": 2, "other": 0, "fused": 0}
    # 240 pixels of the scene are twice the 48 of the crop, which lies in its middle.
    assert points[0, :2] == pytest.approx((72 * 0.4 - 24, 80 * 0.4 - 24), abs=1e-5)
    assert points[2, 0] == pytest.approx(74 * 0.4 - 24, abs=1e-5)
    assert accounts["one"].off == pytest.approx([2 / 40] * 4)
    points, accounts = find(images, {"none": Fake(0.0, 1)}, "best")
    assert np.isnan(points).all()
    assert accounts["fused"].missed == 6


@pytest.mark.parametrize("alignment", ["two-points", "five-points"])
def test_a_crop_is_placed_as_its_face_is_on_a_device(alignment: Any) -> None:
    """One detector, one face: its landmarks in the crop of a set, and where a camera sees the same pixels."""
    image = average_faces()[2].astype(np.uint8)
    fake: Any = Fake(3.0, 0)
    points, _ = find(image[np.newaxis, ..., np.newaxis], {"fake": fake}, "best")
    preprocessor = Preprocessor(PreprocessSpec(alignment=alignment), (48, 48))
    (seen,) = fake.detect(enlarged(image), 40)
    on_device = preprocessor.placement(enlarged(image), seen)
    in_training = preprocessor.placement(image, Detection(FaceBox(0, 0, 48, 48), None, marks_of(points[0])))
    assert dataclasses.astuple(in_training) == pytest.approx(dataclasses.astuple(on_device), abs=1e-5)


def test_mtcnn_speaks_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its left is the image's, and it gives the left mouth corner as it likes."""
    keypoints = {"nose": (90, 105), "left_eye": (70, 80), "right_eye": (110, 80), "mouth_left": (75, 130)}
    face = {"box": [50, 45, 80, 125], "confidence": 0.97, "keypoints": {**keypoints, "mouth_right": (105, 130)}}
    fake = types.SimpleNamespace(MTCNN=lambda: types.SimpleNamespace(detect_faces=lambda image: [face]))
    monkeypatch.setattr(landmarks.importlib, "import_module", lambda name: fake)
    (found,) = Mtcnn().detect(np.zeros((240, 240), np.uint8), 40)
    moved = MARKS.scaled(1.0, 0.5, 0.5)
    assert found == Detection(FaceBox(40, 57.5, 100, 100), 0.97, moved)
    assert Mtcnn().detect(np.zeros((240, 240), np.uint8), 120) == []


def test_dlib_gives_its_points(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = np.rint(points_of(68)).astype(int)
    part = [types.SimpleNamespace(x=x, y=y) for x, y in points.tolist()]
    shape = types.SimpleNamespace(num_parts=68, part=part.__getitem__)

    def predictor(path: str) -> Any:
        if path.endswith("bad.dat"):
            raise RuntimeError("deserialize")
        return lambda gray, rectangle: shape

    fake = types.SimpleNamespace(rectangle=lambda *corners: corners, shape_predictor=predictor)
    monkeypatch.setattr(landmarks.importlib, "import_module", lambda name: fake)
    for name in ("good.dat", "bad.dat"):
        (tmp_path / name).touch()
    assert five_of(DlibShape(tmp_path / "good.dat")(np.zeros((9, 9), np.uint8), BOX)).nose == (90.5, 105.5)
    with pytest.raises(DataError, match="no shape predictor"):
        DlibShape(tmp_path / "bad.dat")
    with pytest.raises(InputMissingError):
        DlibShape(tmp_path / "missing.dat")


@pytest.mark.parametrize("text", ["mtcnn", "dlib:x.dat"])
def test_packages_that_are_missing_are_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(landmarks.importlib, "import_module", missing)
    with pytest.raises(UnavailableError, match="pip install"):
        open_finder(text)


def test_wrong_files_and_names_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="known are haar"):
        open_finder("sift")
    with pytest.raises(InputMissingError):
        Mesh(tmp_path / "missing.tflite")
    assert main(["--data", str(tmp_path / "none"), "--by", "sift"]) == 2
    assert main(["--data", str(tmp_path / "none"), "--by", "haar"]) == 66
    assert main(["--data", str(tmp_path), "--by", "haar", "--every", "2", "-o", str(tmp_path / "x.npz")]) == 2
    assert main(["--data", str(tmp_path), "--by", "haar", "--every", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("landmarks: ") for line in lines)
