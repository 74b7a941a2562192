"""Data sets whose labels a test says sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets import Dataset, Labels
from datasets.fer2013 import FER2013_LABELS, FERPLUS_LABELS, ferplus_labels
from edge_fer.core import Expression
from edge_fer.model.spec import Head

HEADS = (Head("ferplus", FERPLUS_LABELS), Head("fer2013", FER2013_LABELS))
"""Of a network for FER2013 with FER+."""


def labeled(
    fer2013: Sequence[Expression | None],
    ferplus: Sequence[Expression | None] = (),
    *,
    seen: Sequence[bool] = (),
    size_hw: tuple[int, int] = (48, 48),
) -> Dataset:
    """Faces with these labels, None for none; every image is of one gray level, its number.

    Args:
        fer2013: FER2013's label of each sample.
        ferplus: what all ten raters say; there is no such task where it is left out.
        seen: which samples stand in Training too; none where it is left out.
        size_hw: of the images.
    """
    n = len(fer2013)
    images = np.broadcast_to(np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), (n, *size_hw, 1))
    codes = np.array([-1 if label is None else FER2013_LABELS.index(label) for label in fer2013])
    labels = {"fer2013": Labels.single(FER2013_LABELS, codes)}
    if ferplus:
        votes = np.zeros((n, 10), np.float32)
        for row, label in enumerate(ferplus):
            if label is not None:
                votes[row, FERPLUS_LABELS.index(label)] = 10
        labels = {"ferplus": ferplus_labels(votes), **labels}
    return Dataset(images.copy(), labels, np.array(seen or [False] * n))
