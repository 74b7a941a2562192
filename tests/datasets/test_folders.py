"""A folder for each class is a data set, or refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from faces_csv import pattern

import datasets
from edge_fer.core import Expression as E
from edge_fer.core import FaceBox
from edge_fer.errors import DataError, EdgeFerError, InputMissingError
from edge_fer.preprocess.face_tensor import face_tensor


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("Angry", "happy", "contempt")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = cv2.resize(pattern(label, noise), (96, 96))
                cv2.imwrite(str(folder / f"{number}.png"), image)
    (tmp_path / "validation").symlink_to(tmp_path / "test")
    splits = datasets.load(tmp_path)
    training = splits["Training"]
    assert training.images.shape == (0, 48, 48, 1) or len(training) == 9
    # One task, whose classes are those that occur.
    ((name, labels),) = training.labels.items()
    assert (name, labels.expressions) == ("expression", (E.HAPPINESS, E.ANGER, E.CONTEMPT))
    assert np.bincount(labels.truth).tolist() == [3, 3, 3]
    assert labels.targets.tolist() == np.eye(3)[labels.truth].tolist()
    assert not labels.is_soft


def test_what_systems_and_editors_leave_in_folders_is_passed_over(tmp_path: Path) -> None:
    angry = tmp_path / "train" / "angry"
    for folder in (angry, tmp_path / "validation" / "angry"):
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "0.png"), pattern(1, np.random.default_rng(len(folder.name))))
    for folder in (tmp_path, tmp_path / "train", angry):
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".DS_Store").write_bytes(b"x")
        (folder / "._0.png").write_bytes(b"\0\5\x16\7")
    (angry / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "__MACOSX" / "train" / "angry").mkdir(parents=True)
    splits = datasets.load(tmp_path)
    assert len(splits["PublicTest"]) == 1


@pytest.mark.parametrize(
    "name", [b"0.jfif", b"0.JPG", b"0.jpe", b"0.bmp", b"0.webp", b"0.tif", b"0.avif", b"caf\xe9.png"]
)
def test_whatever_images_are_called(tmp_path: Path, name: bytes) -> None:
    noise = np.random.default_rng(1)
    for split in ("train", "validation"):
        folder = tmp_path / split / "sad"
        folder.mkdir(parents=True)
        suffix = {".jfif": ".jpg"}.get(Path(name.decode("latin-1")).suffix, Path(name.decode("latin-1")).suffix)
        if suffix == ".avif" and not cv2.haveImageWriter("x.avif"):
            pytest.skip("this OpenCV writes no AVIF")
        content = cv2.imencode(suffix, pattern(1, noise))[1].tobytes()
        (folder / os.fsdecode(name)).write_bytes(content)
    assert {name: len(split) for name, split in datasets.load(tmp_path).items()} == {"Training": 1, "PublicTest": 1}


def test_a_class_of_one_split_alone_is_one_of_all(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    for split, name in (("train", "sad"), ("train", "happy"), ("val", "sad"), ("test", "fear")):
        (tmp_path / split / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / split / name / "0.png"), pattern(2, noise))
    splits = datasets.load(tmp_path)
    assert {name: split.labels["expression"].expressions for name, split in splits.items()} == dict.fromkeys(
        ("Training", "PublicTest", "PrivateTest"), (E.HAPPINESS, E.SADNESS, E.FEAR)
    )
    assert splits["PrivateTest"].labels["expression"].truth.tolist() == [2]


def test_without_a_validation_folder_a_tenth_of_train_serves(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    folder = tmp_path / "train" / "sad"
    folder.mkdir(parents=True)
    for number in range(200):
        cv2.imwrite(str(folder / f"{number}.png"), pattern(2, noise))
    first, second = datasets.load(tmp_path), datasets.load(tmp_path)
    assert 5 <= len(first["PublicTest"]) <= 40
    assert len(first["PublicTest"]) + len(first["Training"]) == 200
    assert np.array_equal(first["PublicTest"].images, second["PublicTest"].images)


def folder_with(*files: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for file in files:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("not an image")

    return make


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (folder_with(), InputMissingError, "neither fer2013.csv"),
        (folder_with("train/happy/x.png"), DataError, "x.png cannot be read"),
        (folder_with("train/silly/x.png"), DataError, "silly is no expression"),
        (folder_with("train/happy/x.txt"), DataError, "holds no images"),
        (folder_with("train/x.txt"), InputMissingError, "no class folders"),
    ],
)
def test_unusable_folders(tmp_path: Path, make: Callable[[Path], None], kind: type[EdgeFerError], message: str) -> None:
    make(tmp_path)
    with pytest.raises(kind, match=message):
        datasets.load(tmp_path)


@pytest.fixture
def more(data: Path, tmp_path: Path) -> Path:
    """FER2013 and FER+ with a folder of further faces: two angry, one happy, one that only FER+ has a class for."""
    for file in data.glob("*.csv"):
        (tmp_path / file.name).symlink_to(file)
    noise = np.random.default_rng(7)
    for label, (name, count) in enumerate({"angry": 2, "happy": 1, "contempt": 1}.items()):
        (tmp_path / "posed" / name).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(tmp_path / "posed" / name / f"{number}.png"), pattern(label, noise))
    return tmp_path


def test_further_faces_have_labels_for_all_tasks(more: Path) -> None:
    splits = datasets.load(more, further="posed")
    assert splits["Training"].sha256 == datasets.load(more)["Training"].sha256
    posed = splits["posed"]
    assert (posed.heads, len(posed)) == (splits["Training"].heads, 3)
    for labels in posed.labels.values():
        assert [labels.expressions[one] for one in labels.truth] == [E.ANGER, E.ANGER, E.HAPPINESS]
        assert labels.targets.sum(axis=1).tolist() == [1, 1, 1]
        assert not labels.is_soft


def test_further_faces_that_are_none(more: Path) -> None:
    with pytest.raises(InputMissingError, match="nowhere"):
        datasets.load(more, further="nowhere")
    (more / "contempt" / "contempt").mkdir(parents=True)
    cv2.imwrite(str(more / "contempt" / "contempt" / "0.png"), pattern(1, np.random.default_rng(1)))
    with pytest.raises(DataError, match="no sample that is of a class of ferplus, fer2013"):
        datasets.load(more, further="contempt")
    with pytest.raises(DataError, match="cannot be called Training"):
        datasets.load(more, further="Training")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="No folder"):
        datasets.load(tmp_path / "none")


def test_class_folders_are_read_at_the_size_of_the_model(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    for name in ("happy", "sad"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(20):
            cv2.imwrite(str(tmp_path / "train" / name / f"{number}.png"), cv2.resize(pattern(2, noise), (100, 100)))
    splits = datasets.load(tmp_path, size_hw=(90, 80))
    image = cv2.imread(str(tmp_path / "train" / "happy" / "0.png"), cv2.IMREAD_GRAYSCALE)
    expected = face_tensor(image, FaceBox(0, 0, 100, 100), (90, 80), 0.0)
    assert any(np.array_equal(face, expected) for split in splits.values() for face in split.images)
