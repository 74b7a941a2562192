"""FER2013 and FER+.

* FER2013: Kaggle's ``fer2013.csv``, or ``icml_face_data.csv`` (the same with blanks in the column names).
* FER+: ``fer2013new.csv`` beside it, ten raters' votes for each row (Barsoum et al., arXiv 1608.01041).

The two are two tasks, and agree on 62 % of the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.core import Dataset, Labels
from datasets.reading import csv_table, numbers_of
from datasets.sample import Layout, Sample, Split
from edge_fer.core import Expression as E
from edge_fer.errors import DataError

SIDE = 48
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
FER2013_LABELS = (E.ANGER, E.DISGUST, E.FEAR, E.HAPPINESS, E.SADNESS, E.SURPRISE, E.NEUTRAL)
"""FER2013's expressions in the order of its codes 0-6."""
FERPLUS_LABELS = (E.NEUTRAL, E.HAPPINESS, E.SURPRISE, E.SADNESS, E.ANGER, E.DISGUST, E.FEAR, E.CONTEMPT)
"""FER+'s expressions in the order of its vote columns."""

_VOTE_COLUMNS = (*FERPLUS_LABELS, "unknown", "NF")
_NAME = re.compile(r"fer(\d{7})\.\w+")
_WHOLE = 28709
"""Training rows of the file as Kaggle has it."""
_SPLITS: dict[str, Split] = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}


def ferplus_labels(votes: NDArray[np.float32]) -> Labels:
    """FER+'s labels of its raters' votes, float32 (n, 10): FERPLUS_LABELS, then unknown and not-a-face.

    Single votes are dropped as noise. The truth is that of the reference code's strict rule (``majority`` in
    FERPlus/src/ferplus.py): the mode needs more than half of what is left, and must be an expression. A row teaches
    when more than half of the votes left are for expressions; its target is their distribution.
    """
    kept = np.where(votes > 1, votes, 0)
    mode = kept.argmax(axis=1)
    agreed = kept.max(axis=1) > 0.5 * kept.sum(axis=1)
    truth = np.where(agreed & (mode < len(FERPLUS_LABELS)), mode, -1)
    expressions = kept[:, : len(FERPLUS_LABELS)]
    total = expressions.sum(axis=1, keepdims=True)
    teaches = total > 0.5 * kept.sum(axis=1, keepdims=True)
    return Labels(FERPLUS_LABELS, truth, (expressions / np.maximum(total, 1) * teaches).astype(np.float32), votes)


def load_csv(fer2013: Path, ferplus: Path, exclude: Path | None) -> dict[str, Dataset]:
    """Read both files.

    Args:
        fer2013: one of ``CSV_NAMES``.
        ferplus: ``fer2013new.csv``; without it there is one task.
        exclude: a CSV whose column ``row`` lists Training rows to leave out, numbered from 0 as in Kaggle's whole file
            and FER+'s image names (``fer0000078.png`` is 78); None, or one that is not there, for none.

    Raises:
        DataError: a file has wrong content, or nobody can tell which rows ``exclude`` means.
    """
    usages: list[str] = []
    labels: list[int] = []
    images: list[NDArray[np.uint8]] = []
    for number, row in csv_table(fer2013, ("emotion", "pixels", "Usage")):
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
    names = _read_votes(ferplus, votes) if ferplus.is_file() else None
    usage = np.array(usages)
    kept = np.ones(len(images), np.bool_)
    if exclude is not None and exclude.is_file():
        unwanted = _unwanted(exclude)
        if names is not None:
            numbers: Sequence[int] = _numbers(names, ferplus)
        elif usages.count("Training") == _WHOLE:
            numbers = range(len(images))
        else:
            raise DataError(
                f"{exclude} numbers the rows of Kaggle's whole file, and {fer2013} has lost some of its {_WHOLE:,} "
                "Training rows: put fer2013new.csv beside it, whose names tell their numbers, or move the list away."
            )
        kept = np.array([number not in unwanted for number in numbers]) | (usage != "Training")
    by_task = {"fer2013": Labels.single(FER2013_LABELS, np.array(labels, np.int64))}
    if ferplus.is_file():
        by_task = {"ferplus": ferplus_labels(votes), **by_task}
    everything = Dataset(
        np.stack(images).reshape(-1, SIDE, SIDE, 1) if images else np.zeros((0, SIDE, SIDE, 1), np.uint8),
        by_task,
        np.zeros(len(images), np.bool_),
    )
    splits = {name: everything[kept & (usage == name)] for name in _SPLITS}
    for name in ("Training", "PublicTest"):
        if len(splits[name]) == 0:
            raise DataError(f"{fer2013} has no rows whose Usage is {name}.")
    return {name: split for name, split in splits.items() if len(split)}


def _csv(folder: Path) -> Path | None:
    return next((folder / name for name in CSV_NAMES if (folder / name).is_file()), None)


def _read(folder: Path) -> Iterator[Sample]:
    path = _csv(folder)
    if path is None:
        raise DataError(f"{folder} has neither {' nor '.join(CSV_NAMES)}.")
    for usage, data in load_csv(path, folder / "fer2013new.csv", None).items():
        votes = data.labels["ferplus"].votes if "ferplus" in data.labels else None
        for row, (image, code) in enumerate(zip(data.images, data.labels["fer2013"].truth.tolist(), strict=True)):
            raters = None if votes is None else tuple(votes[row].tolist())
            yield Sample(
                path, str(code), FER2013_LABELS[code], pixels=image[..., 0], split=_SPLITS[usage], votes=raters
            )


LAYOUT = Layout(
    name="fer2013",
    title="FER2013 (Goodfellow et al., 2013), FER+",
    wants="fer2013.csv or icml_face_data.csv, perhaps fer2013new.csv",
    labels={str(code): one for code, one in enumerate(FER2013_LABELS)},
    recognizes=lambda folder: _csv(folder) is not None,
    read=_read,
    counts={"train": 28709, "validation": 3589, "test": 3589},
    survey="28,709, 3,589 and 3,589 images; where a digest says six labels, they are seven, with neutral.",
    licence="Kaggle challenge; images from the web; FER+ labels MIT",
    splits=True,
    faces=True,
)


def _read_votes(path: Path, votes: NDArray[np.float32]) -> list[str]:
    """Fill in the votes, row for row; return FER+'s image names, empty where it says not-a-face."""
    names: list[str] = []
    for number, row in csv_table(path, ("Image name", *_VOTE_COLUMNS)):
        if len(names) == len(votes):
            raise DataError(f"{path} has more rows than fer2013.csv: the two belong together row by row.")
        try:
            counts = [int(row[column]) for column in _VOTE_COLUMNS]
            votes[len(names)] = numbers_of(map(str, counts))
        except ValueError:
            raise DataError(f"{path}, line {number}: a vote is not a whole number.") from None
        names.append(row["Image name"].strip())
    if len(names) < len(votes):
        raise DataError(f"{path} has {len(names)} rows and fer2013.csv {len(votes)}: they belong together row by row.")
    return names


def _numbers(names: Sequence[str], path: Path) -> list[int]:
    """The rows that FER+'s image names tell; -1 where it says not-a-face and names none."""
    matches = [_NAME.fullmatch(name) for name in names]
    if wrong := [name for name, match in zip(names, matches, strict=True) if name and not match]:
        raise DataError(f"{path}: {wrong[0]!r} is no image name of FER+, which are fer0000078.png and the like.")
    return [int(match[1]) if match else -1 for match in matches]


def _unwanted(path: Path) -> set[int]:
    rows = set()
    for number, row in csv_table(path, ("row",)):
        try:
            rows.add(int(row["row"]))
        except ValueError:
            raise DataError(f"{path}, line {number}: {row['row']!r} is no row, which is a whole number.") from None
    return rows
