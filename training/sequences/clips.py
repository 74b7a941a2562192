"""The sequences of a data set as arrays: clips of one length, whose last frame is the peak, in folds by people."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import datasets
from datasets import SIDE, Dataset
from edge_fer.core import Expression
from edge_fer.errors import DataError
from evaluation.folds import k_folds

WEAK = (0.4, 0.7, 1.0)
"""How much of the peak is in each frame of a synthetic clip; see ``Clips.weakened``."""


@dataclass(frozen=True)
class Clips:
    """Sequences of one length.

    Attributes:
        images: uint8 (n, frames, height, width, 1), in the order of time; the last frame of each is its peak.
        truth: int64 (n,), places in ``labels``.
        subjects: texts (n,).
        folds: int64 (n,), in which fold each is tested; nobody is in two.
        labels: the data set's expressions.
    """

    images: NDArray[np.uint8]
    truth: NDArray[np.int64]
    subjects: NDArray[np.str_]
    folds: NDArray[np.int64]
    labels: tuple[Expression, ...]

    def weakened(self) -> Clips:
        """Synthetic clips in which the expression grows: ``WEAK`` of the peak, the rest of a mean of the same person.

        The mean is of the first frames of the person's other expressions, two or more, so that what they have in
        common, the person, stays, and no single one of them shows. People with fewer expressions are left out.

        Raises:
            DataError: nobody has three expressions.
        """
        kept, frames = [], []
        for at, person in enumerate(self.subjects):
            others = (self.subjects == person) & (self.truth != self.truth[at])
            if len(np.unique(self.truth[others])) >= 2:
                rest = self.images[others, 0].mean(axis=0)
                peak = self.images[at, -1].astype(np.float64)
                frames.append([np.rint(part * peak + (1 - part) * rest) for part in WEAK])
                kept.append(at)
        if not kept:
            raise DataError("Synthetic clips want people with three expressions or more, and nobody here has them.")
        own = {name: getattr(self, name)[kept] for name in ("truth", "subjects", "folds")}
        return dataclasses.replace(self, images=np.array(frames).astype(np.uint8), **own)


class Examples(NamedTuple):
    """What a network learns from, or is asked about.

    Attributes:
        inputs: float32 (n, 2, frames, ...): of each clip as it is, and mirrored.
        truth: int64 (n,).
        subjects: texts (n,).
        classes: how many there are.
    """

    inputs: NDArray[np.float32]
    truth: NDArray[np.int64]
    subjects: NDArray[np.str_]
    classes: int


def split(clips: Clips, inputs: NDArray[np.float32], fold: int) -> tuple[Examples, Examples]:
    """What is learned from where a fold is tested, and the fold itself; ``inputs`` as in ``Examples``, of all clips."""
    test = clips.folds == fold
    one, other = (
        Examples(inputs[rows], clips.truth[rows], clips.subjects[rows], len(clips.labels)) for rows in (~test, test)
    )
    return one, other


class Sequences(NamedTuple):
    """The frames of a data set by sequence.

    Attributes:
        names: texts (n,).
        rows: of each sequence, in the order of its frames.
        truth: int64 (n,).
        subjects: texts (n,).
        folds: int64 (n,), in which each is tested.
    """

    names: NDArray[np.str_]
    rows: list[NDArray[np.int64]]
    truth: NDArray[np.int64]
    subjects: NDArray[np.str_]
    folds: NDArray[np.int64]


def sequences_of(data: Dataset, k: int) -> Sequences:
    """The sequences of a data set, in folds by people.

    Args:
        data: with people and sequences. All frames of one have its expression: first frames are not taken as neutral.
        k: folds.

    Raises:
        EdgeFerError: it has no people or sequences, one expression alone, or too few people for the folds.
    """
    if data.sequences is None or data.subjects is None:
        raise DataError(
            "This data set does not tell its people and sequences: give one like CK+48, with its file names."
        )
    labels = data.heads[0].labels
    truth = next(iter(data.labels.values())).truth
    if len(shown := np.unique(truth)) < 2:
        raise DataError(f"All sequences show {labels[shown[0]]}: there is nothing to tell apart.")
    fold_of = np.zeros(len(data), np.int64)
    for number, rows in enumerate(k_folds(data, k)):
        fold_of[rows] = number
    names, first = np.unique(data.sequences, return_index=True)
    of_each = [np.flatnonzero(data.sequences == name) for name in names]
    return Sequences(names, of_each, truth[first], data.subjects[first], fold_of[first])


def load_clips(folder: Path, k: int, frames: int = 3, size_hw: tuple[int, int] = (SIDE, SIDE)) -> Clips:
    """Read the sequences of a data set.

    Args:
        folder: see ``datasets.load_test``; first frames are not taken as neutral.
        k: folds.
        frames: of each clip, 2 or more, that ``load_test`` takes of a whole sequence: the last, or those in the
            middle. Of a longer one in class folders they are spread over it, and end with its last; of a shorter one
            some are repeated.
        size_hw: what faces are brought to.

    Raises:
        EdgeFerError: there is no data set, or it has no people or sequences, one expression alone, a sequence of a
            single frame, or too few people for the folds.
    """
    data = datasets.load_test(folder, size_hw=size_hw, frames=frames, neutral=False)
    sequences = sequences_of(data, k)
    images = []
    for name, rows in zip(sequences.names, sequences.rows, strict=True):
        if len(rows) < 2:
            raise DataError(f"Sequence {name} has one frame alone: leave it out, or give two frames or more of each.")
        images.append(data.images[rows[np.rint(np.linspace(0, len(rows) - 1, frames)).astype(int)]])
    return Clips(np.array(images), sequences.truth, sequences.subjects, sequences.folds, data.heads[0].labels)


def views(images: NDArray[Any]) -> NDArray[np.float32]:
    """Clips as they are and mirrored: (n, frames, height, width, c) -> (n, 2, frames, height, width, c)."""
    return np.stack([images, images[..., ::-1, :]], axis=1).astype(np.float32)
