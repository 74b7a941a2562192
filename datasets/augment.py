"""``python -m datasets augment``: a data set with more images for training, made once and kept (offline augmentation).

The survey's list (Li & Deng, arXiv 1804.08348, section 3.1.2): rotation, shift, scale, skew, brightness, three kinds
of noise, and crops of the corners and the middle with their mirror images. What is written are class folders,
``train``, ``validation`` and ``test``, which every command reads; only ``train`` has copies, so that none can stand
in another split than its source. A set without splits has to be split first: a copy of an image of the test would
teach the test.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

import datasets
from datasets.core import Dataset
from datasets.folders import held_out
from datasets.reading import folds_in
from edge_fer.core import Image
from edge_fer.errors import DataError, InputMissingError, UsageError
from edge_fer.files import make_folder, write_atomically

Change: TypeAlias = Callable[[Image, np.random.Generator], Iterator[Image]]

_TURN_DEG = 15
_SHIFT = 0.1
"""Of the sides, as are zoom and skew."""
_ZOOM = 0.1
_SKEW = 0.15
_GAIN = 0.3
_BIAS = 25
"""Gray levels, as is sigma."""
_SIGMA = 10
_SPECKLE = 0.1
_FLIPPED = 0.03
"""Part of the pixels that are black or white."""
_CROP = 7 / 8
_FOLDERS = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}


def _warped(image: Image, matrix: NDArray[np.floating]) -> Image:
    """By a matrix (2, 3) that moves points about the middle; what comes in repeats the edge."""
    height, width = image.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    moved = np.hstack([matrix[:, :2], (middle + matrix[:, 2] - matrix[:, :2] @ middle)[:, np.newaxis]])
    warped = cv2.warpAffine(image, moved, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped.astype(np.uint8, copy=False)


def _drawn(chance: np.random.Generator, most: float) -> float:
    """Up to ``most`` either way, and half of it at least: a copy that nothing has happened to is of no use."""
    return float(chance.choice((-1, 1)) * chance.uniform(most / 2, most))


def _rotation(image: Image, chance: np.random.Generator) -> Iterator[Image]:
    angle = np.deg2rad(_drawn(chance, _TURN_DEG))
    yield _warped(image, np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]))


def _shift(image: Image, chance: np.random.Generator) -> Iterator[Image]:
    height, width = image.shape
    right, down = _drawn(chance, _SHIFT) * width, _drawn(chance, _SHIFT) * height
    yield _warped(image, np.array([[1, 0, right], [0, 1, down]]))


def _scale(image: Image, chance: np.random.Generator) -> Iterator[Image]:
    zoom = 1 + _drawn(chance, _ZOOM)
    yield _warped(image, np.array([[zoom, 0, 0], [0, zoom, 0]]))


def _skew(image: Image, chance: np.random.Generator) -> Iterator[Image]:
    yield _warped(image, np.array([[1, _drawn(chance, _SKEW), 0], [0, 1, 0]]))


def _brightness(image: Image, chance: np.random.Generator) -> Iterator[Image]:
    gain, bias = 1 + _drawn(chance, _GAIN), _drawn(chance, _BIAS)
    yield _rounded((image - image.mean()) * gain + image.mean() + bias)


def _gaussian(image: Image, chance: np.random.Generator) -> Iterator[Image]:
    yield _rounded(image + chance.normal(0, _SIGMA, image.shape))


def _speckle(image: Image, chance: np.random.Generator) -> Iterator[Image]:
    yield _rounded(image * (1 + chance.normal(0, _SPECKLE, image.shape)))


def _salt_and_pepper(image: Image, chance: np.random.Generator) -> Iterator[Image]:
    where = chance.uniform(size=image.shape)
    yield np.where(where < _FLIPPED / 2, 0, np.where(where > 1 - _FLIPPED / 2, 255, image)).astype(np.uint8)


def _crops(image: Image, chance: np.random.Generator) -> Iterator[Image]:
    """The four corners and the middle, each with its mirror image: ten, of the size of the image."""
    height, width = image.shape
    high, wide = round(height * _CROP), round(width * _CROP)
    corners = [(0, 0), (0, width - wide), (height - high, 0), (height - high, width - wide)]
    for top, left in (*corners, ((height - high) // 2, (width - wide) // 2)):
        part = cv2.resize(image[top : top + high, left : left + wide], (width, height), interpolation=cv2.INTER_LINEAR)
        yield part.astype(np.uint8, copy=False)
        yield part[:, ::-1].astype(np.uint8, copy=False)


def _rounded(values: NDArray[np.floating]) -> Image:
    rounded: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


KINDS: dict[str, Change] = {
    "rotation": _rotation,
    "shift": _shift,
    "scale": _scale,
    "skew": _skew,
    "brightness": _brightness,
    "gaussian": _gaussian,
    "speckle": _speckle,
    "salt-and-pepper": _salt_and_pepper,
    "crops": _crops,
}
"""By name: what makes one image of an image, or for crops ten."""


def copies_of(image: Image, kinds: Sequence[str], copies: int, seed: int) -> Iterator[tuple[str, Image]]:
    """The copies of one image: name of the kind with a number, and pixels.

    What chance decides depends on the seed, the image, the kind and the number alone: not on what else is in the set.

    Args:
        image: uint8 (height, width).
        kinds: of ``KINDS``.
        copies: of each kind; crops are always ten.
        seed: any number from 0.
    """
    source = int(_digest(image)[:16], 16)
    for kind in kinds:
        for number in range(1 if kind == "crops" else copies):
            chance = np.random.default_rng([seed, source, list(KINDS).index(kind), number])
            for place, copy in enumerate(KINDS[kind](image, chance)):
                yield f"{kind}{number + place}", copy


def augment(
    folder: Path,
    out: Path,
    kinds: Sequence[str] = tuple(KINDS),
    copies: int = 1,
    seed: int = 0,
    folds: Path | None = None,
    fold: int = 1,
    size: int = datasets.SIDE,
) -> Path:
    """Write a data set anew, with copies of what is for training.

    Args:
        folder: with the data set.
        out: a folder that is not there yet, or empty.
        kinds: of ``KINDS``.
        copies: of each image and kind.
        seed: any number from 0; the same gives the same files.
        folds: for a set without splits, what ``python -m evaluation folds --json`` wrote: the test rows of each fold.
        fold: which of them is the test, from 1.
        size: side of the images in pixels.

    Returns:
        ``out``. Its ``augmented.csv`` has a row an image: file, split, kind, SHA-1 of the source's pixels, its person.

    Raises:
        InputMissingError: the set or the folds are not there.
        DataError: one of them is not what it should be.
        UsageError: ``out`` holds something or lies in the data set, or the set has to be split first.
        OutputError: a file cannot be written.
    """
    if not folder.is_dir():
        raise InputMissingError(f"No folder {folder}: give the folder that holds the data set.")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"{out} lies in {folder}: copies among the originals would be read as originals; write elsewhere."
        )
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: give a new folder, so that no older copies stay in it.")
    splits = _splits(folder, folds, fold, size)
    rows: list[tuple[str, ...]] = []
    console = Console(stderr=True)
    for split, data in splits.items():
        labels = next(iter(data.labels.values()))
        known = np.flatnonzero(labels.truth >= 0).tolist()
        shown = track(
            known, f"Writing {_FOLDERS[split]}", console=console, transient=True, disable=not console.is_terminal
        )
        for row in shown:
            image, label = data.images[row, ..., 0], labels.expressions[labels.truth[row]].value
            place, source = out / _FOLDERS[split] / label, _digest(image)
            person = "" if data.subjects is None else str(data.subjects[row])
            made = copies_of(image, kinds, copies, seed) if split == "Training" else iter(())
            for kind, pixels in (("original", image), *made):
                path = place / f"{row:06d}_{source[:10]}_{kind}.png"
                make_folder(place)
                write_atomically(path, cv2.imencode(".png", pixels)[1].tobytes())
                rows.append((str(path.relative_to(out)), _FOLDERS[split], kind, source, person))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("file", "split", "kind", "source", "subject"), *rows])
    write_atomically(out / "augmented.csv", table.getvalue().encode())
    return out


def _splits(folder: Path, folds: Path | None, fold: int, size: int) -> dict[str, Dataset]:
    if datasets.has_splits(folder):
        if folds is not None:
            raise UsageError(f"{folder} has splits of its own: leave --folds out.")
        return datasets.load(folder, size_hw=(size, size))
    if folds is None:
        raise UsageError(
            f"{folder} has no splits, and copies must not cross one: make folds with `python -m evaluation folds "
            "--json FILE`, and give --folds FILE --fold N."
        )
    data = datasets.load_test(folder, size_hw=(size, size))
    test = np.zeros(len(data), np.bool_)
    test[_rows(folds, fold, len(data))] = True
    training, chosen = held_out(data[~test])
    return {"Training": training, "PublicTest": chosen, "PrivateTest": data[test]}


def _rows(path: Path, fold: int, images: int) -> list[int]:
    if not path.is_file():
        raise InputMissingError(f"No file {path}: `python -m evaluation folds --json {path}` writes it.")
    rows = folds_in(path)
    if not 1 <= fold <= len(rows):
        raise UsageError(f"--fold {fold}: {path} has {len(rows)} folds.")
    if sorted(row for one in rows for row in one) != list(range(images)):
        raise DataError(f"{path} holds folds of another data set: this one has {images:,} images.")
    return rows[fold - 1]


def _digest(image: Image) -> str:
    return hashlib.sha1(np.ascontiguousarray(image).tobytes()).hexdigest()
