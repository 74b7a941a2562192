"""Landmarks beside a data set: crops are known by their pixels, and a recipe aligns by them as the device does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datasets
from datasets.landmarks import main
from datasets.landmarks_file import CropLandmarks, marks_of, marks_of_all, write_landmarks
from edge_fer.core import Detection, FaceBox, Landmarks
from edge_fer.errors import DataError, InputMissingError
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from evaluation.corruptions import CORRUPTIONS, FRAMINGS, landmarks_after

TILTED = np.array([14, 20, 31, 16, 24, 28, 19, 37, 31, 34], np.float32)


@pytest.fixture
def marked(data: Path, tmp_path: Path) -> Path:
    """A data set with landmarks for every crop but the first of PublicTest, which nobody found."""
    folder = tmp_path / "marked"
    shutil.copytree(data, folder)
    splits = datasets.load(folder)
    images = np.concatenate([split.images for split in splits.values()])
    points = np.tile(TILTED, (len(images), 1))
    points[len(splits["Training"])] = np.nan
    write_landmarks(folder / "landmarks.npz", images, points)
    return folder


def test_crops_are_known_by_their_pixels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 1)).astype(np.uint8)
    points = np.arange(50, dtype=np.float32).reshape(5, 10)
    path = tmp_path / "landmarks.npz"
    write_landmarks(path, np.concatenate([images, images[:2]]), np.concatenate([points, points[:2] + 100]))
    marks = CropLandmarks.read(path)
    assert np.array_equal(marks.of(images[[3, 0, 3]], "three"), points[[3, 0, 3]])
    assert marks.of(images[:0], "none").shape == (0, 10)
    with pytest.raises(DataError, match="lacks 1 of the 2 faces of Test"):
        marks.of(np.stack([images[0], 255 - images[0]]), "Test")


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"sha1": np.zeros((2, 20), np.uint8)},
        {"sha1": np.zeros((2, 20), np.uint8), "points": np.zeros((3, 10))},
        {"sha1": np.zeros((2, 20), np.uint8), "points": np.zeros((2, 8))},
        {"sha1": np.zeros((2, 20)), "points": np.zeros((2, 10))},
        {"Training": np.zeros((2, 10)), "PublicTest": np.zeros((2, 10))},
    ],
)
def test_other_files_are_refused(arrays: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "landmarks.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="is no file of landmarks"):
        CropLandmarks.read(path)


def test_a_broken_or_missing_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.npz"
    with pytest.raises(InputMissingError, match=r"python -m datasets\.landmarks"):
        CropLandmarks.read(path)
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match="is no file of landmarks"):
        CropLandmarks.read(path)


def test_rows_are_landmarks() -> None:
    marks = marks_of(TILTED)
    assert marks == Landmarks((14.0, 20.0), (31.0, 16.0), (24.0, 28.0), ((19.0, 37.0), (31.0, 34.0)))
    rows = np.stack([TILTED, np.where(np.arange(10) == 3, np.nan, TILTED)])
    assert marks_of_all(rows) == [marks, None]
    assert marks_of_all(None) is None


@pytest.mark.parametrize("alignment", ["two-points", "five-points"])
def test_a_data_set_is_aligned_as_a_device_aligns(marked: Path, alignment: Any) -> None:
    plain, aligned = datasets.load(marked), datasets.load(marked, alignment=alignment, illumination=("log",))
    device = Preprocessor(PreprocessSpec(alignment=alignment, illumination=("log",)), (48, 48))
    box = FaceBox(0, 0, 48, 48)
    for name, split in aligned.items():
        for row in range(3):
            found = None if (name, row) == ("PublicTest", 0) else marks_of(TILTED)
            expected = device(plain[name].images[row, ..., 0], Detection(box, None, found))
            assert np.array_equal(split.images[row], expected)
        assert split.landmarks is None
        assert split.source_sha256 == plain[name].sha256 != split.sha256
    assert np.array_equal(aligned["PublicTest"].labels["fer2013"].truth, plain["PublicTest"].labels["fer2013"].truth)


def test_rows_may_be_left_out_and_landmarks_asked_for_alone(marked: Path) -> None:
    (marked / "without.csv").write_text("row\n0\n1\n")
    splits = datasets.load(marked, exclude="without.csv", landmarks=True)
    assert splits["Training"].landmarks is not None
    assert len(splits["Training"].landmarks) == len(splits["Training"]) < len(datasets.load(marked)["Training"])
    assert splits["PublicTest"][3:5].landmarks is not None
    assert np.isnan(splits["PublicTest"].landmarks[0]).all()  # type: ignore[index]


def test_alignment_wants_the_file_and_every_face_in_it(data: Path, marked: Path) -> None:
    with pytest.raises(InputMissingError, match=r"landmarks\.npz"):
        datasets.load(data, alignment="five-points")
    public = datasets.load(marked)["PublicTest"].images
    write_landmarks(marked / "landmarks.npz", public, np.tile(TILTED, (len(public), 1)))
    with pytest.raises(DataError, match="faces of Training"):
        datasets.load(marked, alignment="two-points")


def test_the_command_writes_what_a_recipe_reads(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "landmarks.npz"
    assert main(["--data", str(data), "--by", "haar", "-o", str(out)]) == 0
    for name, split in datasets.load(data).items():
        assert CropLandmarks.read(out).of(split.images, name).shape == (len(split), 10)


def test_landmarks_move_with_the_face() -> None:
    """A white point at each landmark is still there after a corruption that moves the face."""
    image = np.zeros((1, 48, 48, 1), np.uint8)
    for x, y in TILTED.reshape(5, 2).astype(int):
        image[0, y, x] = 255
    moving = {**CORRUPTIONS, **{f"{name} {k}": one for name, views in FRAMINGS.items() for k, one in enumerate(views)}}
    for name in ("tilted by 15 degrees", "mirror image 0", "box off by 10 % of its side 2", "noise, sigma 10"):
        points = landmarks_after(moving[name], TILTED[None])
        assert points is not None
        seen = moving[name](image)[0, ..., 0]
        for x, y in points.reshape(5, 2):
            around = seen[max(0, round(y) - 1) : round(y) + 2, max(0, round(x) - 1) : round(x) + 2]
            assert around.sum() > 120, name
    assert landmarks_after(CORRUPTIONS["tilted by 15 degrees"], None) is None


def test_a_mirror_image_is_one_to_the_pixel() -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 48, 48, 1)).astype(np.uint8)
    (mirror,) = FRAMINGS["mirror image"]
    assert np.array_equal(mirror(images), images[:, :, ::-1])
