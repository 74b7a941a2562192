"""A folder for each class: ``train/angry/*.jpg``, and ``validation`` and ``test`` beside ``train`` if there are any."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.core import Dataset, Labels
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
    splits = {split: _dataset(images, expressions, classes) for split, (images, expressions, _) in read.items()}
    if "PublicTest" not in splits:
        # Without a validation folder a tenth of train serves, chosen by content so that copies of one image
        # fall on the same side and the choice is the same in every run.
        digests = [hashlib.sha1(image).digest()[0] for image in splits["Training"].images]
        held_out = np.array(digests) % 10 == 0
        splits["PublicTest"] = splits["Training"][held_out]
        splits["Training"] = splits["Training"][~held_out]
    return splits


def is_split(folder: Path) -> bool:
    """Whether it holds ``train``, and perhaps more splits, rather than classes."""
    return any(name in _folders(folder) for name in _SPLIT_FOLDERS["Training"])


def _folders(folder: Path) -> dict[str, Path]:
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}


def load_classes(folder: Path, size_hw: tuple[int, int]) -> tuple[Dataset, list[Path]]:
    """Read one folder of class folders, all of it, as one tests on a data set that has no splits.

    Args:
        folder: holds ``angry``, ``happy`` and the like.
        size_hw: what images are brought to.

    Returns:
        The samples, and the file of each.

    Raises:
        InputMissingError: there is no class in it.
        DataError: a class is no expression, or an image cannot be read.
    """
    images, expressions, files = _read_classes(folder, size_hw)
    return _dataset(images, expressions, _classes(set(expressions))), files


def _classes(present: Collection[E]) -> tuple[E, ...]:
    return tuple(expression for expression in E if expression in present)


def _dataset(images: NDArray[np.uint8], expressions: Sequence[E], classes: tuple[E, ...]) -> Dataset:
    truth = np.array([classes.index(one) for one in expressions], np.int64)
    return Dataset(images, {TASK: Labels.single(classes, truth)}, np.zeros(len(images), np.bool_))


def _read_classes(folder: Path, size_hw: tuple[int, int]) -> tuple[NDArray[np.uint8], list[E], list[Path]]:
    by_name = {name: expression for expression, names in _CLASS_NAMES.items() for name in names}
    preprocessor = Preprocessor(PreprocessSpec(), size_hw)
    images: list[NDArray[np.uint8]] = []
    expressions: list[E] = []
    read: list[Path] = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        if path.name.lower() not in by_name:
            raise DataError(f"{path} is no expression that edge-fer knows; it knows {', '.join(sorted(by_name))}.")
        # What macOS and editors leave behind begins with a dot.
        files = [
            file
            for file in sorted(path.iterdir())
            if file.suffix.lower() in STILL_SUFFIXES and not file.name.startswith(".")
        ]
        if not files:
            raise DataError(f"{path} holds no images.")
        for file in files:
            # Read by Python: OpenCV cannot take a name that is not UTF-8.
            content = np.frombuffer(file.read_bytes(), np.uint8)
            gray = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if content.size else None
            if gray is None:
                raise DataError(f"{file} cannot be read as an image.")
            images.append(preprocessor.crop(gray.astype(np.uint8, copy=False)))
            expressions.append(by_name[path.name.lower()])
            read.append(file)
    if not images:
        raise InputMissingError(f"{folder} holds no class folders (angry, happy, ...).")
    return np.stack(images), expressions, read
