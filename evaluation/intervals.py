"""95 % intervals by bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8.4 and 13)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

DRAWS = 2000
SEED = 0
_AT_A_TIME = 250
"""Draws of which the weights are held in memory together."""


def bootstrap(
    truth: NDArray[np.int64],
    reported: NDArray[np.int64],
    uncertain: NDArray[np.bool_],
    classes: int,
    groups: NDArray[np.str_] | None = None,
) -> dict[str, Interval]:
    """Percentile intervals of ``accuracy``, ``mean_recall`` and ``uncertain``, each 0-1.

    The images of one person are alike. Where it is known who is in an image, people are drawn and not images: an
    interval over images would be too narrow.

    Args:
        truth: int64 (n,), 0 to ``classes`` - 1; n > 0.
        reported: likewise.
        uncertain: bool (n,).
        classes: how many there are.
        groups: who is in each image, texts (n,); None where each stands alone.

    Returns:
        The 2.5 and 97.5 percentiles of ``DRAWS`` draws. The mean recall of a draw is over the classes that are in it.
    """
    n = len(truth)
    group = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(group.max()) + 1
    cells = np.zeros((count, classes * classes + 1), np.float32)  # a group's confusion, and its uncertain images
    np.add.at(cells, (group, truth * classes + reported), 1)
    cells[:, -1] = np.bincount(group, weights=uncertain)
    generator = np.random.default_rng(SEED)
    drawn = []
    for _ in range(0, DRAWS, _AT_A_TIME):
        weights = generator.multinomial(count, np.full(count, 1 / count), _AT_A_TIME)
        drawn.append(weights.astype(np.float32) @ cells)
    sums = np.concatenate(drawn).astype(np.float64)
    confusion = sums[:, :-1].reshape(DRAWS, classes, classes)
    images, hits, rows = confusion.sum((1, 2)), np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(2)
    recall = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    metrics = {
        "accuracy": hits.sum(1) / images,
        "mean_recall": recall.sum(1) / (rows > 0).sum(1),
        "uncertain": sums[:, -1] / images,
    }
    limits = {name: np.percentile(values, (2.5, 97.5)) for name, values in metrics.items()}
    return {name: (round(float(low), 4), round(float(high), 4)) for name, (low, high) in limits.items()}
