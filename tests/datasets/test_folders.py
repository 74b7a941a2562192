"""A folder for each class is a data set, or refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from faces_csv import pattern
from miniatures import write_image

import datasets
from datasets import Dataset, Labels
from datasets.folders import held_out
from datasets.photos import load_photos
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


def people(folder: Path, count: int, sequences: int = 2) -> Path:
    """A folder of angry faces, named as in CK+48: three frames of each sequence of each person."""
    for person in range(count):
        for sequence in range(sequences):
            for frame in range(3):
                write_image(folder / "angry" / f"S{person:03d}_{sequence:03d}_{frame:08d}.png")
    return folder


def test_whole_people_are_held_out_where_they_are_known(tmp_path: Path) -> None:
    people(tmp_path / "train", 20)
    splits = datasets.load(tmp_path)
    training, chosen = splits["Training"], splits["PublicTest"]
    assert training.subjects is not None and chosen.subjects is not None
    assert not set(training.subjects.tolist()) & set(chosen.subjects.tolist())
    assert (len(np.unique(chosen.subjects)), len(chosen), len(training)) == (2, 12, 108)


def test_sequences_are_held_out_where_nobody_is_named_and_else_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1)).astype(np.uint8)
    images[1] = images[0]
    labels = {"expression": Labels.single((E.ANGER, E.FEAR), np.zeros(30, np.int64))}
    alone = Dataset(images, labels, np.zeros(30, np.bool_))
    parts = held_out(alone)
    assert [len(part) for part in parts] in ([28, 2], [27, 3])  # two of 29 images, one of which stands there twice
    assert not {one.tobytes() for one in parts[0].images} & {one.tobytes() for one in parts[1].images}
    for part, other in zip(parts, held_out(alone[np.arange(30)[::-1]]), strict=True):
        assert {one.tobytes() for one in part.images} == {one.tobytes() for one in other.images}
    sequences = alone.replace(sequences=np.repeat([f"film {number}" for number in range(10)], 3))
    rest, chosen = held_out(sequences)
    assert rest.sequences is not None and chosen.sequences is not None
    assert (len(chosen), len(np.unique(chosen.sequences))) == (3, 1)
    assert chosen.sequences[0] not in rest.sequences


@pytest.mark.parametrize("images", [2, 3, 9, 24])
def test_of_a_small_set_one_image_at_least_is_held_out(images: int, tmp_path: Path) -> None:
    for number in range(images):
        write_image(tmp_path / "train" / ("happy", "sad")[number % 2] / f"{number}.png")
    splits = datasets.load(tmp_path)
    assert len(splits["PublicTest"]) == max(1, images // 10)
    assert len(splits["Training"]) == images - len(splits["PublicTest"])


@pytest.mark.parametrize(
    ("names", "sentence"), [(["a.png"], "are the same"), ([f"S001_001_{n:08d}.png" for n in range(9)], "of one person")]
)
def test_who_is_alone_is_not_held_out(names: list[str], sentence: str, tmp_path: Path) -> None:
    for name in names:
        write_image(tmp_path / "train" / "happy" / name)
    with pytest.raises(DataError, match=f"All training images .*{sentence}: none is left to choose by"):
        datasets.load(tmp_path)


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


def test_further_faces_that_stand_in_a_test_split_are_left_out(more: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A test face under another label, and one as a photo: neither may be learned from."""
    public = datasets.load(more)["PublicTest"].images[..., 0]
    cv2.imwrite(str(more / "posed" / "happy" / "test.png"), public[0])
    assert capsys.readouterr().err == ""
    posed = datasets.load(more, further="posed")["posed"]
    assert len(posed) == 3 and not {one.tobytes() for one in posed.images} & {one.tobytes() for one in public}
    assert capsys.readouterr().err == "posed: 1 of 5 faces stand in a test split too; they are left out.\n"
    (more / "known" / "happy").mkdir(parents=True)
    cv2.imwrite(str(more / "known" / "happy" / "test.png"), public[1])
    with pytest.raises(DataError, match="known: all of its faces stand in a test split"):
        datasets.load(more, further="known")


def test_unlabeled_faces_that_stand_in_a_test_split_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8), (160, 1))
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), ramp)
    rows = ("photo,x,y,w,h,score", "a.png,60,40,60,60,0.9", "a.png,90,40,60,60,0.9")
    (tmp_path / "photos" / "faces.csv").write_text("\n".join(rows) + "\n")
    first, other = load_photos(tmp_path / "photos", (48, 48)).images[..., 0]
    for split in ("train", "validation", "test"):
        write_image(tmp_path / split / "happy" / "0.png")
    cv2.imwrite(str(tmp_path / "test" / "happy" / "1.png"), first)
    (left,) = datasets.load(tmp_path, unlabeled="photos")["photos"].images[..., 0]
    assert np.array_equal(left, other)
    assert capsys.readouterr().err == "photos: 1 of 2 faces stand in a test split too; they are left out.\n"


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
