"""A folder for each class: ``train/angry/*.jpg``, and ``validation`` and ``test`` beside ``train`` if there are any."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.ck48 import with_subjects
from datasets.core import Dataset, Labels
from datasets.landmarks_file import digest_of
from datasets.reading import files_below, read_gray
from datasets.sample import Layout, Sample, Split
from edge_fer.core import Expression as E
from edge_fer.errors import DataError, InputMissingError
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from edge_fer.sources.folder import STILL_SUFFIXES

TASK = "expression"
"""Name of the one task that class folders label."""

_CLASS_NAMES = {
    E.NEUTRAL: ("neutral",),
    E.HAPPINESS: ("happy", "happiness", "joy"),
    E.SURPRISE: ("surprise", "surprised"),
    E.SADNESS: ("sad", "sadness"),
    E.ANGER: ("angry", "anger"),
    E.DISGUST: ("disgust", "disgusted"),
    E.FEAR: ("fear", "fearful", "afraid"),
    E.CONTEMPT: ("contempt",),
}
_BY_NAME = {name: expression for expression, names in _CLASS_NAMES.items() for name in names}
_SPLIT_NAMES: dict[Split, str] = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
_SPLIT_FOLDERS = {
    "Training": ("train", "training"),
    "PublicTest": ("validation", "valid", "val", "publictest"),
    "PrivateTest": ("test", "privatetest"),
}


def load_folders(folder: Path, size_hw: tuple[int, int]) -> dict[str, Dataset]:
    """Read class folders; their classes are those that occur, so that four make a task of four.

    Args:
        folder: holds ``train``.
        size_hw: what images are brought to.

    Raises:
        InputMissingError: there is no ``train``, or no class in it.
        DataError: a class is no expression, or an image cannot be read.
    """
    found = _folders(folder)
    read = {
        split: _read_classes(found[name], size_hw)
        for split, names in _SPLIT_FOLDERS.items()
        for name in names
        if name in found
    }
    if "Training" not in read:
        raise InputMissingError(f"{folder} has neither fer2013.csv, nor icml_face_data.csv, nor a folder 'train'.")
    classes = _classes({expression for _, expressions, _ in read.values() for expression in expressions})
    splits = {split: _dataset(*one, classes) for split, one in read.items()}
    if "PublicTest" not in splits:
        splits["Training"], splits["PublicTest"] = held_out(splits["Training"])
    return splits


def held_out(training: Dataset) -> tuple[Dataset, Dataset]:
    """Training without about a tenth, and the tenth, for a set that has nothing to choose by.

    Whole people are held out; sequences, where nobody is named; else images. At least one is. A hash decides which, so
    that copies of one image fall on the same side and the choice is the same in every run.

    Raises:
        DataError: there is one person, sequence or image alone.
    """
    names = training.sequences if training.subjects is None else training.subjects
    keys = [digest_of(image).hex() for image in training.images] if names is None else names.tolist()
    parts = sorted(set(keys), key=lambda key: hashlib.sha1(key.encode()).hexdigest())
    chosen = np.isin(keys, parts[: max(1, len(parts) // 10)])
    if chosen.all():
        what = (
            "of one person" if training.subjects is not None else "of one sequence" if names is not None else "the same"
        )
        raise DataError(f"All training images are {what}: none is left to choose by; give others, or a split for it.")
    return training[~chosen], training[chosen]


def is_split(folder: Path) -> bool:
    """Whether it holds ``train``, and perhaps more splits, rather than classes."""
    return any(name in _folders(folder) for name in _SPLIT_FOLDERS["Training"])


def _folders(folder: Path) -> dict[str, Path]:
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}


def load_classes(folder: Path, size_hw: tuple[int, int]) -> Dataset:
    """Read one folder of class folders, all of it, as one tests on a data set that has no splits.

    Args:
        folder: holds ``angry``, ``happy`` and the like.
        size_hw: what images are brought to.

    Raises:
        InputMissingError: there is no class in it.
        DataError: a class is no expression, or an image cannot be read.
    """
    images, expressions, files = _read_classes(folder, size_hw)
    return _dataset(images, expressions, files, _classes(set(expressions)))


def _classes(present: Collection[E]) -> tuple[E, ...]:
    return tuple(expression for expression in E if expression in present)


def _dataset(
    images: NDArray[np.uint8], expressions: Sequence[E], files: Sequence[Path], classes: tuple[E, ...]
) -> Dataset:
    truth = np.array([classes.index(one) for one in expressions], np.int64)
    data = Dataset(images, {TASK: Labels.single(classes, truth)}, np.zeros(len(images), np.bool_))
    return with_subjects(data, files)


def _read_classes(folder: Path, size_hw: tuple[int, int]) -> tuple[NDArray[np.uint8], list[E], list[Path]]:
    preprocessor = Preprocessor(PreprocessSpec(), size_hw)
    images: list[NDArray[np.uint8]] = []
    expressions: list[E] = []
    read: list[Path] = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        if path.name.lower() not in _BY_NAME:
            raise DataError(f"{path} is no expression that edge-fer knows; it knows {', '.join(sorted(_BY_NAME))}.")
        # What macOS and editors leave behind begins with a dot.
        files = [
            file
            for file in sorted(path.iterdir())
            if file.suffix.lower() in STILL_SUFFIXES and not file.name.startswith(".")
        ]
        if not files:
            raise DataError(f"{path} holds no images.")
        for file in files:
            images.append(preprocessor.crop(read_gray(file)))
            expressions.append(_BY_NAME[path.name.lower()])
            read.append(file)
    if not images:
        raise InputMissingError(f"{folder} holds no class folders (angry, happy, ...).")
    return np.stack(images), expressions, read


def _has_classes(folder: Path) -> bool:
    return any(name in _BY_NAME for name in _folders(folder))


def _read(folder: Path) -> Iterator[Sample]:
    homes = _folders(folder)
    found: list[tuple[Path, Split | None]] = [(folder, None)] if _has_classes(folder) else []
    for split, usage in _SPLIT_NAMES.items():
        found += [(homes[name], split) for name in _SPLIT_FOLDERS[usage] if name in homes]
    for home, part in found:
        for name, place in _folders(home).items():
            if name.startswith("."):
                continue
            expression = LAYOUT.expression(name, place)
            for path in files_below(place, *STILL_SUFFIXES):
                yield Sample(path, name, expression, split=part)


LAYOUT = Layout(
    name="folders",
    title="A folder for each class",
    wants="angry, happy, ...; or train/angry, ..., perhaps validation and test",
    labels=_BY_NAME,
    recognizes=lambda folder: _has_classes(folder) or is_split(folder),
    read=_read,
    counts={},
    survey="not in the survey's table; FER2013, RAF-DB and others are passed on in this form.",
    licence="as the set that it is of",
    faces=True,
)
