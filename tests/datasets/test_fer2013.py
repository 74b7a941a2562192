"""Data sets are read right or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from faces_csv import pattern, write_csvs

from edge_fer.core import FaceBox
from edge_fer.errors import DataError, EdgeFerError, InputMissingError
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from edge_fer.preprocess.face_tensor import face_tensor
from evaluation import datasets
from evaluation.datasets import FER2013_LABELS, FERPLUS_LABELS, Dataset


def votes_of(*rows: list[int]) -> Dataset:
    n = len(rows)
    nothing = np.zeros(n, np.bool_)
    return Dataset(
        np.zeros((n, 48, 48, 1), np.uint8), np.full(n, -1), np.array(rows, np.float32), also_in_training=nothing
    )


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ([6, 4, 0, 0, 0, 0, 0, 0, 0, 0], 0),
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], -1),  # a half is not more than a half
        ([1, 1, 1, 1, 1, 0, 5, 0, 0, 0], 6),  # single votes are noise
        ([0, 4, 0, 0, 0, 0, 0, 0, 6, 0], -1),  # unknown is no expression
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], -1),  # nor is not-a-face
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], -1),
        ([0, 0, 0, 0, 0, 0, 0, 10, 0, 0], 7),
    ],
)
def test_the_strict_rule_of_ferplus(votes: list[int], label: int) -> None:
    assert votes_of(votes).ferplus.tolist() == [label]


def test_votes_as_soft_targets() -> None:
    soft, weight = votes_of([6, 3, 1, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0, 8, 0]).ferplus_distribution()
    assert soft[0] == pytest.approx([2 / 3, 1 / 3, 0, 0, 0, 0, 0, 0])
    assert weight.tolist() == [1, 0]


def test_both_csvs(tmp_path: Path) -> None:
    write_csvs(tmp_path)
    splits = datasets.load(tmp_path)
    assert {name: len(split) for name, split in splits.items()} == {"Training": 140, "PublicTest": 42}
    training = splits["Training"]
    assert training.images.shape == (140, 48, 48, 1)
    assert training.fer2013[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    # Both files mean the same expression, each in its own order of labels.
    for fer2013, ferplus in zip(training.fer2013, training.ferplus, strict=True):
        assert FER2013_LABELS[fer2013] == FERPLUS_LABELS[ferplus]


def test_without_votes_there_are_no_ferplus_labels(tmp_path: Path) -> None:
    write_csvs(tmp_path, votes=False)
    assert (datasets.load(tmp_path)["Training"].ferplus == -1).all()


def test_icml_face_data_has_blanks_in_its_columns(tmp_path: Path) -> None:
    write_csvs(tmp_path, votes=False)
    text = (tmp_path / "fer2013.csv").read_text().replace("emotion,pixels,Usage", "emotion, pixels, Usage")
    (tmp_path / "fer2013.csv").unlink()
    (tmp_path / "icml_face_data.csv").write_text(text)
    assert len(datasets.load(tmp_path)["Training"]) == 140


def test_training_rows_that_stand_in_a_test_split_are_left_out(tmp_path: Path) -> None:
    write_csvs(tmp_path, training=20, public=10, votes=False)
    path = tmp_path / "fer2013.csv"
    lines = path.read_text().splitlines()
    lines[5] = lines[21].replace("PublicTest", "Training")
    path.write_text("\n".join(lines) + "\n")
    splits = datasets.load(tmp_path)
    assert len(splits["Training"]) == 19
    assert splits["PublicTest"].also_in_training.tolist() == [True] + [False] * 9


def test_rows_to_leave_out_are_training_rows_alone(tmp_path: Path) -> None:
    write_csvs(tmp_path, training=20, public=10)
    (tmp_path / "exclude.csv").write_text("row,usage\n3,Training\n22,PublicTest\n")
    splits = datasets.load(tmp_path, exclude="exclude.csv")
    assert (len(splits["Training"]), len(splits["PublicTest"])) == (19, 10)


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
    assert sorted(set(training.fer2013.tolist())) == [-1, 0, 3]  # FER2013 knows no contempt
    assert sorted({FERPLUS_LABELS[label] for label in training.ferplus}) == ["anger", "contempt", "happiness"]


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


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit("fer2013.csv", lambda text: text.replace("emotion,", "label,", 1)), "no column emotion"),
        (edit("fer2013.csv", lambda text: text.replace(",Training", " 7,Training", 1)), "line 2: 2305 pixels"),
        (edit("fer2013.csv", lambda text: text.replace("\n0,", "\n9,", 1)), "line 2: label 9 is not one of 0-6"),
        (edit("fer2013.csv", lambda text: text.replace("\n0,", "\nx,", 1)), "line 2: a label or a pixel"),
        (edit("fer2013.csv", lambda text: text.replace("\n0,", "\n0,999 ", 1)), "line 2: a label or a pixel"),
        (edit("fer2013.csv", lambda text: text + "3\n"), "row is too short"),
        (edit("fer2013.csv", lambda text: text.replace("Training", "train")), "no rows whose Usage is Training"),
        (edit("fer2013.csv", lambda text: text[:14] + text[14:].replace("\n", "\x00\n")), "."),
        (edit("fer2013.csv", lambda text: ""), "no column emotion, pixels, Usage"),
        (edit("fer2013new.csv", lambda text: text + text.splitlines()[-1] + "\n"), "has more rows"),
        (edit("fer2013new.csv", lambda text: "\n".join(text.splitlines()[:-2]) + "\n"), "has 180 rows and .* 182"),
        (edit("fer2013new.csv", lambda text: text.replace(",8,", ",many,", 1)), "a vote is not a whole number"),
        (edit("fer2013new.csv", lambda text: text.replace("contempt", "scorn", 1)), "no column contempt"),
    ],
)
def test_damaged_csvs(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    write_csvs(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
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


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="No folder"):
        datasets.load(tmp_path / "none")


def test_class_folders_are_read_at_the_size_of_the_model(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    for name in ("happy", "sad"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(20):
            cv2.imwrite(str(tmp_path / "train" / name / f"{number}.png"), cv2.resize(pattern(2, noise), (100, 100)))
    training = datasets.load(tmp_path, size_hw=(90, 80))["Training"]
    image = cv2.imread(str(tmp_path / "train" / "happy" / "0.png"), cv2.IMREAD_GRAYSCALE)
    expected = face_tensor(image, FaceBox(0, 0, 100, 100), (90, 80), 0.0)
    assert any(np.array_equal(face, expected) for face in training.images)


@pytest.mark.parametrize("size_hw", [(48, 48), (40, 60), (61, 35)])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
def test_a_data_sets_framing_is_kept_whatever_the_margin(size_hw: tuple[int, int], margin: float) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *size_hw, 1)).astype(np.uint8)
    assert np.array_equal(Preprocessor(PreprocessSpec(margin=margin), size_hw).crops(images), images)
