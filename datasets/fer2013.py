"""FER2013 and FER+.

* FER2013: Kaggle's ``fer2013.csv``, or ``icml_face_data.csv`` (the same with blanks in the column names).
* FER+: ``fer2013new.csv`` beside it, ten raters' votes for each row (Barsoum et al., arXiv 1608.01041).

The two are two tasks, and agree on 62 % of the rows.
"""

from __future__ import annotations

import csv
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.core import Dataset, Labels
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
        exclude: a CSV whose column ``row`` lists Training rows to leave out, numbered as in FER+'s image names
            (``fer0000078.png`` is 78); None, or one that is not there, for none.

    Raises:
        DataError: a file has wrong content.
    """
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
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            missing = [column for column in columns if column not in reader.fieldnames]
            if missing:
                raise DataError(_about_archive(path) or f"{path} has no column {', '.join(missing)}.")
            for row in reader:
                if None in row.values():
                    raise DataError(f"{path}, line {reader.line_num}: the row is too short.")
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(_about_archive(path) or f"{path} cannot be read as CSV: {error}.") from None


def _about_archive(path: Path) -> str | None:
    """What to do with a download that was unpacked once and is still an archive, under the CSV's name."""
    kind = "tar" if tarfile.is_tarfile(path) else "zip" if zipfile.is_zipfile(path) else None
    return kind and f"{path} is no CSV but a {kind} archive: unpack it, and give the folder that then holds the CSV."
