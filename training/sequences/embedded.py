"""Synthetic sequences as a bundle's own int8 graph sees them: the embeddings of their frames, and what they show.

A step of a recurrent head is a frame of 1/30 s. Frames that come more seldom, or are dropped, are held over the steps
before them, as ``edge_fer.temporal.recurrent`` does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from datasets import Dataset, truth_for
from edge_fer.core import Expression
from edge_fer.errors import DataError
from edge_fer.model.bundle import Bundle
from edge_fer.model.litert import Network
from edge_fer.model.spec import Head
from edge_fer.temporal.recurrent import RecurrentSpec
from export.embedding import with_embedding
from training.sequences.synthetic import HZ, dissolved

FRAMES = 90
"""Of a sequence that is learned from."""
SETTLED = 15
"""Steps for which a first frame is held before; the device holds it for longer, and it hardly changes any more."""
CHANGE_S, DISSOLVE_S = (0.6, 2.2), (0.1, 0.5)
"""Within these, when a change begins and how long it takes."""
UNCHANGED = 0.25
"""Fraction of the sequences that show one face all the time."""
STRIDES = (1, 1, 2, 2, 3, 6)
"""Every how many frames one comes: 30, 15, 10 and 5 a second."""
DROPPED = 0.3
"""Fraction of the frames that are dropped in some sequences, at most."""
CLEAR = 0.25
"""A frame with more than this, and less than 1 - this, of the later face shows neither."""


class Faces(NamedTuple):
    """Faces that sequences are made of.

    Attributes:
        images: uint8 (n, height, width, 1).
        truth: int64 (n,), places in the labels.
        groups: texts (n,): only faces of one group dissolve into each other.
    """

    images: NDArray[np.uint8]
    truth: NDArray[np.int64]
    groups: NDArray[np.str_]


class Clips(NamedTuple):
    """n sequences at 30 frames a second.

    Attributes:
        embeddings: int8 (n, frames, embedding).
        truth: int64 (n, frames), places in the labels; -1 between two.
        groups: texts (n,).
    """

    embeddings: NDArray[np.int8]
    truth: NDArray[np.int64]
    groups: NDArray[np.str_]

    def only(self, rows: NDArray[np.bool_]) -> Clips:
        """Some of the sequences."""
        return Clips(self.embeddings[rows], self.truth[rows], self.groups[rows])


class Embedder:
    """A bundle's own graph, with its embedding as a second output.

    Args:
        bundle: of expressions, with a decision rule.

    Attributes:
        bundle: as given.
        labels: of its decision rule.
        size_hw: of its crops.
        spec: of a head for it, but for kind and units.

    Raises:
        DataError: it has no decision rule, or no such graph.
    """

    def __init__(self, bundle: Bundle) -> None:
        if bundle.metadata.decision is None:
            raise DataError(f"{bundle} has no decision rule: `python -m evaluation fit` gives it one.")
        self.bundle, self.labels = bundle, bundle.metadata.decision.labels
        self._network = Network(with_embedding(bundle.model))
        (source,), (_, output) = self._network.inputs, self._network.outputs
        _, height, width, _ = source.shape
        self.size_hw = (height, width)
        self.spec = RecurrentSpec("gru", 16, output.shape[1], output.scale, output.zero_point, step_s=1 / HZ)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        """The embedding, int8 (embedding,), of a crop, uint8 (height, width, 1)."""
        embedding: NDArray[np.int8] = self._network.run(image[np.newaxis])[1][0]
        return embedding

    def real(self, raw: NDArray[np.int8]) -> NDArray[np.float32]:
        """Embeddings in real units."""
        return (raw.astype(np.float32) - self.spec.zero_point) * np.float32(self.spec.scale)


def faces_of(data: Dataset, labels: tuple[Expression, ...], groups: NDArray[np.str_] | None) -> Faces:
    """The faces of a data set with a label that a bundle reports.

    Args:
        data: n samples.
        labels: of the decision rule.
        groups: texts (n,); None where all faces are of one.
    """
    truth = truth_for(data, Head("ferplus", labels))
    known = truth >= 0
    return Faces(data.images[known], truth[known], np.full(len(data), "")[known] if groups is None else groups[known])


def clips_of(faces: Faces, embedder: Embedder, count: int, seed: int) -> Clips:
    """Synthetic sequences. Expressions have equal chances, as far as a group has them.

    Args:
        faces: what they are made of.
        embedder: sees the frames.
        count: how many.
        seed: of all that is drawn.

    Raises:
        DataError: there are no faces.
    """
    if not len(faces.images):
        raise DataError("No face has a label that the bundle reports: sequences cannot be made.")
    chance = np.random.default_rng(seed)
    names = np.unique(faces.groups)
    embeddings, truths, groups = [], [], []
    for number in track(range(count), "Sequences", console=Console(stderr=True)):
        group = names[number % len(names)]
        rows = np.flatnonzero(faces.groups == group)
        before = _drawn(faces.truth, rows, chance)
        others = rows[faces.truth[rows] != faces.truth[before]]
        changes = len(others) > 0 and chance.random() >= UNCHANGED
        after = _drawn(faces.truth, others, chance) if changes else before
        begin, length = chance.uniform(*CHANGE_S), chance.uniform(*DISSOLVE_S)
        parts = np.clip((np.arange(FRAMES) / HZ - begin) / length, 0, 1)
        images = dissolved(faces.images[before, ..., 0], faces.images[after, ..., 0], parts, chance)
        embeddings.append([embedder(image) for image in images])
        early, late = faces.truth[before], faces.truth[after]
        truths.append(
            np.where(parts <= CLEAR, early, np.where(parts >= 1 - CLEAR, late, early if early == late else -1))
        )
        groups.append(group)
    return Clips(np.array(embeddings, np.int8), np.array(truths), np.array(groups))


def _drawn(truth: NDArray[np.int64], rows: NDArray[np.int64], chance: np.random.Generator) -> int:
    """One of the rows; first its label is drawn."""
    label = chance.choice(np.unique(truth[rows]))
    return int(chance.choice(rows[truth[rows] == label]))


def arrivals(clips: Clips, chance: np.random.Generator) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """What a head sees of sequences of which not all frames come.

    Returns:
        Embeddings by step, int8 (n, SETTLED - 1 + frames, embedding): of each step the next frame that comes, the first
        one also before; and the truth, int64 like it, -1 also where no frame comes.
    """
    count, frames = clips.truth.shape
    places, truth = np.zeros((count, frames), np.int64), np.full((count, frames), -1)
    for row in range(count):
        come = np.zeros(frames, bool)
        come[:: chance.choice(STRIDES)] = True
        come &= chance.random(frames) >= chance.choice([0.0, DROPPED])
        come[0] = True
        at = np.flatnonzero(come)
        places[row] = at[np.minimum(np.searchsorted(at, np.arange(frames)), len(at) - 1)]
        truth[row, at] = clips.truth[row, at]
    held = clips.embeddings[np.arange(count)[:, np.newaxis], places]
    before = SETTLED - 1
    return (
        np.concatenate([np.repeat(held[:, :1], before, axis=1), held], axis=1),
        np.concatenate([np.full((count, before), -1), truth], axis=1),
    )
