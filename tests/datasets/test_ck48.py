"""Class folders are read whole to test on, and CK+48 tells who is in its images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from faces_csv import pattern
from miniatures import write_image

import datasets
from edge_fer.core import Expression as E
from edge_fer.errors import InputMissingError


def write(folder: Path, names: dict[str, list[str]]) -> None:
    """Class folders with images of these names."""
    for label, (name, files) in enumerate(names.items()):
        (folder / name).mkdir(parents=True)
        for file in files:
            cv2.imwrite(str(folder / name / file), pattern(label, np.random.default_rng(len(file))))


def test_ck48_knows_its_people_and_sequences(tmp_path: Path) -> None:
    write(tmp_path, {"anger": ["S011_004_00000019.png", "S011_004_00000020.png"], "happy": ["S011_006_00000011.png"]})
    data = datasets.load_test(tmp_path)
    ((task, labels),) = data.labels.items()
    assert (task, labels.expressions) == ("expression", (E.HAPPINESS, E.ANGER))
    assert [labels.expressions[one] for one in labels.truth] == [E.ANGER, E.ANGER, E.HAPPINESS]
    assert data.subjects is not None and data.sequences is not None
    assert data.subjects.tolist() == ["S011"] * 3
    assert data.sequences.tolist() == ["S011_004", "S011_004", "S011_006"]
    assert data.images.shape == (3, 48, 48, 1)


def test_one_other_name_and_nobody_is_known(tmp_path: Path) -> None:
    write(tmp_path, {"anger": ["S011_004_00000019.png"], "happy": ["S11_6_1.png"]})
    data = datasets.load_test(tmp_path, size_hw=(32, 40))
    assert data.subjects is None and data.sequences is None
    assert data.images.shape == (2, 32, 40, 1)


def test_what_has_splits_is_read_by_split(tmp_path: Path, data: Path) -> None:
    assert len(datasets.load_test(data)) == 42
    for split, count in (("train", 3), ("test", 2)):
        for number in range(count):
            write_image(tmp_path / split / "anger" / f"{number}.png")
    assert len(datasets.load_test(tmp_path, "PrivateTest")) == 2
    with pytest.raises(InputMissingError, match="has no PrivateTest rows"):
        datasets.load_test(data, "PrivateTest")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="No folder"):
        datasets.load_test(tmp_path / "nowhere")
