"""Read the expression data sets that people have on disk, in the forms they have them.

* FER2013: Kaggle's ``fer2013.csv``, or ``icml_face_data.csv`` (the same with blanks in the column names).
* FER+: ``fer2013new.csv`` beside it, ten raters' votes for each row (Barsoum et al., arXiv 1608.01041).
* A folder for each class: ``train/angry/*.jpg``, and ``validation`` and ``test`` beside ``train`` if there are any.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from edge_fer.core import Expression as E
from edge_fer.errors import DataError, InputMissingError
from edge_fer.preprocess import Preprocessor, PreprocessSpec
from edge_fer.preprocess.alignment import Alignment

SIDE = 48
FER2013_LABELS = (E.ANGER, E.DISGUST, E.FEAR, E.HAPPINESS, E.SADNESS, E.SURPRISE, E.NEUTRAL)
"""FER2013's expressions in the order of its codes 0-6."""
FERPLUS_LABELS = (E.NEUTRAL, E.HAPPINESS, E.SURPRISE, E.SADNESS, E.ANGER, E.DISGUST, E.FEAR, E.CONTEMPT)
"""FER+'s expressions in the order of its vote columns."""

_VOTE_COLUMNS = (*FERPLUS_LABELS, "unknown", "NF")
_FOLDER_NAMES = {
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
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Dataset:
    """Faces with their labels, row by row.

    Attributes:
        images: uint8 (n, height, width, 1): 48x48, unless ``load`` was asked for another size.
        fer2013: int64 (n,), index into FER2013_LABELS, -1 where there is none.
        votes: float32 (n, 10), raters' votes: FERPLUS_LABELS, then unknown and not-a-face. All 0 where there are none.
        also_in_training: bool (n,), the very same pixels stand in the Training rows too.
    """

    images: NDArray[np.uint8]
    fer2013: NDArray[np.int64]
    votes: NDArray[np.float32]
    also_in_training: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Dataset:
        return Dataset(self.images[rows], self.fer2013[rows], self.votes[rows], self.also_in_training[rows])

    @property
    def sha256(self) -> str:
        """Hash of all pixels and labels, to say in a run what it was trained on."""
        digest = hashlib.sha256()
        for array in (self.images, self.fer2013, self.votes):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def ferplus(self) -> NDArray[np.int64]:
        """FER+ label, int64 (n,), by the reference code's strict rule; -1 where the raters do not agree.

        Single votes are dropped as noise, the mode needs more than half of what is left, and it must be an
        expression: unknown and not-a-face do not count (``majority`` in FERPlus/src/ferplus.py).
        """
        votes = np.where(self.votes > 1, self.votes, 0)
        mode = votes.argmax(axis=1)
        agreed = votes.max(axis=1) > 0.5 * votes.sum(axis=1)
        return np.where(agreed & (mode < len(FERPLUS_LABELS)), mode, -1)

    def ferplus_distribution(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Votes as soft targets: float32 (n, 8) that sum to 1, and float32 (n,) weights, 1 or 0.

        Single votes are dropped; a row counts when more than half of the votes left are for expressions.
        """
        votes = np.where(self.votes > 1, self.votes, 0)
        expressions = votes[:, : len(FERPLUS_LABELS)]
        total = expressions.sum(axis=1, keepdims=True)
        weight = (total[:, 0] > 0.5 * votes.sum(axis=1)).astype(np.float32)
        return (expressions / np.maximum(total, 1)).astype(np.float32), weight


def load(
    folder: Path,
    exclude: str | None = None,
    size_hw: tuple[int, int] = (SIDE, SIDE),
    alignment: Alignment = "none",
) -> dict[str, Dataset]:
    """Read all splits of the data set in a folder.

    Args:
        folder: holds ``fer2013.csv`` or ``icml_face_data.csv``, perhaps with ``fer2013new.csv``; or ``train``.
        exclude: name of a CSV in the folder whose column ``row`` lists Training rows to leave out, numbered as in
            FER+'s image names (``fer0000078.png`` is 78). Ignored when no such file is there.
        size_hw: what images of class folders are brought to. Those of FER2013 are 48x48 and stay so.
        alignment: how faces are turned, as the runtime turns them; as they are where no eyes are found.

    Returns:
        Datasets by split: "Training" and "PublicTest", and "PrivateTest" where there is one. Training rows
        whose pixels also stand in a test split are left out, so that no metric rests on memory.

    Raises:
        InputMissingError: nothing readable is there.
        DataError: a file is there but its content is wrong.
    """
    if not folder.is_dir():
        raise InputMissingError(f"No folder {folder}: --data wants the folder that holds fer2013.csv.")
    for name in ("fer2013.csv", "icml_face_data.csv"):
        if (folder / name).is_file():
            splits = _load_csv(folder / name, folder / "fer2013new.csv", folder / exclude if exclude else None)
            break
    else:
        splits = _load_folders(folder, size_hw)
    splits = _without_leaks(splits)
    if alignment != "none":
        splits = {name: _aligned(split, alignment) for name, split in splits.items()}
    return splits


def _aligned(data: Dataset, alignment: Alignment) -> Dataset:
    if len(data) == 0:
        return data
    preprocessor = Preprocessor(PreprocessSpec(alignment=alignment), data.images.shape[1:3])
    console = Console(stderr=True)
    shown = track(data.images, "Turning faces", console=console, transient=True, disable=not console.is_terminal)
    return dataclasses.replace(data, images=np.stack([preprocessor.crop(image[..., 0]) for image in shown]))


def _without_leaks(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    hashes = {name: [hashlib.sha1(image).digest() for image in split.images] for name, split in splits.items()}
    training = set(hashes["Training"])
    tests = {digest for name, split in hashes.items() if name != "Training" for digest in split}
    clean = {}
    for name, split in splits.items():
        seen = np.array([digest in training for digest in hashes[name]], dtype=np.bool_)
        clean[name] = Dataset(split.images, split.fer2013, split.votes, seen)
    leaks = np.array([digest in tests for digest in hashes["Training"]], dtype=np.bool_)
    clean["Training"] = clean["Training"][~leaks]
    return clean


def _load_csv(fer2013: Path, ferplus: Path, exclude: Path | None) -> dict[str, Dataset]:
    usages: list[str] = []
    labels: list[int] = []
    images: list[NDArray[np.uint8]] = []
    for number, row in _rows(fer2013, ("emotion", "pixels", "Usage")):
        try:
            label = int(row["emotion"])
            pixels = np.array(row["pixels"].split(), dtype=np.uint8)
        except (ValueError, OverflowError):
            raise DataError(f"{fer2013}, line {number}: a label or a pixel is not a number of 0-255.") from None
        if not 0 <= label < len(FER2013_LABELS):
            raise DataError(f"{fer2013}, line {number}: label {label} is not one of 0-6.")
        if pixels.size != SIDE * SIDE:
            raise DataError(f"{fer2013}, line {number}: {pixels.size} pixels, not {SIDE * SIDE} (48x48).")
        usages.append(row["Usage"].strip())
        labels.append(label)
        images.append(pixels)
    votes = np.zeros((len(images), len(_VOTE_COLUMNS)), np.float32)
    kept = np.ones(len(images), np.bool_)
    if ferplus.is_file():
        names = _read_votes(ferplus, votes)
        if exclude is not None and exclude.is_file():
            unwanted = {int(row["row"]) for _, row in _rows(exclude, ("row",))}
            kept = np.array([not name or int(name[3:10]) not in unwanted for name in names])
    usage = np.array(usages)
    kept |= usage != "Training"
    everything = Dataset(
        np.stack(images).reshape(-1, SIDE, SIDE, 1) if images else np.zeros((0, SIDE, SIDE, 1), np.uint8),
        np.array(labels, np.int64),
        votes,
        np.zeros(len(images), np.bool_),
    )
    splits = {name: everything[kept & (usage == name)] for name in _SPLIT_FOLDERS}
    for name in ("Training", "PublicTest"):
        if len(splits[name]) == 0:
            raise DataError(f"{fer2013} has no rows whose Usage is {name}.")
    return {name: split for name, split in splits.items() if len(split)}


def _read_votes(path: Path, votes: NDArray[np.float32]) -> list[str]:
    """Fill in the votes, row for row; return FER+'s image names, empty where it says not-a-face."""
    names: list[str] = []
    for number, row in _rows(path, ("Image name", *_VOTE_COLUMNS)):
        if len(names) == len(votes):
            raise DataError(f"{path} has more rows than fer2013.csv: the two belong together row by row.")
        try:
            votes[len(names)] = [int(row[column]) for column in _VOTE_COLUMNS]
        except ValueError:
            raise DataError(f"{path}, line {number}: a vote is not a whole number.") from None
        names.append(row["Image name"].strip())
    if len(names) < len(votes):
        raise DataError(f"{path} has {len(names)} rows and fer2013.csv {len(votes)}: they belong together row by row.")
    return names


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV with their line numbers; column names are stripped of blanks."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        try:
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            missing = [column for column in columns if column not in reader.fieldnames]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}.")
            for row in reader:
                if None in row.values():
                    raise DataError(f"{path}, line {reader.line_num}: the row is too short.")
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read as CSV: {error}.") from None


def _load_folders(folder: Path, size_hw: tuple[int, int]) -> dict[str, Dataset]:
    found = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    splits = {}
    for split, names in _SPLIT_FOLDERS.items():
        for name in names:
            if name in found:
                splits[split] = _load_classes(found[name], size_hw)
    if "Training" not in splits:
        raise InputMissingError(f"{folder} has neither fer2013.csv, nor icml_face_data.csv, nor a folder 'train'.")
    if "PublicTest" not in splits:
        # Without a validation folder a tenth of train serves, chosen by content so that copies of one image
        # fall on the same side and the choice is the same in every run.
        digests = [hashlib.sha1(image).digest()[0] for image in splits["Training"].images]
        held_out = np.array(digests) % 10 == 0
        splits["PublicTest"] = splits["Training"][held_out]
        splits["Training"] = splits["Training"][~held_out]
    return splits


def _load_classes(folder: Path, size_hw: tuple[int, int]) -> Dataset:
    by_name = {name: expression for expression, names in _FOLDER_NAMES.items() for name in names}
    images: list[NDArray[np.uint8]] = []
    expressions: list[E] = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            continue
        if path.name.lower() not in by_name:
            raise DataError(f"{path} is no expression that edge-fer knows; it knows {', '.join(sorted(by_name))}.")
        files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in _IMAGE_SUFFIXES]
        if not files:
            raise DataError(f"{path} holds no images.")
        for file in files:
            gray = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            if gray is None:
                raise DataError(f"{file} cannot be read as an image.")
            images.append(Preprocessor(PreprocessSpec(), size_hw).crop(gray.astype(np.uint8, copy=False)))
            expressions.append(by_name[path.name.lower()])
    if not images:
        raise InputMissingError(f"{folder} holds no class folders (angry, happy, ...).")
    # A folder has one label for each image: it serves as FER2013 label, and as ten equal votes for FER+.
    fer2013 = [FER2013_LABELS.index(e) if e in FER2013_LABELS else -1 for e in expressions]
    votes = np.zeros((len(images), len(_VOTE_COLUMNS)), np.float32)
    votes[np.arange(len(images)), [FERPLUS_LABELS.index(e) for e in expressions]] = 10
    return Dataset(np.stack(images), np.array(fer2013, np.int64), votes, np.zeros(len(images), np.bool_))
