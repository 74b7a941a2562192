"""What a data set is: faces, and one or several labelings of them, each in the data set's own terms."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Expression
from edge_fer.model.spec import Head

Rows = NDArray[np.bool_] | NDArray[np.int64] | slice


@dataclass(frozen=True)
class Labels:
    """One labeling of the samples: a task that a head can learn and be measured by.

    Attributes:
        expressions: its classes, in the order of their codes.
        truth: int64 (n,), the class by which a sample is measured; -1 where it has none.
        targets: float32 (n, classes), what a head is to say in training: a distribution over the classes; zeros where
            a sample teaches nothing.
        votes: float32 (n, k), how many raters chose each class, and behind the classes what else they could choose;
            None where there is one label a sample.
    """

    expressions: tuple[Expression, ...]
    truth: NDArray[np.int64]
    targets: NDArray[np.float32]
    votes: NDArray[np.float32] | None = None

    @classmethod
    def single(cls, expressions: tuple[Expression, ...], truth: NDArray[np.int64]) -> Labels:
        """One label a sample; -1 where there is none."""
        targets = np.eye(len(expressions), dtype=np.float32)[np.maximum(truth, 0)] * (truth >= 0)[:, np.newaxis]
        return cls(expressions, truth, targets.astype(np.float32))

    @property
    def is_soft(self) -> bool:
        """Whether the targets come from several raters, and are soft already."""
        return self.votes is not None

    def __getitem__(self, rows: Rows) -> Labels:
        votes = None if self.votes is None else self.votes[rows]
        return Labels(self.expressions, self.truth[rows], self.targets[rows], votes)


@dataclass(frozen=True)
class Dataset:
    """Faces with their labels, sample by sample.

    Attributes:
        images: uint8 (n, height, width, 1).
        labels: by the name of the task; the first is what a device would report.
        also_in_training: bool (n,), the very same pixels stand among the Training samples too.
        subjects: who it is, as the data set numbers its people: texts (n,); None where it does not tell.
        sequences: which sequence a sample is a frame of: texts (n,); None where samples stand alone.
        compounds: two expressions at once ("happily surprised"): texts (n,), "" for none; None where there are none.
        attributes: of people or recordings, by name ("gender"), in the data set's words: texts (n,), "" for unknown.
        landmarks: float32 (n, 10), see ``datasets.landmarks_file``; None where nobody asked for them.
        source_sha256: ``sha256`` before the faces were aligned or put into other light; "" where they were not.
    """

    images: NDArray[np.uint8]
    labels: Mapping[str, Labels]
    also_in_training: NDArray[np.bool_]
    subjects: NDArray[np.str_] | None = None
    sequences: NDArray[np.str_] | None = None
    compounds: NDArray[np.str_] | None = None
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    landmarks: NDArray[np.float32] | None = None
    source_sha256: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Rows) -> Dataset:
        return Dataset(
            self.images[rows],
            {name: labels[rows] for name, labels in self.labels.items()},
            self.also_in_training[rows],
            None if self.subjects is None else self.subjects[rows],
            None if self.sequences is None else self.sequences[rows],
            None if self.compounds is None else self.compounds[rows],
            {name: values[rows] for name, values in self.attributes.items()},
            None if self.landmarks is None else self.landmarks[rows],
        )

    def replace(self, **changes: Any) -> Dataset:
        """The same with other fields."""
        return dataclasses.replace(self, **changes)

    @property
    def heads(self) -> tuple[Head, ...]:
        """A head for each task: what a network needs to learn all that the data set teaches."""
        return tuple(Head(name, labels.expressions) for name, labels in self.labels.items())

    @property
    def sha256(self) -> str:
        """Hash of all pixels and labels, to say in a run what it was trained on."""
        digest = hashlib.sha256()
        digest.update(np.ascontiguousarray(self.images).data)
        for _, labels in sorted(self.labels.items()):
            digest.update(np.ascontiguousarray(labels.truth if labels.votes is None else labels.votes).data)
        return digest.hexdigest()


def truth_for(data: Dataset, head: Head) -> NDArray[np.int64]:
    """Labels for a head, int64 (n,), as indices into its own labels; -1 where a sample has none that the head knows.

    A head is measured by the task of its name. Where the data set has none, by the task whose classes are most like
    its own, so that data sets and models can be crossed, whatever they call their tasks: most of the head's labels
    known, then fewest that it does not know, then the first.
    """
    labels = data.labels.get(head.name) or min(data.labels.values(), key=lambda one: _unlikeness(one, head))
    to_head = np.array([head.labels.index(one) if one in head.labels else -1 for one in labels.expressions] + [-1])
    return to_head[labels.truth]


def _unlikeness(labels: Labels, head: Head) -> tuple[int, int]:
    theirs, ours = set(labels.expressions), set(head.labels)
    return -len(theirs & ours), len(theirs - ours)
