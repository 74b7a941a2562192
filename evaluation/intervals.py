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
    group = _numbers(truth, groups)
    flagged = np.bincount(group, weights=uncertain)[:, np.newaxis]
    sums = _drawn(np.hstack([_confusions(truth, reported, classes, group), flagged]))
    metrics = _metrics(sums[:, :-1], classes)
    metrics["uncertain"] = sums[:, -1] / sums[:, :-1].sum(axis=1)
    return {name: _limits(values) for name, values in metrics.items()}


def paired_bootstrap(
    truth: NDArray[np.int64],
    reported: NDArray[np.int64],
    other: NDArray[np.int64],
    classes: int,
    groups: NDArray[np.str_] | None = None,
) -> dict[str, Interval]:
    """Percentile intervals of how far ``other`` lies above ``reported`` in accuracy and mean recall, -1 to 1.

    Both are drawn together: what is hard for both does not widen the interval, as it does those of each alone.

    Args:
        truth: as for ``bootstrap``.
        reported: the answers of one model.
        other: those of another one of the same images.
        classes: how many there are.
        groups: as for ``bootstrap``.
    """
    group = _numbers(truth, groups)
    both = [_confusions(truth, answers, classes, group) for answers in (reported, other)]
    ours, theirs = (_metrics(sums, classes) for sums in np.hsplit(_drawn(np.hstack(both)), 2))
    return {name: _limits(theirs[name] - ours[name]) for name in ours}


def unpaired_bootstrap(
    one: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.str_] | None],
    other: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.str_] | None],
    classes: int,
) -> dict[str, Interval]:
    """Percentile intervals of how far one model lies higher on other images than on some, -1 to 1.

    People who are in one part alone are drawn for it by themselves. Who is in both is drawn once for both: what is hard
    with a person does not widen the interval.

    Args:
        one: truth, answers and people of some images, as for ``bootstrap``.
        other: of others.
        classes: as for ``bootstrap``.
    """
    cells = [_confusions(truth, answers, classes, _numbers(truth, groups)) for truth, answers, groups in (one, other)]
    ours, theirs = (
        np.zeros(len(part), np.bool_) if who is None or others is None else np.isin(np.unique(who), others)
        for part, who, others in ((cells[0], one[2], other[2]), (cells[1], other[2], one[2]))
    )
    both = np.hsplit(_drawn(np.hstack([cells[0][ours], cells[1][theirs]]), SEED + 2), 2)
    alone = _drawn(cells[0][~ours], SEED), _drawn(cells[1][~theirs], SEED + 1)
    first, second = (_metrics(shared + rest, classes) for shared, rest in zip(both, alone, strict=True))
    return {name: _limits(second[name] - first[name]) for name in first}


def _numbers(truth: NDArray[np.int64], groups: NDArray[np.str_] | None) -> NDArray[np.intp]:
    return np.arange(len(truth)) if groups is None else np.unique(groups, return_inverse=True)[1]


def _confusions(
    truth: NDArray[np.int64], reported: NDArray[np.int64], classes: int, group: NDArray[np.intp]
) -> NDArray[np.float32]:
    """The confusion matrix of each group, flat: float32 (groups, classes * classes)."""
    cells = np.zeros((int(group.max()) + 1, classes * classes), np.float32)
    np.add.at(cells, (group, truth * classes + reported), 1)
    return cells


def _drawn(cells: NDArray[np.floating], seed: int = SEED) -> NDArray[np.float64]:
    """Sums over as many groups as there are, drawn with replacement: float64 (DRAWS, columns)."""
    count, generator = len(cells), np.random.default_rng(seed)
    if not count:
        return np.zeros((DRAWS, cells.shape[1]))
    weights = (generator.multinomial(count, np.full(count, 1 / count), _AT_A_TIME) for _ in range(0, DRAWS, _AT_A_TIME))
    return np.concatenate([some.astype(np.float32) @ cells.astype(np.float32) for some in weights]).astype(np.float64)


def _metrics(confusions: NDArray[np.float64], classes: int) -> dict[str, NDArray[np.float64]]:
    confusion = confusions.reshape(-1, classes, classes)
    hits, rows = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=2)
    recall = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    return {
        "accuracy": hits.sum(axis=1) / rows.sum(axis=1),
        "mean_recall": recall.sum(axis=1) / (rows > 0).sum(axis=1),
    }


def _limits(values: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)
