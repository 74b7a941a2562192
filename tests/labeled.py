"""Data sets whose labels a test says row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_fer.core import Expression
from evaluation.datasets import FER2013_LABELS, FERPLUS_LABELS, Dataset


def labeled(
    fer2013: Sequence[Expression | None],
    ferplus: Sequence[Expression | None] = (),
    *,
    seen: Sequence[bool] = (),
    size_hw: tuple[int, int] = (48, 48),
) -> Dataset:
    """Faces with these labels, None for none; every image is of one gray level, its number.

    Args:
        fer2013: FER2013's label of each row.
        ferplus: what all ten raters say; nothing where it is left out.
        seen: which rows stand in Training too; none where it is left out.
        size_hw: of the images.
    """
    n = len(fer2013)
    images = np.broadcast_to(np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), (n, *size_hw, 1))
    codes = np.array([-1 if label is None else FER2013_LABELS.index(label) for label in fer2013])
    votes = np.zeros((n, 10), np.float32)
    for row, label in enumerate(ferplus):
        if label is not None:
            votes[row, FERPLUS_LABELS.index(label)] = 10
    return Dataset(images.copy(), codes, votes, np.array(seen or [False] * n))
